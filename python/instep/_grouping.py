"""Which hyperparameters each of the arrays has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from instep._group import Group, selected
from instep._rule import CLIPPING_OPTIONS, GROUP_OPTIONS, Values, Variant

if TYPE_CHECKING:
    from instep import _core


@dataclass(frozen=True)
class Grouping:
    """Groups of arrays.

    Attributes
    ----------
    overrides
        For each group the hyperparameters that it has of its own; the default group, first, has
        none.
    names
        Those of the groups that have one.
    group_of
        The group of each array.
    choosing
        The groups that choose their arrays, new ones among them.
    at_first
        The overrides that groups began with: what later arrays find theirs by.
    """

    overrides: list[Values]
    names: list[str | None]
    group_of: list[int]
    choosing: tuple[Group, ...]
    at_first: list[Values]

    @classmethod
    def of(
        cls,
        variant: Variant,
        tree: _core.Tree,
        choosing: tuple[Group, ...],
        before: Grouping | None = None,
        kept: Sequence[int | None] | None = None,
    ) -> Grouping:
        """Return the groups of a structure: those in it, and those that choose arrays themselves.

        Parameters
        ----------
        variant
            The rule.
        tree
            The structure.
        choosing
            The groups that choose; later ones win.
        before, kept
            Groups that stay, and for each array the one that it stays in, or None.
        """
        chosen = []
        for k, group in enumerate(choosing):
            what, some = f"groups[{k}]", before is None
            chosen.append(selected(group.params, tree.paths, tree.leaves, what, some=some))
        around: list[tuple[tuple[int, ...], tuple[Group, ...]]] = []
        for k, nested in enumerate(tree.groups):
            mine = tuple(index for index, meant in enumerate(chosen) if meant[k])
            around.append((mine, (*nested, *(choosing[index] for index in mine))))

        # Groups that choose come in the order in which they are listed, others as they are met.
        keys = [tuple(map(id, groups)) for _, groups in around]
        met: dict[tuple[int, ...], int] = {}
        for k, key in enumerate(keys):
            if not kept or kept[k] is None:
                met.setdefault(key, k)
        in_order = sorted(met, key=lambda key: (len(around[met[key]][0]), around[met[key]][0]))
        overrides = list(before.overrides) if before else [{}]
        names: list[str | None] = list(before.names) if before else [None]
        at_first = list(before.at_first) if before else [{}]
        known: dict[tuple[int, ...], int] = {(): 0}
        for key in in_order:
            if key in known:
                continue
            groups = around[met[key]][1]
            merged = _merged(variant, groups, f"group around {tree.paths[met[key]]}")
            name = next((group.name for group in reversed(groups) if group.name), None)
            alike = (
                k
                for k, each in enumerate(at_first)
                if before and k and (each, names[k]) == (merged, name)
            )
            known[key] = next(alike, len(overrides))
            if known[key] == len(overrides):
                overrides.append(merged)
                names.append(name)
                at_first.append(merged)
        group_of = []
        for k, key in enumerate(keys):
            stays_in = kept[k] if kept else None
            group_of.append(known[key] if stays_in is None else stays_in)
        return cls(overrides, names, group_of, choosing, at_first)

    def changed(self, group: int, override: Values) -> Grouping:
        """Return groups of which one has another override."""
        overrides = [*self.overrides[:group], override, *self.overrides[group + 1 :]]
        return replace(self, overrides=overrides)

    def divided(self, meant: Sequence[bool], by: Group) -> Grouping:
        """Return groups in which arrays that a group has chosen are in it as well."""
        own = by.options
        overrides, names, group_of = list(self.overrides), list(self.names), list(self.group_of)
        at_first, new = list(self.at_first), dict[int, int]()
        for k, is_meant in enumerate(meant):
            group = group_of[k]
            if not is_meant or own.items() <= self.overrides[group].items():
                continue
            if group not in new:
                new[group] = len(overrides)
                overrides.append({**self.overrides[group], **own})
                names.append(None)
                at_first.append({**self.at_first[group], **own})
            group_of[k] = new[group]
        return Grouping(overrides, names, group_of, (*self.choosing, by), at_first)


def _merged(variant: Variant, groups: Sequence[Group], what: str) -> Values:
    """Return what the groups around an array, outermost first, come to."""
    merged: Values = {}
    for group in groups:
        own = {}
        for name, value in group.options.items():
            try:
                checked = checked_option(variant, name, value)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{what}: {error}") from None
            if is_own(variant, name, checked):
                own[name] = checked
        merged = {**effective(merged, own), **own} if merged else own
    return merged


def options_of(variant: Variant) -> list[str]:
    """Return what a group may have of its own."""
    options = (*variant.rule._own(), *GROUP_OPTIONS)
    return [name for name in options if name not in variant.rule._joint]


def checked_option(variant: Variant, name: str, value: Any) -> Any:
    """Return what a group is to have of its own, checked; None means nothing, or no clipping."""
    allowed = options_of(variant)
    if name not in allowed:
        raise ValueError(f"expected options among {', '.join(allowed)}; got {name!r}")
    if value is None and not variant.takes_none(name):
        return None
    return variant.checked(name, value)


def is_own(variant: Variant, name: str, checked: Any) -> bool:
    """Return whether a group has that of its own, instead of nothing."""
    return checked is not None or name in CLIPPING_OPTIONS or variant.takes_none(name)


def effective(values: Values, override: Values) -> Values:
    """Return a group's hyperparameters."""
    return {**values, **in_its_place(override)}


def in_its_place(override: Values) -> Values:
    """Return what a group has in place of the default one's values.

    A clipping of its own replaces the other per-array one.
    """
    for own, other in (("clipnorm", "clipvalue"), ("clipvalue", "clipnorm")):
        if override.get(own) is not None and other not in override:
            return {**override, other: None}
    return override
