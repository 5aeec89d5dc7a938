"""Averages in the place of schedules."""

from __future__ import annotations

from quantities import (
    Quantity,
    maximum,
    power,
    sqrt,
)

from references.reference import (
    REFERENCES,
    Reference,
    State,
    parameter,
)


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
    kept = {"last_beta_1": 0 * largest + beta_1}
    y = (1 - share) * (y - (1 - beta_1) * state["z"]) + (beta_1 * share + (1 - beta_1)) * z
    return y, {"z": z, "learning_rate_max": largest, "weight_sum": weight_sum, **kept}


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


REFERENCES["ScheduleFreeSGD"] = Reference(
    schedule_free_sgd,
    slots={"z": None, "learning_rate_max": None, "weight_sum": None, "last_beta_1": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "beta_1": 0.5},
        {"warmup_steps": 5, "weight_lr_power": 1.0, "weight_decay": 0.1},
    ),
    scalars=("learning_rate_max", "weight_sum", "last_beta_1"),
    start={"z": parameter},
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


REFERENCES["ScheduleFreeAdamW"] = Reference(
    schedule_free_adamw,
    slots={
        "z": None,
        "v": None,
        "learning_rate_max": None,
        "weight_sum": None,
        "last_beta_1": None,
    },
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
        {"warmup_steps": 5, "weight_lr_power": 1.0, "weight_decay": 0.1},
    ),
    scalars=("learning_rate_max", "weight_sum", "last_beta_1"),
    start={"z": parameter},
)
