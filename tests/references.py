"""The update rules in float64 NumPy, written from their publications.

`REFERENCES` maps the name of each optimizer class to its reference; the tests take everything
that they know about a rule from this table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]
Configuration: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Quantity:
    """A number per element, and the size of the largest term that was added to form it.

    Rounding errors are proportional to that term and not to the number itself, which can be a
    small difference between large terms. Products, quotients and roots hand it on in first order.

    Attributes
    ----------
    value
        The numbers.
    largest
        The magnitude of the largest term of each.
    """

    value: Array
    largest: Array

    @classmethod
    def exact(cls, number: Quantity | ArrayLike) -> Quantity:
        """Take a number as its own only term."""
        if isinstance(number, Quantity):
            return number
        value = np.asarray(number, dtype=np.float64)
        return cls(value, np.abs(value))

    @property
    def scale(self) -> Array:
        """The magnitude that the number has as a term of another formula."""
        return np.maximum(np.abs(self.value), self.largest)

    def __add__(self, other: Quantity | float) -> Quantity:
        other = Quantity.exact(other)
        return Quantity(self.value + other.value, np.maximum(self.scale, other.scale))

    def __sub__(self, other: Quantity | float) -> Quantity:
        return self + -1.0 * other

    def __mul__(self, other: Quantity | float) -> Quantity:
        other = Quantity.exact(other)
        largest = np.maximum(self.scale * np.abs(other.value), np.abs(self.value) * other.scale)
        return Quantity(self.value * other.value, largest)

    def __truediv__(self, other: Quantity | float) -> Quantity:
        other = Quantity.exact(other)
        value = self.value / other.value
        largest = np.maximum(self.scale, np.abs(value) * other.scale) / np.abs(other.value)
        return Quantity(value, largest)

    __radd__ = __add__
    __rmul__ = __mul__


def sqrt(number: Quantity) -> Quantity:
    """Take the square root, which halves relative errors."""
    root = np.sqrt(number.value)
    largest = number.scale / np.maximum(2 * root, np.finfo(np.float64).tiny)
    return Quantity(root, np.maximum(root, largest))


def maximum(number: Quantity, other: Quantity | float) -> Quantity:
    """Take the larger number of each element."""
    other = Quantity.exact(other)
    return Quantity(np.maximum(number.value, other.value), np.maximum(number.scale, other.scale))


State: TypeAlias = dict[str, Quantity]
Rule: TypeAlias = Callable[..., tuple[Quantity, State]]


def sgd(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> tuple[Quantity, State]:
    """Sutskever et al. 2013, with the dampening of Torch."""
    if "momentum" not in state:
        return p - learning_rate * g, {}
    b = g if step == 1 else momentum * state["momentum"] + (1 - dampening) * g
    return p - learning_rate * (g + momentum * b if nesterov else b), {"momentum": b}


def adagrad(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    learning_rate_decay: float = 0.0,
    epsilon: float = 1e-10,
) -> tuple[Quantity, State]:
    """Duchi et al. 2011."""
    a = state["accumulator"] + g * g
    rate = learning_rate / (1 + (step - 1) * learning_rate_decay)
    return p - rate * g / (sqrt(a) + epsilon), {"accumulator": a}


def rmsprop(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
) -> tuple[Quantity, State]:
    """Graves 2013, equations 38 to 41, where the mean gradient and the momentum are optional."""
    v = rho * state["mean_square"] + (1 - rho) * g * g
    new = {"mean_square": v}
    if "mean_gradient" in state:
        a = new["mean_gradient"] = rho * state["mean_gradient"] + (1 - rho) * g
        v = maximum(v - a * a, 0.0)
    b = learning_rate * g / sqrt(v + epsilon)
    if "momentum" in state:
        b = new["momentum"] = momentum * state["momentum"] + b
    return p - b, new


def adadelta(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 1.0,
    rho: float = 0.95,
    epsilon: float = 1e-6,
) -> tuple[Quantity, State]:
    """Zeiler 2012, algorithm 1, with a learning rate."""
    a = rho * state["mean_square"] + (1 - rho) * g * g
    update = sqrt(state["mean_square_update"] + epsilon) / sqrt(a + epsilon) * g
    d = rho * state["mean_square_update"] + (1 - rho) * update * update
    return p - learning_rate * update, {"mean_square": a, "mean_square_update": d}


def adam(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[Quantity, State]:
    """Kingma and Ba 2015, algorithm 1; AMSGrad by Reddi et al. 2018, with bias correction."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    new = {"m": m, "v": v}
    if "v_max" in state:
        v = new["v_max"] = maximum(state["v_max"], v)
    m_hat = m / (1 - beta_1**step)
    v_hat = v / (1 - beta_2**step)
    return p - learning_rate * m_hat / (sqrt(v_hat) + epsilon), new


