"""Optimizer state from and to PyTorch and Keras: training goes on in the other framework.

Neither framework is imported: plain dicts and lists of ndarrays go in and come out. Parameters are
the caller's to copy; arrays of other layouts, transposed ones say, are not converted.

From and to PyTorch, `torch_opt` being a `torch.optim` optimizer and `arrays` those of `opt`, an
optimizer with ``convention="torch"``, in the order in which `torch_opt` was given its own::

    interop.from_torch(opt, torch_opt.state_dict(), order=arrays)

    d = interop.to_torch(opt, order=arrays)
    for slots in d["state"].values():
        slots.update({name: torch.as_tensor(slot) for name, slot in slots.items()})
    torch_opt.load_state_dict(d)

From and to Keras, `keras_opt` being a `keras.optimizers` optimizer that is built and `opt` one with
``convention="keras"`` and the same hyperparameters::

    variables = [(v.path, np.asarray(v)) for v in keras_opt.variables]
    interop.from_keras(opt, variables, order=arrays)

    for variable, array in zip(keras_opt.variables, interop.to_keras(opt, order=arrays)):
        variable.assign(array)

To a safetensors file, which other programs read, and back (``pip install safetensors``)::

    interop.to_safetensors(opt, "checkpoint.safetensors")
    interop.from_safetensors(opt, "checkpoint.safetensors")

Examples
--------
>>> import numpy as np
>>> import instep
>>> from instep import interop
>>> w, b = np.ones((2, 3)), np.zeros(2)
>>> opt = instep.Adam({"w": w, "b": b}, convention="torch")
>>> opt.step({"w": np.ones((2, 3)), "b": np.ones(2)})
>>> d = interop.to_torch(opt, order=[w, b])
>>> d["param_groups"][0]["betas"], d["param_groups"][0]["params"]
((0.9, 0.999), [0, 1])
>>> d["state"][1]["exp_avg"]
array([0.1, 0.1])
>>> interop.from_torch(opt, d, order=[w, b])
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from instep import _checkpoint, _core
from instep._binding import Binding, Values, _memory_of, rule_of
from instep._optimizer import Optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "from_keras",
    "from_safetensors",
    "from_torch",
    "to_keras",
    "to_safetensors",
    "to_torch",
]

T = TypeVar("T")

# PyTorch ----------------------------------------------------------------------------------------


class _Torch(NamedTuple):
    """What PyTorch calls a rule, its own entries of `param_groups`, and its state.

    `decoupled` holds what its flag ``decoupled_weight_decay`` may be, first what it is where the
    entry is missing.
    """

    name: str
    entries: tuple[str, ...]
    slots: Mapping[str, str]
    decoupled: tuple[bool, ...] = (False,)
    counters: tuple[str, ...] = ("step",)


_FLAG = "decoupled_weight_decay"
_MOMENTS = {"exp_avg": "m", "exp_avg_sq": "v"}
_ADAM_ENTRIES = ("betas", "eps", "amsgrad", _FLAG)
_ADAM_SLOTS = {**_MOMENTS, "max_exp_avg_sq": "v_max"}

_TORCH: Mapping[str, _Torch] = {
    "SGD": _Torch(
        "SGD", ("momentum", "dampening", "nesterov"), {"momentum_buffer": "momentum"}, counters=()
    ),
    "Adagrad": _Torch(
        "Adagrad", ("lr_decay", "eps", "initial_accumulator_value"), {"sum": "accumulator"}
    ),
    "RMSprop": _Torch(
        "RMSprop",
        ("momentum", "alpha", "eps", "centered"),
        {"square_avg": "mean_square", "momentum_buffer": "momentum", "grad_avg": "mean_gradient"},
    ),
    "Adadelta": _Torch(
        "Adadelta",
        ("rho", "eps"),
        {"square_avg": "mean_square", "acc_delta": "mean_square_update"},
    ),
    "Adam": _Torch("Adam", _ADAM_ENTRIES, _ADAM_SLOTS),
    "AdamW": _Torch("AdamW", _ADAM_ENTRIES, _ADAM_SLOTS, decoupled=(True,)),
    "Adamax": _Torch("Adamax", ("betas", "eps"), {"exp_avg": "m", "exp_inf": "u"}),
    "Nadam": _Torch(
        "NAdam",
        ("betas", "eps", "momentum_decay", _FLAG),
        {"mu_product": "u_product", **_MOMENTS},
        decoupled=(False, True),
    ),
    "RAdam": _Torch("RAdam", ("betas", "eps", _FLAG), _MOMENTS, decoupled=(False, True)),
}

_COMMON_ENTRIES = ("lr", "weight_decay", "maximize")
_ALL_ENTRIES = {*_COMMON_ENTRIES, *(entry for rule in _TORCH.values() for entry in rule.entries)}
_HYPERPARAMETERS = {
    "lr": ("learning_rate",),
    "betas": ("beta_1", "beta_2"),
    "eps": ("epsilon",),
    "alpha": ("rho",),
    "lr_decay": ("learning_rate_decay",),
    "weight_decay": (),  # `l2` or `weight_decay`, as the flag says
    _FLAG: (),
}
"""What entries of `param_groups` are here, where they have another name."""


def from_torch(
    optimizer: Optimizer,
    state_dict: Mapping[str, Any],
    *,
    order: Sequence[NDArray[Any]] | None = None,
) -> None:
    """Take over the state and the hyperparameters of a `torch.optim` optimizer.

    Parameters
    ----------
    optimizer
        Bound, with ``convention="torch"``: SGD, Adagrad, RMSprop, Adadelta, Adam, AdamW, Adamax,
        Nadam or RAdam.
    state_dict
        What `state_dict()` of the PyTorch optimizer of the same rule returns. Its tensors, on the
        CPU, may be ndarrays instead.
    order
        The optimizer's arrays in the order of PyTorch's parameters. By default the order in which
        the structure is walked, that is, dicts by sorted keys.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If the state is of another rule, incomplete, or not for these arrays. Nothing has changed
        then.

    Notes
    -----
    PyTorch's parameter groups become those of the optimizer, which must have as many arrays each:
    PyTorch's first group is the one that the first array in `order` is in, and so on. What groups
    differ in, each `instep.Group` must have as an option. Other options than those of PyTorch's
    groups stay as they are, and so does a learning rate that is a schedule. PyTorch's SGD does not
    count its updates: `iterations` stays.
    """
    rule = _of(optimizer, "torch", _TORCH)
    binding = optimizer._bound("from_torch")
    _check_has_counterparts(optimizer, rule)
    for key, kind in (("state", Mapping), ("param_groups", Sequence)):
        if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get(key), kind):
            raise TypeError(
                "state_dict: expected a dict of 'state' and 'param_groups', as state_dict() of a "
                f"PyTorch optimizer returns it; got {_shown(state_dict)}"
            )
    state, theirs = state_dict["state"], state_dict["param_groups"]
    ours = _torch_groups(binding, order)
    for j, group in enumerate(theirs):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), Sequence):
            raise TypeError(
                f"state_dict['param_groups'][{j}]: expected a dict with a list 'params', "
                f"got {_shown(group)}"
            )
    sizes = [len(group["params"]) for group in theirs]
    if sizes != [len(leaves) for leaves in ours.values()]:
        raise ValueError(
            "state_dict['param_groups']: expected the groups that the optimizer has (see "
            f"instep.Group), of {[len(leaves) for leaves in ours.values()]} arrays; got groups of "
            f"{sizes}"
        )

    changed = _torch_hyperparameters(optimizer, binding, rule, list(zip(ours, theirs, strict=True)))
    initial = Binding(
        optimizer,
        binding.params,
        binding.tree,
        {**optimizer._values, **changed[0]},
        [{**old, **new} for old, new in zip(binding.overrides, [{}, *changed[1:]], strict=True)],
        binding.of_leaves,
    )
    leaf_of = {
        index: leaf
        for group, leaves in zip(theirs, ours.values(), strict=True)
        for index, leaf in zip(group["params"], leaves, strict=True)
    }
    stray = [index for index in state if index not in leaf_of]
    if stray or len(leaf_of) < sum(sizes):
        raise ValueError(
            f"state_dict['state']: expected the state of the {sum(sizes)} parameters that "
            f"'param_groups' lists, each once; got {_listed(stray) or 'some of them repeated'}"
        )

    d = optimizer.state_dict()
    d["hyperparameters"].update(changed[0])
    for k, new in enumerate(changed[1:], 1):
        d["groups"][str(k)].update(new)
    for index, leaf in leaf_of.items():
        path, before = binding.tree.paths[leaf], d["arrays"][binding.tree.paths[leaf]]
        step, slots = _torch_state(
            optimizer, rule, initial, leaf, state.get(index, {}), f"state_dict['state'][{index!r}]"
        )
        if step and not rule.counters:
            step = max(step, before["step"])
        kept = {name: value for name, value in before.items() if name not in binding.slots[leaf]}
        d["arrays"][path] = {**kept, "step": step, "in_window": False, **slots}
    if rule.counters:
        d["iterations"] = max((entry["step"] for entry in d["arrays"].values()), default=0)
    d["window"] = 0
    optimizer.load_state_dict(d)


def to_torch(
    optimizer: Optimizer, *, order: Sequence[NDArray[Any]] | None = None
) -> dict[str, Any]:
    """Return the state and the hyperparameters as the `state_dict` of a `torch.optim` optimizer.

    Parameters
    ----------
    optimizer, order
        As for `from_torch`.

    Returns
    -------
    dict
        What `load_state_dict` of a PyTorch optimizer of the same rule and the same parameter groups
        takes, once ``torch.as_tensor`` has made tensors of the ndarrays in it.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If PyTorch has no place for something: a hyperparameter of other conventions, `l2` and
        `weight_decay` at once, gradients in the middle of an accumulation window.

    Notes
    -----
    Of a schedule, the learning rate of the next update comes. Clipping, averages, accumulation and
    loss scaling are no part of PyTorch's optimizers. Switches of the implementation (``foreach``,
    ``fused`` and so on) get PyTorch's defaults.
    """
    rule = _of(optimizer, "torch", _TORCH)
    binding = optimizer._bound("to_torch")
    _check_has_counterparts(optimizer, rule)
    d = optimizer.state_dict()
    if d["window"]:
        raise ValueError(
            "optimizer: expected no gradients that wait for their update, for which PyTorch has "
            f"no place; got {d['window']} calls of a window"
        )
    state: dict[int, dict[str, Any]] = {}
    groups: list[Values] = []
    for k, leaves in _torch_groups(binding, order).items():
        first = sum(len(group["params"]) for group in groups)
        indices = list(range(first, first + len(leaves)))
        groups.append({**_torch_entries(optimizer, rule, k), "params": indices})
        for index, leaf in zip(indices, leaves, strict=True):
            entry = d["arrays"][binding.tree.paths[leaf]]
            slots = {name: entry[slot] for name, slot in rule.slots.items() if slot in entry}
            if rule.counters:
                state[index] = {"step": np.array(entry["step"], np.float32), **slots}
            elif slots and entry["step"]:
                state[index] = slots
    return {"state": state, "param_groups": groups}


def _torch_groups(binding: Binding, order: Sequence[Any] | None) -> dict[int, list[int]]:
    """Return the leaves of each group, all in PyTorch's order."""
    groups: dict[int, list[int]] = {}
    for leaf in _walk(binding, order):
        groups.setdefault(binding.of_leaves[leaf], []).append(leaf)
    return groups


