"""Optimizers that several modules of tests train, and what is known about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import instep

DEFAULTS: dict[str, dict[str, float]] = {
    "SGD": {"learning_rate": 0.01, "momentum": 0, "dampening": 0, "nesterov": False},
    "Adagrad": {
        "learning_rate": 0.01,
        "initial_accumulator_value": 0,
        "learning_rate_decay": 0,
        "epsilon": 1e-10,
    },
    "RMSprop": {
        "learning_rate": 0.001,
        "rho": 0.9,
        "momentum": 0,
        "centered": False,
        "epsilon": 1e-7,
    },
    "Adadelta": {"learning_rate": 1.0, "rho": 0.95, "epsilon": 1e-6},
    "Adam": {
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "amsgrad": False,
    },
    "AdamW": {
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "amsgrad": False,
        "weight_decay": 0.01,
    },
}
RULES = sorted(DEFAULTS)
CONFIGURATIONS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("SGD", {}, []),
    ("SGD", {"momentum": 0.9}, ["momentum"]),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}, ["momentum"]),
    ("SGD", {"momentum": 0.9, "nesterov": True}, ["momentum"]),
    ("Adagrad", {}, ["accumulator"]),
    ("Adagrad", {"learning_rate_decay": 0.5}, ["accumulator"]),
    ("RMSprop", {}, ["mean_square"]),
    ("RMSprop", {"momentum": 0.5}, ["mean_square", "momentum"]),
    ("RMSprop", {"centered": True}, ["mean_square", "mean_gradient"]),
    (
        "RMSprop",
        {"centered": True, "momentum": 0.5},
        ["mean_square", "mean_gradient", "momentum"],
    ),
    ("Adadelta", {}, ["mean_square", "mean_square_update"]),
    ("Adam", {}, ["m", "v"]),
    ("Adam", {"amsgrad": True}, ["m", "v", "v_max"]),
    ("AdamW", {}, ["m", "v"]),
    ("AdamW", {"amsgrad": True}, ["m", "v", "v_max"]),
]
each_configuration = pytest.mark.parametrize(
    ("rule", "options", "slots"),
    CONFIGURATIONS,
    ids=[f"{rule}-{'-'.join(options) or 'plain'}" for rule, options, _ in CONFIGURATIONS],
)


def decaying(update: int) -> float:
    return 0.1 / (update + 1)


def growing(update: int) -> float:
    return float(update)


def halving(update: int) -> float:
    return 0.2 * 0.5**update


def a_tree(dtype: npt.DTypeLike = np.float64, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def array(*shape: int) -> Any:
        return np.asarray(rng.normal(size=shape), dtype)

    return {"decoder": array(3), "encoder": [array(2, 3), array(), (array(4), array(0))]}


def train(opt: Any, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        opt.step(a_tree(seed=int(rng.integers(1000))))


# A mid-window optimizer with everything on, so that a copy that forgets something shows.
def a_rich_optimizer(tree: dict[str, Any], steps: int = 5) -> Any:
    grouped = {
        "decoder": instep.Group(tree["decoder"], learning_rate=0.3, beta_1=0.5),
        "encoder": tree["encoder"],
    }
    opt = instep.Adam(
        grouped,
        learning_rate=0.1,
        amsgrad=True,
        weight_decay=0.1,
        global_clipnorm=2.0,
        skip_nonfinite=True,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=2,
        gradient_accumulation_steps=2,
    )
    train(opt, steps, 1)
    bad = a_tree()
    bad["decoder"][0] = np.nan
    opt.step(bad)
    return opt


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
