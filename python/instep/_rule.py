"""What a rule declares, and what a convention makes of it. Knows no arrays that are bound."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from instep import _core, _formats
from instep._conventions import CONVENTIONS, COUNTS_CALLS, GLOBAL_CLOCK, Convention
from instep._documentation import Documentation
from instep._hyperparameters import Hyperparameter
from instep._rows import MEANINGS

if TYPE_CHECKING:
    from instep._memory import Array, Scratch

T = TypeVar("T")
Values = dict[str, Any]
"""Hyperparameters by name."""

PARAMETER = "parameter"
"""What a slot starts as that starts as a copy of the parameter."""

GROUP_OPTIONS = ("learning_rate", *_core.group_options, *_formats.OPTIONS)
"""What a group may have of its own, besides the rule's hyperparameters."""
WATCHABLE = ("grad_norm", "update_norm", "param_norm", "nonfinite")
"""What can be watched, in the order of the engine's bits."""
CLIPPINGS = ("clipvalue", "clipnorm", "global_clipnorm")
CLIPPING_OPTIONS = tuple(name for name in GROUP_OPTIONS if name in CLIPPINGS)

FAMILIES = (
    "gradient descent",
    "with a rate for each element",
    "Adam",
    "with a norm for each array",
    "with numbers for rows and columns",
    "on whole matrices, in NumPy",
)

WHOLE_ARRAYS: _core.RuleInfo = {
    "slots": (),
    "divisible": None,
    "positive": (),
    "exact": (),
    "hyperparameters": (),
    "scalars": (),
    "elementwise": False,
}
"""What the engine knows of rules that see whole arrays."""
NEXT_RATE = "next_learning_rate"
"""The number of a kernel that is the learning rate of the next update."""


class Watched(Mapping[str, Any]):
    """Hyperparameters, and which of them somebody has looked at: what came of it hangs on those."""

    def __init__(self, plain: Values) -> None:
        self.plain = plain
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return self.plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def __len__(self) -> int:
        return len(self.plain)


