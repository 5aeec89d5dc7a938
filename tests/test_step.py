"""What a step computes: options in their order, skipped calls, missing gradients, clocks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model import Array, Hyper, Leaf, Model, adam, freeze, sgd
from optimizers import close, halving

import instep

RULES: dict[str, Any] = {"SGD": (instep.SGD, sgd), "Adam": (instep.Adam, adam)}


# --- every combination of options against the model ---------------------------------------------


@dataclass(frozen=True)
class Case:
    rule: str
    dtype: str
    options: dict[str, Any]
    shapes: list[tuple[int, ...]]
    overrides: list[dict[str, Any]]
    calls: list[list[str]]
    seed: int


OWN: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.8, "dampening": 0.3},
    ],
    "Adam": [{}, {"amsgrad": True}, {"beta_1": 0.5, "beta_2": 0.8, "epsilon": 1e-3}],
}
OWN_OVERRIDE: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.6}, "Adam": {"beta_1": 0.7}}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rule = draw(st.sampled_from(sorted(RULES)))
    # Adam divides by the size of the gradient: only float64 compares within a fixed tolerance.
    dtype = draw(st.sampled_from(["float32", "float64"])) if rule == "SGD" else "float64"
    rate = st.sampled_from([0.1, 0.03, halving])
    clip = draw(st.sampled_from([None, "clipvalue", "clipnorm", "global_clipnorm"]))
    options: dict[str, Any] = {
        "learning_rate": draw(rate),
        **draw(st.sampled_from(OWN[rule])),
        **({clip: draw(st.sampled_from([0.8, 1.7]))} if clip else {}),
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "l2": st.just(0.05),
                    "weight_decay": st.just(0.1),
                    "maximize": st.booleans(),
                    "loss_scale_factor": st.sampled_from([4.0, 0.3]),
                    "skip_nonfinite": st.just(True),
                    "gradient_accumulation_steps": st.sampled_from([2, 3]),
                },
            )
        ),
        **draw(
            st.one_of(
                st.just({}),
                st.fixed_dictionaries(
                    {"use_ema": st.just(True), "ema_momentum": st.sampled_from([0.5, 0.9])},
                    optional={"ema_overwrite_frequency": st.sampled_from([1, 2, 3])},
                ),
            )
        ),
    }
    override = st.fixed_dictionaries(
        {},
        optional={
            "learning_rate": rate,
            "l2": st.just(0.02),
            "weight_decay": st.just(0.3),
            "maximize": st.booleans(),
            **({clip: st.just(0.5)} if clip in ("clipvalue", "clipnorm") else {}),
            **({"clipnorm": st.just(0.6)} if clip is None else {}),
            **{name: st.just(value) for name, value in OWN_OVERRIDE[rule].items()},
        },
    )
    shapes = draw(
        st.lists(st.sampled_from([(), (5,), (2, 3), (0,), (2, 1, 4)]), min_size=1, max_size=4)
    )
    overrides = [draw(st.one_of(st.just({}), override)) for _ in shapes]
    kinds = ["gradient", "gradient", "gradient", "none"]
    if "skip_nonfinite" in options:
        kinds.append("nonfinite")
    call = st.lists(st.sampled_from(kinds), min_size=len(shapes), max_size=len(shapes))
    calls = draw(st.lists(call, min_size=1, max_size=8))
    return Case(rule, dtype, options, shapes, overrides, calls, draw(st.integers(0, 2**32 - 1)))


def model_of(case: Case, params: list[Array]) -> Model:
    shared = {f.name for f in fields(Hyper)}
    hyper = Hyper(**{name: value for name, value in case.options.items() if name in shared})
    rest = {name: value for name, value in case.options.items() if name not in shared}
    leaves = [
        Leaf(p.astype(np.float64), replace(hyper, **override), p.astype(np.float64))
        for p, override in zip(params, case.overrides, strict=True)
    ]
    return Model(RULES[case.rule][1], leaves, **rest)


def draw_gradient(rng: np.random.Generator, kind: str, param: Array) -> Array | None:
    if kind == "none":
        return None
    g = np.asarray(rng.uniform(-2.0, 2.0, param.shape), param.dtype)
    if kind == "nonfinite" and g.size:
        g.flat[rng.integers(g.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return g


def assert_agree(opt: Any, model: Model, tolerance: float) -> None:
    assert opt.iterations == model.iterations
    assert opt.skipped_steps == model.skipped_steps
    assert (opt.grad_norm is None) == (model.grad_norm is None)
    if model.grad_norm is not None:
        np.testing.assert_allclose(opt.grad_norm, model.grad_norm, rtol=tolerance)
    for i, leaf in enumerate(model.leaves):
        pairs = [(opt.params[i], leaf.param)]
        pairs += [(opt.state[i][name], slot) for name, slot in leaf.slots.items()]
        if model.use_ema:
            pairs.append((opt.averages[i], leaf.average))
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=300)
@given(cases())
def test_options_agree_with_the_model(case: Case) -> None:
    rng = np.random.default_rng(case.seed)
    params = [np.asarray(rng.uniform(-1.0, 1.0, shape), case.dtype) for shape in case.shapes]
    model = model_of(case, params)
    opt = RULES[case.rule][0](
        [instep.Group(p, **o) if o else p for p, o in zip(params, case.overrides, strict=True)],
        **case.options,
    )
    for kinds in case.calls:
        grads = [draw_gradient(rng, kind, p) for kind, p in zip(kinds, params, strict=True)]
        opt.step(grads)
        model.step(grads)
        assert_agree(opt, model, 1e-9 if case.dtype == "float64" else 2e-5)


# --- the order, by hand -------------------------------------------------------------------------


def test_gradients_are_divided_by_the_loss_scale_before_clipping() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0, loss_scale_factor=4.0, clipvalue=1.5)
    opt.step(np.array([4.0]))
    close(p, [-1.0])
    opt.step(np.array([8.0]))
    close(p, [-2.5])


def test_loss_scale_applies_to_each_call_of_a_window() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0, loss_scale_factor=8.0, gradient_accumulation_steps=2)
    opt.step(np.array([16.0]))
    opt.loss_scale_factor = 2.0
    opt.step(np.array([8.0]))
    close(p, [-3.0])


def test_a_power_of_two_as_loss_scale_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    plain, scaled = np.ones((2, 50))
    first = instep.Adam(plain)
    second = instep.Adam(scaled, loss_scale_factor=2.0**10)
    for _ in range(3):
        g = rng.normal(size=50)
        first.step(g)
        second.step(g * 2.0**10)
    assert plain.tobytes() == scaled.tobytes()


def test_clipvalue_clips_both_sides_of_the_mean_of_a_window() -> None:
    p = np.zeros(3)
    opt = instep.SGD(p, learning_rate=1.0, clipvalue=1.0, gradient_accumulation_steps=2)
    opt.step(np.array([3.0, -9.0, 5.0]))
    opt.step(np.array([-2.0, 1.0, 3.0]))
    close(p, [-0.5, 1.0, -1.0])


def test_clipnorm_takes_each_array_by_itself() -> None:
    params = [np.zeros(2), np.zeros(1), np.zeros(())]
    opt = instep.SGD(params, learning_rate=1.0, clipnorm=2.0)
    opt.step([np.array([3.0, 4.0]), np.array([1.0]), np.array(-4.0)])
    close(params[0], [-1.2, -1.6])
    close(params[1], [-1.0])
    close(params[2], 2.0)
    assert opt.grad_norm is None


def test_global_clipnorm_takes_all_arrays_together() -> None:
    params = [np.zeros(1), np.zeros(1), np.zeros(1)]
    opt = instep.SGD(params, learning_rate=1.0, global_clipnorm=1.0)
    opt.step([np.array([3.0]), np.array([4.0]), None])
    close(np.concatenate(params), [-0.6, -0.8, 0.0])
    assert opt.grad_norm == pytest.approx(5.0)
    opt.step([np.array([0.0]), np.array([0.5]), None])
    close(np.concatenate(params), [-0.6, -1.3, 0.0])
    assert opt.grad_norm == pytest.approx(0.5)


def test_grad_norm_is_of_the_last_update_unscaled_averaged_and_not_yet_clipped() -> None:
    opt = instep.SGD(
        np.zeros(2),
        learning_rate=1.0,
        global_clipnorm=0.1,
        loss_scale_factor=2.0,
        gradient_accumulation_steps=2,
    )
    opt.step(np.array([12.0, 0.0]))
    opt.step(np.array([0.0, 16.0]))
    assert opt.grad_norm == pytest.approx(5.0)
    opt.step(np.array([100.0, 0.0]))
    assert opt.grad_norm == pytest.approx(5.0)


def test_global_norm_spans_groups() -> None:
    params = [np.zeros(1), np.zeros(1)]
    opt = instep.SGD(
        [params[0], instep.Group(params[1], learning_rate=10.0)],
        learning_rate=1.0,
        global_clipnorm=1.0,
    )
    opt.step([np.array([3.0]), np.array([4.0])])
    close(np.concatenate(params), [-0.6, -8.0])


def test_nonfinite_global_norm_spoils_every_array_as_in_keras() -> None:
    params = [np.zeros(1), np.zeros(1)]
    opt = instep.SGD(params, learning_rate=1.0, global_clipnorm=1.0)
    opt.step([np.array([np.inf]), np.array([1.0])])
    assert np.isnan(params[0]).all()
    assert np.isnan(params[1]).all()


def test_maximize_turns_the_gradient_before_l2_is_added() -> None:
    p = np.array([2.0])
    instep.SGD(p, learning_rate=1.0, maximize=True, l2=0.25).step(np.array([1.5]))
    close(p, [3.0])


def test_l2_sees_the_parameter_before_weight_decay() -> None:
    p = np.array([2.0])
    instep.SGD(p, learning_rate=0.5, l2=0.5, weight_decay=0.25).step(np.array([0.0]))
    close(p, [1.25])


def test_l2_is_added_after_clipping() -> None:
    p = np.array([8.0])
    instep.SGD(p, learning_rate=1.0, l2=0.5, clipvalue=1.0).step(np.array([2.0]))
    close(p, [3.0])


@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW"])
def test_weight_decay_is_decoupled_and_follows_the_schedule(rule: str) -> None:
    p = np.array([1.0])
    opt = getattr(instep, rule)(p, learning_rate=halving, weight_decay=0.5)
    opt.step(np.array([0.0]))
    close(p, [0.9])
    opt.step(np.array([0.0]))
    close(p, [0.9 * 0.95])


def test_adamw_is_adam_with_decay() -> None:
    rng = np.random.default_rng(1)
    first, second = np.ones((2, 20))
    adamw = instep.AdamW(first)
    decayed = instep.Adam(second, weight_decay=0.01)
    for _ in range(4):
        g = rng.normal(size=20)
        adamw.step(g)
        decayed.step(g)
    close(first, second)
    assert np.all(first != 1.0)


@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW"])
def test_maximize_is_a_descent_on_the_negative(rule: str) -> None:
    rng = np.random.default_rng(2)
    up, down = np.ones((2, 20))
    ascent = getattr(instep, rule)(up, maximize=True)
    descent = getattr(instep, rule)(down)
    for _ in range(4):
        g = rng.normal(size=20)
        ascent.step(g)
        descent.step(-g)
    assert up.tobytes() == down.tobytes()
    assert np.all(up != 1.0)


# --- skip_nonfinite -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("position", [0, 1, 777, 1000])
def test_nonfinite_gradient_changes_nothing_but_the_count(
    bad: float, dtype: npt.DTypeLike, position: int
) -> None:
    params = [np.ones(3, dtype), np.ones(1001, dtype)]
    opt = instep.Adam(params, skip_nonfinite=True, use_ema=True)
    grads = [np.ones(3, dtype), np.ones(1001, dtype)]
    opt.step(grads)
    before = freeze([opt.params, opt.state, opt.averages, opt.iterations])
    grads[1][position] = bad
    opt.step(grads)
    assert freeze([opt.params, opt.state, opt.averages, opt.iterations]) == before
    assert (opt.iterations, opt.skipped_steps) == (1, 1)
    grads[1][position] = 1.0
    opt.step(grads)
    assert (opt.iterations, opt.skipped_steps) == (2, 1)


def test_huge_finite_gradients_are_not_skipped() -> None:
    p = np.zeros(100)
    opt = instep.SGD(p, learning_rate=1e-300, skip_nonfinite=True)
    opt.step(np.full(100, 1e300))
    assert opt.skipped_steps == 0
    close(p, np.full(100, -1.0))


def test_nonfinite_gradient_is_applied_where_not_asked_to_skip() -> None:
    p = np.zeros(2)
    opt = instep.SGD(p, learning_rate=1.0)
    opt.step(np.array([np.inf, 1.0]))
    assert p.tolist() == [-np.inf, -1.0]
    assert (opt.iterations, opt.skipped_steps) == (1, 0)


def test_skipped_call_is_no_part_of_a_window() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0, skip_nonfinite=True, gradient_accumulation_steps=2)
    for g in [2.0, np.nan, np.inf, 4.0]:
        opt.step(np.array([g]))
    close(p, [-3.0])
    assert (opt.iterations, opt.skipped_steps) == (1, 2)


def test_skipping_judges_the_raw_gradient() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0, skip_nonfinite=True, clipvalue=1.0)
    opt.step(np.array([np.inf]))
    assert (opt.skipped_steps, p[0]) == (1, 0.0)


def test_skipping_can_be_switched() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0)
    opt.skip_nonfinite = True
    opt.step(np.array([np.nan]))
    assert (opt.skipped_steps, p[0]) == (1, 0.0)


# --- None gradients and accumulation ------------------------------------------------------------


@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW"])
def test_none_leaves_array_and_state_untouched(rule: str) -> None:
    params = [np.ones(3), np.ones(4)]
    opt = getattr(instep, rule)(params, weight_decay=0.1, l2=0.1)
    opt.step([np.ones(3), np.ones(4)])
    before = freeze([params[1], opt.state[1]])
    moved = params[0].copy()
    opt.step([np.ones(3), None])
    assert freeze([params[1], opt.state[1]]) == before
    assert np.all(params[0] != moved)
    assert opt.iterations == 2


def test_calls_with_nothing_but_none_count() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0, gradient_accumulation_steps=2)
    opt.step(None)
    opt.step(np.array([4.0]))
    close(p, [-2.0])
    opt.step(None)
    opt.step(None)
    close(p, [-2.0])
    assert opt.iterations == 2


def test_window_takes_the_mean_over_all_calls() -> None:
    params = [np.zeros(1), np.zeros(1), np.ones(1)]
    opt = instep.SGD(
        params, learning_rate=1.0, momentum=0.5, weight_decay=0.5, gradient_accumulation_steps=3
    )
    calls = [(1.0, None, None), (2.0, 6.0, None), (3.0, None, None)]
    for number, call in enumerate(calls):
        assert opt.iterations == 0, number
        assert [p[0] for p in params] == [0.0, 0.0, 1.0]
        opt.step([None if g is None else np.array([g]) for g in call])
    close(np.concatenate(params), [-2.0, -2.0, 1.0])
    assert opt.iterations == 1
    for _ in range(3):
        opt.step([np.zeros(1), None, np.array([1.0])])
    close(np.concatenate(params), [-2.0, -2.0, -0.5])


def test_gradient_may_be_reused_between_the_calls_of_a_window() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0, gradient_accumulation_steps=2)
    g = np.array([2.0])
    opt.step(g)
    g[...] = 6.0
    opt.step(g)
    close(p, [-4.0])


def test_a_window_of_one_call_is_an_ordinary_step() -> None:
    first, second = np.ones((2, 5))
    g = np.arange(5.0)
    instep.Adam(first, gradient_accumulation_steps=1).step(g)
    instep.Adam(second).step(g)
    assert first.tobytes() == second.tobytes()


# --- clocks -------------------------------------------------------------------------------------


def test_an_array_that_missed_updates_keeps_its_own_count() -> None:
    params = [np.zeros(2), np.zeros(2)]
    opt = instep.Adam(params, learning_rate=0.5, epsilon=0.0)
    for _ in range(5):
        opt.step([np.ones(2), None])
    assert (opt.state[0]["step"], opt.state[1]["step"]) == (5, 0)
    opt.step([None, np.full(2, -3.0)])
    close(params[1], [0.5, 0.5])
    assert (opt.state[0]["step"], opt.state[1]["step"]) == (5, 1)
    assert opt.iterations == 6


def test_own_count_drives_the_decay_of_adagrad() -> None:
    params = [np.zeros(1), np.zeros(1)]
    opt = instep.Adagrad(params, learning_rate=1.0, learning_rate_decay=1.0, epsilon=0.0)
    opt.step([np.ones(1), None])
    opt.step([np.ones(1), np.ones(1)])
    close(params[0], [-1.0 - 0.5 / np.sqrt(2.0)])
    close(params[1], [-1.0])


def test_own_count_decides_which_step_is_the_first_of_sgd() -> None:
    params = [np.zeros(1), np.zeros(1)]
    opt = instep.SGD(params, learning_rate=1.0, momentum=0.5, dampening=0.5)
    opt.step([np.ones(1), None])
    opt.step([np.ones(1), np.ones(1)])
    close(params[0], [-2.0])
    close(params[1], [-1.0])
