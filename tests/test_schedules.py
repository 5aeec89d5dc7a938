"""Schedules: the frameworks' values, ranges, arguments, copies, and use in an optimizer."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import inspect
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories.schedules import FILE

import instep
from instep import schedules

# Called with arguments that a type checker would refuse.
untyped: Any = schedules


def make(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return the schedule of a stored case."""
    given = dict(arguments)
    if "schedules" in given:
        given["schedules"] = [make(*part) for part in given["schedules"]]
    for function in ("factor", "scale_fn"):  # by the table of their values
        if isinstance(given.get(function), list):
            given[function] = given[function].__getitem__
    return given["factor"] if name == "LambdaLR" else getattr(schedules, name)(**given)


CASES = json.loads(FILE.read_text())["cases"]
every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case['framework']}-{case['schedule']}-{k}")
        for k, case in enumerate(CASES)
    ],
)

CLASSES: dict[str, Callable[..., Any]] = {
    name: each for name in schedules.__all__ if isinstance(each := getattr(schedules, name), type)
}
# One of each, with all that have no default, and with what may be a function.
EXAMPLES = [
    schedules.ExponentialDecay(0.1, 10, 0.5),
    schedules.PolynomialDecay(0.1, 10),
    schedules.InverseTimeDecay(0.1, 10, 0.5),
    schedules.PiecewiseConstantDecay([3, 6], [0.1, 0.2, 0.05]),
    schedules.CosineDecay(0.1, 10),
    schedules.CosineDecayRestarts(0.1, 3),
    schedules.StepDecay(0.1, 3),
    schedules.MultiStepDecay(0.1, [3, 5]),
    schedules.CosineAnnealing(0.1, 3),
    schedules.CosineAnnealingWarmRestarts(0.1, 3),
    schedules.OneCycle(0.1, 20),
    schedules.CosineOneCycle(20, 0.1),
    schedules.LinearOneCycle(20, 0.1),
    schedules.LinearWarmup(0.1),
    schedules.WarmupCosineDecay(0.0, 0.1, 3, 10),
    schedules.InverseSqrtDecay(0.1, 3),
    schedules.WarmupStableDecay(0.1, 3, 2, 5),
    schedules.PiecewiseInterpolate("linear", 0.1, [3, 6], [0.5, 3.0]),
    schedules.Cyclic(0.02, 0.1, 3, 4, scale_fn=schedules.StepDecay(1.0, 2, 0.5)),
    schedules.ConstantWarmup(0.1),
    schedules.WarmupConstant(0.0, 0.1, 3),
    schedules.WarmupExponentialDecay(0.0, 0.1, 3, 10, 0.5),
    schedules.Noam(512, 3),
    schedules.Multiplicative(0.1, schedules.LinearWarmup(1.0)),
    schedules.ChainedScheduler(0.1, [schedules.LinearWarmup(1.0), schedules.StepDecay(1.0, 3)]),
    schedules.ReduceLROnPlateau(0.1),
]
every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda x: type(x).__name__)


def values(case: Mapping[str, Any]) -> list[float]:
    """Return instep's values in a stored case."""
    schedule = make(case["schedule"], case["arguments"])
    if "metrics" not in case:
        return [schedule(step) for step in range(len(case["values"]))]
    rates = [schedule(0)]
    for epoch, metric in enumerate(case["metrics"], start=1):
        schedule.update(metric)
        rates.append(schedule(epoch))
    return rates


# Values -------------------------------------------------------------------------------------------


@every_case
def test_values_are_the_frameworks(case: Mapping[str, Any]) -> None:
    # torch's OneCycleLR passes below 0 on the step after the last.
    expected = np.maximum(case["values"], 0.0)
    np.testing.assert_allclose(values(case), expected, rtol=1e-13, atol=1e-14 * expected.max())


def test_every_schedule_of_a_framework_has_stored_values() -> None:
    own = {"InverseSqrtDecay", "Noam", "WarmupStableDecay"}
    assert {case["schedule"] for case in CASES} == set(schedules.__all__) - own


