"""Record the values of the frameworks' schedules at every step, in double precision.

python tests/trajectories/schedules.py
    writes schedules.json beside this file; with --print, prints it instead.

The frameworks live in an environment of their own, made by

    python -m venv peers
    peers/bin/pip install numpy torch==2.13.0 keras==3.15.1 jax==0.10.2 optax==0.2.8

The tests read the file and need none of them; where all are installed, they run them again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

FILE = Path(__file__).with_suffix(".json")
STEPS = 41
"""How many steps are asked for, where a case does not say more."""

Arguments = Mapping[str, Any]
"""Of the class in instep.schedules."""

KERAS: Sequence[tuple[str, Arguments]] = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5}),
    (
        "ExponentialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True},
    ),
    ("ExponentialDecay", {"initial_learning_rate": 0.001, "decay_steps": 10, "decay_rate": 1.5}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10}),
    (
        "PolynomialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 10, "end_learning_rate": 0.02, "power": 0.5},
    ),
    (
        "PolynomialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 10, "power": 2.0, "cycle": True},
    ),
    (
        "PolynomialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 7, "end_learning_rate": 0.3, "cycle": True},
    ),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "power": 0.0}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.5}),
    (
        "InverseTimeDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.5, "staircase": True},
    ),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.0}),
    ("PiecewiseConstantDecay", {"boundaries": [5], "values": [0.1, 0.01]}),
    ("PiecewiseConstantDecay", {"boundaries": [0, 5, 17], "values": [0.1, 0.5, 0.0, 0.01]}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 20}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 13, "alpha": 0.25}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 13, "alpha": 2.0}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 13, "warmup_steps": 5}),
    (
        "CosineDecay",
        {
            "initial_learning_rate": 0.0,
            "decay_steps": 13,
            "warmup_target": 0.2,
            "warmup_steps": 5,
            "alpha": 0.1,
        },
    ),
    (
        "CosineDecay",
        {"initial_learning_rate": 0.3, "decay_steps": 1, "warmup_target": 0.2, "warmup_steps": 9},
    ),
    ("CosineDecay", {"initial_learning_rate": 0.3, "decay_steps": 9, "warmup_target": 0.2}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 5}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 7, "t_mul": 1.0}),
    (
        "CosineDecayRestarts",
        {
            "initial_learning_rate": 0.1,
            "first_decay_steps": 5,
            "t_mul": 1.3,
            "m_mul": 0.5,
            "alpha": 0.1,
        },
    ),
    (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 3, "t_mul": 3.0, "m_mul": 2.0},
    ),
    (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 1, "m_mul": 0.0, "alpha": 1.0},
    ),
]

OPTAX: Sequence[tuple[str, Arguments]] = [
    (
        "ExponentialDecay",
        {
            "initial_learning_rate": 0.1,
            "decay_steps": 7,
            "decay_rate": 0.5,
            "transition_begin": 9,
            "end_value": 0.03,
        },
    ),
    (
        "ExponentialDecay",
        {
            "initial_learning_rate": 0.1,
            "decay_steps": 7,
            "decay_rate": 1.5,
            "staircase": True,
            "transition_begin": 9,
            "end_value": 0.2,
        },
    ),
    (
        "ExponentialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "end_value": 0.2},
    ),
    (
        "ExponentialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 1.0, "end_value": 0.05},
    ),
    (
        "PolynomialDecay",
        {
            "initial_learning_rate": 0.1,
            "decay_steps": 10,
            "end_learning_rate": 0.0,
            "power": 0.5,
            "transition_begin": 9,
        },
    ),
    (
        "PolynomialDecay",
        {"initial_learning_rate": 0.0, "decay_steps": 10, "end_learning_rate": 0.2, "power": 3.0},
    ),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "exponent": 2.0}),
    (
        "CosineDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 13, "alpha": 0.1, "exponent": 0.5},
    ),
    ("CosineOneCycle", {"transition_steps": 30, "peak_value": 0.1}),
    (
        "CosineOneCycle",
        {
            "transition_steps": 33,
            "peak_value": 0.1,
            "pct_start": 0.25,
            "div_factor": 5.0,
            "final_div_factor": 2.0,
        },
    ),
    ("CosineOneCycle", {"transition_steps": 33, "peak_value": 0.1, "pct_start": 0.0}),
    ("CosineOneCycle", {"transition_steps": 1, "peak_value": 0.1, "final_div_factor": 0.1}),
    ("LinearOneCycle", {"transition_steps": 30, "peak_value": 0.1}),
    (
        "LinearOneCycle",
        {
            "transition_steps": 33,
            "peak_value": 0.1,
            "pct_start": 0.25,
            "div_factor": 5.0,
            "final_div_factor": 2.0,
            "pct_final": 0.6,
        },
    ),
    ("LinearOneCycle", {"transition_steps": 2, "peak_value": 0.1}),
    (
        "WarmupCosineDecay",
        {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 30},
    ),
    (
        "WarmupCosineDecay",
        {
            "init_value": 0.3,
            "peak_value": 0.1,
            "warmup_steps": 9,
            "decay_steps": 10,
            "end_value": 0.01,
        },
    ),
    (
        "WarmupCosineDecay",
        {
            "init_value": 0.05,
            "peak_value": 0.1,
            "warmup_steps": 0,
            "decay_steps": 21,
            "end_value": 0.2,
            "exponent": 1.5,
        },
    ),
    (
        "WarmupCosineDecay",
        {
            "init_value": 0.05,
            "peak_value": 0.0,
            "warmup_steps": 7,
            "decay_steps": 21,
            "end_value": 0.2,
        },
    ),
    (
        "join_schedules",
        {
            "schedules": [
                ["PolynomialDecay", {"initial_learning_rate": 0.0, "decay_steps": 9}],
                ["ExponentialDecay", KERAS[0][1]],
                ["CosineDecay", {"initial_learning_rate": 0.2, "decay_steps": 10}],
            ],
            "boundaries": [6, 20],
        },
    ),
    (
        "join_schedules",
        {
            "schedules": [
                ["CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 10}],
                ["CosineDecay", {"initial_learning_rate": 0.2, "decay_steps": 10}],
            ],
            "boundaries": [0],
        },
    ),
    (
        "PiecewiseInterpolate",
        {
            "interpolate_type": "linear",
            "init_value": 0.1,
            "boundaries": [4, 8, 30],
            "scales": [0.1, 3.0, 0.0],
        },
    ),
    (
        "PiecewiseInterpolate",
        {
            "interpolate_type": "cosine",
            "init_value": 0.1,
            "boundaries": [0, 7, 20],
            "scales": [2.0, 0.3, 1.5],
        },
    ),
    (
        "PiecewiseInterpolate",
        {"interpolate_type": "cosine", "init_value": 0.1, "boundaries": [], "scales": []},
    ),
    (
        "PiecewiseInterpolate",
        {
            "interpolate_type": "constant",
            "init_value": 0.1,
            "boundaries": [0, 7, 20],
            "scales": [0.5, 0.3, 2.0],
        },
    ),
    ("WarmupConstant", {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 9}),
    ("WarmupConstant", {"init_value": 0.3, "peak_value": 0.1, "warmup_steps": 1}),
    (
        "WarmupExponentialDecay",
        {
            "init_value": 0.0,
            "peak_value": 0.1,
            "warmup_steps": 5,
            "transition_steps": 7,
            "decay_rate": 0.5,
        },
    ),
    (
        "WarmupExponentialDecay",
        {
            "init_value": 0.02,
            "peak_value": 0.1,
            "warmup_steps": 5,
            "transition_steps": 7,
            "decay_rate": 0.5,
            "transition_begin": 4,
            "staircase": True,
            "end_value": 0.03,
        },
    ),
    (
        "WarmupExponentialDecay",
        {
            "init_value": 0.02,
            "peak_value": 0.1,
            "warmup_steps": 0,
            "transition_steps": 3,
            "decay_rate": 1.5,
            "end_value": 0.4,
        },
    ),
    (
        "sgdr_schedule",
        {
            "cosine_kwargs": [
                {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 3, "decay_steps": 9},
                {
                    "init_value": 0.02,
                    "peak_value": 0.05,
                    "warmup_steps": 0,
                    "decay_steps": 12,
                    "end_value": 0.01,
                    "exponent": 2.0,
                },
                {"init_value": 0.0, "peak_value": 0.02, "warmup_steps": 2, "decay_steps": 10},
            ],
        },
    ),
    (
        "sgdr_schedule",
        {
            "cosine_kwargs": [
                {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 3, "decay_steps": 30}
            ],
        },
    ),
]

# Stands for a function of the step or the cycle.
TABLE = [round(1 + 0.2 * ((7 * k) % 5 - 2), 3) for k in range(STEPS)]
STEPPED: Arguments = {"initial_learning_rate": 1.0, "step_size": 9}

TORCH: Sequence[tuple[str, Arguments]] = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 1, "decay_rate": 0.9}),
    (
        "PolynomialDecay",
        {
            "initial_learning_rate": 0.1,
            "decay_steps": 20,
            "end_learning_rate": 0.0,
            "power": 0.5,
        },
    ),
    ("StepDecay", {"initial_learning_rate": 0.1, "step_size": 9}),
    ("StepDecay", {"initial_learning_rate": 0.1, "step_size": 1, "gamma": 1.1}),
    ("MultiStepDecay", {"initial_learning_rate": 0.1, "milestones": [5, 30]}),
    (
        "MultiStepDecay",
        {"initial_learning_rate": 0.1, "milestones": [0, 7, 7, 20], "gamma": 0.5},
    ),
    ("MultiStepDecay", {"initial_learning_rate": 0.1, "milestones": []}),
    ("CosineAnnealing", {"initial_learning_rate": 0.1, "t_max": 9}),
    ("CosineAnnealing", {"initial_learning_rate": 0.1, "t_max": 50, "eta_min": 0.01}),
    ("CosineAnnealing", {"initial_learning_rate": 0.1, "t_max": 1, "eta_min": 0.2}),
    ("CosineAnnealingWarmRestarts", {"initial_learning_rate": 0.1, "t_0": 7}),
    (
        "CosineAnnealingWarmRestarts",
        {"initial_learning_rate": 0.1, "t_0": 3, "t_mult": 2, "eta_min": 0.01},
    ),
    (
        "CosineAnnealingWarmRestarts",
        {"initial_learning_rate": 0.1, "t_0": 1, "t_mult": 3, "eta_min": 0.2},
    ),
    ("OneCycle", {"max_learning_rate": 0.1, "total_steps": 30}),
    ("OneCycle", {"max_learning_rate": 0.1, "total_steps": 1}),
    (
        "OneCycle",
        {
            "max_learning_rate": 0.1,
            "total_steps": 33,
            "pct_start": 0.4,
            "div_factor": 5.0,
            "final_div_factor": 100.0,
            "three_phase": True,
        },
    ),
    (
        "OneCycle",
        {
            "max_learning_rate": 0.1,
            "total_steps": 20,
            "pct_start": 0.6,
            "anneal_strategy": "linear",
            "three_phase": True,
        },
    ),
    (
        "OneCycle",
        {
            "max_learning_rate": 0.1,
            "total_steps": 37,
            "pct_start": 0.0,
            "anneal_strategy": "linear",
            "final_div_factor": 0.5,
        },
    ),
    (
        "OneCycle",
        {"max_learning_rate": 0.1, "total_steps": 30, "anneal_strategy": "linear"},
    ),
    ("LinearWarmup", {"learning_rate": 0.1}),
    ("LinearWarmup", {"learning_rate": 0.1, "start_factor": 0.01, "total_iters": 33}),
    (
        "LinearWarmup",
        {"learning_rate": 0.1, "start_factor": 1.0, "end_factor": 0.0, "total_iters": 20},
    ),
    ("ConstantWarmup", {"learning_rate": 0.1}),
    ("ConstantWarmup", {"learning_rate": 0.1, "factor": 0.02, "total_iters": 33}),
    ("ConstantWarmup", {"learning_rate": 0.1, "factor": 1.0, "total_iters": 1}),
    ("Cyclic", {"base_learning_rate": 0.01, "max_learning_rate": 0.1, "step_size_up": 9}),
    (
        "Cyclic",
        {
            "base_learning_rate": 0.0,
            "max_learning_rate": 0.1,
            "step_size_up": 3,
            "step_size_down": 7,
            "mode": "triangular2",
        },
    ),
    (
        "Cyclic",
        {
            "base_learning_rate": 0.01,
            "max_learning_rate": 0.1,
            "step_size_up": 1,
            "step_size_down": 4,
            "mode": "exp_range",
            "gamma": 0.9,
        },
    ),
    (
        "Cyclic",
        {
            "base_learning_rate": 0.01,
            "max_learning_rate": 0.1,
            "step_size_up": 5,
            "step_size_down": 2,
            "mode": "exp_range",
            "gamma": 1.05,
        },
    ),
    (
        "Cyclic",
        {
            "base_learning_rate": 0.01,
            "max_learning_rate": 0.1,
            "step_size_up": 4,
            "scale_fn": TABLE,
            "scale_mode": "iterations",
        },
    ),
    (
        "Cyclic",
        {
            "base_learning_rate": 0.01,
            "max_learning_rate": 0.1,
            "step_size_up": 4,
            "scale_fn": TABLE,
        },
    ),
    ("Multiplicative", {"learning_rate": 0.1, "factor": TABLE}),
    ("Multiplicative", {"learning_rate": 0.1, "factor": [*TABLE[:20], 0.0, *TABLE[20:]]}),
    ("ChainedScheduler", {"learning_rate": 0.1, "schedules": [["StepDecay", STEPPED]]}),
    (
        "ChainedScheduler",
        {
            "learning_rate": 0.1,
            "schedules": [
                ["ConstantWarmup", {"learning_rate": 1.0, "factor": 0.1, "total_iters": 20}],
                [
                    "ExponentialDecay",
                    {"initial_learning_rate": 1.0, "decay_steps": 1, "decay_rate": 0.9},
                ],
            ],
        },
    ),
    (
        "ChainedScheduler",
        {
            "learning_rate": 0.1,
            "schedules": [
                ["LinearWarmup", {"learning_rate": 1.0, "total_iters": 8}],
                ["StepDecay", STEPPED],
                [
                    "MultiStepDecay",
                    {"initial_learning_rate": 1.0, "milestones": [5, 30], "gamma": 0.5},
                ],
                [
                    "PolynomialDecay",
                    {
                        "initial_learning_rate": 1.0,
                        "decay_steps": 37,
                        "end_learning_rate": 0.0,
                        "power": 2.0,
                    },
                ],
                ["Multiplicative", {"learning_rate": 1.0, "factor": TABLE}],
                ["CosineAnnealing", {"initial_learning_rate": 1.0, "t_max": 40}],
            ],
        },
    ),
    ("ChainedScheduler", {"learning_rate": 0.1, "schedules": [["LambdaLR", {"factor": TABLE}]]}),
    (
        "join_schedules",
        {
            "schedules": [
                ["ConstantWarmup", {"learning_rate": 0.1, "factor": 0.1, "total_iters": 20}],
                [
                    "ExponentialDecay",
                    {"initial_learning_rate": 0.1, "decay_steps": 1, "decay_rate": 0.9},
                ],
                ["CosineAnnealing", {"initial_learning_rate": 0.1, "t_max": 9}],
            ],
            "boundaries": [12, 20],
        },
    ),
    (
        "join_schedules",
        {
            "schedules": [
                ["LinearWarmup", {"learning_rate": 0.1, "total_iters": 8}],
                ["CosineAnnealingWarmRestarts", {"initial_learning_rate": 0.1, "t_0": 7}],
                ["StepDecay", {"initial_learning_rate": 0.1, "step_size": 3}],
            ],
            "boundaries": [10, 25],
        },
    ),
]

NAN, INF = float("nan"), float("inf")
# Improvements by large and small amounts, plateaus, relapses.
WAVES = [round(((7 * k) % 11) / (1 + k // 12) + 0.001 * k, 3) for k in range(STEPS)]
FLAT = [1.0] * STEPS
SPOILED = [INF, 5.0, NAN, NAN, NAN, 4.0, -INF, -INF, NAN, 3.0, NAN, 2.0, 1.0, NAN, NAN, 1.0]

PLATEAUS: Sequence[tuple[Arguments, Sequence[float]]] = [
    ({"initial_learning_rate": 0.1}, FLAT),
    ({"initial_learning_rate": 0.1, "patience": 1}, WAVES),
    ({"initial_learning_rate": 0.1, "patience": 1, "mode": "max", "factor": 0.5}, WAVES),
    ({"initial_learning_rate": 0.1, "patience": 0, "factor": 0.5, "threshold": 0.2}, WAVES),
    ({"initial_learning_rate": 0.1, "patience": 0, "cooldown": 3, "factor": 0.7}, WAVES),
    ({"initial_learning_rate": 0.1, "patience": 2, "cooldown": 1, "mode": "max"}, SPOILED),
    ({"initial_learning_rate": 0.1, "patience": 1, "factor": 0.5}, SPOILED),
    ({"initial_learning_rate": 0.1, "patience": 0, "min_learning_rate": 0.03}, WAVES),
    ({"initial_learning_rate": 0.1, "patience": 0, "min_learning_rate": 0.3}, WAVES),
    ({"initial_learning_rate": 0.1, "patience": 0, "factor": 0.5, "epsilon": 0.01}, FLAT),
    ({"initial_learning_rate": 0.1, "patience": 0, "factor": 0.0}, FLAT),
    ({"initial_learning_rate": 0.1, "patience": 0, "threshold": 1.0}, WAVES),
    (
        {
            "initial_learning_rate": 0.1,
            "patience": 1,
            "threshold": 0.5,
            "threshold_mode": "abs",
            "factor": 0.5,
        },
        WAVES,
    ),
    (
        {
            "initial_learning_rate": 0.1,
            "patience": 0,
            "threshold": 0.5,
            "threshold_mode": "abs",
            "mode": "max",
            "cooldown": 1,
            "factor": 0.5,
        },
        WAVES,
    ),
]


def with_keras(schedule: str, arguments: Arguments) -> Callable[[int], Any]:
    """Return Keras's schedule with JAX's own functions, as Keras's round to float32 on JAX."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # keras reads it when it is imported
    keras: Any = import_module("keras")
    keras.config.set_floatx("float64")
    theirs = getattr(keras.optimizers.schedules, schedule)(**arguments)
    functions = {name: getattr(import_module("jax.numpy"), name) for name in ("cos", "log")}

    def ask(step: int) -> Any:
        with patch.multiple("keras.src.ops", **functions):
            return theirs(step)

    return ask


