"""Optimizer state from and to PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep._binding import Binding
from instep.interop._common import (
    array_of,
    check_like,
    check_no_remainder,
    check_no_window,
    check_own,
    count_of,
    decoded,
    encoded,
    entry_of,
    leaves_in,
    listed,
    number_of,
    plain_number,
    resumed,
    shown,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep._optimizer import Optimizer
    from instep._rule import Values


class Rule(NamedTuple):
    """What PyTorch calls a rule, its own entries of `param_groups`, and its state.

    Entries come with what they are here. `lacks` holds the entries of nearly all rules that this
    one has not, `decoupled` what its flag ``decoupled_weight_decay`` may be, first what it is where
    the entry is missing.
    """

    name: str
    entries: Mapping[str, tuple[str, ...]]
    slots: Mapping[str, str]
    lacks: tuple[str, ...] = ()
    decoupled: tuple[bool, ...] = (False,)
    counters: tuple[str, ...] = ("step",)

    @property
    def all_entries(self) -> dict[str, tuple[str, ...]]:
        common = {entry: names for entry, names in COMMON.items() if entry not in self.lacks}
        return {**common, **self.entries}


def _alike(*names: str) -> dict[str, tuple[str, ...]]:
    """Return entries that have the same name here."""
    return {name: (name,) for name in names}


FLAG = "decoupled_weight_decay"
COMMON = {"lr": ("learning_rate",), **_alike("weight_decay", "maximize")}
_BETAS = {"betas": ("beta_1", "beta_2"), "eps": ("epsilon",)}
_MOMENTS = {"exp_avg": "m", "exp_avg_sq": "v"}
_ADAM = {**_BETAS, **_alike("amsgrad"), FLAG: ()}
_ADAM_SLOTS = {**_MOMENTS, "max_exp_avg_sq": "v_max"}

RULES: Mapping[str, Rule] = {
    "SGD": Rule(
        "SGD",
        _alike("momentum", "dampening", "nesterov"),
        {"momentum_buffer": "momentum"},
        counters=(),
    ),
    "Adagrad": Rule(
        "Adagrad",
        {
            "lr_decay": ("learning_rate_decay",),
            "eps": ("epsilon",),
            **_alike("initial_accumulator_value"),
        },
        {"sum": "accumulator"},
    ),
    "RMSprop": Rule(
        "RMSprop",
        {"alpha": ("rho",), "eps": ("epsilon",), **_alike("momentum", "centered")},
        {"square_avg": "mean_square", "momentum_buffer": "momentum", "grad_avg": "mean_gradient"},
    ),
    "Adadelta": Rule(
        "Adadelta",
        {"eps": ("epsilon",), **_alike("rho")},
        {"square_avg": "mean_square", "acc_delta": "mean_square_update"},
    ),
    "Adam": Rule("Adam", _ADAM, _ADAM_SLOTS),
    "AdamW": Rule("AdamW", _ADAM, _ADAM_SLOTS, decoupled=(True,)),
    "Adamax": Rule("Adamax", _BETAS, {"exp_avg": "m", "exp_inf": "u"}),
    "Nadam": Rule(
        "NAdam",
        {**_BETAS, **_alike("momentum_decay"), FLAG: ()},
        {"mu_product": "u_product", **_MOMENTS},
        decoupled=(False, True),
    ),
    "RAdam": Rule("RAdam", {**_BETAS, FLAG: ()}, _MOMENTS, decoupled=(False, True)),
    "ASGD": Rule("ASGD", _alike("lambd", "alpha", "t0"), {"eta": "eta", "mu": "mu", "ax": "ax"}),
    "Rprop": Rule(
        "Rprop",
        {
            "etas": ("eta_minus", "eta_plus"),
            "step_sizes": ("min_step_size", "max_step_size"),
        },
        {"prev": "previous_gradient", "step_size": "step_size"},
        lacks=("weight_decay",),
    ),
    "Adafactor": Rule(
        "Adafactor",
        {
            "beta2_decay": ("beta_2_decay",),
            "eps": ("epsilon_1", "epsilon_2"),
            "d": ("clip_threshold",),
        },
        {"row_var": "r", "col_var": "c", "variance": "v"},
        decoupled=(True,),
    ),
    "Muon": Rule(
        "Muon",
        {
            "eps": ("epsilon",),
            **_alike("momentum", "nesterov", "ns_coefficients", "ns_steps", "adjust_lr_fn"),
        },
        {"momentum_buffer": "momentum"},
        lacks=("maximize",),
        decoupled=(True,),
        counters=(),
    ),
}

_ALL_ENTRIES = {entry for rule in RULES.values() for entry in rule.all_entries}
_KEPT_AXES = {"row_var": -1, "col_var": -2}
"""The axes along which PyTorch has means, in which they keep the length 1."""


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
        Bound, with ``convention="torch"``.
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
    groups stay as they are, and so does a learning rate that is a schedule. PyTorch's SGD and Muon
    do not count their updates: `iterations` stays.
    """
    rule = entry_of(optimizer, "torch", RULES)
    there = f"PyTorch's {rule.name}"
    binding = optimizer._bound("from_torch")
    check_own(optimizer, {name for names in rule.entries.values() for name in names}, there)
    for key, kind in (("state", Mapping), ("param_groups", Sequence)):
        if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get(key), kind):
            raise TypeError(
                "state_dict: expected a dict of 'state' and 'param_groups', as state_dict() of a "
                f"PyTorch optimizer returns it; got {shown(state_dict)}"
            )
    state, theirs = state_dict["state"], state_dict["param_groups"]
    ours = _groups(binding, order)
    for j, group in enumerate(theirs):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), Sequence):
            raise TypeError(
                f"state_dict['param_groups'][{j}]: expected a dict with a list 'params', "
                f"got {shown(group)}"
            )
    sizes = [len(group["params"]) for group in theirs]
    if sizes != [len(leaves) for leaves in ours.values()]:
        raise ValueError(
            "state_dict['param_groups']: expected the groups that the optimizer has (see "
            f"instep.Group), of {[len(leaves) for leaves in ours.values()]} arrays; got groups of "
            f"{sizes}"
        )

    changed = _hyperparameters(optimizer, binding, rule, list(zip(ours, theirs, strict=True)))
    overrides = [
        {**old, **new} for old, new in zip(binding.overrides, [{}, *changed[1:]], strict=True)
    ]
    initial = Binding(
        binding.variant,
        binding.tree,
        {**optimizer._values, **changed[0]},
        replace(binding.grouping, overrides=overrides),
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
            f"'param_groups' lists, each once; got {listed(stray) or 'some of them repeated'}"
        )

    d = optimizer.state_dict()
    d["hyperparameters"].update(changed[0])
    for k, new in enumerate(changed[1:], 1):
        d["groups"][str(k)].update(new)
    for index, leaf in leaf_of.items():
        path, before = binding.tree.paths[leaf], d["arrays"][binding.tree.paths[leaf]]
        step, slots = _state(
            optimizer, rule, initial, leaf, state.get(index, {}), f"state_dict['state'][{index!r}]"
        )
        if step and not rule.counters:
            step = max(step, before["step"])
        d["arrays"][path] = resumed(before, step, slots)
    if rule.counters:
        d["iterations"] = max((entry["step"] for entry in d["arrays"].values()), default=0)
    d["window"] = 0
    del d["calls"]  # as many as make these updates
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
        If PyTorch has no place for something: a hyperparameter of other conventions or of other
        rules, `l2` and `weight_decay` at once, gradients in the middle of an accumulation window.

    Notes
    -----
    Of a schedule, the learning rate of the next update comes. What is no part of PyTorch's
    optimizers is left out: clipping, averages of the parameters, the length of accumulation
    windows, loss scaling, which arrays are frozen, `skip_nonfinite` and `skipped_steps`. Switches
    of the implementation (``foreach``, ``fused`` and so on) get PyTorch's defaults.
    """
    rule = entry_of(optimizer, "torch", RULES)
    there = f"PyTorch's {rule.name}"
    binding = optimizer._bound("to_torch")
    check_own(optimizer, {name for names in rule.entries.values() for name in names}, there)
    check_no_remainder(optimizer)
    d = optimizer.state_dict()
    check_no_window(d, "PyTorch")
    state: dict[int, dict[str, Any]] = {}
    groups: list[Values] = []
    for k, leaves in _groups(binding, order).items():
        first = sum(len(group["params"]) for group in groups)
        indices = list(range(first, first + len(leaves)))
        groups.append({**_entries(optimizer, rule, k), "params": indices})
        for index, leaf in zip(indices, leaves, strict=True):
            entry = decoded(binding, leaf, d["arrays"][binding.tree.paths[leaf]])
            slots = {
                name: as_there(name, entry[slot])
                for name, slot in rule.slots.items()
                if slot in binding.slots[leaf]
            }
            if rule.counters:
                state[index] = {"step": np.array(entry["step"], np.float32), **slots}
            elif slots and entry.get("begun", entry["step"]):
                state[index] = slots
    return {"state": state, "param_groups": groups}


def _groups(binding: Binding, order: Sequence[Any] | None) -> dict[int, list[int]]:
    """Return the leaves of each group, all in PyTorch's order."""
    groups: dict[int, list[int]] = {}
    for leaf in leaves_in(binding, order):
        groups.setdefault(binding.group_of[leaf], []).append(leaf)
    return groups


