"""optax: all arrays in one function that JAX compiles, the old ones donated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, library, repeated

Config = Mapping[str, Any]


def _adam(c: Config) -> dict[str, Any]:
    return {"b1": c["beta_1"], "b2": c["beta_2"], "eps": c["epsilon"]}


def _lion(c: Config) -> dict[str, Any]:
    return {"b1": c["beta_1"], "b2": c["beta_2"], "weight_decay": c["weight_decay"]}


def _adafactor(c: Config) -> dict[str, Any]:
    return {
        "min_dim_size_to_factor": c["min_dim_size_to_factor"],
        "decay_rate": -c["beta_2_decay"],
        "eps": c["epsilon_1"],
        "clipping_threshold": c["clip_threshold"],
    }


_RULES: dict[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "SGD": ("sgd", lambda _: {}),
    "Momentum": ("sgd", lambda c: {"momentum": c["momentum"]}),
    "Adagrad": ("adagrad", lambda c: {"initial_accumulator_value": 0.0, "eps": c["epsilon"]}),
    "RMSprop": ("rmsprop", lambda c: {"decay": c["rho"], "eps": c["epsilon"]}),
    "Adadelta": ("adadelta", lambda c: {"rho": c["rho"], "eps": c["epsilon"]}),
    "Adam": ("adam", _adam),
    "AdamW": ("adamw", lambda c: {**_adam(c), "weight_decay": c["weight_decay"]}),
    "Adamax": ("adamax", _adam),
    "RAdam": ("radam", lambda c: {**_adam(c), "threshold": c["threshold"]}),
    "Lion": ("lion", _lion),
    "Adafactor": ("adafactor", _adafactor),
}


@contextmanager
def _confined(threads: int) -> Iterator[None]:
    """Let this thread, and those it starts, run on so many processors."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(processors)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


class Optax(Peer):
    """``optax`` under ``jax.jit``."""

    title = "optax jit"
    rules = _RULES
    temporaries = 1

    def __init__(self) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        self._jax = library("jax")
        self._optax = library("optax")
        self._jax.config.update("jax_enable_x64", True)
        self.version = self._optax.__version__

    def _start(self, threads: int) -> None:
        """Start JAX anew: its pool has a thread for each processor it sees then."""
        library("jax.extend.backend").clear_backends()
        with _confined(threads):
            self._jax.devices()

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Compile for these shapes; earlier contenders are lost."""
        self._start(case.threads)
        jax, optax = self._jax, self._optax
        name, keywords = _RULES[case.rule.name]
        config = case.rule.config
        optimizer = getattr(optax, name)(config["learning_rate"], **keywords(config))

        def update(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(update, donate_argnums=(0, 1))
        gradients = [jax.numpy.asarray(g) for g in grads]
        params = [jax.numpy.ones_like(g) for g in gradients]
        state = optimizer.init(params)

        def step() -> None:
            nonlocal params, state
            params, state = compiled(params, state, gradients)
            jax.block_until_ready(params)

        return Contender(repeated(step), lambda: [np.asarray(p) for p in params])
