"""What stands around an optimizer, and passes on what it has no answer of its own for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, SupportsIndex

if TYPE_CHECKING:
    from instep._optimizer import Optimizer


class Around:
    """Base of classes with an optimizer inside, whose hyperparameters are theirs."""

    _inner: Optimizer
    _lacks: ClassVar[frozenset[str]]
    """What the optimizer inside has, but not this."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._lacks:
            raise AttributeError(
                f"{name}: a plain optimizer has it, instep's {type(self).__name__} has not"
            )
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._assign(name, value)

    def _assign(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __dir__(self) -> Iterable[str]:
        return sorted({*super().__dir__(), *dir(self._inner)} - self._lacks)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: expected to stay the only one of its kind, got a copy or a "
            "pickle to make; save(...) keeps what it has"
        )
