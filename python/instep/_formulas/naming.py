"""What names, starts and hyperparameters of one's own may be; for formulas and functions alike."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from instep._formulas.algebra import GRADIENT, PARAMETER, RATE, STEP
from instep._formulas.grammar import FUNCTIONS, OVER_ALL
from instep._hyperparameters import Flag, Hyperparameter, Scheduled
from instep._kinds import shown
from instep._optimizer import Optimizer

DECAY = "weight_decay"
_RESERVED = {PARAMETER, GRADIENT, RATE, STEP, OVER_ALL, *FUNCTIONS}
_ARGUMENTS = ("param", "grad", "out", "rows", "run", "zeros", "Rows")
# What stands beside slots in states and files, and what kernel functions call their arguments.
_TAKEN = {
    *("average", "accumulator_of_gradients", "group", "in_window", "begun", "frozen", "kept"),
    *("order", "rows_in_window", "parameter", "update", "remainder", "master"),
    *_ARGUMENTS,
    "self",
}
_RATES = ("beta", "rho", "momentum")
_SMALL = ("eps", "epsilon")


class OfStep:
    """A schedule from a function of the count of the update, which starts at 1."""

    def __init__(self, function: Callable[[int], float]) -> None:
        self.function = function

    def __call__(self, index: int) -> float:
        """Return its value for the 0-based index of an update; True and False count as 1 and 0."""
        value = self.function(index + 1)
        return float(value) if isinstance(value, (bool, np.bool_)) else value

    def __repr__(self) -> str:
        return f"OfStep({self.function!r})"


def check_identifier(what: str, name: Any) -> None:
    """Raise TypeError or ValueError for what can't be a name."""
    if not isinstance(name, str):
        raise TypeError(f"{what}: expected a name, got {shown(name)}")
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise ValueError(f"{what}: expected a name such as m or beta_1, got {name!r}")


def check_no_argument(what: str, name: str) -> None:
    """Raise ValueError for what functions on bare arrays call something else."""
    if name in _ARGUMENTS:
        raise ValueError(f"{what}: expected a name of its own, got {name!r}, which is taken")


def check_free(what: str, name: Any) -> None:
    """Raise ValueError for a name that means something else already."""
    check_identifier(what, name)
    if name.endswith("_scale"):
        raise ValueError(
            f"{what}: expected a name of its own, got {name!r}; those that end in _scale are 8-bit "
            "state's"
        )
    if name in _RESERVED | _TAKEN or hasattr(Optimizer, name):
        raise ValueError(f"{what}: expected a name of its own, got {name!r}, which is taken")


def names_in(what: str, given: Any) -> dict[str, Any]:
    """Return the names of state, and what is told of each; 0.0 where that is nothing."""
    if isinstance(given, str):
        given = [each for each in re.split(r"[\s,]+", given) if each]
    if isinstance(given, (list, tuple)):
        names = given
        for name in names:
            check_identifier(what, name)
        given = dict.fromkeys(names, 0.0)
        if len(given) != len(names):
            raise ValueError(f"{what}: expected each name once, got {names}")
    if not isinstance(given, Mapping):
        raise TypeError(
            f'{what}: expected names such as "m v", or a dict of what they start as, got '
            f"{type(given).__name__}"
        )
    for name in given:
        check_free(what, name)
    return dict(given)


def checked_start(
    what: str, name: str, start: Any, hyperparameters: Collection[str], *, is_array: bool
) -> float | str:
    """Return what state starts as."""
    if isinstance(start, str) and (start in hyperparameters or (is_array and start == PARAMETER)):
        return start
    is_number = isinstance(start, (int, float)) and not isinstance(start, bool)
    if not is_number or not math.isfinite(start):
        others = [*hyperparameters, *([f'"{PARAMETER}", the parameter'] if is_array else [])]
        raise ValueError(
            f"{what}: expected {name} to start as a finite number, or one of "
            f"{', '.join(others) or '(no hyperparameters)'}; got {shown(start)}"
        )
    return float(start)


def declared(given: Mapping[str, Any], others: Collection[str]) -> dict[str, Hyperparameter[Any]]:
    """Return hyperparameters from their defaults."""
    result: dict[str, Hyperparameter[Any]] = {}
    for name, default in given.items():
        if name != DECAY:
            check_free("hyperparameter", name)
        if name in others:
            raise ValueError(f"{name}: expected one meaning, got a hyperparameter and state")
        made = result[name] = _hyperparameter(name, default)
        made.name = name
        made.check(made.default)
    return result


def _hyperparameter(name: str, default: Any) -> Hyperparameter[Any]:
    if isinstance(default, bool):
        return Flag(default=default)
    least = greatest = None
    if isinstance(default, tuple):
        if len(default) != 3:
            raise ValueError(f"{name}: expected (default, least, greatest), got {shown(default)}")
        default, least, greatest = default
        for bound in (least, greatest):
            if isinstance(bound, bool) or not isinstance(bound, (int, float)):
                raise TypeError(f"{name}: expected bounds that are numbers, got {shown(bound)}")
    if not (isinstance(default, (int, float)) or callable(default)):
        raise TypeError(
            f"{name}: expected a number, a function of the step, True, False or (default, least, "
            f"greatest), got {shown(default)}"
        )
    is_number = not callable(default)
    start: Any = float(default) if is_number else OfStep(default)
    if least is not None and greatest is not None:
        return Scheduled(default=start, at_least=least, at_most=greatest)
    if name == DECAY or name.startswith(_SMALL):
        return Scheduled(default=start, at_least=0)
    if name.startswith(_RATES) and not (is_number and not 0 <= default < 1):
        return Scheduled(default=start, at_least=0, below=1)
    return Scheduled(default=start)


def entries(declared_ones: Mapping[str, Hyperparameter[Any]]) -> list[str]:
    """Return the lines that document hyperparameters."""
    lines = ["", "Parameters", "----------"] if declared_ones else []
    for name, each in declared_ones.items():
        is_flag, bounds = isinstance(each, Flag), ""
        if each.kind.limits:
            least, greatest = each.kind.limits
            if abs(greatest) < 1e300 and abs(least) < 1e300:
                bounds = f"From {least:.6g} to {greatest:.6g}; "
            elif abs(least) < 1e300:
                bounds = f"At least {least:.6g}; "
        default = each.default
        text = f"{default:g}" if isinstance(default, float) else "a schedule"
        lines += [
            f"{name} : {'bool' if is_flag else 'float or schedule'}, optional",
            f"    {bounds}{default if is_flag else text} by default.",
        ]
    return lines