def _torch_hyperparameters(
    optimizer: Optimizer,
    binding: Binding,
    rule: _Torch,
    groups: Sequence[tuple[int, Mapping[str, Any]]],
) -> list[Values]:
    """Return what changes in the hyperparameters, the default ones first, then each group's."""
    changed: list[Values] = [{} for _ in binding.overrides]
    for j, (k, group) in enumerate(groups):
        what = f"state_dict['param_groups'][{j}]"
        for name, value in _torch_values(optimizer, rule, group, what).items():
            of = k if name in binding.overrides[k] else 0
            here = binding.overrides[of].get(name, optimizer._values[name])
            if callable(here):
                continue
            if changed[of].setdefault(name, value) != value:
                raise ValueError(
                    f"{what}: expected {name}={changed[of][name]!r} as in the groups before, since "
                    f"the optimizer's group has no {name} of its own; got {value!r}"
                )
    return changed


def _torch_values(
    optimizer: Optimizer, rule: _Torch, group: Mapping[str, Any], what: str
) -> Values:
    """Return the hyperparameters that one of PyTorch's groups has, by their names here."""
    entries = {"maximize": False, _FLAG: rule.decoupled[0], **group}
    known = {*_COMMON_ENTRIES, *rule.entries}
    strange, missing = (_ALL_ENTRIES - known) & group.keys(), known - entries.keys()
    if strange or missing:
        raise ValueError(
            f"{what}: expected the entries of PyTorch's {rule.name}, {_listed(sorted(known))}; "
            + (f"got {_listed(sorted(strange))}" if strange else f"no {_listed(sorted(missing))}")
        )
    values: Values = {}
    hyperparameters = optimizer._hyperparameters()
    for entry in sorted(known):
        names = _HYPERPARAMETERS.get(entry, (entry,))
        given = entries[entry] if len(names) > 1 else [entries[entry]]
        try:
            if not isinstance(given, (tuple, list)) or len(given) != max(len(names), 1):
                raise TypeError(f"expected {len(names)} numbers, got {given!r}")
            for name, value in zip(names, given, strict=False):
                if callable(value):  # a learning rate may be a schedule elsewhere
                    raise TypeError(f"expected a number, got {value!r}")
                values[name] = hyperparameters[name].check(_plain(value))
            if entry == "weight_decay":
                decay = hyperparameters[entry].check(_plain(entries[entry]))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{what}[{entry!r}]: {error}") from None
    if entries[_FLAG] not in rule.decoupled:
        raise ValueError(
            f"{what}[{_FLAG!r}]: expected {rule.decoupled[0]}, as in PyTorch's {rule.name}; got "
            f"{entries[_FLAG]!r}, as in {'Adam' if rule.decoupled[0] else 'AdamW'}"
        )
    decays = {"l2": 0.0, "weight_decay": 0.0, _decay(entries[_FLAG]): decay}
    return {**values, **decays}


