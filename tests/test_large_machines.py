"""What holds on machines with many cores: more threads than here, processors, where pages lie.

The memory that a step needs for so many threads is counted with every array once, in bytes.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import repository
from processes import Array, apart

import instep
from instep import _core

BYTES = 768 * 1024
"""What each thread has of a step at least."""
FLOAT = np.dtype(np.float32).itemsize

needs_linux = unittest.skipUnless(sys.platform == "linux", "needs Linux's processors and /proc")


def tasks() -> set[int]:
    return {int(task) for task in os.listdir("/proc/self/task")}


def started(before: set[int], count: int) -> set[int]:
    """Wait until a step has started so many threads, for whose start it does not wait."""
    end = time.monotonic() + 30
    while len(new := tasks() - before) != count and time.monotonic() < end:
        time.sleep(0.001)
    return new


def resident() -> int:
    """Return how many bytes this process has in memory, counted page by page."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Rss:"))


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Call a function where no step has been, so that the next one starts all of its threads."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


# --- many threads -------------------------------------------------------------------------------


def pieces_of(elements: int) -> list[int]:
    """Return sizes of arrays that have so many elements: a large one, and many others."""
    few = [1, 2, 1023, 1025, 16_383, 16_385, 131_071, 100_003, *range(1, 40)]
    return [elements - sum(few), *few]


def check_every_element_once(threads: int) -> None:
    elements = threads * BYTES // (2 * FLOAT)  # a parameter and its gradient
    sizes = pieces_of(max(elements, 1 << 20) + 1237)

    def numbers(size: int) -> Array:
        return (np.arange(size) % 1000).astype(np.float32)

    params = [numbers(size) for size in sizes]
    grads = [np.full(size, 0.5, np.float32) for size in sizes]
    instep.set_num_threads(threads)
    opt = instep.SGD(params, learning_rate=1.0)

    def step() -> None:
        before = tasks()
        opt.step(grads)
        assert len(started(before, threads - 1)) == threads - 1

    in_a_thread(step)
    for param in params:
        np.testing.assert_array_equal(param, numbers(param.size) - np.float32(0.5))


@needs_linux
@apart(2, 63, 64, 128)
def test_every_element_is_in_one_piece(threads: int) -> None:
    """One that two threads took would move twice, one that nobody took not at all."""
    check_every_element_once(threads)


@needs_linux
@apart(64, 128, OMP_PROC_BIND="true")
def test_every_element_is_in_one_piece_in_a_region(threads: int) -> None:
    check_every_element_once(threads)


def check_bits() -> None:
    shapes = [(1777, 2003), (5,), (300, 70), (16_385,)]  # Adam's worth more than 64 threads
    rng = np.random.default_rng(0)
    starts = [rng.standard_normal(shape, np.float32) for shape in shapes]
    grads = [rng.standard_normal(shape, np.float32) for shape in shapes]
    assert sum(each.size for each in starts) * 4 * FLOAT > 64 * BYTES

    def make_all() -> list[Any]:
        def params() -> list[Array]:
            return [start.copy() for start in starts]

        return [
            instep.Adam(params(), global_clipnorm=1.0, state_dtype="bfloat16"),
            instep.Lamb(params(), weight_decay=0.1),
            instep.Prodigy(params()),
            instep.Adafactor(params()),
        ]

    def bits(threads: int) -> list[bytes]:
        instep.set_num_threads(threads)
        found = []
        for opt in make_all():
            opt.watch = ("grad_norm",)
            for _ in range(2):
                in_a_thread(functools.partial(opt.step, grads))
            found += [param.tobytes() for param in opt.params]
            found.append(repr(opt.watched).encode())
        return found

    one = bits(1)
    for threads in (2, 17, 33, 64):
        assert bits(threads) == one, threads


@apart()
def test_the_bits_of_64_threads() -> None:
    check_bits()


@apart(OMP_PROC_BIND="true")
def test_the_bits_of_64_threads_in_a_region() -> None:
    check_bits()


# --- processors ---------------------------------------------------------------------------------


@needs_linux
@apart(INSTEP_NUM_THREADS="", OMP_NUM_THREADS="")
def test_a_thread_on_one_processor_steps_alone() -> None:
    """Others have all of theirs; a number that was set holds everywhere."""
    everywhere = instep.get_num_threads()
    processors = os.sched_getaffinity(0)
    params, grads = np.ones(1 << 20, np.float32), np.ones(1 << 20, np.float32)
    other = ThreadPoolExecutor(1)
    other.submit(os.getpid).result()  # started before anything is pinned

    def elsewhere() -> int:
        return other.submit(instep.get_num_threads).result()

    def pinned() -> None:
        os.sched_setaffinity(0, {min(processors)})
        assert instep.get_num_threads() == 1
        before = tasks()
        instep.Adam(params).step(grads)
        assert tasks() == before
        assert elsewhere() == everywhere
        instep.set_num_threads(2)
        assert elsewhere() == 2
        instep.Adam(params).step(grads)
        (helper,) = started(before, 1)
        assert os.sched_getaffinity(helper) == {min(processors)}  # as who has started it

    in_a_thread(pinned)
    assert os.sched_getaffinity(0) == processors


