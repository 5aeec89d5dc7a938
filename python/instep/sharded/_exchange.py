"""What ranks send one another in a step, a round at a time.

In a round each rank gets the gradients of some elements that it holds from all ranks, and sends
those that it has updated in the round before to all ranks. In the memory of a node's window ranks
write what is for others, and read the others' there; between nodes it goes in messages, that of the
next round while this one is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep._rows import Rows
from instep.sharded._division import Part, Piece
from instep.sharded._ranks import Ranks, agree, agree_on
from instep.sharded._rows import Tables, each_once, format_of, is_of_rows

if TYPE_CHECKING:
    from instep.sharded._ranks import Bytes, Window
    from instep.sharded._rows import Ids
    from instep.typing import Array

_ALIGNED = 8
"""Pieces begin at multiples of so many bytes, as the engine finds them."""


class Place(NamedTuple):
    """Where a piece lies: in its array, and in the memory of a round.

    Attributes
    ----------
    array
        The index of the array.
    elements
        Which of its elements.
    memory
        Which bytes of the round's.
    """

    array: int
    elements: slice
    memory: slice


class Placed(NamedTuple):
    """The pieces of a round, and how many bytes they need."""

    places: list[Place]
    size: int


PackGradients = Callable[[int, Placed, "Bytes"], None]
Pack = Callable[[Placed, "Bytes"], None]
Formats = list[str | None]
"""The formats of gradients; None where there is none."""


class Kind(NamedTuple):
    """What goes between ranks in a step.

    Attributes
    ----------
    formats
        Those of gradients, but for those of rows.
    counts
        How many of its own each rank has.
    apart
        The arrays whose parameters do not go with the others.
    """

    formats: Formats
    counts: list[int]
    apart: frozenset[int] = frozenset()


class Held(NamedTuple):
    """An array in the order in which its holder visits it.

    Attributes
    ----------
    axes
        The axes in that order.
    is_cut
        Whether that is the order of C-contiguous memory, so that ranks can hold parts of it.
    """

    axes: list[int]
    is_cut: bool

    def elements(self, array: Array) -> Array:
        """Return the elements in that order: in one dimension, unless the array is whole."""
        return array.reshape(-1) if self.is_cut else array.transpose(self.axes)

    def part(self, elements: Array, part: Part) -> Array:
        """Return some of the elements, contiguous."""
        if self.is_cut:
            return elements[part.first : part.end]
        return np.ascontiguousarray(elements) if part.size else elements.reshape(-1)[:0]


class Exchange:
    """The partner of a rank's engine: brings gradients, and takes updated parameters away.

    Parameters
    ----------
    ranks
        What connects ranks.
    params
        All parameters, whole.
    held
        How each of them is visited.
    parts, rounds
        For each rank its part of each array, and the pieces of its rounds, as many for all.
    grads
        The gradients of each rank where all ranks see them, as they do the parameters then; none
        where each has memory of its own.
    tables
        Those arrays that may have gradients of rows.
    """

    def __init__(
        self,
        ranks: Ranks,
        params: Sequence[Array],
        held: Sequence[Held],
        parts: Sequence[Sequence[Part]],
        rounds: Sequence[Sequence[Sequence[Piece]]],
        grads: Sequence[Sequence[Array]],
        tables: Tables,
    ) -> None:
        self.ranks = ranks
        self._tables = tables
        self._held, self._parts, self._rounds = held, parts, rounds
        self._params = [each.elements(param) for each, param in zip(held, params, strict=True)]
        self._grads = [
            [order.elements(grad) for order, grad in zip(held, each, strict=True)] for each in grads
        ]
        self._batches: list[list[Array | None]] = []
        self._kind = Kind([], [])
        self._touched: dict[int, Ids] = {}
        self._way: _Way | None = None
        self._has_agreed = False
        self._sends = False
        self._sent: int | None = None

    def _placed(self, itemsizes: Sequence[int | None]) -> list[list[Placed]]:
        """Return where pieces lie in each round of each rank, of arrays that have an item size."""
        return [
            [self._placed_round(pieces, parts, itemsizes) for pieces in rounds]
            for parts, rounds in zip(self._parts, self._rounds, strict=True)
        ]

    @staticmethod
    def _placed_round(
        pieces: Sequence[Piece], parts: Sequence[Part], itemsizes: Sequence[int | None]
    ) -> Placed:
        places, offset = [], 0
        for array, first, count in pieces:
            itemsize = itemsizes[array]
            if itemsize is None:
                continue
            begin = parts[array].first + first
            memory = slice(offset, offset + count * itemsize)
            places.append(Place(array, slice(begin, begin + count), memory))
            offset += -(-count * itemsize // _ALIGNED) * _ALIGNED
        return Placed(places, offset)

    # A step ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin a step: until all agree on it, what fails here is told to the others."""
        self._has_agreed = False

    def count(self, batches: Sequence[Sequence[Array | None]]) -> tuple[list[int], Formats]:
        """Return how many microbatches each rank has, and the formats of their gradients."""
        own = common_formats(batches)
        self._has_agreed = True
        call = {"call": "step(microbatches=...)"}
        answers = agree_on(self.ranks, call, (len(batches), own))
        counts = [count for count, _ in answers]
        if not sum(counts):
            raise NO_BATCHES
        first = next(rank for rank, count in enumerate(counts) if count)
        formats = answers[first][1]
        for rank, (count, theirs) in enumerate(answers):
            if count and theirs != formats:
                raise ValueError(
                    f"rank {rank}: gradients of microbatches: expected {formats}, as on rank "
                    f"{first}, got {theirs}"
                )
        self._has_agreed = False
        return counts, formats

    def bring_rows(
        self, batches: Sequence[Sequence[Any]], formats: Formats, window: Mapping[int, Any]
    ) -> list[Rows | None]:
        """Return all ranks' gradients of the rows that this one holds, for each array.

        Parameters
        ----------
        batches, formats
            As for `begin`.
        window
            The rows of arrays that earlier calls of the window have named; None for all.
        """
        of_rows = {k: name for k, name in enumerate(formats) if name and is_of_rows(name)}
        self._touched = {}
        if not of_rows:
            return [None] * len(formats)
        self._has_agreed = True
        mine = {"call": "step(grads)", "gradients": formats}
        brought = self._tables.bring(batches, of_rows, mine)
        self._has_agreed = False
        for k, rows in brought.items():
            before = window.get(k, [])
            named = self._tables.rows_of(k) if before is None else np.array(before, np.int64)
            self._touched[k] = each_once(np.concatenate([rows.ids, named]))
        return [brought.get(k) for k in range(len(formats))]

    def agree_on_flush(self, window: int) -> bool:
        """Return whether windows of so many calls hold anything to be flushed."""
        self._has_agreed = True
        agree_on(self.ranks, {"call": "flush()", "calls in the window": window})
        self._has_agreed = False
        return window > 0

    def begin(
        self,
        batches: Sequence[Sequence[Array | None]],
        counts: list[int],
        formats: Formats,
        *,
        is_update: bool,
        by_rows: bool = False,
    ) -> list[list[Array | None]]:
        """Take a step's gradients, each as the structure's leaves; return this rank's parts.

        Parameters
        ----------
        batches
            The gradients of each of this rank's batches.
        counts
            How many batches each rank has.
        formats
            Those of the gradients; without those of rows.
        is_update
            Whether the step changes parameters, or only accumulates.
        by_rows
            Whether of arrays with gradients of rows no others change.
        """
        self._batches = [
            [
                None if name is None or grad is None else held.elements(grad)
                for name, held, grad in zip(formats, self._held, batch, strict=True)
            ]
            for batch in batches
        ]
        if not by_rows:
            self._touched = {}
        self._kind = Kind(formats, counts, frozenset(self._touched))
        self._sends, self._sent = is_update and not self._grads, None
        own = self._batches
        if self._is_seen(self._kind):
            _place(self._batches[0], self._grads[self.ranks.rank])
            own = [
                [None if name is None else grad for name, grad in zip(formats, each, strict=True)]
                for each in self._grads
            ]
        mine = self._parts[self.ranks.rank]
        return [
            [
                None if grad is None else held.part(grad, part)
                for held, grad, part in zip(self._held, batch, mine, strict=True)
            ]
            for batch in own
        ]

    def _is_seen(self, kind: Kind) -> bool:
        """Return whether all ranks see gradients of a kind where they are."""
        return (
            bool(self._grads)
            and kind.counts == [1] * self.ranks.size
            and all(
                name in (None, grad.dtype.name)
                for name, grad in zip(kind.formats, self._grads[0], strict=True)
            )
        )

    def agree(self, numbers: bytes) -> None:
        """Raise on all ranks where one has raised, or is about to make another step."""
        self._has_agreed = True
        mine = {"call": "step(grads)", "gradients": self._kind.formats}
        answers = agree_on(self.ranks, mine, np.frombuffer(numbers))
        first = answers[0]
        for rank, theirs in enumerate(answers):
            if theirs.tobytes() != first.tobytes():
                k = int(np.argmax(theirs.view(np.int64) != first.view(np.int64)))
                raise ValueError(
                    f"rank {rank}: numbers and options of the step (counts, learning rates, "
                    f"hyperparameters): expected {first[k]}, as on rank 0, got {theirs[k]}"
                )
        self._go(self._kind)
        if self._grads:
            self.ranks.barrier()

    def refuse(self, error: BaseException) -> None:
        """Raise what a step has failed of on all ranks, unless they have begun it."""
        if not self._has_agreed:
            self._has_agreed = True
            agree(self.ranks, None, error)

    def _go(self, kind: Kind) -> None:
        """Go the way of a kind from now on."""
        if self._way is None or self._way.kind != kind:
            self.close()
            self._way = self._way_for(kind)

    def close(self) -> None:
        """Give back what there is between ranks."""
        if self._way is not None:
            self._way.close()
            self._way = None

    def _way_for(self, kind: Kind) -> _Way:
        """Return the way that bytes go between ranks: through shared memory, if there is some."""
        if self._is_seen(kind):
            return _Seen(self.ranks, kind, [], [])
        gradients = self._placed(
            [None if each is None else _itemsize(each) for each in kind.formats]
        )
        params = self._placed(
            [None if k in kind.apart else p.dtype.itemsize for k, p in enumerate(self._params)]
        )
        size = kind.counts[self.ranks.rank] * sum(map(_largest, gradients))
        window = self.ranks.window(max(2 * (size + _largest(params[self.ranks.rank])), 1))
        if window is None:
            return _Messages(self.ranks, kind, gradients, params)
        return _Window(self.ranks, kind, gradients, params, window)

    def bring(
        self, phase: str, reads_gradients: bool, span: int, arrays: list[int]
    ) -> list[Bytes | None] | None:
        """Return the memory of each gradient of a round; send what the one before has updated."""
        assert self._way is not None
        sends = self._sends and phase == "update"
        if sends:
            self._sent = span
        if not self._way.is_needed(span):
            return None
        return self._way.turn(
            self._pack_gradients if reads_gradients and any(self._kind.formats) else None,
            span,
            self._pack_params if sends and span > 0 else None,
            self._unpack_params,
        )

    def finish(self) -> None:
        """Send what the last round has updated."""
        if self._sent is not None and self._way is not None:
            self._way.finish(self._sent, self._pack_params, self._unpack_params)
            if self._touched:
                self._tables.send(self._touched, {"call": "step(grads)"})
        self.wait()
        self._batches = []

    def wait(self) -> None:
        """Wait until no rank reads or writes what all see."""
        if self._grads:
            self.ranks.barrier()

    def publish(self) -> None:
        """Give all ranks the parameters that each of them holds."""
        if self._grads:
            self.wait()
            return
        if self._way is None or self._way.kind.apart:
            self._go(Kind([None] * len(self._params), [0] * self.ranks.size))
        assert self._way is not None
        for span in range(len(self._rounds[0])):
            self._way.finish(span, self._pack_params, self._unpack_params)

    def settle(self, ids: Mapping[int, Ids], settle: Callable[[dict[int, Ids]], None]) -> None:
        """Let a function settle rows that any rank names, and give all ranks their parameters.

        Parameters
        ----------
        ids
            Those that this one names of some arrays.
        settle
            Is given those that this one holds, counted from its first.
        """
        self._has_agreed = True
        told = {"call": "settle(ids)"}
        named = self._tables.bring_ids(ids, told)
        error: BaseException | None = None
        try:
            settle(named)
        except BaseException as raised:
            error = raised
        agree(self.ranks, None, error)
        if not self._grads:
            self._tables.send(named, told)

    def add_up(self, numbers: Array) -> None:
        """Make of the engine's sums of blocks those of all ranks."""
        self.ranks.add_up(numbers)

    def guarding(
        self, update: Callable[..., list[tuple[Array, Array]]]
    ) -> Callable[..., list[tuple[Array, Array]]]:
        """Let a rule's function raise on all ranks where it raises on one."""

        def guarded(*given: Any) -> list[tuple[Array, Array]]:
            changes: list[tuple[Array, Array]] = []
            error: BaseException | None = None
            try:
                changes = update(*given)
            except BaseException as raised:
                error = raised
            agree(self.ranks, None, error)
            return changes

        return guarded

    # Memory ---------------------------------------------------------------------------------------

    def _pack_gradients(self, batch: int, placed: Placed, memory: Bytes) -> None:
        _pack(self._batches[batch], placed, memory)

    def _pack_params(self, placed: Placed, memory: Bytes) -> None:
        _pack(self._params, placed, memory)

    def _unpack_params(self, placed: Placed, memory: Bytes) -> None:
        for array, elements, where in placed.places:
            param = self._params[array]
            mine = memory[where].view(param.dtype)
            if param.ndim == 1:
                param[elements] = mine
            else:
                param[...] = mine.reshape(param.shape)


