"""Where state lies in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core

if TYPE_CHECKING:  # at run time it would double what importing instep takes
    from instep.typing import Array as Array

_PAGE = 4096
_LINE = 64
_SMALL = 16384


def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros in memory that nobody can resize or give back while the engine knows it.

    Parameters
    ----------
    shape : tuple of int
        The shape.
    dtype : dtype
        The dtype.
    """
    return _core.zeros(shape, np.dtype(dtype), None, None)


def zeros_like(param: Array, dtype: np.dtype[Any], place: int, places: int) -> Array:
    """Return zeros of a dtype in the shape and memory order of a parameter, placed well beside it.

    Arrays that are read and written together must not begin at the same offset into a page: a
    processor takes a load for dependent on an earlier store with the same low 12 bits. Pages of
    their own all begin at the same one.

    Parameters
    ----------
    param : ndarray
        The parameter.
    dtype : dtype
        The dtype.
    place, places : int
        Which of how many arrays this is beside the parameter, from 1.
    """
    strides = np.empty_like(param, dtype, subok=False).strides
    if param.nbytes < _SMALL:
        return _core.zeros(param.shape, dtype, strides, None)
    distance = _PAGE // (places + 1) * place
    wanted = (param.ctypes.data + distance) // _LINE * _LINE
    return _core.zeros(param.shape, dtype, strides, wanted % _PAGE)


class Scratch:
    """Temporary arrays that what comes later may use again: one a purpose, shape and dtype."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...], np.dtype[Any]], Array] = {}

    def __call__(self, purpose: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return such an array, with anything in it."""
        key = purpose, shape, dtype
        if key not in self._arrays:
            self._arrays[key] = np.empty(shape, dtype)
        return self._arrays[key]
