"""Rules as functions on bare arrays."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bad_arrays import read_only
from model import freeze
from optimizers import CONFIGURATIONS, DEFAULTS

import instep
from instep._conventions import CONVENTIONS

# Called with arguments that a type checker would refuse.
untyped: Any = instep
# Slots and keywords; amsgrad and centered are told by the arrays that are given.
KERNELS: dict[str, tuple[list[str], list[str]]] = {
    "SGD": (["momentum"], ["momentum", "dampening", "nesterov", "step"]),
    "Adagrad": (["accumulator"], ["learning_rate_decay", "epsilon", "step"]),
    "RMSprop": (["mean_square", "mean_gradient", "momentum"], ["rho", "momentum", "epsilon"]),
    "Adadelta": (["mean_square", "mean_square_update"], ["rho", "epsilon"]),
    "Adam": (["m", "v", "v_max"], ["beta_1", "beta_2", "epsilon", "step"]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rule", "options", "slots"),
    [configuration for configuration in CONFIGURATIONS if configuration[0] in KERNELS],
)
def test_kernels_compute_the_digits_of_the_classes(
    rule: str, options: dict[str, Any], slots: list[str], dtype: npt.DTypeLike
) -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(size=(7, 9)).astype(dtype)
    room = np.zeros((14, 18), dtype)
    q = room[::2, ::2]
    q[...] = p
    opt = getattr(instep, rule)(p, learning_rate=0.1, **options)
    all_slots, keywords = KERNELS[rule]
    state = [np.zeros((7, 9), dtype) if slot in slots else None for slot in all_slots]
    kernel = getattr(instep.kernels, rule.lower())
    for t in range(1, 5):
        g = rng.normal(size=(7, 9)).astype(dtype)
        opt.step(g)
        given = {**DEFAULTS[rule], **options, "step": t}
        numbers = {name: given[name] for name in keywords}
        assert kernel(q, g, *state, learning_rate=0.1, **numbers) is None
    assert q.tobytes() == p.tobytes()
    assert np.count_nonzero(room) == q.size
    for name, slot in zip(all_slots, state, strict=True):
        if slot is not None:
            assert slot.tobytes() == opt.state[name].tobytes(), name


def test_kernel_of_the_example_in_the_documentation() -> None:
    param, m, v = np.zeros((3, 5))
    instep.kernels.adam(
        param,
        np.ones(5),
        m,
        v,
        step=1,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
    )
    np.testing.assert_allclose(param, -1e-3, rtol=1e-7)
    np.testing.assert_allclose(m, 0.1)
    np.testing.assert_allclose(v, 0.001)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(param=read_only(np.zeros(6))),
        lambda a: a.update(param=np.zeros(6, int)),
        lambda a: a.update(param=np.zeros(6, np.float16)),
        lambda a: a.update(param=np.zeros(6, ">f8")),
        lambda a: a.update(param=np.ma.masked_array(np.zeros(6))),
        lambda a: a.update(param=[0.0] * 6),
        lambda a: a.update(param=None),
        lambda a: a.update(grad=np.zeros(6, int)),
        lambda a: a.update(grad=np.zeros(6, ">f8")),
        lambda a: a.update(grad=np.zeros((1, 6))),
        lambda a: a.update(grad=np.zeros(1)),
        lambda a: a.update(grad=1.0),
        lambda a: a.update(grad=a["param"]),
        lambda a: a.update(grad=a["m"]),
        lambda a: a.update(m=read_only(np.zeros(6))),
        lambda a: a.update(m=np.zeros(5)),
        lambda a: a.update(m=np.zeros(6, int)),
        lambda a: a.update(m=a["param"]),
        lambda a: a.update(m=a["v"]),
        lambda a: a.update(m=None),
        lambda a: a.update(learning_rate=-1.0),
        lambda a: a.update(learning_rate=np.nan),
        lambda a: a.update(beta_1=1.0),
        lambda a: a.update(epsilon=-1.0),
        lambda a: a.update(step=0),
        lambda a: a.update(step=-1),
        lambda a: a.update(step=1.5),
    ],
)
def test_kernels_check_like_the_classes(change: Callable[[dict[str, Any]], object]) -> None:
    arguments: dict[str, Any] = {
        "param": np.ones(6),
        "grad": np.ones(6),
        "m": np.ones(6),
        "v": np.ones(6),
        "step": 1,
        "learning_rate": 1e-3,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
    }
    change(arguments)
    before = freeze(arguments)
    arrays = [arguments.pop(name) for name in ("param", "grad", "m", "v")]
    with pytest.raises((TypeError, ValueError)):
        instep.kernels.adam(*arrays, **arguments)
    assert freeze(dict(zip(("param", "grad", "m", "v"), arrays, strict=True)) | arguments) == before


def test_a_kernel_called_in_the_middle_of_a_call_of_its_own() -> None:
    """Its numbers are those of the outer call, whatever ran while its arguments were checked."""
    inner, param, grad = np.ones(3), np.ones(3), np.ones(3)

    class Calling(int):
        def __int__(self) -> int:
            untyped.kernels.sgd(inner, grad, learning_rate=0.25)
            return 1

    untyped.kernels.sgd(param, grad, step=Calling(1), learning_rate=0.5)
    np.testing.assert_array_equal(inner, 0.75)
    np.testing.assert_array_equal(param, 0.5)


# --- conventions ----------------------------------------------------------------------------------

VARIANTS = [(rule, name) for rule, conventions in CONVENTIONS.items() for name in conventions]
each_variant = pytest.mark.parametrize(("rule", "convention"), VARIANTS)
SWITCHES = {"momentum": 0.5, "amsgrad": True, "centered": True, "nesterov": True}


def kernel_of(rule: str) -> Any:
    names = {kernel.replace("_", ""): kernel for kernel in instep.kernels.__all__}
    return getattr(instep.kernels, names[rule.lower()])


def options_of(rule: str, convention: str) -> list[dict[str, Any]]:
    """Return hyperparameters that bring every slot, option and branch of a formula into play."""
    cls = getattr(instep, rule)
    options: dict[str, Any] = {"l2": 0.25}
    if CONVENTIONS[rule][convention].decay != "coupled":
        options["weight_decay"] = 0.125
    switches = {n: value for n, value in SWITCHES.items() if n in cls._hyperparameters()}
    return [{}, options, {**options, **switches}]


def state_of(optimizer: Any) -> list[Any]:
    """Return copies of an optimizer's state as its kernel takes them."""
    state = {name: each.copy() for name, each in optimizer.state.items() if name != "step"}
    info = type(optimizer)._info()
    if info["divisible"] or not info["slots"]:
        return list(state.values())
    return [state.get(name) for name in (*(slot for slot, _ in info["slots"]), *info["scalars"])]


