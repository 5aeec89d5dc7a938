"""Numbers that change all the time: what they cost in Python, and that they act like any other."""

from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from model import python_calls, snapshot

import instep
from instep import _array_rules, _rules
from instep._rule import conventions_of

untyped: Any = instep
RULES: list[str] = [*vars(_rules)["__all__"], *vars(_array_rules)["__all__"]]
VARIANTS = [(rule, each) for rule in RULES for each in conventions_of(getattr(instep, rule))]
OPTIONS: dict[str, Any] = {
    "learning_rate": 0.1,
    "l2": 0.1,
    "clipnorm": 1.0,
    "use_ema": True,
    "ema_overwrite_frequency": 2,
}


def params() -> list[Any]:
    return [np.linspace(-1, 1, 6).reshape(2, 3), np.linspace(0.5, 1, 4).reshape(2, 2)]


def grads() -> list[Any]:
    return [np.full((2, 3), 0.5), np.linspace(-2, 2, 4).reshape(2, 2)]


def numbers_of(optimizer: Any, name: str) -> Iterator[float]:
    """Yield numbers that a hyperparameter of an optimizer may be, if it can be any."""
    limits = type(optimizer)._hyperparameters()[name].kind.limits
    if limits is None:
        return
    whole = isinstance(limits[0], int)
    for number in (1, 2, 3) if whole else (0.25, 0.75, 4.5, -0.5, 0.0):
        if not limits[0] <= number <= limits[1]:
            continue
        try:
            optimizer._variant.checked(name, number)
        except ValueError:  # weight decay where a framework has another one
            continue
        yield number


@pytest.mark.parametrize(("rule", "convention"), VARIANTS)
def test_numbers_assigned_alone_act_like_those_assigned_with_all_that_hangs_on_them(
    rule: str, convention: str
) -> None:
    make = getattr(untyped, rule)
    names = make._hyperparameters()
    flags = {name: True for name in names if name in ("nesterov", "amsgrad", "centered")}
    for options in ({}, {**flags, "momentum": 0.5} if "momentum" in names else flags):
        options = {**OPTIONS, **options}
        for name in names:
            here = params()
            numbers = [*numbers_of(make(here, convention=convention, **options), name)]
            alone, together = (make(params(), convention=convention, **options) for _ in range(2))
            for number in [*numbers, *numbers[:1]]:
                message = None
                try:
                    together._assign(name, number)
                except ValueError as error:
                    message = str(error)
                if message is None:
                    setattr(alone, name, number)
                else:
                    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                        setattr(alone, name, number)
                for opt in (alone, together):
                    opt.step(grads())
                assert alone.config == together.config
                assert type(getattr(alone, name)) is type(getattr(together, name))
                assert snapshot(alone) == snapshot(together), (name, number)


@pytest.mark.parametrize(
    ("rule", "options", "name", "numbers"),
    [
        ("Adam", {}, "learning_rate", (0.5, 0.0)),
        ("Adam", {}, "beta_1", (0.5, 0.0)),
        ("Adam", {}, "epsilon", (0.5, 0.0)),
        ("Adam", {}, "l2", (0.5, 0.0)),
        ("Adam", {}, "weight_decay", (0.5, 0.0)),
        ("Adam", {}, "loss_scale_factor", (0.5, 1024)),
        ("Adam", {}, "ema_momentum", (0.5, 0.0)),
        ("Adam", {"clipnorm": 1.0}, "clipnorm", (0.5, 2)),
        ("Adam", {"clipvalue": 1.0}, "clipvalue", (0.5, 2)),
        ("Adam", {"global_clipnorm": 1.0}, "global_clipnorm", (0.5, 2)),
        ("Adam", {"ema_overwrite_frequency": 5}, "ema_overwrite_frequency", (2, 3)),
        ("SGD", {"momentum": 0.9}, "momentum", (0.5, 0.25)),
        ("SGD", {"momentum": 0.9, "nesterov": True}, "momentum", (0.5, 0.25)),
        ("SGD", {"momentum": 0.9, "convention": "torch"}, "dampening", (0.5, 0.0)),
        ("Lamb", {}, "weight_decay", (0.5, 0.0)),
        ("ScheduleFreeSGD", {}, "warmup_steps", (5, 0)),
        ("Muon", {}, "learning_rate", (0.5, 0.0)),
        ("Muon", {}, "l2", (0.5, 0.0)),
    ],
)
def test_a_number_is_assigned_without_python(
    rule: str, options: dict[str, Any], name: str, numbers: tuple[float, ...]
) -> None:
    weights, bias = params()
    grouped = [weights, instep.Group(bias, learning_rate=0.5)]
    opt = getattr(untyped, rule)(grouped, **options)
    whole = isinstance(numbers[0], int)
    kinds: list[Any] = [int] if whole else [float, np.float64, np.float32]
    for kind in kinds:
        for number in numbers:
            assert python_calls(functools.partial(setattr, opt, name, kind(number))) == 0
            assert getattr(opt, name) == number
            assert type(getattr(opt, name)) is kinds[0]
            assert python_calls(functools.partial(getattr, opt, name)) == 0
            assert opt.groups[1]["learning_rate"] == 0.5
            opt.step(grads())


