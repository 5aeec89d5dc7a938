"""State as a safetensors file, and back."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Faults, frozen, raising

import instep
from instep import interop

pytestmark = pytest.mark.usefixtures("without_fsync")


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
