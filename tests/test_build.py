"""Binding to arrays, again to others, and the optimizer that has none."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import freeze, python_calls, snapshot
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
        lambda tree: tree.update(decoder=np.zeros(4)),
        lambda tree: tree.update(decoder=np.zeros((1, 3))),
        lambda tree: tree.update(decoder=np.zeros(3, np.float32)),
    ],
    ids=["shape", "ndim", "dtype"],
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


# --- other arrays that are laid out alike -------------------------------------------------------


def dense(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, 4)), rng.normal(size=5).astype(np.float32)]


def nested(seed: int) -> dict[str, Any]:
    first, second = dense(seed)
    return {"b": (first, [second]), "c": {"a": np.array(float(seed)), "none": np.ones((0, 2))}}


def laid_out_otherwise(seed: int) -> list[Any]:
    first, second = dense(seed)
    room = np.zeros(10, np.float32)
    room[::-2] = second
    return [np.asfortranarray(first), room[::-2]]


def views(seed: int) -> list[Any]:
    return [each.reshape(each.shape) for each in dense(seed)]


LIKE: dict[str, Callable[[int], Any]] = {
    "list": dense,
    "nested": nested,
    "one array": lambda seed: dense(seed)[0],
    "other layouts": laid_out_otherwise,
    "views": views,
}
MAKERS: dict[str, Callable[[Any], Any]] = {
    "Adam": lambda params: untyped.Adam(params, use_ema=True, ema_overwrite_frequency=3),
    "window": lambda params: untyped.SGD(params, gradient_accumulation_steps=2),
    "copies": lambda params: untyped.ScheduleFreeSGD(params),
    "scalars": lambda params: untyped.Prodigy(params, use_ema=True),
    "norms": lambda params: untyped.Lamb(params, global_clipnorm=0.5),
    "whole arrays": lambda params: untyped.Adafactor(params),
}


def grads_of(params: Any, number: float) -> Any:
    if isinstance(params, dict):
        return {key: grads_of(each, number) for key, each in params.items()}
    if isinstance(params, (list, tuple)):
        return [grads_of(each, number) for each in params]
    return np.full(params.shape, number, params.dtype)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("like", LIKE.values(), ids=LIKE)
def test_arrays_moved_in_act_like_those_of_a_new_binding(
    like: Callable[[int], Any], make: Callable[[Any], Any], steps: int
) -> None:
    arrays, same = ([like(seed) for seed in range(2)] for _ in range(2))
    opt, reference = make(arrays[0]), make(same[0])
    for turn in (1, 0, 1, 1):
        for _ in range(steps):
            opt.step(grads_of(opt.params, 0.5))
            reference.step(grads_of(reference.params, 0.5))
        core = opt._binding.core
        opt.build(arrays[turn])
        assert opt._binding.core is core
        assert opt.params is arrays[turn]
        reference._install(
            reference._values, reference._binding.moved(same[turn], reference._values)
        )
        assert snapshot(opt) == snapshot(reference)
    for number in (0.25, -0.5, 0.125):
        opt.step(grads_of(opt.params, number))
        reference.step(grads_of(reference.params, number))
        assert snapshot(opt) == snapshot(reference)
    assert freeze(arrays) == freeze(same)


def test_what_is_laid_out_otherwise_gets_a_new_binding() -> None:
    arrays = [dense(0), laid_out_otherwise(1), tuple(dense(2)), views(3)]
    same = copy.deepcopy(arrays)
    opt, reference = instep.Adam(dense(4)), instep.Adam(dense(4))
    for turn in (0, 1, 0, 2, 1, 3, 2):
        opt.build(arrays[turn])
        reference._install(
            reference._values, reference._binding.moved(same[turn], reference._values)
        )
        for each, params in ((opt, arrays), (reference, same)):
            each.step(grads_of(params[turn], 0.5))
        assert opt.params is arrays[turn]
        assert type(opt.state) is type(arrays[turn])
        assert snapshot(opt) == snapshot(reference)


def test_an_order_that_came_with_a_pickle_is_left_with_its_arrays() -> None:
    opt = instep.Lamb(np.asfortranarray(dense(0)[0]))
    copied = pickle.loads(pickle.dumps(opt))
    [order] = copied._binding.core.orders()
    assert order == [1, 0]
    copied.build(dense(1)[0])
    assert copied._binding.core.orders() == [[0, 1]]


def test_rebinding_calls_no_python_for_each_array() -> None:
    calls = []
    for count in (2, 200):
        new = [np.ones(3) for _ in range(count)]
        opt = instep.Adam([np.ones(3) for _ in range(count)], use_ema=True)
        calls.append(python_calls(functools.partial(opt.build, new)))
    assert calls == [1, 1]  # build


def test_arrays_moved_out_are_anybodys_again() -> None:
    class Own(np.ndarray[Any, Any]):
        pass

    def own() -> list[Any]:
        return [np.ones(4).view(Own), np.ones(2).view(Own)]

    old, new = own(), own()
    opt = untyped.ScheduleFreeSGD(old, use_ema=True)
    opt.step([np.ones(4), np.ones(2)])
    with pytest.raises(ValueError, match="shares memory"):
        opt.step([old[0], np.ones(2)])
    opt.build(new)
    opt.step([old[0], np.ones(2)])
    with pytest.raises(ValueError, match=r"^gradient for params\[0\] shares memory"):
        opt.step([new[0], np.ones(2)])
    assert opt.averages[0].shape == (4,)
    opt.apply_gradients([(np.ones(2), new[1]), (np.ones(4), new[0])])
    with pytest.raises(ValueError, match="expected one of the 2 arrays that were bound"):
        opt.apply_gradients([(np.ones(2), old[1])])
    gone = [weakref.ref(each) for each in old]
    del old
    gc.collect()
    assert [each() for each in gone] == [None, None]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda new: new.__setitem__(1, new[0]),
        lambda new: new.__setitem__(0, new[0].astype(np.float32)),
        lambda new: new[0].setflags(write=False),
        lambda new: new.__setitem__(0, np.ma.masked_array(new[0])),
        lambda new: new.__setitem__(0, None),
    ],
    ids=["twice", "dtype", "read-only", "masked", "None"],
)
def test_arrays_that_cannot_be_moved_in_change_nothing(spoil: Callable[[Any], object]) -> None:
    old = [np.ones(3), np.ones(3)]
    opt = untyped.Adam(old)
    opt.step([np.ones(3), np.ones(3)])
    opt.build([np.ones(3), np.ones(3)])
    before, bound = snapshot(opt), opt.params
    new = [np.ones(3), np.ones(3)]
    spoil(new)
    with pytest.raises((TypeError, ValueError), match=r"^params"):
        opt.build(new)
    assert snapshot(opt) == before
    assert opt.params is bound
    opt.step([np.ones(3), np.ones(3)])


def test_groups_stay_where_other_arrays_are_moved_in() -> None:
    opt = untyped.SGD([np.ones(2), instep.Group(np.ones(2), learning_rate=0.5)], learning_rate=0.25)
    for _ in range(3):
        new = [np.ones(2), np.ones(2)]
        opt.build(new)
        opt.step([np.ones(2), np.ones(2)])
        assert [each.tolist() for each in new] == [[0.75] * 2, [0.5] * 2]
        assert [group["params"][0] is p for group, p in zip(opt.groups, new, strict=True)] == [
            True
        ] * 2
    opt.build([np.ones(2), instep.Group(np.ones(2), learning_rate=0.125)])
    assert opt.groups[1]["learning_rate"] == 0.125