@dataclass(frozen=True)
class Reference:
    """What the tests know about an optimizer class.

    Attributes
    ----------
    rule
        The rule; it has the name and the keywords of the class's kernel function.
    slots
        The state slots in the kernel's order, each with the hyperparameter that calls for it, or
        None when it always exists.
    configurations
        Keywords for the class that are worth testing.
    weight_decay
        The default of the decoupled weight decay.
    """

    rule: Rule
    slots: Mapping[str, str | None]
    configurations: tuple[Configuration, ...]
    weight_decay: float = 0.0

    def keywords(self, configuration: Configuration, step: int) -> dict[str, Any]:
        """Return all keywords of the rule, and thereby of its kernel function."""
        given = {**configuration, "step": step}
        return {
            name: given.get(name, parameter.default)
            for name, parameter in inspect.signature(self.rule).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    def initial_state(
        self, configuration: Configuration, shape: tuple[int, ...]
    ) -> dict[str, Array]:
        """Return the state before the first step."""
        return {
            slot: np.full(shape, configuration.get(f"initial_{slot}_value", 0.0))
            for slot, switch in self.slots.items()
            if switch is None or configuration.get(switch)
        }

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
        decay = keywords["learning_rate"] * configuration.get("weight_decay", self.weight_decay)
        p = Quantity.exact(param)
        exact_state = {slot: Quantity.exact(value) for slot, value in state.items()}
        return self.rule(p - decay * p, Quantity.exact(grad), exact_state, **keywords)


ADAM_SLOTS: Mapping[str, str | None] = {"m": None, "v": None, "v_max": "amsgrad"}

REFERENCES = {
    "SGD": Reference(
        sgd,
        slots={"momentum": "momentum"},
        configurations=(
            {},
            {"learning_rate": 0.1, "weight_decay": 0.05},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.3},
            {"momentum": 0.8, "nesterov": True},
        ),
    ),
    "Adagrad": Reference(
        adagrad,
        slots={"accumulator": None},
        configurations=(
            {},
            {"initial_accumulator_value": 0.1, "learning_rate_decay": 0.01},
            {"learning_rate": 0.1, "epsilon": 1e-3},
        ),
    ),
    "RMSprop": Reference(
        rmsprop,
        slots={"mean_square": None, "mean_gradient": "centered", "momentum": "momentum"},
        configurations=(
            {},
            {"momentum": 0.9},
            {"centered": True},
            {"centered": True, "momentum": 0.9, "rho": 0.99, "learning_rate": 0.01},
        ),
    ),
    "Adadelta": Reference(
        adadelta,
        slots={"mean_square": None, "mean_square_update": None},
        configurations=({}, {"learning_rate": 0.1, "rho": 0.9, "epsilon": 1e-4}),
    ),
    "Adam": Reference(
        adam,
        slots=ADAM_SLOTS,
        configurations=(
            {},
            {"amsgrad": True},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
            {"beta_1": 0.0, "beta_2": 0.9999},
        ),
    ),
    "AdamW": Reference(
        adam,
        slots=ADAM_SLOTS,
        configurations=({}, {"amsgrad": True, "learning_rate": 0.01, "weight_decay": 0.1}),
        weight_decay=0.01,
    ),
}
