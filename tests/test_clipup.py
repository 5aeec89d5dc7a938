"""ClipUp over several arrays, whose norms are those of all together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep


def paper(
    p: np.ndarray[Any, Any],
    v: np.ndarray[Any, Any],
    g: np.ndarray[Any, Any],
    step: float,
    momentum: float,
    max_speed: float,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Algorithms 1 and 2, on the vector of all parameters."""
    v = momentum * v + step * g / np.linalg.norm(g)
    if np.linalg.norm(v) > max_speed:
        v = max_speed * v / np.linalg.norm(v)
    return p - v, v


@pytest.mark.parametrize("max_speed", [None, 0.05, 10.0])
def test_arrays_are_one_vector(max_speed: float | None) -> None:
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(40)
    params = [vector[:12].reshape(3, 4).copy(), vector[12:].copy()]
    opt = instep.ClipUp(params, learning_rate=0.1, max_speed=max_speed)
    velocity, slope = np.zeros(40), rng.standard_normal(40)
    limit = 0.2 if max_speed is None else max_speed
    for _ in range(30):
        g = slope + 0.5 * rng.standard_normal(40)
        opt.step([g[:12].reshape(3, 4), g[12:]])
        vector, velocity = paper(vector, velocity, g, 0.1, 0.9, limit)
        np.testing.assert_allclose(params[0].ravel(), vector[:12], rtol=1e-12)
        np.testing.assert_allclose(params[1], vector[12:], rtol=1e-12)
    speed = np.sqrt(sum(np.sum(each["velocity"] ** 2) for each in opt.state))
    assert speed <= limit * (1 + 1e-12)


def test_the_speed_follows_the_rate() -> None:
    p = np.zeros(4)
    opt = instep.ClipUp(p, learning_rate=lambda k: 1.0 / (k + 1), momentum=0.99)
    for k in range(20):
        opt.step(np.ones(4))
        assert np.linalg.norm(opt.state["velocity"]) <= 2 / (k + 1) * (1 + 1e-12)


def test_no_slope_no_step() -> None:
    p = np.ones(3)
    opt = instep.ClipUp(p, learning_rate=0.5)
    opt.step(np.zeros(3))
    assert np.array_equal(p, np.ones(3))
    opt.step(np.array([0.0, 3.0, 4.0]))
    np.testing.assert_allclose(p, [1.0, 0.7, 0.6], rtol=1e-15)
    opt.step(np.zeros(3))  # momentum goes on
    np.testing.assert_allclose(p, [1.0, 0.43, 0.24], rtol=1e-15)


def test_what_belongs_to_all_arrays() -> None:
    for name in ("learning_rate", "learning_rate_factor", "momentum", "max_speed"):
        with pytest.raises(ValueError, match=rf"expected options among .*; got '{name}'"):
            untyped.ClipUp([instep.Group(np.ones(2), **{name: 0.5})])
    with pytest.raises(ValueError, match="convention: expected one that ClipUp has"):
        instep.ClipUp(convention="torch")
