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
from instep._optimizer import Optimizer

Kernel = Callable[..., None]

_SOURCE = '''
def {rule}(param, grad, {state_arguments} *, step=1, {arguments}):
    """Update a parameter and its state in place by the rule of `instep.{cls}`."""
    update("{rule}", param, grad, ({state}), *checked(step, {numbers}))
'''


def _kernel(rule: str, cls: type[Optimizer]) -> Kernel:
    """Return the function of one rule, with the class's defaults and checks."""
    slots, own = _core.rules[rule]
    names = ["learning_rate", *own]
    hyperparameters = cls._hyperparameters()
    paper = cls._conventions["paper"]
    count = Count()
    count.name = "step"

    @functools.lru_cache(maxsize=256, typed=True)
    def checked(step: int, *values: float) -> tuple[int, float, list[float]]:
        if callable(values[0]):
            raise TypeError(f"learning_rate: expected a number, got {values[0]!r}")
        numbers = [
            float(hyperparameters[name].check(value))
            for name, value in zip(names, values, strict=True)
        ]
        return count.check(step), numbers[0], numbers[1:]

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
        arguments=", ".join(f"{name}={value!r}" for name, value in defaults.items()),
        numbers=", ".join(names),
    )
    namespace: dict[str, Any] = {"update": _core.update, "checked": checked, "__name__": __name__}
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