def _decay(decoupled: bool) -> str:
    """Return what PyTorch's weight decay is here."""
    return "weight_decay" if decoupled else "l2"


def _torch_entries(optimizer: Optimizer, rule: _Torch, k: int) -> Values:
    """Return a group's hyperparameters as PyTorch has them."""
    values = dict(optimizer.groups[k])
    if callable(values["learning_rate"]):
        values["learning_rate"] = _core.ask(values["learning_rate"], optimizer.iterations)
    decoupled = bool(values["weight_decay"]) if len(rule.decoupled) > 1 else rule.decoupled[0]
    decay, other = _decay(decoupled), _decay(not decoupled)
    if values[other]:
        raise ValueError(
            f"{other}: expected 0, for the weight decay of PyTorch's {rule.name} is {decay} here; "
            f"got {values[other]!r}"
        )
    entries: Values = {}
    for entry in (*_COMMON_ENTRIES, *rule.entries):
        names = _HYPERPARAMETERS.get(entry, (entry,))
        entries[entry] = tuple(values[name] for name in names)
        if len(names) == 1:
            (entries[entry],) = entries[entry]
    entries["weight_decay"] = values[decay]
    if _FLAG in entries:
        entries[_FLAG] = decoupled
    return entries


def _torch_state(
    optimizer: Optimizer, rule: _Torch, initial: Binding, leaf: int, entry: Any, what: str
) -> tuple[int, Values]:
    """Return an array's count of updates and its slots; both initial where PyTorch has none."""
    slots = initial.slots[leaf]
    if not isinstance(entry, Mapping):
        raise TypeError(f"{what}: expected a dict, got {type(entry).__name__}")
    entry = {name: value for name, value in entry.items() if value is not None}
    strange = sorted(map(str, entry.keys() - {"step", *rule.slots}))
    if strange:
        raise ValueError(
            f"{what}: expected the state of PyTorch's {rule.name}, "
            f"{_listed(rule.slots)}; got {_listed(strange)}"
        )
    if not entry:
        return 0, slots
    needed = {name: slot for name, slot in rule.slots.items() if slot in slots}
    missing = [name for name in (*needed, *rule.counters) if name not in entry]
    if missing:
        raise ValueError(f"{what}: expected {_listed(missing)}, too; got {_listed(entry)}")
    param, scalars = initial.tree.leaves[leaf], rule_of(optimizer)[2]
    new: Values = {}
    for name, slot in needed.items():
        array = _array(entry[name], f"{what}[{name!r}]")
        if slot in scalars:
            new[slot] = np.array(float(_number(array, f"{what}[{name!r}]")))
        else:
            _check_like(array, param, initial.tree.paths[leaf], f"{what}[{name!r}]")
            new[slot] = array
    if not rule.counters:
        return 1, new
    return _count(_array(entry["step"], f"{what}['step']"), f"{what}['step']"), new


