"""Each rule as a function on bare arrays, for loops that keep their own state.

``kernel(param, grad, *state, step=t, learning_rate=..., <hyperparameters>)`` updates the parameter
and its state arrays in place, with the same digits as the class and the same checks, and returns
None. State arrays stand in the order of the rule's slots; one that a configuration does not use is
None, or left out at the end. `step` is the 1-based count of the update.

All of them take `l2`, `weight_decay` and `convention`, which mean what they mean for the class, and
`out`: an array like `param`, to which the updated parameter goes instead. Parameters of 16 bits
have what rounding leaves out beside: a `remainder` or a `master`. Kernels that work element by
element take `rows`, too: the ids of those rows that the gradient is of.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _array_rules, _core, _rules, _slots
from instep._kinds import WholeNumber
from instep._optimizer import Optimizer, meant
from instep._rows import Rows
from instep._rule import Values, Variant, Watched

if TYPE_CHECKING:
    from instep._memory import Array

Kernel = Callable[..., None]

_COUNT = WholeNumber(at_least=1)
_OPTIONS = ("l2", "weight_decay")
"""What all kernels take besides a rule's own hyperparameters."""

# Arguments by name alone would cost a look-up each where they are left out; none is passed by
# position, as the one before them takes the first that is, and is refused.
_SOURCE = """
def {rule}(param, grad, {state_arguments} _=..., step=None, {arguments}, out=None, remainder=None,
        master=None{rows}):
{begun}    run(param, grad, {state} _, step, {values} out, remainder, master)
"""

_DOCUMENTATION = """Update a parameter and its state by the rule of `instep.{cls}`.

    Parameters
    ----------
    param : ndarray
        float32, float64, float16 or bfloat16.
    grad : ndarray
        Of the same shape.
{state}    step : int
        The count of this update, from 1. Only where the rule needs it may it not be left out.
{numbers}    convention : str
        Whose formula and defaults, as in `instep.{cls}`.
    out : ndarray
        Where the updated parameter goes, and `param` stays as it is: an array of its shape and
        dtype that shares no memory with the others; or `param` itself, as by default.
    remainder : ndarray
        Must be given for a bfloat16 `param`, and for no other: what rounding leaves out of it,
        uint16 of its shape, as the previous update left it; zeros before the first one. So
        parameters are those in float32.
    master : ndarray
        Must be given for a float16 `param`, and for no other: its numbers in float32, likewise; a
        copy before the first one.
{rows}
    Raises
    ------
    TypeError, ValueError
        For what the class refuses. Nothing has changed then.
    """

_ROWS = """\
    rows : array_like of int
        The ids of the rows, along the first axis, that `grad` is the gradient of; others stay as
        they are. Then `grad` has the shape ``rows.shape + param.shape[1:]``. See `instep.Rows`.
"""

_SLOTS = """\
    {names} : ndarray
        State of the parameter's shape and dtype, float32 for 16 bits, as the previous update left
        it; before the first one what `instep.{cls}` starts with. None where the configuration does
        not use it.
"""

_NUMBERS = """\
    {names} : {type}
        As in `instep.{cls}`. What is left out has the convention's default.
"""

_STATE = """\
    *state : ndarray
        The state that `instep.{cls}` has for such an array, in its order, C-contiguous and of the
        parameter's dtype, float32 for 16 bits, as the previous update left it; zeros before the
        first one. None for one that the configuration does not use.
"""


def _told(variant: Variant, given: Values) -> _core.Told:
    """Return what the engine is told of hyperparameters, checked as by the class."""
    rate = given.get("learning_rate", 0.0)
    if rate is None or callable(rate):
        raise TypeError(f"learning_rate: expected a number, got {rate!r}")
    for name, value in given.items():
        if callable(value):
            raise TypeError(f"{name}: expected a number, got a schedule")
    values = variant.all_checked(given)
    tied = variant.check_together(values)
    watched = Watched(values)
    in_place_of_numbers = variant.other_numbers(watched)
    return values, variant.other_options(values), in_place_of_numbers, tied | watched.seen


def _counted(step: Any, rule: str, is_needed: bool) -> int:
    """Return the count of an update."""
    if step is not None:
        return _COUNT.check("step", step)
    if is_needed:
        raise TypeError(f"step: {rule} needs it, the 1-based count of the update")
    return 1


