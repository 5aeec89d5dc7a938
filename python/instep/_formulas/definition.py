"""A rule from its formula: `instep.rule`."""

from __future__ import annotations

import ast
import inspect
import keyword
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from instep import _core
from instep._conventions import Convention
from instep._formulas.algebra import (
    GRADIENT,
    PARAMETER,
    RATE,
    STEP,
    Algebra,
    Names,
    positive_state,
)
from instep._formulas.grammar import FUNCTIONS, OVER_ALL, interpret
from instep._formulas.program import Program, compiled
from instep._hyperparameters import Flag, Hyperparameter, Rate, Scheduled
from instep._kinds import shown
from instep._optimizer import Optimizer
from instep._rule import PARAMETER as COPY_OF_PARAMETER

Definition = Mapping[str, Any]
"""The arguments of `rule`: the name, and those by name as `arguments`."""

_RESERVED = {PARAMETER, GRADIENT, RATE, STEP, OVER_ALL, *FUNCTIONS}
_DECAY = "weight_decay"
_RATES = ("beta", "rho", "momentum")
_SMALL = ("eps", "epsilon")


class FormulaOptimizer(Optimizer):
    """Base of the rules that `rule` makes; all of them work as the built-in ones do."""

    _definition: ClassVar[Definition]
    _program: ClassVar[Program]

    def __reduce_ex__(self, protocol: Any) -> Any:
        cls = type(self)
        if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls:
            return super().__reduce_ex__(protocol)
        return _blank, (dict(cls._definition),), self.__getstate__()


_classes: WeakValueDictionary[str, type[FormulaOptimizer]] = WeakValueDictionary()


def _blank(definition: Definition) -> FormulaOptimizer:
    """Return an optimizer that is about to be unpickled, where its class is in no module."""
    known = _classes.get(repr(definition))
    cls: Any = known or rule(definition["name"], **definition["arguments"])
    new: FormulaOptimizer = cls.__new__(cls)
    return new


class OfStep:
    """A schedule from a function of the count of the update, which starts at 1."""

    def __init__(self, function: Callable[[int], float]) -> None:
        self.function = function

    def __call__(self, index: int) -> float:
        """Return its value for the 0-based index of an update."""
        return self.function(index + 1)

    def __repr__(self) -> str:
        return f"OfStep({self.function!r})"


