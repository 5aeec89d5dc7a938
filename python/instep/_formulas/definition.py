"""A rule from its formula: `instep.rule`."""

from __future__ import annotations

import ast
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, cast
from weakref import WeakValueDictionary

from instep._conventions import Convention
from instep._formulas.algebra import PARAMETER, RATE, STEP, Algebra, Names, positive_state
from instep._formulas.grammar import interpret
from instep._formulas.naming import (
    DECAY,
    check_identifier,
    check_no_argument,
    checked_start,
    declared,
    entries,
    names_in,
)
from instep._formulas.program import Program, compiled
from instep._hyperparameters import Hyperparameter, Rate
from instep._optimizer import Optimizer
from instep._rule import PARAMETER as COPY_OF_PARAMETER

Definition = Mapping[str, Any]
"""The arguments of `rule`: the name, and those by name as `arguments`."""


class FormulaOptimizer(Optimizer):
    """Base of the rules that `rule` makes; all of them work as the built-in ones do."""

    _definition: ClassVar[Definition]
    _program: ClassVar[Program]

    def __reduce_ex__(self, protocol: Any) -> Any:
        cls = type(self)
        is_known = getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls
        if is_known or "_definition" not in vars(cls):
            return super().__reduce_ex__(protocol)
        return _blank, (dict(cls._definition),), self.__getstate__()


_classes: WeakValueDictionary[str, type[FormulaOptimizer]] = WeakValueDictionary()


def _blank(definition: Definition) -> FormulaOptimizer:
    """Return an optimizer that is about to be unpickled, where its class is in no module."""
    known = _classes.get(repr(definition))
    cls: Any = known or rule(definition["name"], **definition["arguments"])
    new: FormulaOptimizer = cls.__new__(cls)
    return new


