"""numba: the rule as one loop over an array's elements, parallel where there are threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from instep._bench.case import DTYPES, Array, Case
from instep._bench.peers.base import Contender, Peer, library, repeated

Config = Mapping[str, Any]
Loop = Callable[..., None]
"""Takes a parameter, its gradient, its state and the scalars of the step."""
Scalars = Callable[[int], tuple[Any, ...]]
"""Returns the loop's scalars for the 1-based step."""


# Constants get the parameters' type T here, because numba would take Python's for double.


def _sgd(c: Config, T: Any, prange: Any) -> tuple[Loop, Scalars]:
    rate = T(c["learning_rate"])

    def loop(p: Any, g: Any) -> None:
        for i in prange(p.size):
            p[i] -= rate * T(g[i])

    return loop, lambda _: ()


def _momentum(c: Config, T: Any, prange: Any) -> tuple[Loop, Scalars]:
    rate, momentum = T(c["learning_rate"]), T(c["momentum"])

    def loop(p: Any, g: Any, b: Any) -> None:
        for i in prange(p.size):
            b[i] = momentum * b[i] + T(g[i])
            p[i] -= rate * b[i]

    return loop, lambda _: ()


def _adagrad(c: Config, T: Any, prange: Any) -> tuple[Loop, Scalars]:
    rate, epsilon = T(c["learning_rate"]), T(c["epsilon"])

    def loop(p: Any, g: Any, a: Any) -> None:
        for i in prange(p.size):
            x = T(g[i])
            a[i] += x * x
            p[i] -= rate * x / (np.sqrt(a[i]) + epsilon)

    return loop, lambda _: ()


def _rmsprop(c: Config, T: Any, prange: Any) -> tuple[Loop, Scalars]:
    rate, rho, rest = T(c["learning_rate"]), T(c["rho"]), T(1 - c["rho"])
    epsilon = T(c["epsilon"])

    def loop(p: Any, g: Any, v: Any) -> None:
        for i in prange(p.size):
            x = T(g[i])
            v[i] = rho * v[i] + rest * x * x
            p[i] -= rate * x / np.sqrt(v[i] + epsilon)

    return loop, lambda _: ()


def _adadelta(c: Config, T: Any, prange: Any) -> tuple[Loop, Scalars]:
    rate, rho, rest = T(c["learning_rate"]), T(c["rho"]), T(1 - c["rho"])
    epsilon = T(c["epsilon"])

    def loop(p: Any, g: Any, a: Any, d: Any) -> None:
        for i in prange(p.size):
            x = T(g[i])
            a[i] = rho * a[i] + rest * x * x
            u = np.sqrt((d[i] + epsilon) / (a[i] + epsilon)) * x
            d[i] = rho * d[i] + rest * u * u
            p[i] -= rate * u

    return loop, lambda _: ()


def _adam(c: Config, T: Any, prange: Any) -> tuple[Loop, Scalars]:
    b1, c1, b2, c2 = T(c["beta_1"]), T(1 - c["beta_1"]), T(c["beta_2"]), T(1 - c["beta_2"])
    epsilon, kept = T(c["epsilon"]), T(1 - c["learning_rate"] * c["weight_decay"])

    def loop(p: Any, g: Any, m: Any, v: Any, rate: Any, root: Any) -> None:
        for i in prange(p.size):
            x = T(g[i])
            m[i] = b1 * m[i] + c1 * x
            v[i] = b2 * v[i] + c2 * x * x
            p[i] = kept * p[i] - rate * m[i] / (np.sqrt(v[i]) / root + epsilon)

    def scalars(t: int) -> tuple[Any, ...]:
        rate = c["learning_rate"] / (1 - c["beta_1"] ** t)
        return T(rate), T(math.sqrt(1 - c["beta_2"] ** t))

    return loop, scalars


_LOOPS: dict[str, Callable[[Config, Any, Any], tuple[Loop, Scalars]]] = {
    "SGD": _sgd,
    "Momentum": _momentum,
    "Adagrad": _adagrad,
    "RMSprop": _rmsprop,
    "Adadelta": _adadelta,
    "Adam": _adam,
    "AdamW": _adam,
}


class Numba(Peer):
    """A compiled loop, called for each array."""

    title = "numba loop"
    rules = _LOOPS
    dtypes = ("float32", "float64", "mixed")

    def __init__(self) -> None:
        self._numba = library("numba")
        self.version = self._numba.__version__
        self._compiled: dict[tuple[str, str, bool], tuple[Loop, Scalars]] = {}

    def set_num_threads(self, threads: int) -> None:
        """Set the number, as far as numba's pool goes."""
        self._numba.set_num_threads(min(threads, self._numba.config.NUMBA_NUM_THREADS))

    def _compile(self, case: Case) -> tuple[Loop, Scalars]:
        parallel = case.threads > 1
        key = case.rule.name, case.dtype, parallel
        if key not in self._compiled:
            number = DTYPES[case.dtype][0].type
            loop, scalars = _LOOPS[case.rule.name](case.rule.config, number, self._numba.prange)
            # A check of every divisor, as Python has it, would cost the vectors.
            options = {"parallel": parallel, "error_model": "numpy"}
            self._compiled[key] = self._numba.njit(loop, **options), scalars
        return self._compiled[key]

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Allocate parameters and state; the loop is compiled in the first step."""
        loop, scalars = self._compile(case)
        params = case.ones()
        streams = [
            tuple(array.reshape(-1) for array in (p, g, *s))
            for p, g, s in zip(params, grads, case.zeros(), strict=True)
        ]
        t = 0

        def step() -> None:
            nonlocal t
            t += 1
            now = scalars(t)
            for arrays in streams:
                loop(*arrays, *now)

        return Contender(repeated(step), lambda: params)