def _hyperparameters(
    optimizer: Optimizer,
    binding: Binding,
    rule: Rule,
    groups: Sequence[tuple[int, Mapping[str, Any]]],
) -> list[Values]:
    """Return what changes in the hyperparameters, the default ones first, then each group's."""
    changed: list[Values] = [{} for _ in binding.overrides]
    for j, (k, group) in enumerate(groups):
        what = f"state_dict['param_groups'][{j}]"
        for name, value in values_of(type(optimizer), rule, group, what).items():
            of = k if name in binding.overrides[k] else 0
            here = binding.overrides[of].get(name, optimizer._values[name])
            if callable(here):
                continue
            if name == "learning_rate":
                value = _without_factor(optimizer, k, value, what)
            if changed[of].setdefault(name, value) != value:
                raise ValueError(
                    f"{what}: expected {name}={changed[of][name]!r} as in the groups before, since "
                    f"the optimizer's group has no {name} of its own; got {value!r}"
                )
    return changed


def _without_factor(optimizer: Optimizer, k: int, rate: float, what: str) -> float:
    """Return the learning rate that, times the group's factor, is this one."""
    values = optimizer.groups[k]
    factor, now = values["learning_rate_factor"], optimizer._rate_now(dict(values))
    if factor != 1 and rate != now:
        raise ValueError(
            f"{what}['lr']: expected {now!r}, as here, since the group has the "
            f"learning_rate_factor {factor!r}, which PyTorch lacks; got {rate!r}; give the group a "
            "learning_rate of its own instead"
        )
    return rate if factor == 1 else float(values["learning_rate"])