def _check_has_counterparts(optimizer: Optimizer, rule: _Torch) -> None:
    """Raise ValueError for hyperparameters of the rule that change it and that PyTorch lacks."""
    known = {name for entry in rule.entries for name in _HYPERPARAMETERS.get(entry, (entry,))}
    for group in optimizer.groups:
        for name in optimizer._own():
            default = optimizer._default(name)
            if name not in known and group[name] != default:
                raise ValueError(
                    f"{name}: expected {default!r}, for PyTorch's {rule.name} has no such "
                    f"hyperparameter; got {group[name]!r}"
                )


# Keras ------------------------------------------------------------------------------------------


class _Keras(NamedTuple):
    """The end of a Keras variable's path, the slot that it is, and its sign there.

    With `always`, Keras has a variable for arrays without the slot, too, and does not use it.
    """

    ending: str
    slot: str
    sign: int = 1
    always: bool = False


_ALL_RULES = (
    (_Keras("average", "average"),),
    (_Keras("gradient_accumulator", "accumulator_of_gradients"),),
)
_KERAS_ADAM = (
    (_Keras("momentum", "m"), _Keras("velocity", "v")),
    (_Keras("velocity_hat", "v_max"),),
)
_KERAS: Mapping[str, tuple[tuple[_Keras, ...], ...]] = {
    "SGD": ((_Keras("momentum", "momentum", -1),),),
    "Adagrad": ((_Keras("accumulator", "accumulator"),),),
    "RMSprop": (
        (_Keras("velocity", "mean_square"),),
        (_Keras("momentum", "momentum"),),
        (_Keras("average_gradient", "mean_gradient"),),
    ),
    "Adadelta": (
        (
            _Keras("accumulated_grad", "mean_square"),
            _Keras("accumulated_delta_var", "mean_square_update"),
        ),
    ),
    "Adam": _KERAS_ADAM,
    "AdamW": _KERAS_ADAM,
    "Adamax": ((_Keras("momentum", "m"), _Keras("norm", "u")),),
    "Nadam": _KERAS_ADAM,
    "Ftrl": ((_Keras("accumulator", "accumulator"), _Keras("linear", "linear")),),
    "Lion": ((_Keras("momentum", "m"),),),
    "Lamb": _KERAS_ADAM,
    "Adafactor": (
        (
            _Keras("", "r", always=True),
            _Keras("", "c", always=True),
            _Keras("velocity", "v", always=True),
        ),
    ),
    "Muon": ((_Keras("momentum", "momentum"), _Keras("momentum", "m"), _Keras("velocity", "v")),),
    "ScheduleFreeAdamW": ((_Keras("momentum", "z"), _Keras("velocity", "v")),),
}
"""For each rule the variables that its Keras optimizer has, in its order.

Keras makes those of one inner tuple for array after array, and then those of the next.
"""


