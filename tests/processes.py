"""Tests in processes of their own, so that what hangs or crashes there fails here.

The modules that use this do without pytest where they can: each process imports them, and it would
take half of the time until a process is ready, and more when it forks.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import instep

Array = npt.NDArray[np.float32]
SECONDS = 300
SIZE = 1 << 19
"""Elements of float32 that are worth two threads, whatever the rule."""
TEST_SETTINGS = ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS")
"""Variables that `conftest.py` sets, and users do not."""

# What a process runs, by the name of the test.
BODIES: dict[str, Callable[[], None]] = {}


def apart(*cases: Any, **variables: str) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Run a test in a process of its own, with these environment variables.

    It is called with each of the cases, of which tuples are several arguments, or once if there
    are none.
    """

    def decorate(test: Callable[..., None]) -> Callable[[], None]:
        def body() -> None:
            for case in cases or [()]:
                arguments = case if isinstance(case, tuple) else (case,)
                print(*arguments, flush=True)
                test(*arguments)

        def run() -> None:
            run_alone(test, f"processes.BODIES[{name!r}]()", variables)

        name = run.__name__ = test.__name__
        run.__module__, run.__doc__ = test.__module__, test.__doc__
        BODIES[name] = body
        return run

    return decorate


def alone(function: Callable[..., object], *arguments: object) -> None:
    """Call a function of one of the modules here in a process of its own."""
    run_alone(function, f"{function.__module__}.{function.__name__}(*{arguments!r})", {})


def run_alone(function: Callable[..., object], call: str, variables: Mapping[str, str]) -> None:
    """Make a call in a process of its own, where the function's module has been imported.

    Where it hangs, it is ended with its children.
    """
    if not hasattr(os, "fork"):
        raise unittest.SkipTest("no fork")
    with tempfile.TemporaryFile("w+") as output:  # children that hang would hold a pipe open
        process = subprocess.Popen(
            [
                *(sys.executable, "-X", "faulthandler", "-c"),
                f"import processes, {function.__module__}; {call}",
            ],
            cwd=Path(__file__).parent,
            env={**environment(*TEST_SETTINGS), **variables},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGABRT)  # tells where it hangs
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        assert process.returncode == 0, f"exit status {process.returncode}\n{output.read()}"


@contextlib.contextmanager
def raises(*kinds: type[Exception], text: str = "") -> Iterator[None]:
    """Check that there is an exception of one of these kinds, with this text in its message."""
    try:
        yield
    except kinds as error:
        if text not in str(error):
            raise
    else:
        raise AssertionError(f"expected one of {kinds}")


def fork(function: Callable[[], object]) -> int:
    """Call a function in a child; return the child's process id."""
    child = os.fork()
    if child:
        return child
    end_where_it_hangs()
    try:
        function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def end_where_it_hangs() -> None:
    """End this process in a while, with a traceback."""
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(SECONDS // 2)


def join(children: Sequence[int]) -> None:
    """Wait for children, all of which must have succeeded."""
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise AssertionError(f"exit codes of children: {codes}")


@contextlib.contextmanager
def stepping(step: Callable[[], object]) -> Iterator[None]:
    """Let another thread step all the while."""
    begun, stop = threading.Event(), threading.Event()

    def loop() -> None:
        while not stop.is_set():
            step()
            begun.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(loop)
        done.add_done_callback(lambda _: begun.set())
        begun.wait()
        try:
            yield
        finally:
            stop.set()
            done.result()


def together(
    *jobs: Callable[[], object],
    rounds: int = 100,
    answers: tuple[type[Exception], ...] = (RuntimeError,),
) -> None:
    """Run jobs again and again, each in a thread of its own, which may answer with errors."""
    start = threading.Barrier(len(jobs))

    def repeat(job: Callable[[], object]) -> None:
        start.wait()
        for _ in range(rounds):
            with contextlib.suppress(*answers):
                job()

    sys.setswitchinterval(1e-5)
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(repeat, job) for job in jobs]:
            done.result()


# --- whole steps --------------------------------------------------------------------------------

Make = Callable[[Any], Any]
# Rules and options that treat each element by itself, so that an optimizer of one element tells
# what all elements of a large one must be after as many steps, bit for bit.
CONFIGURATIONS: dict[str, Make] = {
    "Adam": lambda p: instep.Adam(p, use_ema=True, ema_momentum=0.5),
    "schedule": lambda p: instep.SGD(p, learning_rate=lambda t: 1 / (1 + t), momentum=0.9),
    "window": lambda p: instep.AdamW(p, gradient_accumulation_steps=3, skip_nonfinite=True),
    "schedule-free": lambda p: instep.ScheduleFreeAdamW(p),
    "Adafactor": lambda p: instep.Adafactor(
        p, multiply_by_parameter_scale=False, clip_threshold=1e9
    ),
    "Muon": lambda p: instep.Muon(p, use_ema=True),
    "SM3": lambda p: instep.SM3(p),
}


def filled(value: float, size: int = SIZE) -> Array:
    return np.full(size, value, np.float32)


def check_alike(many: Any, one: Any, path: str = "state") -> None:
    """Check that nested dicts are equal, all elements of arrays that of the second one."""
    if isinstance(one, dict):
        assert many.keys() == one.keys()
        for key, value in one.items():
            check_alike(many[key], value, f"{path}[{key!r}]")
    elif np.any(many != one):
        raise AssertionError(f"{path}: expected {one}, got {many}")


def check_state(state: dict[str, Any], make: Make) -> Array:
    """Check that a saved state is one between two steps; return the parameter that belongs to it.

    The parameter was 1, all gradients were 0.25.
    """
    param = filled(1, 1)
    twin = make(param)
    window = state["hyperparameters"]["gradient_accumulation_steps"]
    for _ in range(state["iterations"] * window + state["window"]):
        twin.step(filled(0.25, 1))
    check_alike(state, twin.state_dict())
    return param


def check(opt: Any, make: Make) -> None:
    """Check that an optimizer of one array stands between two steps."""
    np.testing.assert_array_equal(opt.params, check_state(opt.state_dict(), make)[0])


def check_and_step(opt: Any, make: Make) -> None:
    """Check an optimizer before and after a step."""
    before = opt.state_dict()
    check(opt, make)
    opt.step(filled(0.25))
    after = opt.state_dict()
    assert (after["iterations"], after["window"]) != (before["iterations"], before["window"])
    check(opt, make)


def config() -> str:
    """Return what `instep.show_config` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        instep.show_config()
    return printed.getvalue()


def environment(*without: str) -> dict[str, str]:
    """Return the variables of this process but for some."""
    return {name: value for name, value in os.environ.items() if name not in without}


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program, without what this process was told of threads and instruction sets."""
    kept = environment(*TEST_SETTINGS, "INSTEP_NUM_THREADS", "OMP_NUM_THREADS", "INSTEP_ISA")
    return subprocess.run(
        [sys.executable, "-c", code],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
