"""Types of what optimizers take, for annotations.

Nothing of it exists for other purposes: `import instep` does not import it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from instep._group import Group
    from instep._rows import Rows

T_co = TypeVar("T_co", covariant=True)

Array: TypeAlias = NDArray[np.floating[Any]]
"""An array of numbers such as float32 and float64."""

Convention: TypeAlias = Literal["paper", "keras", "torch", "optax", "tfjs"]
"""Whose formula and defaults a rule follows."""


class SupportsDLPack(Protocol):
    """An array of another library that lends its memory by DLPack."""

    def __dlpack__(self, *arguments: Any, **options: Any) -> Any:
        """Return its memory."""


class SupportsArray(Protocol):
    """An array of another library that NumPy takes for one of its own."""

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        """Return it as an array of NumPy's."""


class Items(Protocol[T_co]):
    """A list or a tuple; not a str, which has items that are str in turn, and not an array."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __getitem__(self, index: int, /) -> T_co: ...
    def __contains__(self, item: object, /) -> bool: ...
    def count(self, item: Any, /) -> int:
        """Return how often an item occurs."""


Foreign: TypeAlias = "SupportsDLPack | SupportsArray"
"""An array of another library, such as a tensor of PyTorch's or an array of JAX's."""

# Of a list or dict that holds arrays and lists of them, type checkers take the items for objects.
Arrays: TypeAlias = (
    "Array | Foreign | Group | Items[Arrays] | Mapping[Any, Arrays] | list[object] | "
    "dict[Any, object]"
)
"""Parameters: an array, or any nesting of list, tuple and dict of arrays, with groups in it."""

Gradients: TypeAlias = (
    "Array | Rows | Foreign | float | Items[Gradients] | Mapping[Any, Gradients] | "
    "list[object] | dict[Any, object] | None"
)
"""Gradients in the structure of the parameters; None where there is none."""