class _Place(NamedTuple):
    """Where the value of one Keras variable is found, as ``holder[key]``, and which one it is."""

    ending: str
    holder: Values
    key: str
    sign: int = 1
    path: str = ""


def from_keras(
    optimizer: Optimizer, variables: Any, *, order: Sequence[NDArray[Any]] | None = None
) -> None:
    """Take over the variables of a `keras.optimizers` optimizer.

    Parameters
    ----------
    optimizer
        Bound, with ``convention="keras"``, and with the hyperparameters of the Keras optimizer, of
        which its variables hold only the learning rate.
    variables
        The `variables` of the Keras optimizer, which must be built, as a list of (path, ndarray):
        ``[(v.path, np.asarray(v)) for v in keras_opt.variables]``. A mapping, or ndarrays alone in
        the same order will do; paths serve to check what they are.
    order
        The optimizer's arrays in the order of Keras's trainable variables. By default the order in
        which the structure is walked, that is, dicts by sorted keys.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If the variables are of another rule, too few or too many, or not for these arrays. Nothing
        has changed then.

    Notes
    -----
    Keras's ``iteration`` counts calls, of which `gradient_accumulation_steps` make one of
    `iterations`. Where one of the two optimizers has a schedule as its learning rate, the other
    must have one, too.
    """
    _of(optimizer, "keras", _KERAS)
    binding = optimizer._bound("from_keras")
    d = optimizer.state_dict()
    numbers = _keras_numbers(optimizer, d)
    places = list(_keras_places(optimizer, binding, d, numbers, order))
    named = _named(variables)
    for position, (place, (path, _)) in enumerate(zip(places, named, strict=False)):
        _check_keras_path(optimizer, place, path, f"variables[{position}]")
    if len(named) != len(places):
        endings = _listed({place.ending: None for place in places if place.ending})
        raise ValueError(
            f"variables: expected the {len(places)} that Keras's {type(optimizer).__name__} of "
            f"these hyperparameters has for {len(binding.tree.leaves)} arrays ({endings}), got "
            f"{len(named)}"
        )
    for position, (place, (path, value)) in enumerate(zip(places, named, strict=True)):
        what = f"variables[{position}]" + (f" ({path!r})" if path else "")
        array, like = _array(value, what), place.holder[place.key]
        if place.holder is numbers:
            numbers[place.key] = _number(array, what)
        elif place.path:
            _check_like(array, like, place.path, what)
            place.holder[place.key] = np.asarray(place.sign * array)

    calls = _count(np.asarray(numbers["iteration"]), "variables[0]")
    d["iterations"], d["window"] = divmod(calls, optimizer.gradient_accumulation_steps)
    if "learning_rate" in numbers:
        d["hyperparameters"]["learning_rate"] = numbers["learning_rate"]
    for entry in d["arrays"].values():
        waiting = d["window"] and np.any(entry["accumulator_of_gradients"])
        entry["step"], entry["in_window"] = d["iterations"], bool(waiting)
        if "u_product" in numbers:
            entry["u_product"] = np.array(float(numbers["u_product"]))
    optimizer.load_state_dict(d)


