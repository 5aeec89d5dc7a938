"""Optax's optimizers on the common problems.

Float64 cases compute everything in float64: the momentum of Adafactor and the running mean of
MultiSteps get the parameters' type by their arguments; the decay rate of Adafactor, which optax has
no argument for, by a replaced function; schedules by counters of 64 bits, because JAX divides
32-bit integers in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax._src.factorized import scale_by_factored_rms
from trajectories.problem import Array, Case, Gradients, Path

VERSIONS = {"optax": optax.__version__, "jax": jax.__version__, "numpy": np.__version__}


def _adam(*, amsgrad: bool = False, **arguments: Any) -> Any:
    return optax.amsgrad(**arguments) if amsgrad else optax.adam(**arguments)


def _adamax(**arguments: Any) -> Any:
    return optax.adamaxw(**arguments) if "weight_decay" in arguments else optax.adamax(**arguments)


def _nadam(**arguments: Any) -> Any:
    return optax.nadamw(**arguments) if "weight_decay" in arguments else optax.nadam(**arguments)


def _yogi(learning_rate: Any, **arguments: Any) -> Any:
    # optax.yogi hides two of the arguments.
    return optax.chain(
        optax.scale_by_yogi(**arguments), optax.scale_by_learning_rate(learning_rate)
    )


def _sm3(learning_rate: Any, **arguments: Any) -> Any:
    # optax.sm3 hides epsilon.
    return optax.chain(optax.scale_by_sm3(**arguments), optax.scale_by_learning_rate(learning_rate))


def _muon(learning_rate: Any, *, adam_lr_ratio: float = 1.0, **arguments: Any) -> Any:
    rate = learning_rate if adam_lr_ratio == 1.0 else learning_rate * adam_lr_ratio
    return optax.contrib.muon(learning_rate, adam_learning_rate=rate, **arguments)


def _prodigy(*, b1: float = 0.9, b2: float = 0.999, **arguments: Any) -> Any:
    return optax.contrib.prodigy(betas=(b1, b2), **arguments)


MOMENTS = {
    "beta_1": "b1",
    "beta_2": "b2",
    "beta_3": "b3",
    "epsilon": "eps",
    "epsilon_root": "eps_root",
}

RULES: Mapping[str, tuple[Callable[..., Any], Mapping[str, str]]] = {
    "SGD": (optax.sgd, {}),
    "Adagrad": (optax.adagrad, MOMENTS),
    "RMSprop": (
        optax.rmsprop,
        {"rho": "decay", "epsilon": "eps", "initial_accumulator_value": "initial_scale"},
    ),
    "Adadelta": (optax.adadelta, {"epsilon": "eps", "l2": "weight_decay"}),
    "Adam": (_adam, MOMENTS),
    "AdamW": (optax.adamw, MOMENTS),
    "Adamax": (_adamax, MOMENTS),
    "Nadam": (_nadam, MOMENTS),
    "RAdam": (optax.radam, MOMENTS),
    "Rprop": (optax.rprop, {}),
    "Adafactor": (
        optax.adafactor,
        {"epsilon_1": "eps", "clip_threshold": "clipping_threshold"},
    ),
    "Muon": (
        _muon,
        {
            "momentum": "beta",
            "epsilon": "eps",
            "ns_coefficients": "ns_coeffs",
            "adam_beta_1": "adam_b1",
            "adam_beta_2": "adam_b2",
        },
    ),
    "Lion": (optax.lion, MOMENTS),
    "Lamb": (optax.lamb, MOMENTS),
    "Lars": (optax.lars, {"epsilon": "eps", "l2": "weight_decay"}),
    "Yogi": (_yogi, MOMENTS),
    "AdaBelief": (optax.adabelief, MOMENTS),
    "Adan": (optax.adan, MOMENTS),
    "NovoGrad": (optax.novograd, MOMENTS),
    "SM3": (_sm3, {"momentum": "b1", "epsilon": "eps"}),
    "SignSGD": (optax.sign_sgd, {}),
    "Signum": (optax.signum, {"momentum": "beta"}),
    "Fromage": (optax.fromage, {}),
    "AdEMAMix": (optax.contrib.ademamix, MOMENTS),
    "ScheduleFreeAdamW": (optax.contrib.schedule_free_adamw, MOMENTS),
    "ScheduleFreeSGD": (optax.contrib.schedule_free_sgd, MOMENTS),
    "Prodigy": (_prodigy, {**MOMENTS, "beta_3": "beta3"}),
}
"""Each rule's function, and its arguments that have another name in instep."""

