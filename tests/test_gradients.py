"""Gradients that are refused, by name and without a trace, and those that are fine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bad_arrays import (
    BAD_GRADIENTS,
    PATH,
    a_tree,
    each_dtype,
    each_optimizer,
    mid_window,
    plain,
    read_only,
    refused,
    refused_without_a_trace,
    with_leaf,
)
from model import freeze
from operations import SHAPE

import instep

# --- one array ----------------------------------------------------------------------------------


SHAPES = [kind for kind, (_, word) in BAD_GRADIENTS.items() if word.startswith(r"\(")]
each_bad_gradient = pytest.mark.parametrize("kind", BAD_GRADIENTS)


@each_bad_gradient
@each_optimizer
@each_dtype
def test_bad_gradient(kind: str, make: Callable[[Any], Any], dtype: npt.DTypeLike) -> None:
    spoil, word = BAD_GRADIENTS[kind]
    opt = make(a_tree(dtype))
    bad = with_leaf(spoil(np.ones(SHAPE, dtype)), dtype)
    refused_without_a_trace(opt, lambda: opt.step(bad), re.escape(PATH), word)


@pytest.mark.parametrize("kind", SHAPES)
def test_shape_errors_tell_the_expected_shape(kind: str) -> None:
    opt = plain(a_tree())
    bad = with_leaf(BAD_GRADIENTS[kind][0](np.ones(SHAPE)))
    refused(lambda: opt.step(bad), r"\(2, 3\)")


@each_bad_gradient
@each_optimizer
def test_bad_gradient_in_apply_gradients(kind: str, make: Callable[[Any], Any]) -> None:
    spoil, word = BAD_GRADIENTS[kind]
    tree = a_tree()
    opt = make(tree)
    pairs = [
        (np.ones(3), tree["head"][0]),
        (spoil(np.ones(SHAPE)), tree["encoder"][2]),
        (np.ones(4), tree["decoder"]),
    ]
    refused_without_a_trace(opt, lambda: opt.apply_gradients(pairs), re.escape(PATH), word)


@each_bad_gradient
def test_bad_gradient_at_the_first_apply_gradients(kind: str) -> None:
    spoil, word = BAD_GRADIENTS[kind]
    a, b = np.zeros(4), np.zeros(SHAPE)
    opt = instep.SGD(learning_rate=1.0)
    bad: Any = spoil(np.ones(SHAPE))
    refused(lambda: opt.apply_gradients([(np.ones(4), a), (bad, b)]), re.escape("params[1]"), word)
    assert not a.any()
    assert not b.any()
    assert opt.iterations == 0
    opt.apply_gradients([(np.ones(4), a), (np.ones(SHAPE), b)])
    assert b.tolist() == [[-1.0] * 3] * 2


@pytest.mark.parametrize(
    "bad", [1, True, 1j, "1", np.int64(1), np.float16(1), np.longdouble(1), [1.0], np.ones(1)]
)
@each_optimizer
def test_bad_gradient_of_a_zero_dimensional_parameter(bad: Any, make: Callable[[Any], Any]) -> None:
    opt = make(a_tree())
    tree = a_tree()
    tree["encoder"][1] = bad
    refused_without_a_trace(opt, lambda: opt.step(tree), re.escape("params['encoder'][1]"))


def test_a_gradient_of_a_bare_parameter_is_named_params() -> None:
    opt = plain(np.zeros(3))
    refused_without_a_trace(opt, lambda: opt.step(np.ones(4)), r"\bparams\b", r"\(3,\)", r"\(4,\)")


def test_a_bad_gradient_is_refused_even_where_another_would_skip() -> None:
    opt = mid_window(a_tree())
    bad = with_leaf(np.ones((3, 2)))
    bad["decoder"][0] = np.nan
    refused_without_a_trace(opt, lambda: opt.step(bad), re.escape(PATH))


# --- in the memory of the optimizer -------------------------------------------------------------


@pytest.mark.parametrize(
    "own",
    [
        lambda opt: opt.params["encoder"][2],
        lambda opt: opt.params["encoder"][2][:],
        lambda opt: opt.params["encoder"][2][::-1],
        lambda opt: opt.state["encoder"][2]["m"],
        lambda opt: opt.state["encoder"][2]["v"],
        lambda opt: np.broadcast_to(opt.params["encoder"][2][:, :1], SHAPE),
        lambda opt: np.broadcast_to(opt.params["encoder"][1], SHAPE),
        lambda opt: np.broadcast_to(opt.params["head"][0], SHAPE),
        lambda opt: np.broadcast_to(opt.state["head"][0]["v"], SHAPE),
        lambda opt: np.broadcast_to(opt.params["decoder"][1:], SHAPE),
        lambda opt: np.broadcast_to(opt.state["decoder"]["m"][:3], SHAPE),
    ],
    ids=[
        "parameter",
        "view",
        "reversed",
        "m",
        "v",
        "column",
        "parameter-before",
        "parameter-after",
        "state-after",
        "first-parameter",
        "first-state",
    ],
)
def test_gradient_in_the_memory_of_parameters_or_state(own: Callable[[Any], Any]) -> None:
    opt = mid_window(a_tree())
    bad = with_leaf(own(opt))
    refused_without_a_trace(opt, lambda: opt.step(bad), re.escape(PATH), "memory|overlap|shar")


def test_the_parameters_as_their_own_gradients() -> None:
    for params in (a_tree(), np.zeros(3), [np.zeros(1)]):
        opt = plain(params)
        refused_without_a_trace(opt, lambda o=opt, p=params: o.step(p), "params")  # type: ignore[misc]


def test_gradient_interleaved_with_its_parameter_is_fine() -> None:
    base = np.ones(10)
    opt = instep.SGD(base[::2], learning_rate=1.0)
    opt.step(base[1::2])
    assert base.tolist() == [0.0, 1.0] * 5


def test_gradients_may_share_memory_among_themselves() -> None:
    params = [np.zeros(3), np.zeros(3), np.zeros(2)]
    g = np.ones(3)
    instep.SGD(params, learning_rate=1.0).step([g, g, g[1:]])
    assert np.concatenate(params).tolist() == [-1.0] * 8


# --- that are fine ------------------------------------------------------------------------------


@each_dtype
def test_read_only_and_broadcast_gradients_are_fine(dtype: npt.DTypeLike) -> None:
    g = np.array([1.0, 2.0, 3.0], dtype)
    forms = [
        np.tile(g, (2, 1)),
        read_only(np.tile(g, (2, 1))),
        np.broadcast_to(g, SHAPE),
        np.repeat(g, 2)[::2][None].repeat(2, axis=0),
        np.asfortranarray(np.tile(g, (2, 1))),
        np.tile(g[::-1], (2, 1))[:, ::-1],
    ]
    results = []
    for form in forms:
        p = np.ones(SHAPE, dtype)
        opt = instep.Adam(p)
        opt.step(form)
        results.append(freeze([p, opt.state]))
    assert results.count(results[0]) == len(forms)
    p = np.zeros(SHAPE, dtype)
    instep.SGD(p, learning_rate=1.0).step(np.broadcast_to(np.asarray(1.0, dtype), SHAPE))
    assert p.tolist() == [[-1.0] * 3] * 2


@pytest.mark.parametrize("accumulation", [1, 2])
def test_double_gradient_is_rounded_for_a_single_parameter(accumulation: int) -> None:
    rng = np.random.default_rng(0)
    p, q = np.zeros((2, 1001), np.float32)
    options = {"global_clipnorm": 1.0, "gradient_accumulation_steps": accumulation}
    first, second = instep.Adam(p, **options), instep.Adam(q, **options)  # type: ignore[arg-type]
    for _ in range(4):
        g = rng.normal(size=1001)
        first.step(g)
        second.step(g.astype(np.float32))
    assert p.tobytes() == q.tobytes()
    assert p.any()
    assert first.grad_norm == second.grad_norm


def test_single_gradient_is_exact_for_a_double_parameter() -> None:
    rng = np.random.default_rng(0)
    p, q = np.zeros((2, 1001))
    first, second = instep.Adam(p), instep.Adam(q)
    for _ in range(4):
        g = rng.normal(size=1001).astype(np.float32)
        first.step(g)
        second.step(g.astype(np.float64))
    assert p.tobytes() == q.tobytes()
    assert p.any()


@pytest.mark.parametrize("value", [1e39, -1e39, 1e300])
def test_gradient_that_overflows_on_rounding_is_not_finite(value: float) -> None:
    params: list[Any] = [np.zeros(3, np.float32), np.zeros((), np.float32), np.zeros(3)]
    opt = instep.SGD(params, learning_rate=1e-30, skip_nonfinite=True)
    opt.step([np.array([1.0, value, 1.0]), None, None])
    opt.step([None, value, None])
    assert (opt.skipped_steps, opt.iterations) == (2, 0)
    assert not any(p.any() for p in params)
    opt.step([np.full(3, 3e38), None, np.full(3, value)])
    assert (opt.skipped_steps, opt.iterations) == (2, 1)
    assert all(p.all() for p in params[::2])


# --- their structure ----------------------------------------------------------------------------


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != key}


BAD_STRUCTURES: dict[str, tuple[Callable[[], object], str]] = {
    "missing-key": (lambda: without(a_tree(), "head"), "head"),
    "extra-key": (lambda: a_tree() | {"tail": np.ones(1)}, "tail"),
    "other-key": (lambda: without(a_tree(), "head") | {"heads": (np.ones(3),)}, "head"),
    "shorter": (lambda: a_tree() | {"encoder": a_tree()["encoder"][:2]}, r"params\['encoder'\]"),
    "longer": (
        lambda: a_tree() | {"encoder": [*a_tree()["encoder"], np.ones(1)]},
        r"params\['encoder'\]",
    ),
    "no-container": (lambda: a_tree() | {"encoder": np.ones(3)}, r"params\['encoder'\]"),
    "dict-for-list": (
        lambda: a_tree() | {"encoder": dict(enumerate(a_tree()["encoder"]))},
        r"params\['encoder'\]",
    ),
    "container-for-leaf": (lambda: a_tree() | {"decoder": [np.ones(4)]}, r"params\['decoder'\]"),
    "list-for-dict": (lambda: list(a_tree().values()), "params"),
    "array-for-dict": (lambda: np.ones(4), "params"),
    "generator": (lambda: iter(a_tree().values()), "params"),
    "number": (lambda: 1.0, "params"),
    "string": (lambda: "decoder", "params"),
}


@pytest.mark.parametrize("kind", BAD_STRUCTURES)
@each_optimizer
def test_gradients_of_another_structure(kind: str, make: Callable[[Any], Any]) -> None:
    build, word = BAD_STRUCTURES[kind]
    opt = make(a_tree())
    refused_without_a_trace(opt, lambda: opt.step(build()), word)


def test_a_list_parameter_needs_a_list_of_gradients() -> None:
    opt = plain([np.zeros(2), np.zeros(2)])
    for bad in (np.ones((2, 2)), {0: np.ones(2), 1: np.ones(2)}, iter([np.ones(2)] * 2), "ab"):
        refused_without_a_trace(opt, lambda b=bad: opt.step(b), "params")  # type: ignore[misc]
