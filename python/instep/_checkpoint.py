"""Checkpoints: nested dicts of numbers and arrays in a file that is read whole or not at all.

A checkpoint is a stored .npz file, which ``np.load`` reads, too. Its arrays are named after their
places. Another one, "manifest", holds JSON: the dict with exact numbers and, where an array was, a
list of its name, dtype and shape. The file ends with 64 hexadecimal digits, the archive's comment:
the SHA-256 of all before them, which every altered, missing or added byte makes wrong. A shell
prints what it should be with ``head -c -64 FILE | sha256sum``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import mmap
import os
import re
import secrets
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from struct import pack, unpack
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec

import numpy as np

from instep._config import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Tree = dict[str, Any]

_Given = ParamSpec("_Given")

FORMAT = "instep checkpoint"
VERSION = 1
TEMPORARY = ".instep-"
"""How files begin that are not whole yet."""
MANIFEST = "manifest"
_SEAL = 64
"""The length of the hash at the end."""
_MAX = 0xFFFFFFFF
"""Stands for a size that is in a field of zip64."""
_VERSION_TO_DATE = (45, 0x0808, 0, 0, 0x21)
"""What zip must know: zip64; sizes behind the data, names in UTF-8; stored; 1980-01-01, 0:00."""
_BLOCK = 1 << 20
_LONGEST_NAME = 1000
_ATTEMPTS = 20


class Later:
    """Arrays that are made when their turn to be written comes."""

    def __init__(self) -> None:
        self._makers: dict[int, tuple[NDArray[Any], Callable[[], NDArray[Any]]]] = {}

    def __call__(
        self, dtype: np.dtype[Any], shape: tuple[int, ...], make: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        """Return what stands in a tree for an array that a function makes."""
        stand_in = np.broadcast_to(np.zeros((), dtype), shape)
        self._makers[_address(stand_in)] = stand_in, make
        return stand_in

    def made(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return what an array in a tree, or a view of it, stands for."""
        known = self._makers.get(_address(array))
        return array if known is None else known[1]().view(array.dtype)


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def write(path: Path, tree: Tree, later: Later | None = None) -> None:
    """Write a checkpoint, or leave the file as it was.

    Parameters
    ----------
    path : str, bytes or path-like
        The file. One that exists is replaced in a single step when all is on the disk, and keeps
        its permissions; a symbolic link goes on pointing to it.
    tree : dict
        Nested dicts with str as keys and dict, list, ndarray, bool, int, float, str or None as
        values; a tuple comes back as a list.
    later : Later, optional
        What is made of some of its arrays when their turn comes.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If the tree holds anything else, objects in arrays included, or `path` is no path.
    """
    manifest, arrays = describe(tree)

    def fill(file: BinaryIO) -> None:
        archive = _Archive(file)
        archive.add(MANIFEST, np.frombuffer(manifest.encode(), np.uint8))
        for name, array in arrays.items():
            archive.add(name, later.made(array) if later else array)
        archive.finish()

    replace(path, fill)


def read(path: Path, *, mapped: bool = False) -> Tree:
    """Read what `write` wrote.

    Parameters
    ----------
    path : str, bytes or path-like
        The file.
    mapped : bool, optional
        Whether arrays are read-only maps of the file, which take no memory of their own.

    Returns
    -------
    dict
        The tree, with arrays of its own, or maps, in native byte order.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a checkpoint to the last bit, or one of a newer instep.
    ImportError
        If it holds arrays of a dtype from ml_dtypes, which is not installed.
    """
    name = name_of(path)
    _mode(name)  # a device might never end
    with open(name, "rb") as file:
        if not _is_sealed(file):
            raise ValueError(
                f"{name}: expected a whole checkpoint, which ends with its own SHA-256; this file "
                "was altered or cut off, or never was a checkpoint"
            )
        file.seek(0)
        with naming(name), zipfile.ZipFile(file) as archive:
            manifest = _read_member(archive, MANIFEST).tobytes()
            if not mapped:
                return rebuild(manifest, lambda member: _read_member(archive, member))
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return rebuild(manifest, lambda member: _map_member(archive, member, file, memory))


def describe(tree: Tree) -> tuple[str, dict[str, NDArray[Any]]]:
    """Return what a tree is, as JSON, and its arrays by the names that they have there."""
    arrays: dict[str, NDArray[Any]] = {}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "instep": __version__,
        "tree": _encode(tree, (), arrays),
    }
    return json.dumps(manifest, allow_nan=False), arrays


