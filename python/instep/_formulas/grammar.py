"""The language of formulas: assignments of arithmetic, read by Python's own parser, never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

LONGEST = 4000
"""Characters that a formula may have."""
DEEPEST = 60
"""How deep its parts may stand in each other."""

FUNCTIONS: Mapping[str, tuple[int, int]] = {
    "sqrt": (1, 1),
    "abs": (1, 1),
    "sign": (1, 1),
    "min": (2, 8),
    "max": (2, 8),
    "where": (3, 3),
    "sum": (1, 2),
    "mean": (1, 2),
    "norm": (1, 2),
    "rms": (1, 2),
}
"""How many arguments they take, at least and at most."""
REDUCTIONS = ("sum", "mean", "norm", "rms")
OVER_ALL = "all"
"""The second argument of a reduction that is over all arrays."""

_OPERATORS: Mapping[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
}
_INSTEAD: Mapping[type[ast.operator], str] = {
    ast.BitXor: "; powers are **",
    ast.BitAnd: "; of conditions: and",
    ast.BitOr: "; of conditions: or",
    ast.Mod: "; for every k-th step a hyperparameter that is a function of the step",
}
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_NESTING = re.compile(r"(?:[-+~(\[{]|\bnot\b|\s){100,}")


class MeaningError(Exception):
    """What a `Meaning` raises of an operation that it does not have."""


class Meaning(Protocol):
    """What the parts of a formula stand for."""

    def literal(self, value: float) -> Any:
        """Return a number."""

    def name(self, name: str) -> Any:
        """Return what a name stands for now."""

    def assign(self, name: str, value: Any) -> None:
        """Let a name stand for something else from now on."""

    def operate(self, operator: str, a: Any, b: Any) -> Any:
        """Return what an arithmetic operator or a comparison makes of two."""

    def call(self, function: str, arguments: list[Any], over_all: bool) -> Any:
        """Return what one of `FUNCTIONS` makes of its arguments."""


def interpret(text: str, meaning: Meaning) -> None:
    """Tell a meaning the assignments of a formula.

    Raises
    ------
    ValueError
        If the text is no formula: where, what stands there, and what may.
    """
    if not isinstance(text, str):
        raise TypeError(f"formula: expected a str, got {type(text).__name__}")
    if len(text) > LONGEST:
        raise ValueError(f"formula: expected at most {LONGEST} characters, got {len(text)}")
    if _NESTING.search(text):
        raise ValueError(f"formula: expected at most {DEEPEST} parts that stand in each other")
    lines = [line.strip() for line in text.splitlines()]
    source = "\n".join(lines)
    try:
        module = ast.parse(source)
    except SyntaxError as error:
        line, column = error.lineno or 1, error.offset or 1
        raise _error(source, line, column - 1, f"{error.msg}; expected assignments") from None
    except (ValueError, MemoryError, RecursionError):  # zero bytes, and what is too deep
        raise ValueError("formula: expected assignments, got what can't be read") from None
    _check_depth(source, module)
    if not module.body:
        raise ValueError("formula: expected assignments, got none")
    reader = _Reader(source, meaning)
    for statement in module.body:
        reader.assignment(statement)


def _check_depth(source: str, module: ast.Module) -> None:
    level: list[ast.AST] = [module]
    depth = 0
    while level:
        depth += 1
        if depth > DEEPEST + 3:  # the module, the assignment, and its value
            where = next((each for each in level if hasattr(each, "lineno")), None)
            message = f"expected at most {DEEPEST} parts that stand in each other"
            raise _error(
                source, getattr(where, "lineno", 1), getattr(where, "col_offset", 0), message
            )
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _error(source: str, line: int, column: int, message: str) -> ValueError:
    """Return an error that points at a place, its column from 0 in bytes."""
    lines = source.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1]
    before = len(shown.encode()[: max(column, 0)].decode(errors="ignore"))
    place = f"line {line}, column {before + 1}" if len(lines) > 1 else f"column {before + 1}"
    start = max(0, before - 60)
    return ValueError(
        f"formula, {place}: {message}\n    {shown[start : start + 100]}\n"
        f"    {' ' * (before - start)}^"
    )


class _Reader:
    """Reads assignments for a meaning."""

    def __init__(self, source: str, meaning: Meaning) -> None:
        self._source, self._meaning = source, meaning

    def _fail(self, node: ast.AST, message: str) -> ValueError:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        return _error(self._source, line, column, message)

    def _tell(self, node: ast.AST, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except MeaningError as error:
            raise self._fail(node, str(error)) from None

    def assignment(self, node: ast.stmt) -> None:
        meaning = self._meaning
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AugAssign):
            target, value = node.target, node.value
        else:
            example = "m = beta*m + (1-beta)*g"
            if isinstance(node, ast.If):
                example = "m = where(condition, a, b)"
            raise self._fail(node, f"expected an assignment such as {example}")
        if not isinstance(target, ast.Name):
            raise self._fail(target, "expected a name on the left of =")
        name = target.id
        result = self._value(value)
        if isinstance(node, ast.AugAssign):
            operator = self._operator(node, node.op)
            before = self._tell(target, lambda: meaning.name(name))
            now = result
            result = self._tell(node, lambda: meaning.operate(operator, before, now))
        self._tell(target, lambda: meaning.assign(name, result))

    def _operator(self, node: ast.AST, operator: ast.operator) -> str:
        if type(operator) not in _OPERATORS:
            instead = _INSTEAD.get(type(operator), "")
            raise self._fail(node, f"expected one of {' '.join(_OPERATORS.values())}{instead}")
        return _OPERATORS[type(operator)]

    def _value(self, node: ast.expr) -> Any:
        meaning = self._meaning
        if isinstance(node, ast.Constant):
            value = node.value
            if not isinstance(value, (int, float)):
                raise self._fail(node, f"expected a number, got {value!r:.40}")
            try:
                number = float(value)
            except OverflowError:
                raise self._fail(node, "expected a number that a float holds") from None
            return meaning.literal(number)
        if isinstance(node, ast.Name):
            return self._tell(node, lambda: meaning.name(node.id))
        if isinstance(node, ast.BinOp):
            operator = self._operator(node, node.op)
            a, b = self._value(node.left), self._value(node.right)
            return self._tell(node, lambda: meaning.operate(operator, a, b))
        if isinstance(node, ast.UnaryOp):
            of = self._value(node.operand)
            if isinstance(node.op, ast.UAdd):
                return of
            if isinstance(node.op, ast.USub):
                return self._tell(node, lambda: meaning.operate("*", meaning.literal(-1), of))
            if isinstance(node.op, ast.Not):
                return self._tell(node, lambda: meaning.operate("<=", of, meaning.literal(0)))
            raise self._fail(node, "expected - or not before a value")
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.BoolOp):
            function = "min" if isinstance(node.op, ast.And) else "max"
            values = [self._value(each) for each in node.values]
            return self._tell(node, lambda: meaning.call(function, values, False))
        if isinstance(node, ast.IfExp):
            values = [self._value(each) for each in (node.test, node.body, node.orelse)]
            return self._tell(node, lambda: meaning.call("where", values, False))
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._fail(
            node,
            "expected arithmetic: names, numbers, + - * / **, comparisons, and the functions "
            + ", ".join(FUNCTIONS),
        )

    def _comparison(self, node: ast.Compare) -> Any:
        meaning, left, holds = self._meaning, self._value(node.left), None
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if type(operator) not in _COMPARISONS:
                raise self._fail(right, f"expected one of {' '.join(_COMPARISONS.values())}")
            value = self._value(right)
            compare = partial(meaning.operate, _COMPARISONS[type(operator)], left, value)
            this = self._tell(node, compare)
            both = partial(meaning.call, "min", [holds, this], False)
            holds = this if holds is None else self._tell(node, both)
            left = value
        return holds

    def _call(self, node: ast.Call) -> Any:
        function = node.func.id if isinstance(node.func, ast.Name) else ""
        if function not in FUNCTIONS:
            raise self._fail(node, f"expected one of the functions {', '.join(FUNCTIONS)}")
        least, most = FUNCTIONS[function]
        if node.keywords or not least <= len(node.args) <= most:
            number = str(least) if least == most else f"{least} to {most}"
            message = f"{function}: expected {number} argument{'s' if most > 1 else ''}"
            if function in ("min", "max") and len(node.args) == 1:
                message += f"; of the elements of one array there are {', '.join(REDUCTIONS)}"
            raise self._fail(node, message)
        arguments, over_all = list(node.args), False
        if function in REDUCTIONS and len(arguments) == 2:
            last = arguments.pop()
            over_all = isinstance(last, ast.Name) and last.id == OVER_ALL
            if not over_all:
                raise self._fail(last, f"{function}: expected the word {OVER_ALL}, or nothing")
        values = [self._value(each) for each in arguments]
        return self._tell(node, lambda: self._meaning.call(function, values, over_all))
