"""Ranks that are threads of one process, for tests without MPI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from instep.sharded import Window

T = TypeVar("T")


class _Room:
    """What threads have in common."""

    def __init__(self, size: int, has_window: bool) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.values: list[Any] = [None] * size
        self.has_window = has_window
        self.mail = {(a, b): SimpleQueue[Any]() for a in range(size) for b in range(size)}


class ThreadRanks:
    """One of them.

    Parameters
    ----------
    room
        What all of them have in common.
    rank, size
        Which one this is, of how many.
    """

    def __init__(self, room: _Room, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._room = room

    def gather(self, value: Any) -> list[Any]:
        self._room.values[self.rank] = value
        self._room.barrier.wait()
        values = list(self._room.values)
        self._room.barrier.wait()
        return values

    def add_up(self, numbers: Any) -> None:
        numbers[:] = np.sum(self.gather(numbers.copy()), axis=0)

    def window(self, size: int) -> Window | None:
        memory = self.gather(np.empty(size, np.uint8))
        return Window(memory, lambda: None) if self._room.has_window else None

    def barrier(self) -> None:
        self._room.barrier.wait()

    def post(self, sends: Sequence[Any], receives: Sequence[Any]) -> Callable[[], None]:
        for rank, memory in enumerate(sends):
            if memory is not None:
                self._room.mail[self.rank, rank].put(memory.copy())

        def wait() -> None:
            for rank, memory in enumerate(receives):
                if memory is not None:
                    memory[:] = self._room.mail[rank, self.rank].get(timeout=60)

        return wait

    def close(self) -> None:
        """They are given back with the room."""


def on_ranks(size: int, function: Callable[[Any], T], *, has_window: bool = True) -> list[T]:
    """Return what a function gives on each of some ranks, all at once; raise what one raises.

    Where several raise, the first rank's error is the one.
    """
    room = _Room(size, has_window)
    results: list[Any] = [None] * size
    errors: list[BaseException | None] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = function(ThreadRanks(room, rank, size))
        except BaseException as error:
            errors[rank] = error
            room.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(
        filter(None, errors), key=lambda e: isinstance(e, threading.BrokenBarrierError)
    ):
        raise error
    return results
