"""Gradient descent: the same rate for every element, or steps that grow and shrink."""

from __future__ import annotations

import numpy as np
from quantities import (
    Quantity,
    maximum,
    minimum,
    sign,
    where,
)

from references.reference import (
    REFERENCES,
    Reference,
    State,
    hyperparameter,
    number,
)


def sgd(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> tuple[Quantity, State]:
    """Sutskever et al. 2013, with the dampening of Torch."""
    if "momentum" not in state:
        return p - learning_rate * g, {}
    b = g if step == 1 else momentum * state["momentum"] + (1 - dampening) * g
    return p - learning_rate * (g + momentum * b if nesterov else b), {"momentum": b}


REFERENCES["SGD"] = Reference(
    sgd,
    slots={"momentum": "momentum"},
    configurations=(
        {},
        {"learning_rate": 0.1, "weight_decay": 0.05},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.8, "nesterov": True},
    ),
)


def asgd(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
) -> tuple[Quantity, State]:
    """Polyak and Juditsky 1992, with the step sizes of Torch, each for the update after."""
    p = (1 - lambd * state["eta"]) * p - state["eta"] * g
    ax = state["ax"] + state["mu"] * (p - state["ax"])
    eta = learning_rate / (1 + lambd * learning_rate * step) ** alpha
    mu = 1 / max(1.0, step - t0)
    return p, {"ax": ax, "eta": Quantity.exact(eta), "mu": Quantity.exact(mu)}


REFERENCES["ASGD"] = Reference(
    asgd,
    slots={"ax": None, "eta": None, "mu": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "lambd": 0.01, "alpha": 0.5, "t0": 2.0},
    ),
    scalars=("eta", "mu"),
    start={"eta": hyperparameter("learning_rate"), "mu": number(1.0)},
    drift=3.0,
)


def sign_sgd(
    p: Quantity, g: Quantity, state: State, *, learning_rate: float = 1e-4
) -> tuple[Quantity, State]:
    """Bernstein et al. 2018, algorithm 1."""
    return p - learning_rate * sign(g), {}


REFERENCES["SignSGD"] = Reference(
    sign_sgd,
    slots={},
    configurations=({}, {"learning_rate": 0.01, "weight_decay": 0.1}),
)


def signum(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 1e-4,
    momentum: float = 0.9,
) -> tuple[Quantity, State]:
    """Bernstein et al. 2018, algorithm 2."""
    m = momentum * state["momentum"] + (1 - momentum) * g
    return p - learning_rate * sign(m), {"momentum": m}


REFERENCES["Signum"] = Reference(
    signum,
    slots={"momentum": None},
    configurations=({}, {"learning_rate": 0.01, "momentum": 0.5, "weight_decay": 0.1}),
    drift=10.0,
)


def rprop(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> tuple[Quantity, State]:
    """Igel and Huesken 2000, iRprop-; the learning rate is the first step size."""
    agreement = np.sign(g.value) * np.sign(state["previous_gradient"].value)
    factor = where(agreement > 0, eta_plus, where(agreement < 0, eta_minus, 1.0))
    size = factor * (Quantity.exact(learning_rate) if step == 1 else state["step_size"])
    size = minimum(maximum(size, min_step_size), max_step_size)
    g = where(agreement < 0, 0.0, g)
    return p - sign(g) * size, {"previous_gradient": g, "step_size": size}


REFERENCES["Rprop"] = Reference(
    rprop,
    slots={"previous_gradient": None, "step_size": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "eta_minus": 0.3, "eta_plus": 1.5},
        {"min_step_size": 0.008, "max_step_size": 0.011},
    ),
    start={"step_size": hyperparameter("learning_rate")},
)
