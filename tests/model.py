"""One optimizer step in float64 NumPy, in the order the API fixes, on a flat list of arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hyper:
    """What may differ from group to group."""

    learning_rate: float | Callable[[int], float]
    l2: float = 0.0
    weight_decay: float = 0.0
    clipvalue: float | None = None
    clipnorm: float | None = None
    maximize: bool = False
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    amsgrad: bool = False

    def rate(self, update: int) -> float:
        return self.learning_rate(update) if callable(self.learning_rate) else self.learning_rate


@dataclass
class Leaf:
    """One array with all that belongs to it; average is the parameter until the first update."""

    param: Array
    hyper: Hyper
    average: Array
    count: int = 0
    slots: dict[str, Array] = field(default_factory=dict)
    total: Array | None = None


Rule = Callable[[Leaf, Array, float], None]


def sgd(leaf: Leaf, g: Array, rate: float) -> None:
    h = leaf.hyper
    direction = g
    if h.momentum:
        b = g
        if leaf.count > 1:
            b = h.momentum * leaf.slots["momentum"] + (1 - h.dampening) * g
        leaf.slots["momentum"] = b
        direction = g + h.momentum * b if h.nesterov else b
    leaf.param = leaf.param - rate * direction


def adam(leaf: Leaf, g: Array, rate: float) -> None:
    h, zero = leaf.hyper, np.zeros_like(g)
    m = leaf.slots["m"] = h.beta_1 * leaf.slots.get("m", zero) + (1 - h.beta_1) * g
    v = leaf.slots["v"] = h.beta_2 * leaf.slots.get("v", zero) + (1 - h.beta_2) * g**2
    if h.amsgrad:
        v = leaf.slots["v_max"] = np.maximum(leaf.slots.get("v_max", zero), v)
    m_hat = m / (1 - h.beta_1**leaf.count)
    v_hat = v / (1 - h.beta_2**leaf.count)
    leaf.param = leaf.param - rate * m_hat / (np.sqrt(v_hat) + h.epsilon)


@dataclass
class Model:
    """An optimizer as the API describes it; the fields are named like the options."""

    rule: Rule
    leaves: list[Leaf]
    global_clipnorm: float | None = None
    loss_scale_factor: float = 1.0
    skip_nonfinite: bool = False
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    gradient_accumulation_steps: int = 1
    iterations: int = 0
    skipped_steps: int = 0
    calls: int = 0
    grad_norm: float | None = None

    def step(self, grads: Sequence[Array | None]) -> None:
        if self.skip_nonfinite and any(g is not None and not np.isfinite(g).all() for g in grads):
            self.skipped_steps += 1
            return
        for leaf, g in zip(self.leaves, grads, strict=True):
            if g is not None:
                total = np.zeros_like(leaf.param) if leaf.total is None else leaf.total
                leaf.total = total + g / self.loss_scale_factor
        self.calls += 1
        if self.calls % self.gradient_accumulation_steps == 0:
            self._update()

    def _update(self) -> None:
        means = [
            None if leaf.total is None else leaf.total / self.gradient_accumulation_steps
            for leaf in self.leaves
        ]
        shrink = 1.0
        if self.global_clipnorm is not None:
            self.grad_norm = float(np.sqrt(sum(np.sum(g**2) for g in means if g is not None)))
            shrink = self.global_clipnorm / max(self.grad_norm, self.global_clipnorm)
        for leaf, g in zip(self.leaves, means, strict=True):
            if g is not None:
                self._update_leaf(leaf, g * shrink)
            leaf.total = None
        self.iterations += 1
        if self.use_ema:
            for leaf in self.leaves:
                self._average(leaf)

    def _update_leaf(self, leaf: Leaf, g: Array) -> None:
        h = leaf.hyper
        if h.clipvalue is not None:
            g = np.clip(g, -h.clipvalue, h.clipvalue)
        if h.clipnorm is not None:
            g = g * h.clipnorm / max(float(np.sqrt(np.sum(g**2))), h.clipnorm)
        if h.maximize:
            g = -g
        g = g + h.l2 * leaf.param
        rate = h.rate(self.iterations)
        leaf.param = leaf.param - rate * h.weight_decay * leaf.param
        leaf.count += 1
        self.rule(leaf, g, rate)

    def _average(self, leaf: Leaf) -> None:
        momentum = 0.0 if self.iterations == 1 else self.ema_momentum
        leaf.average = momentum * leaf.average + (1 - momentum) * leaf.param
        if self.ema_overwrite_frequency and self.iterations % self.ema_overwrite_frequency == 0:
            leaf.param = leaf.average


PLAIN = {bool, int, float, str, type(None)}


def freeze(value: object) -> object:
    """A copy of nested containers that compares bit for bit, without the order of dicts."""
    if type(value) in PLAIN:  # most are
        return repr(value)
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, dict):
        return {repr(key): freeze(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [freeze(item) for item in value]
    return repr(value)


def snapshot(opt: Any) -> object:
    """All that a refused call must leave alone."""
    return freeze(
        [
            opt.params,
            opt.state,
            opt.averages if opt.use_ema else None,
            opt.state_dict(),
            opt.config,
            opt.iterations,
            opt.skipped_steps,
            opt.grad_norm,
        ]
    )


def seen(opt: Any) -> object:
    """All that a call may not half-do, of an unbound optimizer, too."""
    return freeze(opt.config) if opt.params is None else snapshot(opt)


def python_calls(call: Callable[[], object]) -> int:
    """Return how many frames of Python a call runs."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count