def told(kernel: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return those options that are arguments: others are told by the arrays that are given."""
    return {n: value for n, value in options.items() if n in inspect.signature(kernel).parameters}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_variant
def test_kernels_compute_the_digits_of_the_classes_in_every_convention(
    rule: str, convention: str, dtype: npt.DTypeLike
) -> None:
    kernel = kernel_of(rule)
    for options in options_of(rule, convention):
        rng = np.random.default_rng(0)
        p = rng.normal(size=(7, 9)).astype(dtype)
        opt = getattr(instep, rule)(p, learning_rate=0.1, convention=convention, **options)
        q, state = p.copy(), state_of(opt)
        for t, rate in enumerate((0.1, 0.1, 0.05, 0.2), 1):
            g = rng.normal(size=p.shape).astype(dtype)
            if "learning_rate" not in opt._variant.initial_values() and rule not in AT_ONE_RATE:
                opt.learning_rate = rate
            given = {**told(kernel, options), "learning_rate": opt.learning_rate}
            opt.step(g)
            kernel(q, g, *state, step=t, convention=convention, **given)
            assert q.tobytes() == p.tobytes(), (options, t)
        for mine, its in zip(state, state_of(opt), strict=True):
            assert (mine is None and its is None) or mine.tobytes() == its.tobytes()


# What they start from is the first rate.
AT_ONE_RATE = ("Rprop", "ASGD")


@each_variant
def test_kernels_have_the_defaults_of_the_convention(rule: str, convention: str) -> None:
    p, g = np.ones((3, 4)), np.full((3, 4), 0.5)
    q, kernel = p.copy(), kernel_of(rule)
    state = state_of(getattr(instep, rule)(p, learning_rate=0.1, convention=convention))
    if CONVENTIONS[rule][convention].default("learning_rate", 0.0) is None:
        with pytest.raises(TypeError) as of_class:
            getattr(instep, rule)(p, convention=convention)
        with pytest.raises(TypeError) as of_kernel:
            kernel(q, g, *state, step=1, convention=convention)
        assert str(of_kernel.value) == str(of_class.value)
        return
    opt = getattr(instep, rule)(p, convention=convention)
    state = state_of(opt)
    opt.step(g)
    kernel(q, g, *state, step=1, convention=convention)
    assert q.tobytes() == p.tobytes()


@each_variant
def test_where_the_count_is_not_needed_it_makes_no_difference(rule: str, convention: str) -> None:
    kernel = kernel_of(rule)
    for options in options_of(rule, convention):
        results: list[list[bytes]] = []
        for step in (7, 1, None):
            p = np.linspace(-1, 1, 12).reshape(3, 4)
            given = {**options, "learning_rate": 0.1, "convention": convention}
            state = state_of(getattr(instep, rule)(p, **given))
            call = functools.partial(kernel, p, np.full((3, 4), 0.5), *state, step=step)
            if step is None and results[0] != results[1]:
                with pytest.raises(TypeError, match=f"step: {kernel.__name__} needs it"):
                    call(**told(kernel, given))
                continue
            with contextlib.suppress(TypeError) if step is None else contextlib.nullcontext():
                call(**told(kernel, given))
                results.append([each.tobytes() for each in (p, *state) if each is not None])
        assert results[-1] == results[1]


@pytest.mark.parametrize(
    ("kernel", "arguments", "message"),
    [
        ("adam", {"convention": "jax"}, "convention: expected one that Adam has .*got 'jax'"),
        ("adam", {"convention": None}, "convention: expected one"),
        ("lion", {"convention": "torch"}, "convention: expected one that Lion has"),
        ("adam", {"convention": "torch", "weight_decay": 0.5}, "weight_decay: expected l2=0.5"),
        ("adam", {"weight_decay": -1.0}, "weight_decay: expected a finite number >= 0"),
        ("adam", {"l2": "much"}, "l2: expected a number"),
        ("adam", {"convention": "optax", "learning_rate": ...}, "learning_rate: expected a number"),
        ("adam", {"lr": 0.1}, "unexpected keyword argument 'lr'"),
        ("adafactor", {"lr": 0.1}, "unexpected keyword argument 'lr'; did you mean learning_rate="),
    ],
)
def test_kernels_refuse_what_the_classes_refuse(
    kernel: str, arguments: dict[str, Any], message: str
) -> None:
    shapes = [(2, 3), (2, 3), *([(2,), (3,)] if kernel == "adafactor" else [(2, 3), (2, 3)])]
    arrays = [np.ones(shape) for shape in shapes]
    before = [array.copy() for array in arrays]
    given = {"step": 1, "learning_rate": 0.1, **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(instep.kernels, kernel)(*arrays[: 3 if kernel == "lion" else 4], **given)
    np.testing.assert_equal(arrays, before)


def test_coupled_decay_is_refused_whatever_was_before() -> None:
    arrays = [np.ones(3) for _ in range(4)]
    for _ in range(2):
        instep.kernels.adam(*arrays, step=1, convention="torch", weight_decay=0.0)
        with pytest.raises(ValueError, match=r"weight_decay: expected l2=0\.25 instead"):
            instep.kernels.adam(*arrays, step=1, convention="torch", weight_decay=0.25)
        instep.kernels.adam(*arrays, step=1, convention="keras", weight_decay=0.25)


def test_only_arrays_go_by_position() -> None:
    arrays = [np.ones(3) for _ in range(5)]
    with pytest.raises(TypeError, match="adam: expected all but the 5 arrays by name"):
        untyped.kernels.adam(*arrays, 1)
    with pytest.raises(TypeError):
        untyped.kernels.adafactor(np.ones((2, 2)), np.ones((2, 2)), 1)
    np.testing.assert_equal(arrays, [np.ones(3)] * 5)


# --- out ------------------------------------------------------------------------------------------


def laid_out(array: Any, layout: str) -> Any:
    """Return an array of the same elements, read-only where it is to be."""
    if layout == "strided":
        room = np.zeros((*array.shape, 2), array.dtype)
        room[..., 0] = array
        return room[..., 0]
    copy = np.array(array, order="F" if layout == "transposed" else "C")
    copy.flags.writeable = layout != "read-only"
    return copy


@pytest.mark.parametrize(
    ("layout", "to"),
    [
        ("read-only", "plain"),
        ("plain", "transposed"),
        ("transposed", "plain"),
        ("transposed", "transposed"),
        ("strided", "strided"),
    ],
)
@pytest.mark.parametrize("shape", [(7, 9), (40, 130), (), (0, 3), (5,)])
@pytest.mark.parametrize("rule", list(CONVENTIONS))
def test_an_updated_parameter_goes_where_it_is_wanted(
    rule: str, shape: tuple[int, ...], layout: str, to: str
) -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        param = laid_out(rng.normal(size=shape).astype(dtype), layout)
        in_place = param.copy(order="K")
        opt = getattr(instep, rule)(in_place, learning_rate=0.1)
        state, g = state_of(opt), laid_out(rng.normal(size=shape).astype(dtype), to)
        opt.step(g)
        out = laid_out(np.full(shape, np.nan, dtype), to)
        state = [each if each is None else laid_out(each, to) for each in state]
        before = param.copy()
        kernel = kernel_of(rule)
        assert kernel(param, g, *state, step=1, learning_rate=0.1, out=out) is None
        assert out.tobytes() == in_place.tobytes()
        assert param.tobytes() == before.tobytes()
        for mine, its in zip(state, state_of(opt), strict=True):
            assert (mine is None and its is None) or mine.tobytes() == its.tobytes()


@pytest.mark.parametrize("rule", ["Adam", "Lamb", "Adafactor", "SM3"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_one_goes_there_too(rule: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    param, g = rng.normal(size=(2, 700, 433)).astype(np.float32)
    in_place, out = param.copy(), np.zeros_like(param)
    opt = getattr(instep, rule)(in_place, learning_rate=0.1)
    state, before = state_of(opt), param.copy()
    opt.step(g)
    threads_before = instep.get_num_threads()
    instep.set_num_threads(threads)
    try:
        kernel_of(rule)(param, g, *state, step=1, learning_rate=0.1, out=out)
    finally:
        instep.set_num_threads(threads_before)
    assert out.tobytes() == in_place.tobytes()
    assert param.tobytes() == before.tobytes()


@pytest.mark.parametrize("rule", ["SGD", "Adam", "ScheduleFreeSGD", "Adafactor", "Muon"])
def test_out_may_be_the_parameter_itself(rule: str) -> None:
    p, q, g = np.ones((3, 4)), np.ones((3, 4)), np.full((3, 4), 0.5)
    opt = getattr(instep, rule)(p, learning_rate=0.1)
    state = state_of(opt)
    opt.step(g)
    kernel_of(rule)(q, g, *state, step=1, learning_rate=0.1, out=q)
    assert q.tobytes() == p.tobytes()


@pytest.mark.parametrize("rule", ["SGD", "Adam", "Lamb", "Adafactor", "Muon"])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a: a.update(out=a["param"][:]), "shares memory"),
        (lambda a: a.update(out=a["param"][::-1]), "shares memory"),
        (lambda a: a.update(out=a["grad"]), "shares memory"),
        (lambda a: a.update(out=np.zeros((3, 5))), "expected shape|shape .3, 4."),
        (lambda a: a.update(out=np.zeros((1, 3, 4))), "expected shape|shape .1, 3, 4."),
        (lambda a: a.update(out=np.zeros((3, 4), np.float32)), "dtype|float32"),
        (lambda a: a.update(out=np.zeros((3, 4), int)), "dtype"),
        (lambda a: a.update(out=read_only(np.zeros((3, 4)))), "read-only"),
        (lambda a: a.update(out=[[0.0] * 4] * 3), "out: expected a NumPy array"),
        (lambda a: a.update(out=np.ma.zeros((3, 4))), "expected a NumPy array"),
        (lambda a: a.update(out=np.broadcast_to(np.zeros(4), (3, 4))), "read-only"),
        (lambda a: a.update(param=np.ones((3, 4), int)), "dtype|int"),
        (lambda a: a.update(grad=np.ones((3, 5))), "grad.*expected shape"),
        (lambda a: a.update(grad=None), "grad: expected a NumPy array, got None"),
    ],
)
def test_what_out_may_not_be(
    rule: str, change: Callable[[dict[str, Any]], object], error: str
) -> None:
    arguments: dict[str, Any] = {
        "param": np.ones((3, 4)),
        "grad": np.ones((3, 4)),
        "out": np.zeros((3, 4)),
    }
    state = state_of(getattr(instep, rule)(np.ones((3, 4))))
    change(arguments)
    before = freeze({**arguments, "state": state})
    param, grad, out = arguments.values()
    with pytest.raises((TypeError, ValueError), match=error):
        kernel_of(rule)(param, grad, *state, step=1, learning_rate=0.1, out=out)
    assert freeze({"param": param, "grad": grad, "out": out, "state": state}) == before


def test_out_shares_no_memory_with_state() -> None:
    param, grad, m, v = np.ones((4, 5))
    for rule in (instep.kernels.adam, instep.kernels.lamb):
        for out in (m, v, m[::-1]):
            with pytest.raises(ValueError, match="shares memory"):
                rule(param, grad, m, v, step=1, out=out)
    np.testing.assert_array_equal((param, grad, m, v), 1)
