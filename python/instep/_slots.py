"""Which state an array has, and what it starts as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core
from instep._memory import zeros, zeros_like
from instep._rule import PARAMETER, Rule, Values, Variant

if TYPE_CHECKING:
    from instep._memory import Array


def in_use(rule: type[Rule], values: Values) -> list[str]:
    """Return the names of the slots that the kernel uses with these hyperparameters."""
    switches = rule._optional_slots
    return [
        name for name, optional in rule._info()["slots"] if not optional or values[switches[name]]
    ]


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


def copied(rule: type[Rule]) -> list[str]:
    """Return the slots that start as copies of the parameter."""
    return [name for name, start in rule._initial_state.items() if start == PARAMETER]


def make(
    variant: Variant, name: str, shape: tuple[int, ...], param: Array, numbers: Values, place: Any
) -> Array:
    """Return a new array of state with its first value.

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
    place
        Which of how many arrays it is beside the parameter, as `zeros_like` takes it.
    """
    rule = variant.rule
    if name in rule._info()["scalars"]:
        slot = zeros(shape, np.float64)
    elif rule._sees_whole_arrays() or name in rule._parts(param.shape, numbers):
        slot = zeros(shape, param.dtype)
    else:
        slot = zeros_like(param, *place)
    if name in rule._initial_state:
        slot[...] = first_value(variant, name, param, numbers)
    return slot


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
    return _core.ask(start, 0) if variant.has_global_clock else 0.0
