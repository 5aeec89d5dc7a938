"""A formula in NumPy, in the order written: what programs are checked against and timed beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep._formulas.algebra import GRADIENT, PARAMETER, RATE, STEP
from instep._formulas.grammar import REDUCTIONS, interpret
from instep._rule import PARAMETER as COPY_OF_PARAMETER

if TYPE_CHECKING:
    from instep._formulas.definition import FormulaOptimizer

_OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
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


class _Call(NamedTuple):
    """A function, and the values that it is called with, by their place."""

    function: Callable[..., Any]
    arguments: tuple[int, ...]


class Evaluation:
    """A `grammar.Meaning` that remembers what to compute, and does it as often as it is asked.

    Parameters
    ----------
    formula
        The text.
    names
        What it may begin with: the parameter, the gradient, state, kept numbers, hyperparameters.
    """

    def __init__(self, formula: str, names: list[str]) -> None:
        self._names = [*names, STEP]
        self._places = {name: k for k, name in enumerate(self._names)}
        self._calls: list[_Call] = []
        interpret(formula, self)

    def literal(self, value: float) -> int:
        """Return the place of a number."""
        return self._add(lambda: value)

    def name(self, name: str) -> int:
        """Return the place of what a name stands for now."""
        return self._places[name]

    def assign(self, name: str, value: int) -> None:
        """Let a name stand for something else from now on."""
        self._places[name] = value

    def operate(self, operator: str, a: int, b: int) -> int:
        """Return the place of what an operator makes of two values."""
        return self._add(lambda x, y: _operated(operator, x, y), a, b)

    def call(self, function: str, arguments: list[int], over_all: bool) -> int:
        """Return the place of what a function makes; of one array where it is over all, too."""
        if function in REDUCTIONS:
            of_all = self.name(PARAMETER)
            return self._add(lambda x, p: _reduced(function, x, p), arguments[0], of_all)
        return self._add(lambda *values: _called(function, values), *arguments)

    def _add(self, function: Callable[..., Any], *arguments: int) -> int:
        self._calls.append(_Call(function, arguments))
        return len(self._names) + len(self._calls) - 1

    def step(
        self, arrays: Mapping[str, Any], numbers: Mapping[str, float], step: int
    ) -> dict[str, Any]:
        """Return what arrays and numbers become in a step.

        Parameters
        ----------
        arrays
            The parameter, the gradient and state by name, in the precision to compute in.
        numbers
            Hyperparameters, kept numbers and the learning rate by name.
        step
            The count of the update.
        """
        given = {**numbers, **arrays, STEP: float(step)}
        values = [given[name] for name in self._names]
        with np.errstate(all="ignore"):
            for function, arguments in self._calls:
                values.append(function(*(values[k] for k in arguments)))
        kept = (*arrays, *numbers)
        return {name: values[self._places[name]] for name in kept if name not in (GRADIENT, RATE)}


class Training:
    """A rule in NumPy, step after step.

    Parameters
    ----------
    rule
        The class of the formula.
    param
        The parameter to start from, which stays as it is.
    config
        The hyperparameters in force, by name.
    dtype
        The precision to compute in.

    Attributes
    ----------
    arrays
        The parameter and state by name.
    """

    def __init__(
        self, rule: type[FormulaOptimizer], param: Any, config: Mapping[str, Any], dtype: Any
    ) -> None:
        names = rule._program.algebra.names
        self.arrays: dict[str, Any] = {PARAMETER: param.astype(dtype)}
        self._numbers = {name: float(config[name]) for name in names.hyperparameters}
        for name in (*names.state, *names.numbers):
            start: Any = rule._initial_state.get(name, 0.0)
            if isinstance(start, str):
                start = param if start == COPY_OF_PARAMETER else config[start]
            if name in names.state:
                self.arrays[name] = np.full(param.shape, start, dtype)
            else:
                self._numbers[name] = float(start)
        self._numbers[RATE] = float(config["learning_rate"])
        self._count = 0
        known = [*self.arrays, GRADIENT, *self._numbers]
        self._formula = Evaluation(rule._definition["arguments"]["formula"], known)

    def step(self, g: Any) -> None:
        """Go on by a gradient."""
        self._count += 1
        arrays = {**self.arrays, GRADIENT: g.astype(self.arrays[PARAMETER].dtype, copy=False)}
        after = self._formula.step(arrays, self._numbers, self._count)
        self.arrays = {name: np.asarray(after[name]) for name in self.arrays}
        self._numbers |= {n: float(v) for n, v in after.items() if n not in self.arrays}


def _operated(operator: str, a: Any, b: Any) -> Any:
    if not isinstance(a, np.ndarray):
        a = float(a) if isinstance(b, np.ndarray) else np.float64(a)
    result = _OPERATIONS[operator](a, b)
    if result.dtype.kind != "b":
        return result
    dtype = next((x.dtype for x in (a, b) if isinstance(x, np.ndarray)), np.float64)
    return result.astype(dtype)


def _reduced(function: str, x: Any, param: Any) -> float:
    wide = np.broadcast_to(np.asarray(x, np.float64), param.shape).ravel()
    reductions: Mapping[str, Callable[[Any], Any]] = {
        "sum": np.sum,
        "mean": np.mean,
        "norm": _norm,
        "rms": lambda each: _norm(each) / np.sqrt(each.size),
    }
    return float(reductions[function](wide))


def _norm(x: Any) -> Any:
    """Return the 2-norm, of which no square is too large or too small."""
    largest = np.max(np.abs(x), initial=0)
    is_usual = 0 < largest < np.inf
    return largest * np.linalg.norm(x / largest) if is_usual else np.linalg.norm(x)


def _called(function: str, values: tuple[Any, ...]) -> Any:
    if function in ("min", "max"):
        result = values[0]
        for other in values[1:]:
            better = np.less(result, other) if function == "max" else np.less(other, result)
            result = np.where(better, other, result)
        return result
    if function == "where":
        return np.where(np.greater(values[0], 0), values[1], values[2])
    functions: Mapping[str, Callable[[Any], Any]] = {
        "sqrt": np.sqrt,
        "abs": np.abs,
        "sign": np.sign,
    }
    return functions[function](values[0])