def _kernel(rule: str, cls: type[Optimizer]) -> Kernel:
    """Return the function of one rule, with the class's defaults and checks."""
    info = cls._info()
    slots, scalars = info["slots"], info["scalars"]
    hyperparameters = cls._hyperparameters()
    own = [name for name in info["hyperparameters"] if name in cls._own()]
    names = ["learning_rate", *own, *_OPTIONS]

    def resolve(arguments: tuple[Any, ...]) -> tuple[Variant, _core.Told]:
        named = zip((*names, "convention"), arguments, strict=True)
        given = {name: value for name, value in named if value is not ...}
        variant = Variant(cls, given.pop("convention"))
        return variant, _told(variant, given)

    @functools.lru_cache(maxsize=64)
    def remembered(
        arguments: tuple[Any, ...], types: tuple[type, ...]
    ) -> tuple[Variant, _core.Told]:
        return resolve(arguments)

    def resolved(arguments: tuple[Any, ...]) -> tuple[Variant, _core.Told]:
        try:
            return remembered(arguments, tuple(map(type, arguments)))
        except TypeError:
            # Not hashable, or not of a type that will do, which this says better.
            return resolve(arguments)

    def check(arguments: tuple[Any, ...], in_use: tuple[bool, ...]) -> _core.Told:
        _, told = resolved(arguments)
        for (slot, _), used in zip(slots, in_use, strict=True):
            switch = cls._optional_slots.get(slot)
            if not used and switch and told[0][switch]:
                raise TypeError(
                    f"{slot}: expected a state array for {switch}={told[0][switch]!r}, got None"
                )
        return told

    def check_step(step: Any, arguments: tuple[Any, ...]) -> int:
        variant, told = resolved(arguments)
        return _counted(step, rule, variant.counts(told[0]))

    # A slot may have the name of a hyperparameter, such as momentum.
    states = {f"{name}_state" if name in own else name: optional for name, optional in slots}
    newer = [name for name in scalars if name in cls._newer]
    states.update((name, name in newer) for name in scalars)
    source = _SOURCE.format(
        rule=rule,
        state_arguments="".join(
            f"{name}{'=None' if optional else ''}, " for name, optional in states.items()
        ),
        arguments=", ".join([*(f"{name}=..." for name in names), 'convention="paper"']),
        values="".join(f"{name}, " for name in (*names, "convention")),
        begun="".join(f"    {name} = zeros(()) if {name} is None else {name}\n" for name in newer)
        + ("    if rows is not None: grad = Rows(rows, grad)\n" if info["elementwise"] else ""),
        rows=", rows=None" if info["elementwise"] else "",
        state="".join(f"{name}, " for name in states),
    )
    switches = {*cls._optional_slots.values(), "weight_decay"}
    arguments = [(name, hyperparameters[name].kind.limits, name in switches) for name in names]
    run = _core.Kernel(cls._kernel, [*arguments, ("convention", None, False)], check, check_step)
    namespace: dict[str, Any] = {
        "run": run,
        "zeros": np.zeros,
        "Rows": Rows,
        "__name__": __name__,
    }
    exec(source, namespace)  # Python's own messages of arrays, and speed
    kernel: Kernel = namespace[rule]
    documented = _SLOTS.format(names=", ".join(states), cls=cls.__name__) if states else ""
    return _documented(kernel, cls, names, documented)


def _array_kernel(rule: str, cls: type[Optimizer]) -> Kernel:
    """Return the function of a rule whose state depends on the shape of the array."""
    names = ["learning_rate", *cls._own(), *_OPTIONS]
    run = _update_in_numpy if cls._sees_whole_arrays() else _update_in_parts

    def kernel(
        param: Array,
        grad: Array,
        *state: Array | None,
        step: Any = None,
        convention: str = "paper",
        out: Array | None = None,
        remainder: Array | None = None,
        master: Array | None = None,
        **hyperparameters: Any,
    ) -> None:
        for name in hyperparameters:
            if name not in names:
                raise TypeError(
                    f"{rule}() got an unexpected keyword argument {name!r}{meant(name, names)}"
                )
        arrays = {"param": param, "grad": grad, "out": param if out is None else out}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
        variant = Variant(cls, convention)
        told = _told(variant, hyperparameters)
        is_needed = cls._counts(param) or variant.counts(told[0])
        count = _counted(step, rule, is_needed)
        slots = variant.slots_in_use(told[0])
        shapes = _slots.shapes(cls, param, "param", slots, variant.numbers(told[0]))
        by_name = _named(state, shapes)
        beside = {"remainder": remainder, "master": master}
        by_name.update((name, each) for name, each in beside.items() if each is not None)
        run(variant, param, grad, None if out is param else out, by_name, count, told)

    kernel.__name__ = kernel.__qualname__ = rule
    return _documented(kernel, cls, names, _STATE.format(cls=cls.__name__))


def _update_in_parts(
    variant: Variant,
    param: Array,
    grad: Array,
    out: Array | None,
    state: dict[str, Array],
    step: int,
    told: _core.Told,
) -> None:
    cls = variant.rule
    parts = dict(cls._parts(param.shape, variant.numbers(told[0])))
    _core.update(cls._kernel, param, grad, out, state, parts, step, told)