def _place(grads: Sequence[Array | None], rooms: Sequence[Array]) -> None:
    """Put gradients where all ranks see them, unless they are there."""
    for grad, room in zip(grads, rooms, strict=True):
        if grad is not None and not _is_same(grad, room):
            room[...] = grad


def _is_same(one: Array, other: Array) -> bool:
    return one.ctypes.data == other.ctypes.data and one.strides == other.strides


def _pack(arrays: Sequence[Array | None], placed: Placed, memory: Bytes) -> None:
    for array, elements, where in placed.places:
        source = arrays[array]
        assert source is not None
        room = memory[where].view(source.dtype)
        if source.ndim == 1:
            room[:] = source[elements]
        else:
            room.reshape(source.shape)[...] = source


NO_BATCHES = ValueError("microbatches: expected some, on one rank at least, got none")


def common_formats(batches: Sequence[Sequence[Array | None]]) -> Formats:
    """Return the formats of all batches; raise ValueError where they differ."""
    formats = [formats_of(each) for each in batches]
    for k, others in enumerate(formats):
        if others != formats[0]:
            raise ValueError(
                f"microbatches[{k}]: expected gradients of the same arrays and dtypes as in "
                "microbatches[0]"
            )
    return formats[0] if formats else []


def formats_of(batch: Sequence[Array | None]) -> Formats:
    """Return the formats of a structure's gradients."""
    return [
        format_of(grad) if isinstance(grad, Rows) else grad if grad is None else grad.dtype.name
        for grad in batch
    ]