SCHEDULES: Mapping[str, tuple[Callable[..., Any], Mapping[str, str]]] = {
    "ExponentialDecay": (
        optax.exponential_decay,
        {"initial_learning_rate": "init_value", "decay_steps": "transition_steps"},
    ),
    "PolynomialDecay": (
        optax.polynomial_schedule,
        {
            "initial_learning_rate": "init_value",
            "decay_steps": "transition_steps",
            "end_learning_rate": "end_value",
        },
    ),
    "CosineDecay": (optax.cosine_decay_schedule, {"initial_learning_rate": "init_value"}),
    "CosineOneCycle": (optax.cosine_onecycle_schedule, {}),
    "LinearOneCycle": (optax.linear_onecycle_schedule, {}),
    "WarmupCosineDecay": (optax.warmup_cosine_decay_schedule, {}),
}

AROUND: Mapping[str, Callable[[Any], Any]] = {
    "clipvalue": optax.clip,
    "global_clipnorm": optax.clip_by_global_norm,
    "maximize": lambda _: optax.scale(-1.0),
    "l2": optax.add_decayed_weights,
}
"""What instep's common options are in optax, in instep's order."""


def _call(entry: tuple[Callable[..., Any], Mapping[str, str]], arguments: Mapping[str, Any]) -> Any:
    function, names = entry
    return function(**{names.get(name, name): value for name, value in arguments.items()})


def make(case: Case) -> Any:
    """Return the optimizer of the case."""
    keywords = dict(case.keywords)
    every = keywords.pop("gradient_accumulation_steps", None)
    rate = keywords.get("learning_rate")
    if isinstance(rate, Mapping):
        arguments = dict(rate)
        keywords["learning_rate"] = _call(SCHEDULES[arguments.pop("schedule")], arguments)
    if case.rule == "Adafactor":
        keywords["dtype_momentum"] = case.dtype
    own = RULES[case.rule][1]
    before = [
        transform(keywords.pop(name))
        for name, transform in AROUND.items()
        if name in keywords and name not in own
    ]
    opt = optax.chain(*before, _call(RULES[case.rule], keywords))
    if every is None:
        return opt
    return optax.MultiSteps(opt, every, accumulator_dtype=case.dtype).gradient_transformation()


def _decay_rate(step: Any, exponent: float) -> Any:
    return 1.0 - (step + 1.0) ** -exponent


def _wide(state: Any) -> Any:
    return state.astype(int) if state.dtype == "int32" else state


@contextmanager
def precision(case: Case) -> Iterator[None]:
    """Compute everything in the case's type."""
    defaults = scale_by_factored_rms.__defaults__
    exact = patch.object(scale_by_factored_rms, "__defaults__", (*defaults[:-1], _decay_rate))
    with jax.enable_x64(case.dtype == "float64"), exact:
        yield


def stepper(opt: Any) -> Any:
    """Return the compiled function from parameters, state and gradients to new ones of both."""

    def update(params: Any, state: Any, grads: Any) -> Any:
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(update)


def first_state(opt: Any, params: Any) -> Any:
    """Return the state before the first call."""
    return jax.tree.map(_wide, opt.init(params))


def run(case: Case, params: list[Array], gradients: Gradients) -> Path:
    """Return optax's parameters after each call."""
    with precision(case):
        opt = make(case)
        step = stepper(opt)
        current = [jnp.asarray(p) for p in params]
        state = first_state(opt, current)
        path = []
        for grads in gradients:
            current, state = step(current, state, [jnp.asarray(g) for g in grads])
            path.append([np.asarray(p) for p in current])
    return path