def test_stored_values_are_what_the_frameworks_return() -> None:
    for framework in ("jax", "keras", "optax", "torch"):
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")
    # The frameworks' precision is a global setting.
    run = subprocess.run(
        [sys.executable, FILE.with_suffix(".py"), "--print"],
        check=True,
        capture_output=True,
        text=True,
    )
    recorded = json.loads(run.stdout)["cases"]
    assert len(recorded) == len(CASES)
    for mine, stored in zip(recorded, CASES, strict=True):
        assert mine["schedule"] == stored["schedule"]
        assert json.dumps(mine["arguments"]) == json.dumps(stored["arguments"])
        np.testing.assert_allclose(mine["values"], stored["values"], rtol=1e-13, atol=1e-15)


GOLDEN = json.loads(FILE.with_name("keras_golden_schedules.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=[case["source"] for case in GOLDEN])
def test_golden_numbers_of_keras(case: Mapping[str, Any]) -> None:
    """The numbers in Keras's own tests, to what they allow, for steps of the type that is there."""
    schedule = make(case["schedule"], case["arguments"])
    for step, expected in case["golden"]:
        as_numpy = np.float32(step) if isinstance(step, float) else np.int64(step)
        for asked in (step, as_numpy, np.array(as_numpy)):
            assert schedule(asked) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_noam() -> None:
    schedule = schedules.Noam(512, 40, 2.0)
    expected = [2 * 512**-0.5 * min(n**-0.5, n * 40**-1.5) for n in range(1, 200)]
    np.testing.assert_allclose([schedule(n - 1) for n in range(1, 200)], expected, rtol=1e-14)
    same = schedules.InverseSqrtDecay(2 * (512 * 40) ** -0.5, 40)
    np.testing.assert_allclose([same(n) for n in range(1, 200)], expected, rtol=1e-14)


def test_inverse_square_root_of_the_transformer() -> None:
    d_model, warmup_steps = 512, 40
    schedule = schedules.InverseSqrtDecay((d_model * warmup_steps) ** -0.5, warmup_steps)
    expected = [d_model**-0.5 * min(n**-0.5, n * warmup_steps**-1.5) for n in range(1, 200)]
    np.testing.assert_allclose([schedule(n) for n in range(1, 200)], expected, rtol=1e-14)
    assert schedule(0) == 0


def test_inverse_square_root_of_t5() -> None:
    schedule = schedules.InverseSqrtDecay(100**-0.5, 100, initial_learning_rate=100**-0.5)
    expected = [1 / math.sqrt(max(n, 100)) for n in range(300)]
    np.testing.assert_allclose([schedule(n) for n in range(300)], expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("strategy", "weight"),
    [
        ("linear", lambda f: 1 - f),
        ("cos", lambda f: 0.5 * (1 + np.cos(np.pi * f))),
        ("1-sqrt", lambda f: 1 - np.sqrt(f)),
    ],
)
def test_warmup_stable_decay(strategy: Any, weight: Callable[[Any], Any]) -> None:
    schedule = schedules.WarmupStableDecay(0.1, 10, 20, 16, 0.02, 0.01, strategy)
    warmup = 0.02 + 0.08 * np.arange(10) / 10
    decay = 0.01 + 0.09 * weight(np.arange(16) / 16)
    expected = np.concatenate([warmup, np.full(20, 0.1), decay, np.full(9, 0.01)])
    np.testing.assert_allclose([schedule(s) for s in range(len(expected))], expected, rtol=1e-13)


def test_warmup_stable_decay_may_lack_warmup_and_stable_steps() -> None:
    schedule = schedules.WarmupStableDecay(0.1, 0, 0, 1, initial_learning_rate=5.0)
    assert [schedule(step) for step in range(3)] == [0.1, 0.0, 0.0]


def test_decay_that_grows() -> None:
    growing = schedules.ExponentialDecay(0.1, 1, 2.0)
    assert growing(10**6) == math.inf
    assert schedules.ExponentialDecay(0.1, 1, 2.0, end_value=3.0)(10**6) == 3.0
    assert schedules.ExponentialDecay(0.0, 1, 2.0)(10**6) == 0.0
    opt = instep.SGD([np.ones(3)], learning_rate=lambda step: growing(10**6))
    with pytest.raises(ValueError, match="finite"):
        opt.step([np.ones(3)])


@pytest.mark.parametrize("t_mul", [1.0, 1.1, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0])
def test_a_step_on_which_a_period_ends_restarts(t_mul: float) -> None:
    schedule = schedules.CosineDecayRestarts(0.1, 10, t_mul=t_mul)
    start, length = 0.0, 10.0
    for _ in range(12):
        if abs(start - round(start)) < 1e-9:
            assert schedule(round(start)) == 0.1
            assert start == 0 or schedule(round(start) - 1) < 0.01
        start, length = start + length, length * t_mul


def test_periods_of_any_number() -> None:
    annealing = schedules.CosineAnnealing(0.1, 7)
    restarts = schedules.CosineAnnealingWarmRestarts(0.1, 7)
    for step in range(14):
        assert annealing(step + 14 * 10**20) == annealing(step)
        assert restarts(step + 7 * 10**20) == restarts(step)
    doubling = schedules.CosineAnnealingWarmRestarts(0.1, 7, t_mult=2)
    assert doubling(7 * (2**60 - 1)) == 0.1
    assert doubling(7 * (2**60 - 1) + 7 * 2**59) == 0.05


def test_one_cycle_ends() -> None:
    cycle = schedules.OneCycle(0.1, 10)
    cycle(10)
    with pytest.raises(ValueError, match=r"step: .*total_steps \(10\), got 11"):
        cycle(11)


def test_one_cycle_skips_a_leg_of_no_length() -> None:
    assert schedules.OneCycle(0.1, 10, pct_start=0.1)(0) == 0.1
    assert schedules.OneCycle(0.1, 10, pct_start=1.0)(10) == 0.1 / 25 / 1e4
    linear = schedules.LinearOneCycle(10, 0.1, pct_start=0.5, pct_final=0.5)
    assert [linear(5), linear(6)] == pytest.approx([0.1, 0.1 / 25 * (0.8 + 0.2e-4)])


def test_joined_schedules_are_asked_from_their_own_start() -> None:
    asked: list[tuple[str, int]] = []

    def part(name: str) -> Callable[[int], float]:
        def schedule(step: int) -> float:
            asked.append((name, step))
            return 1.0

        return schedule

    joined = schedules.join_schedules([part("a"), part("b"), part("c")], [2, 4])
    for step in range(6):
        joined(step)
    assert asked == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1)]


