"""State that the frameworks' own optimizers have on the way through `problem.py`.

python tests/trajectories/interop.py
    runs them and writes interop.npz, beside this file, in the environment that `make.py` describes.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from trajectories.compare import STORED
from trajectories.problem import STEPS, Array, Case, gradients, start

FILE = Path(__file__).resolve().parent / "interop.npz"
LEG = STEPS // 3
"""So many calls there, so many here, and so many there again."""

AVERAGED = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3}
WAITING = {"gradient_accumulation_steps": 3}  # a leg ends in the middle of a window
WINDOWS = {"gradient_accumulation_steps": 4}  # a leg ends with a window
SCHEDULE = {
    "schedule": "ExponentialDecay",
    "initial_learning_rate": 0.1,
    "decay_steps": 10,
    "decay_rate": 0.5,
}

TORCH: Sequence[tuple[str, str, dict[str, Any]]] = [
    ("SGD", "vectors", {"learning_rate": 0.1}),
    ("SGD", "missing", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "l2": 0.1}),
    ("SGD", "vectors", {"momentum": 0.5, "dampening": 0.3, "maximize": True}),
    ("Adagrad", "missing", {"learning_rate": 0.1, "learning_rate_decay": 0.1, "l2": 0.01}),
    ("Adagrad", "vectors", {"initial_accumulator_value": 0.5, "epsilon": 0.001}),
    ("RMSprop", "vectors", {"learning_rate": 0.1, "rho": 0.9}),
    ("RMSprop", "missing", {"learning_rate": 0.1, "momentum": 0.5, "centered": True, "l2": 0.1}),
    ("Adadelta", "missing", {"learning_rate": 0.5, "rho": 0.95, "epsilon": 0.001, "l2": 0.1}),
    ("Adam", "vectors", {"learning_rate": 0.1}),
    ("Adam", "missing", {"learning_rate": 0.1, "beta_2": 0.9, "amsgrad": True, "l2": 0.1}),
    ("AdamW", "missing", {"learning_rate": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", "missing", {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "l2": 0.1}),
    ("Nadam", "missing", {"learning_rate": 0.1, "momentum_decay": 0.5, "l2": 0.1}),
    ("Nadam", "vectors", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("RAdam", "missing", {"learning_rate": 0.1, "l2": 0.1}),
    ("RAdam", "vectors", {"learning_rate": 0.1, "beta_2": 0.9, "weight_decay": 0.1}),
    ("ASGD", "vectors", {"learning_rate": 0.1, "lambd": 0.1, "alpha": 0.5}),
    ("ASGD", "missing", {"learning_rate": 0.1, "lambd": 0.01, "t0": 5.0, "l2": 0.1}),
    ("Rprop", "vectors", {"learning_rate": 0.1, "eta_minus": 0.3, "eta_plus": 1.5}),
    ("Rprop", "missing", {"learning_rate": 0.1, "max_step_size": 2.0, "maximize": True}),
    ("Adafactor", "matrices", {"learning_rate": 0.1, "epsilon_1": 0.001, "clip_threshold": 2.0}),
    ("Adafactor", "missing", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("Muon", "rectangles", {"learning_rate": 0.1, "adjust_lr_fn": "match_rms_adamw"}),
    ("Muon", "rectangles", {"learning_rate": 0.1, "ns_coefficients": [2.0, -1.5, 0.5]}),
]
KERAS: Sequence[tuple[str, str, dict[str, Any]]] = [
    ("SGD", "vectors", {"learning_rate": 0.1}),
    ("SGD", "missing", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, **AVERAGED}),
    ("SGD", "vectors", {"learning_rate": SCHEDULE, "momentum": 0.9, **WAITING, **AVERAGED}),
    ("Adagrad", "vectors", {"learning_rate": 0.1, "initial_accumulator_value": 0.2}),
    ("RMSprop", "missing", {"learning_rate": 0.1, "momentum": 0.5, "centered": True}),
    ("RMSprop", "vectors", {"learning_rate": 0.1, "centered": True}),
    ("Adadelta", "missing", {"learning_rate": 1.0, "weight_decay": 0.01}),
    ("Adam", "missing", {"learning_rate": 0.1, "amsgrad": True, **AVERAGED}),
    ("Adam", "vectors", {"learning_rate": 0.1, **WAITING}),
    ("AdamW", "vectors", {"learning_rate": SCHEDULE, "weight_decay": 0.1}),
    ("Adamax", "missing", {"learning_rate": 0.1}),
    ("Nadam", "missing", {"learning_rate": 0.1}),
    ("Nadam", "vectors", {"learning_rate": 0.1, **WAITING}),
    ("Ftrl", "missing", {"learning_rate": 0.1, "l1_regularization_strength": 0.1}),
    ("Lion", "missing", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ("Lamb", "missing", {"learning_rate": 0.1}),
    ("Adafactor", "matrices", {"learning_rate": 0.1}),
    ("Adafactor", "matrices", {"learning_rate": 0.1, **WAITING, **AVERAGED}),
    ("Muon", "matrices", {"learning_rate": 0.1}),
    ("ScheduleFreeAdamW", "vectors", {"learning_rate": 0.1, "warmup_steps": 30}),
    ("ScheduleFreeAdamW", "missing", {"learning_rate": SCHEDULE, "weight_decay": 0.1}),
]
OPTAX: Sequence[tuple[str, str, dict[str, Any]]] = [
    ("SGD", "vectors", {"learning_rate": SCHEDULE}),
    ("SGD", "vectors", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "l2": 0.1}),
    ("SGD", "vectors", {"learning_rate": SCHEDULE, "momentum": 0.9, **WINDOWS}),
    ("Adagrad", "vectors", {"learning_rate": 1.0, "clipvalue": 1.0}),
    ("RMSprop", "vectors", {"learning_rate": 0.1}),
    ("RMSprop", "vectors", {"learning_rate": 0.1, "bias_correction": True, "momentum": 0.5}),
    ("RMSprop", "vectors", {"learning_rate": 0.1, "centered": True, "epsilon": 0.1}),
    (
        "RMSprop",
        "vectors",
        {"learning_rate": 0.1, "centered": True, "bias_correction": True, "epsilon": 0.1},
    ),
    ("Adadelta", "vectors", {"learning_rate": 0.1, "rho": 0.8, "epsilon": 0.001, "l2": 0.1}),
    ("Adam", "vectors", {"learning_rate": 0.1, "beta_2": 0.99}),
    ("Adam", "vectors", {"learning_rate": 0.1, "amsgrad": True, "beta_2": 0.9}),
    ("AdamW", "vectors", {"learning_rate": SCHEDULE, "weight_decay": 0.1, **WINDOWS}),
    ("Adamax", "vectors", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("Nadam", "vectors", {"learning_rate": 0.1, "beta_1": 0.8, "maximize": True}),
    ("RAdam", "vectors", {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "nesterov": True}),
    ("Rprop", "vectors", {"learning_rate": 0.1, "eta_minus": 0.3, "eta_plus": 1.5}),
    ("Lion", "vectors", {"learning_rate": 0.1, "beta_1": 0.8, "weight_decay": 0.1}),
    ("Lamb", "vectors", {"learning_rate": 0.1, "weight_decay": 0.1, "beta_2": 0.9}),
    ("Lars", "vectors", {"learning_rate": 0.1, "trust_coefficient": 0.1, "l2": 0.1}),
    ("Yogi", "vectors", {"learning_rate": 0.1, "initial_accumulator_value": 0.1}),
    ("AdaBelief", "vectors", {"learning_rate": 0.1, "epsilon": 0.001}),
    ("Adan", "vectors", {"learning_rate": 0.1, "beta_2": 0.8, "weight_decay": 0.1}),
    ("NovoGrad", "vectors", {"learning_rate": 0.1, "beta_2": 0.9, "weight_decay": 0.01}),
    ("SignSGD", "vectors", {"learning_rate": SCHEDULE}),
    ("Signum", "vectors", {"learning_rate": 0.1, "momentum": 0.5}),
    ("Fromage", "vectors", {"learning_rate": SCHEDULE}),
    ("AdEMAMix", "vectors", {"learning_rate": 0.1, "beta_3": 0.95, "alpha": 2.0}),
    ("ScheduleFreeAdamW", "vectors", {"learning_rate": 0.1, "warmup_steps": 30}),
    ("ScheduleFreeSGD", "vectors", {"learning_rate": 0.1, "beta_1": 0.8, "weight_decay": 0.1}),
    ("Prodigy", "vectors", {"learning_rate": 0.1, "estim_lr0": 0.1, "estim_lr_coef": 0.1}),
    ("Adafactor", "matrices", {"min_dim_size_to_factor": 3, "learning_rate": 0.1}),
    (
        "Adafactor",
        "matrices",
        {"min_dim_size_to_factor": 4, "momentum": 0.9, "weight_decay_rate": 0.01},
    ),
    ("SM3", "matrices", {"learning_rate": 0.1, "momentum": 0.5}),
    ("Muon", "matrices", {"learning_rate": SCHEDULE, "adam_beta_1": 0.8, **WINDOWS}),
]
TFJS: Sequence[tuple[str, str, dict[str, Any]]] = [
    ("SGD", "vectors", {"learning_rate": 0.1}),
    ("SGD", "missing", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adagrad", "missing", {"learning_rate": 1.0, "initial_accumulator_value": 0.01}),
    ("RMSprop", "missing", {"learning_rate": 0.1}),
    ("RMSprop", "vectors", {"learning_rate": 0.1, "momentum": 0.5, "epsilon": 1e-5}),
    ("Adadelta", "missing", {"learning_rate": 1.0, "rho": 0.8}),
    ("Adam", "missing", {"learning_rate": 0.1}),
]
CASES = [
    Case(rule, framework, keywords, dtype, problem)
    for framework, configurations in (("torch", TORCH), ("keras", KERAS), ("optax", OPTAX))
    for rule, problem, keywords in configurations
    for dtype in ("float32", "float64")
] + [Case(rule, "tfjs", keywords, problem=problem) for rule, problem, keywords in TFJS]


@dataclass(frozen=True)
class Journey:
    """What a framework has on its way.

    Attributes
    ----------
    params
        The parameters at the start and at the end of each leg.
    states
        The optimizer's state at the end of each leg, its tensors as ndarrays.
    """

    params: list[list[Array]]
    states: list[Any]


class Torch:
    """PyTorch's optimizer of a case."""

    def __init__(self, case: Case, params: Sequence[Array], *, bare: bool = False) -> None:
        """Make it, with `bare` without the hyperparameters of the case."""
        import torch
        from trajectories.with_torch import RULES, make

        torch.set_default_dtype(getattr(torch, case.dtype))
        self._torch = torch
        self._params = [torch.tensor(p) for p in params]
        self.optimizer = RULES[case.rule](self._params) if bare else make(case, self._params)[0]

    @property
    def params(self) -> list[Array]:
        return [p.numpy().copy() for p in self._params]

    def step(self, grads: Sequence[Array | None]) -> None:
        for p, grad in zip(self._params, grads, strict=True):
            p.grad = None if grad is None else self._torch.tensor(grad)
        with patch.object(self._torch.Tensor, "bfloat16", self._torch.Tensor.clone):  # Muon's cast
            self.optimizer.step()

    @property
    def state(self) -> dict[str, Any]:
        d = self.optimizer.state_dict()
        arrays = {
            index: {name: slot.numpy().copy() for name, slot in slots.items()}
            for index, slots in d["state"].items()
        }
        return {"state": arrays, "param_groups": d["param_groups"]}

    def load(self, d: dict[str, Any]) -> None:
        for slots in d["state"].values():
            slots.update({name: self._torch.as_tensor(slot) for name, slot in slots.items()})
        self.optimizer.load_state_dict(d)


