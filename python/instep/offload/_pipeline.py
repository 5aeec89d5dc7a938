"""Pieces of arrays on their way from one generation to the next, while others are updated."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep._binding import ACCUMULATOR
from instep.offload._store import Placed, Store, padded, read_fully, write_fully

if TYPE_CHECKING:
    from instep.typing import Array

AHEAD = 3
"""So many rounds are read before they are needed."""
BEHIND = 3
"""So many may wait to be written."""
_ONLY_GRADIENTS = "raw_squares"
"""The phase of a step that looks at nothing else, unless windows hold gradients."""


class Memory:
    """Addresses for an array, of which memory stands behind those in use.

    Parameters
    ----------
    size : int
        How many elements it has.
    dtype : dtype
        Their dtype.
    """

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, padded(max(size * dtype.itemsize, 1)), flags=flags)
        self._itemsize = dtype.itemsize
        self.array: Array = np.frombuffer(self._map, dtype, size)
        self._bytes = memoryview(self._map)

    def __call__(self, first: int, count: int) -> memoryview:
        """Return the memory of elements, up to the end of the page."""
        begin = first * self._itemsize
        return self._bytes[begin : begin + padded(count * self._itemsize)]

    def give_back(self, first: int, count: int) -> None:
        """Let the system have the memory of elements."""
        self._map.madvise(
            mmap.MADV_DONTNEED, first * self._itemsize, padded(count * self._itemsize)
        )


class Piece(NamedTuple):
    """A piece of an array in the files."""

    array: int
    number: int


class Pipeline:
    """The partner of the engine: brings each round's pieces, and writes what became of them.

    Parameters
    ----------
    store
        The files.
    arrays
        Where arrays lie in them; None for one that stays in memory.
    memory
        For each of those the memory of each of its streams.
    kept
        The elements of parameters that stay in memory, and are only written; None for others.
    rounds
        The pieces of each round.
    """

    def __init__(
        self,
        store: Store,
        arrays: Sequence[Placed | None],
        memory: Sequence[Sequence[Memory]],
        kept: Sequence[Array | None],
        rounds: Sequence[Sequence[Piece]],
    ) -> None:
        self._store = store
        self._kept = kept
        self.arrays, self.memory, self.rounds = arrays, memory, rounds
        self.generations = [0] * len(arrays)
        # Of arrays that have no gradient of their own in a step, windows hold them.
        self._has_accumulators = any(
            name == ACCUMULATOR for each in arrays if each for name, _ in each.streams
        )
        self._reader = ThreadPoolExecutor(1, "instep-read")
        self._writer = ThreadPoolExecutor(1, "instep-write")
        self._reads: dict[int, Future[None]] = {}
        self._writes: list[Future[None]] = []
        self._under_way: tuple[str, int, list[Piece]] | None = None
        self.written: set[int] = set()
        self.has_begun = False

    def begin(self) -> None:
        """Begin a step."""
        self._reads.clear()
        self._writes.clear()
        self._under_way = None
        self.written = set()
        self.has_begun = False

    def agree(self, numbers: bytes) -> None:
        """From here on a step changes something."""
        self.has_begun = True

    def add_up(self, numbers: Array) -> None:
        """There is nobody else."""

    def guarding(self, update: Callable[..., Any]) -> Callable[..., Any]:
        """There is nobody else."""
        return update

    def bring(self, phase: str, reads_gradients: bool, span: int, arrays: list[int]) -> None:
        """Have a round's pieces in memory, and let those of the last one go."""
        self._leave()
        if phase == _ONLY_GRADIENTS and not self._has_accumulators:
            return
        stepping = {*arrays}
        for ahead in range(span, min(span + AHEAD, len(self.rounds))):
            if ahead not in self._reads:
                self._reads[ahead] = self._reader.submit(self._read, ahead)
        self._reads.pop(span).result()
        pieces = [piece for piece in self.rounds[span] if piece.array in stepping]
        for piece in self.rounds[span]:
            if piece.array not in stepping:
                self.give_back(piece)
        if phase == "update":
            self.written.update(piece.array for piece in pieces)
        self._under_way = phase, span, pieces

    def finish(self) -> None:
        """Wait until all that was updated is in the files; raise what has failed."""
        self._leave()
        for write in self._writes:
            write.result()
        self._writes.clear()

    def abandon(self) -> None:
        """Wait for what is under way, whatever becomes of it."""
        self._under_way = None
        for future in [*self._reads.values(), *self._writes]:
            future.exception()
        self._reads.clear()
        self._writes.clear()

    def close(self) -> None:
        """End the threads."""
        self._reader.shutdown()
        self._writer.shutdown()

    def _leave(self) -> None:
        """Write the pieces of the last round, or forget them."""
        if self._under_way is None:
            return
        (phase, _, pieces), self._under_way = self._under_way, None
        if phase != "update":
            for piece in pieces:
                self.give_back(piece)
            return
        self._writes.append(self._writer.submit(self._write, pieces))
        if len(self._writes) > BEHIND:
            self._writes.pop(0).result()

    def _read(self, span: int) -> None:
        for piece in self.rounds[span]:
            has_params = self._kept[piece.array] is None
            self.transfer(read_fully, piece, self.generations[piece.array], has_params)

    def _write(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self.take(piece)
            self.transfer(write_fully, piece, 1 - self.generations[piece.array])
            self.give_back(piece)

    def take(self, piece: Piece) -> None:
        """Copy a piece of a parameter that stays in memory to where pieces are written from."""
        placed, kept = self.arrays[piece.array], self._kept[piece.array]
        assert placed is not None
        if kept is not None:
            first, count = placed.elements(piece.number)
            there = slice(first, first + count)
            self.memory[piece.array][0].array[there] = kept[there]

    def put_back(self, k: int) -> None:
        """Read a parameter that stays in memory from the files."""
        placed, kept = self.arrays[k], self._kept[k]
        assert placed is not None
        assert kept is not None
        for index in range(placed.pieces):
            first, count = placed.elements(index)
            self.transfer(read_fully, Piece(k, index), self.generations[k])
            there = slice(first, first + count)
            kept[there] = self.memory[k][0].array[there]
            self.give_back(Piece(k, index))

    def transfer(
        self,
        way: Callable[[int, Sequence[memoryview], int], None],
        piece: Piece,
        generation: int,
        has_params: bool = True,
    ) -> None:
        """Read or write a piece."""
        placed = self.arrays[piece.array]
        assert placed is not None
        first, count = placed.elements(piece.number)
        param, *state = (memory(first, count) for memory in self.memory[piece.array])
        file = self._store.files[generation]
        if has_params:
            way(file, [param], placed.params_offset(piece.number))
        if count == placed.piece:
            way(file, state, placed.state_offset(piece.number))
            return
        # The last piece is shorter; its arrays begin where those of a whole one would.
        offset = placed.state_offset(piece.number)
        for memory, (_, dtype) in zip(state, placed.streams[1:], strict=True):
            way(file, [memory], offset)
            offset += padded(placed.piece * dtype.itemsize)

    def give_back(self, piece: Piece) -> None:
        """Let the system have a piece's memory."""
        placed = self.arrays[piece.array]
        assert placed is not None
        for memory in self.memory[piece.array]:
            memory.give_back(*placed.elements(piece.number))
