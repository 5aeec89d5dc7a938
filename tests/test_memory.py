"""Memory: nothing is touched beside the arrays, nothing leaks, nothing dangles, nothing grows.

Each of these tests runs in a process of its own, so that a crash is a failure with its traceback.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import gc
import itertools
import math
import mmap
import pickle
import sys
import unittest
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from processes import alone, apart, raises
from references import REFERENCES
from workloads import NORMS, OPTIONS, numbers

import instep

if not sys.platform.startswith("linux"):
    raise unittest.SkipTest("calls Linux")

Floats: TypeAlias = NDArray[np.floating[Any]]
Shape: TypeAlias = tuple[int, ...]

# Called with arguments that a type checker would refuse.
untyped: Any = instep
# Debug hooks of Python's allocator, and freed memory overwritten by the C library's.
HARSH = {"PYTHONMALLOC": "debug", "MALLOC_PERTURB_": "165"}


# --- nothing beside the arrays ------------------------------------------------------------------

PAGE = mmap.PAGESIZE
ROOM = 20 * PAGE
SIZES = [*range(131), 1023, 1024, 1025]
SHAPES = [(0,), (1,), (3,), (7, 1), (5, 7), (2, 65), (33, 31), (1, 1025), (65, 64)]
DTYPES = list(itertools.product(["float32", "float64"], repeat=2))

Place: TypeAlias = Callable[[NDArray[np.uint8], Shape, npt.DTypeLike], Floats]


@functools.cache
def room(number: int) -> NDArray[np.uint8]:
    """Return memory between two pages that nobody may touch."""
    memory = mmap.mmap(-1, ROOM + 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for page in (address, address + PAGE + ROOM):
        assert protect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0, ctypes.get_errno()
    return np.frombuffer(memory, np.uint8)[PAGE:-PAGE]


def at_begin(within: NDArray[np.uint8], shape: Shape, dtype: npt.DTypeLike) -> Floats:
    count = math.prod(shape)
    array: Floats = within.view(dtype)[:count].reshape(shape)
    return array


def at_end(within: NDArray[np.uint8], shape: Shape, dtype: npt.DTypeLike) -> Floats:
    elements: Floats = within.view(dtype)
    return elements[elements.size - math.prod(shape) :].reshape(shape)


def strided_to_end(within: NDArray[np.uint8], shape: Shape, dtype: npt.DTypeLike) -> Floats:
    elements = within.view(dtype)[1::2]
    array = elements[elements.size - math.prod(shape) :]
    array.shape = shape
    return array


def reversed_from_end(within: NDArray[np.uint8], shape: Shape, dtype: npt.DTypeLike) -> Floats:
    array = at_end(within, shape, dtype)
    return np.flip(array) if shape else array


def transposed_to_end(within: NDArray[np.uint8], shape: Shape, dtype: npt.DTypeLike) -> Floats:
    array: Floats = at_end(within, shape[::-1], dtype).T
    return array


PLACES: dict[str, Place] = {
    place.__name__: place
    for place in (at_begin, at_end, strided_to_end, reversed_from_end, transposed_to_end)
}

MIXED = [
    ("at_end", "transposed_to_end"),
    ("at_end", "strided_to_end"),
    ("transposed_to_end", "at_end"),
]


def placed(number: int, place: str, values: Floats) -> Floats:
    """Copy an array to a place in a room of its own."""
    array = PLACES[place](room(number), values.shape, values.dtype)
    array[...] = values
    return array


def values(shape: Shape, dtype: str, seed: int) -> Floats:
    return numbers(math.prod(shape), seed).reshape(shape).astype(dtype)


@apart(*DTYPES)
def test_kernels_touch_nothing_beside_their_arrays(dtype: str, grad_dtype: str) -> None:
    for rule, reference in REFERENCES.items():
        if rule in ("Adafactor", "Muon", "SM3"):  # their state has other shapes
            continue
        kernel = getattr(instep.kernels, reference.rule.__name__)
        places = [*PLACES][: 4 if reference.elementwise else 3]  # norms depend on the order
        for configuration, size in itertools.product(reference.configurations, SIZES):
            if configuration and size % 10 != 3:
                continue
            print(rule, configuration, size)
            keywords = reference.keywords(configuration, step=1)
            param, grad = values((size,), dtype, 0), values((size,), grad_dtype, 1)
            start = reference.initial_state(configuration, param.astype("float64"))
            state: dict[str, Any] = {
                slot: value if slot in reference.scalars else value.astype(dtype)
                for slot, value in start.items()
            }
            given = [param, grad, *map(state.get, reference.slots)]
            expected: list[Any] = [a if a is None else a.copy() for a in given]
            kernel(*expected, **keywords)
            for place in places:
                arrays = [a if a is None else placed(k, place, a) for k, a in enumerate(given)]
                kernel(*arrays, **keywords)
                for array, other in zip(arrays, expected, strict=True):
                    assert array is None or array.tobytes() == other.tobytes(), place


@apart(*DTYPES)
def test_steps_touch_nothing_beside_parameters_and_gradients(dtype: str, grad_dtype: str) -> None:
    for rule, options in [
        *((rule, {}) for rule in REFERENCES),
        *itertools.product(("SGD", "Adam", "Lamb"), OPTIONS),
    ]:
        exact = REFERENCES[rule].elementwise and not NORMS & options.keys()
        for shape in SHAPES:
            if rule == "Muon" and len(shape) < 2:
                continue
            print(rule, options, shape)
            expected = values(shape, dtype, 0)
            alone = getattr(instep, rule)(expected, **options)
            grads = [values(shape, grad_dtype, seed) for seed in (1, 2)]
            for grad in grads:
                alone.step(grad)
            for place, grad_place in [*zip(PLACES, PLACES, strict=True), *MIXED]:
                param = placed(0, place, values(shape, dtype, 0))
                opt = getattr(instep, rule)(param, **options)
                for grad in grads:
                    opt.step(placed(1, grad_place, grad))
                if exact:
                    assert param.tobytes() == expected.tobytes(), (place, grad_place)


# --- no leaks -----------------------------------------------------------------------------------


class Mallinfo2(ctypes.Structure):
    """Statistics of the GNU C library's allocator."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def in_use() -> tuple[int, int]:
    """Return blocks of Python's allocator and bytes of the C library's."""
    gc.collect()
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:  # before glibc 2.33, or another library
        return sys.getallocatedblocks(), 0
    mallinfo2.restype = Mallinfo2
    info = mallinfo2()
    return sys.getallocatedblocks(), info.uordblks + info.hblkhd


