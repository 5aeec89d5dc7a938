"""Moving averages of the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from model import freeze
from optimizers import a_tree, close, train

import instep


def test_averages_have_the_structure_of_the_parameters() -> None:
    tree = a_tree()
    opt = instep.SGD(tree, learning_rate=0.5, use_ema=True)
    for steps in (0, 1):
        train(opt, steps, 0)
        assert freeze(opt.averages) == freeze(tree)
    tree["decoder"][...] = 0.0
    assert opt.averages["decoder"].any()


def test_averages_are_the_parameters_until_the_first_step() -> None:
    params: dict[str, Any] = {"a": np.array([1.0, 2.0]), "b": [np.array(3.0)]}
    opt = instep.SGD(params, learning_rate=1.0, use_ema=True)
    assert opt.averages["a"].tolist() == [1.0, 2.0]
    assert opt.averages["b"][0] == 3.0
    params["a"][...] = 7.0
    assert opt.averages["a"].tolist() == [7.0, 7.0]


def test_averages_start_at_the_first_result_and_then_follow() -> None:
    p = np.array([8.0])
    opt = instep.SGD(p, learning_rate=1.0, use_ema=True, ema_momentum=0.75)
    opt.step(np.array([4.0]))
    close(opt.averages, [4.0])
    opt.step(np.array([4.0]))
    close(opt.averages, [3.0])
    close(p, [0.0])


def test_averages_move_without_a_gradient() -> None:
    params = [np.array([4.0]), np.array([0.0])]
    opt = instep.SGD(params, learning_rate=1.0, use_ema=True, ema_momentum=0.5)
    opt.step([np.array([0.0]), None])
    params[0][...] = 8.0
    opt.step([None, np.array([0.0])])
    close(opt.averages[0], [6.0])
    assert params[0][0] == 8.0


def test_averages_wait_for_the_end_of_a_window() -> None:
    p = np.array([1.0])
    opt = instep.SGD(
        p, learning_rate=1.0, use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=2
    )
    seen = []
    for _ in range(4):
        opt.step(np.array([1.0]))
        seen.append(float(opt.averages[0]))
    close(seen, [1.0, 0.0, 0.0, -0.5])


def test_parameters_are_overwritten_every_so_many_updates() -> None:
    p = np.array([0.0])
    opt = instep.SGD(
        p, learning_rate=1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    )
    seen = []
    for _ in range(4):
        opt.step(np.array([-2.0]))
        seen.append((float(p[0]), float(opt.averages[0])))
    close(seen, [(2.0, 2.0), (3.0, 3.0), (5.0, 4.0), (5.5, 5.5)])
