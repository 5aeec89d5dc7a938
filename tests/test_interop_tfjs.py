"""State from and to TensorFlow.js: its forms and order, or an error and no change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from journeys import bound, grown, put, same, stored, unchanged
from trajectories.compare import is_installed, optimizer
from trajectories.problem import Array, Case

import instep
from instep import interop


def test_forms_of_weights() -> None:
    """Nested lists as JSON has them, arrays, pairs: the same state."""
    case, theirs = stored("Adam", "tfjs")
    weights = json.loads(json.dumps(theirs.states[0]))
    arrays = [
        {**each, "tensor": np.array(each["tensor"], "f4" if k else "i4")}
        for k, each in enumerate(weights)
    ]
    forms: list[Any] = [
        arrays,
        tuple(arrays),
        [(each["name"], each["tensor"]) for each in arrays],
        [[each["name"], each["tensor"]] for each in weights],
    ]
    opt = optimizer(case, [p.copy() for p in theirs.params[1]])
    interop.from_tfjs(opt, weights)
    assert opt.iterations == 20
    for form in forms:
        other = optimizer(case, [p.copy() for p in theirs.params[1]])
        interop.from_tfjs(other, form)
        assert same(other.state_dict(), opt.state_dict())


def test_order_and_names() -> None:
    w, b = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    opt = instep.Adam({"w": w, "b": b}, convention="tfjs")
    opt.step({"w": grown(w), "b": grown(b, 2.0)})
    weights = interop.to_tfjs(opt, order=[w, b])
    assert [each["name"] for each in weights] == [
        "iter",
        "params['w']/m",
        "params['b']/m",
        "params['w']/v",
        "params['b']/v",
    ]
    assert [each["tensor"].shape for each in weights] == [(), (2, 3), (2,), (2, 3), (2,)]
    assert weights[0]["tensor"] == 1
    assert weights[0]["tensor"].dtype == np.int32
    before = opt.state_dict()
    interop.from_tfjs(opt, weights, order=[w, b])
    assert same(opt.state_dict(), before)


def test_centered_momentum_that_is_not_used() -> None:
    params = [np.ones(3, np.float32), np.ones(2, np.float32)]
    opt = instep.RMSprop(params, learning_rate=0.1, centered=True, convention="tfjs")
    opt.step(grown(params))
    weights = interop.to_tfjs(opt)
    endings = [each["name"].split("/")[-1] for each in weights[1:]]
    assert endings == ["rms", "rms", "momentum", "momentum", "mg", "mg"]
    assert not weights[3]["tensor"].any()
    before = opt.state_dict()
    interop.from_tfjs(opt, weights)
    assert same(opt.state_dict(), before)


WRONG_TFJS: list[tuple[Callable[[Any], None], str]] = [
    (put(-1, ...), r"ValueError: weights: expected the 9 .* adam .* 4 arrays .*/m', .* got 8"),
    (
        put(slice(1, None), []),
        r"ValueError: weights: .* got 1; one that has not stepped has none",
    ),
    (put(0, "name", "count"), r"ValueError: weights\[0\]: expected 'iter', .* got 'count'"),
    (put(0, "tensor", -1), r"ValueError: weights\[0\]: expected a whole number >= 0, got -1"),
    (put(0, "tensor", [1, 2]), r"ValueError: weights\[0\]: expected a finite number"),
    (
        put(2, "name", "b/v"),
        r"ValueError: weights\[2\] \('b/v'\): expected the weight '.../m' of params\[1\]",
    ),
    (
        put(2, "tensor", [1.0] * 8),
        r"ValueError: weights\[2\] .* of shape \(7,\) for params\[1\], got .* \(8,\)",
    ),
    (put(2, "tensor", np.ones(7)), r"ValueError: weights\[2\] .*float32 array .* float64 array"),
    (put(2, "tensor", [None] * 7), r"ValueError: weights\[2\] .*float32 array .* object array"),
    (put(2, "tensor", [[1.0], [1.0, 2.0]]), r"TypeError: weights\[2\] .* expected an array"),
    (put(2, 7), r"TypeError: weights\[2\]: expected {'name': \.\.\., 'tensor': \.\.\.}"),
    (put(2, ["b/m"]), r"TypeError: weights\[2\]: expected {'name': \.\.\., 'tensor': \.\.\.}"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TFJS)
def test_wrong_tfjs(change: Callable[[Any], None], message: str) -> None:
    _, theirs = stored("Adam", "tfjs")
    weights = json.loads(json.dumps(theirs.states[0]))
    change(weights)
    opt = bound("Adam", "tfjs", theirs)
    given = unchanged(opt, lambda: interop.from_tfjs(opt, weights))
    assert re.match(message, given), given


@pytest.mark.parametrize("weights", [None, 3, "text", np.ones(3), {}])
def test_tfjs_weights_of_another_kind(weights: Any) -> None:
    opt = bound("Adam", "tfjs", stored("Adam", "tfjs")[1])
    message = unchanged(opt, lambda: interop.from_tfjs(opt, weights))
    assert message.startswith("TypeError: weights: expected a list of {'name': ..., 'tensor': ...}")


@pytest.mark.parametrize("theirs", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam"])
@pytest.mark.parametrize("mine", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam"])
def test_tfjs_weights_of_another_rule(mine: str, theirs: str) -> None:
    _, journey_of_theirs = stored(theirs, "tfjs")
    keywords = {"SGD": {"momentum": 0.9}}.get(mine, {})
    opt = bound(mine, "tfjs", journey_of_theirs, learning_rate=0.1, **keywords)
    if mine == theirs:
        return interop.from_tfjs(opt, journey_of_theirs.states[0])
    message = unchanged(opt, lambda: interop.from_tfjs(opt, journey_of_theirs.states[0]))
    assert re.match(r"ValueError: weights.*: expected the", message)
    return None


def test_what_tfjs_has_no_place_for() -> None:
    p, q = np.ones(3, np.float32), np.ones(2, np.float32)

    def refuses(opt: Any, message: str) -> None:
        given = unchanged(opt, lambda: interop.to_tfjs(opt))
        assert re.match(message, given), given

    refuses(
        instep.Adam([p], amsgrad=True, convention="tfjs"),
        "ValueError: amsgrad: expected False, for TensorFlow.js's adam has no such hyperparameter",
    )
    refuses(
        instep.Adam([p, instep.Group(q, beta_1=0.5)], convention="tfjs"),
        r"ValueError: params\[1\]: expected beta_1=0.9 .* TensorFlow.js's adam has no groups; got",
    )
    waiting = instep.Adam([p], gradient_accumulation_steps=2, convention="tfjs")
    waiting.step([np.ones(3, np.float32)])
    refuses(waiting, "ValueError: optimizer: expected no gradients that wait .* TensorFlow.js")
    refuses(
        instep.Adam([np.ones(3)], convention="tfjs"),
        r"ValueError: params\[0\]: expected float32, as all in TensorFlow.js; got float64",
    )


def test_centered_there_here_and_there_again() -> None:
    """Centered on gradients that vary: where they don't, TensorFlow.js's own is not a number."""
    if not is_installed("tfjs"):
        pytest.skip("tfjs is not installed")
    from trajectories.with_tfjs import leg

    keywords = {"learning_rate": 0.01, "centered": True, "momentum": 0.5}
    case = Case("RMSprop", "tfjs", keywords)
    rng = np.random.default_rng(0)
    start: list[Array] = [rng.normal(size=shape).astype("f4") for shape in ((3, 4), (5,))]
    calls = [[rng.normal(size=p.shape).astype("f4") for p in start] for _ in range(60)]
    whole = leg(case, start, calls)[0][-1]
    path, weights = leg(case, start, calls[:20])
    params = list(path[-1])
    opt = optimizer(case, params)
    interop.from_tfjs(opt, weights)
    for grads in calls[20:40]:
        opt.step(list(grads))
    end = leg(case, params, calls[40:], interop.to_tfjs(opt))[0][-1]
    for mine, theirs in zip(end, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)
