"""A formula in NumPy, as it stands there: what programs are checked against and timed beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instep._formulas.algebra import GRADIENT, RATE, STEP
from instep._formulas.grammar import REDUCTIONS, interpret

_OPERATIONS = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


@dataclass
class Evaluation:
    """A `grammar.Meaning` that computes.

    Attributes
    ----------
    values
        What names stand for: arrays and floats.
    """

    values: dict[str, Any] = field(default_factory=dict)

    def literal(self, value: float) -> Any:
        """Return a number."""
        return value

    def name(self, name: str) -> Any:
        """Return what a name stands for now."""
        return self.values[name]

    def assign(self, name: str, value: Any) -> None:
        """Let a name stand for something else from now on."""
        self.values[name] = value

    def operate(self, operator: str, a: Any, b: Any) -> Any:
        """Return what an operator makes of two values."""
        if operator == "**" and not isinstance(a, np.ndarray):
            a = np.float64(a)
        result = _OPERATIONS[operator](a, b)
        is_comparison = result.dtype.kind == "b"
        dtype = next((x.dtype for x in (a, b) if isinstance(x, np.ndarray)), np.float64)
        return result.astype(dtype) if is_comparison else result

    def call(self, function: str, arguments: list[Any], over_all: bool = False) -> Any:
        """Return what a function makes of values; of an array alone also where it is over all."""
        if function in REDUCTIONS:
            wide = np.asarray(arguments[0], np.float64)
            reduction = {
                "sum": np.sum,
                "mean": np.mean,
                "norm": np.linalg.norm,
                "rms": lambda x: np.sqrt(np.mean(x * x)),
            }[function]
            return float(reduction(wide.ravel()))
        if function in ("min", "max"):
            result = arguments[0]
            for other in arguments[1:]:
                keeps = (result < other) if function == "max" else (other < result)
                result = np.where(keeps, other, result)
            return result
        if function == "where":
            return np.where(np.asarray(arguments[0]) > 0, *arguments[1:])
        return {"sqrt": np.sqrt, "abs": np.abs, "sign": np.sign}[function](*arguments)


def stepped(
    formula: str, arrays: Mapping[str, Any], numbers: Mapping[str, float], step: int
) -> dict[str, Any]:
    """Return what arrays and numbers become in a step.

    Parameters
    ----------
    formula
        The text.
    arrays
        The parameter, the gradient and state by name, in the precision to compute in.
    numbers
        Hyperparameters, kept numbers and the learning rate (`lr`) by name.
    step
        The count of the update.
    """
    evaluation = Evaluation({**numbers, **arrays, STEP: float(step)})
    with np.errstate(all="ignore"):
        interpret(formula, evaluation)
    return {
        name: value
        for name, value in evaluation.values.items()
        if name in (*arrays, *numbers) and name not in (GRADIENT, RATE)
    }