def test_a_factor_is_asked_once_for_each_step() -> None:
    asked: list[int] = []

    def factor(step: int) -> float:
        asked.append(step)
        return 0.5

    schedule = schedules.Multiplicative(8.0, factor)
    assert [schedule(step) for step in (0, 1, 1, 1.5, 3, 3)] == [8, 4, 4, 4, 1, 1]
    assert asked == [1, 2, 3]
    assert schedule(2) == 2
    assert asked == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("answer", "error"),
    [(None, TypeError), ("1", TypeError), (-1, ValueError), (1e400, ValueError)],
)
def test_wrong_answers_of_functions_are_named(answer: Any, error: type[Exception]) -> None:
    def function(step: int) -> Any:
        return answer if step == 3 else 1.0

    factors = schedules.Multiplicative(0.1, function)
    with pytest.raises(error, match=r"^factor\(3\): expected .*number.*, got "):
        factors(5)
    assert factors(2) == 0.1
    for mode, step in (("cycle", 9), ("iterations", 3)):
        cyclic = untyped.Cyclic(0.1, 0.2, 2, scale_fn=function, scale_mode=mode)
        with pytest.raises(error, match=r"^scale_fn\(3\): expected .*number.*, got "):
            cyclic(step)


def test_an_interpolation_without_boundaries_is_constant() -> None:
    for kind in ("linear", "cosine", "constant"):
        schedule = untyped.PiecewiseInterpolate(kind, 0.1, [], [])
        assert [schedule(0), schedule(10**400)] == [0.1, 0.1]


def test_an_interpolation_reaches_far() -> None:
    schedule = schedules.PiecewiseInterpolate("linear", 0.1, [10**400], [0.5])
    assert schedule(0.5) == 0.1
    assert 0 <= schedule(10**400) <= 0.1


# Ranges -------------------------------------------------------------------------------------------

