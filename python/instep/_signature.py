"""The constructors of rules, as type checkers and `help` see them."""

from __future__ import annotations

from typing import Any

from instep import _core
from instep._hyperparameters import (
    Choice,
    Count,
    Flag,
    Frequency,
    Limit,
    Number,
    Numbers,
    OptionalNumber,
    Rate,
    Scheduled,
    Word,
    Words,
    dataclass_transform,
    decay_rate,
    non_negative,
    positive,
)


def argument(*, default: Any, kw_only: bool = True, init: bool = True) -> Any:
    """Declare, to type checkers, an attribute that is no hyperparameter."""


@dataclass_transform(
    kw_only_default=True,
    field_specifiers=(
        Choice,
        Count,
        Flag,
        Frequency,
        Limit,
        Number,
        Numbers,
        OptionalNumber,
        Rate,
        Scheduled,
        Word,
        Words,
        argument,
        decay_rate,
        non_negative,
        positive,
    ),
)
class Constructed(_core.Stepper):
    """Gives each rule a constructor that takes its hyperparameters by name."""


class Signature:
    """A class's signature with the paper's defaults, put together when it is asked for."""

    def __get__(self, optimizer: object, cls: Any) -> Any:
        import inspect

        defaults = {name: each.default for name, each in cls._hyperparameters().items()}
        by_name = {
            **defaults,
            "groups": (),
            "ignore": None,
            "convention": "paper",
            "copies": None,
        }
        return inspect.Signature(
            [
                inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
                *(
                    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
                    for name, default in by_name.items()
                ),
            ]
        )
