"""Optimizer state from and to Keras."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep import _core
from instep.interop._common import (
    OF_THE_LOOP,
    agree_with_last_update,
    array_of,
    check_last_update,
    check_like,
    check_no_groups,
    check_own,
    count_of,
    entry_of,
    leaves_in,
    listed,
    number_of,
    resumed,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep._binding import Binding
    from instep._optimizer import Optimizer
    from instep._rule import Values


class _Variable(NamedTuple):
    """The end of a Keras variable's path, the slot that it is, and its sign there.

    With `always`, Keras has a variable for arrays without the slot, too, and does not use it.
    """

    ending: str
    slot: str
    sign: int = 1
    always: bool = False


class _Rule(NamedTuple):
    """The variables of a rule's Keras optimizer, and hyperparameters here that it has not.

    Keras makes those of one block for array after array, and then those of the next.
    """

    blocks: tuple[tuple[_Variable, ...], ...]
    lacks: tuple[str, ...] = ()


_ALL_RULES = (
    (_Variable("average", "average"),),
    (_Variable("gradient_accumulator", "accumulator_of_gradients"),),
)
_MOMENTS = (_Variable("momentum", "m"), _Variable("velocity", "v"))
_ADAM = (_MOMENTS, (_Variable("velocity_hat", "v_max"),))
_RULES: Mapping[str, _Rule] = {
    "SGD": _Rule(((_Variable("momentum", "momentum", -1),),), ("dampening",)),
    "Adagrad": _Rule(((_Variable("accumulator", "accumulator"),),), ("learning_rate_decay",)),
    "RMSprop": _Rule(
        (
            (_Variable("velocity", "mean_square"),),
            (_Variable("momentum", "momentum"),),
            (_Variable("average_gradient", "mean_gradient"),),
        ),
        ("nesterov", "eps_in_sqrt", "bias_correction", "initial_accumulator_value"),
    ),
    "Adadelta": _Rule(
        (
            (
                _Variable("accumulated_grad", "mean_square"),
                _Variable("accumulated_delta_var", "mean_square_update"),
            ),
        )
    ),
    "Adam": _Rule(_ADAM, ("epsilon_root",)),
    "AdamW": _Rule(_ADAM, ("epsilon_root",)),
    "Adamax": _Rule(
        ((_Variable("momentum", "m"), _Variable("norm", "u")),), ("learning_rate_decay",)
    ),
    "Nadam": _Rule((_MOMENTS,), ("momentum_decay", "epsilon_root")),
    "Ftrl": _Rule(((_Variable("accumulator", "accumulator"), _Variable("linear", "linear")),)),
    "Lion": _Rule(((_Variable("momentum", "m"),),)),
    "Lamb": _Rule((_MOMENTS,), ("epsilon_root",)),
    "Adafactor": _Rule(
        (
            (
                _Variable("", "r", always=True),
                _Variable("", "c", always=True),
                _Variable("velocity", "v", always=True),
            ),
        ),
        (
            "min_dim_size_to_factor",
            "decay_rate",
            "decay_offset",
            "multiply_by_parameter_scale",
            "weight_decay_rate",
        ),
    ),
    "Muon": _Rule(
        ((_Variable("momentum", "momentum"), *_MOMENTS),), ("adjust_lr_fn", "consistent_rms")
    ),
    "ScheduleFreeAdamW": _Rule(
        ((_Variable("momentum", "z"), _Variable("velocity", "v")),), ("weight_lr_power",)
    ),
}
_INNER = "expected the variables of its inner_optimizer"  # with mixed_float16


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
        the same order will do; paths serve to check what they are. Names that are numbers, or
        ``arr_`` and a number, are positions, whatever the order that they come in: in what
        `numpy.load` makes of ``savez(path, *arrays)``, and in h5py's ``File("a.weights.h5")``, or
        the "model.weights.h5" in a .keras file, of which the group of the optimizer is taken.
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
    must have one, too. With mixed_float16 Keras wraps the optimizer in a LossScaleOptimizer: give
    the variables of its `inner_optimizer`, which of a file are taken.
    """
    binding, d = _prepared(optimizer, "from_keras")
    numbers = _numbers(optimizer, d)
    places = list(_places(optimizer, binding, d, numbers, order))
    named = _named(variables)
    for position, (place, (path, _)) in enumerate(zip(places, named, strict=False)):
        _check_path(optimizer, place, path, f"variables[{position}]")
    if len(named) != len(places):
        endings = listed({place.ending: None for place in places if place.ending})
        raise ValueError(
            f"variables: expected the {len(places)} that Keras's {type(optimizer).__name__} of "
            f"these hyperparameters has for {len(binding.tree.leaves)} arrays ({endings}), got "
            f"{len(named)}"
            + (f", as a LossScaleOptimizer has: {_INNER}" if len(named) == len(places) + 4 else "")
        )
    for position, (place, (path, value)) in enumerate(zip(places, named, strict=True)):
        what = f"variables[{position}]" + (f" ({path!r})" if path else "")
        array, like = array_of(value, what), place.holder[place.key]
        if place.holder is numbers:
            numbers[place.key] = number_of(array, what)
        elif place.path:
            check_like(array, like, place.path, what)
            place.holder[place.key] = np.asarray(place.sign * array)

    d["calls"] = calls = count_of(np.asarray(numbers["iteration"]), "variables[0]")
    d["iterations"], d["window"] = divmod(calls, optimizer.gradient_accumulation_steps)
    if "learning_rate" in numbers:
        d["hyperparameters"]["learning_rate"] = numbers["learning_rate"]
        d["hyperparameters"]["learning_rate_factor"] = 1.0
    share = _core.window_share(optimizer.gradient_accumulation_steps)
    for path, own in zip(binding.tree.paths, binding.slots, strict=True):
        entry = d["arrays"][path]
        waiting = d["window"] and np.any(entry["accumulator_of_gradients"])
        if waiting:
            entry["accumulator_of_gradients"] *= share
        slots = {name: entry[name] for name in own}
        if "u_product" in numbers:
            slots["u_product"] = np.array(float(numbers["u_product"]))
        d["arrays"][path] = resumed(entry, d["iterations"], slots)
        d["arrays"][path]["in_window"] = bool(waiting)
    agree_with_last_update(optimizer, binding, d)
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
        If Keras has no place for something: a hyperparameter of other conventions, or a group with
        hyperparameters of its own, but for a `weight_decay` of 0, which is Keras's
        ``exclude_from_weight_decay``.

    Notes
    -----
    Adafactor's velocity of matrices, which Keras computes anew in every step, comes as zeros. A
    schedule is the Keras optimizer's own. `l2`, `maximize`, `skip_nonfinite`, `skipped_steps` and
    which arrays are frozen are no part of Keras's optimizers, and left out. Files have the values
    in the group "optimizer/vars" (or "optimizer/inner_optimizer/vars") under their positions,
    ``str(k)``.
    """
    binding, d = _prepared(optimizer, "to_keras")
    check_no_groups(
        optimizer, binding, f"Keras's {type(optimizer).__name__}", but={("weight_decay", 0)}
    )
    check_last_update(optimizer, binding, d)
    share = _core.window_share(optimizer.gradient_accumulation_steps)
    for entry in d["arrays"].values():
        if "accumulator_of_gradients" in entry:
            # Here they are a part of the sum, and wait to be overwritten after it.
            if entry["in_window"]:
                entry["accumulator_of_gradients"] /= share
            else:
                entry["accumulator_of_gradients"][...] = 0
    numbers = _numbers(optimizer, d)
    return [
        np.asarray(place.sign * place.holder[place.key])
        for place in _places(optimizer, binding, d, numbers, order)
    ]


def _prepared(optimizer: Optimizer, caller: str) -> tuple[Binding, Values]:
    rule = entry_of(optimizer, "keras", _RULES)
    binding = optimizer._bound(caller)
    known = {*type(optimizer)._own()}.difference(rule.lacks)
    check_own(optimizer, known, f"Keras's {type(optimizer).__name__}")
    return binding, optimizer.state_dict()


def _numbers(optimizer: Optimizer, d: Values) -> Values:
    """Return the variables that are single numbers."""
    numbers: Values = {"iteration": d["calls"]}
    if not callable(optimizer.learning_rate):
        numbers["learning_rate"] = optimizer.current_learning_rate
    for entry in d["arrays"].values():  # of which all have the same in this convention
        if "u_product" in entry:
            numbers["u_product"] = entry["u_product"]
    return numbers


def _places(
    optimizer: Optimizer, binding: Binding, d: Values, numbers: Values, order: Sequence[Any] | None
) -> Iterator[_Place]:
    """Yield the places of Keras's variables in Keras's order."""
    leaves = leaves_in(binding, order)
    blocks = (*_ALL_RULES, *entry_of(optimizer, "keras", _RULES).blocks)
    known = {
        *(each.slot for block in blocks for each in block),
        *binding.variant.rule._info()["scalars"],
    }
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
                    f"{path}: expected no {listed(strange)} in its state, for Keras's "
                    f"{type(optimizer).__name__} has none"
                )
            used = {*binding.slots[leaf], *OF_THE_LOOP} & entry.keys()
            for each in block:
                if each.slot in used:
                    yield _Place(each.ending, entry, each.slot, each.sign, path)
                elif each.always:
                    unused = np.zeros(param.shape if param.ndim > 1 else (), param.dtype)
                    yield _Place(each.ending, {each.slot: unused}, each.slot)
    if "u_product" in numbers:
        yield _Place("", numbers, "u_product")


def _named(variables: Any) -> list[tuple[str | None, Any]]:
    """Return paths, None where they are unknown, and values."""
    for group in ("optimizer", "inner_optimizer", "vars"):  # of a file
        if isinstance(variables, Mapping) and isinstance(variables.get(group), Mapping):
            variables = variables[group]
    if isinstance(variables, Mapping):
        return _positioned(variables) or list(variables.items())
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


def _positioned(variables: Mapping[Any, Any]) -> list[tuple[str | None, Any]]:
    """Return values in the order of names that are positions; none if there are other names."""
    matches = {name: re.fullmatch(r"(?:arr_)?(\d+)", str(name)) for name in variables}
    names = {int(match[1]): name for name, match in matches.items() if match}
    if len(names) < len(variables):
        return []
    missing = [position for position in range(len(names)) if position not in names]
    if missing:
        raise ValueError(
            f"variables: expected all positions from 0 to {max(names)}, got none of "
            f"{', '.join(map(str, missing))}"
        )
    return [(None, variables[names[position]]) for position in range(len(names))]


def _check_path(optimizer: Optimizer, place: _Place, path: str | None, what: str) -> None:
    """Raise ValueError for a path that says that the variable is another one."""
    if not isinstance(path, str):
        return
    rule = type(optimizer).__name__
    *scopes, name = path.split("/")
    scope = re.sub(r"_\d+$", "", scopes[-1]) if scopes else ""
    if scope == "loss_scale_optimizer":
        raise ValueError(f"{what}: got {path!r} of a LossScaleOptimizer: {_INNER}")
    named_after = {each.lower(): each for each in _RULES}.get(scope.replace("_", ""), rule)
    if named_after != rule:
        raise ValueError(
            f"{what}: expected the variables of Keras's {rule}, got {path!r}, those of "
            f"{named_after}"
        )
    if not f"_{name}".endswith(f"_{place.ending}" if place.ending else ""):
        of = f" of {place.path}" if place.path else ""
        raise ValueError(f"{what}: expected the variable {place.ending!r}{of}, got {path!r}")
