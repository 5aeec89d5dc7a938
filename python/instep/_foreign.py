"""Arrays of other libraries as NumPy's views of their memory. Called by the bindings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from instep._memory import Array


def gradient(array: Any, name: str) -> Array:
    """Return what is to be read, without a copy where its library can do that.

    Parameters
    ----------
    array
        Something with `__dlpack__` or `__array__`.
    name
        What errors call it.

    Raises
    ------
    TypeError
        If it is not in memory that NumPy can read.
    """
    array = _with_its_signs(_detached(array))
    bits = bits_of_bfloat16(array)
    if bits is not None:
        return _as_bfloat16(bits, name)
    try:
        view: Any = np.from_dlpack(array)
        return view  # type: ignore[no-any-return]
    except Exception:  # each library raises its own
        return _converted(array, name)


def parameter(array: Any, name: str) -> Array:
    """Return a view that shares the array's memory, to be updated in place.

    Raises
    ------
    TypeError
        If there can be none.
    """
    what = f"{type(array).__module__}.{type(array).__qualname__}"
    array = _detached(array)
    if _with_its_signs(array) is not array:
        raise TypeError(
            f"{name}: expected a tensor in whose memory its own numbers are, got one with those of "
            "the other sign; train its resolve_neg()"
        )
    bits = bits_of_bfloat16(array)
    if bits is not None:
        return _as_bfloat16(bits, name)
    view = _converted(array, name)
    if not view.flags.writeable:
        raise TypeError(
            f"{name}: expected an array to update in place, got an immutable {what}; train "
            "numpy.array(...) of it"
        )
    again = np.asarray(array)
    if view.size and view.__array_interface__["data"] != again.__array_interface__["data"]:
        raise TypeError(
            f"{name}: expected an array whose memory NumPy shares, got a {what}, of which it makes "
            "copies; train numpy.array(...) of it"
        )
    return view


def _detached(array: Any) -> Any:
    """Return a tensor without its place in a graph; it has the same memory."""
    detach = getattr(array, "detach", None)
    return detach() if callable(detach) else array


def _with_its_signs(array: Any) -> Any:
    """Return a tensor in whose memory its own numbers are, of one where they are the opposite.

    PyTorch makes such ones of imaginary parts, and DLPack does not know them.
    """
    resolve = getattr(array, "resolve_neg", None)
    return resolve() if callable(resolve) else array


def bits_of_bfloat16(array: Any) -> Any:
    """Return a tensor of the same memory whose elements are the bits, for PyTorch's bfloat16.

    NumPy does not know that dtype, and PyTorch does not know ml_dtypes.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor) or array.dtype != torch.bfloat16:
        return None
    return array.view(torch.int16)


def _as_bfloat16(bits: Any, name: str) -> Array:
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError(
            f"{name}: expected ml_dtypes to be installed, which brings bfloat16 to NumPy, for a "
            "tensor of that dtype; pip install ml_dtypes"
        ) from None
    view: Array = _converted(bits, name).view(ml_dtypes.bfloat16)
    return view


def _converted(array: Any, name: str) -> Array:
    try:
        return np.asarray(array)
    except Exception as error:
        raise TypeError(
            f"{name}: expected an array in memory that NumPy can read, got an object of type "
            f"{type(array).__name__} ({error}); copy it there first, as PyTorch's cpu() does"
        ) from None