def _schedule(name: str, **arguments: Any) -> dict[str, Any]:
    return {"schedule": name, **arguments}


EXPONENTIAL = _schedule(
    "ExponentialDecay",
    initial_learning_rate=0.5,
    decay_steps=7,
    decay_rate=0.6,
    transition_begin=5,
    end_value=0.02,
)
STAIRCASE = _schedule(
    "ExponentialDecay",
    initial_learning_rate=0.1,
    decay_steps=9,
    decay_rate=0.5,
    staircase=True,
)
POLYNOMIAL = _schedule(
    "PolynomialDecay",
    initial_learning_rate=0.1,
    decay_steps=30,
    end_learning_rate=0.01,
    power=2.0,
    transition_begin=10,
)
COSINE = _schedule(
    "CosineDecay", initial_learning_rate=0.1, decay_steps=40, alpha=0.1, exponent=2.0
)
TWO_LEGS = _schedule("CosineOneCycle", transition_steps=50, peak_value=1.0)
THREE_LEGS = _schedule(
    "LinearOneCycle",
    transition_steps=47,
    peak_value=0.5,
    pct_start=0.25,
    div_factor=10.0,
    final_div_factor=100.0,
)
WARMUP = _schedule(
    "WarmupCosineDecay",
    init_value=0.01,
    peak_value=0.1,
    warmup_steps=10,
    decay_steps=50,
    end_value=0.001,
)

