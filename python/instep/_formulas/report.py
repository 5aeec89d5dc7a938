"""What ``python -m instep rule FILE`` prints of a formula."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from instep import _core
from instep._formulas import header
from instep._formulas.algebra import PARAMETER
from instep._formulas.definition import FormulaOptimizer
from instep._formulas.evaluation import Training
from instep._formulas.file import Found
from instep._formulas.naming import DECAY
from instep._formulas.program import Code, Constant, Operand, Program

SIZES = (1_000, 1 << 16, 1 << 22)
_CHECKED_STEPS, _CHECKED_ELEMENTS = 5, 3_001
_RATE = 0.01
"""The learning rate where a rule has none of its own."""


def lines(found: Found, plot: Path | None = None) -> Iterator[str]:
    """Yield the report of a rule: its program, what it is checked against, its times, its C++."""
    cls = found.cls
    program = cls._program
    yield f"{cls.__name__}"
    yield from (f"    {line}" for line in str(cls._formula).splitlines())
    yield ""
    yield "Numbers of a step, in double precision"
    names: dict[int, str] = {}
    yield from (f"    {line}" for line in _numbers(program, names))
    if program.sums:
        yield "Before sums are known"
        yield from (f"    {line}" for line in _code(program, program.measure, names))
        for number, *factors in program.sums:
            a, b = (_shown(program.measure, each, names) for each in factors)
            where = " over all arrays" if number.arguments[2] else ""
            yield f"    {names[id(number)]} = sum({a} * {b}){where}"
    yield "Elements"
    yield from (f"    {line}" for line in _code(program, program.update, names))
    yield ""
    yield from _checks(found)
    yield ""
    yield from _times(found)
    if plot is not None:
        draw(found, plot)
        yield ""
        yield f"Paths on two functions: {plot}"
    yield ""
    try:
        text = header.header(cls.__name__, program)
    except ValueError as error:
        yield f"As a built-in rule: {error}"
        return
    yield f"As a built-in rule: cpp/rules/{header.kernel_name(cls.__name__)}.h"
    yield from text.splitlines()
    yield f"and in cpp/rules/table.h: {header.row(cls.__name__)}"


# Programs ---------------------------------------------------------------------------------------


def _numbers(program: Program, names: dict[int, str]) -> Iterator[str]:
    """Yield a line for each operation on numbers; tell what numbers are called."""
    count = 0
    for k, (number, *_) in enumerate(program.sums, 1):
        names[id(number)] = f"sum{k}"
    for each in program.numbers():
        if id(each) in names:
            continue
        if each.operation in ("literal", "input"):
            value = each.arguments[0]
            names[id(each)] = f"{value:g}" if each.operation == "literal" else value
            continue
        count += 1
        names[id(each)] = f"n{count}"
        arguments = ", ".join(names[id(argument)] for argument in each.arguments)
        yield f"n{count} = {each.operation}({arguments})"
    for name, number in zip(program.algebra.names.numbers, program.becomes, strict=True):
        yield f"{name} = {names[id(number)]}"


def _shown(code: Code, operand: Operand, names: dict[int, str]) -> str:
    if isinstance(operand, Constant):
        name = names[id(operand.number)]
        return name if operand.form == "number" else f"{operand.form} {name}"
    place = code.places[operand] if isinstance(operand, int) else operand
    return place if isinstance(place, str) else f"x{place}"


def _code(program: Program, code: Code, names: dict[int, str]) -> Iterator[str]:
    for each in code.instructions:
        operands = ", ".join(_shown(code, operand, names) for operand in each.operands)
        yield f"{_shown(code, each.result, names)} = {each.operation}({operands})"


# Checks and times -------------------------------------------------------------------------------


def _made(found: Found, params: Any) -> FormulaOptimizer:
    rate = found.arguments.get("learning_rate")
    is_term = DECAY in found.cls._program.algebra.names.hyperparameters
    decay = None if is_term else 0.0  # that is none of the formula's
    return found.cls(params, learning_rate=_RATE if rate is None else rate, weight_decay=decay)


def _checks(found: Found) -> Iterator[str]:
    random = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        param = random.standard_normal(_CHECKED_ELEMENTS).astype(dtype)
        optimizer = _made(found, param.copy())
        beside = Training(found.cls, param, optimizer.config, np.float64)
        for _ in range(_CHECKED_STEPS):
            g = random.standard_normal(param.shape).astype(dtype)
            optimizer.step(g)
            beside.step(g)
        wanted = beside.arrays[PARAMETER]
        scale = np.spacing(np.maximum(np.abs(wanted), 0.1).astype(dtype)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = float(np.max(np.abs(optimizer.params - wanted) / scale))
        yield (
            f"After {_CHECKED_STEPS} steps in {np.dtype(dtype).name}, {error:.1f} units in the "
            "last place from NumPy in float64"
        )


def _median_time(function: Callable[[], Any], seconds: float = 0.2) -> float:
    function()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 10_000):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _times(found: Found) -> Iterator[str]:
    yield f"{'elements':>10}  {'a step':>10}  {'in NumPy':>10}  {'bare memory traffic':>20}"
    random = np.random.default_rng(0)
    slots = found.cls._program.algebra.names.state
    for size in SIZES:
        param, g = (random.standard_normal(size).astype(np.float32) for _ in range(2))
        optimizer = _made(found, param)
        beside = Training(found.cls, param, optimizer.config, np.float32)
        streams = [param.copy(), *(np.zeros_like(param) for _ in slots)]
        times = (
            _median_time(lambda o=optimizer, x=g: o.step(x)),  # type: ignore[misc]
            _median_time(lambda o=beside, x=g: o.step(x)),  # type: ignore[misc]
            _median_time(lambda x=g, s=streams: _core.touch([x], [s], 1, 512)),  # type: ignore[misc]
        )
        step, in_numpy, limit = (f"{1e6 * each:,.1f} us" for each in times)
        yield f"{size:>10,}  {step:>10}  {in_numpy:>10}  {limit:>20}"


# Paths ------------------------------------------------------------------------------------------


def _valley(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return Rosenbrock's valley and its gradient."""
    bend = y - x * x
    return (1 - x) ** 2 + 100 * bend**2, -2 * (1 - x) - 400 * x * bend, 200 * bend


