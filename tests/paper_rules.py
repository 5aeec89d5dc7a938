"""The update rules in float64 NumPy, written from their publications.

A rule takes a parameter, its gradient and its state, and returns what both become. It has the name
and the keywords of the kernel function; what works element by element and what needs norms over
the array look the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TypeAlias

import numpy as np
from quantities import (
    TINY,
    Quantity,
    absolute,
    expanded,
    highest,
    maximum,
    mean,
    minimum,
    norm,
    power,
    root_mean_square,
    sign,
    sqrt,
    total,
    where,
)

State: TypeAlias = dict[str, Quantity]
Rule: TypeAlias = Callable[..., tuple[Quantity, State]]


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


def adagrad(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    learning_rate_decay: float = 0.0,
    epsilon: float = 1e-10,
) -> tuple[Quantity, State]:
    """Duchi et al. 2011."""
    a = state["accumulator"] + g * g
    rate = learning_rate / (1 + (step - 1) * learning_rate_decay)
    return p - rate * g / (sqrt(a) + epsilon), {"accumulator": a}


def rmsprop(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    nesterov: bool = False,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> tuple[Quantity, State]:
    """Graves 2013, equations 38 to 41, where the mean gradient and the momentum are optional."""
    v = rho * state["mean_square"] + (1 - rho) * g * g
    new = {"mean_square": v}
    correction = 1 - rho**step if bias_correction else 1.0
    v = v / correction
    if "mean_gradient" in state:
        a = new["mean_gradient"] = rho * state["mean_gradient"] + (1 - rho) * g
        a = a / correction
        v = maximum(v - a * a, 0.0)
    u = learning_rate * g / (sqrt(v + epsilon) if eps_in_sqrt else sqrt(v) + epsilon)
    if "momentum" not in state:
        return p - u, new
    b = new["momentum"] = momentum * state["momentum"] + u
    return p - (u + momentum * b if nesterov else b), new


def adadelta(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 1.0,
    rho: float = 0.95,
    epsilon: float = 1e-6,
) -> tuple[Quantity, State]:
    """Zeiler 2012, algorithm 1, with a learning rate."""
    a = rho * state["mean_square"] + (1 - rho) * g * g
    update = sqrt(state["mean_square_update"] + epsilon) / sqrt(a + epsilon) * g
    d = rho * state["mean_square_update"] + (1 - rho) * update * update
    return p - learning_rate * update, {"mean_square": a, "mean_square_update": d}


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


def ftrl(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.001,
    learning_rate_power: float = -0.5,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float = 0.0,
) -> tuple[Quantity, State]:
    """McMahan et al. 2013, algorithm 1, its lambda_2 twice the l2 strength, with shrinkage."""
    n = state["accumulator"] + g * g
    root = power(n, -learning_rate_power)
    sigma = (root - power(state["accumulator"], -learning_rate_power)) / learning_rate
    z = state["linear"] + g + 2 * l2_shrinkage_regularization_strength * p - sigma * p
    clipped = minimum(maximum(z, -l1_regularization_strength), l1_regularization_strength)
    quadratic = (beta + root) / learning_rate + 2 * l2_regularization_strength
    # 0 / 0 is 0.
    p = (clipped - z) / where(quadratic.value == 0, 1.0, quadratic)
    return p, {"accumulator": n, "linear": z}


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


def trust_ratio(numerator: Quantity, denominator: Quantity) -> Quantity:
    """Divide two norms; where one is zero, do without."""
    if not (numerator.value and denominator.value):
        return Quantity.exact(1.0)
    return numerator / denominator


def lamb(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    epsilon_root: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """You et al. 2020, algorithm 2, its phi the identity."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    m_hat = m / (1 - beta_1**step)
    v_hat = v / (1 - beta_2**step)
    update = m_hat / (sqrt(v_hat + epsilon_root) + epsilon) + weight_decay * p
    return p - learning_rate * trust_ratio(norm(p), norm(update)) * update, {"m": m, "v": v}