def check_growth(name: str, call: Callable[[], object], count: int) -> None:
    """Call something so often, a thousand times or more, and check that memory does not grow.

    What grows once is the interpreter's (its map of memory, 128 KiB, wherever the kernel puts a
    new arena far from others); a leak grows each time.
    """
    for _ in range(200):
        call()
    for _ in range(3):
        blocks, size = in_use()
        for _ in range(count):
            call()
        new_blocks, new_size = in_use()
        growth = new_blocks - blocks, new_size - size
        if growth[0] < count / 2 and growth[1] < 32768:
            return
    raise AssertionError((name, growth))


def a_tree() -> dict[str, Any]:
    return {"w": np.ones((3, 4), np.float32), "b": [np.ones(4), (np.ones(()),)]}


@apart()
def test_a_million_steps_leave_nothing_behind() -> None:
    grad = np.ones(3)
    step = instep.Adam(np.ones(3)).step
    check_growth("step", lambda: [step(grad) for _ in range(800)], 1_000)


@apart()
def test_calls_leave_nothing_behind() -> None:
    params, grads = a_tree(), a_tree()
    others = [a_tree(), a_tree()]
    turn = itertools.cycle(range(2))
    rate = itertools.cycle([0.1, 0.2])
    every_option: dict[str, Any] = {
        "learning_rate": lambda step: 0.1,
        "global_clipnorm": 1.0,
        "skip_nonfinite": True,
        "use_ema": True,
        "gradient_accumulation_steps": 2,
    }
    opt = instep.Adam(params)
    full = instep.Adam(a_tree(), **every_option)
    outside = instep.Muon(np.ones((3, 4)))
    pairs = [(grads["w"], params["w"]), (grads["b"][0], params["b"][0])]
    grouped = [instep.Group(others[0], learning_rate=0.1), np.ones(3)]
    saved = opt.state_dict()
    with_none = {"w": None, "b": grads["b"]}
    param, grad, m, v = np.ones((4, 5))

    def assign() -> None:
        opt.learning_rate = next(rate)
        opt.use_ema = not opt.use_ema

    def in_turn() -> None:
        opt.build(others[next(turn)])

    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "step on a tree": (6_000, lambda: opt.step(grads)),
        "step with None": (6_000, lambda: opt.step(with_none)),
        "step with options": (6_000, lambda: full.step(grads)),
        "step outside": (1_000, lambda: outside.step(np.ones((3, 4)))),
        "apply_gradients": (6_000, lambda: opt.apply_gradients(pairs)),
        "apply_gradients in another order": (3_000, lambda: opt.apply_gradients(pairs[::-1])),
        "kernel": (20_000, lambda: instep.kernels.adam(param, grad, m, v, step=1)),
        "kernel with other numbers": (
            3_000,
            lambda: instep.kernels.adam(param, grad, m, v, step=1, learning_rate=next(rate)),
        ),
        "state": (3_000, lambda: opt.state),
        "averages": (3_000, lambda: full.averages),
        "groups": (3_000, lambda: opt.groups),
        "state_dict": (1_000, lambda: opt.state_dict()),
        "load_state_dict": (1_000, lambda: opt.load_state_dict(saved)),
        "assignment": (1_000, assign),
        "build": (1_000, in_turn),
        "repr": (1_000, lambda: repr(full)),
        "constructor": (1_000, lambda: instep.Adam(others[0], use_ema=True)),
        "constructor with groups": (1_000, lambda: instep.Adam(grouped).step(grouped_grads)),
        "constructor of a rule outside": (1_000, lambda: instep.Muon(np.ones((3, 4)))),
        "constructor of a rule with parts": (1_000, lambda: instep.SM3(np.ones((3, 4)))),
        "pickle": (1_000, lambda: pickle.loads(pickle.dumps(opt))),
        "deepcopy": (1_000, lambda: copy.deepcopy(full)),
    }
    grouped_grads = [a_tree(), np.ones(3)]
    for name, (count, call) in calls.items():
        check_growth(name, call, count)


