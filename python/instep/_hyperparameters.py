"""Hyperparameters: their types and ranges, and the messages for values outside of them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

if TYPE_CHECKING:
    from instep._optimizer import Optimizer

T = TypeVar("T")
Schedule = Callable[[int], float]
"""A learning rate that changes: from the 0-based index of the update to a float."""


class Hyperparameter(Generic[T]):
    """An attribute of an optimizer that is checked when it is set, and takes effect at once.

    Parameters
    ----------
    default
        What None stands for where the convention has no default for it.
    """

    name: str

    def __init__(self, default: Any = None) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, optimizer: None, owner: type) -> Hyperparameter[T]: ...
    @overload
    def __get__(self, optimizer: Optimizer, owner: type) -> T: ...
    def __get__(self, optimizer: Optimizer | None, owner: type) -> Hyperparameter[T] | T:
        if optimizer is None:
            return self
        value: T = optimizer._values[self.name]
        return value

    def __set__(self, optimizer: Optimizer, value: T | None) -> None:
        optimizer._assign(self.name, value)

    def check(self, value: Any) -> T:
        """Return the value as its plain Python type.

        Raises
        ------
        TypeError
            If it is of another type.
        ValueError
            If it is out of range.
        """
        raise NotImplementedError


class Flag(Hyperparameter[bool]):
    """True or False."""

    def check(self, value: Any) -> bool:
        """Return the value as a bool; see `Hyperparameter.check`."""
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{self.name}: expected True or False, got {value!r}")
        return bool(value)


class Number(Hyperparameter[float]):
    """A finite number.

    Parameters
    ----------
    default
        See `Hyperparameter`.
    at_least, above, at_most, below
        The bounds of its range, where it has some.
    """

    def __init__(
        self,
        default: float | None = None,
        *,
        at_least: float = -math.inf,
        above: float = -math.inf,
        at_most: float = math.inf,
        below: float = math.inf,
    ) -> None:
        super().__init__(default)
        self._bounds = {">=": at_least, ">": above, "<=": at_most, "<": below}

    def check(self, value: Any) -> float:
        """Return the value as a float; see `Hyperparameter.check`."""
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise TypeError(f"{self.name}: expected a number, got {value!r}")
        number = float(value)
        bounds = self._bounds
        if not (
            math.isfinite(number)
            and bounds[">="] <= number <= bounds["<="]
            and bounds[">"] < number < bounds["<"]
        ):
            limits = [f"{sign} {b:g}" for sign, b in bounds.items() if math.isfinite(b)]
            expected = " ".join(["a finite number", " and ".join(limits)]).strip()
            raise ValueError(f"{self.name}: expected {expected}, got {value!r}")
        return number


class Limit(Hyperparameter["float | None"]):
    """A positive number, or None for no limit."""

    def check(self, value: Any) -> float | None:
        """Return the value as a float or None; see `Hyperparameter.check`."""
        if value is None:
            return None
        number = Number(above=0)
        number.name = self.name
        return number.check(value)


class Count(Hyperparameter[int]):
    """A whole number of at least 1."""

    def check(self, value: Any) -> int:
        """Return the value as an int; see `Hyperparameter.check`."""
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{self.name}: expected a whole number, got {value!r}")
        count = int(value)
        if not 1 <= count < 2**63:
            raise ValueError(f"{self.name}: expected a whole number >= 1, got {value!r}")
        return count


class Frequency(Hyperparameter["int | None"]):
    """A whole number of at least 1, or None for never."""

    def check(self, value: Any) -> int | None:
        """Return the value as an int or None; see `Hyperparameter.check`."""
        if value is None:
            return None
        count = Count()
        count.name = self.name
        return count.check(value)


class Rate(Hyperparameter["float | Schedule"]):
    """A learning rate: a number of at least 0, or a schedule."""

    def check(self, value: Any) -> float | Schedule:
        """Return the value as a float, or the schedule; see `Hyperparameter.check`."""
        if callable(value):
            schedule: Schedule = value
            return schedule
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"{self.name}: expected a number or a schedule (a callable from the update's "
                f"index to a float), got {value!r}"
            )
        number = Number(at_least=0)
        number.name = self.name
        return number.check(value)


def decay_rate() -> Number:
    """Return a hyperparameter such as beta_1: at least 0 and below 1."""
    return Number(at_least=0, below=1)


def non_negative(default: float | None = None) -> Number:
    """Return a hyperparameter of at least 0."""
    return Number(default, at_least=0)
