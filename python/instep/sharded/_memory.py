"""Parameters and gradients in memory that all ranks of a node see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from instep.sharded._ranks import Ranks

if TYPE_CHECKING:
    from instep.sharded._ranks import Bytes
    from instep.typing import Array

_LINE, _PAGE = 64, 4096


class Memory(NamedTuple):
    """What all ranks see.

    Attributes
    ----------
    params
        The parameters, once for all of them.
    grads
        The gradients of each rank.
    """

    params: list[Array]
    grads: list[list[Array]]


def memory_like(ranks: Ranks, leaves: Sequence[Array]) -> Memory:
    """Return memory for parameters like these, and for gradients, with no numbers in it yet.

    It is given back when the program ends, as nobody knows of all ranks who still looks at it.

    Raises
    ------
    ValueError
        Where ranks are on several nodes.
    """
    size = sum(_padded(leaf.nbytes, _LINE) for leaf in leaves)
    window = ranks.window(_padded((2 if ranks.rank == 0 else 1) * size, _PAGE))
    if window is None:
        raise ValueError(
            "shared: expected ranks of one node, which have memory in common, got some of several; "
            "without shared=True they send each other what they need"
        )
    grads = [_cut(memory, leaves) for memory in window.memory]
    return Memory(_cut(window.memory[0][size:], leaves), grads)


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _cut(memory: Bytes, leaves: Sequence[Array]) -> list[Array]:
    """Return arrays one after the other."""
    arrays, begin = [], 0
    for leaf in leaves:
        array = memory[begin : begin + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
        arrays.append(array)
        begin += _padded(leaf.nbytes, _LINE)
    return arrays
