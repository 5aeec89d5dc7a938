"""NumPy, written out with ``out=`` so that nothing is allocated. It has one thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, repeated

Config = Mapping[str, Any]
Update = Callable[[int, Array, Array, Sequence[Array], Array, Array], None]
"""Takes the 1-based step, a parameter, its gradient, its state and two arrays of scratch."""


def _sgd(c: Config) -> Update:
    rate = c["learning_rate"]

    def update(_t: int, p: Array, g: Array, _s: Sequence[Array], x: Array, _y: Array) -> None:
        np.multiply(g, rate, out=x)
        np.subtract(p, x, out=p)

    return update


def _momentum(c: Config) -> Update:
    rate, momentum = c["learning_rate"], c["momentum"]

    def update(_t: int, p: Array, g: Array, s: Sequence[Array], x: Array, _y: Array) -> None:
        (b,) = s
        np.multiply(b, momentum, out=b)
        np.add(b, g, out=b)
        np.multiply(b, rate, out=x)
        np.subtract(p, x, out=p)

    return update


def _adagrad(c: Config) -> Update:
    rate, epsilon = c["learning_rate"], c["epsilon"]

    def update(_t: int, p: Array, g: Array, s: Sequence[Array], x: Array, _y: Array) -> None:
        (a,) = s
        np.multiply(g, g, out=x)
        np.add(a, x, out=a)
        np.sqrt(a, out=x)
        np.add(x, epsilon, out=x)
        np.divide(g, x, out=x)
        np.multiply(x, rate, out=x)
        np.subtract(p, x, out=p)

    return update


def _rmsprop(c: Config) -> Update:
    rate, rho, epsilon = c["learning_rate"], c["rho"], c["epsilon"]

    def update(_t: int, p: Array, g: Array, s: Sequence[Array], x: Array, _y: Array) -> None:
        (v,) = s
        np.multiply(v, rho, out=v)
        np.multiply(g, g, out=x)
        np.multiply(x, 1 - rho, out=x)
        np.add(v, x, out=v)
        np.add(v, epsilon, out=x)
        np.sqrt(x, out=x)
        np.divide(g, x, out=x)
        np.multiply(x, rate, out=x)
        np.subtract(p, x, out=p)

    return update


def _adadelta(c: Config) -> Update:
    rate, rho, epsilon = c["learning_rate"], c["rho"], c["epsilon"]

    def update(_t: int, p: Array, g: Array, s: Sequence[Array], x: Array, y: Array) -> None:
        a, d = s
        np.multiply(a, rho, out=a)
        np.multiply(g, g, out=x)
        np.multiply(x, 1 - rho, out=x)
        np.add(a, x, out=a)
        np.add(a, epsilon, out=x)
        np.add(d, epsilon, out=y)
        np.divide(y, x, out=x)
        np.sqrt(x, out=x)
        np.multiply(x, g, out=x)
        np.multiply(d, rho, out=d)
        np.multiply(x, x, out=y)
        np.multiply(y, 1 - rho, out=y)
        np.add(d, y, out=d)
        np.multiply(x, rate, out=x)
        np.subtract(p, x, out=p)

    return update


def _adam(c: Config) -> Update:
    rate, b1, b2, epsilon = c["learning_rate"], c["beta_1"], c["beta_2"], c["epsilon"]
    kept = 1 - rate * c["weight_decay"]

    def update(t: int, p: Array, g: Array, s: Sequence[Array], x: Array, _y: Array) -> None:
        m, v = s
        np.multiply(m, b1, out=m)
        np.multiply(g, 1 - b1, out=x)
        np.add(m, x, out=m)
        np.multiply(v, b2, out=v)
        np.multiply(g, g, out=x)
        np.multiply(x, 1 - b2, out=x)
        np.add(v, x, out=v)
        np.sqrt(v, out=x)
        np.divide(x, math.sqrt(1 - b2**t), out=x)
        np.add(x, epsilon, out=x)
        np.divide(m, x, out=x)
        np.multiply(x, rate / (1 - b1**t), out=x)
        if kept != 1:
            np.multiply(p, kept, out=p)
        np.subtract(p, x, out=p)

    return update


_UPDATES: dict[str, Callable[[Config], Update]] = {
    "SGD": _sgd,
    "Momentum": _momentum,
    "Adagrad": _adagrad,
    "RMSprop": _rmsprop,
    "Adadelta": _adadelta,
    "Adam": _adam,
    "AdamW": _adam,
}


class NumPy(Peer):
    """A loop over the arrays, an operation after the other."""

    title = "NumPy"
    version = np.__version__
    rules = _UPDATES
    dtypes = ("float32", "float64", "mixed")
    temporaries = 2

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Allocate parameters, state and scratch."""
        params, states = case.ones(), case.zeros()
        update = _UPDATES[case.rule.name](case.rule.config)
        size = max(p.size for p in params)
        x, y = (np.empty(size, params[0].dtype) for _ in range(2))
        scratch = [[each[: p.size].reshape(p.shape) for each in (x, y)] for p in params]
        t = 0

        def step() -> None:
            nonlocal t
            t += 1
            for p, g, s, (x, y) in zip(params, grads, states, scratch, strict=True):
                update(t, p, g, s, x, y)

        return Contender(repeated(step), lambda: params)