def rule(
    name: str,
    /,
    *,
    formula: str,
    state: str | Mapping[str, float | str] = "",
    numbers: str | Mapping[str, float | str] = "",
    learning_rate: float | Callable[[int], float] | None = None,
    doc: str = "",
    **hyperparameters: Any,
) -> type[Optimizer]:
    """Return a class for an update rule of one's own, which works as the built-in ones do.

    The formula is compiled to operations that the engine runs in its own vectors: with threads,
    groups, schedules, clipping, checkpoints, rows and formats as any rule, and with the same bits
    whatever the number of threads and the instruction set. Nothing of it is executed as Python.

    Parameters
    ----------
    name : str
        What the class is called.
    formula : str
        Assignments, in lines or separated by ``;``, that end in one to `p`. In them stand `p` (the
        parameter), `g` (the gradient), `lr` (the learning rate), `step` (the count of the update,
        from 1), what `state` and `numbers` name, hyperparameters, and names that were assigned
        before; ``+ - * /``, ``**`` with whole powers up to 16 or 0.5 on arrays and any power on
        numbers, comparisons (which are 1 or 0), ``and or not``, ``a if condition else b``; `sqrt`,
        `abs`, `sign`, `min`, `max`, ``where(condition, a, b)``; and `sum`, `mean`, `norm` (the
        2-norm) and `rms` of an array, or of all arrays that step: ``norm(g, all)``.
    state : str or mapping, optional
        The names of arrays that are kept for each parameter, such as ``"m v"``: four at most. They
        start at 0; a mapping says otherwise: a number, the name of a hyperparameter, or "p" for the
        parameter as it is at its first update.
    numbers : str or mapping, optional
        The names of numbers that are kept for each parameter, in double precision: three at most.
        Where all sums are over all arrays, they are the same for all.
    learning_rate : float or schedule, optional
        The default; without it the class asks for one.
    doc : str, optional
        What `help` tells of the rule, before its formula.
    **hyperparameters : float, bool, function or tuple
        Their names and defaults. A tuple is a default with the least and the greatest value; else
        what is called beta, rho or momentum (or begins so) lies in [0, 1), an epsilon is not
        negative, and others are finite. All but bools may be schedules. A function here is one of
        the count of the update, from 1. A `weight_decay` is then a term of the formula.

    Returns
    -------
    type
        A subclass of `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If the formula or a name is none; where in the formula, and what may stand there.

    Notes
    -----
    What hangs on numbers alone is computed once a step, in double precision, before it meets the
    elements of arrays; numbers that an array is multiplied with or divided by come together first:
    ``lr * m / (1 - beta**step)`` is one product. Averages ``b = beta*b + (1-beta)*x`` and sums
    ``b = beta*b + x`` are computed with the care that the built-in rules take of a beta near 1. All
    else is done in the order written, in the array's precision.

    Examples
    --------
    >>> QHM = instep.rule(
    ...     "QHM",
    ...     state="b",
    ...     formula="b = beta*b + (1-beta)*g; p -= lr*((1-nu)*g + nu*b)",
    ...     beta=0.999,
    ...     nu=0.7,
    ... )
    >>> opt = QHM(params, learning_rate=0.1)
    """
    definition = {"formula": formula, "state": state, "numbers": numbers, "doc": doc}
    definition |= {"learning_rate": learning_rate, **hyperparameters}
    _check_identifier("rule", name)
    starts = {"state": _starts("state", state), "numbers": _starts("numbers", numbers)}
    declared = _declared(hyperparameters, {*starts["state"], *starts["numbers"]})
    names = Names(
        list(starts["state"]),
        list(starts["numbers"]),
        {each: it.kind.limits or (0.0, 1.0) for each, it in declared.items()},
    )
    if is_decay := isinstance(formula, str) and bool(re.search(rf"\b{_DECAY}\b", formula)):
        names.hyperparameters = {**names.hyperparameters, _DECAY: (0.0, math.inf)}
    _check_starts(starts, declared)
    algebra = Algebra(names)
    interpret(formula, algebra)
    _check_use(algebra, declared)
    negative = {each for each, start in starts["state"].items() if not _is_never_negative(start, names)}
    program = compiled(algebra, positive_state(algebra, negative))
    if learning_rate is None and RATE not in algebra.used:
        learning_rate = 1.0
    initial = {
        each: COPY_OF_PARAMETER if start == PARAMETER else start
        for start_of in starts.values()
        for each, start in start_of.items()
        if start != 0
    }
    text = normalized(formula)
    namespace: dict[str, Any] = {
        "__doc__": _documented(name, doc, text, declared),
        "__module__": _module_of_caller(),
        "_kernel": program.encoded(name),
        "_program": program,
        "_formula": text,
        "_definition": {"name": name, "arguments": definition},
        "_convention": Convention(name, text, {}, "inside" if is_decay else "decoupled"),
        "_clock": STEP in algebra.used,
        "_initial_state": initial,
        "learning_rate": Rate(default=learning_rate),
        **declared,
    }
    cls: type[FormulaOptimizer] = type(name, (FormulaOptimizer,), namespace)
    cls._hyperparameters()["learning_rate"].check(1.0 if learning_rate is None else learning_rate)
    for each, it in declared.items():
        it.check(it.default)
    _classes[repr(cls._definition)] = cls
    return cls


def normalized(formula: str) -> str:
    """Return a formula without what does not matter: spaces, comments, parentheses."""
    return ast.unparse(ast.parse("\n".join(line.strip() for line in formula.splitlines())))


def _module_of_caller() -> str:
    name: str = sys._getframe(2).f_globals.get("__name__", __name__)
    return name