VECTORS: Mapping[str, list[dict[str, Any]]] = {
    "SGD": [
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "momentum": 0.9, "l2": 0.1},
        {"learning_rate": 1.0, "momentum": 0.5, "nesterov": True, "maximize": True},
        {"learning_rate": TWO_LEGS, "momentum": 0.9, "global_clipnorm": 10.0},
        {
            "learning_rate": STAIRCASE,
            "momentum": 0.9,
            "nesterov": True,
            "gradient_accumulation_steps": 3,
        },
    ],
    "Adagrad": [
        {"learning_rate": 0.1},
        {"learning_rate": 1.0, "initial_accumulator_value": 0.0, "epsilon": 1e-5},
        {"learning_rate": EXPONENTIAL, "l2": 0.1, "clipvalue": 1.0},
    ],
    "RMSprop": [
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "rho": 0.8, "epsilon": 0.001, "eps_in_sqrt": False},
        {"learning_rate": 0.1, "initial_accumulator_value": 0.5, "momentum": 0.9},
        {"learning_rate": 0.1, "bias_correction": True, "momentum": 0.5, "nesterov": True},
        {"learning_rate": 0.1, "centered": True},
        {"learning_rate": 0.1, "centered": True, "eps_in_sqrt": False, "epsilon": 0.001},
        {
            "learning_rate": 0.1,
            "centered": True,
            "bias_correction": True,
            "epsilon": 0.1,
            "momentum": 0.9,
            "clipvalue": 1.0,
        },
        {"learning_rate": WARMUP, "momentum": 0.9, "l2": 0.1},
        {"learning_rate": WARMUP, "momentum": 0.9, "gradient_accumulation_steps": 4},
    ],
    "Adadelta": [
        {"learning_rate": 1.0},
        {"learning_rate": 0.1, "rho": 0.8, "epsilon": 0.001, "l2": 0.1},
        {"learning_rate": COSINE, "maximize": True},
    ],
    "Adam": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.001},
        {"learning_rate": 1.0, "epsilon_root": 0.001, "l2": 0.1, "maximize": True},
        {"learning_rate": 0.1, "amsgrad": True},
        {"learning_rate": 0.1, "amsgrad": True, "beta_2": 0.9, "epsilon_root": 1e-5, "l2": 0.1},
        {"learning_rate": POLYNOMIAL, "global_clipnorm": 0.1},
        {"learning_rate": POLYNOMIAL, "gradient_accumulation_steps": 2, "clipvalue": 1.0},
    ],
    "AdamW": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "weight_decay": 0.1, "beta_1": 0.8},
        {"learning_rate": 1.0, "weight_decay": 0.0, "epsilon_root": 1e-5, "maximize": True},
        {"learning_rate": THREE_LEGS, "weight_decay": 0.1, "gradient_accumulation_steps": 3},
    ],
    "Adamax": [
        {"learning_rate": 0.002},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "weight_decay": 0.1, "maximize": True},
        {"learning_rate": EXPONENTIAL, "l2": 0.1},
    ],
    "Nadam": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "weight_decay": 0.1, "epsilon_root": 0.001},
        {"learning_rate": 0.01, "l2": 0.1},
        {"learning_rate": WARMUP, "maximize": True},
    ],
    "RAdam": [
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "beta_2": 0.9, "nesterov": True, "epsilon_root": 1e-5},
        {"learning_rate": 0.01, "beta_2": 0.9, "threshold": 4.5, "l2": 0.1},
        {"learning_rate": COSINE, "beta_2": 0.8, "threshold": 8.0},
        {"learning_rate": 0.1, "beta_2": 0.5, "maximize": True},
    ],
    "Rprop": [
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "eta_minus": 0.3, "eta_plus": 1.5},
        {"learning_rate": 1.0, "min_step_size": 0.5, "max_step_size": 2.0, "maximize": True},
    ],
    "Lion": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "weight_decay": 0.1},
        {"learning_rate": COSINE, "weight_decay": 0.0, "maximize": True},
        {"learning_rate": STAIRCASE, "gradient_accumulation_steps": 5},
    ],
    "Lamb": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "weight_decay": 0.1, "beta_1": 0.8, "beta_2": 0.9},
        {"learning_rate": 0.01, "epsilon": 0.001, "epsilon_root": 0.001, "l2": 0.1},
        {"learning_rate": WARMUP, "weight_decay": 0.5, "maximize": True},
    ],
    "Lars": [
        {"learning_rate": 1.0},
        {"learning_rate": 0.1, "trust_coefficient": 0.1, "epsilon": 0.01, "l2": 0.1},
        {"learning_rate": 10.0, "momentum": 0.5, "nesterov": True, "maximize": True},
        {"learning_rate": TWO_LEGS, "trust_coefficient": 0.1, "l2": 0.01},
    ],
    "Yogi": [
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-5},
        {"learning_rate": 0.1, "epsilon_root": 0.001, "initial_accumulator_value": 0.1},
        {"learning_rate": POLYNOMIAL, "l2": 0.1, "maximize": True},
    ],
    "AdaBelief": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.001},
        {"learning_rate": 0.1, "epsilon_root": 1e-5, "l2": 0.1},
        {"learning_rate": COSINE, "epsilon": 1e-8, "epsilon_root": 1e-12, "maximize": True},
    ],
    "Adan": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.8, "beta_3": 0.95},
        {"learning_rate": 0.1, "epsilon": 0.001, "epsilon_root": 0.0, "weight_decay": 0.1},
        {"learning_rate": WARMUP, "epsilon_root": 1e-4, "l2": 0.1, "maximize": True},
    ],
    "NovoGrad": [
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.01, "weight_decay": 0.1, "epsilon_root": 0.001},
        {"learning_rate": COSINE, "beta_1": 0.5, "weight_decay": 0.01, "maximize": True},
    ],
    "SignSGD": [
        {"learning_rate": 0.1, "l2": 0.1},
        {"learning_rate": EXPONENTIAL, "maximize": True},
    ],
    "Signum": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "momentum": 0.5, "l2": 0.1},
        {"learning_rate": THREE_LEGS, "maximize": True},
    ],
    "Fromage": [
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "min_norm": 0.5, "l2": 0.1},
        {"learning_rate": WARMUP, "maximize": True},
    ],
    "AdEMAMix": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "beta_3": 0.95, "alpha": 2.0},
        {"learning_rate": 0.1, "epsilon": 0.001, "epsilon_root": 1e-4, "weight_decay": 0.1},
        {"learning_rate": POLYNOMIAL, "beta_3": 0.99, "l2": 0.1, "maximize": True},
    ],
    "ScheduleFreeAdamW": [
        {},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "warmup_steps": 10, "weight_decay": 0.1},
        {"learning_rate": 0.1, "warmup_steps": 7, "weight_lr_power": 1.0, "maximize": True},
        {"learning_rate": WARMUP, "weight_lr_power": 1.0},
    ],
    "ScheduleFreeSGD": [
        {},
        {"learning_rate": 0.1, "beta_1": 0.8, "weight_decay": 0.1},
        {"learning_rate": 0.1, "warmup_steps": 10, "weight_lr_power": 1.0, "maximize": True},
        {"learning_rate": COSINE, "weight_decay": 0.1},
        {"learning_rate": TWO_LEGS, "weight_decay": 0.1},
    ],
    "Prodigy": [
        {"learning_rate": 0.1, "estim_lr0": 0.1, "estim_lr_coef": 0.1},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "beta_3": 0.9, "estim_lr0": 0.1},
        {"estim_lr0": 0.1, "estim_lr_coef": 0.1, "safeguard_warmup": True, "maximize": True},
        {"learning_rate": TWO_LEGS, "estim_lr0": 0.05, "weight_decay": 0.1, "epsilon": 1e-5},
    ],
}

