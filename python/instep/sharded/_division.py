"""Who holds what: arrays cut into a part for each rank, and a rank's parts into rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

BLOCK = 16384
"""The engine sums so many elements at a time, so that parts begin at multiples of it."""


class Part(NamedTuple):
    """What a rank holds of an array.

    Attributes
    ----------
    first
        The first element.
    size
        How many they are; maybe none.
    """

    first: int
    size: int

    @property
    def end(self) -> int:
        """The element after the last one."""
        return self.first + self.size


class Piece(NamedTuple):
    """Some of a part's elements.

    Attributes
    ----------
    array
        The index of the array.
    first
        The first element, counted from that of the part.
    size
        How many they are.
    """

    array: int
    first: int
    size: int


def unit_of(size: int, row_length: int) -> int:
    """Return at multiples of how many elements an array may be cut; 0 if it may not.

    Parameters
    ----------
    size : int
        Its elements.
    row_length : int
        Those of each of its rows, which stay whole; 1 where they need not.
    """
    unit = math.lcm(BLOCK, row_length)
    return unit if size > unit else 0


def divide(sizes: Sequence[int], units: Sequence[int], ranks: int) -> list[list[Part]]:
    """Return each rank's part of each array: about as many elements for each rank.

    Parameters
    ----------
    sizes : sequence of int
        The elements of each array.
    units : sequence of int
        At multiples of how many it may be cut; others, with 0, are one rank's alone.
    ranks : int
        How many ranks there are.

    Returns
    -------
    list of list of Part
        For each rank one part of each array. A rank's parts are neighbours in the order of arrays.
    """
    total, before = sum(sizes), 0
    parts: list[list[Part]] = [[] for _ in range(ranks)]
    for size, unit in zip(sizes, units, strict=True):
        borders = [total * rank // ranks - before for rank in range(ranks + 1)]
        if unit:
            cuts = [min(max(_nearest(border, unit), 0), size) for border in borders]
            cuts[0], cuts[-1] = 0, size
        else:
            owner = sum(border <= size // 2 for border in borders[1:-1])
            cuts = [0 if rank <= owner else size for rank in range(ranks + 1)]
        for rank in range(ranks):
            parts[rank].append(Part(cuts[rank], cuts[rank + 1] - cuts[rank]))
        before += size
    return parts


def _nearest(element: int, unit: int) -> int:
    """Return the nearest multiple."""
    return (element + unit // 2) // unit * unit


def rounds(parts: Sequence[Part], is_cut: Sequence[bool], most: int) -> list[list[Piece]]:
    """Return a rank's parts in rounds of about so many elements at most.

    Parameters
    ----------
    parts : sequence of Part
        The rank's part of each array.
    is_cut : sequence of bool
        Whether the array may be cut; a part of another one is in one round.
    most : int
        How many elements a round has at most, unless one such part is more.

    Returns
    -------
    list of list of Piece
        All parts in their order; rounds have some elements.
    """
    most = max(most // BLOCK, 1) * BLOCK
    found: list[list[Piece]] = []
    filled = 0
    for array, part in enumerate(parts):
        done = 0
        while done < part.size:
            left = part.size - done
            count = min(left, most) if is_cut[array] else left
            if not found or (filled and filled + count > most):
                found.append([])
                filled = 0
            found[-1].append(Piece(array, done, count))
            filled += count
            done += count
    return found
