"""The machine's limit: the memory traffic of a step, with one addition for each array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from instep import _core
from instep._bench.case import DTYPES, Array, Case
from instep._bench.peers.base import Contender
from instep._bench.peers.instep import Instep

_NAME = "limit"
_PREFETCHES = (0, 512, 2048)  # in bytes
_PAGE, _LINE = 4096, 64
_SMALL = 16384


class _Streams(list[list[Array]]):
    """Arrays to write, in a list for each gradient."""


_streams: WeakValueDictionary[Case, _Streams] = WeakValueDictionary()


class Limit(Instep):
    """The streams of the rule, fetched so many bytes ahead, on instep's threads; no formula."""

    title = "limit"

    def __init__(self, prefetch: int) -> None:
        super().__init__()
        self._prefetch = prefetch

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Return a contender without parameters of its own, whose arrays all limits share."""
        written = _streams.get(case) or _streams_beside(grads, case)
        _streams[case] = written
        gradients, prefetch = list(grads), self._prefetch
        return Contender(lambda repeats: _core.touch(gradients, written, repeats, prefetch), list)


LIMITS = {f"{_NAME}-{prefetch}": Limit(prefetch) for prefetch in _PREFETCHES}
"""The ways to move the memory, of which the fastest one counts; their names begin alike."""


def ways(names: Iterable[str]) -> list[str]:
    """Return those of the names that are of limits."""
    return [name for name in names if name.startswith(_NAME)]


def _streams_beside(grads: Sequence[Array], case: Case) -> _Streams:
    dtype = DTYPES[case.dtype][0]
    places = case.written + 1
    streams = [
        _placed(grads, dtype, _PAGE * place // places // _LINE * _LINE)
        for place in range(1, places)
    ]
    return _Streams(list(arrays) for arrays in zip(*streams, strict=True))


def _placed(grads: Sequence[Array], dtype: np.dtype[Any], shift: int) -> list[Array]:
    """Return arrays of ones on cache lines, large ones `shift` bytes after the gradients in a page.

    A load whose low 12 bits match those of a recent store waits for it in vain.
    """
    offsets, end = [], shift
    for g in grads:
        size = g.size * dtype.itemsize
        if size >= _SMALL:
            end += (-(-g.ctypes.data // _LINE) * _LINE + shift - end) % _PAGE
        offsets.append(end)
        end += -(-size // _LINE) * _LINE
    memory = np.empty(end + _PAGE, np.uint8)
    page = memory[-memory.ctypes.data % _PAGE :]
    arrays = []
    for offset, g in zip(offsets, grads, strict=True):
        array = page[offset : offset + g.size * dtype.itemsize].view(dtype).reshape(g.shape)
        array.fill(1)
        arrays.append(array)
    return arrays