def with_optax(schedule: str, arguments: Arguments) -> Callable[[int], Any]:
    optax: Any = import_module("optax")
    if schedule == "join_schedules":
        parts = [with_optax(name, part) for name, part in arguments["schedules"]]
        joined: Callable[[int], Any] = optax.join_schedules(parts, arguments["boundaries"])
        return joined
    if schedule == "PiecewiseInterpolate":
        return _piecewise(optax, **arguments)
    steps = "decay_steps" if schedule == "CosineDecay" else "transition_steps"
    names = {"initial_learning_rate": "init_value", "end_learning_rate": "end_value"}
    if not schedule.startswith("Warmup"):
        names["decay_steps"] = steps
    given = {names.get(name, name): value for name, value in arguments.items()}
    if schedule == "PolynomialDecay":
        given = {"end_value": 0.0001, "power": 1.0, **given}
    function = {
        "ExponentialDecay": optax.exponential_decay,
        "PolynomialDecay": optax.polynomial_schedule,
        "CosineDecay": optax.cosine_decay_schedule,
        "CosineOneCycle": optax.cosine_onecycle_schedule,
        "LinearOneCycle": optax.linear_onecycle_schedule,
        "WarmupConstant": optax.warmup_constant_schedule,
        "WarmupCosineDecay": optax.warmup_cosine_decay_schedule,
        "WarmupExponentialDecay": optax.warmup_exponential_decay_schedule,
        "sgdr_schedule": optax.schedules.sgdr_schedule,
    }[schedule]
    theirs: Callable[[int], Any] = function(**given)
    return theirs