MATRICES: Mapping[str, list[dict[str, Any]]] = {
    "Adafactor": [
        {},
        {"min_dim_size_to_factor": 3, "learning_rate": 0.1, "decay_offset": -5},
        {"min_dim_size_to_factor": 2, "decay_rate": 0.5, "multiply_by_parameter_scale": False},
        {"min_dim_size_to_factor": 4, "momentum": 0.9, "weight_decay_rate": 0.01},
        {"learning_rate": 0.1, "epsilon_1": 0.001, "clip_threshold": 0.5, "maximize": True},
        {
            "learning_rate": EXPONENTIAL,
            "min_dim_size_to_factor": 2,
            "momentum": 0.5,
            "weight_decay_rate": 0.1,
        },
    ],
    "Muon": [
        {"learning_rate": 0.001},
        {"learning_rate": 0.1, "momentum": 0.8, "nesterov": False, "weight_decay": 0.1},
        {"learning_rate": 0.1, "ns_steps": 3, "consistent_rms": 0.2, "epsilon": 0.001},
        {
            "learning_rate": 0.1,
            "ns_coefficients": [2.0, -1.5, 0.5],
            "adam_lr_ratio": 0.5,
            "adam_beta_1": 0.8,
            "adam_beta_2": 0.99,
            "adam_weight_decay": 0.1,
        },
        {"learning_rate": WARMUP, "weight_decay": 0.1, "gradient_accumulation_steps": 2},
    ],
    "SM3": [
        {"learning_rate": 0.1},
        {"learning_rate": 1.0, "momentum": 0.5, "epsilon": 0.001, "l2": 0.1},
        {"learning_rate": 0.1, "momentum": 0.0, "maximize": True},
    ],
}

DOUBLE: Mapping[str, list[dict[str, Any]]] = {
    "RAdam": [{"learning_rate": 0.001}, {"learning_rate": 0.1, "beta_2": 0.99, "l2": 0.1}],
    "Prodigy": [
        {},
        {"estim_lr0": 0.001, "estim_lr_coef": 2.0, "weight_decay": 0.1},
        {"learning_rate": 0.1, "epsilon": 1e-5, "safeguard_warmup": True},
    ],
}
"""For float64 only: differences of nearly equal numbers leave optax's float32 few true digits."""


def cases() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        for problem, table in (("vectors", VECTORS), ("matrices", MATRICES)):
            for rule, configurations in table.items():
                for keywords in configurations:
                    yield Case(rule, "optax", keywords, dtype, problem)
    for rule, configurations in DOUBLE.items():
        for keywords in configurations:
            yield Case(rule, "optax", keywords, "float64")


CASES = list(cases())
