"""Where state lies in memory."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # at run time it would double what importing instep takes
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

_PAGE = 4096
_LINE = 64
_SMALL = 16384


def zeros(shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None) -> Array:
    """Return zeros in memory that nobody can resize or give back while an array is in it.

    NumPy's own memory can be, by ``resize`` with ``refcheck=False``; the engine would go on with
    its address.

    Parameters
    ----------
    shape : tuple of int
        The shape.
    dtype : dtype
        The dtype.
    strides : tuple of int, optional
        The strides, if they are not those of C order.
    """
    memory = bytearray(max(math.prod(shape), 1) * np.dtype(dtype).itemsize)
    made: Array = np.ndarray(shape, dtype, memory, 0, strides)
    return made


def zeros_like(param: Array, place: int, places: int) -> Array:
    """Return zeros of the shape, dtype and memory order of a parameter, placed well beside it.

    Arrays that are read and written together must not begin at the same offset into a page: a
    processor takes a load for dependent on an earlier store with the same low 12 bits. Pages of
    their own all begin at the same one.

    Parameters
    ----------
    param : ndarray
        The parameter.
    place, places : int
        Which of how many arrays this is beside the parameter, from 1.
    """
    strides = np.empty_like(param, subok=False).strides
    if param.nbytes < _SMALL:
        return zeros(param.shape, param.dtype, strides)
    distance = _PAGE // (places + 1) * place
    wanted = (param.ctypes.data + distance) // _LINE * _LINE
    placed: Array = np.ndarray(
        param.shape, param.dtype, _pages(param.nbytes + _PAGE), wanted % _PAGE, strides
    )
    return placed


def _pages(size: int) -> Any:
    """Return so many bytes of this process's own, with huge pages where there are any."""
    import mmap  # not every program has large arrays

    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(pages, np.uint8).fill(0)  # the system finds the memory now, not in a step
    return pages