def _update_in_numpy(
    variant: Variant,
    param: Array,
    grad: Array,
    out: Array | None,
    state: dict[str, Array],
    step: int,
    told: _core.Told,
) -> None:
    to = param if out is None else out
    _core.kept_beside(to, out is None, state)
    cls: Any = variant.rule
    optimizer = cls(to, convention=variant.convention, **told[0])
    optimizer._resume(state, step)
    if out is None:
        optimizer.step(grad)
        return
    for name, array in (("param", param), ("grad", grad)):
        if np.shares_memory(out, array):
            raise ValueError(f"out shares memory with {name}")
    out[...] = optimizer.updated(param, grad)


def _documented(kernel: Any, cls: type[Optimizer], names: Sequence[str], state: str) -> Kernel:
    """Give a function its documentation, and a signature with the paper's defaults."""
    hyperparameters = cls._hyperparameters()
    by_type: dict[str, list[str]] = {}
    for name in names:
        by_type.setdefault(hyperparameters[name].plain_type, []).append(name)
    numbers = "".join(
        _NUMBERS.format(names=", ".join(those), type=type_.replace(" |", " or"), cls=cls.__name__)
        for type_, those in by_type.items()
    )
    signature = inspect.signature(kernel)
    rows = _ROWS if "rows" in signature.parameters else ""
    kernel.__doc__ = _DOCUMENTATION.format(
        cls=cls.__name__, state=state, numbers=numbers, rows=rows
    )
    defaults = {name: hyperparameters[name].default for name in names}
    known = signature.parameters.values()
    kinds = inspect.Parameter
    arguments = [
        each.replace(annotation=kinds.empty)
        for each in itertools.takewhile(lambda each: each.name not in ("_", "step"), known)
    ]
    arguments += [
        kinds(name, kinds.KEYWORD_ONLY, default=default)
        for name, default in {
            "step": None,
            **defaults,
            "convention": "paper",
            "out": None,
            "remainder": None,
            "master": None,
            **({"rows": None} if "rows" in signature.parameters else {}),
        }.items()
    ]
    kernel.__signature__ = inspect.Signature(arguments)
    documented: Kernel = kernel
    return documented


def _named(
    given: Sequence[Array | None], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Return arrays of state by name. The rule says their shapes, the engine checks all else."""
    arrays = [each for each in given if each is not None]
    if len(arrays) != len(shapes):
        raise TypeError(f"state: expected the arrays {', '.join(shapes)}, got {len(arrays)}")
    for (name, expected), array in zip(shapes.items(), arrays, strict=True):
        shape = getattr(array, "shape", None)
        if shape is not None and shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {shape}")
    return dict(zip(shapes, arrays, strict=True))


def _rules_by_name() -> dict[str, type[Optimizer]]:
    """Return all rules, called as their kernel is, and those that share one as their class."""
    named: dict[str, type[Optimizer]] = {}
    for module in (_rules, _array_rules):
        for name in vars(module)["__all__"]:
            cls = getattr(module, name)
            has_own = not cls._sees_whole_arrays() and cls._kernel not in named
            named[cls._kernel if has_own else name.lower()] = cls
    return named


_RULES = _rules_by_name()
__all__ = [*sorted(_RULES), "of"]


def of(rule: type[Optimizer]) -> Kernel:
    """Return the function of any rule, one's own among them.

    Parameters
    ----------
    rule : type
        A subclass of `instep.Optimizer`.

    Returns
    -------
    callable
        ``function(param, grad, *state, *numbers, step=t, learning_rate=..., <hyperparameters>)``.
        It takes longer to make than to call: keep it.

    Raises
    ------
    TypeError
        If it is no rule.
    """
    is_rule = isinstance(rule, type) and issubclass(rule, Optimizer) and rule is not Optimizer
    if not is_rule:
        raise TypeError(f"rule: expected a subclass of instep.Optimizer, got {rule!r:.80}")
    return _make(rule.__name__, rule)


def _make(name: str, cls: type[Optimizer]) -> Kernel:
    depends_on_shape = cls._sees_whole_arrays() or cls._info()["divisible"]
    return _array_kernel(name, cls) if depends_on_shape else _kernel(name, cls)


if TYPE_CHECKING:
    from instep._kernel_signatures import *  # noqa: F403
else:

    def __getattr__(name: str) -> Kernel:
        """Make a function when it is asked for: all of them take longer than all else here."""
        if name not in _RULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        kernel = globals()[name] = _make(name, _RULES[name])
        return kernel


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