def _check_identifier(what: str, name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{what}: expected a name, got {shown(name)}")
    is_name = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
    if not is_name:
        raise ValueError(f"{what}: expected a name such as m or beta_1, got {name!r}")


# What stands beside slots in states and files, and what kernel functions call their arguments.
_TAKEN = {
    *("average", "accumulator_of_gradients", "group", "in_window", "begun", "frozen", "kept"),
    *("order", "rows_in_window", "parameter", "update", "remainder", "master"),
    *("param", "grad", "out", "rows", "run", "zeros", "Rows"),
}


def _check_free(what: str, name: str) -> None:
    """Raise ValueError for a name that means something else already."""
    _check_identifier(what, name)
    is_taken = name in _RESERVED | _TAKEN or name.endswith("_scale") or hasattr(Optimizer, name)
    if is_taken and name != _DECAY:
        raise ValueError(f"{what}: expected a name of its own, got {name!r}, which is taken")


def _starts(what: str, given: Any) -> dict[str, float | str]:
    """Return the names of state, and what each starts as."""
    if isinstance(given, str):
        names = [each for each in re.split(r"[\s,]+", given) if each]
        given = dict.fromkeys(names, 0.0)
        if len(given) != len(names):
            raise ValueError(f"{what}: expected each name once, got {names}")
    if not isinstance(given, Mapping):
        raise TypeError(
            f'{what}: expected names such as "m v", or a dict of what they start as, got '
            f"{type(given).__name__}"
        )
    starts: dict[str, float | str] = {}
    for name, start in given.items():
        _check_free(what, name)
        if name == _DECAY:
            raise ValueError(f"{what}: expected a name of its own, got {name!r}, which is taken")
        is_number = isinstance(start, (int, float)) and math.isfinite(start)
        if not (is_number or isinstance(start, str)) or (start == PARAMETER and what != "state"):
            raise ValueError(
                f"{what}: expected {name} to start as a finite number, the name of a "
                f'hyperparameter or (in state) "{PARAMETER}", got {shown(start)}'
            )
        starts[name] = start if isinstance(start, str) else float(start)
    return starts


def _declared(given: Mapping[str, Any], others: set[str]) -> dict[str, Hyperparameter[Any]]:
    """Return hyperparameters from their defaults."""
    declared: dict[str, Hyperparameter[Any]] = {}
    for name, default in given.items():
        _check_free("hyperparameter", name)
        if name in others:
            raise ValueError(f"{name}: expected one meaning, got a hyperparameter and state")
        declared[name] = _hyperparameter(name, default)
    return declared


def _hyperparameter(name: str, default: Any) -> Hyperparameter[Any]:
    if isinstance(default, bool):
        return Flag(default=default)
    if isinstance(default, tuple):
        if len(default) != 3:
            raise ValueError(f"{name}: expected (default, least, greatest), got {default!r}")
        default, least, greatest = default
        return Scheduled(default=_of_step(default), at_least=least, at_most=greatest)
    if not (isinstance(default, (int, float)) or callable(default)):
        raise TypeError(
            f"{name}: expected a number, a function of the step, True, False or (default, least, "
            f"greatest), got {shown(default)}"
        )
    default = _of_step(default)
    if name == _DECAY or name.startswith(_SMALL):
        return Scheduled(default=default, at_least=0)
    is_rate = name.startswith(_RATES) and (callable(default) or 0 <= default < 1)
    return Scheduled(default=default, at_least=0, below=1) if is_rate else Scheduled(default=default)


def _of_step(default: Any) -> Any:
    return OfStep(default) if callable(default) else default


def _check_starts(
    starts: Mapping[str, Mapping[str, float | str]], declared: Mapping[str, Hyperparameter[Any]]
) -> None:
    for what, each in starts.items():
        for name, start in each.items():
            if isinstance(start, str) and start != PARAMETER and start not in declared:
                raise ValueError(
                    f"{what}: expected {name} to start as a number, or one of the "
                    f"hyperparameters {', '.join(declared) or '(there are none)'}, got {start!r}"
                )


def _check_use(algebra: Algebra, declared: Mapping[str, Hyperparameter[Any]]) -> None:
    """Raise ValueError where a formula leaves out what it should be about."""
    names, becomes = algebra.names, algebra.becomes
    for name in (PARAMETER, *names.state, *names.numbers):
        if name not in becomes:
            raise ValueError(f"formula: expected an assignment to {name}, got none")
    for name in declared:
        if name not in algebra.used and name != _DECAY:
            raise ValueError(f"{name}: expected a hyperparameter of the formula, which lacks it")


def _is_never_negative(start: float | str, names: Names) -> bool:
    if isinstance(start, str):
        return start != PARAMETER and names.hyperparameters[start][0] >= 0
    return start >= 0


def _documented(
    name: str, doc: str, text: str, declared: Mapping[str, Hyperparameter[Any]]
) -> str:
    """Return the documentation of a class: what is told of it, its formula, its parameters."""
    doc = inspect.cleandoc(doc) or "a rule from a formula."
    lines = [doc if doc.startswith(f"{name}:") else f"{name}: {doc}", "", "::", ""]
    lines += [f"    {line}" for line in text.splitlines()]
    if declared:
        lines += ["", "Parameters", "----------"]
    for each, it in declared.items():
        kind = "bool" if isinstance(it, Flag) else "float or schedule"
        limits = it.kind.limits
        bounds = ""
        if limits:
            least, greatest = (f"{bound:.6g}" for bound in limits)
            if math.isfinite(limits[0]) and math.isfinite(limits[1]):
                bounds = f"From {least} to {greatest}; "
            elif math.isfinite(limits[0]):
                bounds = f"At least {least}; "
        shown_default = f"{it.default:g}" if isinstance(it.default, float | int) else "a schedule"
        if isinstance(it, Flag):
            shown_default = str(it.default)
        lines += [f"{each} : {kind}, optional", f"    {bounds}{shown_default} by default."]
    return "\n".join(lines) + "\n"
