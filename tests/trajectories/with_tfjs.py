"""TensorFlow.js's optimizers, run by node on its CPU backend.

NODE_PATH has to name the node_modules folder that holds @tensorflow/tfjs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path as File
from typing import Any

import numpy as np
from trajectories.problem import STEPS, Array, Case, Gradients, Path

FACTORIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "SGD": ("sgd", {"learning_rate": None}),
    "Adagrad": ("adagrad", {"learning_rate": None, "initial_accumulator_value": 0.1}),
    "RMSprop": (
        "rmsprop",
        {"learning_rate": None, "rho": 0.9, "momentum": 0.0, "epsilon": None, "centered": False},
    ),
    "Adadelta": ("adadelta", {"learning_rate": 0.001, "rho": 0.95, "epsilon": None}),
    "Adam": ("adam", {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": None}),
    "Adamax": (
        "adamax",
        {
            "learning_rate": 0.002,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": None,
            "learning_rate_decay": 0.0,
        },
    ),
}
"""For each rule the function in tf.train and, in its order, its arguments with their defaults."""

MOMENTUM: tuple[str, Mapping[str, Any]] = (
    "momentum",
    {"learning_rate": None, "momentum": None, "nesterov": False},
)


def run(case: Case, params: list[Array], gradients: Gradients) -> Path:
    """Return the parameters after each call."""
    return leg(case, params, gradients)[0]


def leg(
    case: Case,
    params: list[Array],
    gradients: Gradients,
    weights: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[Path, Sequence[Mapping[str, Any]]]:
    """Return the parameters after each call, from some weights on, and the weights at the end."""
    request = _request(case, params, gradients)
    if weights is not None:
        plain = [{**each, "tensor": np.asarray(each["tensor"]).tolist()} for each in weights]
        request = {**request, "weights": plain}
    answer = _node([request])
    path = [
        [
            np.array(values, p.dtype).reshape(p.shape)
            for values, p in zip(point, params, strict=True)
        ]
        for point in answer["paths"][0]
    ]
    return path, answer["states"][0]


def _node(requests: Sequence[Mapping[str, Any]]) -> Any:
    program = File(__file__).with_name("tfjs.cjs")
    answer = subprocess.run(
        ["node", program], input=json.dumps(requests), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(answer.stdout)


def _request(case: Case, params: list[Array], gradients: Gradients) -> Mapping[str, Any]:
    """Return what tfjs.cjs needs."""
    with_momentum = case.rule == "SGD" and "momentum" in case.keywords
    make, defaults = MOMENTUM if with_momentum else FACTORIES[case.rule]
    arguments = {**defaults, **case.keywords}
    rates = None
    if isinstance(rate := arguments["learning_rate"], Mapping):
        rates = [_exponential_decay(step, **rate) for step in range(STEPS)]
        arguments["learning_rate"] = rates[0]
    return {
        "make": make,
        "args": [arguments[name] for name in defaults],
        "rates": rates,
        "shapes": [p.shape for p in params],
        "params": [p.ravel().tolist() for p in params],
        "gradients": [
            [None if g is None else g.ravel().tolist() for g in grads] for grads in gradients
        ],
    }


def _exponential_decay(
    step: int, schedule: str, initial_learning_rate: float, decay_steps: int, decay_rate: float
) -> float:
    """Return the rate that is set before a step: TensorFlow.js has no schedules of its own."""
    assert schedule == "ExponentialDecay"
    return float(initial_learning_rate * decay_rate ** (step / decay_steps))


VERSIONS = {"@tensorflow/tfjs": str(_node([])["version"])}

EXPONENTIAL = {
    "schedule": "ExponentialDecay",
    "initial_learning_rate": 0.1,
    "decay_steps": 10,
    "decay_rate": 0.5,
}

CONFIGURATIONS: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]] = {
    ("SGD", "vectors"): [
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "momentum": 0.9},
        {"learning_rate": 1.0, "momentum": 0.5, "nesterov": True},
        {"learning_rate": EXPONENTIAL, "momentum": 0.9},
        {"learning_rate": EXPONENTIAL, "momentum": 0.9, "nesterov": True},
    ],
    ("SGD", "missing"): [{"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}],
    ("Adagrad", "vectors"): [
        {"learning_rate": 0.1},
        {"learning_rate": 1.0, "initial_accumulator_value": 0.01},
        {"learning_rate": EXPONENTIAL},
    ],
    ("Adagrad", "missing"): [{"learning_rate": 1.0}],
    ("RMSprop", "vectors"): [
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "rho": 0.5, "epsilon": 1e-3},
        {"learning_rate": 0.1, "momentum": 0.9},
        {"learning_rate": EXPONENTIAL, "momentum": 0.9},
        {"learning_rate": 0.1, "centered": True},
        {"learning_rate": 0.1, "centered": True, "momentum": 0.5, "epsilon": 1e-5},
    ],
    ("RMSprop", "missing"): [{"learning_rate": 0.1, "momentum": 0.9}],
    ("Adadelta", "vectors"): [
        {},
        {"learning_rate": 1.0},
        {"learning_rate": 1.0, "rho": 0.8, "epsilon": 1e-4},
        {"learning_rate": EXPONENTIAL},
    ],
    ("Adadelta", "missing"): [{"learning_rate": 1.0}],
    ("Adam", "vectors"): [
        {},
        {"learning_rate": 0.1},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": EXPONENTIAL},
    ],
    ("Adam", "missing"): [{"learning_rate": 0.1}],
    ("Adamax", "vectors"): [
        {},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": 0.1, "learning_rate_decay": 0.1},
        {"learning_rate": EXPONENTIAL},
    ],
    ("Adamax", "missing"): [{"learning_rate": 0.1, "learning_rate_decay": 0.1}],
}

CASES = [
    Case(rule, "tfjs", keywords, problem=problem)
    for (rule, problem), several in CONFIGURATIONS.items()
    for keywords in several
]
