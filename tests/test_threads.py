"""Threads: whole steps, nothing corrupted, whoever else steps, assigns, copies or binds."""

from __future__ import annotations

import builtins
import contextlib
import copy
import functools
import os
import pathlib
import pickle
import sys
import threading
import time
import unittest
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from model import snapshot
from processes import (
    CONFIGURATIONS,
    SIZE,
    Array,
    apart,
    check,
    check_state,
    filled,
    fork,
    join,
    stepping,
    together,
)

import instep

# --- the threads of a step ----------------------------------------------------------------------


@unittest.skipUnless(sys.platform == "linux", "needs Linux's limits")
@apart()
def test_a_step_where_the_system_has_no_room_for_threads() -> None:
    import resource

    instep.set_num_threads(2)
    opt, g = instep.Adam(filled(1)), filled(0.25)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + (4 << 20)  # less than a stack
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    opt.step(g)
    assert opt.iterations == 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    opt.step(g)
    one = instep.Adam(filled(1))
    instep.set_num_threads(1)
    for _ in range(2):
        one.step(g)
    assert opt.params.tobytes() == one.params.tobytes()


@unittest.skipUnless(os.path.exists("/proc/self/task"), "needs Linux's /proc")
@apart()
def test_threads_that_a_step_uses() -> None:
    opt, g = instep.Adam(filled(1)), filled(0.25)

    def threads() -> int:
        opt.step(g)
        return len(os.listdir("/proc/self/task"))

    instep.set_num_threads(1)
    before = threads()
    instep.set_num_threads(2)
    if find_spec("threadpoolctl"):
        import threadpoolctl

        with threadpoolctl.threadpool_limits(1):
            assert threads() == before
    assert threads() == before + 1

    def in_child() -> None:
        assert threads() == 1

    join([fork(in_child)])


@apart()
def test_a_step_lets_other_threads_step() -> None:
    """Without its lock: at no other place would Python hand it over within a step."""
    instep.set_num_threads(2)
    first, second, g = instep.Adam(filled(1)), instep.Adam(filled(1)), filled(0.25)

    def step_and_give_way() -> None:
        second.step(g)
        time.sleep(0)

    sys.setswitchinterval(1000)
    with stepping(step_and_give_way):
        meanwhile = 0
        while not meanwhile:
            before = second.iterations
            first.step(g)
            meanwhile = second.iterations - before


# --- one optimizer in several threads -----------------------------------------------------------


def test_two_threads_on_one_optimizer_corrupt_nothing() -> None:
    g = np.linspace(-1.0, 1.0, 1 << 17)
    p = np.zeros_like(g)
    opt = instep.Adam(p, learning_rate=0.1, global_clipnorm=10.0)
    done = []
    wrong: list[BaseException] = []
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        for _ in range(40):
            try:
                opt.step(g)
            except RuntimeError:
                continue
            except BaseException as error:
                wrong.append(error)
                return
            done.append(1)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert opt.iterations == len(done) > 0
    q = np.zeros_like(g)
    alone = instep.Adam(q, learning_rate=0.1, global_clipnorm=10.0)
    for _ in done:
        alone.step(g)
    assert snapshot(opt) == snapshot(alone)


@apart(*CONFIGURATIONS)
def test_threads_on_one_optimizer(name: str) -> None:
    instep.set_num_threads(2)
    make, g = CONFIGURATIONS[name], filled(0.25)
    param = filled(1)
    opt = make(param)
    steps: list[int] = []

    def step() -> None:
        opt.step(g)
        steps.append(1)

    def read() -> None:
        opt.state, opt.averages, opt.groups, opt.config, opt.iterations, repr(opt)

    def assign() -> None:
        opt.learning_rate = opt.learning_rate
        opt.l2 = 0.0

    together(
        step,
        step,
        read,
        assign,
        lambda: check_state(opt.state_dict(), make),
        lambda: opt.build(param),
        rounds=30,
    )
    state = opt.state_dict()
    calls = state["iterations"] * opt.gradient_accumulation_steps + state["window"]
    assert calls == len(steps) > 0
    check(opt, make)


