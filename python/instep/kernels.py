"""Each rule as a function on bare arrays, for loops that keep their own state.

``kernel(param, grad, *state, step=t, learning_rate=..., <hyperparameters>)`` updates the parameter
and its state arrays in place, with the same digits as the class and the same checks, and returns
None. State arrays stand in the order of the rule's slots; one that a configuration does not use is
None, or left out at the end. `step` is the 1-based count of the update.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _array_rules, _core, _rules
from instep._kinds import WholeNumber
from instep._optimizer import Optimizer
from instep._rule import NEXT_RATE, Watched, conventions_of

if TYPE_CHECKING:
    from instep._memory import Array

Kernel = Callable[..., None]

_COUNT = WholeNumber(at_least=1)

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


_ARRAY_DOCUMENTATION = """Update a parameter and its state in place by the rule of `instep.{cls}`.

    Parameters
    ----------
    param : ndarray
        float32 or float64.
    grad : ndarray
        Of the same shape.
    *state : ndarray
        The state that `instep.{cls}` has for such an array, in its order, C-contiguous and of the
        parameter's dtype, as the previous update left it; zeros before the first one. None for one
        that the configuration does not use.
    step : int
        The count of this update, from 1. Only where the rule needs it may it not be left out.
    **hyperparameters
        As in `instep.{cls}`.

    Raises
    ------
    TypeError, ValueError
        For what the class refuses. Nothing has changed then.
    """


def _kernel(rule: str, cls: type[Optimizer]) -> Kernel:
    """Return the function of one rule, with the class's defaults and checks."""
    info = _core.rules[rule]
    slots, told, scalars = info["slots"], info["hyperparameters"], info["scalars"]
    hyperparameters = cls._hyperparameters()
    own = [name for name in told if name in hyperparameters]
    names = ["learning_rate", *own]
    paper = conventions_of(cls)["paper"].values
    switches = {*cls._optional_slots.values()}
    defaults = {name: each.default for name, each in hyperparameters.items()}

    def check(
        values: tuple[Any, ...], in_use: tuple[bool, ...]
    ) -> tuple[dict[str, float], set[str]]:
        """Return the learning rate and the kernel's other numbers, checked as by the class.

        And the names of those that something else hangs on.
        """
        if callable(values[0]):
            raise TypeError(f"learning_rate: expected a number, got {values[0]!r}")
        given = dict(zip(names, values, strict=True))
        numbers = {name: hyperparameters[name].check(value) for name, value in given.items()}
        watched = Watched({**defaults, **numbers})
        cls._check_together(watched)
        for (slot, _), used in zip(slots, in_use, strict=True):
            switch = cls._optional_slots.get(slot)
            if not used and switch in numbers and numbers[switch]:
                raise TypeError(
                    f"{slot}: expected a state array for {switch}={numbers[switch]!r}, got None"
                )
        absent = {**dict.fromkeys(told, False), NEXT_RATE: -1.0}
        resolved = {**absent, **paper, **numbers, **cls._derived(watched)}
        told_now = {name: float(resolved[name]) for name in ("learning_rate", *told)}
        return told_now, watched.seen - switches

    @functools.lru_cache(maxsize=64)
    def remembered(
        values: tuple[Any, ...], types: tuple[type, ...], in_use: tuple[bool, ...]
    ) -> tuple[dict[str, float], set[str]]:
        return check(values, in_use)

    def check_numbers(
        values: tuple[Any, ...], in_use: tuple[bool, ...]
    ) -> tuple[dict[str, float], set[str]]:
        try:
            return remembered(values, tuple(map(type, values)), in_use)
        except TypeError:  # not hashable, or not of a type that will do, which check says better
            return check(values, in_use)

    def check_step(step: Any, values: tuple[Any, ...]) -> int:
        if step is not None:
            return _COUNT.check("step", step)
        if cls._clock is True or (cls._clock and values[names.index(cls._clock)]):
            raise TypeError(f"step: {rule} needs it, the 1-based count of the update")
        return 1

    # A slot may have the name of a hyperparameter, such as momentum.
    states = {f"{name}_state" if name in own else name: optional for name, optional in slots}
    states.update(dict.fromkeys(scalars, False))
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
        arguments=", ".join(f"{name}={defaults[name]!r}" for name in names),
        numbers=", ".join(names),
        values="".join(f"{name}, " for name in names),
    )
    numbers = [(name, hyperparameters[name].kind.limits, name in switches) for name in names]
    run = _core.Kernel(rule, numbers, check_numbers, check_step)
    namespace: dict[str, Any] = {"run": run, "__name__": __name__}
    exec(source, namespace)  # a real signature: help, completion, Python's own messages, speed
    kernel: Kernel = namespace[rule]
    return kernel


def _array_kernel(rule: str, cls: type[Optimizer]) -> Kernel:
    """Return the function of a rule whose state depends on the shape of the array."""
    known = ["learning_rate", *cls._own()]
    if conventions_of(cls)["paper"].decay == "inside":
        known.append("weight_decay")

    def kernel(
        param: Array, grad: Array, *state: Array | None, step: Any = None, **hyperparameters: Any
    ) -> None:
        for name in hyperparameters:
            if name not in known:
                raise TypeError(f"{rule}() got an unexpected keyword argument {name!r}")
        for name, array in (("param", param), ("grad", grad)):
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
        rate = hyperparameters.get("learning_rate", cls.learning_rate.default)
        if rate is None or callable(rate):
            raise TypeError(f"learning_rate: expected a number, got {rate!r}")
        if step is None and cls._counts(param):
            raise TypeError(f"step: {rule} needs it, the 1-based count of the update")
        optimizer = cls(param, **hyperparameters)
        optimizer._resume(
            _named(state, optimizer.state), 1 if step is None else _COUNT.check("step", step)
        )
        optimizer.step(grad)

    kernel.__name__ = kernel.__qualname__ = rule
    kernel.__doc__ = _ARRAY_DOCUMENTATION.format(cls=cls.__name__)
    return kernel


def _named(given: Sequence[Array | None], like: dict[str, Any]) -> dict[str, Array]:
    """Return arrays of state by name. The rule says their shapes, the engine checks all else."""
    names = [name for name in like if name != "step"]
    arrays = [each for each in given if each is not None]
    if len(arrays) != len(names):
        raise TypeError(f"state: expected the arrays {', '.join(names)}, got {len(arrays)}")
    for name, array in zip(names, arrays, strict=True):
        shape = getattr(array, "shape", None)
        if shape is not None and shape != like[name].shape:
            raise ValueError(f"{name}: expected shape {like[name].shape}, got {shape}")
    return dict(zip(names, arrays, strict=True))


def _makers() -> dict[str, Callable[[], Kernel]]:
    """Return what makes each rule's function; the first class with a rule documents it."""
    made: dict[str, Callable[[], Kernel]] = {}
    for name in vars(_rules)["__all__"]:
        cls = getattr(_rules, name)
        maker = _array_kernel if cls._info()["divisible"] else _kernel
        made.setdefault(cls._kernel, functools.partial(maker, cls._kernel, cls))
    for name in vars(_array_rules)["__all__"]:
        cls = getattr(_array_rules, name)
        made[name.lower()] = functools.partial(_array_kernel, name.lower(), cls)
    return made


_MAKERS = _makers()
__all__ = sorted(_MAKERS)


def __getattr__(name: str) -> Kernel:
    """Make a function when it is asked for: all of them would take longer than all else here."""
    if name not in _MAKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    kernel = globals()[name] = _MAKERS[name]()
    return kernel


def __dir__() -> list[str]:
    return [*globals(), *__all__]
