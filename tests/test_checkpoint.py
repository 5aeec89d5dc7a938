"""Checkpoints come back to the last bit, or are refused; writing one is all or nothing."""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import io
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import instep
from instep import _checkpoint, interop

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


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Leave out what matters when the power fails, and takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def sealed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).hexdigest().encode()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Yield a path in a folder where nothing else may be in the end."""
    folder = tmp_path / "folder"
    folder.mkdir()
    yield folder / "checkpoint.npz"
    assert {each.name for each in folder.iterdir()} <= {"checkpoint.npz"}


# --- what is written comes back -----------------------------------------------------------------

dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.array_dtypes(),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(63, 20_000).map(lambda bits: -(1 << bits)),
    st.floats(),
    st.text(st.characters()),
    hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4)),
)
keys = st.one_of(
    st.text(st.characters(), max_size=8),
    st.sampled_from(
        ["manifest", "a", "a.npy", "a/a", "a_", "a\\a", "a\x00", "", "../a", "a" * 2000]
    ),
)
trees = st.dictionaries(
    keys,
    st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6),
    max_size=4,
)


@given(tree=trees)
@settings(deadline=None, max_examples=150)
def test_every_tree_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    path = tmp_path_factory.getbasetemp() / "tree"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # NumPy's, of field names that are not Latin 1
        again = round_trip(tree, path)
    assert frozen(again) == frozen(tree)
    assert all(each.flags.writeable and each.dtype.isnative for each in arrays_in(again))
    with np.load(path, allow_pickle=False) as archive:
        assert len(set(archive.files)) == 1 + len(list(arrays_in(tree)))
        found = [frozen(archive[name]) for name in archive.files if name != "manifest"]
    assert found == [frozen(each) for each in arrays_in(tree)]


# NumPy converts no byte order of dates without a unit.
CODES = sorted({*np.typecodes["All"]} - {*"OMm"})


@pytest.mark.parametrize("code", [*CODES, "M8[ns]", "m8[3D]", "U3"])
@pytest.mark.parametrize("order", "<>")
def test_every_dtype_comes_back_in_native_order(path: Path, code: str, order: Any) -> None:
    dtype = np.dtype(code)
    if not dtype.itemsize:
        dtype = np.dtype(f"{code}5")
    source = np.frombuffer(random.Random(1).randbytes(4 * dtype.itemsize), "u1") & 1
    array = source.view(dtype.newbyteorder(order))
    again = round_trip({"a": array}, path)["a"]
    assert again.dtype == dtype.newbyteorder("=")
    assert frozen(again) == frozen(array)


base = np.arange(60.0).reshape(3, 4, 5)


@pytest.mark.parametrize(
    "array",
    [
        np.array(2.5),
        np.array(2.5, ">f8"),
        np.zeros(0, "f4"),
        np.zeros((3, 0, 2)),
        base,
        base.T,
        np.asfortranarray(base),
        base[::-1, 1::2, ::3],
        base.transpose(1, 0, 2),
        base.astype(">f4")[:, ::2],
        np.broadcast_to(np.float32(3), (2, 3)),
        np.frombuffer(b"\0" + base.tobytes(), "f8", offset=1),
    ],
    ids=str.split("0-d 0-d-big empty empty-3-d C T F strided mixed big broadcast misaligned"),
)
def test_every_layout_comes_back(path: Path, array: np.ndarray[Any, Any]) -> None:
    again = round_trip({"a": array}, path)["a"]
    assert frozen(again) == frozen(array)
    again[...] = 0
    assert frozen(_checkpoint.read(path)["a"]) == frozen(array)


@pytest.mark.parametrize(
    "value",
    [
        *(math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.7976931348623157e308, 0.1),
        *(2**63 - 1, 2**63, -(2**63), -(2**64), 10**5000, True, False, 0, 1),
        *(None, "", "schedule", "\ud800 \x00 ä", "NaN"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_value_comes_back(path: Path, value: Any) -> None:
    assert frozen(round_trip({"value": {"value": value}}, path)) == frozen(
        {"value": {"value": value}}
    )


def test_numpy_alone_reads_it(path: Path) -> None:
    tree = a_tree()
    _checkpoint.write(path, tree)
    with np.load(path, allow_pickle=False) as archive:
        assert archive.files == [
            "manifest",
            "arrays/params['w'][0]/m",
            "parameters/params['w'][0]",
        ]
        manifest = json.loads(archive["manifest"].tobytes())
        np.testing.assert_array_equal(
            archive["arrays/params['w'][0]/m"], tree["arrays"]["params['w'][0]"]["m"]
        )
    assert manifest["format"] == "instep checkpoint"
    assert manifest["version"] == 1
    assert manifest["instep"] == instep.__version__
    assert manifest["tree"]["iterations"] == 12
    assert manifest["tree"]["parameters"] == {
        "params['w'][0]": ["array", "parameters/params['w'][0]", "float64", [2, 3]]
    }


def test_no_name_hides_another_one(path: Path) -> None:
    names = [
        "manifest",
        "a",
        "a.npy",
        "b.npy",
        "b",
        "c/d",
        "a\\b",
        "a_b",
        "x" * 70_000,
        "",
        "ä",
        "/",
    ]
    tree: Tree = {name: np.full(2, k) for k, name in enumerate(names)}
    tree["c"] = {"d": np.full(2, len(names))}
    assert frozen(round_trip(tree, path)) == frozen(tree)
    with np.load(path) as archive:
        assert [archive[name][0] for name in archive.files[1:]] == list(range(len(names) + 1))
        assert json.loads(archive["manifest"].tobytes())


def test_equal_states_are_equal_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _checkpoint.write(path, a_tree())
    first = path.read_bytes()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    _checkpoint.write(path, copy.deepcopy(a_tree()))
    assert path.read_bytes() == first


@pytest.mark.parametrize("layout", [lambda a: a, lambda a: a.T, lambda a: a[::2, ::2]])
def test_writing_takes_blocks_of_an_array(path: Path, layout: Change) -> None:
    array = layout(np.ones((4000, 4000)))
    tracemalloc.start()
    try:
        _checkpoint.write(path, {"a": array})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


def test_a_state_comes_back(path: Path) -> None:
    params = {"w": np.ones((2, 3), np.float32), "b": [np.zeros(3), np.zeros(())]}
    opt = instep.Adam(params, use_ema=True, gradient_accumulation_steps=2, global_clipnorm=1.0)
    for _ in range(3):
        opt.step({"w": np.full((2, 3), 7.0), "b": [np.ones(3), None]})
    state = round_trip(opt.state_dict(), path)
    assert frozen(state) == frozen(opt.state_dict())
    other = instep.Adam(params, use_ema=True, gradient_accumulation_steps=2, global_clipnorm=1.0)
    other.load_state_dict(state)
    assert frozen(other.state_dict()) == frozen(state)


def test_dtypes_of_ml_dtypes_come_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tree = {
        name: np.array([[0.5, -1, 3], [2, 1, 0]]).astype(getattr(ml_dtypes, name)).T
        for name in ("bfloat16", "float8_e4m3fn", "int4")
    }
    assert frozen(round_trip(tree, path)) == frozen(tree)
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["bfloat16"], tree["bfloat16"].view("u2"))
    with pytest.raises(TypeError, match=r"tree\['a'\]"):
        _checkpoint.write(path, {"a": np.zeros(2, [("x", ml_dtypes.bfloat16)])})
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        _checkpoint.read(path)


# --- what is no whole checkpoint is refused -----------------------------------------------------


def test_every_flipped_bit_is_refused(path: Path) -> None:
    _checkpoint.write(path, a_tree())
    with open(path, "r+b", buffering=0) as file:
        data = file.read()

        def put(place: int, byte: int) -> None:
            file.seek(place)
            file.write(bytes([byte]))

        for place, bit in itertools.product(range(len(data)), range(8)):
            put(place, data[place] ^ 1 << bit)
            with pytest.raises(ValueError, match="checkpoint"):
                _checkpoint.read(path)
            put(place, data[place])
    assert frozen(_checkpoint.read(path)) == frozen(a_tree())


def test_every_truncation_is_refused(path: Path) -> None:
    _checkpoint.write(path, a_tree())
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(ValueError, match="checkpoint"):
            _checkpoint.read(path)


def test_everything_added_is_refused(path: Path) -> None:
    _checkpoint.write(path, a_tree())
    data = path.read_bytes()
    for more in (*(bytes([byte]) for byte in range(0, 256, 17)), data[-64:], data[-86:], data):
        for changed in (data + more, more + data):
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="checkpoint"):
                _checkpoint.read(path)


def test_a_changed_place_of_equal_bytes_is_refused(path: Path) -> None:
    _checkpoint.write(path, {"a": np.arange(64.0), "b": np.arange(64.0)[::-1]})
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:100] + data[middle:-64] + data[100:middle] + data[-64:])
    with pytest.raises(ValueError, match="checkpoint"):
        _checkpoint.read(path)


@pytest.mark.parametrize("seal", [bytes, sealed])
def test_garbage_is_refused(path: Path, seal: Callable[[bytes], bytes]) -> None:
    generator = random.Random(1)
    _checkpoint.write(path, a_tree())
    data = path.read_bytes()[:-64]
    ours = sealed(data)
    for trial in range(300):
        garbage = bytearray(generator.randbytes(trial % 150) if trial % 2 else data)
        if not trial % 2:
            for _ in range(1 + trial % 5):
                garbage[generator.randrange(len(garbage))] = generator.randrange(256)
        if (content := seal(bytes(garbage))) == ours:
            continue
        path.write_bytes(content)
        if seal is bytes:
            with pytest.raises(ValueError, match=f"^{path}: .*checkpoint"):
                _checkpoint.read(path)
        else:  # where nobody can tell that a number is another one
            with contextlib.suppress(ValueError, OSError):
                _checkpoint.read(path)


@pytest.mark.parametrize("seal", [bytes, sealed])
def test_other_files_are_refused(path: Path, seal: Callable[[bytes], bytes]) -> None:
    buffers = [io.BytesIO() for _ in range(3)]
    np.savez(buffers[0], a=np.zeros(3))
    np.savez(buffers[1], manifest=np.frombuffer(b'{"format": "other", "version": 1}', "u1"))
    np.save(buffers[2], np.zeros(3))
    for content in (b"", b"\n", b"0" * 64, b"PK\3\4", *(each.getvalue() for each in buffers)):
        path.write_bytes(seal(content))
        with pytest.raises(ValueError, match=f"^{path}: .*checkpoint"):
            _checkpoint.read(path)


def with_manifest(monkeypatch: pytest.MonkeyPatch, path: Path, change: Change) -> None:
    """Write a checkpoint with a proper seal and another manifest."""
    original = _checkpoint.describe

    def describe(tree: Tree) -> Any:
        manifest, arrays = original(tree)
        changed = change(json.loads(manifest))
        return changed if isinstance(changed, str) else json.dumps(changed), arrays

    with monkeypatch.context() as patch:
        patch.setattr(_checkpoint, "describe", describe)
        _checkpoint.write(path, {"a": np.zeros((2, 3))})


def test_a_newer_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_manifest(
        monkeypatch, path, lambda old: {**old, "version": 2, "instep": "9.8.7", "tree": 0}
    )
    with pytest.raises(ValueError, match=rf"^{path}: .*got 2 .*9\.8\.7.*newer"):
        _checkpoint.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda old: "",
        lambda old: "nonsense",
        lambda old: "[" * 100_000,
        lambda old: [],
        lambda old: {},
        lambda old: {**old, "format": "other"},
        lambda old: {key: value for key, value in old.items() if key != "tree"},
        lambda old: {**old, "tree": {"a": []}},
        lambda old: {**old, "tree": {"a": ["array"]}},
        lambda old: {**old, "tree": {"a": ["array", "b", "float64", [2, 3]]}},
        lambda old: {**old, "tree": {"a": ["array", "a", "float64", [3, 2]]}},
        lambda old: {**old, "tree": {"a": ["array", "a", "float64", 6]}},
        lambda old: {**old, "tree": {"a": ["float", "nonsense"]}},
        lambda old: {**old, "tree": {"a": ["int", None]}},
        lambda old: {**old, "tree": {"a": ["other", "1"]}},
        lambda old: {**old, "tree": [["int", "1"]]},
    ],
)
def test_other_manifests_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    with_manifest(monkeypatch, path, change)
    with pytest.raises(ValueError, match=f"^{path}: .*checkpoint"):
        _checkpoint.read(path)


def test_another_dtype_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_manifest(
        monkeypatch, path, lambda old: {**old, "tree": {"a": ["array", "a", "float32", [2, 3]]}}
    )
    with pytest.raises((ValueError, ImportError)):
        _checkpoint.read(path)


def test_pickles_are_refused(path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, manifest=np.array([print], object))
    path.write_bytes(sealed(buffer.getvalue()[:-2] + b"\x40\0"))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        _checkpoint.read(path)


class Unknown:
    """Nothing that a tree may hold."""


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Unknown(), r"tree\['a'\]\['b'\]"),
        ([1], r"tree\['a'\]\['b'\]"),
        ((np.zeros(2),), r"tree\['a'\]\['b'\]"),
        (1j, r"tree\['a'\]\['b'\]"),
        (b"x", r"tree\['a'\]\['b'\]"),
        (np.float32(1), r"tree\['a'\]\['b'\]"),
        (np.int64(1), r"tree\['a'\]\['b'\]"),
        (np.array([None]), r"tree\['a'\]\['b'\]"),
        (np.zeros(2, [("x", "O")]), r"tree\['a'\]\['b'\]"),
        ({1: 2}, r"tree\['a'\]\['b'\].*got 1"),
        ({None: 2}, r"tree\['a'\]\['b'\].*got None"),
    ],
)
def test_what_a_tree_cannot_hold_is_refused(path: Path, value: Any, place: str) -> None:
    _checkpoint.write(path, a_tree())
    before = path.read_bytes()
    with pytest.raises(TypeError, match=place):
        _checkpoint.write(path, {"a": {"b": value}})
    assert path.read_bytes() == before


# --- paths --------------------------------------------------------------------------------------


def test_kinds_of_paths(path: Path) -> None:
    for each in (path, str(path), os.fsencode(path)):
        _checkpoint.write(each, a_tree())
        assert frozen(_checkpoint.read(each)) == frozen(a_tree())
    with open(path, "r+b") as file:
        for wrong in (file.fileno(), file, None, 1.5, [str(path)]):
            with pytest.raises(TypeError, match="path: expected str, bytes or path-like, got"):
                _checkpoint.write(wrong, a_tree())  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="path: expected str, bytes or path-like, got"):
                _checkpoint.read(wrong)  # type: ignore[arg-type]


def test_what_is_no_file(tmp_path: Path) -> None:
    opt = instep.SGD(np.ones(2), learning_rate=0.1)
    for action in (opt.save, opt.load):
        with pytest.raises(OSError, match="not a regular file"):
            action("/dev/zero" if os.path.exists("/dev/zero") else os.devnull)
        with pytest.raises(ValueError, match="path: expected"):
            action("a\0b")
    with pytest.raises(TypeError, match="params: expected True or False"):
        opt.save(tmp_path / "state.npz", params="no")  # type: ignore[arg-type]


def test_a_path_without_a_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert frozen(round_trip(a_tree(), Path(path.name))) == frozen(a_tree())
    assert path.exists()


def test_a_path_as_long_as_can_be(tmp_path: Path) -> None:
    assert frozen(round_trip(a_tree(), tmp_path / ("x" * 255))) == frozen(a_tree())


def test_what_cannot_be_a_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _checkpoint.read(path)
    missing = path.parent / "missing"
    with pytest.raises(FileNotFoundError, match=f"'{missing}'"):
        _checkpoint.write(missing / "checkpoint.npz", a_tree())
    for operation in (_checkpoint.read, lambda path: _checkpoint.write(path, a_tree())):
        with pytest.raises(IsADirectoryError, match=f"'{path.parent}'"):
            operation(path.parent)
    path.write_bytes(b"")
    with pytest.raises(OSError, match="Not a directory"):
        _checkpoint.write(path / "checkpoint.npz", a_tree())


@posix
def test_what_is_no_regular_file_stays(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match=f"not a regular file: '{path}'"):
        _checkpoint.write(path, a_tree())
    assert path.is_fifo()


@posix
@pytest.mark.parametrize("before", [None, b"before"])
def test_a_symbolic_link_stays(path: Path, tmp_path: Path, before: bytes | None) -> None:
    for name in ("there", "links"):
        (tmp_path / name).mkdir()
    target = tmp_path / "there" / "checkpoint.npz"
    if before is not None:
        target.write_bytes(before)
    second = tmp_path / "links" / "second"
    second.symlink_to(target)
    path.symlink_to("../links/second")
    assert frozen(round_trip(a_tree(), path)) == frozen(a_tree())
    assert (path.is_symlink(), second.is_symlink(), target.is_symlink()) == (True, True, False)
    assert frozen(_checkpoint.read(target)) == frozen(a_tree())
    assert os.listdir(target.parent) == [target.name]


@posix
def test_a_circle_of_links_is_an_error(path: Path) -> None:
    path.symlink_to(path.name)
    for operation in (_checkpoint.read, lambda path: _checkpoint.write(path, a_tree())):
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            operation(path)
    assert path.is_symlink()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_permissions(path: Path, tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        (tmp_path / "ordinary").write_bytes(b"")
        _checkpoint.write(path, a_tree())
        assert mode(path) == mode(tmp_path / "ordinary") == 0o666 & ~umask
        for kept in (0o600, 0o644, 0o666, 0o640, 0o755, 0o444, 0o400):
            path.chmod(kept)
            _checkpoint.write(path, a_tree(kept))
            assert mode(path) == kept
            assert _checkpoint.read(path)["number"] == kept
    finally:
        os.umask(old)


@posix
def test_nobody_else_reads_a_private_file_while_it_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch(0o600)
    modes: list[int] = []
    for name in ("chmod", "fsync"):
        original = getattr(os, name)

        def watching(*arguments: Any, original: Any = original) -> Any:
            modes.extend(mode(each) for each in path.parent.iterdir())
            return original(*arguments)

        monkeypatch.setattr(os, name, watching)
    _checkpoint.write(path, a_tree())
    assert modes
    assert set(modes) == {0o600}


# --- writing is all or nothing ------------------------------------------------------------------


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


def test_what_is_written_is_on_the_disk_before_it_counts(path: Path) -> None:
    path.touch()
    faults = Faults(sys.maxsize, raising(AssertionError()), False)
    with faults.installed():
        _checkpoint.write(path, a_tree())
    calls = [name for name, _ in itertools.groupby(faults.calls)]
    assert calls[-7:] == [
        *("write", "os.fsync", "close", "os.replace"),
        *("os.open", "os.fsync", "os.close"),
    ]


ALL_CALLS = {
    *("write", "close", "os.stat", "os.open", "os.chmod", "os.fsync", "os.replace", "os.close")
}


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), MemoryError("none left"), KeyboardInterrupt()],
    ids=repr,
)
def test_whatever_fails_the_old_file_stays(
    path: Path, error: BaseException, after: bool, exists: bool
) -> None:
    old, new = a_tree(1.0), a_tree(2.0)
    if exists:
        _checkpoint.write(path, old)
    before = path.read_bytes() if exists else None
    failed = set()
    for at in itertools.count():
        faults = Faults(at, raising(error), after)
        caught = None
        try:
            with faults.installed():
                _checkpoint.write(path, new)
        except BaseException as problem:
            caught = problem.with_traceback(None)
        assert os.listdir(path.parent) in ([path.name], [])
        replaced = faults.calls.count("os.replace") and (after or faults.failed != "os.replace")
        if replaced:
            assert frozen(_checkpoint.read(path)) == frozen(new)
            assert caught is None or after or not isinstance(error, OSError)
            path.write_bytes(before) if before else path.unlink()
        else:
            assert caught is error
            assert (path.read_bytes() if path.exists() else None) == before
        if faults.failed is None:
            break
        failed.add(faults.failed)
    assert failed == (ALL_CALLS if exists else ALL_CALLS - {"os.chmod"})
    assert at > 30


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # which has no other end
def test_an_interrupt_at_any_line_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    states = [a_tree(1.0), a_tree(2.0)]
    _checkpoint.write(path, states[0])
    files = {_checkpoint.__file__, contextlib.__file__}
    traced = sys.gettrace()
    seen = set()
    for at in itertools.count():
        lines = itertools.count()

        def trace(frame: Any, event: str, argument: Any, lines: Any = lines, at: int = at) -> Any:
            if frame.f_code.co_filename not in files:
                return None
            if event == "line" and next(lines) == at:
                raise KeyboardInterrupt
            return trace

        done = False
        sys.settrace(trace)
        try:
            _checkpoint.write(path, states[1])
        except KeyboardInterrupt:  # whose traceback keeps all that waits for the end of its frames
            left = os.listdir(path.parent)
        else:
            left, done = os.listdir(path.parent), True
        finally:
            sys.settrace(traced)
        assert left == [path.name]
        seen.add(_checkpoint.read(path)["number"])
        _checkpoint.write(path, states[0])
        if done:
            break
    assert seen == {1.0, 2.0}
    assert at > 100


def alone(function: Callable[[str], None], path: Path) -> None:
    """Call a function of this module in a process of its own."""
    code = (
        "import os, sys, test_checkpoint\n"
        "os.fsync = lambda descriptor: None\n"
        f"test_checkpoint.{function.__name__}(sys.argv[1])"
    )
    places = [str(Path(__file__).parent), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )
    assert not done.returncode, done.stderr


def save_beyond_every_limit(path: str) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _checkpoint.write(path, a_tree(1.0))
    size = os.path.getsize(path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for limit in range(0, size, 5):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            _checkpoint.write(path, a_tree(2.0))
        assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
        assert _checkpoint.read(path)["number"] == 1.0
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    _checkpoint.write(path, a_tree(2.0))
    assert _checkpoint.read(path)["number"] == 2.0


@posix
def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    alone(save_beyond_every_limit, path)


def killed(work: Callable[[int], None]) -> None:
    """Run some work in a child that gets killed when it has written a byte, or kills itself."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        work(writing)
        os._exit(1)
    os.close(writing)
    if os.read(reading, 1):
        time.sleep(random.random() * 0.01)
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def large(number: int) -> Tree:
    return {"a": np.full(20_000, number), "b": np.full((50, 50), number), "number": number}