def lars(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust_coefficient: float = 0.001,
    epsilon: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """You et al. 2017, algorithm 1; Nesterov's variant as in `sgd`."""
    ratio = Quantity.exact(1.0)
    if norm(p).value and norm(g).value:
        ratio = trust_coefficient * norm(p) / (norm(g) + weight_decay * norm(p) + epsilon)
    update = learning_rate * ratio * (g + weight_decay * p)
    b = momentum * state["momentum"] + update if "momentum" in state else update
    return p - (update + momentum * b if nesterov else b), {"momentum": b}


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


def novograd(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    beta_1: float = 0.95,
    beta_2: float = 0.98,
    epsilon: float = 1e-8,
    epsilon_root: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """Ginsburg et al. 2019, algorithm 1."""
    squares = total(g * g)
    v = squares if step == 1 else beta_2 * state["v"] + (1 - beta_2) * squares
    m = beta_1 * state["m"] + g / (sqrt(v + epsilon_root) + epsilon) + weight_decay * p
    return p - learning_rate * m, {"m": m, "v": v}


def sign_sgd(
    p: Quantity, g: Quantity, state: State, *, learning_rate: float = 1e-4
) -> tuple[Quantity, State]:
    """Bernstein et al. 2018, algorithm 1."""
    return p - learning_rate * sign(g), {}


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


def fromage(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.01,
    min_norm: float = 1e-6,
) -> tuple[Quantity, State]:
    """Bernstein et al. 2020, algorithm 1, its norms at least `min_norm`."""
    ratio = trust_ratio(maximum(norm(p), min_norm), maximum(norm(g), min_norm))
    return (p - learning_rate * ratio * g) / (1 + learning_rate**2) ** 0.5, {}


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


def schedule_free(
    y: Quantity,
    update: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float,
    beta_1: float,
    warmup_steps: int,
    weight_lr_power: float,
) -> tuple[Quantity, State]:
    """Step with z, average to x, and return y between the two: Defazio et al. 2024.

    x is not kept: ``beta_1 * x = y - (1 - beta_1) * z``.
    """
    rate = learning_rate * (min(step / warmup_steps, 1.0) if warmup_steps else 1.0)
    largest = maximum(state["learning_rate_max"], rate)
    weight = power(largest, weight_lr_power)
    weight_sum = state["weight_sum"] + weight
    z = state["z"] - rate * update
    share = weight / weight_sum
    y = (1 - share) * (y - (1 - beta_1) * state["z"]) + (beta_1 * share + (1 - beta_1)) * z
    return y, {"z": z, "learning_rate_max": largest, "weight_sum": weight_sum}


def schedule_free_sgd(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 1.0,
    beta_1: float = 0.9,
    warmup_steps: int = 0,
    weight_lr_power: float = 2.0,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """Defazio et al. 2024, equations 3 to 5, with the weights of its algorithm 1."""
    return schedule_free(
        p,
        g + weight_decay * p,
        state,
        step=step,
        learning_rate=learning_rate,
        beta_1=beta_1,
        warmup_steps=warmup_steps,
        weight_lr_power=weight_lr_power,
    )


def schedule_free_adamw(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.0025,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    warmup_steps: int = 0,
    weight_lr_power: float = 2.0,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """Defazio et al. 2024, algorithm 1, with the bias correction at v, as in Optax."""
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    v_hat = v / (1 - beta_2**step)
    y, new = schedule_free(
        p,
        g / (sqrt(v_hat) + epsilon) + weight_decay * p,
        state,
        step=step,
        learning_rate=learning_rate,
        beta_1=beta_1,
        warmup_steps=warmup_steps,
        weight_lr_power=weight_lr_power,
    )
    return y, {**new, "v": v}


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


def sm3(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    epsilon: float = 0.0,
) -> tuple[Quantity, State]:
    """Anil et al. 2019, SM3-II, its sets the slices of the array along each dimension."""
    axes = range(g.value.ndim)
    others = {f"accumulator_{k}": tuple(j for j in axes if j != k) for k in axes}
    v = reduce(minimum, [expanded(state[slot], other) for slot, other in others.items()]) + g * g
    # 0 / 0 is 0.
    update = g / where(v.value == 0, 1.0, sqrt(v + epsilon))
    new = {slot: highest(v, other) for slot, other in others.items()}
    if "momentum" in state:
        update = new["momentum"] = momentum * state["momentum"] + (1 - momentum) * update
    return p - learning_rate * update, new


def adafactor(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    beta_2_decay: float = -0.8,
    epsilon_1: float = 1e-30,
    epsilon_2: float = 1e-3,
    clip_threshold: float = 1.0,
    relative_step: bool = True,
) -> tuple[Quantity, State]:
    """Shazeer and Stern 2018, algorithms 4 and 5, with means in the place of sums."""
    beta_2 = 1 - step**beta_2_decay
    squares = g * g + epsilon_1
    if "v" in state:
        v = beta_2 * state["v"] + (1 - beta_2) * squares
        new = {"v": v}
    else:
        r = beta_2 * state["r"] + (1 - beta_2) * mean(squares, -1)
        c = beta_2 * state["c"] + (1 - beta_2) * mean(squares, -2)
        v = r[..., :, None] * c[..., None, :] / mean(r, -1)[..., None, None]
        new = {"r": r, "c": c}
    update = g / sqrt(v)
    update = update / maximum(root_mean_square(update) / clip_threshold, 1.0)
    rate = min(learning_rate, step**-0.5) if relative_step else learning_rate
    return p - rate * maximum(root_mean_square(p), epsilon_2) * update, new


def orthogonalized(
    x: Quantity, coefficients: tuple[float, float, float], steps: int, epsilon: float
) -> Quantity:
    """Move all singular values towards 1 by Newton-Schulz steps.

    A step stretches errors by no more than the polynomial's slope at zero, its first coefficient.
    """
    a, b, c = coefficients
    wide = x.value.shape[0] <= x.value.shape[1]
    matrix = (x.value if wide else x.value.T) / (np.linalg.norm(x.value) + epsilon)
    for _ in range(steps):
        square = matrix @ matrix.T
        matrix = a * matrix + (b * square + c * square @ square) @ matrix
    relative = np.linalg.norm(x.scale) / max(np.linalg.norm(x.value), TINY)
    value = matrix if wide else matrix.T
    return Quantity(value, np.full_like(value, max(a, 1.0) ** steps * relative))


def muon(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    adjust_lr_fn: str | None = None,
    epsilon: float = 1e-7,
) -> tuple[Quantity, State]:
    """Jordan 2024, for a matrix."""
    b = momentum * state["momentum"] + g
    update = orthogonalized(g + momentum * b if nesterov else b, ns_coefficients, ns_steps, epsilon)
    rows, columns = g.value.shape
    if adjust_lr_fn == "match_rms_adamw":
        scale = 0.2 * max(rows, columns) ** 0.5
    else:
        scale = max(1.0, rows / columns) ** 0.5
    return p - learning_rate * scale * update, {"momentum": b}
