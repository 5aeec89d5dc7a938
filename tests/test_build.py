"""Binding to arrays, again to others, and the optimizer that has none."""

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

# Called with arguments that a type checker would refuse.
untyped: Any = instep


def test_build_binds() -> None:
    p = np.zeros(3)
    opt = instep.SGD(learning_rate=1.0)
    opt.build([p])
    opt.step([np.ones(3)])
    assert p.tolist() == [-1.0] * 3


def test_unbound_optimizer_refuses_what_needs_arrays() -> None:
    opt: Any = instep.Adam(use_ema=True)
    saved = instep.Adam(np.zeros(1), use_ema=True).state_dict()
    calls: list[Callable[[], object]] = [
        lambda: opt.step(np.zeros(1)),
        lambda: opt.state,
        lambda: opt.averages,
        opt.state_dict,
        lambda: opt.load_state_dict(saved),
    ]
    for call in calls:
        with pytest.raises(RuntimeError):
            call()


def test_unbound_optimizer_answers_the_rest() -> None:
    opt = instep.Adam(learning_rate=decaying)
    assert (opt.iterations, opt.skipped_steps, opt.grad_norm) == (0, 0, None)
    assert opt.learning_rate is decaying
    assert opt.current_learning_rate == 0.1
    assert opt.config["beta_1"] == 0.9
    assert opt.groups[0]["learning_rate"] is decaying
    assert "Adam" in repr(opt)
    opt.beta_1 = 0.5
    assert opt.beta_1 == 0.5
    with pytest.raises(ValueError, match="beta_1"):
        opt.beta_1 = 1.5
    copied = pickle.loads(pickle.dumps(copy.deepcopy(opt)))
    p = np.zeros(1)
    copied.build(p)
    copied.step(np.ones(1))
    np.testing.assert_allclose(p, [-0.1], rtol=1e-6)


def test_failed_binding_leaves_the_optimizer_unbound() -> None:
    opt = untyped.SGD(learning_rate=1.0)
    with pytest.raises((TypeError, ValueError)):
        opt.build([np.zeros(3), np.zeros(3, int)])
    with pytest.raises(RuntimeError):
        opt.step([np.zeros(3), np.zeros(3)])


def test_rebinding_keeps_the_state() -> None:
    first, expected = a_tree(), a_tree()
    opt, reference = a_rich_optimizer(first), a_rich_optimizer(expected)
    second = copy.deepcopy(first)
    left = freeze(first)
    opt.build(second)
    assert opt.params["encoder"][0] is second["encoder"][0]
    assert snapshot(opt) == snapshot(reference)
    for o in (opt, reference):
        train(o, 4, 2)
    assert snapshot(opt) == snapshot(reference)
    assert freeze(first) == left
    assert freeze(second) != left


def test_rebinding_may_swap_containers_and_layout() -> None:
    first = [np.ones((2, 3)), np.ones(4)]
    opt = instep.Adam(first)
    opt.step([np.ones((2, 3)), np.ones(4)])
    room = np.ones((4, 6))
    opt.build((room[::2, ::2], np.ones(4)))
    opt.step([np.ones((2, 3)), np.ones(4)])
    assert opt.state[0]["step"] == 2
    assert np.count_nonzero(room != 1.0) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["encoder"].pop(),
        lambda tree: tree["encoder"].append(np.zeros(1)),
        lambda tree: tree.pop("decoder"),
        lambda tree: tree.update(decoders=tree.pop("decoder")),
        lambda tree: tree.update(decoder=np.zeros(4)),
        lambda tree: tree.update(decoder=np.zeros((1, 3))),
        lambda tree: tree.update(decoder=np.zeros(3, np.float32)),
        lambda tree: tree.update(decoder=[np.zeros(3)]),
    ],
    ids=["shorter", "longer", "fewer-keys", "other-key", "shape", "ndim", "dtype", "deeper"],
)
def test_rebinding_to_anything_unequal_is_refused(change: Callable[[Any], object]) -> None:
    opt = a_rich_optimizer(a_tree())
    before = snapshot(opt)
    bound = opt.params["encoder"][0]
    other = a_tree(seed=5)
    change(other)
    kept = freeze(other)
    with pytest.raises(ValueError):  # noqa: PT011
        opt.build(other)
    assert snapshot(opt) == before
    assert opt.params["encoder"][0] is bound
    assert freeze(other) == kept
    train(opt, 2, 3)
    assert freeze(other) == kept
