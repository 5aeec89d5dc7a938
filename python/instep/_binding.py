"""The arrays that an optimizer is bound to, and their state."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core, _formats, _slots
from instep._group import Group, Where, ignoring
from instep._grouping import Grouping, effective, in_its_place
from instep._memory import Scratch, zeros_like
from instep._rule import WATCHABLE, Values, Variant, Watched, without_schedules

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
    grouping
        The groups.
    before
        A binding whose state goes on in this one, as far as the hyperparameters need it.
    origins
        For each array which one of that binding it is, or takes the place of; None for a new one.
        By default they are the same ones.
    by_identity
        Whether `apply_gradients` has bound the arrays, so that their places mean nothing.
    copied
        The format of rounded copies of the parameters, or None.
    orders
        The order in which to visit the axes of each array, where it is not that of its memory.
    state
        Arrays to keep the state in, by name for each array, instead of new ones.
    sharing
        What is shared with others, who have other parts of the arrays, or bring them to memory.
    rounded
        Arrays for the rounded copies, instead of new ones.
    """

    def __init__(
        self,
        variant: Variant,
        tree: _core.Tree,
        values: Values,
        grouping: Grouping,
        before: Binding | None = None,
        *,
        origins: Sequence[int | None] | None = None,
        by_identity: bool = False,
        copied: str | None = None,
        orders: list[list[int]] | None = None,
        state: list[dict[str, Array]] | None = None,
        sharing: _core.Sharing | None = None,
        rounded: list[Array] | None = None,
    ) -> None:
        self.variant = variant
        self.sharing: _core.Sharing | None = before.sharing if before else sharing
        self.copied: str | None = before.copied if before else copied
        self.by_identity: bool = before.by_identity if before else by_identity
        self._known = Known(tree)
        self._uses, self._tied = self._needs(variant, values, grouping.overrides)
        slots_of_groups, self.keeps_averages, accumulates, self._numbers, _ = self._uses
        overrides, group_of = grouping.overrides, grouping.group_of
        origins = range(len(tree.leaves)) if origins is None else origins
        counters = before._counters_of(origins) if before else None
        self.slots: list[dict[str, Array]] = []
        # State that hyperparameters have put out of use, and may put in use again.
        self.asleep: list[dict[str, Array]] = []
        parts: list[Mapping[str, tuple[int, ...]]] = []
        self.kept: list[_formats.Kept] = []
        self.averages: list[Array] = []
        self.accumulators: list[Array] = []
        self.copies: list[Array] = []
        for k, (param, path) in enumerate(zip(tree.leaves, tree.paths, strict=True)):
            numbers = variant.numbers(effective(values, overrides[group_of[k]]))
            shapes = _slots.shapes(variant.rule, param, path, slots_of_groups[group_of[k]], numbers)
            kept = _slots.kept(variant.rule, param, numbers)
            beside = _formats.beside(kept, param.shape, shapes)
            shapes |= {name: its for name, (its, _) in beside.items()}
            origin = origins[k]
            old = before if origin is not None else None
            known: dict[str, Array] = {}
            if old and origin is not None:
                known = old.all_slots(origin)
                _formats.check_same(path, known.keys() & shapes.keys(), old.kept[origin], kept)
            grown: dict[str, Array] = {}
            old_shape = param.shape if not old or origin is None else old.tree.leaves[origin].shape
            has_grown = old_shape != param.shape
            if has_grown:
                grown, known, old = known, {}, None
            if state:
                known = state[k]
            places = len(shapes) + self.keeps_averages + accumulates
            slots: dict[str, Array] = {}
            for place, (name, shape) in enumerate(shapes.items(), 1):
                slots[name] = (
                    known[name]
                    if name in known
                    else _slots.make(variant, name, shape, param, numbers, kept, (place, places))
                )
            new = {name: slot for name, slot in slots.items() if name not in known}
            firsts = _slots.encoded_first_values(variant, new, param, numbers, kept)
            for name, first in firsts.items():
                slots[name][...] = first
            for name in grown.keys() & slots.keys():
                if slots[name].shape[1:] != grown[name].shape[1:]:
                    raise ValueError(
                        f"{path}: expected an array of the bound one's shape {old_shape}, for its "
                        f"state {name!r} of shape {grown[name].shape} has no rows to add to; got "
                        f"one of shape {param.shape}"
                    )
                _write_rows(slots[name], grown[name])
            for name in grown.keys() - slots.keys():
                shape, dtype = _formats.form_of(name, param, kept)
                is_whole = shape == param.shape
                longer = zeros_like(param, dtype, 1, 1) if is_whole else np.zeros(shape, dtype)
                _write_rows(longer, grown[name])
                known[name] = longer
            self.slots.append(slots)
            self.kept.append(kept)
            begun = counters is not None and counters["begun"][k]
            optional = variant.rule._optional_slots.keys()
            self.asleep.append(
                {
                    name: array
                    for name, array in known.items()
                    if begun and name not in slots and _formats.slot_of(name) in optional
                }
            )
            if counters is not None and optional & (slots.keys() - known.keys() - grown.keys()):
                counters["begun"][k] = False
            parts.append(variant.rule._parts(param.shape, numbers))
            computed = _formats.computed(param.dtype)
            if self.keeps_averages:
                if AVERAGE in known:
                    average = known[AVERAGE]
                elif old and old.averages and origin is not None:
                    average = old.averages[origin]
                else:
                    average = zeros_like(param, computed, len(shapes) + 1, places)
                    # Of a parameter of fewer bits, the number that it stands for.
                    is_short = before is not None and before.tree is tree and param.itemsize == 2
                    average[...] = before.core.values(k) if before and is_short else param
                if has_grown and before and before.averages and origin is not None:
                    _write_rows(average, before.averages[origin])
                self.averages.append(average)
            if accumulates:
                if ACCUMULATOR in known:
                    accumulator = known[ACCUMULATOR]
                elif old and old.accumulators and origin is not None:
                    accumulator = old.accumulators[origin]
                else:
                    accumulator = zeros_like(param, computed, places, places)
                if has_grown and before and before.accumulators and origin is not None:
                    _write_rows(accumulator, before.accumulators[origin])
                self.accumulators.append(accumulator)
            if self.copied:
                self.copies.append(
                    rounded[k]
                    if rounded
                    else old.copies[origin]
                    if old and old.copies and origin is not None
                    else _formats.copy_of(param, path, self.copied)
                )

        self._updates: list[Array] = []
        if variant.rule._sees_whole_arrays():
            self._updates = [np.zeros(p.shape, _formats.computed(p.dtype)) for p in tree.leaves]
        updates = [{"update": update} for update in self._updates] or [{} for _ in tree.leaves]
        pairs = [
            (slots[name], k, True)
            for k, slots in enumerate(self.slots)
            for name in _slots.copied(variant.rule)
        ]
        pairs += [(average, k, False) for k, average in enumerate(self.averages)]
        if state:  # what is given is what it is
            pairs = [pair for pair in pairs if not state[pair[1]]]
        self.core: _core.Bound = _core.Bound(
            rule=variant.rule._kernel,
            tree=tree,
            state=[{**slots, **update} for slots, update in zip(self.slots, updates, strict=True)],
            parts=parts,
            kept=self.kept,
            averages=self.averages or None,
            accumulators=self.accumulators or None,
            rounded=self.copies or None,
            copies=pairs,
            counters=counters,
            orders=orders or (before._orders_of(origins, tree) if before else None),
            sharing=self.sharing,
        )
        self._configure(values, grouping)

    @classmethod
    def new(
        cls,
        variant: Variant,
        params: Any,
        values: Values,
        choosing: tuple[Group, ...] = (),
        grouping: Grouping | None = None,
        *,
        by_identity: bool = False,
        copied: str | None = None,
        ignore: Where = None,
        orders: list[list[int]] | None = None,
    ) -> Binding:
        """Return the first binding of an optimizer, in the groups there are or in these."""
        tree = _core.Tree(params, Group, ignoring(ignore), True)
        if not tree.leaves:
            raise ValueError(
                "params: expected at least one array, got none; without params the optimizer waits "
                "for build(params)"
            )
        grouping = grouping or Grouping.of(variant, tree, choosing)
        return cls(
            variant, tree, values, grouping, by_identity=by_identity, copied=copied, orders=orders
        )

    @property
    def tree(self) -> _core.Tree:
        """The structure of arrays: another one once `Stepper._move` has taken one."""
        return self.core.tree

    def moved(
        self, params: Any, values: Values, ignore: Where = None, *, grow: bool = False
    ) -> Binding:
        """Return a binding of other arrays, some of which go on with this state."""
        tree = _core.Tree(params, Group, ignoring(ignore), True)
        origins = self._origins(tree)
        for path, origin, new in zip(tree.paths, origins, tree.leaves, strict=True):
            old = new if origin is None else self.tree.leaves[origin]
            if grow and origin is not None and _has_grown(old, new):
                self._check_can_grow(origin, path)
            elif (old.shape, old.dtype) != (new.shape, new.dtype):
                raise ValueError(
                    f"{path}: expected a {old.dtype} array of shape {old.shape} as was bound, "
                    f"got a {new.dtype} array of shape {new.shape}"
                )
        if any(tree.groups):
            grouping = Grouping.of(self.variant, tree, self.grouping.choosing)
        elif origins == list(range(len(self.tree.leaves))):
            grouping = self.grouping
        else:
            kept = [None if origin is None else self.group_of[origin] for origin in origins]
            choosing = self.grouping.choosing
            grouping = Grouping.of(self.variant, tree, choosing, self.grouping, kept)
        return Binding(self.variant, tree, values, grouping, self, origins=origins)

    def check_not_replaced(self, which: list[int], params: Any, ignore: Where = None) -> None:
        """Raise ValueError where another array takes the place of one of which rows are behind."""
        tree = _core.Tree(params, Group, ignoring(ignore), True)
        for path, origin, new in zip(tree.paths, self._origins(tree), tree.objects, strict=True):
            if origin in which and self.index_of(new) != origin:
                raise ValueError(
                    f"{path}: expected an array made after settle(), for rows of the one that is "
                    "bound wait for updates which a copy of it would never get; call settle(), and "
                    "copy the array then"
                )

    def _check_can_grow(self, k: int, path: str) -> None:
        """Raise ValueError where rows can't be added, since blocks of state are of several rows."""
        leaf = self.tree.leaves[k]
        row = leaf.size // leaf.shape[0] if leaf.size else 0
        if self.is_in_blocks(k) and row % 256:
            raise ValueError(
                f"{path}: expected rows of a multiple of 256 elements, as blocks of float8 state "
                f"have them, to add others; got rows of {row}"
            )

    def _origins(self, tree: _core.Tree) -> list[int | None]:
        """Return which array each of another structure is, or takes the place of.

        In a structure like this one that is the one in its place. In another one it is the array
        itself, wherever it is now, or else the one that had its path.
        """
        count = len(tree.leaves)
        same = [self.index_of(each) for each in tree.objects]
        if self.tree.same_structure(tree) and not (self.by_identity and any_known(same)):
            return list(range(count))
        places = {} if self.by_identity else {path: k for k, path in enumerate(self.tree.paths)}
        taken = {index for index in same if index is not None}
        origins = [
            places.get(path) if index is None and places.get(path) not in taken else index
            for path, index in zip(tree.paths, same, strict=True)
        ]
        if not any_known(origins):
            raise ValueError(
                f"params: expected some of what was bound, {_listed(self.tree.paths)}; got "
                f"{_listed(tree.paths)}; for others make another optimizer"
            )
        return origins

    def _counters_of(self, origins: Sequence[int | None]) -> _core.Counters:
        """Return the counters with which arrays go on; new ones begin."""
        counters = self.core.counters()

        def of_each(known: Sequence[Any], first: Any) -> list[Any]:
            return [first if origin is None else known[origin] for origin in origins]

        return {
            **counters,
            "steps": of_each(counters["steps"], 0),
            "in_window": of_each(counters["in_window"], False),
            "begun": of_each(counters["begun"], False),
            "frozen": of_each(counters["frozen"], False),
            "rows_in_window": of_each(counters["rows_in_window"], None),
        }

    def _orders_of(
        self, origins: Sequence[int | None], tree: _core.Tree
    ) -> Sequence[list[int] | None]:
        """Return the orders in which to visit arrays that go on here; None for that of memory.

        In other memory they have its order, unless their state is in blocks of the old one.
        """
        orders = self.core.orders()
        if self.tree is tree:
            return orders
        return [
            orders[origin] if origin is not None and self.is_in_blocks(origin) else None
            for origin in origins
        ]

    def is_in_blocks(self, k: int) -> bool:
        """Return whether a parameter has state in blocks, made of elements as they are visited."""
        return any(map(_formats.is_in_blocks, self.kept[k].values()))

    def configured(self, values: Values, grouping: Grouping | None = None) -> Binding:
        """Return a binding of the same arrays and state under other hyperparameters."""
        grouping = grouping or self.grouping
        uses, tied = self._needs(self.variant, values, grouping.overrides)
        if uses != self._uses or grouping.group_of != self.group_of:
            return self.restated(values, grouping)
        other = object.__new__(Binding)
        other.__dict__.update(self.__dict__)
        other._tied = tied
        other._configure(values, grouping)
        return other

    def restated(
        self,
        values: Values,
        grouping: Grouping,
        state: list[dict[str, Array]] | None = None,
        orders: list[list[int]] | None = None,
        rounded: list[Array] | None = None,
    ) -> Binding:
        """Return a binding of the same arrays under hyperparameters that may need other state."""
        return Binding(
            self.variant,
            self.tree,
            values,
            grouping,
            self,
            state=state,
            orders=orders,
            rounded=rounded,
        )

    @property
    def overrides(self) -> list[Values]:
        """For each group the hyperparameters that it has of its own."""
        return self.grouping.overrides

    @property
    def group_of(self) -> list[int]:
        """The group of each array."""
        return self.grouping.group_of

    def all_slots(self, k: int) -> dict[str, Array]:
        """Return the slots of the k-th parameter, those out of use among them."""
        return {**self.asleep[k], **self.slots[k]}

    def beginnings(self, values: Values, grouping: Grouping) -> list[tuple[Array, Any]]:
        """Return what arrays of state become that start from hyperparameters that are others now.

        Raises
        ------
        ValueError
            If it is too late for one.
        """
        variant, changes = self.variant, list[tuple["Array", Any]]()
        initial = variant.initial_values()
        if not initial:
            return changes
        before, after = (
            [effective(each, override) for override in own.overrides]
            for each, own in ((self._values, self.grouping), (values, grouping))
        )
        steps = self.core.counters()["steps"]
        for k, path in enumerate(self.tree.paths):
            old, new = before[self.group_of[k]], after[grouping.group_of[k]]
            changed = [name for name in initial if old[name] != new[name]]
            if not changed:
                continue
            if steps[k]:
                name = changed[0]
                raise ValueError(
                    f"{name}: expected {old[name]!r}, from which the state of {path} has "
                    f"started; got {new[name]!r}, which only a new optimizer can start from"
                )
            param, numbers = self.tree.leaves[k], variant.numbers(new)
            slots = self.all_slots(k)
            firsts = _slots.encoded_first_values(variant, slots, param, numbers, self.kept[k])
            changes += [(slots[name], first) for name, first in firsts.items()]
            starting = variant.rule._initial_state.keys() & slots.keys()
            for name in starting - firsts.keys() - {*_slots.copied(variant.rule)}:
                first = _slots.first_value(variant, name, param, numbers)
                changes.append((slots[name], np.full_like(slots[name], first)))
        return changes

    def aligned(self, pairs: Sequence[tuple[Any, Any]]) -> Any:
        """Return the gradients of (gradient, variable) pairs in the structure of the parameters."""
        known = self._known_arrays()
        if known.is_list and len(pairs) == len(known.objects):
            in_order = [
                grad
                for (grad, variable), each in zip(pairs, known.objects, strict=True)
                if variable is each
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
    ) -> tuple[tuple[list[list[str]], bool, bool, list[Values], list[list[Any]]], set[str]]:
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
            [variant.slots_in_use(group) for group in groups],
            common["use_ema"],
            common["gradient_accumulation_steps"] > 1,
            numbers,
            [[group[name] for name in _formats.OPTIONS] for group in groups],
        )
        tied |= {"learning_rate_factor", "first_step", *variant.initial_values()}
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
            step = counters["iterations"] if is_global else counters["steps"][k]
            step += self._values["first_step"]
            state = self.slots[k]
            # To NumPy before its second version, arrays of no dimension are numbers of no dtype.
            leaf = self.tree.leaves[k]
            numbers_of = np.asarray(leaf) if leaf.dtype.itemsize > 2 else self.core.values(k)
            g, param = np.atleast_1d(self._updates[k], numbers_of)
            views = {name: np.atleast_1d(array) for name, array in state.items()}
            with np.errstate(all="ignore"):  # as in the engine
                new = self.variant.update(g, param, views, numbers, step, scratch)
            changes += [
                (
                    state[name],
                    np.asarray(now, state[name].dtype, order="C").reshape(state[name].shape),
                )
                for name, now in new.items()
            ]
        return changes

    def _configure(self, values: Values, grouping: Grouping) -> None:
        """Put together what the engine is told of the hyperparameters."""
        self.grouping = grouping
        self._values = values
        variant = self.variant
        own = [in_its_place(each) for each in grouping.overrides]
        effective_values = [{**values, **each} for each in own]
        groups = [Watched(without_schedules(each)) for each in effective_values]
        self.configuration: _core.Configuration = {
            "groups": [
                {
                    "values": group.plain,
                    "own": each,
                    "other_options": variant.other_options(group.plain),
                    "other_numbers": variant.other_numbers(group),
                }
                for group, each in zip(groups, own, strict=True)
            ],
            "group_of": grouping.group_of,
            "schedules": [
                *variant.schedules(values, -1, _core.options),
                *(
                    asked
                    for k, each in enumerate(effective_values)
                    for asked in variant.schedules(each, k)
                ),
            ],
            "options": {
                **without_schedules(values),
                "watch": sum(1 << WATCHABLE.index(w) for w in values["watch"]),
            },
            "tied": self._tied.union(*(group.seen for group in groups)),
            "switches": variant.switches,
            "global_clock": variant.has_global_clock,
            "every_call": variant.counts_calls,
            "update": self._update_function() if self._updates else None,
        }

    def _update_function(self) -> Callable[..., list[tuple[Array, Array]]]:
        if self.sharing is None:
            return self._make_updates
        return self.sharing["partner"].guarding(self._make_updates)

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
    def objects(self) -> list[Any]:
        """What stands in the structure for them: themselves, or another library's arrays."""
        return self.tree.objects

    @functools.cached_property
    def is_list(self) -> bool:
        """Whether the structure is a plain list of arrays, as `apply_gradients` makes it."""
        params, objects = self.tree.params, self.objects
        return (
            isinstance(params, list)
            and len(params) == len(objects)
            and all(map(operator.is_, params, objects))
        )

    @functools.cached_property
    def _by_identity(self) -> dict[int, int]:
        return {id(each): k for k, each in enumerate(self.objects)}

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


def _has_grown(old: Array, new: Array) -> bool:
    """Return whether an array is like another one with more rows."""
    if old.dtype != new.dtype or not 1 <= old.ndim == new.ndim:
        return False
    return old.shape[1:] == new.shape[1:] and old.shape[0] < new.shape[0]


def _write_rows(to: Array, rows: Array) -> None:
    """Write an array to another one, or to its first rows."""
    to[(... if to.shape == rows.shape else slice(len(rows)))] = rows


def any_known(indices: Sequence[int | None]) -> bool:
    """Return whether any of them is one."""
    return any(index is not None for index in indices)


def _memory_of(array: Any) -> object:
    """Return what tells an array's memory and layout from any other's."""
    if not isinstance(array, np.ndarray):
        return None
    return (array.__array_interface__["data"], array.shape, array.strides, array.dtype)


def _listed(paths: Sequence[str]) -> str:
    """Return a few paths and the number of the rest."""
    shown = ", ".join(paths[:4])
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} more"
