"""The arrays that an optimizer is bound to, and their state."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core, _slots
from instep._group import Group
from instep._memory import Scratch, zeros_like
from instep._rule import CLIPPING_OPTIONS, GROUP_OPTIONS, Values, Variant, Watched

if TYPE_CHECKING:
    from instep._memory import Array

# Names in a parameter's state beside those of its slots.
AVERAGE = "average"
ACCUMULATOR = "accumulator_of_gradients"


class Binding:
    """Parameters, groups, state, and the engine's view of them.

    Parameters
    ----------
    variant
        The rule.
    tree
        The structure of arrays, with groups in it.
    values
        The hyperparameters in force.
    overrides
        For each group those that it has of its own; the default group, first, has none.
    group_of
        The group of each array.
    before
        A binding whose state goes on in this one, as far as the hyperparameters need it.
    orders
        The order in which to visit the axes of each array, where it is not that of its memory.
    state
        Arrays to keep the state in, by name for each array, instead of new ones.
    """

    def __init__(
        self,
        variant: Variant,
        tree: _core.Tree,
        values: Values,
        overrides: list[Values],
        group_of: list[int],
        before: Binding | None = None,
        orders: list[list[int]] | None = None,
        state: list[dict[str, Array]] | None = None,
    ) -> None:
        self.variant = variant
        self.group_of = group_of
        self._known = Known(tree)
        self._uses, self._tied = self._needs(variant, values, overrides)
        slots_of_groups, self.keeps_averages, accumulates, self._numbers = self._uses
        self.slots: list[dict[str, Array]] = []
        parts: list[Mapping[str, tuple[int, ...]]] = []
        self.averages: list[Array] = []
        self.accumulators: list[Array] = []
        for k, (param, path) in enumerate(zip(tree.leaves, tree.paths, strict=True)):
            numbers = variant.numbers(effective(values, overrides[group_of[k]]))
            shapes = _slots.shapes(variant.rule, param, path, slots_of_groups[group_of[k]], numbers)
            known = state[k] if state else before.slots[k] if before else {}
            places = len(shapes) + self.keeps_averages + accumulates
            slots: dict[str, Array] = {}
            for place, (name, shape) in enumerate(shapes.items(), 1):
                slots[name] = (
                    known[name]
                    if name in known
                    else _slots.make(variant, name, shape, param, numbers, (place, places))
                )
            self.slots.append(slots)
            parts.append(variant.rule._parts(param.shape, numbers))
            if self.keeps_averages:
                if before and before.averages:
                    average = before.averages[k]
                else:
                    average = zeros_like(param, len(shapes) + 1, places)
                    average[...] = param
                self.averages.append(average)
            if accumulates:
                if before and before.accumulators:
                    accumulator = before.accumulators[k]
                else:
                    accumulator = zeros_like(param, places, places)
                self.accumulators.append(accumulator)

        self._updates: list[Array] = []
        if variant.rule._sees_whole_arrays():
            self._updates = [np.zeros(p.shape, p.dtype) for p in tree.leaves]
        updates = [{"update": update} for update in self._updates] or [{} for _ in tree.leaves]
        copies = [
            (slots[name], k)
            for k, slots in enumerate(self.slots)
            for name in _slots.copied(variant.rule)
        ]
        copies += [(average, k) for k, average in enumerate(self.averages)]
        self.core: _core.Bound = _core.Bound(
            rule=variant.rule._kernel,
            tree=tree,
            state=[{**slots, **update} for slots, update in zip(self.slots, updates, strict=True)],
            parts=parts,
            averages=self.averages or None,
            accumulators=self.accumulators or None,
            copies=copies,
            counters=before.core.counters() if before else None,
            orders=before.core.orders() if before and before.tree is tree else orders,
        )
        self._configure(values, overrides)

    @classmethod
    def new(
        cls,
        variant: Variant,
        params: Any,
        values: Values,
        groups: tuple[list[Values], list[int]] | None = None,
        orders: list[list[int]] | None = None,
    ) -> Binding:
        """Return the first binding of an optimizer, in the structure's groups or in these."""
        tree = _core.Tree(params, Group)
        if not tree.leaves:
            raise ValueError(
                "params: expected at least one array, got none; without params the optimizer waits "
                "for build(params)"
            )
        overrides, group_of = groups or _groups_of(variant, tree)
        return cls(variant, tree, values, overrides, group_of, None, orders)

    @property
    def tree(self) -> _core.Tree:
        """The structure of arrays: another one once `Stepper._move` has taken one."""
        return self.core.tree

    def moved(self, params: Any, values: Values) -> Binding:
        """Return a binding of other arrays of the same structure, with this state."""
        tree = _core.Tree(params, Group)
        if not self.tree.same_structure(tree):
            raise ValueError(
                f"params: expected the structure that was bound, of {_listed(self.tree.paths)}; "
                f"got {_listed(tree.paths)}"
            )
        for path, old, new in zip(tree.paths, self.tree.leaves, tree.leaves, strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise ValueError(
                    f"{path}: expected a {old.dtype} array of shape {old.shape} as was bound, "
                    f"got a {new.dtype} array of shape {new.shape}"
                )
        overrides, group_of = self.overrides, self.group_of
        if any(tree.groups):
            overrides, group_of = _groups_of(self.variant, tree)
        return Binding(self.variant, tree, values, overrides, group_of, self)

    def configured(self, values: Values) -> Binding:
        """Return a binding of the same arrays and state under other hyperparameters."""
        uses, tied = self._needs(self.variant, values, self.overrides)
        if uses != self._uses:
            return self.restated(values, self.overrides)
        other = object.__new__(Binding)
        other.__dict__.update(self.__dict__)
        other._tied = tied
        other._configure(values, self.overrides)
        return other

    def restated(
        self, values: Values, overrides: list[Values], state: list[dict[str, Array]] | None = None
    ) -> Binding:
        """Return a binding of the same arrays under hyperparameters that may need other state."""
        return Binding(
            self.variant,
            self.tree,
            values,
            overrides,
            self.group_of,
            self,
            state=state,
        )

    def aligned(self, pairs: Sequence[tuple[Any, Any]]) -> Any:
        """Return the gradients of (gradient, variable) pairs in the structure of the parameters."""
        known = self._known_arrays()
        if known.is_list and len(pairs) == len(known.leaves):
            in_order = [
                grad
                for (grad, variable), leaf in zip(pairs, known.leaves, strict=True)
                if variable is leaf
            ]
            if len(in_order) == len(pairs):
                return in_order
        grads: list[Any] = [None] * len(known.leaves)
        named: set[int] = set()
        for position, (grad, variable) in enumerate(pairs):
            index = known.index_of(variable)
            if index is None:
                index = known.empty_like(variable, named)
            if index is None:
                raise ValueError(
                    f"grads_and_vars[{position}]: expected one of the "
                    f"{len(grads)} arrays that were bound, got another variable; "
                    "update arrays in place (w -= ..., w[...] = ...) or bind again with build"
                )
            if index in named:
                raise ValueError(
                    f"grads_and_vars[{position}]: expected each variable once, got "
                    f"{known.tree.paths[index]} again; sum its gradients"
                )
            named.add(index)
            grads[index] = grad
        return known.tree.unflatten(grads)

    def _known_arrays(self) -> Known:
        known, tree = self._known, self.core.tree
        if known.tree is not tree:  # others were moved in
            known = self._known = Known(tree)
        return known

    @staticmethod
    def _needs(
        variant: Variant, values: Values, overrides: Sequence[Values]
    ) -> tuple[tuple[list[list[str]], bool, bool, list[Values]], set[str]]:
        """Return what decides on state arrays, and hyperparameters that something else hangs on.

        The slots in use in each group, whether there are averages and accumulators; for rules whose
        state depends on the shape of arrays, all of their groups' numbers but for what the engine
        does with them.
        """
        groups = [effective(values, override) for override in overrides]
        tied = set().union(*(variant.check_together(group) for group in groups))
        numbers: list[Values] = []
        if variant.rule._sees_whole_arrays() or variant.rule._info()["divisible"]:
            numbers = [variant.numbers_of_update(group) for group in groups]
            tied |= numbers[0].keys()
        common = Watched(values)
        uses = (
            [_slots.in_use(variant.rule, group) for group in groups],
            common["use_ema"],
            common["gradient_accumulation_steps"] > 1,
            numbers,
        )
        return uses, tied | common.seen

    def _make_updates(
        self, stepping: Sequence[int], learning_rates: Sequence[float]
    ) -> list[tuple[Array, Array]]:
        """Turn gradients into updates; return state arrays and what they become."""
        changes = []
        scratch = Scratch()
        counters = self.core.counters()
        for k in stepping:
            if self.tree.leaves[k].size == 0:
                continue
            group = self.group_of[k]
            numbers = {**self._numbers[group], "learning_rate": learning_rates[group]}
            is_global = self.variant.has_global_clock
            step = (counters["iterations"] if is_global else counters["steps"][k]) + 1
            state = self.slots[k]
            # To NumPy before its second version, arrays of no dimension are numbers of no dtype.
            g, param = np.atleast_1d(self._updates[k], np.asarray(self.tree.leaves[k]))
            views = {name: np.atleast_1d(array) for name, array in state.items()}
            with np.errstate(all="ignore"):  # as in the engine
                new = self.variant.rule._update(g, param, views, numbers, step, scratch)
            changes += [
                (
                    state[name],
                    np.asarray(now, state[name].dtype, order="C").reshape(state[name].shape),
                )
                for name, now in new.items()
            ]
        return changes

    def _configure(self, values: Values, overrides: list[Values]) -> None:
        """Put together what the engine is told of the hyperparameters."""
        self.overrides = overrides
        variant = self.variant
        own = [in_its_place(each) for each in overrides]
        groups = [Watched({**values, **each}) for each in own]
        self.configuration: _core.Configuration = {
            "groups": [
                {
                    "values": group.plain,
                    "own": each,
                    "other_options": variant.other_options(),
                    "other_numbers": variant.other_numbers(group),
                }
                for group, each in zip(groups, own, strict=True)
            ],
            "group_of": self.group_of,
            "options": values,
            "tied": self._tied.union(*(group.seen for group in groups)),
            "switches": variant.switches,
            "global_clock": variant.has_global_clock,
            "every_call": variant.counts_calls,
            "update": self._make_updates if self._updates else None,
        }

    def arrays_of(self, k: int) -> dict[str, Array]:
        """Return all arrays of state that the k-th parameter has, by name."""
        arrays = dict(self.slots[k])
        if self.averages:
            arrays[AVERAGE] = self.averages[k]
        if self.accumulators:
            arrays[ACCUMULATOR] = self.accumulators[k]
        return arrays

    def index_of(self, array: Any) -> int | None:
        """Return which parameter an array is, by identity or memory; None if it is none."""
        return self._known_arrays().index_of(array)


class Known:
    """What finds a structure's arrays again, put together when it is needed.

    Parameters
    ----------
    tree
        The structure.
    """

    def __init__(self, tree: _core.Tree) -> None:
        self.tree = tree

    @functools.cached_property
    def leaves(self) -> list[Array]:
        """All arrays."""
        return self.tree.leaves

    @functools.cached_property
    def is_list(self) -> bool:
        """Whether the structure is a plain list of arrays, as `apply_gradients` makes it."""
        params, leaves = self.tree.params, self.leaves
        return (
            isinstance(params, list)
            and len(params) == len(leaves)
            and all(map(operator.is_, params, leaves))
        )

    @functools.cached_property
    def _by_identity(self) -> dict[int, int]:
        return {id(leaf): k for k, leaf in enumerate(self.leaves)}

    @functools.cached_property
    def _by_memory(self) -> dict[object, int]:
        return {_memory_of(leaf): k for k, leaf in enumerate(self.leaves) if leaf.size}

    def empty_like(self, array: Any, named: set[int]) -> int | None:
        """Return a parameter without elements for a view: memory does not tell them apart."""
        if not isinstance(array, np.ndarray) or array.size:
            return None
        for k, leaf in enumerate(self.leaves):
            if k not in named and (leaf.shape, leaf.dtype) == (array.shape, array.dtype):
                return k
        return None

    def index_of(self, array: Any) -> int | None:
        """Return which one an array is, by identity or memory; None if it is none."""
        index = self._by_identity.get(id(array))
        return self._by_memory.get(_memory_of(array)) if index is None else index


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


def _groups_of(variant: Variant, tree: _core.Tree) -> tuple[list[Values], list[int]]:
    """Return the overrides of each distinct nesting of groups, and which one each leaf is in."""
    options = (*variant.rule._own(), *GROUP_OPTIONS)
    allowed = [name for name in options if name not in variant.rule._joint]
    overrides: list[Values] = [{}]
    known: dict[tuple[int, ...], int] = {(): 0}
    group_of = []
    for path, around in zip(tree.paths, tree.groups, strict=True):
        key = tuple(map(id, around))
        if key not in known:
            merged: Values = {}
            for group in around:
                for name in group.options:
                    if name not in allowed:
                        raise ValueError(
                            f"group around {path}: expected options among {', '.join(allowed)}; "
                            f"got {name!r}"
                        )
                try:
                    own = {
                        name: variant.checked(name, value)
                        for name, value in group.options.items()
                        if value is not None or name in CLIPPING_OPTIONS
                    }
                except (TypeError, ValueError) as error:
                    raise type(error)(f"group around {path}: {error}") from None
                merged = {**effective(merged, own), **own} if merged else own
            known[key] = len(overrides)
            overrides.append(merged)
        group_of.append(known[key])
    return overrides, group_of


def _memory_of(array: Any) -> object:
    """Return what tells an array's memory and layout from any other's."""
    if not isinstance(array, np.ndarray):
        return None
    return (array.__array_interface__["data"], array.shape, array.strides, array.dtype)


def _listed(paths: Sequence[str]) -> str:
    """Return a few paths and the number of the rest."""
    shown = ", ".join(paths[:4])
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} more"
