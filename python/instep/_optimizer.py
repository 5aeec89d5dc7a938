"""What all optimizers share: binding, stepping, hyperparameters, state."""

from __future__ import annotations

import contextlib
import copy
import numbers
import operator
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, SupportsIndex

import numpy as np

from instep import _core, _state
from instep._binding import Binding
from instep._formats import COPIES, ROUNDINGS, STATE_DTYPES, shown
from instep._group import Group, Where, ignoring, selected
from instep._grouping import Grouping, checked_option, is_own, options_of
from instep._groups import Groups
from instep._hyperparameters import (
    Choice,
    Count,
    Flag,
    Frequency,
    Limit,
    Number,
    Rate,
    Scheduled,
    Word,
    Words,
    non_negative,
)
from instep._kinds import Choice as OneOf
from instep._kinds import Optional, counted
from instep._rows import MEANINGS
from instep._rule import GROUP_OPTIONS, WATCHABLE, Rule, Values, Variant
from instep._signature import Constructed, Signature, argument

if TYPE_CHECKING:
    from instep.typing import Array, Arrays, Convention, Foreign, Gradients

    class Params:
        """What is given is one of many structures; what is read, whatever was given."""

        def __get__(self, optimizer: Any, owner: Any) -> Any: ...
        def __set__(self, optimizer: Any, params: Arrays | None) -> None: ...

    class CopiesOrFormat:
        """A format is given, and copies are read."""

        def __get__(self, optimizer: Any, owner: Any) -> Any: ...
        def __set__(
            self, optimizer: Any, copies: Literal["bfloat16", "float16"] | None
        ) -> None: ...

    class GroupsOrViews:
        """Groups are given, and views of groups are read."""

        def __get__(self, optimizer: Any, owner: Any) -> Groups: ...
        def __set__(self, optimizer: Any, groups: Iterable[Group]) -> None: ...


class Loaded(NamedTuple):
    """What a partial loading has found.

    Attributes
    ----------
    left
        The paths of arrays that were saved, but are not here.
    new
        Those of arrays that are here, but were not saved; they have stayed as they were.
    extra
        What `Optimizer.save` was given as `extra`.
    """

    left: list[str]
    new: list[str]
    extra: Any


