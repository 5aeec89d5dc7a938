"""Gradients of rows on their way to the ranks that hold them, and rows on their way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep._rows import Rows
from instep.sharded._division import Part
from instep.sharded._ranks import Ranks, agree_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep.sharded._ranks import Bytes
    from instep.typing import Array

    Ids = NDArray[np.integer[Any]]

_ID = np.dtype(np.int64)
"""Ids between ranks; in messages all else begins at multiples of their size, too."""
_PREFIX = "Rows of "


class Named(NamedTuple):
    """Some rows of an array.

    Attributes
    ----------
    ids
        Which, in one dimension.
    numbers
        The elements of each along a second one.
    """

    ids: Ids
    numbers: Array


class Tables:
    """Arrays that may have gradients of rows: each rank holds whole rows of them.

    Parameters
    ----------
    ranks
        What connects ranks.
    params
        All parameters, whole.
    parts
        For each rank its part of each array.
    row_lengths
        The elements of a row of each array; 0 for those that have no such gradients.
    """

    def __init__(
        self,
        ranks: Ranks,
        params: Sequence[Array],
        parts: Sequence[Sequence[Part]],
        row_lengths: Sequence[int],
    ) -> None:
        self._ranks, self._params = ranks, params
        self._lengths = {k: length for k, length in enumerate(row_lengths) if length}
        self._ends = {
            k: [part[k].end // length for part in parts] for k, length in self._lengths.items()
        }
        mine = parts[ranks.rank]
        self._mine = {
            k: Part(mine[k].first // length, mine[k].size // length)
            for k, length in self._lengths.items()
        }

    def rows_of(self, array: int) -> Ids:
        """Return the ids of the rows of an array that this rank holds, counted from its first."""
        return np.arange(self._mine[array].size)

    def bring(
        self, batches: Sequence[Sequence[Any]], formats: Mapping[int, str], told: dict[str, Any]
    ) -> dict[int, Rows]:
        """Return all ranks' gradients, in their order, of the rows that this one holds.

        Parameters
        ----------
        batches
            This rank's own: of each batch the gradient of each array.
        formats
            Those arrays that have Rows, and of which format.
        told
            What ranks do, as for `agree_on`.
        """
        mine = {}
        for k, name in formats.items():
            length, own = self._lengths[k], [batch[k] for batch in batches]
            named = [
                Named(rows.ids.reshape(-1).astype(_ID), rows.values.reshape(rows.ids.size, length))
                for rows in own
            ]
            none = Named(np.empty(0, _ID), np.empty((0, length), _dtype(name)))
            mine[k] = _joined(named or [none])
        brought = self._bring(mine, told)
        return {k: Rows(ids, numbers) for k, (ids, numbers) in brought.items()}

    def bring_ids(self, ids: Mapping[int, Ids], told: dict[str, Any]) -> dict[int, Ids]:
        """Return which of the rows that this rank holds any of the ranks names.

        Parameters
        ----------
        ids
            Those that this one names of some arrays.
        told
            What ranks do, as for `agree_on`.
        """
        none = np.empty(0, _ID)
        named = {k: ids.get(k, none).reshape(-1).astype(_ID) for k in self._lengths}
        mine = {k: Named(each, np.empty((each.size, 0))) for k, each in named.items()}
        return {k: each_once(named.ids) for k, named in self._bring(mine, told).items()}

    def send(self, ids: Mapping[int, Ids], told: dict[str, Any]) -> None:
        """Give all ranks the parameters of rows that this one holds, and take theirs."""
        mine = []
        for k, its in ids.items():
            rows = its + self._mine[k].first
            mine.append(Named(rows, self._params[k][rows].reshape(rows.size, self._lengths[k])))
        brought = self._trade([mine] * self._ranks.size, told)
        for k, (rows, numbers) in zip(ids, brought, strict=True):
            param = self._params[k]
            param[rows] = numbers.reshape(rows.size, *param.shape[1:])

    def _bring(self, named: Mapping[int, Named], told: dict[str, Any]) -> dict[int, Named]:
        """Return what all ranks name of the rows that this one holds, counted from its first."""
        pieces = [self._divided(k, each) for k, each in named.items()]
        of_each_rank = [[those[rank] for those in pieces] for rank in range(self._ranks.size)]
        brought = self._trade(of_each_rank, told)
        return {
            k: Named(ids - self._mine[k].first, numbers)
            for k, (ids, numbers) in zip(named, brought, strict=True)
        }

    def _divided(self, k: int, named: Named) -> list[Named]:
        """Return for each rank what it holds of an array."""
        holders = np.searchsorted(self._ends[k], named.ids, side="right")
        order = np.argsort(holders, kind="stable")
        counts = np.bincount(holders, minlength=self._ranks.size)
        if named.ids.size in counts:  # one holds all of them: no need to copy
            none = Named(named.ids[:0], named.numbers[:0])
            return [named if count else none for count in counts]
        parts = np.split(order, np.cumsum(counts)[:-1])
        return [Named(named.ids[some], named.numbers[some]) for some in parts]

    def _trade(self, pieces: Sequence[Sequence[Named]], told: dict[str, Any]) -> list[Named]:
        """Give each rank its pieces of some arrays, and return those for this one, of all ranks."""
        me = self._ranks.rank
        mine = pieces[me]
        counts = [[each.ids.size for each in those] for those in pieces]
        answers = agree_on(self._ranks, told, counts)
        # What is for all of them is packed once.
        others = {id(those): those for rank, those in enumerate(pieces) if rank != me}
        packed = {key: _packed(those) for key, those in others.items()}
        sends = [None if rank == me else packed[id(those)] for rank, those in enumerate(pieces)]
        receives = [
            None if rank == me else np.empty(_size(theirs[me], mine), np.uint8)
            for rank, theirs in enumerate(answers)
        ]
        self._ranks.post(_some(sends), _some(receives))()
        found = [
            mine if memory is None else _unpacked(memory, theirs[me], mine)
            for memory, theirs in zip(receives, answers, strict=True)
        ]
        return [_joined(of_all) for of_all in zip(*found, strict=True)]


def format_of(rows: Rows) -> str:
    """Return what ranks call such gradients."""
    return f"{_PREFIX}{rows.values.dtype}"


def is_of_rows(format_name: str | None) -> bool:
    """Return whether that is the name of one."""
    return format_name is not None and format_name.startswith(_PREFIX)


def each_once(ids: Ids) -> Ids:
    """Return ids in ascending order, each once; `numpy.unique` takes longer."""
    ids = np.sort(ids)
    return ids[np.diff(ids, prepend=-1) > 0]


def added(gradients: Sequence[Rows], row: tuple[int, ...], dtype: Any, divisor: float) -> Rows:
    """Return the sum of gradients of rows of a shape, over a divisor: each row once."""
    ids = np.concatenate([rows.ids.reshape(-1).astype(_ID) for rows in gradients])
    values = np.concatenate([rows.values.reshape(rows.ids.size, *row) for rows in gradients])
    named, places = np.unique(ids, return_inverse=True)
    sums = np.full((named.size, *row), -0.0, dtype)  # to which zeros of both signs can be added
    np.add.at(sums, places, values.astype(dtype))
    sums /= dtype.type(divisor)
    return Rows(named, sums)


def _joined(named: Sequence[Named]) -> Named:
    """Return rows one after the other."""
    some = [each for each in named if each.ids.size] or named[:1]
    if len(some) == 1:
        return some[0]
    return Named(
        np.concatenate([each.ids for each in some]), np.concatenate([each.numbers for each in some])
    )


def _dtype(format_name: str) -> Any:
    name = format_name.removeprefix(_PREFIX)
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # as on the ranks that have such gradients

    return np.dtype(ml_dtypes.bfloat16)


def _some(memory: Sequence[Bytes | None]) -> list[Bytes | None]:
    return [each if each is not None and each.size else None for each in memory]


def _packed(pieces: Sequence[Named]) -> Bytes:
    """Return arrays as bytes, one after the other."""
    memory = np.empty(_size([each.ids.size for each in pieces], pieces), np.uint8)
    begin = 0
    for piece in pieces:
        for array in piece:
            memory[begin : begin + array.nbytes] = array.reshape(-1).view(np.uint8)
            begin += _padded(array.nbytes)
    return memory


def _unpacked(memory: Bytes, counts: Sequence[int], likes: Sequence[Named]) -> list[Named]:
    """Return arrays like others, of so many rows."""
    begin, found = 0, []
    for count, like in zip(counts, likes, strict=True):
        end = begin + count * _ID.itemsize
        ids = memory[begin:end].view(_ID)
        begin = end
        end += count * _row_bytes(like)
        numbers = memory[begin:end].view(like.numbers.dtype).reshape(count, like.numbers.shape[1])
        found.append(Named(ids, numbers))
        begin = _padded(end)
    return found


def _size(counts: Sequence[int], likes: Sequence[Named]) -> int:
    """Return how many bytes arrays like these have, of so many rows."""
    sizes = zip(counts, map(_row_bytes, likes), strict=True)
    return sum(_padded(count * (_ID.itemsize + row_bytes)) for count, row_bytes in sizes)


def _row_bytes(like: Named) -> int:
    return int(like.numbers.shape[1] * like.numbers.itemsize)


def _padded(size: int) -> int:
    return -(-size // _ID.itemsize) * _ID.itemsize