def save_and_get_killed(path: str) -> None:
    def save(told: int) -> None:
        for number in itertools.count(1):
            _checkpoint.write(path, large(number % 2))
            if number == 1:
                os.write(told, b"x")

    _checkpoint.write(path, large(0))
    for _ in range(25):
        killed(save)
        tree = _checkpoint.read(path)
        assert frozen(tree) == frozen(large(tree["number"]))


def save_and_die_at_every_call(path: str) -> None:
    states = []
    for at in itertools.count():
        _checkpoint.write(path, a_tree(1.0))
        faults = Faults(at, lambda: os.kill(os.getpid(), signal.SIGKILL), False)

        def save(told: int, faults: Faults = faults) -> None:
            with faults.installed():
                _checkpoint.write(path, a_tree(2.0))
            os.write(told, b"x")
            signal.pause()

        killed(save)
        tree = _checkpoint.read(path)
        assert frozen(tree) == frozen(a_tree(tree["number"]))
        states.append(tree["number"])
        if tree["number"] == 2.0:
            break
    assert states == [1.0] * at + [2.0]
    assert at > 30


@posix
@pytest.mark.parametrize("function", [save_and_get_killed, save_and_die_at_every_call])
def test_a_kill_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, function: Callable[[str], None]
) -> None:
    alone(function, tmp_path / "checkpoint.npz")


