"""PyTorch's optimizers on the common problems.

Muon runs without its cast to bfloat16, in the parameters' own type: PyTorch's formula, but not
PyTorch's rounding. Float64 cases run with float64 as default type, so that the scalars of ASGD and
NAdam have it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.optim import lr_scheduler
from trajectories.problem import Array, Case, Gradients, Path

VERSIONS = {"torch": torch.__version__, "numpy": np.__version__}

RULES: Mapping[str, Callable[..., Any]] = {
    "SGD": torch.optim.SGD,
    "Adagrad": torch.optim.Adagrad,
    "RMSprop": torch.optim.RMSprop,
    "Adadelta": torch.optim.Adadelta,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adamax": torch.optim.Adamax,
    "Nadam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
    "Adafactor": torch.optim.Adafactor,
    "Muon": torch.optim.Muon,
}

SCHEDULES: Mapping[str, Callable[..., Any]] = {
    "ExponentialDecay": lambda opt, decay_steps, decay_rate: lr_scheduler.ExponentialLR(
        opt, decay_rate ** (1 / decay_steps)
    ),
    "PolynomialDecay": lambda opt, decay_steps, end_learning_rate, power: lr_scheduler.PolynomialLR(
        opt, decay_steps, power
    ),
    "StepDecay": lr_scheduler.StepLR,
    "MultiStepDecay": lr_scheduler.MultiStepLR,
    "CosineAnnealing": lambda opt, t_max, eta_min: lr_scheduler.CosineAnnealingLR(
        opt, t_max, eta_min
    ),
    "CosineAnnealingWarmRestarts": lambda opt, t_0, t_mult, eta_min: (
        lr_scheduler.CosineAnnealingWarmRestarts(opt, t_0, t_mult, eta_min)
    ),
    "OneCycle": lambda opt, **arguments: lr_scheduler.OneCycleLR(
        opt, opt.defaults["lr"], cycle_momentum=False, **arguments
    ),
    "LinearWarmup": lr_scheduler.LinearLR,
}

FIRST_RATE = ("initial_learning_rate", "max_learning_rate", "learning_rate")
"""What instep's schedules call the rate that PyTorch gives to the optimizer."""

PAIRS = {
    "betas": ("beta_1", "beta_2", (0.9, 0.999)),
    "etas": ("eta_minus", "eta_plus", (0.5, 1.2)),
    "step_sizes": ("min_step_size", "max_step_size", (1e-6, 50.0)),
}
"""Pairs in PyTorch that are two arguments in instep, with their defaults."""

NAMES = {
    "learning_rate": "lr",
    "epsilon": "eps",
    "l2": "weight_decay",
    "learning_rate_decay": "lr_decay",
    "beta_2_decay": "beta2_decay",
    "clip_threshold": "d",
}


def make(case: Case, params: list[torch.Tensor]) -> tuple[Any, Any]:
    """Return the optimizer of the case and its scheduler or None."""
    keywords = dict(case.keywords)
    keywords.pop("clipvalue", None)
    schedule = keywords.get("learning_rate")
    arguments = dict(schedule) if isinstance(schedule, Mapping) else {}
    for name in FIRST_RATE:
        if name in arguments:
            keywords["learning_rate"] = arguments.pop(name)
    for name, (first, second, default) in PAIRS.items():
        if first in keywords or second in keywords:
            keywords[name] = (keywords.pop(first, default[0]), keywords.pop(second, default[1]))
    if case.rule == "RMSprop" and "rho" in keywords:
        keywords["alpha"] = keywords.pop("rho")
    if case.rule in {"Nadam", "RAdam"} and "weight_decay" in keywords:
        keywords["decoupled_weight_decay"] = True
    if case.rule == "Adafactor":
        keywords["eps"] = (keywords.pop("epsilon_1", None), keywords.pop("epsilon_2", 1e-3))
    opt = RULES[case.rule](params, **{NAMES.get(name, name): x for name, x in keywords.items()})
    if not arguments:
        return opt, None
    return opt, SCHEDULES[arguments.pop("schedule")](opt, **arguments)