def _of_class(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Call a function of a class once for each, and keep the result no longer than the class."""
    known = f"{function.__name__}_known"

    @functools.wraps(function)
    def of_class(cls: Any) -> T:
        if known not in vars(cls):
            setattr(cls, known, function(cls))
        result: T = vars(cls)[known]
        return result

    return of_class


class Rule:
    """What a rule's class declares, besides its hyperparameters and its documentation."""

    _kernel: ClassVar[str | _core.Formula] = "lend"
    """The name of its kernel, or its formula. Without one of its own it sees whole arrays: the
    engine lends it gradients for `_update`, and takes what becomes of them off the parameters."""
    _family: ClassVar[str] = FAMILIES[-1]
    """Among which of `FAMILIES` it is listed."""
    _optional_slots: ClassVar[Mapping[str, str]] = {}
    """Slots that exist where a hyperparameter is neither 0 nor False."""
    _initial_state: ClassVar[Mapping[str, str | float]] = {}
    """Slots that do not start at 0: a number, the name of a hyperparameter, or `PARAMETER`."""
    _joint: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters that all arrays have in common, so that groups can't have others."""
    _newer: ClassVar[frozenset[str]] = frozenset(
        {
            "learning_rate_factor",
            "independent_weight_decay",
            "first_step",
            "seed",
            "sparse",
            *_formats.OPTIONS,
        }
    )
    """Hyperparameters, and slots of numbers, that states of earlier releases lack; in those they
    have their defaults, and start at 0."""
    _own_shapes: ClassVar[Mapping[str, Callable[[tuple[int, ...]], Any] | None] | None] = None
    """Of rules whose `update` is a function of one's own, their state: a function from the
    parameter's shape to its shape, or None where it has that."""
    _convention: ClassVar[Convention | None] = None
    """Its only convention, where that is in no table."""
    _formula: ClassVar[str | None] = None
    """What it computes, where that is no built-in rule: states of another one are refused."""
    _clock: ClassVar[bool | str] = False
    """Whether the formula depends on the update's count, or the hyperparameter that makes it so."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__doc__:
            cls.__doc__ = Documentation(cls.__doc__)  # type: ignore[assignment]
        if "_kernel" in vars(cls):
            _check_names(cls)

    @classmethod
    @_of_class
    def _declared(cls) -> list[dict[str, Hyperparameter[Any]]]:
        """Return the hyperparameters that each base declares; last those that all rules have."""
        declared = (
            {name: value for name, value in vars(each).items() if isinstance(value, Hyperparameter)}
            for each in cls.__mro__
        )
        return [each for each in declared if each]

    @classmethod
    @_of_class
    def _hyperparameters(cls) -> dict[str, Hyperparameter[Any]]:
        """Return every hyperparameter by name, the learning rate and the rule's own ones first."""
        found: dict[str, Hyperparameter[Any]] = {}
        for declared in cls._declared():
            for name, each in declared.items():
                found.setdefault(name, each)
        return dict(sorted(found.items(), key=lambda item: item[0] != "learning_rate"))

    @classmethod
    @_of_class
    def _own(cls) -> list[str]:
        """Return the names of the rule's own hyperparameters: not of those that all rules have."""
        common = cls._declared()[-1]
        return [name for name in cls._hyperparameters() if name not in common]

    @classmethod
    def _info(cls) -> _core.RuleInfo:
        """Return what the engine knows of the rule: slots, hyperparameters and so on."""
        kernel = cls._kernel
        if isinstance(kernel, _core.Formula):
            return kernel.info
        return _core.rules.get(kernel, WHOLE_ARRAYS)

    @classmethod
    def _sees_whole_arrays(cls) -> bool:
        return isinstance(cls._kernel, str) and cls._kernel not in _core.rules

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        """Raise ValueError for values of the rule's own hyperparameters that exclude each other.

        Of those in `_optional_slots` only whether they are 0 may matter.
        """

    @classmethod
    def _derived(cls, values: Mapping[str, Any]) -> Values:
        """Return those hyperparameters that others decide on, such as defaults that do."""
        return {}

    @classmethod
    def _counts(cls, param: Array) -> bool:
        """Return whether the update of such an array depends on its count, whatever `_clock` is."""
        return False

    @classmethod
    def _parts(cls, shape: tuple[int, ...], numbers: Values) -> Mapping[str, tuple[int, ...]]:
        """Return the parts in which the kernel's divisible slot is kept, and which axes each has.

        A part is for all elements along the axes that it lacks. None: the slot is whole.
        """
        return {}

    @classmethod
    def _state_shapes(cls, param: Array, path: str, numbers: Values) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the state that a rule on whole arrays keeps for one of them.

        Raises
        ------
        ValueError
            If the rule is not for arrays such as this one.
        """
        if cls._own_shapes is None:
            return {}
        from instep import _functions

        return _functions.shapes(cls._own_shapes, param, path)

    @classmethod
    def _update(
        cls,
        g: Array,
        param: Array,
        state: Mapping[str, Array],
        numbers: Values,
        step: int,
        scratch: Scratch,
    ) -> dict[str, Array]:
        """Turn a gradient into what to take off the parameter, in place; return the new state.

        For rules on whole arrays. Where arrays have no dimension, they have one of length 1 here.
        In `scratch` the arrays of a step have their temporary ones after each other.
        """
        raise NotImplementedError


class Variant:
    """A rule as a convention has it: its defaults, checks and numbers.

    Parameters
    ----------
    rule
        The class that declares it.
    convention
        Whose formula and defaults it follows.

    Raises
    ------
    ValueError
        If the rule does not have that convention.
    """

    __slots__ = ("cell", "convention", "optimizer", "rule")

    def __init__(self, rule: type[Rule], convention: Any) -> None:
        known = conventions_of(rule)
        if not isinstance(convention, str) or convention not in known:
            raise ValueError(
                f"convention: expected one that {rule.__name__} has "
                f"({', '.join(map(repr, known))}), got {convention!r}"
            )
        self.rule, self.convention, self.cell = rule, convention, known[convention]
        self.optimizer: Callable[[], Any] = lambda: None
        """A weak reference to the optimizer, where updates are a function of it."""

    def update(
        self,
        g: Array,
        param: Array,
        state: Mapping[str, Array],
        numbers: Values,
        step: int,
        scratch: Scratch,
    ) -> dict[str, Array]:
        """Make the update of a rule on whole arrays; see `Rule._update`."""
        optimizer = self.optimizer()
        if optimizer is None:
            return self.rule._update(g, param, state, numbers, step, scratch)
        from instep import _functions

        return _functions.update(optimizer, g, param, state, numbers, step)

    @property
    def has_global_clock(self) -> bool:
        """Whether rules count every update, also those in which an array had no gradient."""
        return self.convention in GLOBAL_CLOCK

    @property
    def counts_calls(self) -> bool:
        """Whether schedules count and averages move at every call of an accumulation window."""
        return self.convention in COUNTS_CALLS

    def default(self, name: str) -> Any:
        """Return the value of a hyperparameter that is left out."""
        return self.cell.default(name, self.rule._hyperparameters()[name].default)

    def takes_none(self, name: str) -> bool:
        """Return whether None has a meaning for a hyperparameter, instead of its default."""
        return name in self.cell.none

    def checked(self, name: str, value: Any) -> Any:
        """Return a hyperparameter's value checked, or for None what that means, or its default."""
        if value is None and name in self.cell.none:
            return self.cell.none[name]
        return self.checked_or_default(name, value)

    def checked_or_default(self, name: str, value: Any = None) -> Any:
        """Return a hyperparameter's value checked, or its default where it is left out."""
        is_given = value is not None
        if not is_given:
            value = self.default(name)
            if value is None and name == "learning_rate":
                raise TypeError(
                    f"learning_rate: expected a number or a schedule; convention "
                    f"{self.convention!r} has no default for {self.rule.__name__}, so give "
                    "learning_rate="
                )
        checked = self.rule._hyperparameters()[name].check(value)
        if name == "weight_decay" and is_given and checked and self.cell.decay == "coupled":
            raise ValueError(
                f"weight_decay: expected l2={value!r} instead: the weight decay of "
                f"{self.convention}'s {self.cell.source} is coupled"
            )
        return checked

    def all_checked(self, given: Values) -> Values:
        """Return every hyperparameter, those given checked, others at their defaults."""
        return {
            name: self.checked(name, given[name])
            if name in given
            else self.checked_or_default(name)
            for name in self.rule._hyperparameters()
        }

    def counts(self, values: Values) -> bool:
        """Return whether the update depends on its count."""
        clock = self.rule._clock
        return self.cell.counts or bool(values[clock] if isinstance(clock, str) else clock)

    def initial_values(self) -> set[str]:
        """Return the hyperparameters that state starts from, and that matter no more after that."""
        names = {start for start in self.rule._initial_state.values() if isinstance(start, str)}
        names |= {start for start in self.cell.values.values() if isinstance(start, str)}
        return (names & self.rule._hyperparameters().keys()) - {"learning_rate"}

    @property
    def switches(self) -> set[str]:
        """Numbers of which it matters elsewhere whether they are 0: to slots, and to `checked`."""
        switches = {*self.rule._optional_slots.values()}
        return {*switches, "weight_decay"} if self.cell.decay == "coupled" else switches

    def slots_in_use(self, values: Values) -> list[str]:
        """Return the names of the slots that the kernel uses with these hyperparameters."""
        switches = self.rule._optional_slots
        return [
            name
            for name, optional in self.rule._info()["slots"]
            if not optional or values[switches[name]]
        ]

    def check_together(self, values: Values) -> set[str]:
        """Raise ValueError for values that exclude each other, under this convention.

        Returns those on whose very values that hangs, not just on whether they are None or 0.
        """
        clippings = [name for name in CLIPPINGS if values[name] is not None]
        if len(clippings) > 1:
            raise ValueError(f"{clippings[0]}: expected at most one clipping, got {clippings}")
        for name, value in values.items():
            is_refused = self.rule._sees_whole_arrays() and name not in _core.options
            if is_refused and callable(value) and name != "learning_rate":
                raise ValueError(
                    f"{name}: expected a number, got a schedule; {self.rule.__name__} works in "
                    "NumPy, and asks for the learning rate alone"
                )
        if values["independent_weight_decay"] and self.cell.decay != "decoupled":
            raise ValueError(
                "independent_weight_decay: expected False, for the weight decay of "
                f"{self.rule.__name__} under convention {self.convention!r} is "
                + ("part of its formula" if self.cell.decay == "inside" else "coupled: l2")
            )
        watched = Watched({**self.cell.values, **values})
        self.rule._check_together(watched)
        _formats.check(self.rule, self.slots_in_use(values), values)
        return watched.seen - self.switches

    def numbers(self, values: Values) -> Values:
        """Return hyperparameters and the formula's switches."""
        return {**self.cell.values, **values, **self.rule._derived(values)}

    def numbers_of_update(self, values: Values) -> Values:
        """Return what `Rule._update` is told besides the learning rate.

        That is not the engine's business, but for weight decay, which may be part of the formula.
        """
        of_engine = {*GROUP_OPTIONS, *_core.options} - {"weight_decay"}
        return {name: v for name, v in self.numbers(values).items() if name not in of_engine}

    def schedules(
        self, values: Values, group: int, names: Collection[str] | None = None
    ) -> list[_core.Asked]:
        """Return what the engine is to ask for before each update, besides the learning rate.

        Of a group, that is not what all have in common; else with these names.
        """
        known = self.rule._hyperparameters()
        return [
            {
                "group": group,
                "name": name,
                "schedule": value,
                "limits": known[name].kind.limits,
                "check": known[name].check_answer,
            }
            for name, value in values.items()
            if callable(value) and name != "learning_rate"
            if (name not in _core.options if names is None else name in names)
        ]

    def other_options(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return what the engine is told in place of options that all rules have."""
        meaning: dict[str, float] = {"sparse": MEANINGS.index(values["sparse"])}
        return {"weight_decay": 0.0, **meaning} if self.cell.decay == "inside" else meaning

    def other_numbers(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return what the kernel is told besides hyperparameters, or in their place."""
        names, known = self.rule._info()["hyperparameters"], self.rule._hyperparameters()
        others = {name: self.cell.values.get(name, False) for name in names if name not in known}
        if self.cell.decay != "inside":
            others["weight_decay"] = 0.0
        if NEXT_RATE in others:
            is_one_late = self.cell.values.get("is_one_late", False)
            rate = values["learning_rate"] if is_one_late else -1.0
            is_schedule = callable(rate)
            factor = values["learning_rate_factor"] if is_one_late and not is_schedule else 1.0
            others[NEXT_RATE] = _core.ASK_SCHEDULE if is_schedule else rate * factor
        return {**others, **self.rule._derived(values)}


def without_schedules(values: Values) -> Values:
    """Return hyperparameters with numbers in the place of schedules, but for the learning rate."""
    return {
        name: 0.0 if callable(value) and name != "learning_rate" else value
        for name, value in values.items()
    }


def conventions_of(rule: type[Rule]) -> Mapping[str, Convention]:
    """Return the conventions that a rule has; a rule that no table names has the paper's."""
    if rule._convention is not None:
        return {"paper": rule._convention}
    for each in rule.__mro__:
        if each.__name__ in CONVENTIONS:
            return CONVENTIONS[each.__name__]
    return {"paper": Convention(rule.__name__, "", {}, "decoupled")}


def _check_names(cls: type[Rule]) -> None:
    """Raise ImportError where a class and its kernel do not have the same names."""
    info, declared = cls._info(), cls._hyperparameters()
    optional = {name for name, is_optional in info["slots"] if is_optional}
    slots = {*(name for name, _ in info["slots"]), *info["scalars"]}
    switches = {name for each in conventions_of(cls).values() for name in each.values}
    for what, strange in {
        "_family": {cls._family} - {*FAMILIES},
        "_kernel": {cls._kernel} - _core.rules.keys() if isinstance(cls._kernel, str) else set(),
        "_optional_slots": optional ^ cls._optional_slots.keys(),
        "hyperparameters of _optional_slots": {*cls._optional_slots.values()} - declared.keys(),
        "_initial_state": cls._initial_state.keys() - slots,
        "_joint": {*cls._joint} - declared.keys(),
        "numbers of the kernel": {*info["hyperparameters"]}
        - declared.keys()
        - switches
        - {NEXT_RATE},
    }.items():
        if strange:
            raise ImportError(f"{cls.__name__}: {what}: {', '.join(sorted(strange))} unknown")