RATES = st.floats(0, 1e3)
FACTORS = st.floats(0, 10)
FRACTIONS = st.floats(0, 1)
POSITIVE = st.floats(1e-3, 1e6)
STEPS = st.integers(1, 1000) | st.integers(1, 2**61)
INDICES = st.just(0) | STEPS
BOUNDARIES = st.lists(INDICES, max_size=4).map(sorted)
# That can be asked for any step, and answer at once.
PARTS = st.sampled_from(
    [x for x in EXAMPLES if not isinstance(x, (schedules.OneCycle, schedules.Multiplicative))]
)

ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(["initial_learning_rate", "end_learning_rate", "eta_min"], RATES),
    **dict.fromkeys(["max_learning_rate", "learning_rate", "min_learning_rate"], RATES),
    **dict.fromkeys(["init_value", "peak_value"], RATES),
    **dict.fromkeys(["end_value", "warmup_target"], st.none() | RATES),
    **dict.fromkeys(["decay_steps", "first_decay_steps", "step_size", "t_max", "t_0"], STEPS),
    **dict.fromkeys(["total_steps", "transition_steps", "total_iters"], STEPS),
    **dict.fromkeys(["transition_begin", "warmup_steps", "stable_steps"], INDICES),
    **dict.fromkeys(["patience", "cooldown"], st.integers(0, 5)),
    **dict.fromkeys(["power", "exponent", "gamma", "m_mul", "threshold", "epsilon"], FACTORS),
    **dict.fromkeys(["alpha", "start_factor", "end_factor"], FRACTIONS),
    **dict.fromkeys(["pct_start", "pct_final", "factor"], st.floats(0, 1, exclude_max=True)),
    **dict.fromkeys(["div_factor", "final_div_factor"], POSITIVE),
    **dict.fromkeys(["staircase", "cycle", "three_phase"], st.booleans()),
    **dict.fromkeys(["step_size_up", "d_model"], STEPS),
    "base_learning_rate": RATES,
    "step_size_down": st.none() | STEPS,
    "scale_fn": st.none() | PARTS,
    "scale_mode": st.sampled_from(["cycle", "iterations"]),
    "interpolate_type": st.sampled_from(["linear", "cosine", "constant"]),
    "scales": st.none(),
    "schedules": st.lists(PARTS, max_size=4),
    "decay_rate": st.floats(1e-300, 1) | FACTORS.filter(bool),
    "t_mul": st.floats(1, 1 + 1e-9) | st.floats(1, 3) | st.floats(1, 1e6),
    "t_mult": st.integers(1, 1000),
    "boundaries": BOUNDARIES,
    "milestones": BOUNDARIES,
    "values": st.none(),
    "anneal_strategy": st.sampled_from(["cos", "linear"]),
    "mode": st.sampled_from(["min", "max"]),
    "threshold_mode": st.sampled_from(["rel", "abs"]),
}


def draw_arguments(data: st.DataObject, name: str) -> dict[str, Any]:
    """Draw all arguments of a class."""
    parameters = inspect.signature(CLASSES[name]).parameters
    drawn = {key: data.draw(ARGUMENTS[key], label=key) for key in parameters}
    if name == "PiecewiseConstantDecay":
        count = len(drawn["boundaries"]) + 1
        drawn["values"] = data.draw(st.lists(RATES, min_size=count, max_size=count))
    elif name == "PiecewiseInterpolate":
        count = len(drawn["boundaries"])
        drawn["scales"] = data.draw(st.lists(FACTORS, min_size=count, max_size=count))
    elif name in ("InverseSqrtDecay", "Noam", "WarmupConstant"):
        drawn["warmup_steps"] += 1
    elif name == "Cyclic":
        drawn["max_learning_rate"] += drawn["base_learning_rate"]
        drawn["mode"] = data.draw(st.sampled_from(["triangular", "triangular2", "exp_range"]))
    elif name == "Multiplicative":
        drawn["factor"] = data.draw(PARTS)
    elif name == "LinearOneCycle":
        drawn["pct_start"] *= drawn["pct_final"]
    elif name == "WarmupCosineDecay":
        drawn["warmup_steps"] %= drawn["decay_steps"]
        drawn["end_value"] = drawn["end_value"] or 0.0
    return drawn


