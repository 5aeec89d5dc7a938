"""Hyperparameters: attributes of optimizers that are checked when they are set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from instep import _core, _kinds
from instep._kinds import Kind

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform as dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """Stand in for what only type checkers need."""
        return lambda cls: cls


T = TypeVar("T")


class Hyperparameter(_core.Attribute, Generic[T]):
    """An attribute of an optimizer that is checked when it is set, and takes effect at once.

    Parameters
    ----------
    kind
        What it may be.
    default
        What leaving it out means: the paper's default, and that of conventions that do not say.
    """

    is_saved = True
    """Whether it is part of the state."""
    plain_type: ClassVar[str] = "float"
    """What a kernel takes for it, which asks no schedules."""

    def __init__(self, kind: Kind[T], *, default: Any = None) -> None:
        super().__init__(kind.limits)
        self.kind = kind
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, optimizer: None, owner: type) -> Hyperparameter[T]: ...
        @overload
        def __get__(self, optimizer: _core.Stepper, owner: type) -> T: ...
        def __get__(
            self, optimizer: _core.Stepper | None, owner: type
        ) -> Hyperparameter[T] | T: ...
        def __set__(self, optimizer: _core.Stepper, value: T | None) -> None: ...

    def check_answer(self, value: Any) -> T:
        """Return what a schedule has answered as its plain Python type; see `Kind.check`."""
        raise TypeError(f"{self.name}: expected a number, got a schedule")

    def check(self, value: Any) -> T:
        """Return the value as its plain Python type; see `Kind.check`."""
        return self.kind.check(self.name, value)


class Flag(Hyperparameter[bool]):
    """True or False."""

    plain_type = "bool"

    def __init__(self, *, default: bool | None = None) -> None:
        super().__init__(_kinds.Flag(), default=default)


class Number(Hyperparameter[float]):
    """A finite number within bounds; see `_kinds.Number`."""

    def __init__(
        self,
        *,
        default: float | None = None,
        at_least: float = -math.inf,
        above: float = -math.inf,
        at_most: float = math.inf,
        below: float = math.inf,
        or_infinite: bool = False,
    ) -> None:
        kind = _kinds.Number(
            at_least=at_least, above=above, at_most=at_most, below=below, or_infinite=or_infinite
        )
        super().__init__(kind, default=default)


class OptionalNumber(Hyperparameter["float | None"]):
    """A number within bounds, or None."""

    plain_type = "float | None"

    def __init__(
        self,
        *,
        default: float | None = None,
        at_least: float = -math.inf,
        above: float = -math.inf,
        below: float = math.inf,
    ) -> None:
        kind = _kinds.Number(at_least=at_least, above=above, below=below)
        super().__init__(_kinds.Optional(kind), default=default)


class Limit(OptionalNumber):
    """A positive number, or None for no limit."""

    def __init__(self, *, default: float | None = None) -> None:
        super().__init__(default=default, above=0)


class Count(Hyperparameter[int]):
    """A whole number, of at least 1 unless it is given."""

    plain_type = "int"

    def __init__(
        self, *, default: int | None = None, at_least: int = 1, at_most: int = _core.MOST_STEPS
    ) -> None:
        super().__init__(_kinds.WholeNumber(at_least=at_least, at_most=at_most), default=default)


class Frequency(Hyperparameter["int | None"]):
    """A whole number of at least 1, or None for never."""

    def __init__(self, *, default: int | None = None) -> None:
        super().__init__(_kinds.Optional(_kinds.WholeNumber(at_least=1)), default=default)


class Rate(Hyperparameter["float | _kinds.Schedule"]):
    """A learning rate: a number of at least 0, or a schedule."""

    def __init__(self, *, default: float | None = None) -> None:
        super().__init__(_kinds.Rate(), default=default)


class Scheduled(Hyperparameter["float | _kinds.Schedule"]):
    """A number within bounds, or a schedule: a callable from the update's index to such numbers."""

    kind: _kinds.Scheduled

    def __init__(
        self,
        *,
        default: float | None = None,
        at_least: float = -math.inf,
        at_most: float = math.inf,
        below: float = math.inf,
    ) -> None:
        number = _kinds.Number(at_least=at_least, at_most=at_most, below=below)
        super().__init__(_kinds.Scheduled(number), default=default)

    def check_answer(self, value: Any) -> float:
        """Return what a schedule has answered as a float; see `Kind.check`."""
        try:
            return self.kind.number.check(self.name, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} from its schedule") from None


class Choice(Hyperparameter["str | None"]):
    """One of some words, or None."""

    plain_type = "str | None"

    def __init__(self, words: tuple[str, ...], *, default: str | None = None) -> None:
        super().__init__(_kinds.Optional(_kinds.Choice(*words)), default=default)


class Word(Hyperparameter[str]):
    """One of some words."""

    def __init__(self, words: tuple[str, ...], *, default: str) -> None:
        super().__init__(_kinds.Choice(*words), default=default)


class Words(Hyperparameter["tuple[str, ...]"]):
    """Some of several words, which are no part of the state."""

    is_saved = False

    def __init__(self, words: tuple[str, ...], *, default: tuple[str, ...]) -> None:
        super().__init__(_kinds.Words(*words), default=default)

    if TYPE_CHECKING:

        def __set__(self, optimizer: _core.Stepper, value: Iterable[str] | None) -> None: ...


class Numbers(Hyperparameter["tuple[float, ...]"]):
    """So many finite numbers as the default has."""

    plain_type = "tuple[float, ...]"

    def __init__(self, *, default: tuple[float, ...]) -> None:
        super().__init__(_kinds.Numbers(len(default)), default=default)


def decay_rate(*, default: float | None = None) -> Number:
    """Return a hyperparameter such as beta_1: at least 0 and below 1."""
    return Number(default=default, at_least=0, below=1)


def non_negative(*, default: float | None = None) -> Number:
    """Return a hyperparameter of at least 0."""
    return Number(default=default, at_least=0)


def positive(*, default: float | None = None, or_infinite: bool = False) -> Number:
    """Return a hyperparameter above 0."""
    return Number(default=default, above=0, or_infinite=or_infinite)