@apart()
def test_errors_leave_nothing_behind() -> None:
    params = a_tree()
    opt = untyped.Adam(params)
    read_only = np.ones(3)
    read_only.flags.writeable = False
    shared = np.ones(8)
    broken = {**opt.state_dict(), "iterations": -1}

    def asked(answer: object) -> Any:
        return untyped.SGD(np.ones(3), learning_rate=lambda step: answer)

    def raising(step: int) -> float:
        raise KeyError(step)

    nonsense, failing = asked("nonsense"), untyped.SGD(np.ones(3), learning_rate=raising)
    param, grad = np.ones((2, 3))

    def with_leaf(leaf: object) -> dict[str, Any]:
        return {**a_tree(), "w": leaf}

    calls: list[Callable[[], object]] = [
        lambda: opt.step(),
        lambda: opt.step(None, None),
        lambda: opt.step(with_leaf(np.ones((4, 3)))),
        lambda: opt.step(with_leaf(np.ones((3, 4), int))),
        lambda: opt.step(with_leaf("gradient")),
        lambda: opt.step(with_leaf(params["w"])),
        lambda: opt.step({"w": np.ones((3, 4))}),
        lambda: opt.step([1, 2]),
        lambda: opt.apply_gradients([(np.ones(3), np.ones(3))]),
        lambda: opt.apply_gradients([(np.ones((3, 4)), params["w"])] * 2),
        lambda: opt.apply_gradients(3),
        lambda: opt.apply_gradients([3]),
        lambda: opt.build([np.ones(3)]),
        lambda: opt.load_state_dict(broken),
        lambda: opt.load_state_dict({}),
        lambda: setattr(opt, "learning_rate", -1.0),
        lambda: setattr(opt, "lr", 1.0),
        lambda: nonsense.step(np.ones(3)),
        lambda: failing.step(np.ones(3)),
        lambda: untyped.Adam().step(np.ones(3)),
        lambda: untyped.Adam(read_only),
        lambda: untyped.Adam([shared[:5], shared[3:]]),
        lambda: untyped.Adam({"a": [np.ones(3), 4]}),
        lambda: untyped.Adam(np.ones(3), beta_1=2.0),
        lambda: untyped.Adam(np.ones(3), beta=2.0),
        lambda: untyped.Adam([instep.Group(np.ones(3), nonsense=1)]),
        lambda: untyped.Adam(np.ones(3), convention="none"),
        lambda: untyped.kernels.adam(param, grad, None, None, step=1),
        lambda: untyped.kernels.adam(param, param, param, param, step=1),
        lambda: untyped.kernels.sgd(param, grad, learning_rate="much"),
        lambda: untyped.set_num_threads(0),
    ]
    for k, call in enumerate(calls):

        def refused(call: Callable[[], object] = call, k: int = k) -> None:
            try:
                call()
            except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
                return
            raise AssertionError(f"expected error {k}")

        check_growth(f"error {k}", refused, 1_000)


