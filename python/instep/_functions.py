"""Rules of one's own that are functions on whole arrays: classes with an `update`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from instep._formulas.algebra import PARAMETER
from instep._formulas.naming import checked_start, declared, names_in
from instep._hyperparameters import Rate
from instep._kinds import shown
from instep._rule import PARAMETER as COPY_OF_PARAMETER

if TYPE_CHECKING:
    from instep._memory import Array
    from instep._optimizer import Optimizer
    from instep._rule import Values

STATE = "state"
RULE = "instep._rule"
"""Where what all rules have is declared; elsewhere there are rules with updates of their own."""


def prepare(cls: type[Optimizer]) -> None:
    """Make what a class declares known to all that looks at rules.

    Raises
    ------
    TypeError, ValueError
        If a name or a default is none.
    """
    is_rule = any("_update" in vars(each) for each in cls.__mro__ if each.__module__ != RULE)
    if cls._kernel != "lend" or is_rule:
        raise TypeError(
            f"{cls.__name__}: expected a subclass of instep.Optimizer, or of one with an update of "
            f"its own; the updates of {cls.__mro__[1].__name__} can't be replaced"
        )
    own = vars(cls)
    names = names_in(STATE, own[STATE]) if STATE in own else {}
    if STATE in own:
        delattr(cls, STATE)  # what optimizers call so is their state itself
    defaults = {
        name: own[name]
        for name, annotation in inspect.get_annotations(cls).items()
        if name in own and name != STATE and not name.startswith("_")
        if "ClassVar" not in str(annotation)
    }
    if "learning_rate" in defaults:
        rate = Rate(default=defaults.pop("learning_rate"))
        rate.name = "learning_rate"
        rate.check(rate.default)
        cls.learning_rate = rate
    hyperparameters = declared(defaults, names)
    for name, each in hyperparameters.items():
        setattr(cls, name, each)
    starts = {
        name: checked_start(STATE, name, start, hyperparameters, is_array=True)
        for name, start in names.items()
        if not callable(start)
    }
    shapes_of = {name: start if callable(start) else None for name, start in names.items()}
    cls._own_shapes = {**(cls._own_shapes or {}), **shapes_of}
    inherited = {n: start for n, start in cls._initial_state.items() if n not in names}
    cls._initial_state = inherited | {
        name: COPY_OF_PARAMETER if start == PARAMETER else start
        for name, start in starts.items()
        if start != 0
    }
    cls._clock = True


def shapes(
    of_state: Mapping[str, Callable[[tuple[int, ...]], Any] | None], param: Array, path: str
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the state that such a class keeps for an array.

    Raises
    ------
    ValueError
        If a function of the class does not return a shape.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, shape_of in of_state.items():
        shape: Any = param.shape if shape_of is None else shape_of(param.shape or (1,))
        is_shape = isinstance(shape, tuple) and all(
            isinstance(n, (int, np.integer)) and n >= 0 for n in shape
        )
        if not is_shape:
            raise ValueError(
                f"{STATE}: expected the function of {name} to return a shape for {path}, of shape "
                f"{param.shape}; got {shown(shape)}"
            )
        found[name] = tuple(map(int, shape))
    return found


def update(
    optimizer: Optimizer,
    g: Array,
    param: Array,
    state: Mapping[str, Array],
    numbers: Values,
    step: int,
) -> dict[str, Array]:
    """Make an optimizer's `update` of a gradient, in its place; return the new state.

    Raises
    ------
    TypeError, ValueError
        If it returns something else than it should.
    """
    name = f"{type(optimizer).__name__}.update"
    seen, kept = param.view(), {key: array.copy() for key, array in state.items()}
    seen.flags.writeable = False
    of_engine = {"weight_decay"}
    own = {key: value for key, value in numbers.items() if key not in of_engine}
    method: Any = optimizer
    given = dict(kept)
    result = method.update(g, seen, kept, own, step)
    if result is None:
        raise TypeError(f"{name}: expected it to return what to take off p, got None")
    try:
        change = np.asarray(result)
    except ValueError as error:
        raise ValueError(f"{name}: expected it to return an array: {error}") from None
    if change.dtype.kind not in "fiub" or not _fits(change.shape, g.shape):
        raise ValueError(
            f"{name}: expected it to return real numbers of shape {g.shape}, got "
            f"{change.dtype} of shape {change.shape}"
        )
    if kept.keys() != state.keys():
        raise ValueError(
            f"{name}: expected the state {', '.join(state) or '(none)'}, got "
            f"{', '.join(map(str, kept)) or '(none)'}"
        )
    for key, array in state.items():
        new = np.asarray(kept[key])
        if new is not given[key]:
            new = kept[key] = np.array(new)  # it may be the gradient, which becomes the update
        if new.shape != array.shape or new.dtype.kind not in "fiub":
            raise ValueError(
                f"{name}: expected state[{key!r}] to stay an array of shape {array.shape}, got "
                f"{new.dtype} of shape {new.shape}"
            )
    if change is not g:
        g[...] = change
    return kept


def _fits(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Return whether an array of a shape can be broadcast to another."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
