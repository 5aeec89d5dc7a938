"""Kinds of values: what hyperparameters, arguments of schedules and saved numbers may be.

A kind holds nothing but its bounds. ``kind.check(name, value)`` returns the value as its plain
Python type; for another type it raises a TypeError with that name, out of range a ValueError.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from instep._core import MOST_STEPS

T = TypeVar("T")
Schedule = Callable[[int], float]
"""A learning rate that changes: from the 0-based index of the update to a float."""


def counted(count: int, what: str) -> str:
    """Return so many of something: 1 thread, 2 threads."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shown(value: Any) -> str:
    """Return a value's repr for a message, or its type where that fails, as of enormous numbers."""
    try:
        return repr(value)
    except Exception:
        return f"an object of type {type(value).__name__}"


class Kind(Generic[T]):
    """What a value may be."""

    takes_none = False
    limits: tuple[float, float] | None = None
    """Of a kind of numbers the least and the greatest one, ints where they are whole. Plain numbers
    between them are checked in C++; whatever else there is, comes to `check`."""

    def check(self, name: str, value: Any) -> T:
        """Return the value as its plain Python type.

        Raises
        ------
        TypeError
            If it is of another type.
        ValueError
            If it is out of range.
        """
        raise NotImplementedError


class Flag(Kind[bool]):
    """True or False."""

    def check(self, name: str, value: Any) -> bool:
        """Return the value as a bool; see `Kind.check`."""
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}: expected True or False, got {shown(value)}")
        return bool(value)


class Real(Kind[float]):
    """A number, infinite ones and NaN among them."""

    def check(self, name: str, value: Any) -> float:
        """Return the value as a float; see `Kind.check`."""
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value[()]
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name}: expected a number, got {shown(value)}")
        try:
            return float(value)
        except OverflowError:  # a large int
            return -math.inf if value < 0 else math.inf


class Number(Real):
    """A finite number.

    Parameters
    ----------
    at_least, above, at_most, below
        The bounds of its range, where it has some.
    or_infinite
        Whether it may be infinite as well.
    """

    limits: tuple[float, float]

    def __init__(
        self,
        *,
        at_least: float = -math.inf,
        above: float = -math.inf,
        at_most: float = math.inf,
        below: float = math.inf,
        or_infinite: bool = False,
    ) -> None:
        self._what = "a number" if or_infinite else "a finite number"
        self._bounds = {">=": at_least, ">": above, "<=": at_most, "<": below}
        self.limits = (
            max(float(at_least), math.nextafter(above, math.inf)),
            math.inf if or_infinite else min(float(at_most), math.nextafter(below, -math.inf)),
        )

    def check(self, name: str, value: Any) -> float:
        """Return the value as a float; see `Kind.check`."""
        number, (least, greatest) = super().check(name, value), self.limits
        if not least <= number <= greatest:
            bounds = [f"{sign} {b:g}" for sign, b in self._bounds.items() if math.isfinite(b)]
            expected = " ".join([self._what, " and ".join(bounds)]).strip()
            raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
        return number


class Metric(Real):
    """A number, infinite ones among them, but not NaN."""

    def check(self, name: str, value: Any) -> float:
        """Return the value as a float; see `Kind.check`."""
        number = super().check(name, value)
        if math.isnan(number):
            raise ValueError(f"{name}: expected a number, got {shown(value)}")
        return number


class Norm(Real):
    """A number of at least 0, or NaN: gradients need not have been finite."""

    def check(self, name: str, value: Any) -> float:
        """Return the value as a float; see `Kind.check`."""
        number = super().check(name, value)
        is_too_large = math.isinf(number) and isinstance(value, numbers.Integral)
        if number < 0 or is_too_large:
            raise ValueError(f"{name}: expected a number >= 0, got {shown(value)}")
        return number


class WholeNumber(Kind[int]):
    """A whole number.

    Parameters
    ----------
    at_least, at_most
        The bounds of its range; None for no upper one.
    """

    def __init__(self, *, at_least: int, at_most: int | None = MOST_STEPS) -> None:
        self._at_least, self._at_most = at_least, at_most
        if at_most is not None:
            self.limits = at_least, at_most

    def check(self, name: str, value: Any) -> int:
        """Return the value as an int; see `Kind.check`."""
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name}: expected a whole number, got {shown(value)}")
        number, most = int(value), self._at_most
        if number < self._at_least or (most is not None and number > most):
            bounds = f">= {self._at_least}"
            if most is not None:
                bounds += f", and at most {'2**62' if most == MOST_STEPS else most}"
            raise ValueError(f"{name}: expected a whole number {bounds}, got {shown(value)}")
        return number