@apart((100, 300), (SIZE, 30))
def test_threads_on_one_optimizer_that_changes_its_state(size: int, rounds: int) -> None:
    """Options that add and remove arrays, other arrays, copies, and states that are loaded."""
    instep.set_num_threads(2)
    opt, g = instep.RMSprop({"w": filled(1, size)}), {"w": filled(0.25, size)}
    saved = opt.state_dict()

    def set_centered() -> None:
        opt.centered = not opt.centered

    def set_average() -> None:
        opt.use_ema = not opt.use_ema

    def load() -> None:
        with contextlib.suppress(ValueError):  # a state of other options
            opt.load_state_dict(saved)

    together(
        lambda: opt.step(g),
        lambda: opt.step(g),
        set_centered,
        set_average,
        load,
        lambda: opt.build({"w": filled(1, size)}),
        lambda: pickle.loads(pickle.dumps(opt)).step(g),
        lambda: copy.deepcopy(opt).step(g),
        lambda: (opt.state, opt.averages, opt.params, opt.groups, opt.state_dict()),
        rounds=rounds,
    )
    opt.step(g)
    for array in opt.state_dict()["arrays"]["params['w']"].values():
        assert np.all(np.isfinite(array))


@apart("__init__", "use_ema")
def test_averages_while_another_thread_makes_the_optimizer_anew(how: str) -> None:
    p = np.ones(1 << 20, np.float32)
    opt, done = instep.SGD([p], learning_rate=0.1, use_ema=True), threading.Event()

    def change() -> None:
        for k in range(100):
            if how == "use_ema":
                opt.use_ema = k % 2 == 0
            else:
                opt.__init__([p], learning_rate=0.1, use_ema=True)  # type: ignore[misc]
        done.set()

    threading.Thread(target=change).start()
    while not done.is_set():
        averages = opt.averages
        assert averages is None or averages[0].shape == p.shape


@apart()
def test_containers_of_gradients_that_change_meanwhile() -> None:
    keys = [f"{k}" for k in range(50)]

    def arrays(value: float) -> list[Array]:
        return [filled(value, 100) for _ in keys]

    params = arrays(1), dict(zip(keys, arrays(1), strict=True))
    items, by_name = arrays(0.25), dict(zip(keys, arrays(0.25), strict=True))
    opt = instep.Adam(params)

    def replace() -> None:
        items[:] = arrays(0.25)
        by_name.update(zip(keys, arrays(0.25), strict=True))

    def empty() -> None:
        items.clear()
        by_name.clear()
        items.extend(arrays(0.25))
        by_name.update(zip(keys, arrays(0.25), strict=True))

    together(
        lambda: opt.step((items, by_name)),
        lambda: opt.step((items, by_name)),
        replace,
        empty,
        rounds=300,
        answers=(RuntimeError, TypeError, ValueError),
    )
    for array in [*params[0], *params[1].values()]:
        np.testing.assert_array_equal(array, array[0])


@apart()
def test_containers_of_parameters_that_change_meanwhile() -> None:
    params = [filled(1, 100) for _ in range(8)]
    grads = [filled(0.25, 100) for _ in range(8)]
    bound = list(params)
    opt = instep.Adam(params)

    def change() -> None:
        params[3] = filled(1, 100)
        params.pop()
        params[:] = bound

    together(
        lambda: opt.step(grads),
        change,
        change,
        rounds=2000,
        answers=(RuntimeError, TypeError, ValueError, IndexError),
    )
    params[:] = bound
    opt.step(grads)
    for array in params:
        np.testing.assert_array_equal(array, array[0])


@apart()
def test_gradients_dropped_while_they_are_checked() -> None:
    """NumPy may ask a gradient of a class of its own whether it shares memory."""

    class Dropping(np.ndarray[Any, np.dtype[Any]]):
        def __array_function__(self, *_: Any) -> bool:
            del grads[1:]
            return False

    memory = filled(1, 6)
    params = [memory[::2], *(filled(1, 1000) for _ in range(50))]
    grads = [memory[1::2].view(Dropping), *(filled(1, 1000) for _ in range(50))]
    instep.SGD(params, learning_rate=1.0).step(grads)
    for param in params:
        np.testing.assert_array_equal(param, 0)