@pytest.mark.parametrize("name", CLASSES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rates_are_never_negative_or_nan(name: str, data: st.DataObject) -> None:
    schedule = CLASSES[name](**draw_arguments(data, name))
    last = getattr(schedule, "total_steps", 1000 if name == "Multiplicative" else 10**400)
    for step in [0, 1, last, *data.draw(st.lists(st.integers(0, last), max_size=5))]:
        rate = schedule(min(step, last))
        assert type(rate) is float
        assert rate >= 0
        may_grow = "Exponential" in name or name in ("StepDecay", "MultiStepDecay", "Cyclic")
        assert math.isfinite(rate) or may_grow or getattr(schedule, "m_mul", 0) > 1


@given(parts=st.lists(PARTS, min_size=1, max_size=4), data=st.data())
@settings(max_examples=50, deadline=None)
def test_joined_rates(parts: list[Any], data: st.DataObject) -> None:
    count = len(parts) - 1
    boundaries = sorted(data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)))
    joined = schedules.join_schedules(parts, boundaries)
    for step in range(20):
        part = sum(boundary <= step for boundary in boundaries)
        start = boundaries[part - 1] if part else 0
        assert joined(step) == parts[part](step - start)


# Arguments ----------------------------------------------------------------------------------------


def test_the_list_of_names_is_complete() -> None:
    assert sorted(type(example).__name__ for example in EXAMPLES) == sorted(CLASSES)
    documented = str(schedules.__doc__)
    assert all(f"`{name}`" in documented for name in schedules.__all__)


@every_example
def test_every_argument_is_documented(example: Any) -> None:
    for name in inspect.signature(type(example)).parameters:
        assert name in str(type(example).__doc__).partition("Parameters")[2]


NOT_NUMBERS = ["1", None, True, np.True_, 1j, [1], np.ones(1)]