def references(tree: Any) -> list[int]:
    """Return the counts of references to each container and array."""
    counts = [sys.getrefcount(tree)]
    for each in tree.values() if isinstance(tree, dict) else tree:
        counts += references(each) if isinstance(each, (dict, list, tuple)) else []
        counts.append(sys.getrefcount(each))
    return counts


@apart("Adam", "Adafactor", "Muon")
def test_counts_of_references_come_back(rule: str) -> None:
    params, grads, wrong = a_tree(), a_tree(), {**a_tree(), "w": np.ones(3)}
    alone, of_grads, of_wrong = references(params), references(grads), references(wrong)
    opt = getattr(instep, rule)(params)
    bound = []
    for _ in range(4):
        opt.step(grads)
        opt.apply_gradients([(grads["w"], params["w"])])
        with raises(ValueError, text="expected shape"):
            opt.step(wrong)
        opt.state_dict()
        bound.append(references(params))
    assert bound == bound[:1] * 4
    assert references(grads) == of_grads
    assert references(wrong) == of_wrong
    del opt
    gc.collect()
    assert references(params) == alone
    assert references(grads) == of_grads


class Owner(dict[str, Any]):
    """A container with an attribute."""


@apart(
    *itertools.product(
        ["Adam", "Adafactor", "Muon"], ["constructor", "assignment", "group", "container"]
    )
)
def test_an_optimizer_in_a_cycle_is_collected(rule: str, where: str) -> None:
    held: list[Any] = []

    def schedule(step: int, held: list[Any] = held) -> float:
        return 0.1 * len(held)

    param = np.ones((3, 4))
    params = Owner(w=param)
    params.held = held  # type: ignore[attr-defined]
    arguments: dict[str, dict[str, Any]] = {
        "constructor": {"params": [param], "learning_rate": schedule},
        "assignment": {"params": [param]},
        "group": {"params": [instep.Group(param, learning_rate=schedule)]},
        "container": {"params": params},
    }
    opt = getattr(instep, rule)(**arguments[where])
    held.append(opt)
    if where == "assignment":
        opt.learning_rate = schedule
    opt.step({"w": np.ones((3, 4))} if where == "container" else [np.ones((3, 4))])
    gone = weakref.ref(opt)
    del held, schedule, params, arguments, opt
    gc.collect()
    assert gone() is None
    assert sys.getrefcount(param) == 2


# --- nothing that grows with the arrays ---------------------------------------------------------

LARGE = (2048, 2048)
ROOM_FOR_A_STEP = 3 << 20  # of which Python's allocator takes one at a time


@contextlib.contextmanager
def no_memory_but(size: int) -> Iterator[None]:
    """Let this process have no more than so many bytes beyond those that it has."""
    import resource

    has = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def step_in_little_memory(threads: int) -> None:
    with raises(MemoryError), no_memory_but(ROOM_FOR_A_STEP):
        np.ones(LARGE, bool)
    instep.set_num_threads(threads)
    param, double = np.ones(LARGE, np.float32), np.ones(LARGE)
    instep.SGD(param).step(double)  # starts the threads
    options: list[dict[str, Any]] = [
        {"skip_nonfinite": True, "global_clipnorm": 1.0, "l2": 0.1, "weight_decay": 0.1},
        {"clipnorm": 1.0, "use_ema": True, "gradient_accumulation_steps": 2},
        {"clipvalue": 1.0, "use_ema": True, "ema_overwrite_frequency": 1},
    ]
    for rule in REFERENCES:
        if rule == "Muon":  # it works in NumPy
            continue
        print(rule)
        for given in options if rule == "Adam" else [{}]:
            opt = getattr(instep, rule)(param, **given)
            with no_memory_but(ROOM_FOR_A_STEP):
                for grad in (double, double.T):
                    opt.step(grad)


def test_a_step_needs_no_memory_of_the_arrays_size() -> None:
    for threads in (1, 2):
        alone(step_in_little_memory, threads)


# --- nothing that dangles -----------------------------------------------------------------------


