"""What one measurement is about, and the gradients it is made with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import instep
from instep._bench.workloads import Workload

Array = NDArray[np.floating[Any]]

DTYPES: Mapping[str, tuple[np.dtype[Any], np.dtype[Any]]] = {  # of parameters and of gradients
    "float32": (np.dtype(np.float32), np.dtype(np.float32)),
    "float64": (np.dtype(np.float64), np.dtype(np.float64)),
    "mixed": (np.dtype(np.float32), np.dtype(np.float64)),
}


@dataclass(frozen=True, eq=False)
class Rule:
    """An optimizer class with the settings it is measured with."""

    name: str
    optimizer: type[instep.Optimizer]
    settings: Mapping[str, Any]

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Every hyperparameter by name."""
        return self.optimizer(**self.settings).config

    @cached_property
    def slots(self) -> int:
        """How many arrays of state, of its own shape, each parameter has."""
        param = np.ones((2, 3))
        state = self.optimizer(param, **self.settings).state
        return sum(np.shape(value) == param.shape for value in state.values())


def _rules() -> dict[str, Rule]:
    settings: dict[str, dict[str, Any]] = {
        # Where epsilon has its place differs between libraries, so it must not matter.
        "RMSprop": {"epsilon": 1e-10},
        # And so do the steps from which on RAdam divides.
        "RAdam": {"threshold": 5.0},
    }
    rules = {}
    for name, each in vars(instep).items():
        if isinstance(each, type) and issubclass(each, instep.Optimizer):
            if each is not instep.Optimizer:
                rules[name] = Rule(name, each, settings.get(name, {}))
            if each is instep.SGD:
                rules["Momentum"] = Rule("Momentum", each, {"momentum": 0.9})
    return rules


RULES = _rules()


@dataclass(frozen=True, eq=False)
class Case:
    """A workload stepped by one rule, in one dtype, on so many threads, in warm or cold caches."""

    workload: Workload
    rule: Rule
    dtype: str
    threads: int
    cold: bool = False

    @property
    def written(self) -> int:
        """How many arrays each step reads and writes for each gradient: parameter and state."""
        return 1 + self.rule.slots

    @property
    def param_bytes(self) -> int:
        """The size of all parameters, and of each slot of state."""
        return self.workload.parameters * DTYPES[self.dtype][0].itemsize

    @property
    def grad_bytes(self) -> int:
        """The size of all gradients."""
        return self.workload.parameters * DTYPES[self.dtype][1].itemsize

    @property
    def step_bytes(self) -> int:
        """What a step has to read and to write."""
        return self.grad_bytes + 2 * self.written * self.param_bytes

    def ones(self) -> list[Array]:
        """Return new parameters."""
        dtype = DTYPES[self.dtype][0]
        return [np.ones(shape, dtype) for shape in self.workload.shapes]

    def zeros(self) -> list[list[Array]]:
        """Return new state: for each array a list with an array for each slot."""
        dtype = DTYPES[self.dtype][0]
        return [
            [np.zeros(shape, dtype) for _ in range(self.rule.slots)]
            for shape in self.workload.shapes
        ]

    def gradients(self) -> list[Array]:
        """Return gradients of either sign, from 0.005 to 0.015."""
        rng = np.random.default_rng(0)
        block = rng.uniform(0.005, 0.015, 2**16) * rng.choice([-1, 1], 2**16)
        dtype = DTYPES[self.dtype][1]
        return [
            np.resize(block.astype(dtype), math.prod(shape)).reshape(shape)
            for shape in self.workload.shapes
        ]
