"""State that starts when it is needed: copies, initial values, buffers that come and go."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from model import snapshot
from optimizers import close

import instep
from instep.typing import Convention

untyped: Any = instep
one = np.ones(1)


@pytest.mark.parametrize("rule", ["ScheduleFreeSGD", "ScheduleFreeAdamW", "Prodigy"])
@pytest.mark.parametrize("convention", ["paper", "optax"])
def test_copies_are_taken_at_the_arrays_own_first_update(rule: str, convention: str) -> None:
    a, b, c = np.ones(1), np.zeros(1), np.full(1, 5.0)
    rate = {"learning_rate": 0.5, "convention": convention}
    opt = getattr(untyped, rule)([a, b], **rate)
    reference = getattr(untyped, rule)([np.ones(1), c], **rate)
    for o in (opt, reference):
        o.step([one, None])
    b[:] = 5.0
    slot = "p_0" if rule == "Prodigy" else "z"
    assert opt.state[1][slot].tolist() == [5.0]
    b[:] = 4.0
    assert opt.state_dict()["arrays"]["params[1]"][slot].tolist() == [4.0]
    b[:] = 5.0
    for _ in range(2):
        for o in (opt, reference):
            o.step([one, one])
    assert b.tolist() == c.tolist()
    assert opt.state[1][slot].tolist() == reference.state[1][slot].tolist()


def test_an_estimate_grows_where_an_array_comes_late() -> None:
    a, b = np.ones(1), np.zeros(1)
    opt = instep.Prodigy([a, b])
    opt.step([np.zeros(1), None])
    b[:] = 5.0
    for _ in range(20):
        opt.step([np.zeros(1), one])
    assert opt.state[1]["d"] > 1e-6


@pytest.mark.parametrize(
    ("rule", "name", "slot"),
    [
        ("Prodigy", "estim_lr0", "d"),
        ("Adagrad", "initial_accumulator_value", "accumulator"),
        ("RMSprop", "initial_accumulator_value", "mean_square"),
        ("Yogi", "initial_accumulator_value", "v"),
        ("Ftrl", "initial_accumulator_value", "accumulator"),
    ],
)
def test_initial_values_take_effect_until_the_first_update(rule: str, name: str, slot: str) -> None:
    p, q = np.ones(3), np.ones(3)
    opt = getattr(untyped, rule)(p)
    setattr(opt, name, 0.25)
    expected = getattr(untyped, rule)(q, **{name: 0.25})
    assert np.all(opt.state[slot] == 0.25)
    for o in (opt, expected):
        for _ in range(2):
            o.step(np.full(3, 0.5))
    assert p.tolist() == q.tolist()
    setattr(opt, name, 0.25)
    before = snapshot(opt)
    with pytest.raises(
        ValueError, match=rf"{name}: expected 0\.25, from which the state of params"
    ):
        setattr(opt, name, 0.5)
    assert snapshot(opt) == before


def test_a_groups_initial_value() -> None:
    a, b = np.ones(2), np.ones(2)
    opt = instep.Adagrad([a, instep.Group(b)])
    opt.groups[1]["initial_accumulator_value"] = 0.5
    assert [s["accumulator"][0] for s in opt.state] == [0.0, 0.5]
    opt.step([np.ones(2), None])
    opt.groups[1]["initial_accumulator_value"] = 0.75  # that one has had no update
    assert opt.state[1]["accumulator"].tolist() == [0.75, 0.75]
    with pytest.raises(ValueError, match=r"state of params\[0\] has started"):
        opt.initial_accumulator_value = 1.0
    assert opt.initial_accumulator_value == 0.0


@pytest.mark.parametrize("convention", ["paper", "torch"])
def test_the_first_momentum_is_that_of_the_buffer(convention: Convention) -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0, dampening=0.5, convention=convention)
    opt.step(one)
    opt.momentum = 0.9
    opt.step(one)
    close(p, [-2.0])
    opt.step(one)
    close(p, [-2.0 - (0.9 + 0.5)])


def test_a_buffer_outlives_a_time_without_momentum(tmp_path: Any) -> None:
    p = np.zeros(2)
    opt = instep.SGD(p, learning_rate=1.0, momentum=0.5)
    opt.step(np.ones(2))
    opt.momentum = 0
    assert "momentum" not in opt.state
    opt.save(tmp_path / "file")
    opt.momentum = 0.5
    assert opt.state["momentum"].tolist() == [1.0, 1.0]
    opt.load(tmp_path / "file") if opt.momentum == 0 else None
    opt.momentum = 0
    opt.step(np.ones(2))
    resumed = instep.SGD(np.zeros(2), learning_rate=1.0)
    resumed.load_state_dict(opt.state_dict())
    for o in (opt, resumed, copy.deepcopy(opt)):
        o.momentum = 0.5  # as in torch the buffer of then
        o.step(np.ones(2))
        assert o.state["momentum"].tolist() == [1.5, 1.5]


def test_a_buffer_that_was_never_used_starts_anew() -> None:
    p = np.zeros(1)
    opt = instep.SGD([p, np.zeros(1)], learning_rate=1.0, dampening=0.5, convention="torch")
    opt.step([one, one])
    opt.momentum = 0.5
    state = opt.state_dict()
    assert state["arrays"]["params[0]"]["begun"] is False
    other = instep.SGD([np.zeros(1), np.zeros(1)], convention="torch")
    other.load_state_dict(state)
    for o in (opt, other):
        o.step([one, None])
        o.step([one, one])
        assert [s["momentum"][0] for s in o.state] == [1.0, 1.0]


@pytest.mark.parametrize("rule", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_an_evaluation_is_of_the_updates_that_were(rule: str) -> None:
    p = np.ones(3)
    opt = getattr(untyped, rule)(p, learning_rate=0.1, beta_1=0.75)
    for _ in range(3):
        opt.step(np.array([1.0, -2.0, 3.0]))
    x = opt.eval_params()
    opt.beta_1 = 0.5
    assert opt.eval_params().tolist() == x.tolist()
    saved = opt.state_dict()
    other = getattr(untyped, rule)(p.copy())
    other.load_state_dict(saved)
    assert other.eval_params().tolist() == x.tolist()
    # y = beta_1 * x + (1 - beta_1) * z holds with the new number after the next update, of which
    # x is the mean of the x before and of z.
    opt.step(np.array([1.0, -2.0, 3.0]))
    z = opt.state["z"]
    close(p, 0.5 * opt.eval_params() + 0.5 * z)
    close(opt.eval_params(), 0.75 * x + 0.25 * z)
    del saved["arrays"]["params"]["last_beta_1"]  # an earlier release's
    other.load_state_dict(saved)
    assert other.eval_params().tolist() != x.tolist()


def test_none_where_a_framework_gives_it_a_meaning() -> None:
    assert instep.Muon(np.ones((2, 2)), convention="keras", rms_rate=None).rms_rate is None
    assert instep.Muon(np.ones((2, 2)), convention="keras").rms_rate == 0.2
    assert instep.Muon(np.ones((2, 2)), rms_rate=None).rms_rate == 0.2
    assert instep.Muon(np.ones((2, 2)), convention="keras", weight_decay=None).weight_decay == 0.0
    p, q, r = (np.ones((4, 4)) for _ in range(3))
    grad = np.full((4, 4), 3.0)
    grad[0] = 100.0
    off = untyped.Adafactor(p, convention="optax", clip_threshold=None)
    infinite = instep.Adafactor(q, convention="optax", clip_threshold=np.inf)
    on = instep.Adafactor(r, convention="optax")
    assert off.clip_threshold == infinite.clip_threshold == np.inf
    for opt in (off, infinite, on):
        opt.step(grad)
        opt.step(-0.01 * grad)
        opt.step(grad)
    assert p.tolist() == q.tolist() != r.tolist()
    on.clip_threshold = None
    assert on.clip_threshold == np.inf
    other = instep.Adafactor(np.ones((4, 4)), convention="optax")
    other.load_state_dict(on.state_dict())
    assert other.clip_threshold == np.inf
    group = instep.Muon([instep.Group(np.ones((2, 2)), rms_rate=None)], convention="keras")
    assert group.groups[1]["rms_rate"] is None
    loaded = instep.Muon([instep.Group(np.ones((2, 2)), rms_rate=1.0)], convention="keras")
    loaded.load_state_dict(group.state_dict())
    assert loaded.groups[1]["rms_rate"] is None


def test_without_a_rate_keras_leaves_directions_as_they_are() -> None:
    grad = np.random.default_rng(0).normal(size=(3, 5))
    steps = []
    for options in ({"rms_rate": None}, {"rms_rate": 1 / np.sqrt(5)}):
        p = np.zeros((3, 5))
        instep.Muon(p, convention="keras", **options).step(grad)
        steps.append(p)
    close(steps[0], steps[1])