def test_what_hangs_on_a_number_changes_with_it() -> None:
    opt = untyped.SGD(params())
    opt.momentum = 0.5
    assert set(opt.state[0]) == {"momentum", "step"}
    opt.momentum = 0.25
    assert set(opt.state[0]) == {"momentum", "step"}
    opt.momentum = 0.0
    assert set(opt.state[0]) == {"step"}
    opt.clipnorm = 1.0
    with pytest.raises(ValueError, match="expected at most one clipping"):
        opt.clipvalue = 1.0
    opt.clipnorm = None
    opt.clipvalue = 1.0
    opt = untyped.SGD(params(), momentum=0.5, nesterov=True)
    with pytest.raises(ValueError, match="nesterov: expected momentum above 0"):
        opt.momentum = 0.0
    with pytest.raises(ValueError, match=r"nesterov: .* dampening 0"):
        opt.dampening = 0.5
    assert (opt.momentum, opt.dampening) == (0.5, 0.0)
    opt = untyped.Rprop(params())
    opt.max_step_size = 0.5
    with pytest.raises(ValueError, match=r"min_step_size: expected at most max_step_size=0\.5"):
        opt.min_step_size = 0.75
    opt = untyped.SGD(params(), learning_rate=lambda update: 1.0)
    opt.learning_rate = 0.5
    opt.step(grads())
    assert opt.current_learning_rate == 0.5
    opt.learning_rate = lambda update: 2.0
    assert opt.current_learning_rate == 2.0


@pytest.mark.parametrize("rule", RULES)
def test_limits_are_those_of_the_check(rule: str) -> None:
    for name, each in getattr(untyped, rule)._hyperparameters().items():
        limits = each.kind.limits
        if limits is None:
            continue
        assert [each.check(limit) for limit in limits] == [*limits]
        whole = isinstance(limits[0], int)
        least = limits[0] - 1 if whole else math.nextafter(limits[0], -math.inf)
        greatest = limits[1] + 1 if whole else math.nextafter(limits[1], math.inf)
        opt = getattr(untyped, rule)(params(), learning_rate=0.1)
        before = snapshot(opt)
        beyond = [] if limits[1] == math.inf else [greatest] if whole else [greatest, math.inf]
        for number in (least, *beyond, *([] if whole else [math.nan, -math.inf])):
            with pytest.raises(ValueError, match=f"^{name}: expected a") as expected:
                each.check(number)
            with pytest.raises(ValueError, match=f"^{re.escape(str(expected.value))}$"):
                setattr(opt, name, number)
        large = [] if limits[1] == math.inf else [10**400]
        for stranger in ("1", b"1", 1j, [1.0], True, np.True_, *large):
            with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
                setattr(opt, name, stranger)
        assert snapshot(opt) == before


def test_numbers_of_unusual_types_are_plain_ones_afterwards() -> None:
    class Odd(float):
        def __float__(self) -> float:
            return 0.25

    opt = untyped.Adam(params(), ema_overwrite_frequency=1)
    numbers: list[Any] = [(1, 1.0), (Fraction(1, 2), 0.5), (Odd(8.0), 0.25), (np.float16(0.5), 0.5)]
    for number, meaning in numbers:
        opt.learning_rate = number
        assert type(opt.learning_rate) is float
        assert opt.learning_rate == meaning == opt.current_learning_rate
    for whole in (2**53, 2**53 + 1, 2**62, np.int64(7)):
        opt.ema_overwrite_frequency = whole
        assert type(opt.ema_overwrite_frequency) is int
        assert opt.ema_overwrite_frequency == whole


def test_hyperparameters_that_were_seen_before_stay_what_they_were() -> None:
    opt = untyped.Adam(params())
    before = opt._values
    opt.learning_rate = 0.5
    assert before["learning_rate"] == 0.001
    assert opt._values["learning_rate"] == 0.5


def test_a_hyperparameter_cannot_be_deleted_and_strangers_are_refused() -> None:
    opt = untyped.Adam(params())
    with pytest.raises(AttributeError):
        del opt.learning_rate
    with pytest.raises(AttributeError, match=r"Adam: expected a hyperparameter among .* 'lr'"):
        opt.lr = 0.1
    with pytest.raises(TypeError, match="expected an optimizer, got"):
        instep.Adam.__dict__["learning_rate"].__set__(object(), 0.5)

    class Mine(instep.Adam):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value * 2 if name == "learning_rate" else value)

    mine: Any = Mine(params())
    mine.note = 1
    mine.learning_rate = 0.25
    assert (mine.note, mine.learning_rate) == (1, 0.5)