def _piecewise(
    optax: Any,
    interpolate_type: str,
    init_value: float,
    boundaries: Sequence[int],
    scales: Sequence[float],
) -> Callable[[int], Any]:
    both = dict(zip(boundaries, scales, strict=True))
    theirs: Callable[[int], Any]
    if interpolate_type == "constant":
        theirs = optax.piecewise_constant_schedule(init_value, both)
    else:
        theirs = optax.schedules.piecewise_interpolate_schedule(interpolate_type, init_value, both)
    return theirs


TORCH_NAMES = {
    "ExponentialDecay": "ExponentialLR",
    "PolynomialDecay": "PolynomialLR",
    "StepDecay": "StepLR",
    "MultiStepDecay": "MultiStepLR",
    "CosineAnnealing": "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts": "CosineAnnealingWarmRestarts",
    "Cyclic": "CyclicLR",
    "OneCycle": "OneCycleLR",
    "LinearWarmup": "LinearLR",
    "ConstantWarmup": "ConstantLR",
    "Multiplicative": "MultiplicativeLR",
    "ReduceLROnPlateau": "ReduceLROnPlateau",
    "t_max": "T_max",
    "t_0": "T_0",
    "t_mult": "T_mult",
    "base_learning_rate": "base_lr",
    "max_learning_rate": "max_lr",
    "min_learning_rate": "min_lr",
    "epsilon": "eps",
}


