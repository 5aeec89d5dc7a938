"""Checkpoints for tests: what is in one, and calls of the operating system that fail."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instep import _checkpoint

Tree = dict[str, Any]
Change = Callable[[Any], Any]
posix = pytest.mark.skipif(os.name != "posix", reason="no such thing as POSIX knows it")


def frozen(value: Any) -> Any:
    """Return something that is equal for equal bits, types, shapes and orders of keys."""
    if isinstance(value, dict):
        return [(key, frozen(each)) for key, each in value.items()]
    if isinstance(value, np.ndarray):
        native = value.astype(value.dtype.newbyteorder("="))
        return native.dtype, native.shape, native.tobytes()
    return type(value), repr(value) if isinstance(value, float) else value


def arrays_in(tree: Tree) -> Iterator[np.ndarray[Any, Any]]:
    for value in tree.values():
        if isinstance(value, dict):
            yield from arrays_in(value)
        elif isinstance(value, np.ndarray):
            yield value


def a_tree(number: float = 1.5) -> Tree:
    return {
        "rule": "Adam",
        "iterations": 12,
        "arrays": {"params['w'][0]": {"m": np.arange(6, dtype="f4").reshape(2, 3), "step": 3}},
        "parameters": {"params['w'][0]": np.full((2, 3), number)},
        "number": number,
    }


def round_trip(tree: Tree, path: Path) -> Tree:
    _checkpoint.write(path, tree)
    return _checkpoint.read(path)


def sealed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).hexdigest().encode()


class Faults:
    """Calls of the operating system, of which one fails, or is the last thing that happens."""

    def __init__(self, at: int, fail: Callable[[], None], after: bool) -> None:
        self.calls: list[str] = []
        self._at, self._fail, self._after = at, fail, after

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls.append(name)
        if len(self.calls) - 1 != self._at:
            return call()
        if self._after:
            call()
        self._fail()
        raise AssertionError(name)

    @property
    def failed(self) -> str | None:
        return self.calls[self._at] if self._at < len(self.calls) else None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        faults = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                written: int = faults("write", lambda: super(File, self).write(data[:60]))
                return written

            def close(self) -> None:
                if not self.closed:
                    super().close()
                    faults("close", lambda: None)

        class System:
            def __getattr__(self, name: str) -> Any:
                value = getattr(os, name)
                if name not in ("open", "close", "stat", "chmod", "fsync", "replace"):
                    return value
                return lambda *arguments: faults(f"os.{name}", lambda: value(*arguments))

        def opened(name: str, mode: str, opener: Any) -> io.BufferedWriter:
            return io.BufferedWriter(File(name, mode, opener=opener), 100)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_checkpoint, "os", System())
            patch.setattr(_checkpoint, "open", opened, raising=False)
            yield


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail
