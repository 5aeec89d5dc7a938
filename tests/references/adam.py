"""Adam and what came of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from quantities import (
    Quantity,
    absolute,
    maximum,
    sign,
    sqrt,
    total,
)

from references.reference import (
    REFERENCES,
    Reference,
    State,
    hyperparameter,
    number,
    parameter,
)

ADAM_SLOTS: Mapping[str, str | None] = {"m": None, "v": None, "v_max": "amsgrad"}


def adam(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    epsilon_root: float = 0.0,
) -> tuple[Quantity, State]:
    """Kingma and Ba 2015, algorithm 1; AMSGrad by Reddi et al. 2018, with bias correction."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    new = {"m": m, "v": v}
    if "v_max" in state:
        v = new["v_max"] = maximum(state["v_max"], v)
    m_hat = m / (1 - beta_1**step)
    v_hat = v / (1 - beta_2**step)
    return p - learning_rate * m_hat / (sqrt(v_hat + epsilon_root) + epsilon), new


REFERENCES["Adam"] = Reference(
    adam,
    slots=ADAM_SLOTS,
    configurations=(
        {},
        {"amsgrad": True},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
        {"beta_1": 0.0, "beta_2": 0.9999, "epsilon_root": 1e-6},
    ),
)


REFERENCES["AdamW"] = Reference(
    adam,
    slots=ADAM_SLOTS,
    configurations=({}, {"amsgrad": True, "learning_rate": 0.01, "weight_decay": 0.1}),
    weight_decay=0.01,
)


def adamax(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.002,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    learning_rate_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """Kingma and Ba 2015, algorithm 2, with an epsilon that keeps 0 / 0 away."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    u = maximum(beta_2 * state["u"], absolute(g))
    rate = learning_rate / (1 + (step - 1) * learning_rate_decay)
    return p - rate / (1 - beta_1**step) * m / (u + epsilon), {"m": m, "u": u}


REFERENCES["Adamax"] = Reference(
    adamax,
    slots={"m": None, "u": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate_decay": 0.01, "weight_decay": 0.05},
    ),
)


def nadam(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.002,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    momentum_decay: float = 0.004,
    epsilon_root: float = 0.0,
) -> tuple[Quantity, State]:
    """Dozat 2016, algorithm 2, whose scheduled momentum does not reach the average itself."""

    def momentum(step: int) -> float:
        return float(beta_1 * (1 - 0.5 * 0.96 ** (step * momentum_decay)))

    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    product = momentum(step) * state["u_product"]
    m_hat = momentum(step + 1) * m / (1 - momentum(step + 1) * product) + (
        1 - momentum(step)
    ) * g / (1 - product)
    v_hat = v / (1 - beta_2**step)
    new = {"m": m, "v": v, "u_product": product}
    return p - learning_rate * m_hat / (sqrt(v_hat + epsilon_root) + epsilon), new


REFERENCES["Nadam"] = Reference(
    nadam,
    slots={"m": None, "v": None, "u_product": None},
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
        {"momentum_decay": 0.1, "epsilon_root": 1e-6, "weight_decay": 0.05},
    ),
    scalars=("u_product",),
    start={"u_product": number(1.0)},
)


def radam(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    threshold: float = 4.0,
    nesterov: bool = False,
    epsilon_root: float = 0.0,
) -> tuple[Quantity, State]:
    """Liu et al. 2020, algorithm 2."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    m_hat = m / (1 - beta_1**step)
    if nesterov:
        m_hat = beta_1 * m / (1 - beta_1 ** (step + 1)) + (1 - beta_1) * g / (1 - beta_1**step)
    # The paper's rho_t = rho_inf - 2 * t * beta_2**t / (1 - beta_2**t), free of its cancellation.
    ages = np.arange(step)
    rho = float(np.average(2 * ages + 1, weights=beta_2**ages))
    rho_inf = 2 / (1 - beta_2) - 1
    if rho > threshold:
        rectification = np.sqrt(
            (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
        )
        v_hat = v / (1 - beta_2**step)
        m_hat = float(rectification) * m_hat / (sqrt(v_hat + epsilon_root) + epsilon)
    return p - learning_rate * m_hat, {"m": m, "v": v}


REFERENCES["RAdam"] = Reference(
    radam,
    slots={"m": None, "v": None},
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
        {"threshold": 5.0, "nesterov": True, "epsilon_root": 1e-6},
        # Never rectified.
        {"beta_2": 0.5},
    ),
    # Two nearly equal numbers make the length of its average.
    cancellation=1e3,
)


def yogi(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.01,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-3,
    epsilon_root: float = 0.0,
) -> tuple[Quantity, State]:
    """Zaheer et al. 2018, algorithm 2."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = state["v"] - (1 - beta_2) * sign(state["v"] - g * g) * (g * g)
    return p - learning_rate * m / (sqrt(v + epsilon_root) + epsilon), {"m": m, "v": v}


REFERENCES["Yogi"] = Reference(
    yogi,
    slots={"m": None, "v": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-4},
        {"initial_accumulator_value": 0.1, "epsilon_root": 1e-6, "weight_decay": 0.05},
    ),
    start={"v": hyperparameter("initial_accumulator_value", 1e-6)},
)


def adabelief(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    epsilon_root: float = 1e-8,
) -> tuple[Quantity, State]:
    """Zhuang et al. 2020, algorithm 2, its two epsilons apart."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    # g - m, which would cancel.
    surprise = beta_1 * (g - state["m"])
    v = beta_2 * state["v"] + (1 - beta_2) * surprise * surprise + epsilon_root
    m_hat = m / (1 - beta_1**step)
    v_hat = v / (1 - beta_2**step)
    return p - learning_rate * m_hat / (sqrt(v_hat) + epsilon), {"m": m, "v": v}


REFERENCES["AdaBelief"] = Reference(
    adabelief,
    slots={"m": None, "v": None},
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
        {"epsilon_root": 1e-4, "weight_decay": 0.05},
    ),
    drift=3.0,
)


def adan(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.98,
    beta_2: float = 0.92,
    beta_3: float = 0.99,
    epsilon: float = 1e-8,
    epsilon_root: float = 0.0,
) -> tuple[Quantity, State]:
    """Xie et al. 2022, algorithm 1, with the bias corrections of its authors' code.

    The betas are the complements of the paper's, as in that code.
    """
    change = g - state["previous_gradient"] if step > 1 else Quantity.exact(0.0) * g
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * change
    ahead = g + beta_2 * change
    n = beta_3 * state["n"] + (1 - beta_3) * ahead * ahead
    m_hat = m / (1 - beta_1**step)
    v_hat = v / (1 - beta_2**step)
    n_hat = n / (1 - beta_3**step)
    update = (m_hat + beta_2 * v_hat) / (sqrt(n_hat + epsilon_root) + epsilon)
    return p - learning_rate * update, {"m": m, "v": v, "n": n, "previous_gradient": g}


REFERENCES["Adan"] = Reference(
    adan,
    slots={"m": None, "v": None, "n": None, "previous_gradient": None},
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.7, "beta_3": 0.9},
        {"epsilon": 1e-4, "epsilon_root": 1e-6, "weight_decay": 0.05},
    ),
)


def ademamix(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    beta_3: float = 0.9999,
    alpha: float = 5.0,
    epsilon: float = 1e-8,
    epsilon_root: float = 0.0,
) -> tuple[Quantity, State]:
    """Pagliardini et al. 2024, without schedules for alpha and beta_3."""
    m_1 = beta_1 * state["m_1"] + (1 - beta_1) * g
    m_2 = beta_3 * state["m_2"] + (1 - beta_3) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    v_hat = v / (1 - beta_2**step)
    update = (m_1 / (1 - beta_1**step) + alpha * m_2) / (sqrt(v_hat + epsilon_root) + epsilon)
    return p - learning_rate * update, {"m_1": m_1, "m_2": m_2, "v": v}


REFERENCES["AdEMAMix"] = Reference(
    ademamix,
    slots={"m_1": None, "m_2": None, "v": None},
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "beta_3": 0.99},
        {"alpha": 2.0, "epsilon": 1e-4, "epsilon_root": 1e-6, "weight_decay": 0.05},
    ),
)


def lion(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 1e-4,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
) -> tuple[Quantity, State]:
    """Chen et al. 2023, algorithm 2."""
    update = sign(beta_1 * state["m"] + (1 - beta_1) * g)
    return p - learning_rate * update, {"m": beta_2 * state["m"] + (1 - beta_2) * g}


REFERENCES["Lion"] = Reference(
    lion,
    slots={"m": None},
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.8, "weight_decay": 0.1},
    ),
    # Equal steps round equally, again and again.
    drift=10.0,
)


def prodigy(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 1.0,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    beta_3: float | None = None,
    epsilon: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    safeguard_warmup: bool = False,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """Mishchenko and Defazio 2023, algorithm 4, for an optimizer of one array.

    As in its authors' code, r and s are the paper's over ``(1 - beta_3) * estim_lr0``.
    """
    if beta_3 is None:
        beta_3 = beta_2**0.5
    d = state["d"]
    rate = learning_rate * d
    m = beta_1 * state["m"] + (1 - beta_1) * d * g
    v = beta_2 * state["v"] + (1 - beta_2) * (d * g) * (d * g)
    r = beta_3 * state["r"] + d * rate / estim_lr0 * total(g * (state["p_0"] - p))
    s = beta_3 * state["s"] + (d if safeguard_warmup else rate) * d / estim_lr0 * g
    distance = total(absolute(s))
    if distance.value:
        d = maximum(d, estim_lr_coef * r / distance)
    update = m / (sqrt(v) + epsilon * state["d"]) + weight_decay * p
    new = {"m": m, "v": v, "s": s, "p_0": state["p_0"], "d": d, "r": r}
    return p - rate * update, new


REFERENCES["Prodigy"] = Reference(
    prodigy,
    slots={"m": None, "v": None, "s": None, "p_0": None, "d": None, "r": None},
    configurations=(
        {},
        {"learning_rate": 0.5, "beta_1": 0.5, "beta_2": 0.95, "beta_3": 0.9},
        {"estim_lr0": 0.01, "estim_lr_coef": 0.5, "weight_decay": 0.1, "epsilon": 1e-3},
        {"safeguard_warmup": True, "learning_rate": 0.1, "estim_lr0": 1e-3},
    ),
    scalars=("d", "r"),
    start={"p_0": parameter, "d": hyperparameter("estim_lr0")},
    elementwise=False,
    # Its first rates come from differences of parameters that have hardly moved.
    drift=1e4,
    ulps=6,
)