class Keras:
    """Keras's optimizer of a case, on JAX."""

    def __init__(self, case: Case, params: Sequence[Array]) -> None:
        from trajectories.with_keras import _arguments, jax, keras

        jax.config.update("jax_enable_x64", case.dtype == "float64")
        keras.config.set_floatx(case.dtype)
        self._variables = [
            keras.Variable(p, dtype=case.dtype, name=f"array_{k}") for k, p in enumerate(params)
        ]
        self.optimizer = getattr(keras.optimizers, case.rule)(**_arguments(case.keywords))
        self.optimizer.build(self._variables)
        self._apply = jax.jit(self.optimizer.stateless_apply)  # as in Model.fit, and much faster

    @property
    def params(self) -> list[Array]:
        return [np.asarray(v).copy() for v in self._variables]

    def step(self, grads: Sequence[Array | None]) -> None:
        own = self.optimizer.variables
        state, params = ([v.value for v in group] for group in (own, self._variables))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")
            new = self._apply(state, list(grads), params)
        for variables, values in zip((self._variables, own), new, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    @property
    def state(self) -> list[tuple[str, Array]]:
        return [(v.path, np.asarray(v).copy()) for v in self.optimizer.variables]

    def load(self, values: Sequence[Array]) -> None:
        for variable, value in zip(self.optimizer.variables, values, strict=True):
            variable.assign(value)


class Optax:
    """Optax's optimizer of a case."""

    def __init__(self, case: Case, params: Sequence[Array]) -> None:
        import jax.numpy as jnp
        from trajectories import with_optax

        self._case, self._precision, self._jnp = case, with_optax.precision, jnp
        with self._precision(case):
            self.optimizer = with_optax.make(case)
            self._step = with_optax.stepper(self.optimizer)
            self._params = [self._jnp.asarray(p) for p in params]
            self.state = with_optax.first_state(self.optimizer, self._params)

    @property
    def params(self) -> list[Array]:
        return [np.array(p) for p in self._params]

    def step(self, grads: Sequence[Array | None]) -> None:
        with self._precision(self._case):
            given = [self._jnp.asarray(grad) for grad in grads]
            self._params, self.state = self._step(self._params, self.state, given)

    def load(self, state: Any) -> None:
        self.state = state


class TensorFlowJS:
    """TensorFlow.js's optimizer of a case, which runs anew whenever something is asked of it."""

    def __init__(self, case: Case, params: Sequence[Array]) -> None:
        self._case, self._start = case, list(params)
        self._weights: Any = None
        self._calls: list[Sequence[Array | None]] = []

    @property
    def params(self) -> list[Array]:
        return self._run()[0] if self._calls else self._start

    @property
    def state(self) -> Any:
        return self._run()[1]

    def step(self, grads: Sequence[Array | None]) -> None:
        self._calls.append(grads)

    def load(self, weights: Any) -> None:
        self._weights = weights

    def _run(self) -> tuple[list[Array], Any]:
        from trajectories.with_tfjs import leg

        path, weights = leg(self._case, self._start, self._calls, self._weights)
        return list(path[-1]), weights


FRAMEWORKS = {"torch": Torch, "keras": Keras, "optax": Optax, "tfjs": TensorFlowJS}


def journey(case: Case) -> Journey:
    """Return what the framework does by itself."""
    theirs = FRAMEWORKS[case.convention](case, start(case.problem, case.dtype))
    params, states = [theirs.params], []
    for call, grads in enumerate(gradients(case.problem, case.dtype), 1):
        theirs.step(grads)
        if call % LEG == 0:
            params.append(theirs.params)
            states.append(theirs.state)
    return Journey(params, states)


def save() -> None:
    """Write the journeys of all cases."""
    listing, arrays = [], {}
    for case in CASES:
        taken = journey(case)
        kept: list[Array] = []
        listing.append(
            {
                **{name: getattr(case, name) for name in STORED},
                "params": _without_arrays(taken.params, kept),
                "states": _without_arrays(taken.states, kept),
            }
        )
        flat = [array.ravel().astype(case.dtype) for array in kept]
        arrays[f"{case.convention} {case.name}"] = np.concatenate(flat)
    from trajectories.with_tfjs import VERSIONS

    names = ("torch", "keras", "optax", "jax", "numpy")
    versions = {**{name: metadata.version(name) for name in names}, **VERSIONS}
    cases = np.array(json.dumps({"versions": versions, "cases": listing}))
    np.savez_compressed(FILE, allow_pickle=False, cases=cases, **arrays)


def load() -> Iterator[tuple[Case, Journey]]:
    """Yield the stored journeys."""
    with np.load(FILE) as arrays:
        for stored in json.loads(str(arrays["cases"]))["cases"]:
            case = Case(**{name: stored[name] for name in STORED})
            rest = iter(arrays[f"{case.convention} {case.name}"])
            yield (
                case,
                Journey(*(_with_arrays(stored[name], rest) for name in ("params", "states"))),
            )


def _without_arrays(tree: Any, arrays: list[Array]) -> Any:
    """Return a tree that JSON holds; append the arrays in it to a list."""
    if hasattr(tree, "_fields"):
        tree = tree._asdict()
    if hasattr(tree, "shape"):
        tree = np.asarray(tree)
        arrays.append(tree)
        return {"dtype": str(tree.dtype), "shape": tree.shape}
    if isinstance(tree, Mapping):
        return {"items": [[key, _without_arrays(value, arrays)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return [_without_arrays(each, arrays) for each in tree]
    return tree


def _with_arrays(tree: Any, rest: Iterator[Any]) -> Any:
    """Return the tree with its arrays, the numbers of which follow in `rest`."""
    if isinstance(tree, list):
        return [_with_arrays(each, rest) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if "items" in tree:
        return {key: _with_arrays(value, rest) for key, value in tree["items"]}
    size = int(np.prod(tree["shape"]))
    return np.array([next(rest) for _ in range(size)], tree["dtype"]).reshape(tree["shape"])


if __name__ == "__main__":
    save()
