"""Saved state: plain, a copy, and checked as a whole before any of it is taken."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from model import freeze, snapshot
from optimizers import a_rich_optimizer, a_tree, decaying, each_configuration, growing, train

import instep


def walk(tree: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from walk(value, *path, key)
        else:
            yield *path, key


def holder(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path[:-1]:
        tree = tree[key]
    return tree


def replace_everywhere(tree: dict[str, Any], old: object, new: object) -> bool:
    found = [path for path in walk(tree) if freeze(holder(tree, path)[path[-1]]) == repr(old)]
    for path in found:
        holder(tree, path)[path[-1]] = new
    return bool(found)


def test_state_dict_is_plain_and_a_copy() -> None:
    opt = a_rich_optimizer(a_tree())
    saved = opt.state_dict()
    for path in walk(saved):
        value = holder(saved, path)[path[-1]]
        assert type(value) in (int, float, bool, str, np.ndarray), path
    assert any("['encoder'][2][0]" in key for path in walk(saved) for key in path)
    kept = copy.deepcopy(saved)
    train(opt, 3, 7)
    assert freeze(saved) == freeze(kept)
    before = snapshot(opt)
    for path in walk(saved):
        value = holder(saved, path)[path[-1]]
        if isinstance(value, np.ndarray):
            value[...] = 99.0
    assert snapshot(opt) == before


@pytest.mark.parametrize("steps", [0, 1, 4, 5])
def test_loaded_state_continues_bit_for_bit(steps: int) -> None:
    tree = a_tree()
    opt = a_rich_optimizer(tree, steps)
    opt.learning_rate = 0.025
    opt.beta_2 = 0.5
    opt.loss_scale_factor = 8.0
    other = a_rich_optimizer(copy.deepcopy(tree), 0)
    other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    other.build(copy.deepcopy(tree))
    assert freeze(other.state_dict()) == freeze(opt.state_dict())
    train(opt, 5, 8)
    train(other, 5, 8)
    assert snapshot(other) == snapshot(opt)
    assert (other.iterations, other.skipped_steps) == ((steps + 5) // 2, 1)


@each_configuration
def test_every_configuration_survives_loading(
    rule: str, options: dict[str, Any], slots: list[str]
) -> None:
    p, q = np.ones((2, 5))
    g = np.arange(5.0)
    opt, other = getattr(instep, rule)(p, **options), getattr(instep, rule)(q, **options)
    opt.step(g)
    q[...] = p
    other.load_state_dict(opt.state_dict())
    opt.step(-g)
    other.step(-g)
    assert p.tobytes() == q.tobytes()
    for slot in slots:
        assert opt.state[slot].tobytes() == other.state[slot].tobytes()


def test_loading_does_not_alias_the_dict() -> None:
    opt, other = instep.Adam(np.zeros(3)), instep.Adam(np.zeros(3))
    opt.step(np.ones(3))
    saved = opt.state_dict()
    kept = freeze(saved)
    other.load_state_dict(saved)
    other.step(np.ones(3))
    assert freeze(saved) == kept


def test_loading_keeps_state_views_and_parameters() -> None:
    p = np.zeros(3)
    opt, other = instep.Adam(p), instep.Adam(np.zeros(3))
    other.step(np.full(3, 10.0))
    opt.load_state_dict(other.state_dict())
    assert p.tolist() == [0.0] * 3
    np.testing.assert_allclose(opt.state["m"], 1.0)


def test_a_schedule_stays_the_one_of_the_constructor() -> None:
    opt = instep.SGD(np.zeros(1), learning_rate=decaying)
    for _ in range(3):
        opt.step(np.ones(1))
    other = instep.SGD(np.zeros(1), learning_rate=growing)
    other.load_state_dict(opt.state_dict())
    assert other.learning_rate is growing
    assert other.current_learning_rate == 3.0


def bound(make: Any, params: Any = None, **options: Any) -> Any:
    return make([np.zeros(3), np.zeros((2, 2))] if params is None else params, **options)


@pytest.mark.parametrize(
    "source",
    [
        lambda: bound(instep.SGD, momentum=0.9),
        lambda: bound(instep.AdamW),
        lambda: bound(instep.Adam, learning_rate=decaying),
        lambda: bound(instep.Adam, [np.zeros(3)]),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros((2, 2)), np.zeros(1)]),
        lambda: bound(instep.Adam, [np.zeros(3), [np.zeros((2, 2))]]),
        lambda: bound(instep.Adam, {"a": np.zeros(3), "b": np.zeros((2, 2))}),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros((2, 3))]),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros(4)]),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros((2, 2), np.float32)]),
    ],
    ids=[
        "other-rule",
        "other-rule-with-equal-slots",
        "schedule-against-number",
        "fewer",
        "more",
        "deeper",
        "dict",
        "shape",
        "ndim",
        "dtype",
    ],
)
def test_state_of_another_optimizer_is_refused(source: Callable[[], Any]) -> None:
    opt = bound(instep.Adam)
    opt.step([np.ones(3), np.ones((2, 2))])
    before = snapshot(opt)
    with pytest.raises(ValueError):  # noqa: PT011
        opt.load_state_dict(source().state_dict())
    assert snapshot(opt) == before


def test_number_against_schedule_is_refused() -> None:
    opt = bound(instep.Adam, learning_rate=decaying)
    with pytest.raises(ValueError, match=r"learning_rate|schedule"):
        opt.load_state_dict(bound(instep.Adam).state_dict())


def test_another_convention_is_refused() -> None:
    opt = a_rich_optimizer(a_tree())
    before = snapshot(opt)
    saved = opt.state_dict()
    assert replace_everywhere(saved, "paper", "keras")
    with pytest.raises(ValueError, match="convention"):
        opt.load_state_dict(saved)
    assert snapshot(opt) == before


def test_loading_checks_every_entry_before_it_changes_any() -> None:
    target = a_rich_optimizer(a_tree(seed=3), 2)
    before = snapshot(target)
    source = a_rich_optimizer(a_tree())
    for path in walk(source.state_dict()):
        value = holder(source.state_dict(), path)[path[-1]]
        # None, or leaving it out, turns such an option off.
        optional = path[-1] in ("global_clipnorm", "ema_overwrite_frequency", "grad_norm")
        damages: list[Any] = [object(), "nonsense", *([] if optional else [None])]
        if isinstance(value, np.ndarray):
            damages += [value.astype(complex), value.astype(np.float16), value[None], 1.0]
        for damage in damages:
            saved = source.state_dict()
            holder(saved, path)[path[-1]] = damage
            with pytest.raises((TypeError, ValueError)):
                target.load_state_dict(saved)
            assert snapshot(target) == before, (path, damage)
        newer = {"calls", *instep.Optimizer._newer}
        if optional or path[-1] in newer:  # which states of earlier releases don't tell
            continue
        saved = source.state_dict()
        del holder(saved, path)[path[-1]]
        with pytest.raises((TypeError, ValueError)):
            target.load_state_dict(saved)
        assert snapshot(target) == before, path
    target.load_state_dict(source.state_dict())
    assert snapshot(target) != before


def test_loading_checks_the_ranges_of_numbers() -> None:
    opt = bound(instep.Adam, learning_rate=0.125)
    before = snapshot(opt)
    for bad in (-1.0, np.nan, np.inf):
        saved = opt.state_dict()
        assert replace_everywhere(saved, 0.125, bad)
        with pytest.raises(ValueError, match="learning_rate"):
            opt.load_state_dict(saved)
        assert snapshot(opt) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_is_loaded(bad: float) -> None:
    """It is what gradients may have had; copies must be possible all the same."""
    opt = instep.SGD([np.ones(3)], global_clipnorm=1.0)
    opt.step([np.array([bad, 1.0, 1.0])])
    other = instep.SGD([np.ones(3)], global_clipnorm=1.0)
    other.load_state_dict(opt.state_dict())
    for each in (other, copy.deepcopy(opt)):
        assert repr(each.grad_norm) == repr(bad)


@pytest.mark.parametrize(
    ("norm", "message"), [(-1.0, " >= 0, got -1.0"), (True, ", got True"), ("1", ", got '1'")]
)
def test_what_is_no_norm_is_refused(norm: Any, message: str) -> None:
    opt = instep.SGD([np.ones(3)], global_clipnorm=1.0)
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError), match=rf"state\['grad_norm'\]: .*number{message}"):
        opt.load_state_dict({**opt.state_dict(), "grad_norm": norm})
    assert snapshot(opt) == before


@pytest.mark.parametrize("nonsense", [{}, None, [], "x", 3, {"nonsense": 1}])
def test_loading_nonsense_is_refused(nonsense: Any) -> None:
    opt = bound(instep.Adam)
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError)):
        opt.load_state_dict(nonsense)
    assert snapshot(opt) == before


def test_a_hyperparameter_that_earlier_releases_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = instep.SGD(np.ones(3), l2=0.5)
    saved = opt.state_dict()
    del saved["hyperparameters"]["l2"]
    with pytest.raises(ValueError, match="expected an entry 'l2'"):
        opt.load_state_dict(saved)
    assert opt.l2 == 0.5
    monkeypatch.setattr(instep.Optimizer, "_newer", frozenset({"l2"}))
    opt.load_state_dict(saved)
    assert opt.l2 == 0