def without_rows(formats: Formats) -> Formats:
    """Return formats but for those of gradients of rows."""
    return [None if is_of_rows(name) else name for name in formats]


def _itemsize(format_name: str) -> int:
    return 2 if format_name == "bfloat16" else np.dtype(format_name).itemsize


def _largest(rounds: Sequence[Placed]) -> int:
    return max((placed.size for placed in rounds), default=0)


class _Way(ABC):
    """How bytes go between ranks.

    Parameters
    ----------
    ranks
        What connects ranks.
    kind
        Of which formats gradients are, and how many each rank has.
    gradients, params
        Where pieces lie in each round, for each rank that holds them.
    """

    def __init__(
        self,
        ranks: Ranks,
        kind: Kind,
        gradients: list[list[Placed]],
        params: list[list[Placed]],
    ) -> None:
        self.kind = kind
        self._ranks, self._gradients, self._params = ranks, gradients, params
        # Whether any rank has something in a round.
        self._has_gradients = [any(r.places for r in each) for each in zip(*gradients, strict=True)]
        self._has_params = [any(r.places for r in each) for each in zip(*params, strict=True)]

    def is_needed(self, span: int) -> bool:
        """Return whether anything goes between ranks in the turn of a round."""
        about_to = self._has_gradients[span : span + 2]  # the next one's go ahead
        return any(about_to) or any(self._has_params[max(span - 1, 0) : span])

    @abstractmethod
    def turn(
        self, pack_gradients: PackGradients | None, span: int, pack: Pack | None, unpack: Pack
    ) -> list[Bytes | None] | None:
        """Return the gradients of a round from each rank, and send parameters of the last one.

        Parameters
        ----------
        pack_gradients, pack
            What puts this rank's gradients and parameters into memory that is sent; None where the
            round needs none.
        span
            Which round it is.
        unpack
            What takes parameters from memory that has come.
        """

    @abstractmethod
    def finish(self, span: int, pack: Pack, unpack: Pack) -> None:
        """Let all ranks have the parameters of a round."""

    def close(self) -> None:
        """Give back the memory between ranks; all of them call it."""
        return


