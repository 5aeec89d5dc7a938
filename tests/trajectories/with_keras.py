"""Keras's optimizers, run on JAX.

Float64 cases run without Keras's narrowing of float64 to float32, which concerns means (Adafactor),
norms (Muon) and cosines (schedules): Keras's formulas, but not its rounding.

On TensorFlow the float32 paths are the same but for rounding, except ScheduleFreeAdamW's and those
of arrays that lack a gradient while gradients accumulate (no case here does both).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

import numpy as np
from trajectories.problem import Array, Case, Gradients, Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it when it is imported
jax: Any = import_module("jax")
keras: Any = import_module("keras")
del import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE["float64"]

VERSIONS = {name: metadata.version(name) for name in ("keras", "jax", "jaxlib")}


def run(case: Case, params: list[Array], gradients: Gradients) -> Path:
    """Return the parameters after each call."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    keras.config.set_floatx(case.dtype)
    variables = [keras.Variable(p, dtype=case.dtype) for p in params]
    optimizer = getattr(keras.optimizers, case.rule)(**_arguments(case.keywords))
    optimizer.build(variables)
    step = jax.jit(optimizer.stateless_apply)  # as in Model.fit, and much faster
    state, values = ([v.value for v in group] for group in (optimizer.variables, variables))
    path = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist")
        for grads in gradients:
            values, state = step(state, list(grads), values)
            path.append([np.asarray(value) for value in values])
    return path