def rule(
    name: str,
    /,
    *,
    formula: str,
    state: str | Sequence[str] | Mapping[str, float | str] = "",
    numbers: str | Sequence[str] | Mapping[str, float | str] = "",
    learning_rate: float | Callable[[int], float] | None = None,
    doc: str = "",
    **hyperparameters: Any,
) -> type[Any]:
    """Return a class for an update rule of one's own, which works as the built-in ones do.

    The formula is compiled to operations that the engine runs in its own vectors: with threads,
    groups, schedules, clipping, checkpoints, rows and formats as any rule, and with the same bits
    whatever the number of threads and the instruction set. Nothing of it is executed as Python.

    Parameters
    ----------
    name : str
        What the class is called.
    formula : str
        Assignments, in lines or separated by ``;``, one of which is to `p`. In them stand `p` (the
        parameter), `g` (the gradient), `lr` (the learning rate), `step` (the count of the update,
        from 1), what `state` and `numbers` name, hyperparameters, and names that were assigned
        before; ``+ - * / **`` (powers of arrays other than whole ones up to 16 and 0.5 are the C
        library's, and take long), comparisons (which are 1 or 0), ``and or not``, ``a if condition
        else b``; `sqrt`, `abs`, `sign`, `min`, `max`, ``where(condition, a, b)``; and `sum`,
        `mean`, `norm` (the 2-norm) and `rms` of an array, or of all arrays that step:
        ``norm(g, all)``.
    state : str, sequence of str or mapping, optional
        The names of arrays that are kept for each parameter, such as ``"m v"``: four at most. They
        start at 0; a mapping says otherwise: a number, the name of a hyperparameter, or "p" for the
        parameter as it is at its first update.
    numbers : str, sequence of str or mapping, optional
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
    definition: dict[str, Any] = {
        "formula": formula,
        "state": copy(state),
        "numbers": copy(numbers),
        "doc": doc,
    }
    definition |= {"learning_rate": learning_rate, **hyperparameters}
    check_identifier("rule", name)
    check_no_argument("rule", name)
    arrays, scalars = names_in("state", state), names_in("numbers", numbers)
    own = declared(hyperparameters, {*arrays, *scalars})
    arrays = {
        each: checked_start("state", each, start, own, is_array=True)
        for each, start in arrays.items()
    }
    scalars = {
        each: checked_start("numbers", each, start, own, is_array=False)
        for each, start in scalars.items()
    }
    if both := [each for each in arrays if each in scalars]:
        raise ValueError(f"numbers: expected names of their own, got {both[0]!r}, which is state")
    ranges = {each: it.kind.limits or (0.0, 1.0) for each, it in own.items()}
    ranges[DECAY] = (0.0, math.inf)
    algebra = Algebra(Names(list(arrays), list(scalars), ranges))
    interpret(formula, algebra)
    starting = {start for start in (*arrays.values(), *scalars.values()) if isinstance(start, str)}
    from_zero = [each for each, start in arrays.items() if start == 0]
    _check_use(algebra, {each: own[each] for each in own if each not in starting}, from_zero)
    negative = {
        each for each, start in arrays.items() if not _is_never_negative(start, algebra.names)
    }
    if not (is_decay := DECAY in algebra.used):
        del ranges[DECAY]
    copies = [each for each, start in arrays.items() if start == PARAMETER]
    program = compiled(algebra, positive_state(algebra, negative), copies)
    if learning_rate is None and RATE not in algebra.used:
        learning_rate = 1.0
    rate = Rate(default=cast("float | None", learning_rate))
    rate.name = "learning_rate"
    if learning_rate is not None:
        rate.check(learning_rate)
    starts = {**arrays, **scalars}
    text = normalized(formula)
    namespace: dict[str, Any] = {
        "__doc__": _documented(name, doc, text, own),
        "__module__": _module_of_caller(),
        "_kernel": program.encoded(name),
        "_program": program,
        "_formula": text,
        "_definition": {"name": name, "arguments": definition},
        "_convention": Convention(name, text, {}, "inside" if is_decay else "decoupled"),
        "_clock": STEP in algebra.used,
        "_joint": _joint(program, scalars.values(), own),
        "_initial_state": {
            each: COPY_OF_PARAMETER if start == PARAMETER else start
            for each, start in starts.items()
            if start != 0
        },
        "learning_rate": rate,
        **own,
    }
    cls: type[FormulaOptimizer] = type(name, (FormulaOptimizer,), namespace)
    _classes[repr(cls._definition)] = cls
    return cls


def normalized(formula: str) -> str:
    """Return a formula without what does not matter: spaces, comments, parentheses."""
    return ast.unparse(ast.parse("\n".join(line.strip() for line in formula.splitlines())))


def _module_of_caller() -> str:
    name: str = sys._getframe(2).f_globals.get("__name__", __name__)
    return name


def _check_use(
    algebra: Algebra, own: Mapping[str, Hyperparameter[Any]], from_zero: Sequence[str]
) -> None:
    """Raise ValueError where a formula leaves out what it should be about."""
    names, becomes = algebra.names, algebra.becomes
    for name in (PARAMETER, *from_zero, *names.numbers):
        if name not in becomes:
            raise ValueError(f"formula: expected an assignment to {name}, got none")
    for name in own:
        if name not in algebra.used and name != DECAY:
            raise ValueError(f"{name}: expected a hyperparameter of the formula, which lacks it")


def _is_never_negative(start: float | str, names: Names) -> bool:
    if isinstance(start, str):
        return start != PARAMETER and names.hyperparameters[start][0] >= 0
    return start >= 0


def _joint(
    program: Program, starts: Iterable[float | str], own: Mapping[str, Hyperparameter[Any]]
) -> tuple[str, ...]:
    """Return the hyperparameters that groups can't have of their own."""
    if not (shared := program.shared()):
        return ()
    rate = ["learning_rate", "learning_rate_factor"] if RATE in shared else []
    return (*rate, *(name for name in own if name in {*shared, *starts}))


def _documented(
    name: str, doc: str, text: str, declared_ones: Mapping[str, Hyperparameter[Any]]
) -> str:
    """Return the documentation of a class: what is told of it, its formula, its parameters."""
    doc = inspect.cleandoc(doc) or "a rule from a formula."
    lines = [doc if doc.startswith(f"{name}:") else f"{name}: {doc}", "", "::", ""]
    lines += [f"    {line}" for line in text.splitlines()]
    return "\n".join([*lines, *entries(declared_ones)]) + "\n"
