"""`instep.offload`: an optimizer in files has the bits of one in memory, whatever happens."""

from __future__ import annotations

import copy
import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import repository
from references import REFERENCES
from sharded_steps import OPTIONS, STEPS, alone, assert_same, gradients, parameters

import instep
from instep.offload import Streamed, _optimizer, _pipeline, _store

IN_MEMORY_ALONE = {name for name in REFERENCES if getattr(instep, name)._sees_whole_arrays()}
CONFIGURATIONS = [
    (rule, {"learning_rate": 0.01, **configuration})
    for rule, reference in REFERENCES.items()
    for configuration in reference.configurations
    if rule not in IN_MEMORY_ALONE
]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch, without_fsync: None) -> None:
    """Let each piece have a block, and leave out what matters when the power fails."""
    monkeypatch.setattr(_optimizer, "_PIECE", 16384)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


def check(
    directory: Path,
    rule: str,
    options: dict[str, Any],
    dtype: str = "float32",
    *,
    state_only: bool = False,
) -> None:
    """Raise AssertionError where steps through files are not those in memory."""
    grads = [gradients(step, 0, dtype) for step in range(STEPS)]
    params, plain = alone(lambda given: getattr(instep, rule)(given, **options), grads, dtype)
    chosen = getattr(instep, rule)
    given = parameters(dtype)
    with Streamed(chosen, directory, given, state_only=state_only, **options) as streamed:
        for each in grads[:2]:
            streamed.step(each)
    given = parameters(dtype)
    with Streamed(chosen, directory, given, state_only=state_only, **options) as streamed:
        for each in grads[2:]:
            streamed.step(each)
        assert_same(given, params if state_only else parameters(dtype))
        assert_same(streamed.params, params)
        assert_same(streamed.state_dict(), plain.state_dict())
        for name in ("iterations", "skipped_steps", "grad_norm", "accumulated_calls"):
            assert_same(getattr(streamed, name), getattr(plain, name), name)


@pytest.mark.parametrize(("rule", "options"), CONFIGURATIONS, ids=str)
def test_every_rule_has_the_bits_of_one_in_memory(
    rule: str, options: dict[str, Any], tmp_path: Path
) -> None:
    check(tmp_path, rule, options)


