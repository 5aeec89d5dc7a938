"""The arrays that an optimizer is bound to, and their state."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core
from instep._conventions import COUNTS_CALLS, GLOBAL_CLOCK
from instep._group import Group
from instep._memory import zeros, zeros_like

if TYPE_CHECKING:
    from instep._memory import Array
    from instep._optimizer import Optimizer

Values = dict[str, Any]
"""Hyperparameters by name."""

PARAMETER = "parameter"
"""What a slot starts as that starts as a copy of the parameter."""

CLIPPING_OPTIONS = ("clipnorm", "clipvalue")
GROUP_OPTIONS = ("learning_rate", "l2", "weight_decay", *CLIPPING_OPTIONS, "maximize")
"""What a group may have of its own, besides the rule's hyperparameters."""


class Binding:
    """Parameters, groups, state, and the engine's view of them.

    Parameters
    ----------
    optimizer
        Whose rule and convention hold.
    params
        The structure of arrays, with groups in it.
    tree
        The same, walked.
    values
        The hyperparameters in force.
    overrides
        For each group those that it has of its own; the default group, first, has none.
    of_leaves
        The group of each array.
    before
        A binding whose state goes on in this one, as far as the hyperparameters need it.
    orders
        The order in which to visit the axes of each array, where it is not that of its memory.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        params: Any,
        tree: _core.Tree,
        values: Values,
        overrides: list[Values],
        of_leaves: list[int],
        before: Binding | None = None,
        orders: list[list[int]] | None = None,
    ) -> None:
        self.params, self.tree, self.of_leaves = params, tree, of_leaves
        self._direct = optimizer._direct
        self._uses = self._needs(optimizer, values, overrides)
        slots_of_groups, averages, accumulators = self._uses[:3]
        self.keeps_averages = averages
        slot_names, _, scalar_names = rule_of(optimizer)
        self.slots: list[dict[str, Array]] = [{} for _ in tree.leaves]
        self.averages: list[Array] = []
        self.accumulators: list[Array] = []
        for k, (param, path) in enumerate(zip(tree.leaves, tree.paths, strict=True)):
            numbers = optimizer._numbers(effective(values, overrides[of_leaves[k]]))
            in_use = {
                **dict.fromkeys(slots_of_groups[of_leaves[k]], param.shape),
                **dict.fromkeys(scalar_names, ()),
                **optimizer._state_shapes(param, path, numbers),
            }
            places = len(in_use) + averages + accumulators
            for place, (name, shape) in enumerate(in_use.items(), 1):
                slot = before.slots[k].get(name) if before else None
                if slot is None:
                    if name in scalar_names:
                        slot = zeros(shape, np.float64)
                    elif works_outside(optimizer):
                        slot = zeros(shape, param.dtype)
                    else:
                        slot = zeros_like(param, place, places)
                    if name in optimizer._initial_state:
                        slot[...] = self._initial(optimizer, name, numbers, param)
                self.slots[k][name] = slot
            if averages:
                average = before.averages[k] if before and before.averages else None
                if average is None:
                    average = zeros_like(param, len(in_use) + 1, places)
                    average[...] = param
                self.averages.append(average)
            if accumulators:
                accumulator = before.accumulators[k] if before and before.accumulators else None
                if accumulator is None:
                    accumulator = zeros_like(param, places, places)
                self.accumulators.append(accumulator)

        nothing: list[Array | None] = [None] * len(tree.leaves)
        engine_slots: list[list[Array | None]]
        engine_slots = [[slots.get(name) for name, _ in slot_names] for slots in self.slots]
        self._directions: list[Array] = []
        if works_outside(optimizer):
            self._directions = [np.zeros(p.shape, p.dtype) for p in tree.leaves]
            engine_slots = [[direction] for direction in self._directions]
        known = {*scalar_names, *(name for name, _ in slot_names)}
        others = [[each for each in s.items() if each[0] not in known] for s in self.slots]
        initial = optimizer._initial_state
        copies = [
            (slots[name], param)
            for slots, param in zip(self.slots, tree.leaves, strict=True)
            for name, start in initial.items()
            if start == PARAMETER
        ]
        copies += zip(self.averages, tree.leaves, strict=averages)
        self.core: _core.Bound = _core.Bound(
            optimizer._rule,
            tree,
            engine_slots,
            [[slots[name] for name in scalar_names] for slots in self.slots],
            [*self.averages] or nothing,
            [*self.accumulators] or nothing,
            others,
            copies,
            before.core.counters() if before else None,
            before.core.orders() if before and before.tree is tree else orders,
        )
        self._configure(optimizer, values, overrides)

    @classmethod
    def new(
        cls,
        optimizer: Optimizer,
        params: Any,
        values: Values,
        groups: tuple[list[Values], list[int]] | None = None,
        orders: list[list[int]] | None = None,
    ) -> Binding:
        """Return the first binding of an optimizer, in the structure's groups or in these."""
        tree = _core.Tree(params, Group)
        overrides, of_leaves = groups or _groups_of(optimizer, tree)
        return cls(optimizer, params, tree, values, overrides, of_leaves, None, orders)

    def moved(self, optimizer: Optimizer, params: Any) -> Binding:
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
        overrides, of_leaves = self.overrides, self.of_leaves
        if any(tree.groups):
            overrides, of_leaves = _groups_of(optimizer, tree)
        return Binding(optimizer, params, tree, optimizer._values, overrides, of_leaves, self)

    def configured(
        self, optimizer: Optimizer, values: Values, overrides: list[Values] | None = None
    ) -> Binding:
        """Return a binding of the same arrays and state under other hyperparameters."""
        overrides = self.overrides if overrides is None else overrides
        if self._needs(optimizer, values, overrides) != self._uses:
            return Binding(
                optimizer, self.params, self.tree, values, overrides, self.of_leaves, self
            )
        other = object.__new__(Binding)
        other.__dict__.update(self.__dict__)
        other._configure(optimizer, values, overrides)
        return other

    def aligned(self, pairs: Sequence[tuple[Any, Any]]) -> Any:
        """Return the gradients of (gradient, variable) pairs in the structure of the parameters."""
        if self._is_list and len(pairs) == len(self._leaves):
            in_order = [
                grad
                for (grad, variable), leaf in zip(pairs, self._leaves, strict=True)
                if variable is leaf
            ]
            if len(in_order) == len(pairs):
                return in_order
        grads: list[Any] = [None] * len(self.tree.leaves)
        named: set[int] = set()
        for position, (grad, variable) in enumerate(pairs):
            index = self._by_identity.get(id(variable))
            if index is None:
                index = self._by_memory.get(_memory_of(variable))
            if index is None:
                raise ValueError(
                    f"grads_and_vars[{position}]: expected one of the "
                    f"{len(grads)} arrays that were bound, got another variable; "
                    "update arrays in place (w -= ..., w[...] = ...) or bind again with build"
                )
            if index in named:
                raise ValueError(
                    f"grads_and_vars[{position}]: expected each variable once, got "
                    f"{self.tree.paths[index]} again; sum its gradients"
                )
            named.add(index)
            grads[index] = grad
        return self.tree.unflatten(grads)

    def take_slots(self, state: Sequence[Any], grad: Array) -> None:
        """Keep the state of the only array in these arrays, for rules outside of the engine."""
        [slots], [param] = self.slots, self.tree.leaves
        if len(state) != len(slots):
            raise TypeError(f"state: expected the arrays {', '.join(slots)}, got {len(state)}")
        known = [param, grad]
        for (name, like), array in zip(slots.items(), state, strict=True):
            if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
                raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
            if array.dtype != like.dtype:
                raise TypeError(
                    f"{name}: expected the parameter's dtype, {like.dtype}, got {array.dtype}"
                )
            if array.shape != like.shape:
                raise ValueError(f"{name}: expected shape {like.shape}, got {array.shape}")
            if not array.flags.carray:
                raise ValueError(
                    f"{name}: expected a writable C-contiguous array, got one that is not"
                )
            if any(np.may_share_memory(array, other) for other in known):
                raise ValueError(f"{name}: expected memory of its own, got some that is shared")
            known.append(array)
        plain = [array.view(np.ndarray) for array in state]
        self.slots = [dict(zip(slots, plain, strict=True))]

    @functools.cached_property
    def _leaves(self) -> list[Array]:
        return self.tree.leaves

    @functools.cached_property
    def _is_list(self) -> bool:
        """Whether the structure is a plain list of arrays, as `apply_gradients` makes it."""
        leaves = self._leaves
        return (
            isinstance(self.params, list)
            and len(self.params) == len(leaves)
            and all(map(operator.is_, self.params, leaves))
        )

    @functools.cached_property
    def _by_identity(self) -> dict[int, int]:
        return {id(leaf): k for k, leaf in enumerate(self.tree.leaves)}

    @functools.cached_property
    def _by_memory(self) -> dict[object, int]:
        return {_memory_of(leaf): k for k, leaf in enumerate(self.tree.leaves)}

    @staticmethod
    def _needs(
        optimizer: Optimizer, values: Values, overrides: Sequence[Values]
    ) -> tuple[list[list[str]], bool, bool, list[Values]]:
        """Return what decides on state arrays.

        The slots in use in each group, whether there are averages and accumulators; for rules
        outside of the engine, all of their groups' numbers.
        """
        slots, _, _ = rule_of(optimizer)
        groups = [effective(values, override) for override in overrides]
        for group in groups:
            optimizer._check_values(group)
        switches = optimizer._optional_slots
        in_use = [
            [name for name, optional in slots if not optional or group[switches[name]]]
            for group in groups
        ]
        numbers = [optimizer._numbers({**group, "learning_rate": None}) for group in groups]
        return (
            in_use,
            values["use_ema"],
            values["gradient_accumulation_steps"] > 1,
            numbers if works_outside(optimizer) else [],
        )

    @staticmethod
    def _initial(optimizer: Optimizer, name: str, numbers: Values, param: Array) -> Array | float:
        """Return what a slot starts as."""
        start: Any = optimizer._initial_state[name]
        if start == PARAMETER:
            return param
        while isinstance(start, str):  # a convention may name another hyperparameter
            start = numbers.get(start, 0.0)
        if not callable(start):
            return float(start)
        # Rules that start from a schedule take it in the first update of their own clock. Only
        # where that is everybody's, an array may come later, and must have been asked for here.
        return _core.ask(start, 0) if optimizer._convention in GLOBAL_CLOCK else 0.0

    def _find_directions(
        self, stepping: Sequence[int], learning_rates: Sequence[float]
    ) -> list[tuple[Array, Array]]:
        """Turn gradients into the steps to take; return state arrays and what they become."""
        changes = []
        counters = self.core.counters()
        for k in stepping:
            if self.tree.leaves[k].size == 0:
                continue
            group = self.of_leaves[k]
            numbers = {**self._numbers[group], "learning_rate": learning_rates[group]}
            step = (counters[0] if self._global_clock else counters[4][k]) + 1
            state = self.slots[k]
            # To NumPy before its second version, arrays of no dimension are numbers of no dtype.
            g, param = np.atleast_1d(self._directions[k], np.asarray(self.tree.leaves[k]))
            views = {name: np.atleast_1d(array) for name, array in state.items()}
            with np.errstate(all="ignore"):  # as in the engine
                new = self._direct(g, param, views, numbers, step)
            changes += [
                (
                    state[name],
                    np.asarray(now, state[name].dtype, order="C").reshape(state[name].shape),
                )
                for name, now in new.items()
            ]
        return changes

    def _configure(self, optimizer: Optimizer, values: Values, overrides: list[Values]) -> None:
        """Put together what the engine is told of the hyperparameters."""
        self.overrides = overrides
        own = rule_of(optimizer)[1]
        inside = optimizer._cell.decay == "inside"
        groups = [optimizer._numbers(effective(values, each), own) for each in overrides]
        self._numbers, self._global_clock = groups, optimizer._convention in GLOBAL_CLOCK
        self.configuration = (
            [
                (
                    group["learning_rate"],
                    group["l2"],
                    0.0 if inside else group["weight_decay"],
                    group["clipnorm"],
                    group["clipvalue"],
                    group["maximize"],
                    [_number(name, group, inside) for name in own],
                )
                for group in groups
            ],
            self.of_leaves,
            (
                values["loss_scale_factor"],
                values["global_clipnorm"],
                values["skip_nonfinite"],
                values["gradient_accumulation_steps"],
                values["ema_momentum"],
                values["ema_overwrite_frequency"] or 0,
                self._global_clock,
                optimizer._convention in COUNTS_CALLS,
            ),
            self._find_directions if self._directions else None,
        )


