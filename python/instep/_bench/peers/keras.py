"""Keras, whose backend is the one that KERAS_BACKEND names, else PyTorch, else NumPy."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, library, repeated

Config = Mapping[str, Any]


def _adam(c: Config) -> dict[str, Any]:
    return {"beta_1": c["beta_1"], "beta_2": c["beta_2"], "epsilon": c["epsilon"]}


def _adafactor(c: Config) -> dict[str, Any]:
    return {
        name: c[name]
        for name in ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step")
    }


_RULES: dict[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "SGD": ("SGD", lambda _: {}),
    "Momentum": ("SGD", lambda c: {"momentum": c["momentum"]}),
    "Adagrad": ("Adagrad", lambda c: {"initial_accumulator_value": 0, "epsilon": c["epsilon"]}),
    "RMSprop": ("RMSprop", lambda c: {"rho": c["rho"], "epsilon": c["epsilon"]}),
    "Adadelta": ("Adadelta", lambda c: {"rho": c["rho"], "epsilon": c["epsilon"]}),
    "Adam": ("Adam", _adam),
    "AdamW": ("AdamW", lambda c: {**_adam(c), "weight_decay": c["weight_decay"]}),
    "Adamax": ("Adamax", _adam),
    "Lion": ("Lion", lambda c: {"beta_1": c["beta_1"], "beta_2": c["beta_2"]}),
    "Adafactor": ("Adafactor", _adafactor),
}


class Keras(Peer):
    """``keras.optimizers``, called eagerly."""

    title = "Keras"
    rules = _RULES
    temporaries = 3

    def __init__(self) -> None:
        torch = importlib.util.find_spec("torch")
        os.environ.setdefault("KERAS_BACKEND", "torch" if torch else "numpy")
        self._keras = library("keras")
        self._optimizers: Any = self._keras.optimizers
        self._backend = self._keras.backend.backend()
        self.version = f"{self._keras.__version__} on {self._backend}"

    def set_num_threads(self, threads: int) -> None:
        """Set PyTorch's number."""
        if self._backend == "torch":
            library("torch").set_num_threads(threads)

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Make variables and their optimizer."""
        keras = self._keras
        variables = [keras.Variable(p, dtype=case.dtype) for p in case.ones()]
        gradients = [keras.ops.convert_to_tensor(g) for g in grads]
        name, keywords = _RULES[case.rule.name]
        config = case.rule.config
        optimizer = getattr(self._optimizers, name)(config["learning_rate"], **keywords(config))
        return Contender(
            repeated(optimizer.apply, gradients, variables),
            lambda: [keras.ops.convert_to_numpy(v.value) for v in variables],
        )
