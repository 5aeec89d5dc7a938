"""Checkpoints come back to the last bit, or are refused."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import math
import os
import random
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from checkpoints import Change, Tree, a_tree, arrays_in, frozen, round_trip, sealed
from hypothesis import given, settings
from hypothesis import strategies as st

import instep
from instep import _checkpoint

pytestmark = pytest.mark.usefixtures("without_fsync")


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
        ([1, 1j], r"tree\['a'\]\['b'\]\['1'\]"),
        (({2: 3},), r"tree\['a'\]\['b'\]\['0'\].*got 2"),
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


def test_lists_come_back_as_lists(path: Path) -> None:
    tree = {"a": [1, -math.inf, "x", None, [], [{"b": [True]}, [np.arange(3), np.ones(2)]]]}
    _checkpoint.write(path, tree)
    back = _checkpoint.read(path)["a"]
    assert back[:5] == tree["a"][:5]
    assert back[5][0] == {"b": [True]}
    assert [array.tolist() for array in back[5][1]] == [[0, 1, 2], [1.0, 1.0]]
    _checkpoint.write(path, {"a": (1, (2.0,))})
    assert _checkpoint.read(path) == {"a": [1, [2.0]]}


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