def rebuild(manifest: str | bytes, get: Callable[[str], NDArray[Any]]) -> Tree:
    """Return the tree that `describe` was given, with the arrays that a function gets by name."""
    known = json.loads(manifest)
    if known["format"] != FORMAT:
        raise ValueError(f"expected the format {FORMAT!r}, got {known['format']!r}")
    if known["version"] != VERSION:
        raise ValueError(
            f"expected version {VERSION} of the format, got {known['version']!r} from instep "
            f"{known['instep']}, which is newer than this one, {__version__}"
        )
    tree: Tree = _decode(known["tree"], get)
    return tree


def name_of(path: Path) -> str:
    """Return a path as str; raise TypeError or ValueError for what is none."""
    try:
        name = os.fsdecode(path)
    except TypeError as error:
        given = type(path).__name__
        raise TypeError(f"path: expected str, bytes or path-like, got {given}") from error
    if "\0" in name:
        raise ValueError(f"path: expected one without the character 0, got {name!r}")
    return name


def replace(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Put a new file, which a function fills, in the place of another one when it is whole.

    No context manager: its generator would outlive an interrupt between its lines and the caller's.
    """
    target = os.path.realpath(name_of(path))
    folder = os.path.dirname(target)
    os.stat(folder)  # else the error for a missing one would name the temporary file
    mode = _mode(target)
    temporary = os.path.join(folder, f"{TEMPORARY}{secrets.token_hex(8)}")

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if mode is None else mode)

    try:
        with open(temporary, "xb", opener=create) as file:
            if mode is not None:
                os.chmod(temporary, mode)  # with the bits that the umask took away
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Make ValueErrors that name the file of errors about what is in it."""
    try:
        yield
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a checkpoint that instep can read: {error}") from error


class _Archive:
    """A stored .npz archive of any size, written in one pass, and sealed with its hash.

    Unlike zipfile's, it leaves no error or interrupt behind another one when writing fails, and
    its bytes do not depend on the version of Python. All its sizes are in the fields of zip64.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._crc32 = self._size = 0
        self._directory: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._sha256.update(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        self._size += len(data)
        self._file.write(data)

    def add(self, name: str, array: NDArray[Any]) -> None:
        member = f"{name}.npy".encode()
        header = self._size
        self.write(
            pack("<4s5H3I2H", b"PK\3\4", *_VERSION_TO_DATE, 0, _MAX, _MAX, len(member), 20)
            + member
            + pack("<2H2Q", 1, 16, 0, 0)  # sizes come behind the data
        )
        begin, self._crc32 = self._size, 0
        np.lib.format.write_array(self, array, allow_pickle=False)
        crc32, size = self._crc32, self._size - begin
        self.write(pack("<4sI2Q", b"PK\7\10", crc32, size, size))
        self._directory.append(
            pack("<4sH5H3I", b"PK\1\2", 45, *_VERSION_TO_DATE, crc32, _MAX, _MAX)
            + pack("<5H2I", len(member), 28, 0, 0, 0, 0, _MAX)
            + member
            + pack("<2H3Q", 1, 24, size, size, header)
        )

    def finish(self) -> None:
        directory, count, start = b"".join(self._directory), len(self._directory), self._size
        self.write(
            directory
            + pack("<4sQ2H2I", b"PK\6\6", 44, 45, 45, 0, 0)
            + pack("<4Q", count, count, len(directory), start)
            + pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
            + pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _MAX, _MAX, _SEAL)
        )
        self._file.write(self._sha256.hexdigest().encode())


def _mode(path: str) -> int | None:
    """Return the permissions of a file, None if there is none; raise OSError for a device."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):  # a device, say, which must not become a file
        raise OSError(errno.EINVAL, "not a regular file", path)
    return stat.S_IMODE(mode)


def _sync_folder(folder: str) -> None:
    """Let a renaming survive a power failure, where the platform can."""
    with contextlib.suppress(OSError):  # the new file is in its place and whole in any case
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(directory: str) -> None:
    """Remove what writers that were killed have left in a directory where nobody writes."""
    for name in os.listdir(directory):
        if name.startswith(TEMPORARY):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))


def _is_sealed(file: BinaryIO) -> bool:
    """Return whether a file ends with the hash of what it holds."""
    remaining = file.seek(0, os.SEEK_END) - _SEAL
    file.seek(0)
    sha256 = hashlib.sha256()
    while remaining > 0 and (block := file.read(min(remaining, _BLOCK))):
        sha256.update(block)
        remaining -= len(block)
    return file.read() == sha256.hexdigest().encode()