class Step(Kind[float]):
    """How many steps there were: a number of at least 0, an int where it is whole."""

    _kind = Number(at_least=0)

    def check(self, name: str, value: Any) -> float:
        """Return the value as an int or a float; see `Kind.check`."""
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            whole = int(value)  # of any size
            if whole >= 0:
                return whole
        number = self._kind.check(name, value)
        return int(number) if number.is_integer() else number


class Choice(Kind[str]):
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def check(self, name: str, value: Any) -> str:
        """Return the value; see `Kind.check`."""
        expected = f"{name}: expected {' or '.join(map(repr, self._words))}, got {shown(value)}"
        if not isinstance(value, str):
            raise TypeError(expected)
        if value not in self._words:
            raise ValueError(expected)
        return value


class Words(Kind[tuple[str, ...]]):
    """Some of several words, in their order."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def check(self, name: str, value: Any) -> tuple[str, ...]:
        """Return the words as a tuple; see `Kind.check`."""
        expected = f"{name}: expected some of {', '.join(map(repr, self._words))}, got "
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError(f"{expected}{shown(value)}; one alone is {name}=({self._words[0]!r},)")
        given = tuple(value)
        for word in given:
            if not isinstance(word, str) or word not in self._words:
                raise ValueError(f"{expected}{shown(word)}")
        return tuple(word for word in self._words if word in given)


class Numbers(Kind[tuple[float, ...]]):
    """So many finite numbers."""

    _each = Number()

    def __init__(self, count: int) -> None:
        self._count = count

    def check(self, name: str, value: Any) -> tuple[float, ...]:
        """Return the value as a tuple of floats; see `Kind.check`."""
        if not isinstance(value, (tuple, list)) or len(value) != self._count:
            raise TypeError(f"{name}: expected {self._count} numbers, got {shown(value)}")
        return tuple(self._each.check(name, each) for each in value)


class Called(Kind[Schedule]):
    """A schedule."""

    def check(self, name: str, value: Any) -> Schedule:
        """Return the schedule; see `Kind.check`."""
        if not callable(value):
            raise TypeError(f"{name}: expected a schedule, got {shown(value)}")
        schedule: Schedule = value
        return schedule


class Rate(Kind["float | Schedule"]):
    """A learning rate: a number of at least 0, or a schedule."""

    _number = Number(at_least=0)
    limits = _number.limits

    def check(self, name: str, value: Any) -> float | Schedule:
        """Return the value as a float, or the schedule; see `Kind.check`."""
        if callable(value):
            schedule: Schedule = value
            return schedule
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"{name}: expected a number or a schedule (a callable from the update's "
                f"index to a float), got {shown(value)}"
            )
        return self._number.check(name, value)


class Scheduled(Kind["float | Schedule"]):
    """A number within bounds, or a schedule of such numbers."""

    def __init__(self, number: Number) -> None:
        self.number = number
        self.limits = number.limits

    def check(self, name: str, value: Any) -> float | Schedule:
        """Return the value as a float, or the schedule; see `Kind.check`."""
        if callable(value):
            schedule: Schedule = value
            return schedule
        return self.number.check(name, value)


class Optional(Kind[T | None]):
    """What another kind takes, or None."""

    takes_none = True

    def __init__(self, kind: Kind[T]) -> None:
        self._kind = kind
        self.limits = kind.limits

    def check(self, name: str, value: Any) -> T | None:
        """Return None or what the other kind makes of the value; see `Kind.check`."""
        return None if value is None else self._kind.check(name, value)


class Each(Kind[tuple[T, ...]]):
    """A sequence of what another kind takes."""

    def __init__(self, kind: Kind[T]) -> None:
        self._kind = kind

    def check(self, name: str, value: Any) -> tuple[T, ...]:
        """Return the values as a tuple; see `Kind.check`."""
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError(f"{name}: expected a sequence, got {shown(value)}")
        return tuple(self._kind.check(f"{name}[{k}]", item) for k, item in enumerate(value))


class Increasing(Each[int]):
    """Steps in increasing order; repeated ones are allowed."""

    def __init__(self) -> None:
        super().__init__(WholeNumber(at_least=0, at_most=None))

    def check(self, name: str, value: Any) -> tuple[int, ...]:
        """Return the steps as a tuple; see `Kind.check`."""
        steps = super().check(name, value)
        if any(earlier > later for earlier, later in pairwise(steps)):
            raise ValueError(f"{name}: expected steps in increasing order, got {shown(value)}")
        return steps