def run(case: Case, params: list[Array], gradients: Gradients) -> Path:
    """Return PyTorch's parameters after each call."""
    torch.set_default_dtype(getattr(torch, case.dtype))
    tensors = [torch.tensor(p) for p in params]
    opt, scheduler = make(case, tensors)
    path = []
    with patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
        for grads in gradients:
            for tensor, grad in zip(tensors, grads, strict=True):
                tensor.grad = None if grad is None else torch.tensor(grad)
            if "clipvalue" in case.keywords:
                torch.nn.utils.clip_grad_value_(tensors, case.keywords["clipvalue"])
            opt.step()
            if scheduler:
                scheduler.step()
            path.append([tensor.numpy().copy() for tensor in tensors])
    return path


def _schedule(name: str, **arguments: Any) -> dict[str, Any]:
    return {"schedule": name, **arguments}


STEPS_DOWN = _schedule("StepDecay", initial_learning_rate=0.1, step_size=7, gamma=0.5)
MILESTONES = _schedule(
    "MultiStepDecay", initial_learning_rate=0.1, milestones=[3, 10, 40], gamma=0.3
)
COSINE = _schedule("CosineAnnealing", initial_learning_rate=0.1, t_max=20, eta_min=0.01)
RESTARTS = _schedule(
    "CosineAnnealingWarmRestarts", initial_learning_rate=1.0, t_0=5, t_mult=2, eta_min=0.01
)
CYCLE = _schedule("OneCycle", max_learning_rate=0.1, total_steps=60)
THREE_PHASES = _schedule(
    "OneCycle",
    max_learning_rate=0.5,
    total_steps=64,
    pct_start=0.25,
    anneal_strategy="linear",
    div_factor=10.0,
    final_div_factor=100.0,
    three_phase=True,
)
WARMUP = _schedule(
    "LinearWarmup", learning_rate=0.1, start_factor=0.1, end_factor=1.0, total_iters=10
)
EXPONENTIAL = _schedule(
    "ExponentialDecay", initial_learning_rate=0.5, decay_steps=1, decay_rate=0.95
)
POLYNOMIAL = _schedule(
    "PolynomialDecay",
    initial_learning_rate=0.1,
    decay_steps=40,
    end_learning_rate=0.0,
    power=2.0,
)

