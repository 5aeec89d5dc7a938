"""What all of them need: checks of what is given, and numbers and arrays of other frameworks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from instep._optimizer import Optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep._binding import Binding

T = TypeVar("T")


def check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected an optimizer of instep, got {type(optimizer).__name__}"
        )


def entry_of(optimizer: Optimizer, convention: str, table: Mapping[str, T]) -> T:
    """Return the entry of a framework's table for an optimizer."""
    check_optimizer(optimizer)
    if optimizer.convention != convention:
        raise ValueError(
            f"optimizer: expected one with convention={convention!r}, got {optimizer!r}"
        )
    for cls in type(optimizer).__mro__:
        if cls.__name__ in table:
            return table[cls.__name__]
    raise ValueError(f"optimizer: expected one of {listed(table)}; got {optimizer!r}")


def leaves_in(binding: Binding, order: Sequence[Any] | None) -> list[int]:
    """Return the indices of all leaves in the order of some arrays."""
    count = len(binding.tree.leaves)
    if order is None:
        return list(range(count))
    if not isinstance(order, Sequence):
        raise TypeError(
            f"order: expected a list of the {count} arrays that were bound, got {shown(order)}"
        )
    leaves = [binding.index_of(array) for array in order]
    for position, leaf in enumerate(leaves):
        if leaf is None or leaf in leaves[:position]:
            raise ValueError(
                f"order[{position}]: expected one of the {count} arrays that were bound, each "
                f"once; got {'another one' if leaf is None else binding.tree.paths[leaf]}"
            )
    if len(leaves) != count:
        raise ValueError(f"order: expected the {count} arrays that were bound, got {len(leaves)}")
    return [leaf for leaf in leaves if leaf is not None]


def array_of(value: Any, what: str) -> NDArray[Any]:
    """Return a tensor or array as an ndarray."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{what}: expected an array or a tensor on the CPU, got {type(value).__name__}: {error}"
        ) from None


def check_like(array: NDArray[Any], like: NDArray[Any], path: str, what: str) -> None:
    if (array.dtype, array.shape) != (like.dtype, like.shape):
        raise ValueError(
            f"{what}: expected a {like.dtype} array of shape {like.shape} for {path}, "
            f"got a {array.dtype} array of shape {array.shape}"
        )


def number_of(array: NDArray[Any], what: str) -> Any:
    if array.shape != () or array.dtype.kind not in "fiu" or not np.isfinite(array):
        given = shown(array) if array.ndim else repr(array.item())
        raise ValueError(f"{what}: expected a finite number, got {given}")
    return array.item()


def count_of(array: NDArray[Any], what: str) -> int:
    number = number_of(array, what)
    if number < 0 or number != int(number):
        raise ValueError(f"{what}: expected a whole number >= 0, got {number!r}")
    return int(number)


def plain_number(value: Any) -> Any:
    """Return a tensor or scalar as a Python number."""
    array = np.asarray(value) if hasattr(value, "item") else None
    return value if array is None or array.size != 1 else array.item()


def listed(names: Any) -> str:
    return ", ".join(map(repr, names))


def shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {listed(value)}" if value else "an empty dict"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {shape}" if shape is not None else "")