def works_outside(optimizer: Optimizer) -> bool:
    """Return whether the rule works outside of the engine, which hands it gradients."""
    return optimizer._rule not in _core.rules


def rule_of(
    optimizer: Optimizer,
) -> tuple[tuple[tuple[str, bool], ...], tuple[str, ...], tuple[str, ...]]:
    """Return what the engine knows of a rule: slots, hyperparameters, scalars."""
    return _core.rules.get(optimizer._rule, ((), (), ()))


def _number(name: str, group: Values, decays_inside: bool) -> float:
    """Return a number of the rule's, as the engine takes it."""
    if name == "weight_decay" and not decays_inside:
        return 0.0
    if name == "next_learning_rate":
        if not group.get("is_one_late", False):
            return -1.0
        rate = group["learning_rate"]
        return _core.ASK_SCHEDULE if callable(rate) else float(rate)
    return float(group[name])


def effective(values: Values, override: Mapping[str, Any]) -> Values:
    """Return a group's hyperparameters; a clipping of its own replaces the other per-array one."""
    result = {**values, **override}
    for own, other in (("clipnorm", "clipvalue"), ("clipvalue", "clipnorm")):
        if override.get(own) is not None and other not in override:
            result[other] = None
    return result


def _groups_of(optimizer: Optimizer, tree: _core.Tree) -> tuple[list[Values], list[int]]:
    """Return the overrides of each distinct nesting of groups, and which one each leaf is in."""
    options = (*optimizer._own(), *GROUP_OPTIONS)
    allowed = [name for name in options if name not in optimizer._joint]
    overrides: list[Values] = [{}]
    known: dict[tuple[int, ...], int] = {(): 0}
    of_leaves = []
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
                        name: optimizer._checked(name, value)
                        for name, value in group.options.items()
                        if value is not None or name in CLIPPING_OPTIONS
                    }
                except (TypeError, ValueError) as error:
                    raise type(error)(f"group around {path}: {error}") from None
                merged = {**effective(merged, own), **own} if merged else own
            known[key] = len(overrides)
            overrides.append(merged)
        of_leaves.append(known[key])
    return overrides, of_leaves


def _memory_of(array: Any) -> object:
    """Return what tells an array's memory and layout from any other's."""
    if not isinstance(array, np.ndarray):
        return None
    return (array.__array_interface__["data"], array.shape, array.strides, array.dtype)


def _listed(paths: Sequence[str]) -> str:
    """Return a few paths and the number of the rest."""
    shown = ", ".join(paths[:4])
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} more"
