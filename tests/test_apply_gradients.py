"""Pairs of gradients and arrays, as a loop of Keras hands them over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bad_arrays import a_tree as a_tree_of_ones
from bad_arrays import mid_window, refused_without_a_trace
from model import snapshot
from optimizers import a_tree

import instep


def test_apply_gradients_binds_at_the_first_call() -> None:
    a, b = np.zeros(1), np.zeros(2)
    opt = instep.SGD(learning_rate=1.0)
    opt.apply_gradients(zip([np.ones(1), np.ones(2)], [a, b], strict=True))
    assert a.tolist() + b.tolist() == [-1.0] * 3
    assert opt.params[0] is a
    assert opt.params[1] is b
    opt.step([np.ones(1), None])
    assert a.tolist() + b.tolist() == [-2.0, -1.0, -1.0]


def test_apply_gradients_in_any_order_and_with_arrays_left_out() -> None:
    a, b, c = np.zeros(1), np.zeros(1), np.zeros(1)
    opt = instep.Adam(learning_rate=1.0)
    g = np.ones(1)
    opt.apply_gradients([(g, a), (g, b), (None, c)])
    opt.apply_gradients([(2 * g, b), (g, a)])
    opt.apply_gradients([(g, c)])
    opt.apply_gradients([])
    assert [state["step"] for state in opt.state] == [2, 2, 1]
    np.testing.assert_allclose(opt.state[1]["m"], [0.29])
    assert opt.iterations == 4


def test_apply_gradients_knows_fresh_views() -> None:
    store = np.zeros((4, 6))
    opt = instep.SGD(learning_rate=1.0)
    g = np.ones((4, 3))
    opt.apply_gradients([(g, store[:, :3]), (2 * g, store[:, 3:])])
    opt.apply_gradients([(2 * g, store[:, 3:]), (g, store[:, :3])])
    assert store.tolist() == [[-2.0] * 3 + [-4.0] * 3] * 4


def test_apply_gradients_on_a_nested_structure() -> None:
    tree = a_tree()
    opt = instep.SGD(tree, learning_rate=1.0)
    before = tree["encoder"][2][0].copy()
    opt.apply_gradients([(np.ones(4), tree["encoder"][2][0]), (1.5, tree["encoder"][1])])
    assert tree["encoder"][2][0].tolist() == (before - 1.0).tolist()


def test_apply_gradients_matches_two_empty_arrays() -> None:
    params = [np.zeros(0), np.zeros((2, 0)), np.zeros(1)]
    opt = instep.SGD(params, learning_rate=1.0)
    opt.apply_gradients([(np.ones(1), params[2]), (np.zeros(0), params[0])])
    assert params[2][0] == -1.0


@pytest.mark.parametrize(
    "pairs",
    [
        lambda a, b: [(np.ones(4), a), (np.ones(4), np.zeros(4))],
        lambda a, b: [(np.ones(4), a), (np.ones(4), a)],
        lambda a, b: [(np.ones(4), b), (np.ones(4), a), (np.ones(4), b[:])],
        lambda a, b: [(np.ones(4), b), (np.ones(2), a[:2])],
        lambda a, b: [(np.ones(4), b), (np.ones(2), a[::2])],
        lambda a, b: [(np.ones(4), b), (np.ones((2, 2)), a.reshape(2, 2))],
        lambda a, b: [(np.ones(4), b), (np.ones(4), a[::-1])],
        lambda a, b: [(np.ones(4), b), (None, np.zeros(4))],
        lambda a, b: [(np.ones(4), b), (None, b)],
    ],
    ids=[
        "unknown",
        "repeated",
        "repeated-view",
        "part",
        "every-other",
        "reshaped",
        "reversed",
        "unknown-none",
        "repeated-none",
    ],
)
def test_apply_gradients_refuses_unknown_and_repeated_arrays(
    pairs: Callable[[Any, Any], list[tuple[Any, Any]]],
) -> None:
    a, b = np.zeros(4), np.zeros(4)
    opt = instep.Adam([a, b])
    opt.step([np.ones(4), np.ones(4)])
    before = snapshot(opt)
    with pytest.raises(ValueError):  # noqa: PT011
        opt.apply_gradients(pairs(a, b))
    assert snapshot(opt) == before


def test_apply_gradients_refuses_repetition_at_the_first_call_too() -> None:
    a = np.zeros(4)
    opt = instep.Adam()
    with pytest.raises(ValueError, match="sum"):
        opt.apply_gradients([(np.ones(4), a), (np.ones(4), a)])
    assert a.tolist() == [0.0] * 4
    opt.apply_gradients([(np.ones(4), a)])
    assert opt.iterations == 1


def test_hyperparameters_that_change_while_the_first_step_binds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another thread may do it."""
    from instep._binding import Binding

    opt, param, new = instep.SGD(learning_rate=0.1), np.zeros(2), Binding.new

    def change(*arguments: Any, **named: Any) -> Binding:
        binding = new(*arguments, **named)
        if opt.learning_rate != 0.5:
            opt.learning_rate = 0.5
        return binding

    monkeypatch.setattr(Binding, "new", change)
    opt.apply_gradients([(np.ones(2), param)])
    assert param.tolist() == [-0.5, -0.5]


# --- pairs that fail ----------------------------------------------------------------------------


class OwnError(Exception):
    pass


def failing_pairs(pairs: list[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    yield from pairs
    raise OwnError


def test_pairs_that_raise() -> None:
    tree = a_tree_of_ones()
    opt = mid_window(tree)
    before = snapshot(opt)
    pairs = [(np.ones(4), tree["decoder"]), (np.ones(3), tree["head"][0])]
    with pytest.raises(OwnError):
        opt.apply_gradients(failing_pairs(pairs))
    assert snapshot(opt) == before


def test_pairs_that_raise_at_the_first_call_bind_nothing() -> None:
    p = np.zeros(4)
    opt = instep.SGD(learning_rate=1.0)
    with pytest.raises(OwnError):
        opt.apply_gradients(failing_pairs([(np.ones(4), p)]))
    assert not p.any()
    with pytest.raises(RuntimeError):
        opt.step([np.ones(4)])


@pytest.mark.parametrize(
    "bad", [None, 1, np.ones(4), [np.ones(4)], [(np.ones(4),)], [(np.ones(4), 1, 2)], ["ab"]]
)
def test_pairs_that_are_no_pairs(bad: Any) -> None:
    tree = a_tree_of_ones()
    opt = mid_window(tree)
    refused_without_a_trace(opt, lambda: opt.apply_gradients(bad))


def test_arrays_of_no_elements_at_one_address() -> None:
    """As shards of a flat buffer are, where a rank has nothing."""
    buffer = np.ones(8, np.float32)
    variables = [buffer[:4], buffer[4:4], buffer[4:4], buffer[4:4].reshape(0, 3), buffer[4:]]
    opt = instep.SGD(learning_rate=1.0)
    for _ in range(2):
        opt.apply_gradients([(np.ones(v.shape, np.float32), v) for v in variables])
    views = [v[...] for v in variables]
    opt.apply_gradients([(np.ones(v.shape, np.float32), v) for v in reversed(views)])
    assert buffer.tolist() == [-2.0] * 8
    with pytest.raises(ValueError, match="expected one of the 5 arrays"):
        opt.apply_gradients([(np.ones((0, 2), np.float32), np.ones((0, 2), np.float32))])
    with pytest.raises(ValueError, match="each variable once"):
        opt.apply_gradients([(None, variables[1]), (None, variables[1])])