def _torch_rate(schedule: str, arguments: Arguments) -> float:
    """Return the rate that the optimizer has, where the schedule does not set one."""
    if schedule == "join_schedules":
        return _torch_rate(*arguments["schedules"][0])
    names = [n for n in ("initial_learning_rate", "learning_rate") if n in arguments]
    return arguments[names[0]] if names else 1.0


def _in_torch(torch: Any, optimizer: Any, schedule: str, arguments: Arguments) -> Any:
    """Return the scheduler of an optimizer."""
    if "schedules" in arguments:
        parts = [_in_torch(torch, optimizer, *part) for part in arguments["schedules"]]
        if schedule == "ChainedScheduler":
            return torch.ChainedScheduler(parts)
        return torch.SequentialLR(optimizer, parts, arguments["boundaries"])
    given = {TORCH_NAMES.get(name, name): value for name, value in arguments.items()}
    for name in ("initial_learning_rate", "learning_rate"):
        given.pop(name, None)
    if schedule == "ExponentialDecay":
        given = {"gamma": given["decay_rate"] ** (1 / given["decay_steps"])}
    elif schedule == "PolynomialDecay":
        given = {"total_iters": given["decay_steps"], "power": given["power"]}
    elif schedule in ("OneCycle", "Cyclic"):
        given["cycle_momentum"] = False
    for name, theirs in (("factor", "lr_lambda"), ("scale_fn", "scale_fn")):
        if isinstance(given.get(name), list):
            given[theirs] = given.pop(name).__getitem__
    return getattr(torch, TORCH_NAMES.get(schedule, schedule))(optimizer, **given)