# --- files of every release ---------------------------------------------------------------------

RELEASES = sorted((Path(__file__).parent / "checkpoints").glob("*.npz"))


def trained_as_in_every_release() -> Any:
    """In the middle of a window, with groups, averages, skipped steps and both dtypes."""
    rng = np.random.default_rng(0)
    params = {
        "layer": instep.Group(
            [rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=5)], learning_rate=0.2
        ),
        "scale": np.array(0.5),
    }
    opt = instep.Adam(
        params,
        learning_rate=instep.schedules.CosineDecay(0.1, 100),
        amsgrad=True,
        gradient_accumulation_steps=3,
        global_clipnorm=1.0,
        use_ema=True,
        skip_nonfinite=True,
    )
    for step in range(8):
        scale = np.array(np.inf if step == 2 else 0.25)
        opt.step({"layer": [np.full((3, 4), 0.5 * step, np.float32), None], "scale": scale})
    return opt


@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_files_of_every_release_load(file: Path) -> None:
    """Written by `trained_as_in_every_release().save(...)` of that release."""
    expected, opt = trained_as_in_every_release(), trained_as_in_every_release()
    for each in arrays_in(opt.state_dict()["arrays"]):
        assert each.size  # there is something to lose
    opt.build({"layer": [np.zeros((3, 4), np.float32), np.zeros(5)], "scale": np.zeros(())})
    opt.load(file)
    assert (opt.iterations, opt.skipped_steps) == (2, 1)
    ours, theirs = opt.state_dict(), expected.state_dict()
    for one, other in zip(arrays_in(ours["arrays"]), arrays_in(theirs["arrays"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    for one, other in zip(opt.params["layer"], expected.params["layer"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert opt.current_learning_rate == expected.current_learning_rate


def test_there_is_a_file_of_this_release() -> None:
    assert instep.__version__ in [file.stem for file in RELEASES]


# --- safetensors --------------------------------------------------------------------------------


def an_optimizer(seed: int, **options: Any) -> instep.Adam:
    generator = np.random.default_rng(seed)
    w = np.asfortranarray(generator.normal(size=(4, 3)))
    opt = instep.Adam({"w": w, "b": [np.zeros(3, "f4"), np.ones(())]}, use_ema=True, **options)
    for _ in range(seed):
        opt.step({"w": generator.normal(size=(4, 3)), "b": [np.ones(3), None]})
    return opt


def whole(opt: instep.Adam) -> Any:
    return frozen(
        {"state": opt.state_dict(), "w": opt.params["w"], "b": dict(enumerate(opt.params["b"]))}
    )


def test_safetensors_and_back(path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    opt, other = an_optimizer(3), an_optimizer(1)
    interop.to_safetensors(opt, path)
    tensors = safetensors.load_file(path)
    np.testing.assert_array_equal(tensors["parameters/params['w']"], opt.params["w"])
    np.testing.assert_array_equal(tensors["arrays/params['w']/m"], opt.state["w"]["m"])
    w = other.params["w"]
    interop.from_safetensors(other, path)
    assert whole(other) == whole(opt)
    assert other.params["w"] is w
    other.step({"w": np.ones((4, 3)), "b": [np.ones(3), None]})
    other.params["w"][...] = 7
    interop.from_safetensors(other, path)
    assert whole(other) == whole(opt)


def test_safetensors_without_parameters(path: Path) -> None:
    pytest.importorskip("safetensors")
    opt, other = an_optimizer(3), an_optimizer(1)
    before = other.params["w"].copy()
    interop.to_safetensors(opt, path, params=False)
    interop.from_safetensors(other, path)
    assert frozen(other.state_dict()) == frozen(opt.state_dict())
    np.testing.assert_array_equal(other.params["w"], before)


def test_safetensors_that_do_not_fit_change_nothing(path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    opt = an_optimizer(2)
    before = whole(opt)
    with pytest.raises(FileNotFoundError):
        interop.from_safetensors(opt, path)
    for other in (instep.Adam([np.zeros(3)]), instep.SGD(an_optimizer(1).params)):
        interop.to_safetensors(other, path)
        with pytest.raises(ValueError, match=r"arrays|rule"):
            interop.from_safetensors(opt, path)
    safetensors.save_file({"a": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=f"^{path}: .*manifest"):
        interop.from_safetensors(opt, path)
    for garbage in (b"", b"x" * 100):
        path.write_bytes(garbage)
        with pytest.raises(ValueError, match=f"^{path}: "):
            interop.from_safetensors(opt, path)
    assert whole(opt) == before


def test_safetensors_are_written_whole_or_not_at_all(path: Path) -> None:
    pytest.importorskip("safetensors")
    opt = an_optimizer(1)
    interop.to_safetensors(opt, path)
    before = path.read_bytes()
    opt.step({"w": np.ones((4, 3)), "b": [np.ones(3), None]})
    error = OSError(errno.ENOSPC, "full")
    for at in itertools.count():
        faults = Faults(at, raising(error), False)
        with contextlib.suppress(OSError), faults.installed():
            interop.to_safetensors(opt, path)
        assert os.listdir(path.parent) == [path.name]
        if faults.failed in (None, "os.close") or faults.calls.count("os.replace") > (
            faults.failed == "os.replace"
        ):
            break
        assert path.read_bytes() == before
    other = an_optimizer(1)
    interop.from_safetensors(other, path)
    assert whole(other) == whole(opt)
    assert at > 5


@pytest.mark.parametrize("function", [interop.to_safetensors, interop.from_safetensors])
def test_a_missing_safetensors_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., None]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        function(an_optimizer(1), path)


@pytest.mark.parametrize("function", [interop.to_safetensors, interop.from_safetensors])
def test_an_unbound_optimizer_has_nothing_to_write(
    path: Path, function: Callable[..., None]
) -> None:
    with pytest.raises(RuntimeError, match=function.__name__):
        function(instep.Adam(), path)
