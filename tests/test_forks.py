"""Forks and pools of processes: nothing hangs, and no step is seen half-made."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
from processes import (
    CONFIGURATIONS,
    SIZE,
    Array,
    alone,
    apart,
    check,
    check_and_step,
    end_where_it_hangs,
    filled,
    fork,
    join,
    python,
    raises,
    stepping,
)

import instep


def use(runtime: str) -> None:
    """Let somebody else use OpenMP."""
    if runtime == "torch":
        import torch

        torch.set_num_threads(2)
        torch.ones(1 << 20).exp()
    elif runtime == "sklearn":
        from sklearn.cluster import KMeans

        points = np.random.default_rng(0).normal(size=(2000, 4))
        KMeans(3, n_init=1, algorithm="lloyd").fit(points)


def three_generations(runtime: str) -> None:
    instep.set_num_threads(2)
    use(runtime)
    made = [(make(filled(1)), make) for make in map(CONFIGURATIONS.get, ("Adam", "Muon")) if make]

    def work() -> None:
        for opt, make in made:
            check_and_step(opt, make)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: check_and_step(*each), made))

    def grow(generations: int) -> None:
        work()
        if generations:
            join([fork(lambda: grow(generations - 1))])
        work()

    work()
    join([fork(lambda: grow(1))])
    use(runtime)
    work()
    join([fork(lambda: grow(0))])


def test_parent_child_and_grandchild_step() -> None:
    """Whoever else has used OpenMP before."""
    for runtime in ("nothing", "torch", "sklearn"):
        if runtime == "nothing" or find_spec(runtime):
            alone(three_generations, runtime)


@unittest.skipUnless(hasattr(os, "fork"), "no fork")
def test_a_child_can_step_after_its_parent_did() -> None:
    # The alarm ends a child that hangs, so that it does not outlive the test.
    code = (
        "import os, signal, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import numpy as np, instep\n"
        "instep.set_num_threads(2)\n"
        "p, g = np.zeros(1 << 20), np.ones(1 << 20)\n"
        "opt = instep.SGD(p, learning_rate=1.0)\n"
        "opt.step(g)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(30)\n"
        "    opt.step(g)\n"
        "    other = np.zeros(1 << 20)\n"
        "    instep.Adam(other, learning_rate=1.0).step(g)\n"
        "    os._exit(0 if np.all(p == -2.0) and np.all(other < 0.0) else 1)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "opt.step(g)\n"
        "print(status, np.all(p == -2.0))\n"
    )
    done = python(code)
    assert done.stdout.split() == ["0", "True"], done.stderr


@apart(*CONFIGURATIONS)
def test_a_fork_waits_for_the_step_in_flight(name: str) -> None:
    instep.set_num_threads(2)
    make, g = CONFIGURATIONS[name], filled(0.25)
    opt = make(filled(1))
    with stepping(lambda: opt.step(g)):
        children = [fork(lambda: check_and_step(opt, make)) for _ in range(5)]
    join(children)
    check_and_step(opt, make)


@apart()
def test_a_fork_waits_for_a_kernel_in_flight() -> None:
    instep.set_num_threads(2)
    param, m, v, g = filled(0), filled(0), filled(0), filled(1)

    def step() -> None:
        instep.kernels.adam(param, g, m, v, step=1)

    def check_and_update() -> None:
        for array in (param, m, v):
            np.testing.assert_array_equal(array, array[0])
        step()

    with stepping(step):
        children = [fork(check_and_update) for _ in range(5)]
    join(children)


@apart()
def test_a_child_steps_while_its_own_thread_does() -> None:
    """Forks within forks, each in the middle of steps."""
    instep.set_num_threads(2)
    make, g = CONFIGURATIONS["Adam"], filled(0.25)
    opt = make(filled(1))

    def grow(generations: int) -> None:
        check_and_step(opt, make)
        if not generations:
            return
        with stepping(lambda: opt.step(g)):
            children = [fork(lambda: grow(generations - 1)) for _ in range(3)]
        join(children)
        check_and_step(opt, make)

    grow(3)


@apart()
def test_forks_from_a_pool_of_threads_that_step() -> None:
    instep.set_num_threads(2)
    make, g = CONFIGURATIONS["Adam"], filled(0.25)
    optimizers = [make(filled(1)) for _ in range(4)]

    def work_on() -> None:
        for each in optimizers:
            check_and_step(each, make)

    def work(opt: Any) -> list[int]:
        children = []
        for _ in range(3):
            opt.step(g)
            children.append(fork(work_on))
        return children

    with ThreadPoolExecutor(4) as pool:
        for children in pool.map(work, optimizers):
            join(children)
    for opt in optimizers:
        assert opt.iterations == 3
        check_and_step(opt, make)


@apart("SGD", "Muon")
def test_a_fork_while_another_thread_asks_a_schedule(rule: str) -> None:
    """In the child nobody goes on with that step: it has not begun."""
    asked, answer = threading.Event(), threading.Event()
    main = threading.main_thread()

    def schedule(t: int) -> float:
        if threading.current_thread() is not main:
            asked.set()
            answer.wait()
        return 0.5

    def make(p: Array) -> Any:
        return getattr(instep, rule)(p, learning_rate=schedule)

    def work_on() -> None:
        check(opt, make)
        opt.momentum = opt.momentum
        opt.build(opt.params)
        check_and_step(copy.deepcopy(opt), make)
        check_and_step(opt, make)

    opt = make(filled(1))
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(opt.step, filled(0.25))
        asked.wait()
        try:
            with raises(RuntimeError, text="in the middle of a step"):
                opt.state_dict()
            join([fork(work_on), fork(lambda: join([fork(work_on)]))])
        finally:
            answer.set()
        step.result()
    assert opt.iterations == 1
    check(opt, make)


@apart("SGD", "Muon")
def test_a_fork_in_a_schedule(rule: str) -> None:
    """Parent and child both go on with the step that asks."""
    children: list[int] = []
    forks = False

    def schedule(t: int) -> float:
        if forks and not children:
            children.append(os.fork())
            if not children[0]:
                end_where_it_hangs()
            for refused in (lambda: opt.step(filled(0.25)), opt.state_dict):
                with raises(RuntimeError, text="in the middle of a step"):
                    refused()
        return 0.5

    def make(p: Array) -> Any:
        return getattr(instep, rule)(p, learning_rate=schedule)

    instep.set_num_threads(2)
    opt = make(filled(1))
    check_and_step(opt, make)
    forks = True
    opt.step(filled(0.25))
    assert opt.iterations == 2
    check_and_step(opt, make)
    if not children[0]:
        sys.exit()
    join(children)


@apart()
def test_steps_before_and_after_a_fork_by_its_handlers() -> None:
    instep.set_num_threads(2)
    make, g = CONFIGURATIONS["Adam"], filled(0.25)
    opt, other = make(filled(1)), make(filled(1))
    done: list[str] = []

    def step(when: str) -> None:
        opt.step(g)
        done.append(when)

    os.register_at_fork(
        before=lambda: step("before"),
        after_in_parent=lambda: step("parent"),
        after_in_child=lambda: step("child"),
    )

    def work_on() -> None:
        assert done == ["before", "child"]
        check_and_step(opt, make)
        check_and_step(other, make)

    with stepping(lambda: other.step(g)):
        join([fork(work_on)])
    assert done == ["before", "parent"]
    check_and_step(opt, make)


@apart()
def test_other_programs_are_started_while_a_thread_steps() -> None:
    instep.set_num_threads(2)
    make, g = CONFIGURATIONS["Adam"], filled(0.25)
    opt = make(filled(1))
    with stepping(lambda: opt.step(g)):
        for _ in range(10):
            subprocess.run([sys.executable, "-c", ""], check=True)
            subprocess.run(["true"], check=True, preexec_fn=lambda: check(opt, make))
    check(opt, make)


def trained(seed: int) -> bytes:
    """Return a digest of what some steps on a random array lead to."""
    p = np.random.default_rng(seed).random(SIZE, np.float32)
    opt = instep.Adam(p, global_clipnorm=1.0)
    for _ in range(3):
        opt.step(p.copy())
    return stepped(opt)


def stepped(opt: Any) -> bytes:
    """Return a digest of an optimizer's array and state after one more step."""
    opt.step(np.linspace(-1, 1, SIZE, dtype=np.float32))
    return hashlib.sha256(opt.params.tobytes() + opt.state["v"].tobytes()).digest()


