"""Arrays of numbers that know how large the terms were that they were formed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]

TINY = np.finfo(np.float64).tiny
# Relative to its largest term, a number below this may have either sign after rounding in float32.
UNCERTAIN = 1e-6
# The largest term of a number that may have been subnormal in float32 and counted as zero.
FLUSHED = 1e-31
# Relative to the root of its largest term, a root below this says nothing, in float64 either.
ROOT_OF_NOTHING = 1e-8
# As the largest term of a sign, this makes every sign right, in float64 too.
ANY_SIGN = 1e13


@dataclass(eq=False, slots=True)
class Quantity:
    """A number per element, and the size of the largest term that was added to form it.

    Rounding errors are proportional to that term and not to the number itself, which can be a
    small difference between large terms. Products, quotients and roots hand it on in first order.
    Plain numbers are their own only terms.

    Attributes
    ----------
    value
        The numbers.
    largest
        The magnitude of the largest term of each.
    """

    value: Array
    largest: Array
    _scale: Array | None = None

    @classmethod
    def alone(cls, value: Array, scale: Array) -> Quantity:
        """Take a product or what is like it, which is itself one of its terms."""
        return cls(value, scale, scale)

    @classmethod
    def exact(cls, number: Quantity | ArrayLike) -> Quantity:
        """Take a number as its own only term."""
        if isinstance(number, Quantity):
            return number
        value = np.asarray(number, dtype=np.float64)
        return cls.alone(value, np.abs(value))

    @property
    def scale(self) -> Array:
        """The magnitude that the number has as a term of another formula."""
        if self._scale is None:
            self._scale = np.maximum(np.abs(self.value), self.largest)
        return self._scale

    def __add__(self, other: Quantity | float) -> Quantity:
        value, scale = split(other)
        return Quantity(self.value + value, np.maximum(self.scale, scale))

    def __sub__(self, other: Quantity | float) -> Quantity:
        value, scale = split(other)
        return Quantity(self.value - value, np.maximum(self.scale, scale))

    def __rsub__(self, other: float) -> Quantity:
        return Quantity(other - self.value, np.maximum(self.scale, abs(other)))

    def __mul__(self, other: Quantity | float) -> Quantity:
        if not isinstance(other, Quantity):
            return Quantity.alone(self.value * other, self.scale * abs(other))
        value = self.value * other.value
        scale = self.scale * np.abs(other.value) + np.abs(self.value) * other.scale
        return Quantity.alone(value, scale - np.abs(value))

    def __truediv__(self, other: Quantity | float) -> Quantity:
        if not isinstance(other, Quantity):
            return Quantity.alone(self.value / other, self.scale / abs(other))
        value = self.value / other.value
        size = np.abs(value)
        scale = (self.scale + size * other.scale) / np.abs(other.value)
        return Quantity.alone(value, scale - size)

    __radd__ = __add__
    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> Quantity:
        return Quantity(self.value[index], self.largest[index])


def split(number: Quantity | float) -> tuple[Array | float, Array | float]:
    """Return a number and its scale."""
    if isinstance(number, Quantity):
        return number.value, number.scale
    return number, abs(number)


def sqrt(number: Quantity) -> Quantity:
    """Take the square root, which halves relative errors; of what may as well be 0, anything."""
    root = np.sqrt(number.value)
    scale = np.where(root > 0, np.maximum(number.scale, FLUSHED), number.scale)
    least = ROOT_OF_NOTHING * np.sqrt(scale) + TINY
    largest = scale / np.maximum(2 * root, least)
    return Quantity.alone(root, np.maximum(root, largest))


def power(number: Quantity, exponent: float) -> Quantity:
    """Raise a number of at least 0, which multiplies relative errors by the exponent."""
    value = number.value**exponent
    largest = abs(exponent) * value * (number.scale / np.maximum(number.value, TINY))
    return Quantity.alone(value, np.maximum(value, largest))


def absolute(number: Quantity) -> Quantity:
    """Take the magnitude."""
    return Quantity(np.abs(number.value), number.largest)


def sign(number: Quantity) -> Quantity:
    """Take the sign, which is any where rounding may have turned it."""
    value = np.sign(number.value)
    uncertain = np.abs(number.value) < UNCERTAIN * number.scale
    return Quantity(value, np.where(uncertain, ANY_SIGN, np.abs(value)))


def maximum(number: Quantity, other: Quantity | float) -> Quantity:
    """Take the larger number of each element."""
    other = Quantity.exact(other)
    return Quantity(np.maximum(number.value, other.value), np.maximum(number.scale, other.scale))


def minimum(number: Quantity, other: Quantity | float) -> Quantity:
    """Take the smaller number of each element."""
    other = Quantity.exact(other)
    return Quantity(np.minimum(number.value, other.value), np.maximum(number.scale, other.scale))


def where(condition: ArrayLike, number: Quantity | float, other: Quantity | float) -> Quantity:
    """Choose one of two numbers for each element."""
    number, other = Quantity.exact(number), Quantity.exact(other)
    return Quantity(
        np.where(condition, number.value, other.value),
        np.where(condition, number.largest, other.largest),
    )


def total(number: Quantity, axis: int | None = None) -> Quantity:
    """Add up over an axis or over the array, whose errors may all have the same sign."""
    return Quantity(
        np.asarray(np.sum(number.value, axis=axis)), np.asarray(np.sum(number.scale, axis=axis))
    )


def mean(number: Quantity, axis: int | None = None) -> Quantity:
    """Average over an axis or over the array."""
    whole = total(number, axis)
    return whole * (whole.value.size / max(number.value.size, 1))


def highest(number: Quantity, axes: tuple[int, ...]) -> Quantity:
    """Take the maximum over some axes."""
    return Quantity(
        np.asarray(np.max(number.value, axis=axes)), np.asarray(np.max(number.scale, axis=axes))
    )


def expanded(number: Quantity, axes: tuple[int, ...]) -> Quantity:
    """Insert axes of length 1."""
    return Quantity(np.expand_dims(number.value, axes), np.expand_dims(number.largest, axes))


def norm(number: Quantity) -> Quantity:
    """Take the 2-norm of the array."""
    return sqrt(total(number * number))


def root_mean_square(number: Quantity) -> Quantity:
    """Take the root of the mean of all squares."""
    return sqrt(mean(number * number))
