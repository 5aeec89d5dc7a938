"""The files of a placed optimizer: two generations of every array, and what tells which counts.

Each of the two data files has room for all of an array's pieces: its parameter's elements, one
piece after the other, then those of each array of its state, interleaved, so that what a step needs
at a time lies together. An array's current generation is in one of the files; a step writes the
other. The manifest says which one counts for each array, and holds all that is small.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep import _checkpoint

if TYPE_CHECKING:
    from instep.typing import Array

try:
    import fcntl
except ImportError:  # elsewhere than on POSIX
    fcntl = None  # type: ignore[assignment]

PAGE = mmap.PAGESIZE
MANIFEST = "manifest.npz"
DATA = ("data-0.bin", "data-1.bin")
_LOCK = "lock"


def padded(size: int) -> int:
    """Return so many bytes in whole pages."""
    return -(-size // PAGE) * PAGE


class Stream(NamedTuple):
    """One of the arrays that an element of a parameter has: itself, or one of its state.

    Attributes
    ----------
    name
        What it is called; "" for the parameter.
    dtype
        Its dtype.
    """

    name: str
    dtype: np.dtype[Any]


class Placed(NamedTuple):
    """An array that is in the files.

    Attributes
    ----------
    size
        How many elements it has.
    piece
        How many of them a piece has; the last one may have fewer.
    streams
        What each element has; the parameter first.
    params, state
        Where the parameter's pieces begin in the files, and those of the state.
    """

    size: int
    piece: int
    streams: Sequence[Stream]
    params: int
    state: int

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return -(-self.size // self.piece)

    def elements(self, piece: int) -> tuple[int, int]:
        """Return the first element of a piece, and how many it has."""
        first = piece * self.piece
        return first, min(self.piece, self.size - first)

    def state_bytes(self) -> int:
        """Return how many bytes a whole piece of the state takes."""
        return sum(padded(self.piece * dtype.itemsize) for _, dtype in self.streams[1:])

    def params_offset(self, piece: int) -> int:
        """Return where a piece of the parameter begins."""
        return self.params + piece * self.piece * self.streams[0].dtype.itemsize

    def state_offset(self, piece: int) -> int:
        """Return where a piece of the state begins."""
        return self.state + piece * self.state_bytes()

    @property
    def end(self) -> int:
        """Where the next array begins."""
        return self.state + self.pieces * self.state_bytes()


def laid_out(
    arrays: Sequence[tuple[int, int, Sequence[Stream]] | None],
) -> list[Placed | None]:
    """Return where arrays lie.

    Parameters
    ----------
    arrays
        Of each array how many elements it and a piece have, and its streams; None for one that is
        not in the files.
    """
    end, found = PAGE, list[Placed | None]()
    for each in arrays:
        if each is None:
            found.append(None)
            continue
        size, piece, streams = each
        placed = Placed(size, piece, streams, end, end + padded(size * streams[0].dtype.itemsize))
        found.append(placed)
        end = placed.end
    return found


def end_of(arrays: Sequence[Placed | None]) -> int:
    """Return how many bytes a file of these arrays has."""
    return max((each.end for each in arrays if each is not None), default=PAGE)


class Store:
    """A directory with its lock and its data files.

    Parameters
    ----------
    directory : str
        The directory, made if it does not exist.

    Raises
    ------
    OSError
        If it cannot be used, or another process has it in use; where the system has no locks that
        die with their owner.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._files: list[int] = []
        self._lock: int | None = None
        self._process = os.getpid()
        if fcntl is None:
            raise OSError(errno.ENOSYS, "instep.offload needs a POSIX system", directory)
        os.makedirs(directory, exist_ok=True)
        self._lock = os.open(self.path(_LOCK), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise OSError(
                error.errno,
                "in use by another optimizer, here or in another process; close that first",
                directory,
            ) from None
        _checkpoint.remove_unfinished(directory)

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.directory, name)

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that has opened it, and none that it has forked."""
        return os.getpid() == self._process

    @property
    def has_manifest(self) -> bool:
        """Whether the directory holds a generation."""
        return os.path.exists(self.path(MANIFEST))

    def read_manifest(self) -> Any:
        """Return what `write_manifest` wrote."""
        return _checkpoint.read(self.path(MANIFEST))

    def write_manifest(self, tree: Any) -> None:
        """Make what was written the generation that counts, all at once."""
        _checkpoint.write(self.path(MANIFEST), tree)

    def create(self, size: int) -> None:
        """Make data files of a size, all of it allocated, and open them.

        Raises
        ------
        OSError
            If there is no room for them.
        ValueError
            If there are some that belong to a manifest, which is missing.
        """
        for name in DATA:
            path = self.path(name)
            if os.path.exists(path):
                with open(path, "rb") as made:
                    if any(made.read(PAGE)):
                        raise ValueError(
                            f"{path}: expected {MANIFEST} beside it, without which its numbers are "
                            "lost; bring that back, or remove the file to begin anew"
                        )
        for name in DATA:
            file = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                os.posix_fallocate(file, 0, size)
            except OSError as error:
                why = os.strerror(error.errno or 0)
                expected = f"expected room for two files of {size:,} bytes: {why}"
                raise OSError(error.errno, expected, self.path(name)) from None
            finally:
                os.close(file)
            self._files.append(_open_directly(self.path(name)))

    def mark(self, token: str) -> None:
        """Let the data files belong to a manifest with this token."""
        for name in DATA:
            with open(self.path(name), "r+b") as file:
                file.write(token.encode().ljust(PAGE, b"\0"))
                file.flush()
                os.fsync(file.fileno())

    def open(self, token: str, size: int) -> None:
        """Open the data files.

        Raises
        ------
        OSError
            If one cannot be opened.
        ValueError
            If one is not of that size, or not the one that belongs to the manifest.
        """
        for name in DATA:
            path = self.path(name)
            with open(path, "rb") as file:
                found = os.fstat(file.fileno()).st_size
                if found != size:
                    raise ValueError(f"{path}: expected {size:,} bytes, got {found:,}: cut off")
                if file.read(len(token)) != token.encode():
                    raise ValueError(f"{path}: expected a file that belongs to {MANIFEST}")
            self._files.append(_open_directly(path))

    @property
    def files(self) -> list[int]:
        """The descriptors of the data files."""
        return self._files

    def sync(self) -> None:
        """Bring what was written to the disk."""
        for file in self._files:
            os.fdatasync(file)

    def close(self) -> None:
        """Close all files, and give the lock back."""
        for file in self._files:
            os.close(file)
        self._files = []
        if self._lock is not None:
            if self.is_ours:  # else a child that lives on would keep it
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def __del__(self) -> None:
        self.close()

    def map(self, file: int, placed: Placed) -> Array:
        """Return a parameter as it is in a file: a read-only map."""
        dtype = placed.streams[0].dtype
        return np.memmap(self.path(DATA[file]), dtype, "r", placed.params, (placed.size,))


def _open_directly(path: str) -> int:
    """Open a file past the system's cache, where that can be."""
    direct = getattr(os, "O_DIRECT", 0)
    try:
        return os.open(path, os.O_RDWR | direct)
    except OSError:
        return os.open(path, os.O_RDWR)


def read_fully(file: int, memory: Sequence[memoryview], offset: int) -> None:
    """Fill memory from a file; raise OSError where it ends."""
    left = [each for each in memory if len(each)]
    while left:
        done = os.preadv(file, left, offset)
        if done <= 0:
            raise OSError(errno.EIO, "the file has ended")
        left, offset = _rest(left, done), offset + done


def write_fully(file: int, memory: Sequence[memoryview], offset: int) -> None:
    """Write all memory to a file."""
    left = [each for each in memory if len(each)]
    while left:
        done = os.pwritev(file, left, offset)
        left, offset = _rest(left, done), offset + done


def _rest(memory: list[memoryview], done: int) -> list[memoryview]:
    """Return what is left of memory after so many bytes."""
    while memory and done >= len(memory[0]):
        done -= len(memory[0])
        memory = memory[1:]
    return [memory[0][done:], *memory[1:]] if done else memory
