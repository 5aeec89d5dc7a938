"""Numbers at the ends of their ranges: right, or infinite and NaN where that is documented."""

from __future__ import annotations

import copy
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from model import snapshot
from references import REFERENCES, assert_rounded, slots

import instep
from instep._core import build_info
from instep.typing import Convention

Floats = npt.NDArray[np.floating[Any]]

each_rule = pytest.mark.parametrize("rule", REFERENCES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
MOST = {np.float32: float(np.finfo(np.float32).max), np.float64: float(np.finfo(float).max)}

# --- where numbers that are not finite get to ---------------------------------------------------

# Rules whose norms, means or maxima bring them to more of an array than one element.
WHOLE_ARRAY = {name for name, reference in REFERENCES.items() if not reference.elementwise}
WHOLE_ARRAY.remove("Prodigy")
# A sign is all that these take from a gradient.
FINITE = {"Rprop", "SignSGD"}


def trained_with(rule: str, bad: float | None, dtype: Any) -> list[Floats]:
    """Two arrays after two steps, a number of the first gradient being bad."""
    params = [np.ones((3, 4), dtype), np.ones(3, dtype)]
    opt = getattr(instep, rule)(params)
    first = np.full((3, 4), 0.5, dtype)
    if bad is not None:
        first[1, 2] = bad
    opt.step([first, np.ones(3, dtype)])
    opt.step([np.full((3, 4), 0.5, dtype), np.ones(3, dtype)])
    return params


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@each_dtype
@each_rule
def test_a_number_that_is_not_finite_spoils_no_more_than_it_must(
    rule: str, dtype: Any, bad: float
) -> None:
    clean, other = trained_with(rule, None, dtype)
    spoiled, beside = trained_with(rule, bad, dtype)
    if rule != "ClipUp":  # its norms are those of all arrays
        assert beside.tobytes() == other.tobytes()
    if rule not in WHOLE_ARRAY:
        elsewhere = np.ones((3, 4), bool)
        elsewhere[1, 2] = False
        assert spoiled[elsewhere].tobytes() == clean[elsewhere].tobytes()
    assert np.isfinite(spoiled[1, 2]) == (rule in FINITE and not np.isnan(bad))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@each_rule
def test_no_rule_takes_it_where_it_is_skipped(rule: str, bad: float) -> None:
    opt = getattr(instep, rule)([np.ones((3, 4)), np.ones(())], skip_nonfinite=True, use_ema=True)
    opt.step([np.ones((3, 4)), 0.5])
    expected = copy.deepcopy(opt)
    for grads in ([np.full((3, 4), bad), 0.5], [np.ones((3, 4)), bad], [None, bad]):
        opt.step(grads)
    assert opt.skipped_steps == 3
    saved = opt.state_dict()
    opt.load_state_dict({**saved, "skipped_steps": 0})
    assert snapshot(opt) == snapshot(expected)


@each_dtype
@pytest.mark.parametrize("options", [{}, {"global_clipnorm": 1.0}, {"clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("split", [False, True])
def test_the_largest_numbers_are_finite(dtype: Any, options: dict[str, Any], split: bool) -> None:
    """Nothing is skipped because a sum or a norm of finite numbers overflows."""
    params = [np.zeros(9, dtype), np.zeros(9, dtype)]
    opt = instep.SignSGD(params, learning_rate=0.5, skip_nonfinite=True, **options)
    large = np.full(9, MOST[dtype], dtype)
    opt.step([large, large if split else np.zeros(9, dtype)])
    assert (opt.skipped_steps, opt.iterations) == (0, 1)
    opt.step([large, np.array([np.nan] + [1] * 8, dtype)])
    assert (opt.skipped_steps, opt.iterations) == (1, 1)


# --- exact references ---------------------------------------------------------------------------

EXACT = Context(prec=60, Emax=10**6, Emin=-(10**6))


def assert_nearly(actual: Any, expected: Decimal, dtype: Any, ulps: int = 6) -> None:
    """Compare within some units in the last place; beyond the range there is infinity or zero."""
    number, info = Decimal(float(actual)), np.finfo(dtype)
    if abs(expected) > Decimal(float(info.max)):
        assert number.is_infinite(), (actual, expected)
        assert (number > 0) == (expected > 0)
        return
    with localcontext(EXACT):
        tolerance = ulps * max(abs(expected) * Decimal(float(info.eps)), Decimal(float(info.tiny)))
        assert number.is_finite(), (actual, expected)
        assert abs(number - expected) <= tolerance, (actual, expected)


def descended(dtype: Any, grads: Floats, **options: Any) -> Floats:
    """Zeros after a step of gradient descent with a learning rate of 1."""
    param = np.zeros(grads.shape, dtype)
    instep.SGD(param, **{"learning_rate": 1.0, **options}).step(grads)
    return param


SIZES = [1e-37, 1e-30, 1e-8, 1.0, 1e8, 1e30, 1e35, 1e36, 1e38, 3e38]
DOUBLES = [1e-150, 1e160, 1e300]


@pytest.mark.parametrize("limit", [1e-300, 1e-30, 1e-3, 1.0, 1e3, 1e30, 1e300])
@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
@each_dtype
def test_clipping_of_any_norm_to_any_norm(dtype: Any, clip: str, limit: float) -> None:
    for size in [*SIZES, *(DOUBLES if dtype == np.float64 else [])]:
        g = np.array([size, 0.0, -size], dtype)
        result = descended(dtype, g, **{clip: limit})
        with localcontext(EXACT):
            exact = Decimal(float(g[0]))
            norm = exact * Decimal(2).sqrt()
            expected = exact * min(Decimal(1), Decimal(limit) / norm)
        assert_nearly(-result[0], expected, dtype)
        assert_nearly(result[2], expected, dtype)
        assert result[1] == 0


@pytest.mark.parametrize("exponent", [-1000, -300, -140, -100, 0, 100, 140, 300, 1000])
@each_dtype
def test_any_loss_scale(dtype: Any, exponent: int) -> None:
    """Powers of two, so that nothing is rounded: what is scaled by them is exact."""
    scale, info = 2.0**exponent, np.finfo(dtype)
    for power in range(-1000, 1001, 50):
        wanted = power - exponent
        if not info.minexp < power < info.maxexp:
            continue
        g = np.array([2.0**power, 0.0], dtype)
        result = descended(dtype, g, loss_scale_factor=scale)
        exact = Decimal(2) ** wanted
        assert_nearly(-result[0], exact, dtype, ulps=1)
        assert result[1] == 0


@pytest.mark.parametrize("rate", [1e-37, 1e-30, 1.0, 1e30, 1e38])
@each_dtype
def test_any_learning_rate(dtype: Any, rate: float) -> None:
    for size in SIZES:
        g = np.array([size, 0.0], dtype)
        result = descended(dtype, g, learning_rate=rate)
        with localcontext(EXACT):
            expected = Decimal(rate) * Decimal(float(g[0]))
        assert_nearly(-result[0], expected, dtype)
        assert result[1] == 0


@pytest.mark.parametrize("number", [1e-300, 1e-39, 1e38, 1e300])
@pytest.mark.parametrize("name", ["learning_rate", "l2", "weight_decay", "clipvalue", "clipnorm"])
@each_dtype
def test_extreme_numbers_leave_zeros_alone(dtype: Any, name: str, number: float) -> None:
    if number > float(np.finfo(dtype).max) and not name.startswith("clip"):
        number = float(np.finfo(dtype).max)  # beyond it is infinity, and infinity times 0 is NaN
    param = np.zeros(2, dtype)
    options: dict[str, Any] = {"learning_rate": 1.0, name: number}
    instep.SGD(param, **options).step(np.array([1.0, 0.0], dtype))
    assert param[1] == 0
    if name in ("l2", "weight_decay"):
        assert param[0] == -1


def adam(
    grads: list[float], steps: list[int], rate: float, b1: float, b2: float, eps: float
) -> Decimal:
    """How far Adam comes from 0, in exact arithmetic."""
    with localcontext(EXACT):
        beta_1, beta_2 = Decimal(b1), Decimal(b2)
        m = v = p = Decimal(0)
        for g, t in zip(map(Decimal, grads), steps, strict=True):
            m = beta_1 * m + (1 - beta_1) * g
            v = beta_2 * v + (1 - beta_2) * g * g
            root = (v / (1 - beta_2**t)).sqrt() + Decimal(eps)
            p -= Decimal(rate) * m / (1 - beta_1**t) / root
        return p


BETAS = [0.0, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12, 1 - 2.0**-53]


@pytest.mark.parametrize("beta_1", BETAS)
@pytest.mark.parametrize("beta_2", BETAS)
@each_dtype
def test_adam_with_any_betas(dtype: Any, beta_1: float, beta_2: float) -> None:
    param = np.zeros(1, dtype)
    opt = instep.Adam(param, learning_rate=0.5, beta_1=beta_1, beta_2=beta_2)
    grads = [float(dtype(g)) for g in (1.0, -0.75, 0.5, 2.0, 1.5, 0.3, -0.1)]
    for g in grads:
        opt.step(np.array([g], dtype))
    expected = adam(grads, [*range(1, len(grads) + 1)], 0.5, beta_1, beta_2, 1e-8)
    error = abs(Decimal(float(param[0])) - expected)
    # Of terms of at most 0.5 each.
    assert error <= Decimal(4 * len(grads) * float(np.finfo(dtype).eps)), float(error)


@pytest.mark.parametrize("epsilon", [0.0, 1e-300, 1e-45, 1e-39, 1e-30, 1e-8, 1e30, 1e39, 1e300])
# Of less than 1e-19, the square is zero in float32.
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
@each_dtype
def test_adam_with_any_epsilon(dtype: Any, epsilon: float, size: float) -> None:
    param = np.zeros(2, dtype)
    instep.Adam(param, learning_rate=0.5, epsilon=epsilon).step(np.array([size, 0.0], dtype))
    expected = adam([float(dtype(size))], [1], 0.5, 0.9, 0.999, epsilon)
    assert_nearly(param[0], expected, dtype)
    assert param[1] == 0 or epsilon < np.finfo(dtype).tiny  # 0 / 0 is what that says


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_a_window_longer_than_any_training(rule: str) -> None:
    param = np.ones(2)
    opt = getattr(instep, rule)(param, gradient_accumulation_steps=2**62)
    for _ in range(3):
        opt.step(np.ones(2))
    assert (opt.iterations, opt.state_dict()["window"]) == (0, 3)
    assert param.tolist() == [1.0, 1.0]
    saved = opt.state_dict()
    saved["window"] = 2**62 - 1
    opt.load_state_dict(saved)
    opt.step(np.ones(2))
    assert opt.iterations == 1
    assert np.isfinite(param).all()


@pytest.mark.parametrize("size", [1e-25, 1e-10, 1e10, 1e25, 1e37])
@pytest.mark.parametrize("rule", ["Lars", "Fromage", "NovoGrad", "Muon"])
def test_a_norm_takes_the_size_out_of_gradients_of_any_size(rule: str, size: float) -> None:
    """As in float64, in which there is room for all of them."""
    g = np.float32(size) * np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    options = {"learning_rate": 0.5} if rule == "Fromage" else {"epsilon": 0.0}
    params: list[Any] = [np.ones((2, 2), np.float32), np.ones((2, 2))]
    for param in params:
        getattr(instep, rule)(param, **options).step(g)
    np.testing.assert_allclose(params[0], params[1], rtol=1e-4)


# --- counts beyond any training -----------------------------------------------------------------

COUNTS = [2**31, 2**53, 2**62]


@pytest.mark.parametrize("count", COUNTS)
# RAdam's reference takes as many terms.
@pytest.mark.parametrize("rule", [rule for rule in REFERENCES if rule != "RAdam"])
def test_the_update_after_very_many(rule: str, count: int) -> None:
    reference = REFERENCES[rule]
    rng = np.random.default_rng(0)
    for configuration in reference.configurations:
        param, first, second = rng.normal(size=(3, 3, 4))
        opt = getattr(instep, rule)(param, **configuration)
        opt.step(first)
        saved = opt.state_dict()
        saved["iterations"] = saved["arrays"]["params"]["step"] = count - 1
        opt.load_state_dict(saved)
        state = {slot: value.copy() for slot, value in slots(opt).items()}
        expected, new = reference.step(param.copy(), second, state, count, configuration)
        opt.step(second)
        assert opt.iterations == count
        assert_rounded(param, expected, np.float64, reference)
        for slot, value in new.items():
            assert_rounded(opt.state[slot], value, np.float64, reference)


@pytest.mark.parametrize("count", [*COUNTS, 2**63 - 2, 2**63 - 1])
@pytest.mark.parametrize("kernel", ["adam", "nadam", "radam", "adamax", "adabelief"])
@each_dtype
def test_kernels_at_very_large_counts(kernel: str, dtype: Any, count: int) -> None:
    param, g = np.zeros(3, dtype), np.ones(3, dtype)
    state: list[Any] = [np.full(3, 0.5, dtype), np.full(3, 0.25, dtype)]
    if kernel == "nadam":
        state.append(np.ones(()))
    try:
        getattr(instep.kernels, kernel)(param, g, *state, step=count, learning_rate=1.0)
    except ValueError:  # as there must be room for the next one
        assert count > 2**62
        return
    assert np.isfinite(param).all()
    assert (param < 0).all()
    if kernel == "adam":
        expected = Decimal("0.55") / (Decimal("0.25075").sqrt() + Decimal("1e-8"))
        assert_nearly(-param[0], expected, dtype)


def loads(opt: Any, saved: Any, word: str) -> bool:
    """Whether a state with an enormous count is taken; if not, the error names it."""
    before, message = snapshot(opt), ""
    try:
        opt.load_state_dict(saved)
    except ValueError as error:
        message = str(error)
    if message:
        assert word in message
        assert snapshot(opt) == before
    return not message


@pytest.mark.parametrize("count", ["iterations", "skipped_steps", "calls", "step"])
def test_counts_end_where_they_can_still_be_loaded(count: str) -> None:
    opt = instep.Adam(np.ones(2), skip_nonfinite=True)

    def entry(state: Any) -> Any:
        return state["arrays"]["params"] if count == "step" else state

    saved = opt.state_dict()
    for too_many in (2**62 + 1, 2**63 - 1, 2**63, 2**64):
        entry(saved)[count] = too_many
        assert not loads(opt, saved, count)
    entry(saved)[count] = 2**62 - 1
    for _ in range(3):
        assert loads(opt, saved, count)
        opt.step(np.full(2, np.nan if count == "skipped_steps" else 1.0))
        saved = opt.state_dict()
        assert entry(saved)[count] == 2**62


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("convention", ["paper", "keras"])
def test_schedules_are_asked_for_very_large_indices(count: int, convention: Convention) -> None:
    asked = []

    def rate(update: int) -> float:
        asked.append(update)
        return 0.5

    param = np.ones(2)
    opt = instep.SGD(
        param, learning_rate=rate, gradient_accumulation_steps=3, convention=convention
    )
    saved = opt.state_dict()
    saved["iterations"], saved["window"], saved["calls"] = count, 2, count + 1
    if not loads(opt, saved, "calls"):
        return
    opt.step(np.ones(2))
    assert asked == [count + 1 if convention == "keras" else count]
    assert opt.iterations == min(count + 1, 2**62)


@pytest.mark.parametrize(
    "schedule",
    [
        instep.schedules.CosineDecay(0.1, 1000),
        instep.schedules.ExponentialDecay(0.1, 1000, 0.5),
        instep.schedules.InverseSqrtDecay(0.1, 1000),
        instep.schedules.CosineDecayRestarts(0.1, 1000),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_at_very_large_indices(schedule: Callable[[int], float]) -> None:
    param = np.ones(2)
    opt = instep.SGD(param, learning_rate=schedule)
    saved = opt.state_dict()
    saved["iterations"] = 2**62
    opt.load_state_dict(saved)
    opt.step(np.ones(2))
    assert param[0] == 1 - schedule(2**62)


# --- subnormal numbers --------------------------------------------------------------------------

SUBNORMALS: Mapping[Any, list[float]] = {
    np.float32: [0.0, -0.0, 1e-45, -1e-40, 1.1754942e-38, 1.1754944e-38, 1e-30, 1e-20, 1.0],
    np.float64: [0.0, -0.0, 5e-324, -1e-310, 2.2250738585072e-308, 2.3e-308, 1e-200, 1e-155, 1.0],
}


def hash_of_subnormals() -> str:
    """What every rule and option makes of subnormal numbers, where layouts must not matter."""
    result = hashlib.sha256()
    options: list[dict[str, Any]] = [
        {},
        {"l2": 0.1, "weight_decay": 0.1, "clipvalue": 1e-39, "use_ema": True, "ema_momentum": 0.5},
        {"gradient_accumulation_steps": 2, "loss_scale_factor": 0.5, "skip_nonfinite": True},
    ]
    for rule in REFERENCES:
        if rule == "Muon":  # whose products are the BLAS's
            continue
        for dtype, numbers in SUBNORMALS.items():
            rng = np.random.default_rng(0)
            for option in options:
                param = rng.choice(numbers, (7, 11)).astype(dtype)
                forms = [param, *([strided(param)] if REFERENCES[rule].elementwise else [])]
                opts = [getattr(instep, rule)(each, **option) for each in forms]
                for _ in range(4):
                    g = rng.choice(numbers, (7, 11)).astype(dtype)
                    for opt in opts:
                        opt.step(g)
                contents = [b"".join(map(bytes_of, [o.params, *slots(o).values()])) for o in opts]
                assert contents.count(contents[0]) == len(contents), (rule, dtype, option)
                result.update(contents[0])
    return result.hexdigest()


def strided(a: Floats) -> Floats:
    room = np.zeros((14, 22), a.dtype)[::2, ::2]
    room[...] = a
    return room


def bytes_of(a: Floats) -> bytes:
    return np.where(np.isnan(a), 7, a).tobytes()  # a NaN's sign is nobody's promise


def test_subnormal_numbers_give_the_same_bits_everywhere() -> None:
    expected = hash_of_subnormals()
    before = instep.get_num_threads()
    try:
        instep.set_num_threads(3)
        assert hash_of_subnormals() == expected
    finally:
        instep.set_num_threads(before)
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    for isa in build_info()["isa_built"]:
        run = subprocess.run(
            [sys.executable, __file__],
            env={**os.environ, "INSTEP_ISA": isa},
            capture_output=True,
            text=True,
            check=False,
        )
        if isa != "baseline" and "this processor" in run.stderr:
            continue
        assert run.stdout.split() == [expected], run.stderr


@each_dtype
@each_rule
def test_subnormal_parameters_and_results_count_as_zero(rule: str, dtype: Any) -> None:
    param = np.full((2, 3), np.finfo(dtype).tiny / 4, dtype)
    opt = getattr(instep, rule)(param)
    opt.step(np.full((2, 3), np.finfo(dtype).tiny / 8, dtype))
    assert rule == "Muon" or not param.any() or (np.abs(param) >= np.finfo(dtype).tiny).all()


if __name__ == "__main__":
    print(hash_of_subnormals())
