"""An optimizer's groups as its users see them: live, by index and by name."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from instep._grouping import effective

if TYPE_CHECKING:
    from instep._optimizer import Optimizer


class GroupView(Mapping[str, Any]):
    """One of an optimizer's groups: its hyperparameters by name, and its arrays as `params`.

    Assigning to an item is checked as everywhere, all or nothing, and takes effect at once. None
    gives up what the group has of its own.

    Attributes
    ----------
    name
        The group's name, or None.
    current_learning_rate
        The learning rate of its next update, as a number.
    """

    __slots__ = ("_index", "_names", "_optimizer")

    def __init__(self, optimizer: Optimizer, index: int, names: Sequence[str]) -> None:
        self._optimizer = optimizer
        self._index = index
        self._names = names

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__slots__:
            raise AttributeError(
                f"{name}: expected an assignment to an item, groups[{self._index}][{name!r}] = ..."
            )
        super().__setattr__(name, value)

    def _values(self) -> dict[str, Any]:
        values, binding = self._optimizer._values, self._optimizer._binding
        if self._index and (binding is None or self._index >= len(binding.overrides)):
            raise RuntimeError("this group is none of the optimizer's any more; see its groups")
        return effective(values, binding.overrides[self._index]) if binding else values

    def __getitem__(self, name: str) -> Any:
        values = self._values()
        if name == "params":
            binding = self._optimizer._binding
            if binding is None:
                return []
            grouped = zip(binding.tree.objects, binding.group_of, strict=True)
            return [each for each, group in grouped if group == self._index]
        if name not in self._names:
            raise KeyError(name)
        return values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values()
        self._optimizer._assign_to_group(self._index, name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self._names))

    def __len__(self) -> int:
        return 1 + len(self._names)

    @property
    def name(self) -> str | None:
        """The group's name, or None."""
        binding = self._optimizer._binding
        return binding.grouping.names[self._index] if binding else None

    @property
    def current_learning_rate(self) -> float:
        """The learning rate of the group's next update, as a number."""
        values = self._values()
        return self._optimizer._rate_now(values)

    def __repr__(self) -> str:
        name = "" if self.name is None else f"{self.name!r}: "
        return f"<group {name}{dict(self)!r}>"


class Groups(Sequence[GroupView]):
    """An optimizer's groups, the default one first, by index and by name."""

    def __init__(self, optimizer: Optimizer, names: Sequence[str]) -> None:
        self._optimizer = optimizer
        binding = optimizer._binding
        count = 1 if binding is None else len(binding.overrides)
        self._groups = [GroupView(optimizer, k, names) for k in range(count)]

    @overload
    def __getitem__(self, index: SupportsIndex | str) -> GroupView: ...
    @overload
    def __getitem__(self, index: slice) -> list[GroupView]: ...
    def __getitem__(self, index: SupportsIndex | str | slice) -> GroupView | list[GroupView]:
        if isinstance(index, slice):
            return self._groups[index]
        if not isinstance(index, str):
            return self._groups[operator.index(index)]
        named = [group for group in self._groups if group.name == index]
        if len(named) != 1:
            names = sorted({group.name for group in self._groups if group.name is not None})
            raise KeyError(
                f"{index!r}: expected the name of one group, among {names}, got that of "
                f"{len(named)}"
            )
        return named[0]

    def __len__(self) -> int:
        return len(self._groups)

    def __repr__(self) -> str:
        return repr(self._groups)
