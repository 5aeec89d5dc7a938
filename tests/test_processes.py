"""Forks, pools and threads: nothing hangs, no step is seen half-made, nothing is corrupted.

Each test runs in a process of its own, so that what hangs or crashes there fails here.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import faulthandler
import functools
import hashlib
import multiprocessing
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt
import pytest

import instep

if not hasattr(os, "fork"):
    pytest.skip("no fork", allow_module_level=True)

P = ParamSpec("P")
Array = npt.NDArray[np.float32]

SECONDS = 60
SIZE = 1 << 19
"""Elements of float32 that are worth two threads, whatever the rule."""


def apart(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test in a process of its own, which is ended with its children where it hangs."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        command = [sys.executable, "-X", "faulthandler", __file__, test.__name__, repr(kwargs)]
        with tempfile.TemporaryFile("w+") as output:  # children that hang would hold a pipe open
            process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGABRT)  # tells where it hangs
                process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            assert process.returncode == 0, output.read()

    return run


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


# --- processes ----------------------------------------------------------------------------------


def use_nothing() -> None:
    pass


def use_torch() -> None:
    import torch

    torch.set_num_threads(2)
    torch.ones(1 << 20).exp()


def use_sklearn() -> None:
    from sklearn.cluster import KMeans

    points = np.random.default_rng(0).normal(size=(2000, 4))
    KMeans(3, n_init=1, algorithm="lloyd").fit(points)


@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param(name, marks=pytest.mark.skipif(not find_spec(module), reason=f"no {module}"))
        for name, module in (("nothing", "instep"), ("torch", "torch"), ("sklearn", "sklearn"))
    ],
)
@apart
def test_parent_child_and_grandchild_step(runtime: str) -> None:
    """Whoever else has used OpenMP before."""
    instep.set_num_threads(2)
    use: Callable[[], None] = globals()[f"use_{runtime}"]
    use()
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
    use()
    work()
    join([fork(lambda: grow(0))])


@pytest.mark.parametrize("name", CONFIGURATIONS)
@apart
def test_a_fork_waits_for_the_step_in_flight(name: str) -> None:
    instep.set_num_threads(2)
    make, g = CONFIGURATIONS[name], filled(0.25)
    opt = make(filled(1))
    with stepping(lambda: opt.step(g)):
        children = [fork(lambda: check_and_step(opt, make)) for _ in range(20)]
    join(children)
    check_and_step(opt, make)


@apart
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
        children = [fork(check_and_update) for _ in range(15)]
    join(children)


@apart
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


@apart
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


@pytest.mark.parametrize("rule", ["SGD", "Muon"])
@apart
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
            with pytest.raises(RuntimeError, match="in the middle of a step"):
                opt.state_dict()
            join([fork(work_on), fork(lambda: join([fork(work_on)]))])
        finally:
            answer.set()
        step.result()
    assert opt.iterations == 1
    check(opt, make)


@pytest.mark.parametrize("rule", ["SGD", "Muon"])
@apart
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
                with pytest.raises(RuntimeError, match="in the middle of a step"):
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
    if children[0]:
        join(children)


@apart
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


@apart
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


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@apart
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


@pytest.mark.parametrize("name", ["Adam", "schedule", "Muon"])
@apart
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
    if all(children):
        join(children)
    else:
        end_where_it_hangs()


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


@pytest.mark.parametrize("loop", ["kernels", "keys"])
@apart
def test_exit_while_daemon_threads_run_python_code(loop: str) -> None:
    children: list[int] = []
    while len(children) < 6 and all(children):
        children.append(os.fork())
    if all(children):
        return join(children)
    sys.setswitchinterval(1e-6)
    for _ in range(4):
        threading.Thread(target=globals()[f"loop_in_{loop}"], daemon=True).start()
    time.sleep(0.1)
    return end_where_it_hangs()


# --- threads ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")
@apart
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


@pytest.mark.parametrize("how", ["__init__", "use_ema"])
@apart
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


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
@apart
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


@apart
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


@pytest.mark.parametrize("name", CONFIGURATIONS)
@apart
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


@pytest.mark.parametrize(("size", "rounds"), [(100, 300), (SIZE, 30)])
@apart
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


@apart
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


@apart
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


@apart
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


@apart
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


@apart
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


@apart
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


@apart
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


if __name__ == "__main__":
    globals()[sys.argv[1]].__wrapped__(**ast.literal_eval(sys.argv[2]))
