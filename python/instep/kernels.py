"""Each rule as a function on bare arrays, for loops that keep their own state.

``kernel(param, grad, *state, step=t, learning_rate=..., <hyperparameters>)`` updates the parameter
and its state arrays in place, with the same digits as the class and the same checks, and returns
None. State arrays stand in the order of the rule's slots; one that a configuration does not use is
None, or left out at the end. `step` is the 1-based count of the update.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from instep import _core, _rules
from instep._hyperparameters import Count
from instep._optimizer import CLIPPINGS, Optimizer

Kernel = Callable[..., None]

_SOURCE = '''
def {rule}(param, grad, {state_arguments} *, step=None, {arguments}):
    """Update a parameter and its state in place by the rule of `instep.{cls}`.

    Parameters
    ----------
    param : ndarray
        float32 or float64.
    grad : ndarray
        Of the same shape.
{state_documentation}    step : int
        The count of this update, from 1. Only where the rule needs it may it not be left out.
    {numbers} : float
        As in `instep.{cls}`.

    Raises
    ------
    TypeError, ValueError
        For what the class refuses. Nothing has changed then.
    """
    run(param, grad, {state} step, {values})
'''

_STATE_DOCUMENTATION = """\
    {state_names} : ndarray
        State of the parameter's shape and dtype, as the previous update left it; before the first
        one what `instep.{cls}` starts with. None where the configuration does not use it.
"""


def _kernel(rule: str, cls: type[Optimizer]) -> Kernel:
    """Return the function of one rule, with the class's defaults and checks."""
    slots, own = _core.rules[rule]
    names = ["learning_rate", *own]
    hyperparameters = cls._hyperparameters()
    paper = cls._conventions["paper"]
    count = Count()
    count.name = "step"

    def check(values: tuple[Any, ...], in_use: tuple[bool, ...]) -> tuple[float, list[float]]:
        """Return the learning rate and the other numbers, checked as by the class."""
        if callable(values[0]):
            raise TypeError(f"learning_rate: expected a number, got {values[0]!r}")
        given = dict(zip(names, values, strict=True))
        numbers = {name: hyperparameters[name].check(value) for name, value in given.items()}
        cls._check_together({**dict.fromkeys(CLIPPINGS), **numbers})
        for (slot, _), used in zip(slots, in_use, strict=True):
            switch = cls._optional_slots.get(slot)
            if not used and switch in numbers and numbers[switch]:
                raise TypeError(
                    f"{slot}: expected a state array for {switch}={numbers[switch]!r}, got None"
                )
        rate, *rest = (float(number) for number in numbers.values())
        return rate, rest

    remembered = functools.lru_cache(maxsize=64, typed=True)(check)

    def check_numbers(
        values: tuple[Any, ...], in_use: tuple[bool, ...]
    ) -> tuple[float, list[float]]:
        try:
            return remembered(values, in_use)
        except TypeError:  # not hashable, or not of a type that will do, which check says better
            return check(values, in_use)

    def check_step(step: Any, values: tuple[Any, ...]) -> int:
        if step is not None:
            return count.check(step)
        if cls._clock is True or (cls._clock and values[names.index(cls._clock)]):
            raise TypeError(f"step: {rule} needs it, the 1-based count of the update")
        return 1

    defaults = {name: paper.get(name, hyperparameters[name].default) for name in names}
    # A slot may have the name of a hyperparameter, such as momentum.
    states = {f"{name}_state" if name in own else name: optional for name, optional in slots}
    source = _SOURCE.format(
        rule=rule,
        cls=cls.__name__,
        state_arguments="".join(
            f"{name}{'=None' if opt else ''}, " for name, opt in states.items()
        ),
        state="".join(f"{name}, " for name in states),
        state_documentation=_STATE_DOCUMENTATION.format(
            state_names=", ".join(states), cls=cls.__name__
        )
        if states
        else "",
        arguments=", ".join(f"{name}={value!r}" for name, value in defaults.items()),
        numbers=", ".join(names),
        values="".join(f"{name}, " for name in names),
    )
    run = _core.Kernel(rule, check_numbers, check_step)
    namespace: dict[str, Any] = {"run": run, "__name__": __name__}
    exec(source, namespace)  # a real signature: help, completion, Python's own messages, speed
    kernel: Kernel = namespace[rule]
    return kernel


def _documenting_classes() -> dict[str, type[Optimizer]]:
    """Return for each rule the class that documents it: the first one of that rule."""
    found: dict[str, type[Optimizer]] = {}
    for each in vars(_rules).values():
        if isinstance(each, type) and issubclass(each, Optimizer) and each is not Optimizer:
            found.setdefault(each._rule, each)
    return found


__all__ = sorted(_documenting_classes())
globals().update({rule: _kernel(rule, cls) for rule, cls in _documenting_classes().items()})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Kernel: ...
