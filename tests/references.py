"""What the tests know about the optimizer classes.

`REFERENCES` maps the name of each class to its reference; the tests take everything that they know
about a rule from this table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import paper_rules as rules
from numpy.typing import ArrayLike
from paper_rules import Rule, State
from quantities import Array, Quantity

Configuration: TypeAlias = Mapping[str, Any]
# The state before the first step, of a parameter and a configuration.
Start: TypeAlias = Callable[[Array, Configuration], ArrayLike]


@dataclass(frozen=True)
class Reference:
    """What the tests know about an optimizer class.

    Attributes
    ----------
    rule
        The rule; it has the name and the keywords of the class's kernel function. A weight decay
        among them is the rule's own; otherwise it is the decoupled one, before the rule.
    slots
        The state slots of a matrix in the kernel's order, each with the hyperparameter that calls
        for it, or None when it always exists.
    configurations
        Keywords for the class that are worth testing.
    weight_decay
        The default of the decoupled weight decay.
    scalars
        The slots that hold one float64 for the array.
    start
        What the slots hold before the first step, where it is not zero.
    elementwise
        Whether each element goes its own way.
    drift
        How many times more than in other rules roundings grow over many steps.
    ulps
        How far a step in float32 may be off, in units in the last place of the largest term.
    cancellation
        How many times more than in other rules it may be off in float64.
    """

    rule: Rule
    slots: Mapping[str, str | None]
    configurations: tuple[Configuration, ...]
    weight_decay: float = 0.0
    scalars: tuple[str, ...] = ()
    start: Mapping[str, Start] = field(default_factory=dict)
    elementwise: bool = True
    drift: float = 1.0
    ulps: int = 4
    cancellation: float = 1.0

    def keywords(self, configuration: Configuration, step: int) -> dict[str, Any]:
        """Return all keywords of the rule, and thereby of its kernel function."""
        given = {**configuration, "step": step}
        return {
            name: given.get(name, parameter.default)
            for name, parameter in inspect.signature(self.rule).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    def initial_state(self, configuration: Configuration, param: Array) -> dict[str, Array]:
        """Return the state before the first step."""
        in_force = {**self.keywords(configuration, step=1), **configuration}
        state = {}
        for slot, switch in self.slots.items():
            if switch is None or in_force.get(switch):
                value = np.array(self.start[slot](param, in_force) if slot in self.start else 0.0)
                one_for_all = value.ndim == 0 and slot not in self.scalars
                state[slot] = np.full(param.shape, value) if one_for_all else value
        return state

    def step(
        self,
        param: ArrayLike,
        grad: ArrayLike,
        state: Mapping[str, ArrayLike],
        step: int,
        configuration: Configuration,
    ) -> tuple[Quantity, State]:
        """Make the update with the given 1-based number."""
        keywords = self.keywords(configuration, step)
        p = Quantity.exact(param)
        if "weight_decay" not in keywords:
            decay = configuration.get("weight_decay", self.weight_decay)
            p = p - keywords["learning_rate"] * decay * p
        exact_state = {slot: Quantity.exact(value) for slot, value in state.items()}
        return self.rule(p, Quantity.exact(grad), exact_state, **keywords)


def hyperparameter(name: str, default: float | None = None) -> Start:
    """Start at a hyperparameter, with its default if the rule itself does not have it."""
    return lambda _, configuration: configuration.get(name, default)


def number(value: float) -> Start:
    """Start at a number."""
    return lambda *_: value


def parameter(param: Array, _: Configuration) -> Array:
    """Start at the parameter."""
    return param


def vector(axis: int) -> Start:
    """Start at zeros for an axis of the parameter."""
    return lambda param, _: np.zeros(param.shape[axis])


ADAM_SLOTS: Mapping[str, str | None] = {"m": None, "v": None, "v_max": "amsgrad"}

REFERENCES = {
    "SGD": Reference(
        rules.sgd,
        slots={"momentum": "momentum"},
        configurations=(
            {},
            {"learning_rate": 0.1, "weight_decay": 0.05},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.3},
            {"momentum": 0.8, "nesterov": True},
        ),
    ),
    "Adagrad": Reference(
        rules.adagrad,
        slots={"accumulator": None},
        start={"accumulator": hyperparameter("initial_accumulator_value", 0.0)},
        configurations=(
            {},
            {"initial_accumulator_value": 0.1, "learning_rate_decay": 0.01},
            {"learning_rate": 0.1, "epsilon": 1e-3},
        ),
    ),
    "RMSprop": Reference(
        rules.rmsprop,
        slots={"mean_square": None, "mean_gradient": "centered", "momentum": "momentum"},
        start={"mean_square": hyperparameter("initial_accumulator_value", 0.0)},
        configurations=(
            {},
            {"momentum": 0.9},
            {"centered": True},
            {"centered": True, "momentum": 0.9, "rho": 0.99, "learning_rate": 0.01},
            {"eps_in_sqrt": False, "initial_accumulator_value": 1.0},
            {"momentum": 0.9, "nesterov": True, "bias_correction": True, "centered": True},
        ),
        ulps=5,
    ),
    "Adadelta": Reference(
        rules.adadelta,
        slots={"mean_square": None, "mean_square_update": None},
        configurations=({}, {"learning_rate": 0.1, "rho": 0.9, "epsilon": 1e-4}),
    ),
    "Adam": Reference(
        rules.adam,
        slots=ADAM_SLOTS,
        configurations=(
            {},
            {"amsgrad": True},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
            {"beta_1": 0.0, "beta_2": 0.9999, "epsilon_root": 1e-6},
        ),
    ),
    "AdamW": Reference(
        rules.adam,
        slots=ADAM_SLOTS,
        configurations=({}, {"amsgrad": True, "learning_rate": 0.01, "weight_decay": 0.1}),
        weight_decay=0.01,
    ),
    "Adamax": Reference(
        rules.adamax,
        slots={"m": None, "u": None},
        configurations=(
            {},
            {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
            {"learning_rate_decay": 0.01, "weight_decay": 0.05},
        ),
    ),
    "Nadam": Reference(
        rules.nadam,
        slots={"m": None, "v": None, "u_product": None},
        configurations=(
            {},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
            {"momentum_decay": 0.1, "epsilon_root": 1e-6, "weight_decay": 0.05},
        ),
        scalars=("u_product",),
        start={"u_product": number(1.0)},
    ),
    "RAdam": Reference(
        rules.radam,
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
    ),
    "Rprop": Reference(
        rules.rprop,
        slots={"previous_gradient": None, "step_size": None},
        configurations=(
            {},
            {"learning_rate": 0.1, "eta_minus": 0.3, "eta_plus": 1.5},
            {"min_step_size": 0.008, "max_step_size": 0.011},
        ),
        start={"step_size": hyperparameter("learning_rate")},
    ),
    "ASGD": Reference(
        rules.asgd,
        slots={"ax": None, "eta": None, "mu": None},
        configurations=(
            {},
            {"learning_rate": 0.1, "lambd": 0.01, "alpha": 0.5, "t0": 2.0},
        ),
        scalars=("eta", "mu"),
        start={"eta": hyperparameter("learning_rate"), "mu": number(1.0)},
        drift=3.0,
    ),
    "Ftrl": Reference(
        rules.ftrl,
        slots={"accumulator": None, "linear": None},
        configurations=(
            {},
            {"learning_rate": 0.1, "l1_regularization_strength": 0.5, "beta": 1.0},
            {
                "learning_rate": 0.05,
                "learning_rate_power": -0.7,
                "initial_accumulator_value": 0.5,
                "l2_regularization_strength": 0.1,
                "l2_shrinkage_regularization_strength": 0.01,
            },
        ),
        start={"accumulator": hyperparameter("initial_accumulator_value", 0.1)},
        drift=3.0,
    ),
    "Lion": Reference(
        rules.lion,
        slots={"m": None},
        configurations=(
            {},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.8, "weight_decay": 0.1},
        ),
        # Equal steps round equally, again and again.
        drift=10.0,
    ),
    "Lamb": Reference(
        rules.lamb,
        slots={"m": None, "v": None},
        configurations=(
            {},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
            {"weight_decay": 0.1, "epsilon_root": 1e-6},
        ),
        elementwise=False,
        ulps=6,
    ),
    "Lars": Reference(
        rules.lars,
        slots={"momentum": "momentum"},
        configurations=(
            {},
            {"learning_rate": 1.0, "trust_coefficient": 0.02, "epsilon": 0.1, "momentum": 0.5},
            {"nesterov": True, "weight_decay": 0.1},
        ),
        elementwise=False,
    ),
    "Yogi": Reference(
        rules.yogi,
        slots={"m": None, "v": None},
        configurations=(
            {},
            {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-4},
            {"initial_accumulator_value": 0.1, "epsilon_root": 1e-6, "weight_decay": 0.05},
        ),
        start={"v": hyperparameter("initial_accumulator_value", 1e-6)},
    ),
    "AdaBelief": Reference(
        rules.adabelief,
        slots={"m": None, "v": None},
        configurations=(
            {},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
            {"epsilon_root": 1e-4, "weight_decay": 0.05},
        ),
        drift=3.0,
    ),
    "Adan": Reference(
        rules.adan,
        slots={"m": None, "v": None, "n": None, "previous_gradient": None},
        configurations=(
            {},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.7, "beta_3": 0.9},
            {"epsilon": 1e-4, "epsilon_root": 1e-6, "weight_decay": 0.05},
        ),
    ),
    "NovoGrad": Reference(
        rules.novograd,
        slots={"m": None, "v": None},
        configurations=(
            {},
            {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e4},
            {"weight_decay": 0.1, "epsilon_root": 1e10},
        ),
        scalars=("v",),
        elementwise=False,
    ),
    "SM3": Reference(
        rules.sm3,
        slots={"momentum": "momentum", "accumulator_0": None, "accumulator_1": None},
        configurations=({}, {"momentum": 0.0}, {"learning_rate": 0.01, "epsilon": 1e-3}),
        start={"accumulator_0": vector(0), "accumulator_1": vector(1)},
        elementwise=False,
    ),
    "SignSGD": Reference(
        rules.sign_sgd,
        slots={},
        configurations=({}, {"learning_rate": 0.01, "weight_decay": 0.1}),
    ),
    "Signum": Reference(
        rules.signum,
        slots={"momentum": None},
        configurations=({}, {"learning_rate": 0.01, "momentum": 0.5, "weight_decay": 0.1}),
        drift=10.0,
    ),
    "Fromage": Reference(
        rules.fromage,
        slots={},
        # The last one's bound lies between the norms in the tests.
        configurations=({}, {"learning_rate": 0.1}, {"min_norm": 2e4}),
        elementwise=False,
    ),
    "AdEMAMix": Reference(
        rules.ademamix,
        slots={"m_1": None, "m_2": None, "v": None},
        configurations=(
            {},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "beta_3": 0.99},
            {"alpha": 2.0, "epsilon": 1e-4, "epsilon_root": 1e-6, "weight_decay": 0.05},
        ),
    ),
    "ScheduleFreeAdamW": Reference(
        rules.schedule_free_adamw,
        slots={"z": None, "v": None, "learning_rate_max": None, "weight_sum": None},
        configurations=(
            {},
            {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
            {"warmup_steps": 5, "weight_lr_power": 1.0, "weight_decay": 0.1},
        ),
        scalars=("learning_rate_max", "weight_sum"),
        start={"z": parameter},
    ),
    "ScheduleFreeSGD": Reference(
        rules.schedule_free_sgd,
        slots={"z": None, "learning_rate_max": None, "weight_sum": None},
        configurations=(
            {},
            {"learning_rate": 0.1, "beta_1": 0.5},
            {"warmup_steps": 5, "weight_lr_power": 1.0, "weight_decay": 0.1},
        ),
        scalars=("learning_rate_max", "weight_sum"),
        start={"z": parameter},
    ),
    "Prodigy": Reference(
        rules.prodigy,
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
    ),
    "Adafactor": Reference(
        rules.adafactor,
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
    ),
    "Muon": Reference(
        rules.muon,
        slots={"momentum": None},
        configurations=(
            {},
            {"nesterov": False, "momentum": 0.5, "adjust_lr_fn": "match_rms_adamw"},
            {"ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "epsilon": 1e-3},
        ),
        elementwise=False,
    ),
}

# What has other slots for a vector than for a matrix.
VECTOR_REFERENCES = {
    "SM3": replace(REFERENCES["SM3"], slots={"momentum": "momentum", "accumulator_0": None}),
    "Adafactor": replace(REFERENCES["Adafactor"], slots={"v": None}, start={}),
}
