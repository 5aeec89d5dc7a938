"""Which state an array has, and what it starts as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core, _formats
from instep._memory import zeros, zeros_like
from instep._rule import PARAMETER, Rule, Values, Variant

if TYPE_CHECKING:
    from instep._memory import Array


def shapes(
    rule: type[Rule], param: Array, path: str, slots: list[str], numbers: Values
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of state by name, in the order of the kernel function."""
    found: dict[str, tuple[int, ...]] = {}
    parts = rule._parts(param.shape, numbers)
    for name in slots:
        if parts and name == rule._info()["divisible"]:
            for part, axes in parts.items():
                found[part] = tuple(param.shape[axis] for axis in axes)
        else:
            found[name] = param.shape
    return {
        **found,
        **dict.fromkeys(rule._info()["scalars"], ()),
        **rule._state_shapes(param, path, numbers),
    }


def kept(rule: type[Rule], param: Array, numbers: Values) -> _formats.Kept:
    """Return how a parameter and its slots are kept, also those out of use.

    Parts of a slot are kept as kernels compute with them.
    """
    in_parts = rule._info()["divisible"] if rule._parts(param.shape, numbers) else None
    slots = [name for name, _ in rule._info()["slots"] if name != in_parts]
    return _formats.kept(rule, param.dtype, slots, numbers)


def copied(rule: type[Rule]) -> list[str]:
    """Return the slots that start as copies of the parameter."""
    return [name for name, start in rule._initial_state.items() if start == PARAMETER]


def make(
    variant: Variant,
    name: str,
    shape: tuple[int, ...],
    param: Array,
    numbers: Values,
    kept: _formats.Kept,
    place: Any,
) -> Array:
    """Return a new array of state with its first value, unless that has a coding.

    Parameters
    ----------
    variant
        The rule.
    name, shape
        Those of the array.
    param
        The parameter that it belongs to.
    numbers
        Hyperparameters and switches of its group.
    kept
        How the parameter and its slots are kept.
    place
        Which of how many arrays it is beside the parameter, as `zeros_like` takes it.
    """
    rule = variant.rule
    beside = _formats.beside(kept, param.shape, kept)
    if name in rule._info()["scalars"]:
        slot = zeros(shape, np.float64)
    elif name in beside:
        dtype = beside[name][1]
        slot = zeros_like(param, dtype, *place) if shape == param.shape else zeros(shape, dtype)
    elif rule._sees_whole_arrays() or name in rule._parts(param.shape, numbers):
        slot = zeros(shape, _formats.computed(param.dtype))
    else:
        slot = zeros_like(param, _formats.dtype_of(kept, name, param.dtype), *place)
    if name in rule._initial_state and kept.get(name) not in _core.codings:
        slot[...] = first_value(variant, name, param, numbers)
    if name == "master":
        slot[...] = param
    return slot


def encoded_first_values(
    variant: Variant, state: dict[str, Array], param: Array, numbers: Values, kept: _formats.Kept
) -> dict[str, Array]:
    """Return what arrays that have a coding start as which do not start at 0, by name."""
    found: dict[str, Array] = {}
    for name in variant.rule._initial_state.keys() & state.keys():
        if kept.get(name) not in _core.codings:
            continue
        first = np.full(param.size, first_value(variant, name, param, numbers), np.float32)
        found[name] = np.zeros(state[name].shape, state[name].dtype)
        beside = f"{name}_scale"
        if beside in state:
            found[beside] = np.zeros_like(state[beside])
        _core.encode(first, kept[name], found[name].reshape(-1), found.get(beside))
    return found


def first_value(variant: Variant, name: str, param: Array, numbers: Values) -> Array | float:
    """Return what a slot starts as that does not start at 0."""
    start: Any = variant.rule._initial_state[name]
    if start == PARAMETER:
        return param
    while isinstance(start, str):  # a convention may name another hyperparameter
        start = numbers.get(start, 0.0)
    if not callable(start):
        return float(start)
    # Rules that start from a schedule take it in the first update of their own clock. Only where
    # that is everybody's, an array may come later, and must have been asked for here.
    is_asked_here = variant.has_global_clock or variant.rule._formula is not None
    return _core.ask(start, 0) if is_asked_here else 0.0
