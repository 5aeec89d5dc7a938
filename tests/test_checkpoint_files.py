"""The files of checkpoints: paths, permissions, and whatever fails the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Faults, Tree, a_tree, frozen, posix, raising, round_trip
from processes import alone

import instep
from instep import _checkpoint

pytestmark = pytest.mark.usefixtures("without_fsync")


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


def quick() -> None:
    """Leave out in this process what `without_fsync` does."""
    pytest.MonkeyPatch().setattr(os, "fsync", lambda descriptor: None)


def save_beyond_every_limit(path: str) -> None:
    import resource

    quick()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _checkpoint.write(path, a_tree(1.0))
    size = os.path.getsize(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in range(0, size, 5):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
                _checkpoint.write(path, a_tree(2.0))
            assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
            assert _checkpoint.read(path)["number"] == 1.0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        _checkpoint.write(path, a_tree(2.0))
        assert _checkpoint.read(path)["number"] == 2.0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))  # so that a traceback has room


@posix
def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    alone(save_beyond_every_limit, str(path))


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
    quick()

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
    quick()
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
    alone(function, str(tmp_path / "checkpoint.npz"))


@pytest.mark.parametrize("times", [5, 100])
def test_a_parser_that_other_threads_disturb_is_asked_again(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = instep.Adam(np.ones(3))
    opt.save(tmp_path / "file.npz")
    works, left = np.lib.format.read_array, [times]

    def disturbed(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise SystemError("AST constructor recursion depth mismatch (before=81, after=72)")
        return works(*given, **named)

    monkeypatch.setattr(np.lib.format, "read_array", disturbed)
    if times > 50:
        with pytest.raises(ValueError, match="not a checkpoint that instep can read: AST"):
            opt.load(tmp_path / "file.npz")
    else:
        opt.load(tmp_path / "file.npz")
