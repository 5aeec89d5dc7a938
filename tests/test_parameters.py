"""Parameters that are refused, by name, at binding and when they have changed since."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bad_arrays import (
    BAD_PARAMETERS,
    PATH,
    a_tree,
    mid_window,
    plain,
    read_only,
    refused,
    refused_without_a_trace,
    with_leaf,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model import freeze, snapshot
from numpy.lib.stride_tricks import as_strided
from operations import SHAPE

import instep

# --- at binding ---------------------------------------------------------------------------------


each_bad_parameter = pytest.mark.parametrize("kind", BAD_PARAMETERS)


@each_bad_parameter
def test_bad_parameter_at_construction(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    refused(lambda: instep.Adam(with_leaf(make())), re.escape(PATH), word)


@each_bad_parameter
def test_bad_parameter_deeper_and_in_a_group(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    tree = {"x": instep.Group([np.zeros(1), (np.zeros(1), make())], learning_rate=0.1)}
    refused(lambda: instep.Adam(tree), re.escape("params['x'][1][1]"), word)


@each_bad_parameter
def test_bad_parameter_at_building_leaves_the_optimizer_unbound(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    opt = instep.Adam()
    tree = with_leaf(make())
    refused(lambda: opt.build(tree), re.escape(PATH), word)
    with pytest.raises(RuntimeError):
        opt.step(tree)


@each_bad_parameter
def test_bad_parameter_at_rebinding(kind: str) -> None:
    make = BAD_PARAMETERS[kind][0]
    params = a_tree()
    opt = mid_window(params)
    refused_without_a_trace(opt, lambda: opt.build(with_leaf(make())), re.escape(PATH))
    assert opt.params["encoder"][2] is params["encoder"][2]


@each_bad_parameter
def test_bad_parameter_at_the_first_apply_gradients(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    good = np.zeros(3)
    opt = instep.SGD(learning_rate=1.0)
    pairs: list[Any] = [(np.ones(3), good), (np.ones(SHAPE), make())]
    refused(lambda: opt.apply_gradients(pairs), re.escape("params[1]"), word)
    assert good.tolist() == [0.0] * 3
    assert opt.iterations == 0


def test_bad_bare_parameter_is_called_params() -> None:
    refused(lambda: instep.Adam(np.zeros(3, int)), r"\bparams\b", "int64")


# --- their memory -------------------------------------------------------------------------------


def test_the_same_array_twice_gets_advice() -> None:
    shared = np.zeros(SHAPE)
    tree = with_leaf(shared)
    tree["decoder"] = shared
    refused(lambda: instep.Adam(tree), re.escape(PATH), r"params\['decoder'\]", "once", "sum")
    refused(lambda: instep.Adam([shared, shared[:]]), r"params\[0\]", r"params\[1\]", "sum")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.s_[:4], np.s_[3:]),
        (np.s_[:], np.s_[2:3]),
        (np.s_[::2], np.s_[::3]),
        (np.s_[1::4], np.s_[3::6]),
        (np.s_[::-1], np.s_[:1]),
    ],
)
def test_overlapping_views_are_refused(first: slice, second: slice) -> None:
    base = np.zeros(12)
    tree = with_leaf(base[first])
    tree["head"] = (base[second],)
    refused(lambda: instep.Adam(tree), re.escape(PATH), r"params\['head'\]\[0\]", "overlap|memory")


def test_overlap_between_different_dtypes_is_refused() -> None:
    base = np.zeros(6)
    refused(lambda: instep.Adam([base, base.view(np.float32)[3:4]]), r"params\[0\]", r"params\[1\]")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.s_[::2], np.s_[1::2]),
        (np.s_[1::4], np.s_[2::6]),
        (np.s_[:5], np.s_[5:]),
        (np.s_[::-2], np.s_[::2]),
    ],
)
def test_interleaved_views_are_fine(first: slice, second: slice) -> None:
    base = np.zeros(12)
    params = [base[first], base[second]]
    opt = instep.SGD(params, learning_rate=1.0)
    opt.step([np.full(p.shape, value) for p, value in zip(params, (1.0, 2.0), strict=True)])
    expected = np.zeros(12)
    expected[first] = -1.0
    expected[second] = -2.0
    assert base.tolist() == expected.tolist()


two_views = st.tuples(st.slices(7), st.slices(9))


@settings(deadline=None, max_examples=300)
@given(two_views, two_views)
def test_memory_is_compared_exactly(
    first: tuple[slice, slice], second: tuple[slice, slice]
) -> None:
    base, index = np.zeros((7, 9)), np.arange(63).reshape(7, 9)
    shared = np.intersect1d(index[first], index[second]).size > 0
    p, q = base[first], base[second]
    if shared:
        refused(lambda: instep.SGD([p, q]), r"params\[0\]", r"params\[1\]")
        opt = instep.SGD(p)
        refused_without_a_trace(opt, lambda: opt.step(np.broadcast_to(q, q.shape)), "params")
    else:
        instep.SGD([p, q], learning_rate=1.0).step([np.ones(p.shape), np.full(q.shape, 2.0)])
        assert np.all(p == -1.0)
        assert np.all(q == -2.0)


def test_strides_of_axes_of_length_one_do_not_matter() -> None:
    base = np.zeros(3)
    p = as_strided(base, (1, 3), (0, 8))
    instep.SGD(p, learning_rate=1.0).step(np.ones((1, 3)))
    assert base.tolist() == [-1.0] * 3


def test_empty_views_overlap_nothing() -> None:
    base = np.zeros(4)
    opt = instep.SGD([base, base[2:2], base[2:2]], learning_rate=1.0)
    opt.step([np.ones(4), np.zeros(0), np.zeros(0)])
    assert base.tolist() == [-1.0] * 4


# --- they and their containers after binding ----------------------------------------------------


@pytest.fixture(params=[plain, mid_window], ids=["plain", "mid-window"])
def bound(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Any]:
    tree = a_tree()
    return tree, request.param(tree)


def replace_in_list(tree: dict[str, Any]) -> None:
    tree["encoder"][2] = tree["encoder"][2] - 1.0


def replace_list(tree: dict[str, Any]) -> None:
    tree["encoder"] = [*tree["encoder"][:2], np.zeros(SHAPE)]


def replace_by_none(tree: dict[str, Any]) -> None:
    tree["encoder"][2] = None


def remove_from_list(tree: dict[str, Any]) -> None:
    del tree["encoder"][2]


def swap_type(tree: dict[str, Any]) -> None:
    tree["encoder"][2] = tree["encoder"][2].tolist()


@pytest.mark.parametrize(
    "change", [replace_in_list, replace_list, replace_by_none, remove_from_list, swap_type]
)
def test_a_container_that_holds_something_else_is_noticed(
    bound: tuple[dict[str, Any], Any], change: Callable[[dict[str, Any]], None]
) -> None:
    tree, opt = bound
    leaves = [tree["decoder"], *tree["encoder"], *tree["head"]]
    before = freeze([leaves, opt.iterations, opt.skipped_steps])
    change(tree)
    path = re.escape("params['encoder']")
    with pytest.raises((TypeError, ValueError, RuntimeError), match=path):
        opt.step(a_tree())
    assert freeze([leaves, opt.iterations, opt.skipped_steps]) == before


def test_a_replaced_dict_entry_is_noticed_and_can_be_put_back(
    bound: tuple[dict[str, Any], Any],
) -> None:
    tree, opt = bound
    kept = tree["decoder"]
    before = snapshot(opt)
    tree["decoder"] = tree["decoder"] - 0.5
    with pytest.raises((ValueError, RuntimeError), match=re.escape("params['decoder']")):
        opt.step(a_tree())
    tree["decoder"] = kept
    assert snapshot(opt) == before
    opt.step(a_tree())
    assert snapshot(opt) != before


def test_added_arrays_are_noticed(bound: tuple[dict[str, Any], Any]) -> None:
    tree, opt = bound
    leaves = [tree["decoder"], *tree["encoder"], *tree["head"]]
    before = freeze(leaves)
    tree["tail"] = np.zeros(2)
    with pytest.raises((ValueError, RuntimeError), match="params"):
        opt.step(a_tree())
    del tree["tail"]
    tree["encoder"].append(np.zeros(2))
    with pytest.raises((ValueError, RuntimeError), match=re.escape("params['encoder']")):
        opt.step(a_tree())
    assert freeze(leaves) == before


def test_a_replaced_entry_inside_a_group_is_noticed() -> None:
    inside = {"w": np.zeros(2)}
    opt = instep.SGD([np.zeros(1), instep.Group(inside, learning_rate=0.1)])
    inside["w"] = np.zeros(2)
    with pytest.raises((ValueError, RuntimeError), match=re.escape("params[1]['w']")):
        opt.step([np.ones(1), {"w": np.ones(2)}])
    assert opt.iterations == 0


def test_a_replaced_entry_is_noticed_by_apply_gradients_and_with_none() -> None:
    tree = a_tree()
    opt = plain(tree)
    tree["decoder"] = tree["decoder"] - 1.0
    calls: list[Callable[[], object]] = [
        lambda: opt.step({"decoder": None, "encoder": [None] * 3, "head": (None,)}),
        lambda: opt.apply_gradients([(np.ones(3), tree["head"][0])]),
        lambda: opt.apply_gradients([(np.ones(4), tree["decoder"])]),
    ]
    for call in calls:
        with pytest.raises((ValueError, RuntimeError)):
            call()
    assert tree["head"][0].tolist() == [1.0] * 3
    assert opt.iterations == 0


def test_changes_in_place_are_fine(bound: tuple[dict[str, Any], Any]) -> None:
    tree, opt = bound
    tree["decoder"] -= 0.5
    tree["encoder"][2] *= 2.0
    before = tree["decoder"].copy()
    opt.step(a_tree())
    assert np.all(tree["decoder"] != before)


def grow(p: Any) -> None:
    p.resize((40_000,), refcheck=False)


def shrink(p: Any) -> None:
    p.resize((2, 1), refcheck=False)


def reshape(p: Any) -> None:
    p.shape = (3, 2)


def restride(p: Any) -> None:
    p.strides = (8, 16)


def retype(p: Any) -> None:
    p.dtype = np.int64


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [grow, shrink, reshape, restride, retype, read_only])
def test_an_array_that_changed_under_the_optimizer_is_noticed(
    bound: tuple[dict[str, Any], Any], change: Callable[[Any], object]
) -> None:
    tree, opt = bound
    others = [tree["decoder"], *tree["encoder"][:2], *tree["head"]]
    before = freeze([others, opt.iterations, opt.skipped_steps])
    p = tree["encoder"][2]
    change(p)
    changed = freeze(p)
    for g in (np.ones(SHAPE), np.ones(p.shape), None):
        with pytest.raises((TypeError, ValueError, RuntimeError), match=re.escape(PATH)):
            opt.step(with_leaf(g))
    assert freeze([others, opt.iterations, opt.skipped_steps]) == before
    assert freeze(p) == changed


def test_an_array_made_writeable_again_is_welcome(bound: tuple[dict[str, Any], Any]) -> None:
    tree, opt = bound
    p = tree["encoder"][2]
    p.flags.writeable = False
    refused_without_a_trace(opt, lambda: opt.step(a_tree()), re.escape(PATH), "read.?only|writ")
    p.flags.writeable = True
    opt.step(a_tree())
    assert np.all(p < 1.0)
