"""`instep.sharded` on MPI: real processes, some of which are killed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import repository
from ranks import ThreadRanks, on_ranks
from sharded_steps import alone, assert_same, gradients, parameters, summed

import instep
from instep.sharded import Sharded, _mpi

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec") or str(Path(sys.executable).with_name("mpiexec"))
pytestmark = pytest.mark.skipif(not os.path.exists(MPIEXEC), reason="there is no mpiexec")
TESTS = Path(__file__).parent


def start(size: int, *command: str) -> subprocess.Popen[str]:
    """Start ranks that run a script or a program, in a session of their own."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    options = os.environ.get("INSTEP_MPIEXEC_OPTIONS", "").split()
    return subprocess.Popen(
        [MPIEXEC, "-n", str(size), *options, sys.executable, "-m", "mpi4py", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def run(size: int, *command: str) -> tuple[int, str, str]:
    """Return how ranks end, and what they print."""
    process = start(size, *command)
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output, errors


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_bits_of_one_process(size: int) -> None:
    code, output, errors = run(size, str(TESTS / "sharded_steps.py"), "5")
    assert code == 0, errors
    assert f"{size} ranks" in output


@pytest.mark.parametrize("size", [2, 3])
def test_the_bits_of_one_process_by_messages(size: int) -> None:
    code, output, errors = run(size, str(TESTS / "sharded_steps.py"), "9", "messages")
    assert code == 0, errors
    assert f"{size} ranks" in output


@pytest.mark.parametrize("size", [2, 4])
def test_the_bits_of_one_process_in_memory_that_all_see(size: int) -> None:
    code, output, errors = run(size, str(TESTS / "sharded_steps.py"), "9", "shared")
    assert code == 0, errors
    assert f"{size} ranks" in output


@pytest.mark.parametrize(("size", "way"), [(2, "window"), (3, "messages"), (4, "shared")])
def test_rows_have_the_bits_of_one_process(size: int, way: str) -> None:
    code, output, errors = run(size, str(TESTS / "sharded_rows.py"), way)
    assert code == 0, errors
    assert f"{size} ranks" in output


def test_ranks_that_are_bound_to_a_core_of_many_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    with pytest.warns(UserWarning, match=r"one of 8 cores.*slot:PE=4 gives it 4"):
        _mpi._check_cores(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _mpi._check_cores(8)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 4})
        _mpi._check_cores(2)


FAILING = """
import os, signal, sys
import numpy as np
from mpi4py import MPI
import instep
from instep.sharded import Sharded
rank = MPI.COMM_WORLD.Get_rank()
params = np.ones(100_000)
optimizer = Sharded(instep.Adam, params)
optimizer.step(np.ones(100_000))
if rank == 1 and sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if rank == 1 and sys.argv[1] == "raise":
    raise ArithmeticError("in the user's own code")
if sys.argv[1] == "gradient":
    before = params.copy()
    try:
        optimizer.step(np.ones(100_000 + (rank == 1)))
    except (ValueError, RuntimeError) as error:
        assert np.array_equal(params, before)
        print(f"<rank {rank}: {type(error).__name__}: {error}>", flush=True)
optimizer.step(np.ones(100_000))
print(f"<rank {rank}: {optimizer.iterations}>", flush=True)
"""


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_a_rank_that_is_gone_ends_the_others(how: str) -> None:
    code, output, errors = run(3, "-c", FAILING, how)
    assert code != 0
    assert ": 2>" not in output
    if how == "raise":
        assert "in the user's own code" in errors + output


def test_a_wrong_gradient_on_one_rank_raises_on_all_and_they_go_on() -> None:
    code, output, errors = run(3, "-c", FAILING, "gradient")
    assert code == 0, errors
    assert "<rank 1: ValueError: gradient for params: expected" in output
    for rank in (0, 2):
        assert f"<rank {rank}: RuntimeError: rank 1 has raised ValueError" in output
        assert f"<rank {rank}: 2>" in output


SAVING = """
import sys
from sharded_steps import gradients, parameters
from mpi4py import MPI
import instep
from instep.sharded import Sharded
optimizer = Sharded(instep.Adam, parameters())
if optimizer.rank == 0:
    print("ready", flush=True)
for step in range(1000):
    optimizer.step(gradients(step % 3, optimizer.rank))
    optimizer.save(sys.argv[1], extra={"step": step})
"""


def test_ranks_that_are_killed_while_saving_leave_a_whole_saving(tmp_path: Path) -> None:
    chance, directory = random.Random(3), tmp_path / "shards"
    for _ in range(3):
        process = start(2, "-c", SAVING, str(directory))
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.1, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not (directory / "manifest.npz").exists():
            continue

        def load(ranks: ThreadRanks) -> None:
            given = parameters()
            optimizer = Sharded(instep.Adam, given, comm=ranks)
            last = optimizer.load(directory)["step"]
            assert optimizer.iterations == last + 1
            grads = [[gradients(step % 3, rank) for rank in range(2)] for step in range(last + 1)]
            params, plain = alone(instep.Adam, [summed(each, mean=True) for each in grads])
            assert_same(given, params)
            assert_same(optimizer.state_dict(), plain.state_dict())

        on_ranks(3, load)
    assert (directory / "manifest.npz").exists()


MANY = """
import numpy as np
import instep
from instep.sharded import Sharded
for _ in range(800):
    with Sharded(instep.SGD, [np.zeros(3)], learning_rate=0.1) as optimizer:
        optimizer.step([np.ones(3)])
print("done", flush=True)
"""


def test_communicators_are_given_back() -> None:
    code, output, errors = run(2, "-c", MANY)
    assert code == 0, errors
    assert "done" in output


def test_the_pages_examples(tmp_path: Path) -> None:
    page = repository.file("docs/ranks.md").read_text("utf-8")
    script = tmp_path / "train.py"
    examples = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2])
    script.write_text(examples.replace('"checkpoint"', repr(str(tmp_path / "checkpoint"))))
    code, _, errors = run(2, str(script))
    assert code == 0, errors
    assert (tmp_path / "checkpoint" / "manifest.npz").exists()
