"""Copies by pickle and by copy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import freeze, snapshot
from optimizers import a_rich_optimizer, a_tree, decaying, train

import instep


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("clone", [pickled, copy.deepcopy])
@pytest.mark.parametrize("steps", [0, 1, 4, 5])
def test_a_copy_trains_on_bit_for_bit(clone: Callable[[Any], Any], steps: int) -> None:
    tree = a_tree()
    opt = a_rich_optimizer(tree, steps)
    other = clone(opt)
    assert type(other) is type(opt)
    assert snapshot(other) == snapshot(opt)
    before = snapshot(opt)
    train(other, 5, 9)
    assert snapshot(opt) == before
    assert snapshot(other) != before
    train(opt, 5, 9)
    assert snapshot(other) == snapshot(opt)
    assert [group["learning_rate"] for group in other.groups] == [0.1, 0.3]


@pytest.mark.parametrize("clone", [pickled, copy.deepcopy])
def test_arrays_copied_along_stay_the_bound_ones(clone: Callable[[Any], Any]) -> None:
    tree = a_tree()
    params, opt = clone((tree, instep.SGD(tree, learning_rate=1.0)))
    assert opt.params["encoder"][2][0] is params["encoder"][2][0]
    before = freeze(params)
    train(opt, 1, 0)
    assert freeze(params) != before
    assert freeze(tree) == before
    params["decoder"] = params["decoder"] * 2.0
    with pytest.raises((TypeError, ValueError, RuntimeError), match="decoder"):
        train(opt, 1, 0)


@pytest.mark.parametrize("clone", [pickled, copy.deepcopy])
def test_a_copy_keeps_its_schedule_and_its_memory(clone: Callable[[Any], Any]) -> None:
    opt = instep.Adam([np.zeros((3, 4)).T], learning_rate=decaying)
    opt.step([np.ones((4, 3))])
    other = clone(opt)
    assert other.learning_rate is decaying
    assert other.current_learning_rate == 0.05
    other.apply_gradients([(np.ones((4, 3)), other.params[0])])
    assert other.iterations == 2


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle(protocol: int) -> None:
    opt = instep.Adam(np.ones(2))
    opt.step(np.ones(2))
    assert pickle.loads(pickle.dumps(opt, protocol)).state["m"].tolist() == opt.state["m"].tolist()
