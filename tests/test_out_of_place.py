"""Steps that leave the given arrays alone, and averages in their place."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from model import freeze, snapshot
from optimizers import a_rich_optimizer, a_tree, train

import instep

untyped: Any = instep
RULES = ["SGD", "Adam", "Lamb", "Prodigy", "ScheduleFreeSGD", "Adafactor", "SM3", "Muon"]


class Pair(NamedTuple):
    a: Any
    b: Any


def values(seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed).normal
    return {"w": draw(size=(3, 4)), "b": [draw(size=4).astype(np.float32)]}


@pytest.mark.parametrize("rule", RULES)
def test_a_loop_that_replaces_its_arrays(rule: str) -> None:
    params, expected = values(0), values(0)
    opt = getattr(untyped, rule)(learning_rate=0.1)
    reference = getattr(untyped, rule)(expected, learning_rate=0.1)
    for step in range(4):
        given, kept = params, freeze(params)
        for leaf in (params["w"], params["b"][0]):
            leaf.flags.writeable = False
        params = opt.updated(params, values(step))
        assert freeze(given) == kept
        assert params["w"] is not given["w"]
        reference.step(values(step))
        assert freeze(params) == freeze(expected)
    assert opt.params["w"] is params["w"]
    assert opt.iterations == 4


@pytest.mark.parametrize("rule", RULES)
def test_updates_that_are_not_applied(rule: str) -> None:
    params, expected = values(0), values(0)
    opt = getattr(untyped, rule)(params, learning_rate=0.1)
    reference = getattr(untyped, rule)(expected, learning_rate=0.1)
    for step in range(3):
        before = freeze(params)
        old = copy.deepcopy(expected)
        found = opt.updates(values(step))
        reference.step(values(step))
        assert freeze(params) == before
        assert opt.params["w"] is params["w"]
        assert found["w"].tolist() == (expected["w"] - old["w"]).tolist()
        assert found["b"][0].dtype == np.float32
        params["w"][...], params["b"][0][...] = expected["w"], expected["b"][0]
    assert opt.state["w"].keys() == reference.state["w"].keys()
    for name, slot in opt.state["w"].items():
        assert np.all(slot == reference.state["w"][name])


def test_other_layouts_containers_and_copies() -> None:
    room = np.ones((4, 6))
    params = Pair(room[::2, ::2], np.asfortranarray(np.ones((3, 4))))
    opt = instep.Adam(params, learning_rate=0.1)
    grads = Pair(np.ones((2, 3)), np.ones((3, 4)))
    new = opt.updated(params, grads)
    assert isinstance(new, Pair)
    assert room.all()
    found = opt.updates(grads)
    assert isinstance(found, Pair)
    restored = pickle.loads(pickle.dumps(opt))
    again = restored.updated(restored.params, grads)
    assert np.array_equal(again.b, opt.updated(new, grads).b)
    assert np.array_equal(restored.updates([grads.a, grads.b]).a, opt.updates(grads).a)


@pytest.mark.parametrize(
    ("params", "grads"),
    [
        ({"w": np.ones((3, 4))}, values(1)),
        ({"w": np.ones((3, 5)), "b": [np.ones(4, np.float32)]}, values(1)),
        ({"w": np.ones((3, 4)), "b": [np.ones(4)]}, values(1)),
        ({"w": [1.0], "b": [np.ones(4, np.float32)]}, values(1)),
        ({"w": np.ones((3, 4)), "b": [np.ones(4, np.float32), np.ones(2)]}, values(1)),
        (None, {"w": np.ones((3, 5)), "b": [None]}),
        (None, {"w": np.ones((3, 4))}),
    ],
)
def test_failing_changes_nothing(params: Any, grads: Any) -> None:
    mine = values(0)
    opt = instep.Adam(mine)
    opt.step(values(2))
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError)):
        opt.updated(mine if params is None else params, grads)
    assert snapshot(opt) == before
    assert opt.params["w"] is mine["w"]
    if params is None:
        with pytest.raises((TypeError, ValueError)):
            opt.updates(grads)
        assert snapshot(opt) == before
    unbound = instep.Adam()
    with pytest.raises((TypeError, ValueError)):
        unbound.updated(mine, {"w": None})
    assert "unbound" in repr(unbound)
    with pytest.raises(RuntimeError, match="updates"):
        unbound.updates(grads)


def test_averages_in_the_place_of_parameters() -> None:
    params = a_tree()
    opt = a_rich_optimizer(params)
    train(opt, 0, 3)
    before, averages = freeze(params), freeze(opt.averages)
    whole = snapshot(opt)
    arrays = params["encoder"][0]
    opt.swap_averages()
    assert (freeze(params), freeze(opt.averages)) == (averages, before)
    assert params["encoder"][0] is arrays
    calls = [
        lambda: train(opt, 3, 4),
        opt.state_dict,
        lambda: opt.save("nowhere"),
        lambda: pickle.dumps(opt),
        lambda: opt.load_state_dict({}),
        lambda: opt.averaged().__enter__(),
        lambda: opt.updates(copy.deepcopy(params)),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="call swap_averages"):
            call()
    for change in (
        lambda: setattr(opt, "use_ema", False),
        lambda: opt.build(copy.deepcopy(params)),
        lambda: opt.build([*params["encoder"]]),
    ):
        with pytest.raises(RuntimeError, match="call swap_averages"):
            change()
        assert opt.use_ema
        assert params["encoder"][0] is arrays
    opt.learning_rate = 0.25
    opt.l2 = 0.5
    with pytest.raises(RuntimeError, match="call swap_averages"):
        train(opt, 3, 4)
    opt.swap_averages()
    assert freeze(params) == before
    with opt.averaged() as evaluated:
        assert freeze(evaluated) == averages
    assert freeze(params) == before
    with pytest.raises(KeyError), opt.averaged():
        raise KeyError
    assert freeze(params) == before
    assert snapshot(opt) != whole  # of the hyperparameters alone
    train(opt, 3, 4)


def test_averages_of_any_layout_and_without_any() -> None:
    room = np.arange(24.0).reshape(4, 6)
    opt = instep.SGD([room[::2, ::2], np.ones(()), np.ones(0)], learning_rate=1.0, use_ema=True)
    opt.swap_averages()
    opt.swap_averages()
    opt.step([np.ones((2, 3)), 1.0, np.ones(0)])
    kept, averages = room.copy(), opt.averages[0].copy()
    opt.swap_averages()
    assert room[::2, ::2].tolist() == averages.tolist()
    assert room[1::2].tolist() == kept[1::2].tolist()
    opt.swap_averages()
    assert room.tolist() == kept.tolist()
    with pytest.raises(ValueError, match="use_ema=True"):
        instep.SGD(np.ones(1)).swap_averages()
    with pytest.raises(RuntimeError, match="swap_averages"):
        instep.SGD().swap_averages()