@pytest.mark.parametrize("rule", ["Adam", "Lamb", "Adafactor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(rule: str, name: str, tmp_path: Path) -> None:
    options = {"learning_rate": 0.1, **OPTIONS[name]}
    if rule == "Adafactor" and "state_dtype" in options:
        pytest.skip("keeps its state as it computes")
    check(tmp_path, rule, options)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("rounding", ["remainder", "stochastic"])
def test_other_dtypes(dtype: str, rounding: str, tmp_path: Path) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    check(tmp_path, "AdamW", {"rounding": rounding, "clipnorm": 1.0}, dtype)


@pytest.mark.parametrize("rule", sorted({*REFERENCES} - IN_MEMORY_ALONE))
def test_every_rule_with_its_state_alone_in_files(rule: str, tmp_path: Path) -> None:
    check(tmp_path, rule, {"learning_rate": 0.01}, state_only=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_with_the_state_alone_in_files(name: str, tmp_path: Path) -> None:
    check(tmp_path, "Lamb", {"learning_rate": 0.1, **OPTIONS[name]}, state_only=True)


def test_the_state_of_float16_alone_in_files(tmp_path: Path) -> None:
    check(tmp_path, "AdamW", {"clipnorm": 1.0}, "float16", state_only=True)


def test_parameters_that_stay_in_memory(tmp_path: Path) -> None:
    given = parameters()
    large, small = given["first"][0], given["first"][2]
    with Streamed(instep.SGD, tmp_path, given, state_only=True, learning_rate=1.0) as streamed:
        assert streamed.params["first"][0] is large
        large[...], small[...] = 1, 2
        streamed.save(tmp_path / "now.npz")
        streamed.step(gradients(0, 0))
        assert_same(large, 1 - gradients(0, 0)["first"][0])
        assert_same(small, 2 - gradients(0, 0)["first"][2])
        other = parameters()
        instep.SGD(other).load(tmp_path / "now.npz")
        assert np.all(other["first"][0] == 1)
        assert np.all(other["first"][2] == 2)
        streamed.load(tmp_path / "now.npz")
        assert np.all(large == 1)
        assert np.all(small == 2)
        without = streamed.state_dict()
        large[...] = 3
        streamed.load_state_dict(without)
        assert np.all(large == 3)
    again = parameters()
    with Streamed(instep.SGD, tmp_path, again, state_only=True, learning_rate=1.0):
        assert np.all(again["first"][0] == 3)
    with Streamed(instep.SGD, tmp_path, parameters(), learning_rate=1.0) as streamed:
        assert np.all(streamed.params["first"][0] == 3)


def test_parameters_in_memory_lie_in_one_piece(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"params\[0\]: expected a C-contiguous array"):
        Streamed(instep.Adam, tmp_path, [np.ones((200, 300)).T], state_only=True)
    fixed = np.ones((200, 300))
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        Streamed(instep.Adam, tmp_path, [fixed], state_only=True)
    Streamed(instep.Adam, tmp_path, [np.ones((200, 300))], state_only=True).close()


def test_parameters_that_cannot_be_read_back_close_the_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> None:
        raise OSError(5, "Input/output error")

    given = parameters()
    streamed = Streamed(instep.Adam, tmp_path, given, state_only=True)
    streamed.step(gradients(0, 0))
    before = parameters()
    instep.Adam(before).step(gradients(0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(_pipeline, "read_fully", broken)
        with pytest.raises(OSError, match="Input/output error"):
            streamed.step(gradients(1, 0))
        with pytest.raises(RuntimeError, match="closed"):
            streamed.step(gradients(1, 0))
    streamed.close()
    given = parameters()
    with Streamed(instep.Adam, tmp_path, given, state_only=True):
        assert_same(given, before)


def test_rules_that_see_whole_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Muon, which sees whole arrays"):
        Streamed(instep.Muon, tmp_path, parameters())


def test_skipped_steps_write_nothing(tmp_path: Path) -> None:
    with Streamed(instep.Adam, tmp_path, parameters(), skip_nonfinite=True) as streamed:
        before = streamed.state_dict()
        grads = gradients(0, 0)
        grads["first"][0][3, 3] = np.nan
        streamed.step(grads)
        assert (streamed.iterations, streamed.skipped_steps) == (0, 1)
        assert_same(streamed.state_dict()["arrays"], before["arrays"])
    with Streamed(instep.Adam, tmp_path, parameters(), skip_nonfinite=True) as streamed:
        assert streamed.skipped_steps == 1


def test_wrong_gradients_change_nothing(tmp_path: Path) -> None:
    with Streamed(instep.Adam, tmp_path, parameters()) as streamed:
        streamed.step(gradients(0, 0))
        before = streamed.state_dict()
        grads = gradients(1, 0)
        grads["first"][0] = grads["first"][0].T
        with pytest.raises(ValueError, match="gradient for params"):
            streamed.step(grads)
        assert_same(streamed.state_dict(), before)


def test_hyperparameters_go_on_and_what_takes_other_state_is_refused(tmp_path: Path) -> None:
    with Streamed(instep.Adam, tmp_path, parameters()) as streamed:
        streamed.learning_rate = 0.5
        with pytest.raises(ValueError, match="use_ema: expected no change"):
            streamed.use_ema = True
        streamed.step(gradients(0, 0))
        streamed.beta_1 = 0.5
        streamed.freeze("params['first'][0]")
    with Streamed(instep.Adam, tmp_path, parameters()) as streamed:
        assert (streamed.learning_rate, streamed.beta_1) == (0.5, 0.5)
        assert streamed.frozen == ["params['first'][0]"]


@pytest.mark.parametrize(
    "other",
    [
        lambda d: Streamed(instep.AdamW, d, parameters()),
        lambda d: Streamed(instep.Adam, d, parameters(), beta_1=0.5),
        lambda d: Streamed(instep.Adam, d, parameters(), convention="torch"),
        lambda d: Streamed(instep.Adam, d, parameters()["first"]),
        lambda d: Streamed(instep.Adam, d, parameters("float64")),
    ],
)
def test_a_directory_of_another_optimizer_is_refused(other: Any, tmp_path: Path) -> None:
    Streamed(instep.Adam, tmp_path, parameters()).close()
    with pytest.raises(ValueError, match="expected"):
        other(tmp_path)
    Streamed(instep.Adam, tmp_path, parameters()).close()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    with (
        Streamed(instep.Adam, tmp_path, parameters()),
        pytest.raises(OSError, match="in use by another optimizer"),
    ):
        Streamed(instep.Adam, tmp_path, parameters())
    Streamed(instep.Adam, tmp_path, parameters()).close()


@pytest.mark.parametrize("damage", ["cut", "foreign", "manifest", "missing"])
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    Streamed(instep.Adam, tmp_path, parameters()).close()
    data = tmp_path / _store.DATA[1]
    if damage == "cut":
        os.truncate(data, data.stat().st_size - 5)
    elif damage == "foreign":
        data.write_bytes(bytes(data.stat().st_size))
    elif damage == "missing":
        data.unlink()
    else:
        manifest = tmp_path / _store.MANIFEST
        content = bytearray(manifest.read_bytes())
        content[len(content) // 2] ^= 1
        manifest.write_bytes(content)
    with pytest.raises((ValueError, OSError)):
        Streamed(instep.Adam, tmp_path, parameters())


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="expected room for two files of"):
        Streamed(instep.Adam, tmp_path, parameters())


@pytest.mark.parametrize("fails", ["read_fully", "write_fully"])
@pytest.mark.parametrize("after", [0, 3, 9])
@pytest.mark.parametrize("rule", ["Adam", "Lamb"])
@pytest.mark.parametrize("state_only", [False, True])
def test_a_disk_that_fails_leaves_the_last_whole_step(
    fails: str,
    after: int,
    rule: str,
    state_only: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works, left = getattr(_pipeline, fails), [10**9]

    def sometimes(*given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            left[0] = 10**9  # once, as parameters that stay in memory are read back
            raise OSError(5, "Input/output error")
        works(*given)

    monkeypatch.setattr(_pipeline, fails, sometimes)
    with Streamed(
        getattr(instep, rule), tmp_path, parameters(), state_only=state_only, learning_rate=0.1
    ) as streamed:
        streamed.step(gradients(0, 0))
        before, params = streamed.state_dict(), copy.deepcopy(streamed.params)
        left[0] = after
        with pytest.raises(OSError, match="Input/output error"):
            streamed.step(gradients(1, 0))
        left[0] = 10**9
        assert_same(streamed.params, params)
        assert_same(streamed.state_dict(), before)
        for step in (1, 2):
            streamed.step(gradients(step, 0))
        grads = [gradients(step, 0) for step in range(STEPS)]
        params, _ = alone(lambda p: getattr(instep, rule)(p, learning_rate=0.1), grads)
        assert_same(streamed.params, params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_files_go_to_memory_and_back(dtype: str, tmp_path: Path) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    grads = [gradients(step, 0, dtype) for step in range(STEPS)]
    params, plain = alone(instep.Adam, grads[:2], dtype)
    plain.save(tmp_path / "plain.npz", extra={"epoch": 2})
    with Streamed(instep.Adam, tmp_path / "files", parameters(dtype)) as streamed:
        assert streamed.load(tmp_path / "plain.npz") == {"epoch": 2}
        assert_same(streamed.params, params)
        streamed.step(grads[2])
        streamed.save(tmp_path / "streamed.npz", extra={"epoch": 3})
        expected = streamed.state_dict()
        with pytest.raises(ValueError, match="rule"):
            streamed.load_state_dict(instep.AdamW(parameters(dtype)).state_dict())
        assert_same(streamed.state_dict(), expected)
    given = parameters(dtype)
    other = instep.Adam(given)
    assert other.load(tmp_path / "streamed.npz") == {"epoch": 3}
    plain.step(grads[2])
    assert_same(given, params)
    assert_same(other.state_dict(), plain.state_dict())


def test_params_are_read_only_maps(tmp_path: Path) -> None:
    given = parameters()
    with Streamed(instep.SGD, tmp_path, given, learning_rate=1.0) as streamed:
        first = streamed.params
        streamed.step(gradients(0, 0))
        assert_same(first["first"][0], given["first"][0])
        for leaf in (streamed.params["first"][0], streamed.params["others"]["a"]):
            with pytest.raises(ValueError, match="read-only"):
                leaf[...] = 0
        assert_same(given, parameters())
    with pytest.raises(RuntimeError, match="closed"):
        streamed.step(gradients(1, 0))


KILLED = """
import sys
from sharded_steps import gradients, parameters
import instep
from instep.offload import Streamed, _optimizer
_optimizer._PIECE = 16384
keep = {"state_only": sys.argv[2] == "True", "learning_rate": 0.1}
with Streamed(instep.Lamb, sys.argv[1], parameters(), **keep) as streamed:
    print("open", flush=True)
    for step in range(streamed.iterations, 40):
        streamed.step(gradients(step % 3, 0))
"""


@pytest.mark.parametrize("state_only", [False, True])
def test_kill_at_any_moment_goes_on_with_the_same_bits(state_only: bool, tmp_path: Path) -> None:
    chance = random.Random(7)
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *sys.path])}
    for kill in (True, True, True, False):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(state_only)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert process.stdout
        with process.stdout as output:
            assert output.readline() == b"open\n"
            if kill:
                time.sleep(chance.uniform(0.01, 0.3))
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=300)
    params, plain = alone(
        lambda p: instep.Lamb(p, learning_rate=0.1), [gradients(step % 3, 0) for step in range(40)]
    )
    with Streamed(instep.Lamb, tmp_path, parameters(), learning_rate=0.1) as streamed:
        assert streamed.iterations == 40
        assert_same(streamed.params, params)
        assert_same(streamed.state_dict(), plain.state_dict())


def test_maps_that_keep_changes_to_themselves_are_refused(tmp_path: Path) -> None:
    np.zeros(5).tofile(tmp_path / "array")
    kept = np.memmap(tmp_path / "array", np.float64, "c")
    with pytest.raises(ValueError, match="mode 'c', whose changes reach no file"):
        instep.Adam([kept])
    written = np.memmap(tmp_path / "array", np.float64, "r+")
    optimizer = instep.SGD([written], learning_rate=1.0)
    optimizer.step([np.ones(5)])
    with pytest.raises(ValueError, match="mode 'c'"):
        optimizer.build([kept])
    written.flush()
    assert_same(np.fromfile(tmp_path / "array"), -np.ones(5))


def test_the_pages_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = repository.file("docs/ranks.md").read_text("utf-8")
    example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1]
    names: dict[str, Any] = {"np": np, "instep": instep}
    exec(example, names)
    assert names["opt"].iterations == 3


@pytest.mark.parametrize("clipping", ["clipnorm", "global_clipnorm"])
def test_a_window_that_is_flushed_is_clipped(clipping: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 3, clipping: 0.5}
    params = parameters()
    plain = instep.Adam(params, **options)
    with Streamed(instep.Adam, tmp_path, parameters(), **options) as streamed:
        for optimizer in (plain, streamed):
            optimizer.step(gradients(0, 0))
            assert optimizer.flush()
        assert_same(streamed.params, params)
        assert streamed.grad_norm == plain.grad_norm


def test_rows_are_refused(tmp_path: Path) -> None:
    with (
        Streamed(instep.Adam, tmp_path, np.ones((300, 100), np.float32)) as streamed,
        pytest.raises(ValueError, match="expected an array, as not all"),
    ):
        streamed.step(instep.Rows([1, 3], np.ones((2, 100), np.float32)))


def changed(state: dict[str, Any], *place: str, to: Any) -> dict[str, Any]:
    """Return a state with something else in one place."""
    first, *rest = place
    return {**state, first: changed(state[first], *rest, to=to) if rest else to}


@pytest.mark.parametrize(
    ("place", "to"),
    [
        (("format",), 99),
        (("iterations",), -1),
        (("iterations",), "a"),
        (("window",), 5),
        (("hyperparameters",), {}),
        (("hyperparameters", "beta_1"), 2.0),
        (("hyperparameters", "amsgrad"), True),
        (("hyperparameters", "use_ema"), True),
        (("hyperparameters", "learning_rate"), "schedule"),
        (("arrays", "params['others']['a']", "m"), np.zeros(3, np.float32)),
        (("arrays", "params['others']['a']", "step"), None),
        (("arrays", "params['first'][0]", "m"), np.zeros(3, np.float32)),
        (("arrays", "params['first'][0]"), 3),
    ],
    ids=str,
)
def test_a_state_that_is_refused_changes_nothing(place: Any, to: Any, tmp_path: Path) -> None:
    streamed = Streamed(instep.Adam, tmp_path, parameters())
    streamed.step(gradients(0, 0))
    before = streamed.state_dict()
    manifest = (tmp_path / _store.MANIFEST).read_bytes()
    with pytest.raises((TypeError, ValueError)):
        streamed.load_state_dict(changed(before, *place, to=to))
    assert (tmp_path / _store.MANIFEST).read_bytes() == manifest
    assert_same(streamed.state_dict(), before)
    streamed.step(gradients(1, 0))
    streamed.close()


def test_a_schedule_in_the_place_of_a_number_and_back(tmp_path: Path) -> None:
    schedule = instep.schedules.CosineDecay(0.1, 10)
    with Streamed(instep.SGD, tmp_path, parameters(), learning_rate=schedule) as streamed:
        streamed.learning_rate = 0.03
    with Streamed(instep.SGD, tmp_path, parameters(), learning_rate=0.03) as streamed:
        streamed.learning_rate = schedule
    with Streamed(instep.SGD, tmp_path, parameters(), learning_rate=schedule) as streamed:
        streamed.step(gradients(0, 0))


def test_what_was_assigned_stays_where_a_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Streamed(instep.Adam, tmp_path, parameters()) as streamed:
        streamed.learning_rate = 0.5
        streamed.freeze("params['others']")
        streamed.unfreeze("params['others']['a']")
        frozen = streamed.frozen
        with monkeypatch.context() as broken:
            broken.setattr(_pipeline, "read_fully", fail)
            with pytest.raises(OSError, match="Input/output"):
                streamed.step(gradients(0, 0))
        assert (streamed.learning_rate, streamed.frozen, streamed.iterations) == (0.5, frozen, 0)
        streamed.step(gradients(0, 0))


def fail(*given: Any) -> None:
    raise OSError(5, "Input/output error")


def test_children_leave_files_alone(tmp_path: Path) -> None:
    streamed = Streamed(instep.Adam, tmp_path, parameters())
    streamed.step(gradients(0, 0))
    ends, begins = os.pipe()
    child = os.fork()
    if child == 0:
        refused = 1
        try:
            streamed.step(gradients(1, 0))
        except RuntimeError as error:
            refused = 0 if "one that it forked" in str(error) else 2
        os.close(begins)
        os.read(ends, 1)  # lives on until the parent is done
        os._exit(refused)
    streamed.close()
    with Streamed(instep.Adam, tmp_path, parameters()) as other:
        assert other.iterations == 1
    os.close(begins)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_that_is_forgotten_gives_its_directory_back(tmp_path: Path) -> None:
    streamed = Streamed(instep.Adam, tmp_path, parameters())
    streamed.step(gradients(0, 0))
    del streamed
    gc.collect()
    with Streamed(instep.Adam, tmp_path, parameters()) as other:
        assert other.iterations == 1


def test_a_directory_that_is_gone_leaves_the_last_whole_step(tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "a", tmp_path / "b"
    with Streamed(instep.Adam, place, parameters()) as streamed:
        streamed.step(gradients(0, 0))
        before = streamed.state_dict()
        place.rename(elsewhere)
        with pytest.raises(OSError, match="No such file"):
            streamed.step(gradients(1, 0))
        elsewhere.rename(place)
        assert_same(streamed.state_dict(), before)


def test_threads_take_turns(tmp_path: Path) -> None:
    grads = gradients(0, 0)
    params, _ = alone(lambda p: instep.SGD(p, learning_rate=0.25), [grads] * 12)
    with Streamed(instep.SGD, tmp_path / "files", parameters(), learning_rate=0.25) as streamed:
        saved = []

        def step(thread: int) -> None:
            for k in range(3):
                streamed.step(grads)
                saved.append(tmp_path / f"{thread}-{k}.npz")
                streamed.save(saved[-1])

        threads = [threading.Thread(target=step, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert streamed.iterations == 12
        assert_same(streamed.params, params)
    for path in saved:
        given = parameters()
        other = instep.SGD(given, learning_rate=0.25)
        other.load(path)
        expected, _ = alone(lambda p: instep.SGD(p, learning_rate=0.25), [grads] * other.iterations)
        assert_same(given, expected)


def test_the_directory_stays_the_same_when_the_program_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Streamed(instep.Adam, "files", parameters()) as streamed:
        streamed.step(gradients(0, 0))
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        streamed.step(gradients(1, 0))
    assert not (tmp_path / "other" / "files").exists()
    with Streamed(instep.Adam, tmp_path / "files", parameters()) as streamed:
        assert streamed.iterations == 2


def test_a_number_after_a_schedule_is_a_number_again(tmp_path: Path) -> None:
    with Streamed(instep.Adam, tmp_path, parameters(), learning_rate=0.1) as streamed:
        streamed.learning_rate = instep.schedules.CosineDecay(0.1, 10)
        streamed.step(gradients(0, 0))
        streamed.learning_rate = 0.05
        streamed.step(gradients(1, 0))
        streamed.learning_rate = 1e-4
    with Streamed(instep.Adam, tmp_path, parameters(), learning_rate=0.1) as streamed:
        assert streamed.learning_rate == 1e-4
    with pytest.raises(ValueError, match=r"got 0\.1; construct it as the first one in"):
        Streamed(instep.Adam, tmp_path, parameters(), learning_rate=1e-4)


def test_what_killed_writers_have_left_is_removed(tmp_path: Path) -> None:
    Streamed(instep.Adam, tmp_path, parameters()).close()
    (tmp_path / ".instep-0123456789abcdef").write_bytes(b"half")
    Streamed(instep.Adam, tmp_path, parameters()).close()
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [*_store.DATA, _store.MANIFEST, "lock"]
    )


def test_data_without_its_manifest_is_not_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_store.Store, "mark", stop)  # before anything counts
        with pytest.raises(KeyboardInterrupt):
            Streamed(instep.Adam, tmp_path, parameters())
    Streamed(instep.Adam, tmp_path, parameters()).close()
    manifest = tmp_path / _store.MANIFEST
    content = manifest.read_bytes()
    manifest.unlink()
    with pytest.raises(ValueError, match=r"expected manifest\.npz beside it"):
        Streamed(instep.Adam, tmp_path, parameters())
    manifest.write_bytes(content)
    Streamed(instep.Adam, tmp_path, parameters()).close()


def test_copies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="copies: expected none"):
        Streamed(instep.Adam, tmp_path, parameters(), copies="bfloat16")