class _Seen(_Way):
    """Nothing goes anywhere: all ranks see each other's gradients, and the parameters."""

    def is_needed(self, span: int) -> bool:
        return True  # for the gradients, which are where they are

    def turn(
        self, pack_gradients: PackGradients | None, span: int, pack: Pack | None, unpack: Pack
    ) -> list[Bytes | None] | None:
        return None if pack_gradients is None else [None] * self._ranks.size

    def finish(self, span: int, pack: Pack, unpack: Pack) -> None:
        """They have them."""


class _Window(_Way):
    """Memory of a node, where each rank has room for two rounds: one is written, one is read.

    Parameters
    ----------
    ranks, kind, gradients, params
        As for `_Way`.
    window
        The memory of each rank.
    """

    def __init__(
        self,
        ranks: Ranks,
        kind: Kind,
        gradients: list[list[Placed]],
        params: list[list[Placed]],
        window: Window,
    ) -> None:
        super().__init__(ranks, kind, gradients, params)
        self._turn = 0
        self._free = window.free
        count, me = kind.counts, ranks.rank
        sizes = [_largest(rounds) for rounds in gradients]
        starts = np.cumsum([0, *sizes]).tolist()

        def cut(rank: int, turn: int, offset: int, size: int) -> Bytes:
            memory = window.memory[rank]
            begin = turn * (memory.size // 2) + offset
            return memory[begin : begin + size]

        self._out = [
            [
                [cut(me, turn, b * starts[-1] + starts[o], sizes[o]) for o in range(ranks.size)]
                for b in range(count[me])
            ]
            for turn in range(2)
        ]
        self._in = [
            [
                None if rank == me else cut(rank, turn, b * starts[-1] + starts[me], sizes[me])
                for rank in range(ranks.size)
                for b in range(count[rank])
            ]
            for turn in range(2)
        ]
        self._params_of = [
            [
                cut(rank, turn, count[rank] * starts[-1], _largest(params[rank]))
                for rank in range(ranks.size)
            ]
            for turn in range(2)
        ]

    def turn(
        self, pack_gradients: PackGradients | None, span: int, pack: Pack | None, unpack: Pack
    ) -> list[Bytes | None] | None:
        turn = self._turn = 1 - self._turn
        if pack_gradients is not None:
            for batch, out in enumerate(self._out[turn]):
                for owner, memory in enumerate(out):
                    if owner != self._ranks.rank:
                        pack_gradients(batch, self._gradients[owner][span], memory)
        if pack is not None:
            self._write(pack, span - 1)
        self._ranks.barrier()
        if pack is not None:
            self._read(unpack, span - 1)
        return None if pack_gradients is None else self._in[turn]  # None: its own

    def finish(self, span: int, pack: Pack, unpack: Pack) -> None:
        if not self._has_params[span]:
            return
        self._turn = 1 - self._turn
        self._write(pack, span)
        self._ranks.barrier()
        self._read(unpack, span)

    def close(self) -> None:
        self._free()

    def _write(self, pack: Pack, span: int) -> None:
        me = self._ranks.rank
        pack(self._params[me][span], self._params_of[self._turn][me])

    def _read(self, unpack: Pack, span: int) -> None:
        for rank, memory in enumerate(self._params_of[self._turn]):
            if rank != self._ranks.rank:
                unpack(self._params[rank][span], memory)


class _Messages(_Way):
    """Messages between ranks: what a round needs travels while the one before is computed.

    Parameters
    ----------
    ranks, kind, gradients, params
        As for `_Way`.
    """

    def __init__(
        self,
        ranks: Ranks,
        kind: Kind,
        gradients: list[list[Placed]],
        params: list[list[Placed]],
    ) -> None:
        super().__init__(ranks, kind, gradients, params)
        count, me = kind.counts, ranks.rank
        sizes = [_largest(rounds) for rounds in gradients]
        self._in = [np.empty((sum(count) - count[me]) * sizes[me], np.uint8) for _ in range(2)]
        self._out = [[np.empty(count[me] * size, np.uint8) for size in sizes] for _ in range(2)]
        self._params_out = [np.empty(_largest(params[me]), np.uint8) for _ in range(2)]
        self._params_in = [
            [np.empty(_largest(rounds), np.uint8) for rounds in params] for _ in range(2)
        ]
        self._waits_for_gradients: Callable[[], None] | None = None
        self._waits_for_params: tuple[int, Callable[[], None]] | None = None

    def turn(
        self, pack_gradients: PackGradients | None, span: int, pack: Pack | None, unpack: Pack
    ) -> list[Bytes | None] | None:
        sources = None
        if pack_gradients is not None:
            if self._waits_for_gradients is not None:
                self._waits_for_gradients()
            elif self._has_gradients[span]:
                self._post_gradients(pack_gradients, span)()
            sources = self._sources(span)
            self._waits_for_gradients = None
            if any(self._has_gradients[span + 1 : span + 2]):
                self._waits_for_gradients = self._post_gradients(pack_gradients, span + 1)
        if pack is not None:
            self._receive_params(unpack)
            self._post_params(pack, span - 1)
        return sources

    def finish(self, span: int, pack: Pack, unpack: Pack) -> None:
        self._receive_params(unpack)
        self._post_params(pack, span)
        self._receive_params(unpack)

    def _received(self, span: int) -> list[Any]:
        """Return where each rank's gradients of a round arrive; nothing for its own."""
        received, begin = list[Any](), 0
        size = self._gradients[self._ranks.rank][span].size
        for rank, count in enumerate(self.kind.counts):
            end = begin + (0 if rank == self._ranks.rank else count * size)
            received.append(self._in[span % 2][begin:end])
            begin = end
        return received

    def _sources(self, span: int) -> list[Any]:
        """Return the memory of each gradient of a round; None for its own."""
        sources: list[Any] = []
        for rank, memory in enumerate(self._received(span)):
            count = self.kind.counts[rank]
            is_own = rank == self._ranks.rank
            sources += [None] * count if is_own else np.split(memory, max(count, 1))[:count]
        return sources

    def _post_gradients(self, pack: PackGradients, span: int) -> Callable[[], None]:
        """Begin to send the gradients of a round, and to receive them; return what waits."""
        me, count = self._ranks.rank, self.kind.counts
        sends = list[Any]()
        for owner, out in enumerate(self._out[span % 2]):
            placed = self._gradients[owner][span]
            for batch in range(count[me] if owner != me else 0):
                pack(batch, placed, out[batch * placed.size : (batch + 1) * placed.size])
            sends.append(None if owner == me else out[: count[me] * placed.size])
        receives = list[Any](self._received(span))
        receives[me] = None
        return self._ranks.post(sends, receives)

    def _post_params(self, pack: Pack, span: int) -> None:
        me, parity = self._ranks.rank, span % 2
        mine = self._params_out[parity][: self._params[me][span].size]
        pack(self._params[me][span], mine)
        others = range(self._ranks.size)
        receives = [
            None if rank == me else self._params_in[parity][rank][: self._params[rank][span].size]
            for rank in others
        ]
        sends = [None if rank == me else mine for rank in others]
        self._waits_for_params = span, self._ranks.post(sends, receives)

    def _receive_params(self, unpack: Pack) -> None:
        if self._waits_for_params is None:
            return
        (span, wait), self._waits_for_params = self._waits_for_params, None
        wait()
        for rank, memory in enumerate(self._params_in[span % 2]):
            if rank != self._ranks.rank:
                unpack(self._params[rank][span], memory)