def values_of(cls: type[Optimizer], rule: Rule, group: Mapping[str, Any], what: str) -> Values:
    """Return the hyperparameters that one of PyTorch's groups has, by their names here."""
    entries = {"maximize": False, FLAG: rule.decoupled[0], **group}
    known = rule.all_entries
    strange, missing = (_ALL_ENTRIES - known.keys()) & group.keys(), known.keys() - entries.keys()
    if strange or missing:
        raise ValueError(
            f"{what}: expected the entries of PyTorch's {rule.name}, {listed(sorted(known))}; "
            + (f"got {listed(sorted(strange))}" if strange else f"no {listed(sorted(missing))}")
        )
    values: Values = {"maximize": False, "weight_decay": 0.0}
    hyperparameters = cls._hyperparameters()
    for entry, names in known.items():
        given = entries[entry] if len(names) > 1 else [entries[entry]]
        try:
            if not isinstance(given, (tuple, list)) or len(given) != max(len(names), 1):
                raise TypeError(f"expected {len(names)} numbers, got {given!r}")
            for name, value in zip(names, given, strict=False):
                if callable(value):  # a learning rate may be a schedule elsewhere
                    raise TypeError(f"expected a number, got {value!r}")
                values[name] = hyperparameters[name].check(plain_number(value))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{what}[{entry!r}]: {error}") from None
    if entries[FLAG] not in rule.decoupled:
        raise ValueError(
            f"{what}[{FLAG!r}]: expected {rule.decoupled[0]}, as in PyTorch's {rule.name}; got "
            f"{entries[FLAG]!r}, as in {'Adam' if rule.decoupled[0] else 'AdamW'}"
        )
    decay = values.pop("weight_decay")
    return {**values, "l2": 0.0, "weight_decay": 0.0, _decay(entries[FLAG]): decay}


