"""The arrays that an optimizer is bound to, and their state."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instep import _core
from instep._group import Group
from instep._memory import zeros_like

if TYPE_CHECKING:
    from instep._memory import Array
    from instep._optimizer import Optimizer

Values = dict[str, Any]
"""Hyperparameters by name."""

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
    ) -> None:
        self.params, self.tree, self.of_leaves = params, tree, of_leaves
        self.overrides = overrides
        self._uses = self._needs(optimizer, values, overrides)
        slots_in_use, averages, accumulators = self._uses
        initial = optimizer._initial_state
        names = [name for name, _ in _core.rules[optimizer._rule][0]]
        self.slots: list[dict[str, Array]] = [{} for _ in tree.leaves]
        self.averages: list[Array] = []
        self.accumulators: list[Array] = []
        for k, param in enumerate(tree.leaves):
            in_use = slots_in_use[of_leaves[k]]
            places = len(in_use) + averages + accumulators
            for place, name in enumerate(in_use, 1):
                slot = before.slots[k].get(name) if before else None
                if slot is None:
                    slot = zeros_like(param, place, places)
                    if name in initial:
                        slot[...] = effective(values, overrides[of_leaves[k]])[initial[name]]
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
        self.core = _core.Bound(
            optimizer._rule,
            tree,
            [[slots.get(name) for name in names] for slots in self.slots],
            [*self.averages] or nothing,
            [*self.accumulators] or nothing,
        )
        if before:
            self.core.set_counters(*before.core.counters())
        self._configure(optimizer, values)

    @classmethod
    def new(cls, optimizer: Optimizer, params: Any) -> Binding:
        """Bind for the first time."""
        tree = _core.Tree(params, Group)
        overrides, of_leaves = _groups_of(optimizer, tree)
        return cls(optimizer, params, tree, optimizer._values, overrides, of_leaves)

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
        """Return a binding of the same arrays under other hyperparameters.

        It is this one where they need the same state arrays.
        """
        overrides = self.overrides if overrides is None else overrides
        if self._needs(optimizer, values, overrides) != self._uses:
            return Binding(
                optimizer, self.params, self.tree, values, overrides, self.of_leaves, self
            )
        self.overrides = overrides
        self._configure(optimizer, values)
        return self

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

    def current_averages(self) -> list[Array]:
        """Return the averages, which before the first update are the parameters."""
        if self.core.iterations == 0:
            for average, param in zip(self.averages, self.tree.leaves, strict=True):
                average[...] = param
        return self.averages

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
    ) -> tuple[list[list[str]], bool, bool]:
        """Return the slots in use in each group, and whether there are averages, accumulators."""
        slots = []
        for override in overrides:
            group = effective(values, override)
            optimizer._check_together(group)
            slots.append(
                [
                    name
                    for name, optional in _core.rules[optimizer._rule][0]
                    if not optional or group[optimizer._optional_slots[name]]
                ]
            )
        return slots, values["use_ema"], values["gradient_accumulation_steps"] > 1

    def _configure(self, optimizer: Optimizer, values: Values) -> None:
        """Hand the hyperparameters to the engine."""
        own = _core.rules[optimizer._rule][1]
        formula = optimizer._conventions[optimizer._convention]
        groups = [{**formula, **effective(values, override)} for override in self.overrides]
        self.core.set_groups(
            [
                (
                    group["learning_rate"],
                    group["l2"],
                    group["weight_decay"],
                    group["clipnorm"],
                    group["clipvalue"],
                    group["maximize"],
                    [float(group[name]) for name in own],
                )
                for group in groups
            ],
            self.of_leaves,
        )
        self.core.set_options(
            values["loss_scale_factor"],
            values["global_clipnorm"],
            values["skip_nonfinite"],
            values["gradient_accumulation_steps"],
            values["ema_momentum"],
            values["ema_overwrite_frequency"] or 0,
        )


def effective(values: Values, override: Mapping[str, Any]) -> Values:
    """Return a group's hyperparameters; a clipping of its own replaces the other per-array one."""
    result = {**values, **override}
    for own, other in (("clipnorm", "clipvalue"), ("clipvalue", "clipnorm")):
        if override.get(own) is not None and other not in override:
            result[other] = None
    return result


def _groups_of(optimizer: Optimizer, tree: _core.Tree) -> tuple[list[Values], list[int]]:
    """Return the overrides of each distinct nesting of groups, and which one each leaf is in."""
    allowed = (*optimizer._own(), *GROUP_OPTIONS)
    overrides: list[Values] = [{}]
    known: dict[tuple[int, ...], int] = {(): 0}
    of_leaves = []
    for path, around in zip(tree.paths, tree.groups, strict=True):
        key = tuple(id(group) for group in around)
        if key not in known:
            merged: Values = {}
            for group in around:
                for name in group.options:
                    if name not in allowed:
                        raise ValueError(
                            f"group around {path}: expected options among {', '.join(allowed)}; "
                            f"got {name!r}"
                        )
                own = {
                    name: optimizer._checked(name, value)
                    for name, value in group.options.items()
                    if value is not None or name in CLIPPING_OPTIONS
                }
                merged = {**effective(merged, own), **own} if merged else own
            known[key] = len(overrides)
            overrides.append(merged)
        of_leaves.append(known[key])
    return overrides, of_leaves


def _memory_of(array: Any) -> object:
    """Return what tells an array's memory and layout from any other's."""
    interface = getattr(array, "__array_interface__", None)
    if not isinstance(interface, dict):
        return None
    return (interface["data"], array.shape, array.strides, array.dtype)


def _listed(paths: Sequence[str]) -> str:
    """Return a few paths and the number of the rest."""
    shown = ", ".join(paths[:4])
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} more"