@every_example
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_wrong_arguments_are_named(example: Any, data: st.DataObject) -> None:
    fields = {field.name: field for field in dataclasses.fields(example) if field.init}
    good = {name: getattr(example, name) for name in fields}
    name = data.draw(st.sampled_from(sorted(good)))
    value = good[name]
    bad: list[tuple[Any, type[Exception]]] = []
    if isinstance(value, bool):
        bad = [(x, TypeError) for x in (1, None, "yes")]
    elif isinstance(value, str):
        bad = [(1, TypeError), (None, TypeError), ("other", ValueError)]
    elif isinstance(value, tuple):
        bad = [(x, TypeError) for x in (1, None, "123", {1: 2}, [None], ["1"], [True])]
        bad += [([-1], TypeError if name == "schedules" else ValueError)]
    elif callable(value):
        bad = [(x, TypeError) for x in (1.0, None, "abs", [abs])]
    elif isinstance(value, int):
        bad = [(x, TypeError) for x in [*NOT_NUMBERS, 1.0, math.nan]] + [(-1, ValueError)]
    else:
        bad = [(x, TypeError) for x in NOT_NUMBERS]
        bad += [(x, ValueError) for x in (-1.0, -1e-300, math.nan, math.inf, -math.inf)]
    if fields[name].default is None:
        bad = [(x, error) for x, error in bad if x is not None]
    wrong, error = data.draw(st.sampled_from(bad))
    with pytest.raises(error, match=rf"^{name}(\[0\])?: expected .*, got "):
        type(example)(**{**good, name: wrong})


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "ExponentialDecay",
            (0.1, 0, 0.5),
            "decay_steps: expected a whole number >= 1, and at most",
        ),
        ("ExponentialDecay", (0.1, 9, 0.0), "decay_rate: expected a finite number > 0, got 0.0"),
        ("PiecewiseConstantDecay", ([3, 1], [1, 1, 1]), r"boundaries: .* increasing .*\[3, 1\]"),
        ("PiecewiseConstantDecay", ([3], [1]), "values: expected one more than the 1 .* got 1"),
        ("PiecewiseConstantDecay", ([3.0], [1, 1]), r"boundaries\[0\]: .* whole number, got 3.0"),
        ("PiecewiseConstantDecay", ([3], [1, -1]), r"values\[1\]: .* >= 0, got -1"),
        ("MultiStepDecay", (0.1, [3, 1]), r"milestones: .* increasing order, got \[3, 1\]"),
        ("CosineDecayRestarts", (0.1, 3, 0.5), "t_mul: expected a finite number >= 1 .* got 0.5"),
        ("CosineDecayRestarts", (0.1, 3, 2, 1, 2), "alpha: .* >= 0 and <= 1, got 2"),
        ("OneCycle", (0.1, 5, 0.3, "sine"), "anneal_strategy: expected 'cos' or 'linear', got 's"),
        ("OneCycle", (1e300, 5, 0.3, "cos", 1e-300), "div_factor, final_div_factor: .* inf"),
        ("CosineOneCycle", (5, 1.0, 0.3, 1e-200, 1e-200), "div_factor, final_div_factor: .* inf"),
        ("CosineOneCycle", (5, 1.0, 1.0), "pct_start: expected .* < 1, got 1.0"),
        ("LinearOneCycle", (5, 1.0, 0.9), r"pct_start: .* pct_final \(0.85\), got 0.9"),
        ("LinearWarmup", (0.1, 1.5), "start_factor: .* <= 1, got 1.5"),
        ("WarmupCosineDecay", (0, 1, 5, 5), "decay_steps: expected more than the 5 .* got 5"),
        (
            "WarmupStableDecay",
            (1, 2, 3, 0),
            "decay_steps: expected a whole number >= 1, and at most",
        ),
        ("InverseSqrtDecay", (0.1, 0), "warmup_steps: expected a whole number >= 1, and at most"),
        ("ReduceLROnPlateau", (0.1, "min", 1.0), "factor: .* < 1, got 1.0"),
        ("Cyclic", (0.2, 0.1), r"max_learning_rate: .* base_learning_rate \(0.2\), got 0.1"),
        ("Cyclic", (0.1, 0.2, 0), "step_size_up: expected a whole number >= 1, and at most"),
        ("Cyclic", (0.1, 0.2, 1, 0), "step_size_down: expected a whole number >= 1, and at most"),
        ("Cyclic", (0.1, 0.2, 1, 1, "sine"), "mode: expected 'triangular' or .*, got 'sine'"),
        ("ConstantWarmup", (0.1, 1.5), "factor: .* <= 1, got 1.5"),
        (
            "WarmupConstant",
            (0.1, 0.2, 0),
            "warmup_steps: expected a whole number >= 1, and at most",
        ),
        (
            "WarmupExponentialDecay",
            (0, 1, 5, 5, 0.0),
            "decay_rate: expected a finite number > 0, got 0.0",
        ),
        ("PiecewiseInterpolate", ("step", 1, [], []), "interpolate_type: .* got 'step'"),
        ("PiecewiseInterpolate", ("linear", 1, [3], []), "scales: .* each of the 1 bou.* got 0"),
        ("PiecewiseInterpolate", ("linear", 1, [3], [-1]), r"scales\[0\]: .* >= 0, got -1"),
        ("PiecewiseInterpolate", ("linear", 1, [3, 1], [1, 1]), "boundaries: .* increasing .*"),
        ("PiecewiseInterpolate", ("linear", 10, [3], [1e308]), "scales: .* finite rates, got .*"),
        ("Noam", (0,), "d_model: expected a whole number >= 1, and at most"),
        ("Multiplicative", (0.1, 0.9), "factor: expected a schedule, got 0.9"),
        ("ChainedScheduler", (0.1, [0.9]), r"schedules\[0\]: expected a schedule, got 0.9"),
        ("sgdr_schedule", ([],), "cosine_kwargs: expected at least one cycle, got none"),
        ("sgdr_schedule", ([3],), r"cosine_kwargs\[0\]: expected a dict of .*, got 3"),
        (
            "sgdr_schedule",
            ([{"init_value": 0, "peak_value": 1, "warmup_steps": 5, "decay_steps": 5}],),
            r"cosine_kwargs\[0\]: decay_steps: expected more than the 5 .* got 5",
        ),
        ("sgdr_schedule", ([{"peak": 1}],), r"cosine_kwargs\[0\]: .* unexpected .* 'peak'"),
        ("join_schedules", ([abs], [1]), "schedules: expected one more than the 1 .* got 1"),
        ("join_schedules", ([abs, 0.1], [1]), r"schedules\[1\]: expected a schedule, got 0.1"),
        ("join_schedules", (abs, []), "schedules: expected a sequence, got <"),
        ("join_schedules", ([abs, abs], [-1]), r"boundaries\[0\]: .* >= 0, got -1"),
    ],
)
def test_errors_say_what_is_expected(name: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        getattr(untyped, name)(*arguments)


@pytest.mark.parametrize("example", [*EXAMPLES, schedules.join_schedules([EXAMPLES[0]], [])])
def test_a_step_is_a_number_from_0(example: Any) -> None:
    for step in ("1", None, True, np.True_, np.ones(1), 1j):
        with pytest.raises(TypeError, match=r"^step: expected a number, got "):
            example(step)
    for step in (-(10**400), -(10**5000), math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^step: expected a finite number.*, got "):
            example(step)
    for step in (-1, np.int64(-1), -0.5):
        if isinstance(example, schedules.PiecewiseConstantDecay):  # one of Keras's tests asks so
            assert example(step) == example(0)
            continue
        with pytest.raises(ValueError, match=r"^step: expected a finite number >= 0, got "):
            example(step)
    for step in (np.int64(3), np.uint8(3), 3.0, np.float32(3), np.array(3), np.array(3.0)):
        assert example(step) == example(3)


@pytest.mark.parametrize("example", EXAMPLES)
def test_between_steps_a_rate_lies_between_those_of_its_neighbours(example: Any) -> None:
    """As far as it does not jump or turn there, which is at a few steps only."""
    outside = 0
    for step in range(20):
        rates = sorted([example(step), example(step + 1)])
        outside += not rates[0] - 1e-15 <= example(step + 0.5) <= rates[1] + 1e-15
    assert outside <= 6


def test_keras_asks_for_steps_that_are_floats() -> None:
    """The values of its own tests, of schedules that are called with 5.0 there."""
    decay = schedules.CosineDecay(1.0, 10)
    assert decay(np.float32(5)) == decay(5) == pytest.approx(0.5)
    inverse = schedules.InverseTimeDecay(0.1, 10, 0.5)
    assert inverse(2.5) == pytest.approx(0.1 / (1 + 0.5 * 0.25))


def test_numbers_of_numpy() -> None:
    plain = schedules.ExponentialDecay(0.5, 3, 0.25)
    numpy = untyped.ExponentialDecay(np.float32(0.5), np.int32(3), np.float64(0.25))
    assert repr(numpy) == repr(plain)
    steps = untyped.PiecewiseConstantDecay(np.array([3, 5]), np.array([1.0, 0.5, 0.25]))
    assert steps == schedules.PiecewiseConstantDecay([3, 5], [1, 0.5, 0.25])


# Objects ------------------------------------------------------------------------------------------

VALUES = [
    *[example for example in EXAMPLES if not isinstance(example, schedules.ReduceLROnPlateau)],
    schedules.join_schedules(EXAMPLES[:2], [3]),
    schedules.sgdr_schedule(
        [
            {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 1, "decay_steps": k}
            for k in (3, 9)
        ]
    ),
]


@pytest.mark.parametrize("schedule", VALUES, ids=lambda x: type(x).__name__)
def test_schedules_are_values(schedule: Any) -> None:
    twins = [
        copy.copy(schedule),
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
        eval(repr(schedule), vars(schedules)),
    ]
    for twin in twins:
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        assert repr(twin) == repr(schedule)
        assert twin(7) == schedule(7)
    assert len({*VALUES}) == len(VALUES)
    first = dataclasses.fields(schedule)[0].name
    with pytest.raises(AttributeError):
        setattr(schedule, first, 1)


def test_equal_arguments_make_equal_schedules() -> None:
    assert schedules.StepDecay(1, 3) == schedules.StepDecay(1.0, 3, gamma=0.1)
    assert schedules.StepDecay(1, 3) != schedules.StepDecay(1, 4)
    boundaries = [3]
    schedule = schedules.MultiStepDecay(1.0, boundaries)
    boundaries.append(5)
    assert schedule == schedules.MultiStepDecay(1.0, (3,))


# Plateaus -----------------------------------------------------------------------------------------


def reduced() -> schedules.ReduceLROnPlateau:
    """Return one in the middle of things."""
    plateau = schedules.ReduceLROnPlateau(0.1, factor=0.5, patience=1, cooldown=2)
    for metric in (3.0, 2.0, math.nan, 2.0, 2.0):
        plateau.update(metric)
    return plateau


def test_a_plateau_shows_its_state() -> None:
    plateau = reduced()
    assert (plateau.learning_rate, plateau.best) == (0.05, 2.0)
    assert plateau(0) == plateau(10**400) == 0.05
    assert "patience=1" in repr(plateau)
    assert "0.05" in repr(plateau)
    state = {"mode": "min", "learning_rate": 0.05, "best": 2.0}
    assert plateau.state_dict() == state | {"num_bad_epochs": 0, "cooldown_counter": 1}


def test_a_plateau_goes_on_from_its_state_and_from_copies() -> None:
    plateau = reduced()
    loaded = schedules.ReduceLROnPlateau(9.0, factor=0.5, patience=1, cooldown=2)
    loaded.load_state_dict(json.loads(json.dumps(plateau.state_dict())))
    others = [loaded, copy.deepcopy(plateau), pickle.loads(pickle.dumps(plateau))]
    for metric in (2.0, 2.0, 2.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0):
        for each in (plateau, *others):
            each.update(metric)
        assert all(other.state_dict() == plateau.state_dict() for other in others)
    assert plateau.learning_rate == 0.00625


def test_a_new_plateau_loads() -> None:
    for mode in ("min", "max"):
        plateau = untyped.ReduceLROnPlateau(0.1, mode)
        plateau.load_state_dict(plateau.state_dict())
        assert plateau.best == (math.inf if mode == "min" else -math.inf)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mode": "max"}, ValueError, r"state\['mode'\]: expected 'min', got 'max'"),
        ({"learning_rate": -1.0}, ValueError, r"state\['learning_rate'\]: .* got -1.0"),
        ({"learning_rate": "1"}, TypeError, r"state\['learning_rate'\]: .* got '1'"),
        ({"best": math.nan}, ValueError, r"state\['best'\]: .* got nan"),
        ({"best": None}, TypeError, r"state\['best'\]: .* got None"),
        ({"num_bad_epochs": 1.5}, TypeError, r"state\['num_bad_epochs'\]: .* got 1.5"),
        ({"cooldown_counter": -1}, ValueError, r"state\['cooldown_counter'\]: .* got -1"),
        ({"more": 1}, ValueError, "state: expected the keys .* got .*'more'"),
    ],
)
def test_wrong_states_change_nothing(
    change: Mapping[str, Any], error: type[Exception], message: str
) -> None:
    plateau = reduced()
    before = plateau.state_dict()
    with pytest.raises(error, match=message):
        plateau.load_state_dict({**before, "learning_rate": 7.0, **change})
    assert plateau.state_dict() == before