def _decay(decoupled: bool) -> str:
    """Return what PyTorch's weight decay is here."""
    return "weight_decay" if decoupled else "l2"


def entries_of_groups(optimizer: Optimizer, order: Sequence[Any] | None) -> list[Values]:
    """Return what `param_groups` has of each group, but for its parameters."""
    rule = entry_of(optimizer, "torch", RULES)
    binding = optimizer._bound("from_torch")
    return [_entries(optimizer, rule, k) for k in _groups(binding, order)]


def _entries(optimizer: Optimizer, rule: Rule, k: int) -> Values:
    """Return a group's hyperparameters as PyTorch has them."""
    values = dict(optimizer.groups[k])
    values["learning_rate"] = optimizer._rate_now(values)
    decoupled = bool(values["weight_decay"]) if len(rule.decoupled) > 1 else rule.decoupled[0]
    decay, other = _decay(decoupled), _decay(not decoupled)
    if values[other]:
        raise ValueError(
            f"{other}: expected 0, for the weight decay of PyTorch's {rule.name} is {decay} here; "
            f"got {values[other]!r}"
        )
    for entry in rule.lacks:
        name = decay if entry == "weight_decay" else entry
        if values[name]:
            raise ValueError(
                f"{name}: expected it off, for PyTorch's {rule.name} has no {entry}; "
                f"got {values[name]!r}"
            )
    entries: Values = {}
    for entry, names in rule.all_entries.items():
        entries[entry] = tuple(values[name] for name in names)
        if len(names) == 1:
            (entries[entry],) = entries[entry]
    if "weight_decay" in entries:
        entries["weight_decay"] = values[decay]
    if FLAG in entries:
        entries[FLAG] = decoupled
    return entries


def _state(
    optimizer: Optimizer, rule: Rule, initial: Binding, leaf: int, entry: Any, what: str
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
            f"{listed(rule.slots)}; got {listed(strange)}"
        )
    if not entry:
        return 0, slots
    needed = {name: slot for name, slot in rule.slots.items() if slot in slots}
    missing = [name for name in (*needed, *rule.counters) if name not in entry]
    if missing:
        raise ValueError(f"{what}: expected {listed(missing)}, too; got {listed(entry)}")
    scalars = initial.variant.rule._info()["scalars"]
    own = decoded(initial, leaf, slots)
    new: Values = {}
    for name, slot in needed.items():
        array = array_of(entry[name], f"{what}[{name!r}]")
        if slot in scalars:
            new[slot] = np.array(float(number_of(array, f"{what}[{name!r}]")))
        else:
            like = as_there(name, own[slot])
            check_like(array, like, initial.tree.paths[leaf], f"{what}[{name!r}]")
            new[slot] = array.reshape(slots[slot].shape)
    new = encoded(initial, leaf, new)
    if not rule.counters:
        return 1, new
    return count_of(array_of(entry["step"], f"{what}['step']"), f"{what}['step']"), new


def as_there(name: str, slot: NDArray[Any]) -> NDArray[Any]:
    """Return an array of state in PyTorch's shape."""
    return np.expand_dims(slot, _KEPT_AXES[name]) if name in _KEPT_AXES else slot
