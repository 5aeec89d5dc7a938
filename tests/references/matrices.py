"""Statistics of rows and columns, and products of matrices."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
from quantities import (
    TINY,
    Quantity,
    expanded,
    highest,
    maximum,
    mean,
    minimum,
    root_mean_square,
    sqrt,
    where,
)

from references.reference import (
    REFERENCES,
    VECTOR_REFERENCES,
    Reference,
    State,
    vector,
)


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


REFERENCES["SM3"] = Reference(
    sm3,
    slots={"momentum": "momentum", "accumulator_0": None, "accumulator_1": None},
    configurations=({}, {"momentum": 0.0}, {"learning_rate": 0.01, "epsilon": 1e-3}),
    start={"accumulator_0": vector(0), "accumulator_1": vector(1)},
    elementwise=False,
)


# Of a vector, which has other slots than a matrix.
VECTOR_REFERENCES["SM3"] = replace(
    REFERENCES["SM3"], slots={"momentum": "momentum", "accumulator_0": None}
)


def rowwise_adagrad(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.01,
    epsilon: float = 1e-8,
) -> tuple[Quantity, State]:
    """Mudigere et al. 2022: Adagrad with a sum for each row, of the means of its squares."""
    a, of_each = state["accumulator"], g * g
    if g.value.ndim > 1:
        a = a + mean(of_each, -1)
        return p - learning_rate * g / (sqrt(a[..., None]) + epsilon), {"accumulator": a}
    a = a + of_each
    return p - learning_rate * g / (sqrt(a) + epsilon), {"accumulator": a}


REFERENCES["RowwiseAdagrad"] = Reference(
    rowwise_adagrad,
    slots={"accumulator": None},
    configurations=({}, {"learning_rate": 0.1, "epsilon": 1e-3}),
    start={"accumulator": vector(0)},
    elementwise=False,
)


# Of a vector, which has other slots than a matrix.
VECTOR_REFERENCES["RowwiseAdagrad"] = replace(REFERENCES["RowwiseAdagrad"], start={})


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


REFERENCES["Adafactor"] = Reference(
    adafactor,
    slots={"r": None, "c": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "beta_2_decay": -0.5, "clip_threshold": 0.5},
        {"epsilon_1": 1e6, "epsilon_2": 1e4, "weight_decay": 0.05},
        {"relative_step": False, "learning_rate": 0.1},
    ),
    start={"r": vector(0), "c": vector(1)},
    elementwise=False,
    ulps=6,
)


# Of a vector, which has other slots than a matrix.
VECTOR_REFERENCES["Adafactor"] = replace(REFERENCES["Adafactor"], slots={"v": None}, start={})


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


REFERENCES["Muon"] = Reference(
    muon,
    slots={"momentum": None},
    configurations=(
        {},
        {"nesterov": False, "momentum": 0.5, "adjust_lr_fn": "match_rms_adamw"},
        {"ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "epsilon": 1e-3},
    ),
    elementwise=False,
)