def to_keras(
    optimizer: Optimizer, *, order: Sequence[NDArray[Any]] | None = None
) -> list[NDArray[Any]]:
    """Return the values for the variables of a `keras.optimizers` optimizer, in Keras's order.

    Parameters
    ----------
    optimizer, order
        As for `from_keras`.

    Returns
    -------
    list of ndarray
        One for each of `variables` of a Keras optimizer of the same rule and hyperparameters, once
        it is built.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If Keras has no place for something.

    Notes
    -----
    Adafactor's velocity of matrices, which Keras computes anew in every step, comes as zeros.
    """
    _of(optimizer, "keras", _KERAS)
    binding = optimizer._bound("to_keras")
    d = optimizer.state_dict()
    for entry in d["arrays"].values():
        if not entry["in_window"] and "accumulator_of_gradients" in entry:
            entry["accumulator_of_gradients"][...] = 0  # here they wait to be overwritten
    numbers = _keras_numbers(optimizer, d)
    return [
        np.asarray(place.sign * place.holder[place.key])
        for place in _keras_places(optimizer, binding, d, numbers, order)
    ]


def _keras_numbers(optimizer: Optimizer, d: Values) -> Values:
    """Return the variables that are single numbers."""
    calls = d["iterations"] * optimizer.gradient_accumulation_steps + d["window"]
    numbers: Values = {"iteration": calls}
    if not callable(optimizer.learning_rate):
        numbers["learning_rate"] = optimizer.learning_rate
    for entry in d["arrays"].values():  # of which all have the same in this convention
        if "u_product" in entry:
            numbers["u_product"] = entry["u_product"]
    return numbers