@apart(*multiprocessing.get_all_start_methods())
def test_pools_of_processes(method: str) -> None:
    """Their results have the bits of the parent's, which runs on more threads."""
    instep.set_num_threads(2)
    expected = [trained(seed) for seed in range(3)]
    opt, other, g = instep.Adam(filled(1)), instep.Adam(filled(1)), filled(0.25)
    with (
        stepping(lambda: other.step(g)),
        multiprocessing.get_context(method).Pool(2) as pool,
    ):
        assert pool.map(trained, range(3)) == expected
        assert pool.apply(stepped, (opt,)) == stepped(opt)


@apart("Adam", "schedule", "Muon")
def test_exit_while_a_daemon_thread_steps(name: str) -> None:
    instep.set_num_threads(2)
    opt, g, begun = CONFIGURATIONS[name](filled(1)), filled(0.25), threading.Event()

    def loop() -> None:
        while True:
            opt.step(g)
            begun.set()

    children: list[int] = []
    while len(children) < 10 and all(children):
        children.append(os.fork())
    threading.Thread(target=loop, daemon=True).start()
    begun.wait()
    if not all(children):
        end_where_it_hangs()
        sys.exit()
    join(children)


class Key(str):
    """A key whose comparison is Python code, in which an exit may find a thread."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)


def keyed(count: int) -> dict[str, Any]:
    return {Key(k): np.ones(10, np.float32) for k in range(count)}


def loop_in_kernels() -> None:
    p = np.ones(100, np.float32)
    for k in range(10**9):
        instep.kernels.adam(
            p, p.copy(), p.copy(), p.copy(), step=np.int64(k + 1), beta_1=1 / (k + 2)
        )


def loop_in_keys() -> None:
    opt = instep.SGD(keyed(5), learning_rate=0.1)
    while True:
        opt.step(keyed(5))


@apart(loop_in_kernels, loop_in_keys)
def test_exit_while_daemon_threads_run_python_code(loop: Callable[[], None]) -> None:
    children: list[int] = []
    while len(children) < 6 and all(children):
        children.append(os.fork())
    if all(children):
        join(children)
        return
    sys.setswitchinterval(1e-6)
    for _ in range(4):
        threading.Thread(target=loop, daemon=True).start()
    time.sleep(0.1)
    end_where_it_hangs()
    sys.exit()