def with_torch(
    schedule: str, arguments: Arguments, steps: int, metrics: Sequence[float] = ()
) -> list[float]:
    torch: Any = import_module("torch")
    rate = _torch_rate(schedule, arguments)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    theirs = _in_torch(torch.optim.lr_scheduler, optimizer, schedule, arguments)
    values = [optimizer.param_groups[0]["lr"]]
    for step in range(steps - 1):
        optimizer.step()
        theirs.step(*metrics[step : step + 1])
        values.append(optimizer.param_groups[0]["lr"])
    return values


def record() -> Iterator[dict[str, Any]]:
    """Run all cases in the frameworks."""
    jax: Any = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    for framework, cases, start in (("keras", KERAS, with_keras), ("optax", OPTAX, with_optax)):
        for schedule, arguments in cases:
            theirs = start(schedule, arguments)
            values = [float(theirs(step)) for step in range(STEPS)]
            yield _case(framework, schedule, arguments, values)
    for schedule, arguments in TORCH:
        steps = min(STEPS, arguments.get("total_steps", STEPS) + 1)
        yield _case("torch", schedule, arguments, with_torch(schedule, arguments, steps))
    for arguments, metrics in PLATEAUS:
        values = with_torch("ReduceLROnPlateau", arguments, len(metrics) + 1, metrics)
        yield _case("torch", "ReduceLROnPlateau", arguments, values) | {"metrics": list(metrics)}


def _case(
    framework: str, schedule: str, arguments: Arguments, values: list[float]
) -> dict[str, Any]:
    return {
        "framework": framework,
        "schedule": schedule,
        "arguments": dict(arguments),
        "values": values,
    }


def main() -> None:
    versions = {name: metadata.version(name) for name in ("keras", "torch", "jax", "optax")}
    cases = ",\n".join(json.dumps(case) for case in record())
    text = f'{{"versions": {json.dumps(versions)}, "cases": [\n{cases}\n]}}\n'
    if sys.argv[1:] == ["--print"]:
        print(text)
    else:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