def _keras_places(
    optimizer: Optimizer, binding: Binding, d: Values, numbers: Values, order: Sequence[Any] | None
) -> Iterator[_Place]:
    """Yield the places of Keras's variables in Keras's order."""
    leaves = _walk(binding, order)
    blocks = (*_ALL_RULES, *_of(optimizer, "keras", _KERAS))
    known = {*(each.slot for block in blocks for each in block), *rule_of(optimizer)[2]}
    for name in ("iteration", "learning_rate"):
        if name in numbers:
            yield _Place(name, numbers, name)
    for block in blocks:
        for leaf in leaves:
            path, param = binding.tree.paths[leaf], binding.tree.leaves[leaf]
            entry = d["arrays"][path]
            strange = binding.slots[leaf].keys() - known
            if strange:
                raise ValueError(
                    f"{path}: expected no {_listed(strange)} in its state, for Keras's "
                    f"{type(optimizer).__name__} has none"
                )
            for each in block:
                if each.slot in entry:
                    yield _Place(each.ending, entry, each.slot, each.sign, path)
                elif each.always:
                    unused = np.zeros(param.shape if param.ndim > 1 else (), param.dtype)
                    yield _Place(each.ending, {each.slot: unused}, each.slot)
    if "u_product" in numbers:
        yield _Place("", numbers, "u_product")


def _named(variables: Any) -> list[tuple[str | None, Any]]:
    """Return paths, None where they are unknown, and values."""
    if isinstance(variables, Mapping):
        return list(variables.items())
    if not isinstance(variables, Sequence) or isinstance(variables, str):
        raise TypeError(
            "variables: expected a list of (path, array), "
            "[(v.path, np.asarray(v)) for v in optimizer.variables]; "
            f"got {type(variables).__name__}"
        )
    return [
        (each[0], each[1])
        if isinstance(each, (tuple, list)) and len(each) == 2 and isinstance(each[0], str)
        else (getattr(each, "path", None), each)
        for each in variables
    ]


def _check_keras_path(optimizer: Optimizer, place: _Place, path: str | None, what: str) -> None:
    """Raise ValueError for a path that says that the variable is another one."""
    if not isinstance(path, str):
        return
    rule = type(optimizer).__name__
    *scopes, name = path.split("/")
    scope = re.sub(r"_\d+$", "", scopes[-1]) if scopes else ""
    named_after = {each.lower(): each for each in _KERAS}.get(scope.replace("_", ""), rule)
    if named_after != rule:
        raise ValueError(
            f"{what}: expected the variables of Keras's {rule}, got {path!r}, those of "
            f"{named_after}"
        )
    if not f"_{name}".endswith(f"_{place.ending}" if place.ending else ""):
        of = f" of {place.path}" if place.path else ""
        raise ValueError(f"{what}: expected the variable {place.ending!r}{of}, got {path!r}")


# safetensors ------------------------------------------------------------------------------------


def to_safetensors(optimizer: Optimizer, path: _checkpoint.Path, *, params: bool = True) -> None:
    """Write the state and the parameters to a safetensors file, or leave the file as it was.

    Parameters
    ----------
    optimizer
        Bound.
    path : str, bytes or path-like
        The file. Its tensors are named after their places in `Optimizer.state_dict`, parameters
        after "parameters"; all else is JSON in the metadata.
    params
        Whether the parameters are written, too.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    ImportError
        If safetensors is not installed.
    OSError
        If the file cannot be written.

    Notes
    -----
    The whole file is put together in memory. Its metadata hold a hash of everything in it.
    """
    _check_optimizer(optimizer)
    optimizer._bound("to_safetensors")
    safetensors = _safetensors()
    with optimizer._hold():
        tree = optimizer._tree("to_safetensors", params=params)
        manifest, arrays = _checkpoint.describe(tree)
        rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        metadata = {_checkpoint.MANIFEST: manifest, "sha256": _hash(manifest, rows)}
        data = safetensors.numpy.save(rows, metadata)
    _checkpoint.replace(path, lambda file: file.write(data))


def from_safetensors(optimizer: Optimizer, path: _checkpoint.Path) -> None:
    """Take over the state, and the parameters if they are there, from a safetensors file.

    Parameters
    ----------
    optimizer
        Bound.
    path : str, bytes or path-like
        What `to_safetensors` wrote.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    ImportError
        If safetensors is not installed.
    OSError
        If the file cannot be read.
    TypeError, ValueError
        If it is another file, or of another rule, convention or structure. Nothing has changed
        then.
    """
    _check_optimizer(optimizer)
    optimizer._bound("from_safetensors")
    optimizer._take_over(_safetensors_tree(path), params=True)