def _arguments(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return instep's keywords as Keras spells them."""
    arguments = dict(keywords)
    if isinstance(rate := arguments.get("learning_rate"), Mapping):
        given = dict(rate)
        schedule = getattr(keras.optimizers.schedules, given.pop("schedule"))
        arguments["learning_rate"] = schedule(**given)
    if coefficients := arguments.pop("ns_coefficients", None):
        arguments |= zip(("muon_a", "muon_b", "muon_c"), coefficients, strict=True)
    return arguments


def _schedule(name: str, rate: float, **arguments: Any) -> dict[str, Any]:
    return {"schedule": name, "initial_learning_rate": rate, **arguments}


EXPONENTIAL = _schedule("ExponentialDecay", 0.1, decay_steps=10, decay_rate=0.5)
STAIRCASE = _schedule("ExponentialDecay", 0.1, decay_steps=7, decay_rate=0.5, staircase=True)
INVERSE = _schedule("InverseTimeDecay", 0.5, decay_steps=5, decay_rate=0.8)
INVERSE_STAIRCASE = _schedule(
    "InverseTimeDecay", 0.2, decay_steps=6, decay_rate=0.8, staircase=True
)
POLYNOMIAL = _schedule("PolynomialDecay", 0.1, decay_steps=40)
CYCLE = _schedule(
    "PolynomialDecay", 0.1, decay_steps=13, end_learning_rate=0.01, power=1.5, cycle=True
)
COSINE = _schedule("CosineDecay", 0.1, decay_steps=40, alpha=0.1)
WARM_COSINE = _schedule("CosineDecay", 0.01, decay_steps=30, warmup_target=0.2, warmup_steps=10)
RESTARTS = _schedule("CosineDecayRestarts", 0.1, first_decay_steps=9, m_mul=0.8, alpha=0.05)
PIECEWISE = {
    "schedule": "PiecewiseConstantDecay",
    "boundaries": [4, 14, 29],
    "values": [0.1, 0.02, 0.05, 0.01],
}


AVERAGED = {"use_ema": True, "ema_momentum": 0.9}

CONFIGURATIONS: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]] = {
    ("SGD", "vectors"): [
        {},
        {"learning_rate": 1.0, "momentum": 0.9},
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
        {"learning_rate": 0.1, "nesterov": True},
        {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.05},
        {"learning_rate": 0.1, "momentum": 0.5, "clipnorm": 1.0},
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "clipvalue": 0.5},
        {"learning_rate": 0.1, "global_clipnorm": 1.0, "weight_decay": 0.1},
        {"learning_rate": 0.1, "loss_scale_factor": 1024.0, "clipnorm": 0.01},
        {"learning_rate": EXPONENTIAL, "momentum": 0.9},
        {"learning_rate": PIECEWISE, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"learning_rate": 0.1, "momentum": 0.9, **AVERAGED, "ema_overwrite_frequency": 3},
        {"learning_rate": 0.1, "momentum": 0.9, "gradient_accumulation_steps": 3},
        {
            "learning_rate": INVERSE,
            "momentum": 0.9,
            "weight_decay": 0.1,
            "clipnorm": 1.0,
            "gradient_accumulation_steps": 3,
            **AVERAGED,
            "ema_overwrite_frequency": 2,
        },
    ],
    ("SGD", "missing"): [
        {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.05},
        {"learning_rate": COSINE, "momentum": 0.9, **AVERAGED, "ema_overwrite_frequency": 4},
    ],
    ("Adagrad", "vectors"): [
        {},
        {"learning_rate": 1.0},
        {"learning_rate": 0.1, "initial_accumulator_value": 0.0, "epsilon": 0.001},
        {"learning_rate": 0.1, "weight_decay": 0.1, "clipvalue": 0.5},
        {"learning_rate": INVERSE_STAIRCASE},
        {"learning_rate": 0.1, "gradient_accumulation_steps": 4},
    ],
    ("Adagrad", "missing"): [
        {"learning_rate": 1.0, "clipnorm": 1.0},
    ],
    ("RMSprop", "vectors"): [
        {},
        {"learning_rate": 0.1, "rho": 0.5},
        {"learning_rate": 0.1, "centered": True},
        {"learning_rate": 0.1, "momentum": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "centered": True, "momentum": 0.5, "weight_decay": 0.05},
        {"learning_rate": EXPONENTIAL, "momentum": 0.9},
        {"learning_rate": RESTARTS, "momentum": 0.9, "centered": True, "epsilon": 0.01},
        {"learning_rate": 0.1, "momentum": 0.9, "clipnorm": 1.0, "gradient_accumulation_steps": 2},
        {
            "learning_rate": STAIRCASE,
            "momentum": 0.9,
            "gradient_accumulation_steps": 4,
            **AVERAGED,
            "ema_overwrite_frequency": 3,
        },
    ],
    ("RMSprop", "missing"): [
        {"learning_rate": 0.1, "momentum": 0.9, "global_clipnorm": 1.0},
    ],
    ("Adadelta", "vectors"): [
        {},
        {"learning_rate": 1.0, "rho": 0.8, "epsilon": 1e-06},
        {"learning_rate": 1.0, "weight_decay": 0.1, "loss_scale_factor": 8.0},
        {"learning_rate": COSINE},
        {"learning_rate": 1.0, **AVERAGED, "ema_overwrite_frequency": 1},
    ],
    ("Adadelta", "missing"): [
        {"learning_rate": 1.0, "weight_decay": 0.01},
    ],
    ("Adam", "vectors"): [
        {},
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 1.0, "amsgrad": True},
        {"learning_rate": 0.1, "amsgrad": True, "beta_2": 0.8, "weight_decay": 0.1},
        {"learning_rate": CYCLE, "weight_decay": 0.1},
        {"learning_rate": 0.1, "epsilon": 0.1, "global_clipnorm": 1.0},
        {"learning_rate": 0.1, "epsilon": 0.1, "clipnorm": 0.5, "weight_decay": 0.1},
        {"learning_rate": 0.1, "epsilon": 0.1, "clipvalue": 0.1},
        {"learning_rate": 0.1, "epsilon": 0.1, "loss_scale_factor": 1024.0},
        {"learning_rate": 0.1, **AVERAGED},
        {"learning_rate": 0.1, "use_ema": True, "ema_overwrite_frequency": 5},
        {"learning_rate": 0.1, "gradient_accumulation_steps": 4},
        {
            "learning_rate": POLYNOMIAL,
            "weight_decay": 0.1,
            "epsilon": 0.1,
            "global_clipnorm": 1.0,
            "gradient_accumulation_steps": 4,
            **AVERAGED,
            "ema_overwrite_frequency": 2,
        },
    ],
    ("Adam", "missing"): [
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "amsgrad": True, "weight_decay": 0.1, "global_clipnorm": 1.0},
        {"learning_rate": EXPONENTIAL, **AVERAGED, "ema_overwrite_frequency": 3},
    ],
    ("AdamW", "vectors"): [
        {},
        {"learning_rate": 0.1, "weight_decay": 0.1},
        {"learning_rate": 0.1, "amsgrad": True, "epsilon": 0.001},
        {"learning_rate": WARM_COSINE, "weight_decay": 0.1},
        {"learning_rate": 0.1, "clipnorm": 1.0, "gradient_accumulation_steps": 3},
    ],
    ("AdamW", "missing"): [
        {"learning_rate": 0.1, "weight_decay": 0.1},
    ],
    ("Adamax", "vectors"): [
        {},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "weight_decay": 0.1, "clipvalue": 0.5},
        {"learning_rate": STAIRCASE},
        {"learning_rate": 0.1, "gradient_accumulation_steps": 2},
    ],
    ("Adamax", "missing"): [
        {"learning_rate": 0.1},
    ],
    ("Nadam", "vectors"): [
        {},
        {"learning_rate": 0.1},
        {"learning_rate": 0.5, "beta_1": 0.5, "beta_2": 0.67, "epsilon": 1e-05},
        {"learning_rate": 0.1, "weight_decay": 0.1, "epsilon": 0.1, "clipnorm": 1.0},
        {"learning_rate": PIECEWISE},
        {"learning_rate": EXPONENTIAL, "gradient_accumulation_steps": 3},
    ],
    ("Nadam", "missing"): [
        {"learning_rate": 0.1},
    ],
    ("Ftrl", "vectors"): [
        {},
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "l1_regularization_strength": 0.1},
        {"learning_rate": 0.1, "l2_regularization_strength": 0.5, "beta": 1.0},
        {"learning_rate": 0.1, "l2_shrinkage_regularization_strength": 0.1},
        {"learning_rate": 0.1, "learning_rate_power": 0.0, "initial_accumulator_value": 0.0},
        {
            "learning_rate": 0.05,
            "learning_rate_power": -0.2,
            "initial_accumulator_value": 0.4,
            "l1_regularization_strength": 0.05,
            "l2_regularization_strength": 0.15,
            "l2_shrinkage_regularization_strength": 0.01,
            "beta": 0.3,
        },
        {"learning_rate": 0.1, "weight_decay": 0.1, "clipvalue": 0.5},
        {"learning_rate": EXPONENTIAL, "beta": 0.5},
        {"learning_rate": 0.1, **AVERAGED, "ema_overwrite_frequency": 3},
    ],
    ("Ftrl", "missing"): [
        {"learning_rate": 0.1},
    ],
    ("Lion", "vectors"): [
        {},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9},
        {"learning_rate": 0.1, "weight_decay": 0.1},
        {"learning_rate": RESTARTS, "weight_decay": 0.1},
        {"learning_rate": 0.01, "global_clipnorm": 1.0},
        {"learning_rate": 0.01, "gradient_accumulation_steps": 3},
    ],
    ("Lion", "missing"): [
        {"learning_rate": 0.01, "weight_decay": 0.1},
    ],
    ("Lamb", "vectors"): [
        {},
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "weight_decay": 0.1},
        {"learning_rate": EXPONENTIAL, "weight_decay": 0.1},
        {"learning_rate": 0.1, "epsilon": 0.1, "clipnorm": 1.0, "gradient_accumulation_steps": 2},
    ],
    ("Lamb", "missing"): [
        {"learning_rate": 0.1, "weight_decay": 0.01},
    ],
    ("Adafactor", "matrices"): [
        {},
        {"learning_rate": 1.0},
        {
            "learning_rate": 0.5,
            "beta_2_decay": -0.65,
            "epsilon_1": 1e-15,
            "epsilon_2": 0.0001,
            "clip_threshold": 0.9,
            "relative_step": False,
        },
        {"learning_rate": 0.1, "weight_decay": 0.1, "epsilon_2": 0.1},
        {"learning_rate": COSINE, "clip_threshold": 0.5},
        {"learning_rate": 0.1, "epsilon_1": 0.001, "clipvalue": 0.5},
        {"learning_rate": 1.0, "gradient_accumulation_steps": 3},
    ],
    ("Adafactor", "vectors"): [
        {"learning_rate": 0.1},
    ],
    ("Adafactor", "missing"): [
        {"learning_rate": 1.0},
    ],
    ("Muon", "matrices"): [
        {},
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "nesterov": False, "momentum": 0.8, "rms_rate": 0.5},
        {"learning_rate": 0.1, "ns_steps": 3, "ns_coefficients": [2.0, -1.5, 0.5]},
        {"learning_rate": 0.1, "weight_decay": 0.1, "adam_weight_decay": 0.0},
        {
            "learning_rate": 0.1,
            "adam_lr_ratio": 0.1,
            "adam_weight_decay": 0.1,
            "adam_beta_1": 0.5,
            "adam_beta_2": 0.9,
            "epsilon": 0.001,
            "weight_decay": 0.0,
        },
        {"learning_rate": EXPONENTIAL, "weight_decay": 0.1},
        {"learning_rate": 0.1, "clipvalue": 0.5, "gradient_accumulation_steps": 2},
    ],
    ("Muon", "missing"): [
        {"learning_rate": 0.1},
    ],
    ("ScheduleFreeAdamW", "vectors"): [
        {},
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "warmup_steps": 10},
        {"learning_rate": 0.1, "weight_decay": 0.1},
        {"learning_rate": EXPONENTIAL, "weight_decay": 0.1, "warmup_steps": 7},
        {"learning_rate": 0.1, "warmup_steps": 7, "gradient_accumulation_steps": 3},
        {"learning_rate": 0.1, **AVERAGED, "ema_overwrite_frequency": 3},
        {"learning_rate": 0.1, "epsilon": 0.1, "global_clipnorm": 1.0},
    ],
    ("ScheduleFreeAdamW", "missing"): [
        {"learning_rate": 0.1, "weight_decay": 0.1},
    ],
}
"""For rules and problems the keyword arguments of each case."""


CASES = [
    Case(rule, "keras", keywords, dtype, problem)
    for (rule, problem), several in CONFIGURATIONS.items()
    for keywords in several
    for dtype in ("float32", "float64")
]