@apart(**HARSH)
def test_the_optimizer_keeps_what_it_needs() -> None:
    opt = instep.Adam({"a": np.ones(1000), "b": [np.ones((3, 500))]}, use_ema=True)
    for step in range(50):
        opt.step({"a": np.full(1000, step + 1.0), "b": [np.ones((500, 3)).T]})
        opt.step({"a": np.ones(1000, np.float32), "b": [None]})
    state, params = opt.state, opt.params
    del opt
    gc.collect()
    assert np.all(params["a"] == params["a"][0])
    assert np.all(state["b"][0]["v"] > 0)
    assert np.all(np.isfinite(state["a"]["m"]))


def resize(array: Floats, size: int) -> None:
    array.resize((size,), refcheck=False)


@apart(**HARSH)
def test_what_was_changed_since_the_last_step_is_noticed() -> None:
    def drop(tree: dict[str, Any]) -> None:
        del tree["b"][1]

    def extend(tree: dict[str, Any]) -> None:
        tree["b"].append(np.ones(5))

    def rebind(tree: dict[str, Any]) -> None:
        tree["b"][1] = np.ones(3000)

    changes: list[Callable[[dict[str, Any]], None]] = [
        lambda tree: resize(tree["b"][1], 1),
        lambda tree: resize(tree["b"][1], 1_000_000),
        lambda tree: resize(tree["b"][1], 0),
        lambda tree: tree.clear(),
        lambda tree: tree["b"].clear(),
        drop,
        extend,
        rebind,
    ]
    for change, rule in itertools.product(changes, ("Adam", "Lamb", "Adafactor", "Muon")):
        params: dict[str, Any] = {"a": np.ones(10), "b": [np.ones(4), np.ones(3000)]}
        opt = getattr(instep, rule)(params)
        grads = copy.deepcopy(params)
        opt.step(grads)
        first: Any = params["a"]
        before = first.copy()
        change(params)
        for given in (grads, copy.deepcopy(params)):
            with raises(TypeError, ValueError):
                opt.step(given)
        assert first.tobytes() == before.tobytes()


@apart(
    *itertools.product(["Adam", "Nadam", "Adafactor", "SM3", "Muon"], [(3, 4), (60, 50)]), **HARSH
)
def test_state_and_averages_keep_their_memory(rule: str, shape: Shape) -> None:
    param = np.ones(shape)
    opt = getattr(instep, rule)(param, use_ema=True)
    opt.step(np.ones(shape))
    for array in [opt.averages, *opt.state.values()]:
        if isinstance(array, np.ndarray):
            with raises(ValueError, text="resize"):
                resize(array, 100_000)
    opt.step(np.ones(shape))
    assert np.all(param == param[0, 0])


@apart("Adam", "Lamb", "Adafactor", "Muon", **HARSH)
def test_a_schedule_that_takes_away_what_the_step_works_on(rule: str) -> None:
    def renewed() -> tuple[list[Any], list[Any]]:
        return [np.ones(5000), np.ones(40)], [np.ones(5000), np.ones(40)]

    attacks: list[Callable[[Any, list[Any], list[Any]], object]] = [
        lambda opt, params, grads: grads.clear(),
        lambda opt, params, grads: params.clear(),
        lambda opt, params, grads: resize(params[0], 1_000_000),
        lambda opt, params, grads: resize(grads[0], 0),
        lambda opt, params, grads: opt.build(renewed()[0]),
        lambda opt, params, grads: opt.load_state_dict(opt.state_dict()),
        lambda opt, params, grads: setattr(opt, "use_ema", True),
    ]
    for attack in attacks:
        params, grads = renewed()
        held: list[Any] = []

        def schedule(
            step: int,
            attack: Callable[[Any, list[Any], list[Any]], object] = attack,
            held: list[Any] = held,
            given: tuple[list[Any], list[Any]] = (params, grads),
        ) -> float:
            if held:
                attack(held[0], *given)
            gc.collect()
            return 0.1

        opt = getattr(instep, rule)(params, learning_rate=schedule)
        opt.step(grads)
        held.append(opt)
        for _ in range(2):
            with contextlib.suppress(TypeError, ValueError, RuntimeError):
                opt.step(grads)


@apart(**HARSH)
def test_pairs_that_come_and_go() -> None:
    params = [np.ones(2000), np.ones(300)]
    opt = instep.Adam(params)

    def pairs(order: Sequence[int]) -> Iterator[tuple[Floats, Floats]]:
        for k in order:
            yield np.ones(params[k].size), params[k][:]
            gc.collect()

    for order in ([0, 1], [1, 0], [1]):
        opt.apply_gradients(pairs(order))
    assert np.all(params[0] == params[0][0])
    assert opt.state[1]["step"] == 3