CONFIGURATIONS: Mapping[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"learning_rate": 0.1, "momentum": 0.9},
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "l2": 0.1},
        {"learning_rate": 1.0, "momentum": 0.5, "dampening": 0.3, "l2": 0.01, "maximize": True},
        {"learning_rate": 0.1, "l2": 0.1, "clipvalue": 0.5, "maximize": True},
        {"learning_rate": STEPS_DOWN, "momentum": 0.9, "dampening": 0.5},
        {"learning_rate": CYCLE, "momentum": 0.9, "nesterov": True},
    ],
    "Adagrad": [
        {},
        {"learning_rate": 1.0, "learning_rate_decay": 0.1},
        {"learning_rate": 0.1, "initial_accumulator_value": 0.5, "epsilon": 0.001},
        {"learning_rate": 0.1, "learning_rate_decay": 0.01, "l2": 0.1, "maximize": True},
        {"learning_rate": MILESTONES, "learning_rate_decay": 0.1, "clipvalue": 1.0},
    ],
    "RMSprop": [
        {},
        {"learning_rate": 0.1, "rho": 0.9, "epsilon": 0.001},
        {"momentum": 0.9},
        {"learning_rate": 0.1, "rho": 0.95, "centered": True, "l2": 0.1},
        {"learning_rate": 0.1, "centered": True, "momentum": 0.5, "maximize": True, "l2": 0.01},
        {"learning_rate": COSINE, "momentum": 0.9},
    ],
    "Adadelta": [
        {},
        {"learning_rate": 0.5, "rho": 0.95, "epsilon": 0.001},
        {"l2": 0.1, "maximize": True},
        {"learning_rate": EXPONENTIAL},
    ],
    "Adam": [
        {},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.001},
        {"learning_rate": 1.0, "beta_1": 0.0, "l2": 0.1, "maximize": True},
        {"learning_rate": 0.1, "amsgrad": True},
        {"learning_rate": 0.1, "beta_2": 0.9, "amsgrad": True, "l2": 0.1, "maximize": True},
        {"learning_rate": RESTARTS, "clipvalue": 0.1},
    ],
    "AdamW": [
        {},
        {"learning_rate": 0.1, "weight_decay": 0.1},
        {"learning_rate": 1.0, "weight_decay": 0.0, "beta_1": 0.95, "epsilon": 1e-5},
        {"learning_rate": 0.1, "beta_2": 0.9, "amsgrad": True, "maximize": True},
        {"learning_rate": THREE_PHASES, "weight_decay": 0.1},
    ],
    "Adamax": [
        {},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "l2": 0.1, "maximize": True},
        {"learning_rate": WARMUP},
    ],
    "Nadam": [
        {},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.001},
        {"learning_rate": 0.1, "momentum_decay": 0.5, "l2": 0.1},
        {"learning_rate": 0.1, "weight_decay": 0.1, "maximize": True},
        {"learning_rate": WARMUP, "momentum_decay": 0.1},
    ],
    "RAdam": [
        {},
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.001},
        {"learning_rate": 0.1, "beta_2": 0.5},
        {"learning_rate": 0.1, "l2": 0.1, "maximize": True},
        {"learning_rate": POLYNOMIAL, "weight_decay": 0.1},
    ],
    "Rprop": [
        {},
        {"learning_rate": 0.1, "eta_minus": 0.3, "eta_plus": 1.5},
        {"learning_rate": 1.0, "min_step_size": 0.5, "max_step_size": 2.0, "maximize": True},
    ],
    "ASGD": [
        {},
        {"learning_rate": 0.1, "lambd": 0.1, "alpha": 0.5},
        {"learning_rate": 1.0, "lambd": 0.01, "t0": 5.0, "l2": 0.1, "maximize": True},
        {"learning_rate": COSINE, "lambd": 0.1},
    ],
    "Adafactor": [
        {},
        {"learning_rate": 1.0, "beta_2_decay": -0.5, "clip_threshold": 2.0},
        {"learning_rate": 0.1, "epsilon_1": 0.001, "epsilon_2": 0.1, "maximize": True},
        {"learning_rate": 0.1, "weight_decay": 0.1},
        {"learning_rate": EXPONENTIAL, "weight_decay": 0.1},
    ],
    "Muon": [
        {},
        {"learning_rate": 0.1, "momentum": 0.8, "nesterov": False, "weight_decay": 0.0},
        {"learning_rate": 0.1, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
        {"learning_rate": 0.1, "ns_coefficients": [2.0, -1.5, 0.5], "epsilon": 0.001},
        {"learning_rate": MILESTONES, "weight_decay": 0.5, "adjust_lr_fn": "original"},
    ],
}

MISSING: Mapping[str, dict[str, Any]] = {
    "SGD": {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.5, "l2": 0.1},
    "Adagrad": {"learning_rate": 0.1, "learning_rate_decay": 0.1},
    "RMSprop": {"learning_rate": COSINE, "momentum": 0.9, "centered": True},
    "Adadelta": {},
    "Adam": {"learning_rate": 0.1, "amsgrad": True},
    "AdamW": {"learning_rate": CYCLE, "weight_decay": 0.1},
    "Adamax": {"learning_rate": 0.1},
    "Nadam": {"learning_rate": 0.1, "momentum_decay": 0.5},
    "RAdam": {"learning_rate": 0.1, "weight_decay": 0.1},
    "Rprop": {"learning_rate": 0.1},
    "ASGD": {"learning_rate": 0.1, "lambd": 0.1},
    "Adafactor": {"learning_rate": 0.1, "weight_decay": 0.1},
}


def cases() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        for rule, configurations in CONFIGURATIONS.items():
            for keywords in configurations:
                problem = "rectangles" if rule == "Muon" else "vectors"
                yield Case(rule, "torch", keywords, dtype, problem)
        for rule, keywords in MISSING.items():
            yield Case(rule, "torch", keywords, dtype, "missing")
        yield Case("Adafactor", "torch", {"learning_rate": 0.1}, dtype, "matrices")


CASES = list(cases())
