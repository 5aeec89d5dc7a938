"""Cold caches, as a forward and a backward pass leave them behind."""

from __future__ import annotations

import os
from threading import Thread

import numpy as np

from instep._bench import machine
from instep._bench.case import Array

_LEAST = 96 * 10**6
_TIMES = 3  # the last level of all caches


class OtherMemory:
    """Memory whose use leaves nothing of what was there in the caches."""

    def __init__(self) -> None:
        self.size = max(_LEAST, _TIMES * machine.last_level_bytes())
        self._shares = np.array_split(np.ones(self.size // 4, np.float32), machine.processors())

    def use(self) -> None:
        """Read and write all of it, a share on each processor, whose own caches it empties.

        Not on instep's threads, which would stay awake and have an advantage.
        """
        pinned = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        threads = [
            Thread(target=_use, args=(share, pinned[k : k + 1]))
            for k, share in enumerate(self._shares)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _use(share: Array, processors: list[int]) -> None:
    if processors:
        os.sched_setaffinity(0, processors)  # of this thread alone
    np.add(share, 1, out=share)