def _undisturbed(
    read: Callable[_Given, NDArray[Any]],
) -> Callable[_Given, NDArray[Any]]:
    """Let a function that reads an array do so again where Python's parser was disturbed.

    NumPy has Python parse what is in front of an array, and in some versions threads that do so at
    the same time may get a SystemError (Python's issue 106905).
    """

    @functools.wraps(read)
    def read_again(*given: _Given.args, **named: _Given.kwargs) -> NDArray[Any]:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(SystemError):
                return read(*given, **named)
        return read(*given, **named)

    return read_again


@_undisturbed
def _read_member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as data:
        array: NDArray[Any] = np.lib.format.read_array(data, allow_pickle=False)
    return array


@_undisturbed
def _map_member(
    archive: zipfile.ZipFile, name: str, file: BinaryIO, memory: mmap.mmap
) -> NDArray[Any]:
    """Return an array in the map of its file."""
    header = archive.getinfo(f"{name}.npy").header_offset
    file.seek(header + 26)  # where the lengths of the name and of what is behind it stand
    file.seek(header + 30 + sum(unpack("<2H", file.read(4))))
    read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        np.lib.format.read_magic(file), np.lib.format.read_array_header_2_0
    )
    shape, is_fortran, dtype = read_header(file)
    array = (
        np.frombuffer(memory, dtype, math.prod(shape), file.tell())
        if math.prod(shape)
        else (np.zeros(0, dtype))
    )
    return array.reshape(shape, order="F" if is_fortran else "C")


def _encode(value: Any, place: tuple[str, ...], arrays: dict[str, NDArray[Any]]) -> Any:
    """Return a value as JSON, where a list is what JSON has no place for; collect its arrays."""
    where = "tree" + "".join(f"[{key!r}]" for key in place)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: expected str as keys, got {key!r}")
        return {key: _encode(each, (*place, key), arrays) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_encode(each, (*place, str(k)), arrays) for k, each in enumerate(value)]
        return ["list", *items]
    if isinstance(value, np.ndarray):
        stored, dtype = _plain(value, where)
        name = _name(place, arrays)
        arrays[name] = stored
        return ["array", name, dtype, list(value.shape)]
    if isinstance(value, float) and not math.isfinite(value):
        return ["float", repr(float(value))]
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return ["int", hex(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{where}: expected a dict, a list, an ndarray, a number, a str or None, "
        f"got {type(value).__name__}"
    )


def _decode(node: Any, get: Callable[[str], NDArray[Any]]) -> Any:
    """Return what `_encode` was given."""
    if isinstance(node, dict):
        return {key: _decode(each, get) for key, each in node.items()}
    if not isinstance(node, list):
        return node
    if node[0] == "list":
        return [_decode(each, get) for each in node[1:]]
    kind, text, *rest = node
    if kind == "array":
        dtype, shape = rest
        array = get(text)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.name != dtype:
            array = array.view(_dtype_of_ml_dtypes(dtype))
        if array.shape != tuple(shape):
            raise ValueError(f"{text}: expected the shape {tuple(shape)}, got {array.shape}")
        return array
    if kind not in ("float", "int"):
        raise ValueError(f"expected an array, a float or an int, got {kind!r}")
    return float(text) if kind == "float" else int(text, 16)


def _plain(array: NDArray[Any], where: str) -> tuple[NDArray[Any], str]:
    """Return an array as NumPy alone can read it, and the name of its dtype."""
    dtype = array.dtype
    if dtype.type.__module__.partition(".")[0] == "ml_dtypes":
        return array.view(f"u{dtype.itemsize}"), dtype.name
    if not dtype.hasobject:
        header = np.lib.format.dtype_to_descr(dtype)
        if (restored := np.lib.format.descr_to_dtype(header)) == dtype:
            return array, restored.name
    raise TypeError(f"{where}: expected numbers or text of NumPy, got an array of {dtype}")


def _dtype_of_ml_dtypes(name: str) -> np.dtype[Any]:
    try:
        ml_dtypes = import_module("ml_dtypes")
    except ImportError as error:
        raise ImportError(
            f"an array of {name} cannot be read without ml_dtypes: pip install ml_dtypes"
        ) from error
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


def _name(place: tuple[str, ...], taken: dict[str, NDArray[Any]]) -> str:
    """Return a readable name that is valid in every archive and not taken yet."""
    path = "".join(c if c.isprintable() and c != "\\" else "_" for c in "/".join(place))
    name = re.sub(r"\.npy$", ".npy_", path[:_LONGEST_NAME])  # else it would be another one's file
    if name == MANIFEST or name in taken:
        name += f"_{len(taken)}"
    while name in taken:
        name += "_"
    return name
