"""Accumulation windows: what they hold, and applying it early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model import snapshot

import instep

untyped: Any = instep
CONVENTIONS = ["paper", "keras", "torch", "optax"]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("rule", ["SGD", "Adam", "Lamb", "Adafactor"])
def test_what_an_unfinished_window_holds_is_applied(rule: str, convention: str) -> None:
    if (rule, convention) == ("Lamb", "torch"):
        pytest.skip("not in torch")
    grads = np.random.default_rng(0).normal(size=(3, 4, 5))
    p, expected = np.ones((4, 5)), np.ones((4, 5))
    options = {"learning_rate": 0.1, "convention": convention}
    opt = getattr(untyped, rule)(p, gradient_accumulation_steps=8, clipnorm=1.0, **options)
    alone = getattr(untyped, rule)(expected, clipnorm=1.0, **options)
    assert not opt.flush()
    for k, grad in enumerate(grads):
        opt.step(grad)
        assert opt.accumulated_calls == k + 1
    assert opt.flush()
    alone.step(grads.mean(0))
    assert (opt.iterations, opt.accumulated_calls) == (1, 0)
    np.testing.assert_allclose(p, expected, rtol=1e-13)
    assert not opt.flush()
    opt.step(grads[0])
    assert opt.accumulated_calls == 1


def test_a_window_of_nothing_and_a_failing_schedule() -> None:
    def failing(update: int) -> float:
        raise KeyError(update)

    p = np.ones(2)
    opt = instep.SGD(p, gradient_accumulation_steps=3, learning_rate=1.0)
    opt.step(None)
    assert opt.flush()
    assert opt.iterations == 1
    assert p.tolist() == [1.0, 1.0]
    opt.step(np.ones(2))
    opt.learning_rate = failing
    before = snapshot(opt)
    with pytest.raises(KeyError):
        opt.flush()
    assert snapshot(opt) == before
    with pytest.raises(RuntimeError, match="flush"):
        instep.SGD().flush()
    assert instep.SGD().accumulated_calls == 0


@pytest.mark.parametrize("calls", [2, 3, 5, 8])
def test_sums_overflow_only_where_their_mean_does(calls: int) -> None:
    p = np.zeros(3, np.float32)
    opt = instep.SGD(p, learning_rate=1.0, gradient_accumulation_steps=calls)
    for _ in range(calls):
        opt.step(np.array([3e38, -2e38, 1.0], np.float32))
    np.testing.assert_allclose(p, [-3e38, 2e38, -1.0], rtol=1e-6)


def test_clipping_of_a_window_that_would_overflow() -> None:
    p = np.zeros(2, np.float32)
    opt = instep.SGD(p, learning_rate=1.0, gradient_accumulation_steps=2, global_clipnorm=1.0)
    for _ in range(2):
        opt.step(np.array([3e38, 0.0], np.float32))
    assert opt.grad_norm == pytest.approx(3e38)
    assert p[0] == pytest.approx(-1.0)


def test_windows_that_earlier_releases_have_saved() -> None:
    p, q = np.zeros(2), np.zeros(2)
    opt = instep.SGD(p, learning_rate=1.0, gradient_accumulation_steps=3)
    opt.step(np.array([4.0, 8.0]))
    state = opt.state_dict()
    assert state["arrays"]["params"]["accumulator_of_gradients"].tolist() == [1.0, 2.0]
    state["format"] = 1
    state["arrays"]["params"]["accumulator_of_gradients"] *= 4  # there they were plain sums
    del state["hyperparameters"]["first_step"], state["hyperparameters"]["learning_rate_factor"]
    other = instep.SGD(q, learning_rate=1.0, gradient_accumulation_steps=3)
    other.load_state_dict(state)
    for o in (opt, other):
        o.step(np.ones(2))
        o.step(np.ones(2))
    assert p.tolist() == q.tolist()
    np.testing.assert_allclose(p, [-2.0, -10 / 3], rtol=1e-15)


@pytest.mark.parametrize("rule", ["Adam", "Adan", "Lamb", "NovoGrad", "Adafactor", "Muon"])
def test_counts_may_start_later(rule: str) -> None:
    grads = np.random.default_rng(1).normal(size=(4, 6))
    p, q = np.ones(6), np.ones(6)
    late = getattr(untyped, rule)(p, first_step=3)
    plain = getattr(untyped, rule)(q)
    state = plain.state_dict()
    state["iterations"] = 2
    state["arrays"]["params"].update(step=2)
    if rule in ("Adan", "NovoGrad"):  # of which the first update is another one
        late.step(grads[0])
        assert late.state["step"] == 1
        assert np.isfinite(p).all()
        return
    plain.load_state_dict(state)
    for grad in grads:
        late.step(grad)
        plain.step(grad)
    assert p.tolist() == q.tolist()
    assert late.iterations == 4
    with pytest.raises(ValueError, match="first_step"):
        getattr(untyped, rule)(p, first_step=0)