def test_states_that_are_none() -> None:
    plateau: Any = reduced()
    before = plateau.state_dict()
    with pytest.raises(TypeError, match="state: expected a dict, got 3"):
        plateau.load_state_dict(3)
    with pytest.raises(ValueError, match="state: expected the keys"):
        plateau.load_state_dict({})
    for metric in ("1", None, True, 1j, [1.0]):
        with pytest.raises(TypeError, match=r"^metric: expected a number, got "):
            plateau.update(metric)
    assert plateau.state_dict() == before
    plateau.update(np.float32(0.5))
    plateau.update(np.array(0.25))
    assert plateau.best == 0.25


# In an optimizer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", VALUES, ids=lambda x: type(x).__name__)
def test_optimizers_step_with_the_scheduled_rate(schedule: Any) -> None:
    param, expected = np.zeros(4), np.zeros(4)
    grad = np.array([1.0, -2.0, 0.5, 0.0])
    opt = instep.SGD([param], learning_rate=schedule)
    for step in range(15):
        assert opt.current_learning_rate == schedule(step)
        opt.step([grad])
        expected -= schedule(step) * grad
        np.testing.assert_allclose(param, expected, rtol=1e-15)
    assert pickle.loads(pickle.dumps(opt)).learning_rate == schedule


def test_optimizers_step_with_the_rate_of_a_plateau() -> None:
    plateau = schedules.ReduceLROnPlateau(0.5, patience=0, factor=0.5)
    param = np.zeros(1)
    opt = instep.SGD([param], learning_rate=plateau)
    for metric in (1.0, 1.0, 1.0):
        opt.step([np.ones(1)])
        plateau.update(metric)
    assert param[0] == -(0.5 + 0.5 + 0.25)
