"""Hyperparameters: their types and ranges, and the messages for values outside of them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from instep._core import MOST_STEPS

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform as dataclass_transform

    from instep._optimizer import Optimizer
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """Stand in for what only type checkers need."""
        return lambda cls: cls


T = TypeVar("T")
Schedule = Callable[[int], float]
"""A learning rate that changes: from the 0-based index of the update to a float."""


def shown(value: Any) -> str:
    """Return a value's repr for a message, or its type where that fails, as of enormous numbers."""
    try:
        return repr(value)
    except Exception:
        return f"an object of type {type(value).__name__}"


class Hyperparameter(Generic[T]):
    """An attribute of an optimizer that is checked when it is set, and takes effect at once.

    Parameters
    ----------
    default
        What None stands for: the paper's default, and that of conventions that do not say.
    """

    name: str

    def __init__(self, *, default: Any = None) -> None:
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
            raise TypeError(f"{self.name}: expected True or False, got {shown(value)}")
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
        *,
        default: float | None = None,
        at_least: float = -math.inf,
        above: float = -math.inf,
        at_most: float = math.inf,
        below: float = math.inf,
    ) -> None:
        super().__init__(default=default)
        self._bounds = {">=": at_least, ">": above, "<=": at_most, "<": below}

    def check(self, value: Any) -> float:
        """Return the value as a float; see `Hyperparameter.check`."""
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise TypeError(f"{self.name}: expected a number, got {shown(value)}")
        try:
            number = float(value)
        except OverflowError:  # a large int
            number = math.inf
        bounds = self._bounds
        if not (
            math.isfinite(number)
            and bounds[">="] <= number <= bounds["<="]
            and bounds[">"] < number < bounds["<"]
        ):
            limits = [f"{sign} {b:g}" for sign, b in bounds.items() if math.isfinite(b)]
            expected = " ".join(["a finite number", " and ".join(limits)]).strip()
            raise ValueError(f"{self.name}: expected {expected}, got {shown(value)}")
        return number


class OptionalNumber(Hyperparameter["float | None"]):
    """A number within bounds, or None.

    Parameters
    ----------
    default
        See `Hyperparameter`.
    at_least, above, below
        See `Number`.
    """

    def __init__(
        self,
        *,
        default: float | None = None,
        at_least: float = -math.inf,
        above: float = -math.inf,
        below: float = math.inf,
    ) -> None:
        super().__init__(default=default)
        self._number = Number(at_least=at_least, above=above, below=below)

    def check(self, value: Any) -> float | None:
        """Return the value as a float or None; see `Hyperparameter.check`."""
        if value is None:
            return None
        self._number.name = self.name
        return self._number.check(value)


class Limit(OptionalNumber):
    """A positive number, or None for no limit."""

    def __init__(self, *, default: float | None = None) -> None:
        super().__init__(default=default, above=0)


class Count(Hyperparameter[int]):
    """A whole number.

    Parameters
    ----------
    default
        See `Hyperparameter`.
    at_least
        1 unless given.
    """

    def __init__(self, *, default: int | None = None, at_least: int = 1) -> None:
        super().__init__(default=default)
        self._at_least = at_least

    def check(self, value: Any) -> int:
        """Return the value as an int; see `Hyperparameter.check`."""
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{self.name}: expected a whole number, got {shown(value)}")
        count = int(value)
        if not self._at_least <= count <= MOST_STEPS:
            raise ValueError(
                f"{self.name}: expected a whole number >= {self._at_least}, and at most 2**62, "
                f"got {shown(value)}"
            )
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
                f"index to a float), got {shown(value)}"
            )
        number = Number(at_least=0)
        number.name = self.name
        return number.check(value)


class Choice(Hyperparameter["str | None"]):
    """One of some words, or None.

    Parameters
    ----------
    words
        All that there are.
    default
        See `Hyperparameter`.
    """

    def __init__(self, words: tuple[str, ...], *, default: str | None = None) -> None:
        super().__init__(default=default)
        self._words = words

    def check(self, value: Any) -> str | None:
        """Return the value; see `Hyperparameter.check`."""
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{self.name}: expected a string or None, got {shown(value)}")
        if value is not None and value not in self._words:
            raise ValueError(
                f"{self.name}: expected one of {', '.join(map(repr, self._words))} or None, "
                f"got {shown(value)}"
            )
        return value


class Numbers(Hyperparameter["tuple[float, ...]"]):
    """So many finite numbers.

    Parameters
    ----------
    default
        See `Hyperparameter`; as many as there must be.
    """

    def check(self, value: Any) -> tuple[float, ...]:
        """Return the value as a tuple of floats; see `Hyperparameter.check`."""
        count = len(self.default)
        if not isinstance(value, (tuple, list)) or len(value) != count:
            raise TypeError(f"{self.name}: expected {count} numbers, got {shown(value)}")
        number = Number()
        number.name = self.name
        return tuple(number.check(each) for each in value)


def decay_rate(*, default: float | None = None) -> Number:
    """Return a hyperparameter such as beta_1: at least 0 and below 1."""
    return Number(default=default, at_least=0, below=1)


def non_negative(*, default: float | None = None) -> Number:
    """Return a hyperparameter of at least 0."""
    return Number(default=default, at_least=0)


def positive(*, default: float | None = None) -> Number:
    """Return a hyperparameter above 0."""
    return Number(default=default, above=0)
