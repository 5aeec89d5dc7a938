"""What a reference is, and how an optimizer is compared with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from quantities import Array, Quantity

State: TypeAlias = dict[str, Quantity]
Rule: TypeAlias = Callable[..., tuple[Quantity, State]]
Configuration: TypeAlias = Mapping[str, Any]
# The state before the first step, of a parameter and a configuration.
Start: TypeAlias = Callable[[Array, Configuration], ArrayLike]
Floats: TypeAlias = NDArray[np.floating[Any]]
Precision: TypeAlias = type[np.float32] | type[np.float64]


@dataclass(frozen=True)
class Reference:
    """What the tests know about an optimizer class.

    Attributes
    ----------
    rule
        The rule; it has the name and the keywords of the class's kernel function. A weight decay
        among them is the rule's own; otherwise it is the decoupled one, before the rule.
    slots
        The state slots of a matrix in the kernel's order, each with the hyperparameter that calls
        for it, or None when it always exists.
    configurations
        Keywords for the class that are worth testing.
    weight_decay
        The default of the decoupled weight decay.
    scalars
        The slots that hold one float64 for the array.
    start
        What the slots hold before the first step, where it is not zero.
    elementwise
        Whether each element goes its own way.
    drift
        How many times more than in other rules roundings grow over many steps.
    ulps
        How far a step in float32 may be off, in units in the last place of the largest term.
    cancellation
        How many times more than in other rules it may be off in float64.
    """

    rule: Rule
    slots: Mapping[str, str | None]
    configurations: tuple[Configuration, ...]
    weight_decay: float = 0.0
    scalars: tuple[str, ...] = ()
    start: Mapping[str, Start] = field(default_factory=dict)
    elementwise: bool = True
    drift: float = 1.0
    ulps: int = 4
    cancellation: float = 1.0

    def keywords(self, configuration: Configuration, step: int) -> dict[str, Any]:
        """Return all keywords of the rule, and thereby of its kernel function."""
        given = {**configuration, "step": step}
        return {name: given.get(name, default) for name, default in defaults(self.rule).items()}

    def initial_state(self, configuration: Configuration, param: Array) -> dict[str, Array]:
        """Return the state before the first step."""
        in_force = {**self.keywords(configuration, step=1), **configuration}
        state = {}
        for slot, switch in self.slots.items():
            if switch is None or in_force.get(switch):
                value = np.array(self.start[slot](param, in_force) if slot in self.start else 0.0)
                one_for_all = value.ndim == 0 and slot not in self.scalars
                state[slot] = np.full(param.shape, value) if one_for_all else value
        return state

    def step(
        self,
        param: ArrayLike,
        grad: ArrayLike,
        state: Mapping[str, ArrayLike],
        step: int,
        configuration: Configuration,
    ) -> tuple[Quantity, State]:
        """Make the update with the given 1-based number."""
        keywords = self.keywords(configuration, step)
        p = Quantity.exact(param)
        decay = configuration.get("weight_decay", self.weight_decay)
        if decay and "weight_decay" not in keywords:
            p = p - keywords["learning_rate"] * decay * p
        exact_state = {slot: Quantity.exact(value) for slot, value in state.items()}
        return self.rule(p, Quantity.exact(grad), exact_state, **keywords)


@cache
def defaults(rule: Rule) -> dict[str, Any]:
    """Return the keywords of a rule with their defaults."""
    parameters = inspect.signature(rule).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


REFERENCES: dict[str, Reference] = {}
# Of vectors, where they have other slots than matrices.
VECTOR_REFERENCES: dict[str, Reference] = {}


def hyperparameter(name: str, default: float | None = None) -> Start:
    """Start at a hyperparameter, with its default if the rule itself does not have it."""
    return lambda _, configuration: configuration.get(name, default)


def number(value: float) -> Start:
    """Start at a number."""
    return lambda *_: value


def parameter(param: Array, _: Configuration) -> Array:
    """Start at the parameter."""
    return param


def vector(axis: int) -> Start:
    """Start at zeros for an axis of the parameter."""
    return lambda param, _: np.zeros(param.shape[axis])


def slots(optimizer: Any) -> dict[str, Floats]:
    """Return the state arrays of an optimizer with a single parameter array."""
    return {slot: value for slot, value in optimizer.state.items() if slot != "step"}


def assert_rounded(
    actual: Floats, expected: Quantity, dtype: Precision, reference: Reference
) -> None:
    """Compare within 4 ulp (float32) or 1e-12 (float64) of the largest term, or what a rule needs.

    The type is that of the parameter, by whose like scalars of its state come about.
    """
    if dtype == np.float32:
        ulp = np.spacing(expected.largest.astype(np.float32)).astype(np.float64)
        tolerance = reference.ulps * ulp
    else:
        tolerance = reference.cancellation * 1e-12 * expected.largest
    # Subnormal results count as zero.
    tolerance = np.maximum(tolerance, np.finfo(dtype).tiny)
    excess = np.ravel(np.abs(actual - expected.value) / tolerance)
    worst = np.argmax(excess)
    assert excess[worst] <= 1, (
        f"{actual.flat[worst]} is not {expected.value.flat[worst]}: "
        f"{excess[worst]:.3g} times the tolerance"
    )
