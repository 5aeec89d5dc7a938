"""Each rule as a function on bare arrays, for loops that keep their own state.

``kernel(param, grad, *state, step=t, learning_rate=..., <hyperparameters>)`` updates the parameter
and its state arrays in place, with the same digits as the class and the same checks, and returns
None. State arrays stand in the order of the rule's slots; one that a configuration does not use is
None, or left out at the end. `step` is the 1-based count of the update.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from instep import _core, _rules
from instep._hyperparameters import Count
from instep._optimizer import Optimizer

Kernel = Callable[..., None]


def _kernel(rule: str, cls: type[Optimizer]) -> Kernel:
    """Return the function of one rule, with the class's defaults."""
    slots, names = _core.rules()[rule]
    checks = cls._hyperparameters()
    paper = cls._conventions["paper"]
    defaults = {name: paper.get(name, checks[name].default) for name in names}
    count = Count()
    count.name = "step"

    @functools.lru_cache(maxsize=256, typed=True)
    def checked(step: int, learning_rate: float, *own: float) -> tuple[int, float, list[float]]:
        if callable(learning_rate):
            raise TypeError(f"learning_rate: expected a number, got {learning_rate!r}")
        return (
            count.check(step),
            checks["learning_rate"].check(learning_rate),
            [float(checks[name].check(value)) for name, value in zip(names, own, strict=True)],
        )

    def kernel(
        param: Any,
        grad: Any,
        *state: Any,
        step: int = 1,
        learning_rate: float = paper["learning_rate"],
        **own: float,
    ) -> None:
        if len(state) < len(slots):
            state += (None,) * (len(slots) - len(state))
        elif len(state) > len(slots):
            expected = ", ".join(name for name, _ in slots)
            raise TypeError(f"{rule}: expected the state arrays {expected}, got {len(state)}")
        if not own.keys() <= defaults.keys():
            unknown = ", ".join(sorted(own.keys() - defaults.keys()))
            raise TypeError(f"{rule}: expected keywords {', '.join(names)}; got {unknown}")
        numbers = checked(step, learning_rate, *(defaults | own).values())
        _core.update(rule, param, grad, state, *numbers)

    kernel.__name__ = kernel.__qualname__ = rule
    kernel.__doc__ = (
        f"Update a parameter and its state in place by the rule of `instep.{cls.__name__}`."
    )
    positional, keyword = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY
    kernel.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(inspect.Parameter(name, positional) for name in ("param", "grad")),
            *(
                inspect.Parameter(
                    f"{name}_state" if name in names else name,
                    positional,
                    default=None if optional else inspect.Parameter.empty,
                )
                for name, optional in slots
            ),
            *(
                inspect.Parameter(name, keyword, default=value)
                for name, value in {
                    "step": 1,
                    "learning_rate": paper["learning_rate"],
                    **defaults,
                }.items()
            ),
        ],
        return_annotation=None,
    )
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