def test_a_number_is_not_assigned_in_the_middle_of_a_step() -> None:
    def schedule(update: int) -> float:
        opt.epsilon = 0.5
        return 0.1

    opt = untyped.Adam(params(), learning_rate=schedule)
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        opt.step(grads())
    assert opt.epsilon == 1e-8


def test_numbers_assigned_by_many_threads_reach_the_engine_as_they_read() -> None:
    opt = untyped.SGD(np.zeros(3), learning_rate=1.0)

    def work(number: float) -> None:
        for _ in range(300):
            opt.learning_rate = number
            opt.l2 = 0.0
            opt.step(np.zeros(3))

    threads = [threading.Thread(target=work, args=(k + 1.0,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opt.iterations == 1200
    rate, before = opt.learning_rate, opt.params.copy()
    opt.step(np.ones(3))
    assert (before - opt.params).tolist() == [rate] * 3


# --- kernels ------------------------------------------------------------------------------------


def calls_of(kernel: Any, arguments: tuple[Any, ...], numbers: dict[str, Any]) -> int:
    return python_calls(functools.partial(kernel, *arguments, step=1, **numbers))


@pytest.mark.parametrize(
    ("rule", "slots", "options", "name"),
    [
        ("adam", 2, {}, "learning_rate"),
        ("adam", 2, {}, "beta_1"),
        ("adam", 3, {"amsgrad": True}, "beta_2"),
        ("sgd", 1, {"momentum": 0.9}, "momentum"),
        ("sgd", 1, {"momentum": 0.9, "nesterov": True}, "momentum"),
        ("lion", 1, {}, "beta_2"),
    ],
)
def test_a_kernel_takes_another_number_without_python(
    rule: str, slots: int, options: dict[str, Any], name: str
) -> None:
    kernel = getattr(instep.kernels, rule)
    if "amsgrad" in options:
        options = {}
    arrays = [np.ones(5) for _ in range(2 + slots)]
    kernel(*arrays, step=1, **options)
    for number in (0.5, 0.25, np.float64(0.75), np.float32(0.5), 0.125):
        given = {**options, name: number}
        assert calls_of(kernel, tuple(arrays), given) == 1  # the function that has the signature
    options["learning_rate"] = 0.5
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        kernel(*arrays, step=1, **{**options, name: -1.0})


# Of the functions that remember numbers: those whose state depends on the array's shape don't.
@pytest.mark.parametrize(
    ("rule", "convention"),
    [
        (rule, convention)
        for rule, convention in VARIANTS
        if not getattr(untyped, rule)._info()["divisible"]
        and not getattr(untyped, rule)._sees_whole_arrays()
    ],
)
def test_kernels_with_other_numbers_act_like_those_that_start_with_them(
    rule: str, convention: str
) -> None:
    cls = getattr(untyped, rule)
    name_of = {kernel.replace("_", ""): kernel for kernel in instep.kernels.__all__}
    kernel = getattr(instep.kernels, name_of[rule.lower()])
    info = cls._info()
    known = [n for n in info["hyperparameters"] if n in cls._hyperparameters()]

    def run(kernel: Any, numbers: dict[str, Any]) -> list[bytes] | str:
        arrays = [np.linspace(0.5, 1, 5) for _ in range(2)]
        arrays += [np.linspace(0.25, 1, 5) for _ in info["slots"]]
        arrays += [np.array(0.5) for _ in info["scalars"]]
        try:
            kernel(*arrays, step=3, convention=convention, **numbers)
        except ValueError as error:
            return str(error)
        return [array.tobytes() for array in arrays]

    opt = cls(learning_rate=0.1, convention=convention)
    for name in ["learning_rate", *known, "l2", "weight_decay"]:
        for number in numbers_of(opt, name):
            given = {"learning_rate": 0.1, name: number}
            run(kernel, {"learning_rate": 0.5})  # what it remembers are other numbers
            assert run(kernel, given) == run(instep.kernels._kernel(rule, cls), given), given


def test_kernels_still_check_what_hangs_on_a_number() -> None:
    p, g, m = (np.ones(3) for _ in range(3))
    untyped.kernels.sgd(p, g, step=1, learning_rate=0.1)
    with pytest.raises(TypeError, match=r"^momentum_state: expected|^momentum: expected"):
        untyped.kernels.sgd(p, g, step=1, learning_rate=0.1, momentum=0.5)
    untyped.kernels.sgd(p, g, m, step=1, learning_rate=0.1, momentum=0.5, nesterov=True)
    with pytest.raises(ValueError, match="nesterov"):
        untyped.kernels.sgd(p, g, m, step=1, learning_rate=0.1, momentum=0.0, nesterov=True)
    with pytest.raises(ValueError, match="nesterov"):
        untyped.kernels.sgd(
            p, g, m, step=1, learning_rate=0.1, momentum=0.5, nesterov=True, dampening=0.5
        )
    for bad in (-1.0, math.nan, math.inf, True, "1", None):
        with pytest.raises((TypeError, ValueError), match=r"^learning_rate: expected"):
            untyped.kernels.sgd(p, g, step=1, learning_rate=bad)
