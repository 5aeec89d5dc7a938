"""Formulas in a file of Python, which is read and never run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

from instep._formulas.definition import FormulaOptimizer, rule

LARGEST = 1_000_000


class Found(NamedTuple):
    """A rule of a file, and the arguments that it is made with."""

    cls: type[FormulaOptimizer]
    arguments: dict[str, Any]


def rules_in(path: Path) -> list[Found]:
    """Return the rules that a file defines by ``rule("Name", formula=..., ...)``.

    Raises
    ------
    ValueError
        If it is no Python, has no such call, or one whose arguments are not written out.
    OSError
        If it can't be read.
    """
    text = path.read_bytes()
    if len(text) > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST:,} bytes, got {len(text):,}")
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"{path}: expected a file of Python, got {error}") from None
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _name_of(node.func) == "rule":
            found.append(_rule_of(path, node))
    if not found:
        raise ValueError(f'{path}: expected a call such as rule("Mine", formula="..."), got none')
    return found


def _name_of(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        is_ours = isinstance(function.value, ast.Name) and function.value.id == "instep"
        return function.attr if is_ours else None
    return function.id if isinstance(function, ast.Name) else None


def _rule_of(path: Path, call: ast.Call) -> Found:
    where = f"{path}, line {call.lineno}"
    try:
        names = [ast.literal_eval(each) for each in call.args]
        arguments = {
            str(each.arg): ast.literal_eval(each.value)
            for each in call.keywords
            if each.arg is not None
        }
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"{where}: expected arguments that are written out (text, numbers, True, tuples, dicts)"
            ", as nothing of a file is run; give functions of the step to the class instead"
        ) from None
    if len(names) != 1 or None in (each.arg for each in call.keywords):
        raise ValueError(f'{where}: expected rule("Name", formula="...", ...)')
    try:
        made: Any = rule(names[0], **arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    return Found(made, arguments)
