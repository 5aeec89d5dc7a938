"""Groups: hyperparameters of their own for a part of the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optimizers import close

import instep


def test_group_overrides_for_its_arrays_only() -> None:
    a, b = np.zeros(1), np.zeros(1)
    opt = instep.SGD({"a": instep.Group(a, learning_rate=2.0), "b": b}, learning_rate=1.0)
    opt.step({"a": np.ones(1), "b": np.ones(1)})
    close([a[0], b[0]], [-2.0, -1.0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"learning_rate": 0.5}, 2.0),
        ({"learning_rate": lambda update: 0.25 * (update + 1)}, 3.0),
        ({"l2": 0.5}, -2.0),
        ({"weight_decay": 0.5}, -2.0),
        ({"clipvalue": 1.0}, 3.0),
        ({"clipnorm": 3.0}, 1.0),
        ({"maximize": True}, 8.0),
        ({}, 0.0),
    ],
)
def test_each_option_a_group_may_have(options: dict[str, Any], expected: float) -> None:
    inside, outside = np.array([4.0]), np.array([4.0])
    opt = instep.SGD([outside, instep.Group([inside], **options)], learning_rate=1.0)
    opt.step([np.array([4.0]), [np.array([4.0])]])
    close(inside, [expected])
    close(outside, [0.0])


def test_group_overrides_the_hyperparameters_of_the_rule() -> None:
    inside, outside = np.zeros(1), np.zeros(1)
    opt = instep.SGD(
        [outside, instep.Group(inside, momentum=0.5)], learning_rate=1.0, momentum=0.25
    )
    for _ in range(2):
        opt.step([np.ones(1), np.ones(1)])
    close([outside[0], inside[0]], [-2.25, -2.5])


def test_inner_group_wins_and_inherits_the_rest() -> None:
    a, b, c = np.array([4.0]), np.array([4.0]), np.array([4.0])
    opt = instep.SGD(
        [
            instep.Group(
                {"b": b, "c": instep.Group((c,), learning_rate=0.25)}, learning_rate=0.5, l2=0.5
            ),
            a,
        ],
        learning_rate=1.0,
    )
    zero = np.zeros(1)
    opt.step([{"b": zero, "c": (np.array([2.0]),)}, zero])
    close(a, [4.0])
    close(b, [3.0])
    close(c, [3.0])


def test_groups_do_not_show() -> None:
    a, b, c = np.zeros(1), np.zeros(2), np.zeros(3)
    opt = instep.Adam(
        {
            "x": instep.Group([a, instep.Group(b, beta_1=0.5)], learning_rate=0.1),
            "y": instep.Group(c, epsilon=1e-3),
        }
    )
    assert opt.params["x"][0] is a
    assert opt.params["x"][1] is b
    assert opt.params["y"] is c
    assert opt.state["x"][1]["m"].shape == (2,)
    assert opt.state["y"]["v"].shape == (3,)
    with pytest.raises((TypeError, ValueError)) as caught:
        opt.step({"x": [np.zeros(1), np.zeros(9)], "y": np.zeros(3)})
    assert "params['x'][1]" in str(caught.value)


def test_a_group_around_everything() -> None:
    p = np.zeros(1)
    opt = instep.SGD(instep.Group(p, learning_rate=2.0), learning_rate=1.0)
    assert opt.params is p
    opt.step(np.ones(1))
    close(p, [-2.0])


@pytest.mark.parametrize(
    "options",
    [
        {"global_clipnorm": 1.0},
        {"loss_scale_factor": 2.0},
        {"skip_nonfinite": True},
        {"use_ema": True},
        {"ema_momentum": 0.5},
        {"gradient_accumulation_steps": 2},
        {"convention": "paper"},
        {"seed": 1},
        {"state_dtype": "int8"},
        {"rounding": "up"},
        {"beta_1": 0.5},
        {"nonsense": 1.0},
        {"learning_rate": -1.0},
        {"learning_rate": np.nan},
        {"momentum": -0.1},
        {"weight_decay": -0.1},
        {"nesterov": True},
        {"clipnorm": 1.0, "clipvalue": 1.0},
    ],
)
def test_other_or_bad_group_options_are_refused(options: dict[str, Any]) -> None:
    p = np.zeros(1)
    with pytest.raises(ValueError, match=next(iter(options))):
        instep.SGD([instep.Group(p, **options)], learning_rate=1.0)


def test_groups_are_listed_with_the_default_first() -> None:
    opt = instep.SGD(
        [
            instep.Group(np.zeros(1), learning_rate=2.0),
            np.zeros(1),
            instep.Group(np.zeros(1), learning_rate=3.0),
        ],
        learning_rate=1.0,
    )
    assert [group["learning_rate"] for group in opt.groups] == [1.0, 2.0, 3.0]
    assert len(instep.SGD(np.zeros(1)).groups) == 1


def test_assigning_the_learning_rate_leaves_groups_with_their_own_alone() -> None:
    a, b, c = np.zeros(1), np.zeros(1), np.zeros(1)
    opt = instep.SGD(
        [a, instep.Group(b, learning_rate=2.0), instep.Group(c, l2=0.0)], learning_rate=1.0
    )
    opt.learning_rate = 5.0
    opt.step([np.ones(1)] * 3)
    close([a[0], b[0], c[0]], [-5.0, -2.0, -5.0])
    assert [group["learning_rate"] for group in opt.groups[:2]] == [5.0, 2.0]


@pytest.mark.parametrize("rule", [instep.ScheduleFreeSGD, instep.ScheduleFreeAdamW])
def test_an_evaluation_takes_each_groups_own_numbers(rule: Any) -> None:
    a, b = np.ones(3), np.ones(3)
    both = rule([a, instep.Group(b, beta_1=0.5)], learning_rate=0.1)
    alone = rule(np.ones(3), learning_rate=0.1, beta_1=0.5)
    for g in (np.ones(3), -2 * np.ones(3)):
        both.step([g, g])
        alone.step(g)
    assert both.eval_params()[1].tolist() == alone.eval_params().tolist()
    zero = rule([a, instep.Group(b, beta_1=0.0)])
    with pytest.raises(ValueError, match=r"beta_1 above 0 for params\[1\], got 0\.0"):
        zero.eval_params()