class Optimizer(Rule, Constructed):
    """Base of all optimizers.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict, optional
        The arrays to update, of any shape; float32, float64, float16 or ml_dtypes' bfloat16. They
        are updated in place. Without them the optimizer is unbound until `build` or the first
        `apply_gradients`.
    groups : sequence of Group, optional
        Hyperparameters for the arrays that each of them chooses, beside groups inside `params`;
        later ones win.
    ignore : callable, str, re.Pattern or sequence of these, optional
        What in `params` is no parameter, such as a count of batches: a predicate
        ``(path, object) -> bool``, a path, or a regular expression searched in paths. It may be
        anything, and may change; in gradients anything or nothing may stand in its place.
    learning_rate : float or schedule, optional
        A schedule is any callable from the 0-based index of the update to a float.
    learning_rate_factor : float, optional
        The learning rate is multiplied by it: for groups, on the common schedule. 1 by default.
    l2 : float, optional
        Coupled decay: the gradient becomes ``g + l2 * p`` before the rule sees it.
    weight_decay : float or schedule, optional
        Decoupled decay: ``p -= learning_rate * weight_decay * p`` before the rule.
    independent_weight_decay : bool, optional
        Decay by ``p -= weight_decay * p``, whatever the learning rate is.
    clipvalue, clipnorm, global_clipnorm : float, optional
        Clip the gradient by element, by each array's 2-norm, by the 2-norm over all arrays. At
        most one of them.
    maximize : bool, optional
        Ascend instead of descend.
    loss_scale_factor : float, optional
        Gradients are divided by it.
    skip_nonfinite : bool, optional
        A call in which any gradient holds an inf or NaN changes nothing but `skipped_steps`.
    use_ema : bool, optional
        Keep an exponential moving average of the parameters in `averages`.
    ema_momentum : float or schedule, optional
        How much of the average stays at each update after an array's first, at which it becomes
        the parameter; 0.99 by default.
    ema_overwrite_frequency : int, optional
        After each so many updates the parameters become their averages.
    gradient_accumulation_steps : int, optional
        So many calls make one update, with the mean of their gradients.
    first_step : int, optional
        The count of an array's first update in formulas such as Adam's; 1 by default.
    watch : sequence of {"grad_norm", "update_norm", "param_norm", "nonfinite"}, optional
        What `watched` tells of each array after an update: the 2-norms of its gradient (before
        clipping), of the update and of the new parameter, and how many elements of its gradient
        were not finite. They are taken on the step's own way over memory.
    convention : str, optional
        Whose defaults and formula the rule follows: "paper", "keras", "torch", "optax" or "tfjs".
        The defaults told here are the paper's; `python -m instep conventions` tells all, and which
        rule exists in which.
    state_dtype : {"float32", "bfloat16", "float8"}, optional
        What state is kept in: by default float32, or float64 for float64 parameters. In bfloat16
        (2 bytes instead of 4) and float8 (8 bits, and 32 for each 256 of those) it is rounded
        stochastically, so that averages don't freeze. Scalars, rows and columns, averages and
        accumulators are not meant.
    rounding : {"remainder", "stochastic", "nearest"}, optional
        How float16 and bfloat16 parameters come from the float32 numbers that rules compute.
        "remainder", the default, keeps what rounding leaves out in a slot, so that training is
        bit-equal to that of float32 parameters: with bfloat16 its 16 bits, with float16 the whole
        float32. The others keep nothing: "stochastic" takes one of the two neighbours, the likelier
        the nearer it is; with "nearest" updates of less than half a distance are lost.
    copies : {"bfloat16", "float16"}, optional
        Keep copies of float32 or float64 parameters, rounded to nearest, in `copies`: each update
        writes them on its way, without another look at the parameters.
    seed : int, optional
        Of random roundings; 0 by default. Same seeds, same bits.
    sparse : {"lazy", "exact"}, optional
        What gradients that are `Rows` mean for other rows: "lazy", the default, that these stay as
        they are; "exact", that their gradient is zero: bit for bit what the dense gradient does,
        though rows get what they have missed when they are named again, or by `settle`.

    Notes
    -----
    A rule of one's own is a formula, see `instep.rule`, or a subclass with
    ``update(self, g, p, state, numbers, step)`` that returns what to take off p, a declaration of
    `state`, and hyperparameters as annotated defaults.

    One step, in order: check everything; `skip_nonfinite` on the raw gradients; unscale;
    accumulate; `grad_norm`; clip; `maximize`; `l2`; `weight_decay`; rule; average; overwrite.
    """

    __signature__: ClassVar[Any] = Signature()

    if TYPE_CHECKING:
        params: Params = argument(default=None, kw_only=False)
        groups: GroupsOrViews = argument(default=())
        ignore: Any = argument(default=None)
        _choosing: tuple[Group, ...] = argument(default=(), init=False)
        _ignore: Where = argument(default=None, init=False)
        convention: Convention = argument(default="paper")
        copies: CopiesOrFormat = argument(default=None)
        state: Any = argument(default=None, init=False)  # or, in classes, what it consists of
        _copied: str | None = argument(default=None, init=False)
    learning_rate: Rate = Rate(default=None)
    l2: Number = non_negative(default=0.0)
    weight_decay: Scheduled = Scheduled(default=0.0, at_least=0)
    independent_weight_decay: Flag = Flag(default=False)
    clipvalue: Limit = Limit(default=None)
    clipnorm: Limit = Limit(default=None)
    global_clipnorm: Limit = Limit(default=None)
    maximize: Flag = Flag(default=False)
    learning_rate_factor: Number = non_negative(default=1.0)
    loss_scale_factor: Number = Number(default=1.0, at_least=sys.float_info.min)
    skip_nonfinite: Flag = Flag(default=False)
    use_ema: Flag = Flag(default=False)
    ema_momentum: Scheduled = Scheduled(default=0.99, at_least=0, at_most=1)
    ema_overwrite_frequency: Frequency = Frequency(default=None)
    gradient_accumulation_steps: Count = Count(default=1)
    first_step: Count = Count(default=1, at_most=2**31)
    state_dtype: Choice = Choice(STATE_DTYPES, default=None)
    rounding: Word = Word(ROUNDINGS, default="remainder")
    seed: Count = Count(default=0, at_least=0, at_most=2**62)
    sparse: Word = Word(MEANINGS, default="lazy")
    watch: Words = Words(WATCHABLE, default=())

    if not TYPE_CHECKING:  # type checkers see a constructor with each class's hyperparameters

        def __init__(
            self,
            params: Any = None,
            *surplus: Any,
            groups: Sequence[Group] = (),
            ignore: Where = None,
            convention: str = "paper",
            copies: str | None = None,
            **given: Any,
        ) -> None:
            if isinstance(params, (numbers.Number, np.generic)):
                raise TypeError(
                    f"params: expected arrays, got the number {params!r}; "
                    f"did you mean learning_rate={params!r}?"
                )
            self._variant = variant = self._new_variant(convention)
            if surplus:
                raise TypeError(
                    f"{type(self).__name__}: expected all but params by name, got {surplus[0]!r}; "
                    f"did you mean learning_rate={surplus[0]!r}?"
                )
            names = self._hyperparameters()
            for name in given:
                if name not in names:
                    raise TypeError(
                        f"{type(self).__name__}: expected hyperparameters among "
                        f"{', '.join(names)}; got {name!r}{meant(name, names)}"
                    )
            values = variant.all_checked(given)
            variant.check_together(values)
            self._choosing, self._ignore = _checked_groups(groups), ignore
            self._copied = _FORMAT_OF_COPIES.check("copies", copies)
            self._install(values, None if params is None else self._bind(params, values))

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "update" in vars(cls) or cls._own_shapes is not None:
            from instep import _functions

            _functions.prepare(cls)

    def _new_variant(self, convention: Any) -> Variant:
        variant = Variant(type(self), convention)
        if self._own_shapes is not None:
            variant.optimizer = weakref.ref(self)
        return variant

    # Hyperparameters ----------------------------------------------------------------------------

    def _check_attribute(self, name: str) -> None:
        """Raise AttributeError for a new attribute that may be a misspelt one."""
        cls = type(self)
        # Those that others have written may have attributes of their own.
        ours = cls.__module__.startswith("instep.") or isinstance(cls._kernel, _core.Formula)
        if ours and not (name.startswith("_") or hasattr(cls, name)):
            raise AttributeError(
                f"{cls.__name__}: expected a hyperparameter among "
                f"{', '.join(self._hyperparameters())}; got {name!r}"
            )

    def _assign(self, name: str, value: Any) -> None:
        """Change a hyperparameter, whatever hangs on it; C++ has changed it where nothing does."""
        checked = self._variant.checked(name, value)
        with self._hold():
            values = {**self._values, name: checked}
            binding = self._binding
            if binding is None:
                self._variant.check_together(values)
                self._install(values, None)
                return
            window = "gradient_accumulation_steps"
            is_other = name == window and checked != self._values[name]
            if is_other and binding.core.counters()["window"]:
                raise ValueError(f"{window}: expected no change in the middle of a window")
            beginnings = binding.beginnings(values, binding.grouping)
            self._install(values, binding.configured(values), beginnings, None)

    def _assign_to_group(self, index: int, name: str, value: Any) -> None:
        """Change a hyperparameter of a group; None: what it has of its own."""
        if index == 0 and name in options_of(self._variant):
            return setattr(self, name, value)
        try:
            checked = checked_option(self._variant, name, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"groups[{index}]: {error}") from None
        with self._hold():
            binding = self._bound("groups")
            override = {**binding.overrides[index], name: checked}
            if not is_own(self._variant, name, checked):
                del override[name]
            self._regroup(binding.grouping.changed(index, override))
        return None

    def _regroup(self, grouping: Grouping) -> None:
        """Take over other groups of the same arrays; in a `_hold`."""
        values, binding = self._values, self._bound("groups")
        beginnings = binding.beginnings(values, grouping)
        self._install(values, binding.configured(values, grouping), beginnings, None)

    if not TYPE_CHECKING:  # to type checkers these are arguments of the constructor

        @property
        def convention(self) -> str:
            """Whose defaults and formula the rule follows."""
            return self._variant.convention

        @property
        def params(self) -> Any:
            """The bound structure, without groups; None if unbound."""
            if self._binding is None:
                return None
            tree = self._binding.tree
            return tree.unflatten(tree.objects) if any(tree.groups) else tree.params

    @property
    def config(self) -> Values:
        """Every hyperparameter in force, by name."""
        return {**self._values, "convention": self._variant.convention}

    @property
    def current_learning_rate(self) -> float:
        """The learning rate of the next update, as a number."""
        return self._rate_now(self._values)

    def _rate_now(self, values: Values) -> float:
        """Return the learning rate of the next update with these hyperparameters."""
        rate = values["learning_rate"]
        if callable(rate):
            index = 0 if self._binding is None else self._binding.core.schedule_index
            rate = _core.ask(rate, index)
        product: float = rate * values["learning_rate_factor"]
        return product

    if not TYPE_CHECKING:

        @property
        def groups(self) -> Groups:
            """The groups, the default one first, by index and by name.

            Each is a live mapping of its hyperparameters, and of its arrays as `params`:
            ``opt.groups[1]["learning_rate"] = 0.1`` is checked, and takes effect at once.
            """
            return Groups(self, [*self._own(), *GROUP_OPTIONS])

    def exclude_from_weight_decay(
        self, var_list: Iterable[Array] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Give arrays a `weight_decay` of 0, as Keras spells it.

        Parameters
        ----------
        var_list : iterable of ndarray, optional
            Those arrays.
        var_names : iterable of str, optional
            Those in whose paths one of these is found, each a regular expression, or a part in its
            brackets.

        Raises
        ------
        TypeError, ValueError
            If neither is given, or none of the bound arrays is meant. Nothing has changed then.
        """
        for name, given in (("var_list", var_list), ("var_names", var_names)):
            if isinstance(given, (str, np.ndarray)):  # of which the items would be taken
                raise TypeError(f"{name}: expected a list, got {type(given).__name__}")
        where = [*(() if var_list is None else var_list), *(() if var_names is None else var_names)]
        if not where:
            raise ValueError("exclude_from_weight_decay: expected var_list or var_names, got none")
        group = Group(where, weight_decay=0.0)
        with self._hold():
            binding = self._binding
            if binding is None:
                self._choosing = (*self._choosing, group)
                return
            meant = self._selected(where, "exclude_from_weight_decay")
            self._regroup(binding.grouping.divided(meant, group))

    def _selected(self, where: Where, what: str) -> list[bool]:
        tree = self._bound(what).tree
        return selected(where, tree.paths, tree.leaves, what)

    def freeze(self, where: Where) -> None:
        """Ignore the gradients of arrays from now on: they, their state and counts stay.

        What an unfinished accumulation window holds of them is given up.

        Parameters
        ----------
        where : callable, str, re.Pattern, ndarray or sequence of these
            A predicate ``(path, array) -> bool``; a path of an array or sub-tree, or a regular
            expression searched in paths; an array.

        Raises
        ------
        RuntimeError
            If the optimizer is unbound.
        TypeError, ValueError
            If it is something else, or selects no array.
        """
        self._set_frozen(where, True, "freeze")

    def unfreeze(self, where: Where) -> None:
        """Take gradients of arrays again; see `freeze`."""
        self._set_frozen(where, False, "unfreeze")

    def _set_frozen(self, where: Where, whether: bool, what: str) -> None:
        with self._hold():
            binding = self._bound(what)
            counters = binding.core.counters()
            for k, is_meant in enumerate(self._selected(where, what)):
                if is_meant:
                    counters["frozen"][k] = whether
                    counters["in_window"][k] &= not whether
            values = self._values
            self._install(values, binding.configured(values), (), counters)

    @property
    def frozen(self) -> list[str]:
        """The paths of frozen arrays."""
        binding = self._binding
        if binding is None:
            return []
        frozen = binding.core.counters()["frozen"]
        return [path for path, is_so in zip(binding.tree.paths, frozen, strict=True) if is_so]

    # Stepping -----------------------------------------------------------------------------------

    def build(self, params: Arrays, *, grow: bool = False) -> None:
        """Bind to arrays, or rebind to others and keep the state.

        Parameters
        ----------
        params : ndarray or nesting of list, tuple and dict
            On a bound optimizer, in a structure like the bound one: arrays that take the places of
            those, of the same shapes and dtypes. In another structure state goes with the array
            itself, wherever it is now, and else with its path; state of arrays that are left out
            is given up, and new ones start new. After `apply_gradients`, whose order means nothing,
            it goes with the arrays themselves wherever some of them are known. Where the new
            structure has no groups, arrays stay in theirs.
        grow : bool, optional
            Whether arrays may have more rows, along the first axis, than those whose places they
            take: behind the rows that there were, whose state stays, new ones start new.

        Raises
        ------
        TypeError, ValueError
            If an array cannot be updated in place, or on a bound optimizer differs from the one
            whose state it would take over, or none of them would take over any; or where rows of
            the one whose place it takes wait for updates, see `settle`. Nothing has changed then.
        """
        if self._binding is not None and (behind := self._behind()):
            self._binding.check_not_replaced(behind, params, self._ignore)
        with self._hold():
            values, binding = self._values, self._binding
            if binding is None:
                self._install(values, self._bind(params, values))
            elif binding.by_identity or not self._move(params):
                self._install(values, binding.moved(params, values, self._ignore, grow=bool(grow)))

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Gradients, Array | Foreign]]) -> None:
        """Update variables with their gradients; binds the optimizer at the first call.

        Parameters
        ----------
        grads_and_vars : iterable of (gradient, variable)
            Later calls may name the arrays in any order and leave some out. They are matched by
            memory, shape and strides.

        Raises
        ------
        ValueError
            If a variable is repeated or not among the bound ones.
        TypeError, RuntimeError
            As for `step`.
        """
        if not isinstance(grads_and_vars, Iterable):
            raise TypeError(
                f"grads_and_vars: expected pairs of (gradient, variable), "
                f"got {type(grads_and_vars).__name__}"
            )
        pairs = [
            each if type(each) is tuple and len(each) == 2 else _pair(k, each)
            for k, each in enumerate(grads_and_vars)
        ]
        if self._binding is not None:
            return self.step(self._binding.aligned(pairs))
        if not pairs:
            raise ValueError("grads_and_vars: expected at least one (gradient, variable), got none")
        for position, (_, variable) in enumerate(pairs):
            if isinstance(variable, (list, tuple, Mapping, Group)):
                raise TypeError(
                    f"params[{position}]: expected a NumPy array, got {type(variable).__name__}"
                )
        grads, variables = ([each[k] for each in pairs] for k in range(2))
        while True:  # until no other thread changes hyperparameters meanwhile
            values = self._values
            binding = Binding.new(
                self._variant,
                variables,
                values,
                self._choosing,
                by_identity=True,
                copied=self._copied,
            )
            if self._bind_and_step(values, binding, grads):
                return None

    def updated(self, params: Arrays, grads: Gradients) -> Any:
        """Return updated arrays, and leave those given as they are.

        For loops that replace their arrays, ``params = opt.updated(params, grads)``. State moves
        on, and the optimizer is bound to the new arrays then, as `build` would bind it.

        Parameters
        ----------
        params : ndarray or nesting of list, tuple and dict
            Arrays of the structure, shapes and dtypes that are bound; the optimizer is bound
            by the first call if it was not. They need not be writable.
        grads : ndarray or nesting of list, tuple and dict
            As for `step`.

        Returns
        -------
        ndarray or nesting of list, tuple and dict
            New arrays, in the structure of `params` without its groups.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As for `build` and `step`. Nothing has changed then.
        """
        if self._binding is not None and (behind := self._behind()):
            self._binding.check_not_replaced(behind, params, self._ignore)
        with self._hold():  # which settles; what is bound need not be writable
            binding: Binding | None = self._binding
        tree = _core.Tree(params, Group, ignoring(self._ignore), False)
        if binding is None:
            copies = tree.unflatten([leaf.copy(order="K") for leaf in tree.leaves])
            grouping = Grouping.of(self._variant, tree, self._choosing)
            while True:  # until no other thread changes hyperparameters meanwhile
                values = self._values
                first = Binding.new(
                    self._variant,
                    copies,
                    values,
                    grouping=grouping,
                    copied=self._copied,
                    ignore=self._ignore,
                )
                if self._bind_and_step(values, first, grads):
                    return copies
        like = binding.tree.leaves
        if not binding.tree.same_structure(tree):
            raise ValueError(
                f"params: expected the structure that was bound, of {len(like)} arrays, got one of "
                f"{len(tree.leaves)}; build(params) takes others"
            )
        leaves = []
        for path, old, given in zip(tree.paths, like, tree.leaves, strict=True):
            if (old.shape, old.dtype) != (given.shape, given.dtype):
                raise ValueError(
                    f"{path}: expected a {old.dtype} array of shape {old.shape} as was bound, "
                    f"got a {given.dtype} array of shape {given.shape}"
                )
            leaf = np.empty_like(old)
            np.copyto(leaf, given)
            leaves.append(leaf)
        new = tree.unflatten(leaves)
        self._step_on_others(binding, new, grads, stay=True)
        return new

    def settle(self, ids: Any = None) -> None:
        """Let rows have the updates that they have missed.

        With ``sparse="exact"``, rows that a gradient does not name get its update when they are
        named again. Before that, what is in the memory of parameters is of an earlier time. What is
        read through the optimizer (`state`, `averages`, `save`) is settled before; `build` and
        `updated` refuse copies of an array whose rows are behind.

        Parameters
        ----------
        ids : ndarray of int, Rows, or nesting of list, tuple and dict, optional
            The rows that are to be looked up, in the structure of the parameters; None, or nothing,
            for an array of which there are none. By default all rows of all arrays.

        Raises
        ------
        RuntimeError
            If this very thread is in the middle of a step.
        TypeError, ValueError
            If ids are not those of rows. Nothing has changed then.
        """
        if ids is not None:
            return self._settle(ids)
        with self._hold():  # which settles
            if self._binding is not None:
                self._binding.core.check_unchanged()
        return None

    def updates(self, grads: Gradients) -> Any:
        """Return what a step would add to the parameters, and leave those as they are.

        State moves on as in `step`.

        Parameters
        ----------
        grads : ndarray or nesting of list, tuple and dict
            As for `step`.

        Returns
        -------
        ndarray or nesting of list, tuple and dict
            For each parameter a new array, what it would be less what it is.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As for `step`. Nothing has changed then.
        """
        binding = self._bound("updates")
        self.settle()
        binding.core.check_unchanged()
        leaves = [leaf.copy(order="K") for leaf in binding.tree.leaves]
        new = binding.tree.unflatten(leaves)
        self._step_on_others(binding, new, grads, stay=False)
        for leaf, old in zip(leaves, binding.tree.leaves, strict=True):
            np.subtract(leaf, old, out=leaf)
        return new

    def _step_on_others(self, binding: Binding, params: Any, grads: Any, *, stay: bool) -> None:
        """Make a step on arrays like those that are bound; all or nothing."""
        if self._step_on(params, grads, stay):
            return
        # As after unpickling, when arrays are visited in another order than that of their memory.
        with self._hold():
            values = self._values
            moved = binding.moved(params, values, self._ignore)
            self._install(values, moved)
        try:
            self.step(grads)
            self.settle()
        except BaseException:
            self._install(values, binding.configured(values))
            raise
        if not stay:
            self._install(values, binding.configured(values), (), moved.core.counters())

    def _bind(self, params: Any, values: Values) -> Binding:
        """Return the first binding, or say what else the parameters look like."""
        try:
            return Binding.new(
                self._variant,
                params,
                values,
                self._choosing,
                copied=self._copied,
                ignore=self._ignore,
            )
        except (TypeError, ValueError) as error:
            hint = ""
            if isinstance(params, (list, tuple)) and any(
                isinstance(each, Mapping) and "params" in each for each in params
            ):
                hint = (
                    "; groups of arrays are instep.Group(arrays, learning_rate=...), not dicts "
                    "with a key 'params'"
                )
            elif any(
                isinstance(each, np.ndarray) for each in getattr(params, "__dict__", {}).values()
            ):
                hint = "; did you mean vars(...) of the object, the dict of its attributes?"
            raise type(error)(f"{error}{hint}") from None

    def _bound(self, what: str) -> Binding:
        """Return the binding that something needs."""
        binding: Binding | None = self._binding
        if binding is None:
            raise RuntimeError(f"{what}: this optimizer has no parameters yet; call build(params)")
        return binding

    # State --------------------------------------------------------------------------------------

    @property
    def iterations(self) -> int:
        """How many updates there were."""
        return 0 if self._binding is None else self._binding.core.iterations

    @property
    def skipped_steps(self) -> int:
        """How many calls were skipped because of a gradient that was not finite."""
        return 0 if self._binding is None else self._binding.core.skipped_steps

    @property
    def accumulated_calls(self) -> int:
        """How many calls an unfinished accumulation window holds."""
        return 0 if self._binding is None else self._binding.core.counters()["window"]

    @property
    def watched(self) -> dict[str, Any]:
        """What `watch` asks for, by name, a number for each array in the structure of all.

        Of arrays without a gradient in the last update, what was seen last; None for nothing yet.
        A step that `skip_nonfinite` has skipped tells its "nonfinite".
        """
        binding = self._bound("watched")
        seen = binding.core.watched
        return {name: binding.tree.unflatten([e[name] for e in seen]) for name in self.watch}

    @property
    def grad_norm(self) -> float | None:
        """The 2-norm of the last update's gradients over all arrays, before clipping.

        None unless there is `global_clipnorm`, or it is watched.
        """
        is_known = self.global_clipnorm is not None or "grad_norm" in self.watch
        if self._binding is None or not is_known:
            return None
        norm: float | None = self._binding.core.grad_norm
        return norm

    if not TYPE_CHECKING:

        @property
        def state(self) -> Any:
            """State, a dict of live arrays by name for each parameter, in the structure of all.

            Under "step" stands the number of the array's own updates, where the convention counts
            them.
            """
            self._refresh()
            binding = self._bound("state")
            leaves: list[Values] = [
                {name: shown(_core.alias(each), kept.get(name)) for name, each in slots.items()}
                for slots, kept in zip(binding.slots, binding.kept, strict=True)
            ]
            if not self._variant.has_global_clock:
                for leaf, step in zip(leaves, binding.core.counters()["steps"], strict=True):
                    leaf["step"] = step
            return binding.tree.unflatten(leaves)

    @property
    def averages(self) -> Any:
        """Moving averages in the structure of the parameters, live; None without `use_ema`.

        Before the first update they equal the parameters.
        """
        self._refresh()
        binding = self._bound("averages")
        if not binding.keeps_averages:
            return None
        return binding.tree.unflatten([_core.alias(each) for each in binding.averages])

    if not TYPE_CHECKING:

        @property
        def copies(self) -> Any:
            """Rounded copies of the parameters, in their structure, live; None without `copies=`.

            They are float16, or bfloat16 where ml_dtypes is installed and else its bits as uint16.
            An update writes those of the arrays that it changes; so do loading and `swap_averages`.
            """
            if self._copied is None:
                return None
            self._refresh()
            binding = self._bound("copies")
            return binding.tree.unflatten(
                [shown(_core.alias(each), self._copied) for each in binding.copies]
            )

    def swap_averages(self) -> None:
        """Put the averages in the place of the parameters; the next call puts them back.

        Arrays stay where they are and change what they hold: `params` has the averages then, and
        `averages` the parameters. Until they are back, whatever would take one for the other is a
        RuntimeError: steps, saving, loading.

        Raises
        ------
        RuntimeError
            If the optimizer is unbound.
        ValueError
            If it keeps no averages.
        """
        binding = self._bound("swap_averages")
        if not binding.keeps_averages:
            raise ValueError("swap_averages: expected an optimizer with use_ema=True")
        self._swap_averages()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Any]:
        """Put the averages in the place of the parameters for a ``with`` block: `swap_averages`.

        Yields
        ------
        ndarray or nesting of list, tuple and dict
            `params`, which hold the averages.
        """
        self._bound("averaged")
        self._check_not_swapped()
        self.swap_averages()
        try:
            yield self.params
        finally:
            self.swap_averages()

    def state_dict(self) -> Values:
        """Return everything that training needs to go on, as plain dicts, numbers and copies.

        Not part of it: the parameters, and schedules, but for what those that have `state_dict`
        and `load_state_dict` remember. One that changes and has neither starts anew.
        """
        with self._hold():
            self._check_not_swapped()
            return _state.dump(self._values, self._bound("state_dict"))

    def load_state_dict(self, d: Mapping[str, Any], partial: bool = False) -> Loaded | None:
        """Take over what `state_dict` returned; schedules stay, and go on where those were.

        Parameters
        ----------
        d : mapping
            The state.
        partial : bool, optional
            Whether the state may be of other arrays: what there is in both, by path, is taken over,
            other arrays here stay as they are. Groups must agree where they have the same index.

        Returns
        -------
        Loaded or None
            With `partial`, what was not taken over.

        Raises
        ------
        RuntimeError
            If the optimizer is unbound.
        TypeError, ValueError
            If the state is of another rule, convention or structure, has a number where this
            optimizer has a schedule or the other way round, or lacks anything. Nothing has changed
            then.
        """
        self._bound("load_state_dict")
        differences = self._take_over(d, params=False, partial=partial)
        return Loaded(*differences, None) if partial else None

    def save(
        self,
        path: str | os.PathLike[str],
        params: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write everything that training needs to go on to a file.

        A crash at any moment leaves the file that was there before, or the whole new one: it is
        written beside it, brought to the disk and renamed. `numpy.load` reads its arrays. Other
        threads' steps wait meanwhile.

        Parameters
        ----------
        path : str or os.PathLike
            The file, which is replaced if it exists.
        params : bool, optional
            Whether the parameters are part of it.
        extra : mapping, optional
            What else belongs to the moment, such as the epoch, the place in the data, the state of
            random generators: nested dicts and lists of numbers, str, bool, None and arrays. `load`
            returns it.

        Raises
        ------
        RuntimeError
            If the optimizer is unbound, or in the middle of a step.
        TypeError
            If `extra` holds anything else.
        ValueError
            If a container or an array is not what was bound any more.
        OSError
            If the file cannot be written.
        """
        from instep import _checkpoint

        if not (extra is None or isinstance(extra, Mapping)):
            raise TypeError(f"extra: expected a dict, got {type(extra).__name__}")
        with self._hold():
            tree = self._tree("save", params=params)
            if extra is not None:
                tree["extra"] = dict(extra)
            _checkpoint.write(path, tree)

    def load(self, path: str | os.PathLike[str], partial: bool = False) -> Any:
        """Take over what `save` wrote; parameters, if they are part of it, in place.

        Parameters
        ----------
        path : str or os.PathLike
            The file.
        partial : bool, optional
            As for `load_state_dict`.

        Returns
        -------
        dict or None; Loaded
            What was saved as `extra`. With `partial`, that and what was not taken over.

        Raises
        ------
        RuntimeError
            If the optimizer is unbound, or in the middle of a step.
        TypeError, ValueError
            If the file is no checkpoint, or damaged in any way, or of another optimizer; see
            `load_state_dict`. Nothing has changed then.
        OSError
            If the file cannot be read.
        """
        from instep import _checkpoint

        self._bound("load")
        state = _checkpoint.read(path)
        extra = state.pop("extra", None)
        differences = self._take_over(state, params=True, partial=partial)
        return Loaded(*differences, extra) if partial else extra

    def _tree(self, what: str, *, params: bool) -> Values:
        """Return what `state_dict` does, not copied, and the parameters; for a `_hold`."""
        if not isinstance(params, (bool, np.bool_)):
            raise TypeError(f"params: expected True or False, got {type(params).__name__}")
        self._check_not_swapped()
        binding = self._bound(what)
        binding.core.check_unchanged()
        return _state.dump(self._values, binding, copy=False, params=params)

    def _take_over(
        self,
        state: Any,
        *,
        params: bool,
        partial: bool = False,
        agree: Callable[[BaseException | None], object] | None = None,
    ) -> _state.Differences:
        """Load a state, and the parameters if they are part of it and wanted.

        Others who load theirs `agree` before anything changes: they are told what has failed here.
        """
        if not isinstance(partial, (bool, np.bool_)):
            raise TypeError(f"partial: expected True or False, got {type(partial).__name__}")
        with self._hold():
            self._check_not_swapped()
            binding = self._bound("load")
            try:
                if params:
                    binding.core.check_unchanged()
                others, memories, differences = _state.load(
                    self._values, binding, state, params=params, partial=bool(partial)
                )
            except BaseException as error:
                if agree:
                    agree(error)
                raise
            if agree:
                agree(None)
            before = []
            try:
                for schedule, memory in memories:
                    before.append((schedule, copy.deepcopy(schedule.state_dict())))
                    schedule.load_state_dict(memory)
                self._install(*others)
            except BaseException:
                for schedule, memory in reversed(before):
                    with contextlib.suppress(Exception):  # one must not keep others from theirs
                        schedule.load_state_dict(memory)
                raise
            return differences

    def _resume(self, state: dict[str, Array], step: int) -> None:
        """Go on at an update of a single array with its state in these arrays themselves."""
        binding = self._bound("state")
        binding = binding.restated(self._values, binding.grouping, [state])
        done = step - 1
        counters: _core.Counters = {
            **binding.core.counters(),
            "iterations": done,
            "calls": done,
            "steps": [done],
            "begun": [done > 0],
        }
        self._install(self._values, binding, (), counters)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return super().__reduce_ex__(max(operator.index(protocol), 2))  # older ones know no state

    def __getstate__(self) -> Values:
        with self._hold():
            state: Values = {
                "convention": self._variant.convention,
                "values": self._values,
                "choosing": self._choosing,
                "ignore": self._ignore,
                "copies": self._copied,
            }
            binding = self._binding
            if binding is not None:
                self._check_not_swapped()
                binding.core.check_unchanged()
                state["params"] = binding.tree.params
                # Arrays that were built later may be in groups that their structure does not show.
                state["groups"] = binding.grouping
                state["by_identity"] = binding.by_identity
                # NumPy's pickles bring arrays back in another layout, on which sums depend.
                state["orders"] = binding.core.orders()
                state["state"] = _state.dump(self._values, binding)
            return state

    def __setstate__(self, state: Values) -> None:
        self._variant, values = self._new_variant(state["convention"]), state["values"]
        self._choosing, self._ignore = state["choosing"], state["ignore"]
        self._copied = state.get("copies")
        if "params" not in state:
            return self._install(values, None)
        binding = Binding.new(
            self._variant,
            state["params"],
            values,
            grouping=state["groups"],
            by_identity=state["by_identity"],
            copied=self._copied,
            ignore=self._ignore,
            orders=state["orders"],
        )
        self._install(values, binding)
        self.load_state_dict(state["state"])
        return None

    def __repr__(self) -> str:
        shown = {
            name: value
            for name, value in self._values.items()
            if name == "learning_rate"
            or name in self._own()
            or value != self._variant.default(name)
        }
        parts = [f"{name}={value!r}" for name, value in shown.items()]
        parts.append(f"convention={self._variant.convention!r}")
        if self._binding is None:
            size = "unbound"
        else:
            leaves = self._binding.tree.leaves
            parameters = sum(leaf.size for leaf in leaves)
            size = f"{counted(len(leaves), 'array')}, {counted(parameters, 'parameter')}"
        return f"<{type(self).__name__}({', '.join(parts)}): {size}>"


# What hyperparameters are called elsewhere: here they have Keras's names.
_NAMES_ELSEWHERE = {
    "alpha": ("rho",),
    "b1": ("beta_1",),
    "b2": ("beta_2",),
    "beta1": ("beta_1",),
    "beta2": ("beta_2",),
    "betas": ("beta_1", "beta_2"),
    "clip_norm": ("global_clipnorm",),
    "decay": ("weight_decay",),
    "eps": ("epsilon",),
    "eps_root": ("epsilon_root",),
    "lr": ("learning_rate",),
    "lr_decay": ("learning_rate_decay",),
    "max_norm": ("global_clipnorm",),
    "step_size": ("learning_rate",),
}


def meant(name: str, names: Iterable[str]) -> str:
    """Return a question for a name that a hyperparameter has elsewhere, or nearly has."""
    meant = [here for here in _NAMES_ELSEWHERE.get(name, ()) if here in names]
    if not meant:
        from difflib import get_close_matches

        meant = get_close_matches(name, names, 1)
    return f"; did you mean {', '.join(f'{here}=' for here in meant)}?" if meant else ""


_FORMAT_OF_COPIES = Optional(OneOf(*COPIES))


def _checked_groups(groups: Any) -> tuple[Group, ...]:
    """Return the groups that choose their arrays."""
    if isinstance(groups, Group) or not isinstance(groups, Iterable):
        raise TypeError(f"groups: expected a list of instep.Group, got {type(groups).__name__}")
    checked = tuple(groups)
    for k, group in enumerate(checked):
        if not isinstance(group, Group):
            raise TypeError(f"groups[{k}]: expected an instep.Group, got {type(group).__name__}")
    return checked


def _pair(position: int, pair: Any) -> tuple[Any, Any]:
    """Return a (gradient, variable) pair; raise TypeError for anything else."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(
            f"grads_and_vars[{position}]: expected (gradient, variable), got {type(pair).__name__}"
        )
    return pair[0], pair[1]


if unknown := {*_core.options, *_core.group_options} - Optimizer._hyperparameters().keys():
    raise ImportError(f"Optimizer: the engine's options {', '.join(sorted(unknown))} are unknown")