def _bowl(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return a long bowl and its gradient."""
    return x * x / 2 + 20 * y * y, x, 40 * y


def draw(found: Found, path: Path, steps: int = 300) -> None:
    """Write a picture of a rule's paths on two functions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(f"{found.cls.__name__}: {steps} steps")
    landscapes = (
        ("Rosenbrock's valley", _valley, (-1.6, 1.0), (-2, 2), (-1, 3)),
        ("a long bowl", _bowl, (-2.5, 0.8), (-3, 3), (-1.2, 1.2)),
    )
    axes = figure.subplots(1, len(landscapes))
    for ax, (title, function, start, xs, ys) in zip(axes, landscapes, strict=True):
        x, y = np.meshgrid(np.linspace(*xs, 200), np.linspace(*ys, 200))
        ax.contour(x, y, np.log1p(function(x, y)[0]), 16, colors="0.8", linewidths=0.8)
        for factor, color in ((0.1, "#56b4e9"), (1, "#0072b2"), (10, "#d55e00")):
            point = np.array(start)
            optimizer = _made(found, point)
            optimizer.learning_rate *= factor  # type: ignore[operator]
            walked = [point.copy()]
            for _ in range(steps):
                optimizer.step(np.array(function(*point)[1:]))
                if not all(math.isfinite(each) and abs(each) < 1e3 for each in point):
                    break
                walked.append(point.copy())
            label = f"learning_rate={optimizer.learning_rate:.3g}"
            ax.plot(*np.transpose(walked), color=color, marker=".", markersize=3, label=label)
        ax.plot(*start, "k+", markersize=10)
        ax.set(title=title, xlim=xs, ylim=ys, xlabel="x", ylabel="y")
        ax.legend(loc="lower right")
    figure.savefig(path)