@needs_linux
def test_a_thread_leaves_a_processor_for_another_that_it_may_run_on() -> None:
    """As one does that is woken where the caller is at work; from then on all are its again."""
    processors = os.sched_getaffinity(0)
    before, after = _core.leave_this_processor()
    assert {before, after} <= processors
    assert before != after or len(processors) == 1
    assert os.sched_getaffinity(0) == processors

    def pinned() -> tuple[int, int]:
        os.sched_setaffinity(0, {max(processors)})
        return _core.leave_this_processor()

    assert in_a_thread(pinned) == (max(processors), max(processors))


@needs_linux
@apart(OMP_PROC_BIND="true", OMP_PLACES="threads", INSTEP_NUM_THREADS="2")
def test_openmp_binds_each_thread_to_a_place_of_its_own() -> None:
    before = tasks()
    instep.Adam(np.ones(1 << 20, np.float32)).step(np.ones(1 << 20, np.float32))
    (helper,) = tasks() - before
    mine, its = os.sched_getaffinity(0), os.sched_getaffinity(helper)
    assert len(mine) == len(its) == 1
    if (os.cpu_count() or 1) > 1 and len(os.sched_getaffinity(os.getppid())) > 1:
        assert mine != its


@needs_linux
@apart("OMP_PROC_BIND", "OMP_PLACES", INSTEP_NUM_THREADS="", OMP_NUM_THREADS="")
def test_threads_in_places_are_as_many_as_there_are_processors(name: str) -> None:
    code = "import instep; print(instep.get_num_threads())"
    told = {**os.environ, name: "cores" if name == "OMP_PLACES" else "true"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == instep.get_num_threads()


# --- pages --------------------------------------------------------------------------------------


@needs_linux
@apart()
def test_who_touches_pages_first() -> None:
    """State: who binds. Parameters that nobody has written yet: the threads of the first step."""
    size, room = 1 << 24, 1 << 22
    instep.set_num_threads(2)
    grads = np.ones(size, np.float32)
    before, threads = resident(), tasks()
    params = np.zeros(size, np.float32)
    assert resident() - before < room
    opt = instep.Adam(params)
    assert tasks() == threads
    of_state = resident() - before
    assert abs(of_state - 2 * params.nbytes) < room
    opt.step(grads)
    of_all = resident() - before
    assert abs(of_all - 3 * params.nbytes) < 2 * room
    opt.step(grads)
    assert resident() - before - of_all < room


@needs_linux
@apart()
def test_each_thread_touches_the_state_that_it_binds() -> None:
    import resource

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt

    def bind() -> int:
        before = faults()
        instep.Adam(np.ones(1 << 24, np.float32))
        return faults() - before

    before = faults()
    assert in_a_thread(bind) >= 3 * (1 << 24) * FLOAT // (2 << 20)  # of two megabytes at most
    assert faults() - before < 64


def test_an_optimizer_for_each_socket() -> None:
    """The page's example has the bits of one optimizer, and each thread its own processors."""
    if sys.platform != "linux":
        raise unittest.SkipTest("needs Linux's affinity")
    page = repository.file("docs/large_machines.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    processors = os.sched_getaffinity(0)
    names: dict[str, Any] = {}
    exec(block, names)
    assert os.sched_getaffinity(0) == processors
    alone = np.ones_like(names["params"])
    opt = instep.Adam(alone)
    for _ in range(10):
        opt.step(names["grads"])
    assert names["params"].tobytes() == alone.tobytes()
    for pool, mine in zip(names["pools"], names["sockets"], strict=True):
        assert pool.submit(os.sched_getaffinity, 0).result() == {*mine}
        pool.shutdown()


# --- the table ----------------------------------------------------------------------------------


def test_the_table_on_paper() -> None:
    """Its times are what the page's formula gives."""
    page = repository.file("docs/large_machines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]{9,}) \|(.*) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for elements, cells in rows:
        bytes_ = 28 * int(elements.replace(",", ""))
        times = [float(cell.replace(",", "")) for cell in cells.split("|")]
        speeds = [15, 120, 150, 150, 240, 300]
        expected = [bytes_ / speed / 1e6 for speed in speeds]
        np.testing.assert_allclose(times, expected, rtol=0.03)
        assert all(a >= b for a, b in pairwise(times))