def _safetensors() -> Any:
    """Return the package, whose module for NumPy is imported, too."""
    try:
        import_module("safetensors.numpy")
    except ImportError as error:
        raise ImportError("safetensors is not installed: pip install safetensors") from error
    return import_module("safetensors")


def _safetensors_tree(path: _checkpoint.Path) -> Values:
    safetensors, name = _safetensors(), _checkpoint.name_of(path)
    with _checkpoint.naming(name), safetensors.safe_open(name, framework="numpy") as file:
        metadata = file.metadata() or {}
        if _checkpoint.MANIFEST not in metadata:
            raise ValueError(f"expected metadata with a {_checkpoint.MANIFEST!r}, got {metadata}")
        manifest = metadata[_checkpoint.MANIFEST]
        rows = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("sha256") != _hash(manifest, rows):
            raise ValueError("expected what instep wrote, got something that was altered")
        return _checkpoint.rebuild(manifest, rows.__getitem__)


def _hash(manifest: str, rows: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of what a safetensors file holds."""
    sha256 = hashlib.sha256(manifest.encode())
    for name in sorted(rows):
        sha256.update(name.encode())
        sha256.update(rows[name].tobytes())
    return sha256.hexdigest()


# All of them ------------------------------------------------------------------------------------


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected an optimizer of instep, got {type(optimizer).__name__}"
        )


def _of(optimizer: Optimizer, convention: str, table: Mapping[str, T]) -> T:
    """Return the entry of a framework's table for an optimizer."""
    _check_optimizer(optimizer)
    if optimizer.convention != convention:
        raise ValueError(
            f"optimizer: expected one with convention={convention!r}, got {optimizer!r}"
        )
    for cls in type(optimizer).__mro__:
        if cls.__name__ in table:
            return table[cls.__name__]
    raise ValueError(f"optimizer: expected one of {_listed(table)}; got {optimizer!r}")


def _walk(binding: Binding, order: Sequence[Any] | None) -> list[int]:
    """Return the indices of all leaves in the order of some arrays."""
    count = len(binding.tree.leaves)
    if order is None:
        return list(range(count))
    if not isinstance(order, Sequence):
        raise TypeError(
            f"order: expected a list of the {count} arrays that were bound, got {_shown(order)}"
        )
    leaves = [
        binding._by_identity.get(id(array), binding._by_memory.get(_memory_of(array)))
        for array in order
    ]
    for position, leaf in enumerate(leaves):
        if leaf is None or leaf in leaves[:position]:
            raise ValueError(
                f"order[{position}]: expected one of the {count} arrays that were bound, each "
                f"once; got {'another one' if leaf is None else binding.tree.paths[leaf]}"
            )
    if len(leaves) != count:
        raise ValueError(f"order: expected the {count} arrays that were bound, got {len(leaves)}")
    return [leaf for leaf in leaves if leaf is not None]


def _array(value: Any, what: str) -> NDArray[Any]:
    """Return a tensor or array as an ndarray."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{what}: expected an array or a tensor on the CPU, got {type(value).__name__}: {error}"
        ) from None


def _check_like(array: NDArray[Any], like: NDArray[Any], path: str, what: str) -> None:
    if (array.dtype, array.shape) != (like.dtype, like.shape):
        raise ValueError(
            f"{what}: expected a {like.dtype} array of shape {like.shape} for {path}, "
            f"got a {array.dtype} array of shape {array.shape}"
        )


def _number(array: NDArray[Any], what: str) -> Any:
    if array.shape != () or array.dtype.kind not in "fiu" or not np.isfinite(array):
        given = _shown(array) if array.ndim else repr(array.item())
        raise ValueError(f"{what}: expected a finite number, got {given}")
    return array.item()


def _count(array: NDArray[Any], what: str) -> int:
    number = _number(array, what)
    if number < 0 or number != int(number):
        raise ValueError(f"{what}: expected a whole number >= 0, got {number!r}")
    return int(number)


def _plain(value: Any) -> Any:
    """Return a tensor or scalar as a Python number."""
    array = np.asarray(value) if hasattr(value, "item") else None
    return value if array is None or array.size != 1 else array.item()


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {_listed(value)}" if value else "an empty dict"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {shape}" if shape is not None else "")