# --- each with its own --------------------------------------------------------------------------


def test_optimizers_in_several_threads_are_independent() -> None:
    g = np.linspace(-1.0, 1.0, 1 << 16)
    params = [np.zeros_like(g) for _ in range(4)]

    def work(p: npt.NDArray[np.float64]) -> None:
        opt = instep.Adam(p)
        for _ in range(10):
            opt.step(g)

    workers = [threading.Thread(target=work, args=(p,)) for p in params[1:]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    work(params[0])
    assert len({p.tobytes() for p in params}) == 1
    assert params[0].any()


@apart()
def test_threads_with_optimizers_of_their_own() -> None:
    rules = ["Adam", "SGD", "RMSprop", "Muon", "Lamb", "Prodigy", "SM3"]
    rng = np.random.default_rng(0)
    g = [rng.normal(size=size).astype(np.float32) for size in (3, 10_000, SIZE)]

    def train(rule: str) -> bytes:
        params = [np.ones_like(each) for each in g]
        opt = getattr(instep, rule)(params, learning_rate=instep.schedules.CosineDecay(0.1, 10))
        for _ in range(3):
            opt.step(g)
            opt = pickle.loads(pickle.dumps(opt))
        return b"".join(each.tobytes() for each in opt.params)

    expected = {rule: train(rule) for rule in rules}

    def job(rule: str) -> None:
        assert train(rule) == expected[rule], rule

    def set_threads() -> None:
        for n in (1, 2, 3):
            instep.set_num_threads(n)
            assert 1 <= instep.get_num_threads() <= 3

    together(*[functools.partial(job, rule) for rule in rules], set_threads, rounds=3, answers=())


@apart()
def test_threads_at_their_first_calls() -> None:
    """What is looked up once is looked up by one thread while others wait for it."""

    class Subclass(np.ndarray[Any, np.dtype[Any]]):
        pass

    def work() -> None:
        instep.kernels.sgd(filled(1, 9), filled(1, 9))
        instep.SGD(filled(1, 9).view(Subclass)).step(filled(1, 9).view(Subclass))
        scalar: Any = np.ones(())
        instep.SGD(scalar).step(np.float32(1))
        memory = filled(1, 6)
        instep.SGD(memory[::2]).step(memory[1::2])

    def import_and_give_way(*arguments: Any) -> Any:
        time.sleep(0.01)
        return find(*arguments)

    module: Any = builtins
    find = module.__import__
    module.__import__ = import_and_give_way
    together(*[work] * 4, rounds=1, answers=())


@apart()
def test_threads_with_one_kernel() -> None:
    """Each call has the numbers that it was given, whatever was checked last."""
    g = filled(1, 1)

    def job(first: float) -> None:
        param = filled(0, 1)
        for rate in [first + k for k in range(8)] * 10:
            param[0] = 0
            instep.kernels.sgd(param, g, learning_rate=rate)
            assert param[0] == -rate

    together(*[functools.partial(job, 8.0 * k) for k in range(4)], rounds=300, answers=())


@apart()
def test_schedules_shared_by_threads() -> None:
    asked: list[int] = []

    def schedule(t: int) -> float:
        asked.append(t)
        return 1 / (1 + t)

    def make(p: Array) -> Any:
        return instep.SGD(p, learning_rate=schedule)

    def job() -> None:
        p = filled(1, 1000)
        opt = make(p)
        for _ in range(3):
            opt.step(filled(1, 1000))
            assert opt.current_learning_rate == 1 / (1 + opt.iterations)

    together(*[job] * 4, rounds=50, answers=())
    assert sorted(set(asked)) == [0, 1, 2, 3]
    assert asked.count(0) == 4 * 50
