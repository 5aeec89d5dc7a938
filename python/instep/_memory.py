"""Where state lies in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # at run time it would double what importing instep takes
    from typing import Any

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

_PAGE = 4096
_LINE = 64
_SMALL = 16384


def zeros_like(param: Array, place: int, places: int) -> Array:
    """Return zeros of the shape, dtype and memory order of a parameter, placed well beside it.

    Arrays that are read and written together must not begin at the same offset into a page: a
    processor takes a load for dependent on an earlier store with the same low 12 bits. NumPy's
    large arrays all begin at the same one.

    Parameters
    ----------
    param : ndarray
        The parameter.
    place, places : int
        Which of how many arrays this is beside the parameter, from 1.
    """
    if param.nbytes < _SMALL:
        small: Array = np.zeros_like(param, subok=False)
        return small
    buffer = np.empty(param.nbytes + _PAGE, np.uint8)  # zeros may lack huge pages in NumPy 1
    buffer.fill(0)
    distance = _PAGE // (places + 1) * place
    wanted = (param.ctypes.data + distance) // _LINE * _LINE
    placed: Array = np.ndarray(
        param.shape,
        param.dtype,
        buffer,
        offset=(wanted - buffer.ctypes.data) % _PAGE,
        strides=np.empty_like(param, subok=False).strides,
    )
    return placed
