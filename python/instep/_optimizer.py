"""What all optimizers share: binding, stepping, hyperparameters, state."""

from __future__ import annotations

import numbers
import operator
import os
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

import numpy as np

from instep import _core, _state
from instep._binding import Binding, effective
from instep._hyperparameters import (
    Count,
    Flag,
    Frequency,
    Limit,
    Number,
    Rate,
    non_negative,
)
from instep._kinds import counted
from instep._rule import GROUP_OPTIONS, Rule, Values, Variant
from instep._signature import Constructed, Signature, argument

if TYPE_CHECKING:
    from instep._memory import Array


class Optimizer(Rule, Constructed):
    """Base of all optimizers.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict, optional
        The arrays to update, float32 or float64 of any shape. They are updated in place. Without
        them the optimizer is unbound until `build` or the first `apply_gradients`.
    learning_rate : float or schedule, optional
        A schedule is any callable from the 0-based index of the update to a float.
    l2 : float, optional
        Coupled decay: the gradient becomes ``g + l2 * p`` before the rule sees it.
    weight_decay : float, optional
        Decoupled decay: ``p -= learning_rate * weight_decay * p`` before the rule.
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
    ema_momentum : float, optional
        How much of the average stays at each update; 0.99 by default.
    ema_overwrite_frequency : int, optional
        After each so many updates the parameters become their averages.
    gradient_accumulation_steps : int, optional
        So many calls make one update, with the mean of their gradients.
    convention : str, optional
        Whose defaults and formula the rule follows: "paper", "keras", "torch", "optax" or "tfjs";
        `python -m instep conventions` lists which rule exists in which.
    state_dtype : None, optional
        Reserved: state has the dtype of its parameter.

    Notes
    -----
    One step, in order: check everything; `skip_nonfinite` on the raw gradients; unscale;
    accumulate; `grad_norm`; clip; `maximize`; `l2`; `weight_decay`; rule; average; overwrite.
    """

    __signature__: ClassVar[Any] = Signature()

    if TYPE_CHECKING:
        params: Any = argument(default=None, kw_only=False)
        convention: str = argument(default="paper")
        state_dtype: None = argument(default=None)
    learning_rate: Rate = Rate(default=None)
    l2: Number = non_negative(default=0.0)
    weight_decay: Number = non_negative(default=0.0)
    clipvalue: Limit = Limit(default=None)
    clipnorm: Limit = Limit(default=None)
    global_clipnorm: Limit = Limit(default=None)
    maximize: Flag = Flag(default=False)
    loss_scale_factor: Number = Number(default=1.0, at_least=sys.float_info.min)
    skip_nonfinite: Flag = Flag(default=False)
    use_ema: Flag = Flag(default=False)
    ema_momentum: Number = Number(default=0.99, at_least=0, at_most=1)
    ema_overwrite_frequency: Frequency = Frequency(default=None)
    gradient_accumulation_steps: Count = Count(default=1)

    if not TYPE_CHECKING:  # type checkers see a constructor with each class's hyperparameters

        def __init__(
            self,
            params: Any = None,
            *surplus: Any,
            convention: str = "paper",
            state_dtype: None = None,
            **given: Any,
        ) -> None:
            if isinstance(params, (numbers.Number, np.generic)):
                raise TypeError(
                    f"params: expected arrays, got the number {params!r}; "
                    f"did you mean learning_rate={params!r}?"
                )
            self._variant = variant = Variant(type(self), convention)
            if state_dtype is not None:
                raise ValueError("state_dtype: expected None; state has the dtype of its parameter")
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
                        f"{', '.join(names)}; got {name!r}{_meant(name, names)}"
                    )
            values = {name: variant.checked(name, given.get(name)) for name in names}
            variant.check_together(values)
            self._install(values, None if params is None else _bind(variant, params, values))

    # Hyperparameters ----------------------------------------------------------------------------

    def _check_attribute(self, name: str) -> None:
        """Raise AttributeError for a new attribute that may be a misspelt one."""
        cls = type(self)
        ours = cls.__module__.startswith("instep.")  # others may have attributes of their own
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
            else:
                window = "gradient_accumulation_steps"
                is_other = name == window and checked != self._values[name]
                if is_other and binding.core.counters()["window"]:
                    raise ValueError(f"{window}: expected no change in the middle of a window")
                binding = binding.configured(values)
            self._install(values, binding)

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
            return tree.unflatten(tree.leaves) if any(tree.groups) else tree.params

    @property
    def config(self) -> Values:
        """Every hyperparameter in force, by name."""
        return {**self._values, "convention": self._variant.convention}

    @property
    def current_learning_rate(self) -> float:
        """The learning rate of the next update, as a number."""
        rate = self.learning_rate
        if not callable(rate):
            return rate
        return _core.ask(rate, 0 if self._binding is None else self._binding.core.schedule_index)

    @property
    def groups(self) -> list[Mapping[str, Any]]:
        """The groups, the default one first: each a mapping of its hyperparameters and `params`.

        `params` is the list of the group's arrays. The mappings are to read: assigning to the
        optimizer's attributes changes the default group, `build` with other groups the rest.
        """
        binding = self._binding
        names = [*self._own(), *GROUP_OPTIONS]
        overrides: list[Values] = [{}] if binding is None else binding.overrides
        result: list[Values] = []
        for override in overrides:
            values = effective(self._values, override)
            result.append({"params": [], **{name: values[name] for name in names}})
        if binding is not None:
            for leaf, group in zip(binding.tree.leaves, binding.group_of, strict=True):
                result[group]["params"].append(leaf)
        return [MappingProxyType(group) for group in result]

    # Stepping -----------------------------------------------------------------------------------

    def build(self, params: Any) -> None:
        """Bind to arrays, or rebind to others and keep the state.

        Parameters
        ----------
        params : ndarray or nesting of list, tuple and dict
            On a bound optimizer: arrays of equal structure, shapes and dtypes as the bound ones.
            Where the new structure has no groups, those of the old one stay.

        Raises
        ------
        TypeError, ValueError
            If an array cannot be updated in place, or on a bound optimizer differs from the one
            whose state it would take over. Nothing has changed then.
        """
        with self._hold():
            values, binding = self._values, self._binding
            if binding is None:
                self._install(values, _bind(self._variant, params, values))
            elif not self._move(params):
                self._install(values, binding.moved(params, values))

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> None:
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
            if not isinstance(variable, np.ndarray):
                raise TypeError(
                    f"params[{position}]: expected a NumPy array, got {type(variable).__name__}"
                )
        grads, variables = ([each[k] for each in pairs] for k in range(2))
        while True:  # until no other thread changes hyperparameters meanwhile
            values = self._values
            if self._bind_and_step(values, Binding.new(self._variant, variables, values), grads):
                return None

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
    def grad_norm(self) -> float | None:
        """The 2-norm of the last update's gradients over all arrays, with `global_clipnorm`."""
        if self._binding is None or self.global_clipnorm is None:
            return None
        norm: float | None = self._binding.core.grad_norm
        return norm

    @property
    def state(self) -> Any:
        """State in the structure of the parameters: for each a dict of live arrays by slot name.

        Under "step" stands the number of the array's own updates, where the convention counts them.
        """
        self._refresh()
        binding = self._bound("state")
        leaves: list[Values] = [
            {name: _core.alias(slot) for name, slot in slots.items()} for slots in binding.slots
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

    def state_dict(self) -> Values:
        """Return everything that training needs to go on, as plain dicts, numbers and copies.

        Not part of it: the parameters, and schedules, but for what those that have `state_dict`
        and `load_state_dict` remember. One that changes and has neither starts anew.
        """
        with self._hold():
            return _state.dump(self._values, self._bound("state_dict"))

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; schedules stay, and go on where those were.

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
        self._take_over(d, params=False)

    def save(self, path: str | os.PathLike[str], params: bool = True) -> None:
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

        Raises
        ------
        RuntimeError
            If the optimizer is unbound, or in the middle of a step.
        ValueError
            If a container or an array is not what was bound any more.
        OSError
            If the file cannot be written.
        """
        from instep import _checkpoint

        with self._hold():
            _checkpoint.write(path, self._tree("save", params=params))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over what `save` wrote; parameters, if they are part of it, in place.

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
        self._take_over(_checkpoint.read(path), params=True)

    def _tree(self, what: str, *, params: bool) -> Values:
        """Return what `state_dict` does, not copied, and the parameters; for a `_hold`."""
        if not isinstance(params, (bool, np.bool_)):
            raise TypeError(f"params: expected True or False, got {type(params).__name__}")
        binding = self._bound(what)
        binding.core.check_unchanged()
        return _state.dump(self._values, binding, copy=False, params=params)

    def _take_over(self, state: Any, *, params: bool) -> None:
        """Load a state, and the parameters if they are part of it and wanted."""
        with self._hold():
            binding = self._bound("load")
            if params:
                binding.core.check_unchanged()
            others, memories = _state.load(self._values, binding, state, params=params)
            before = []
            try:
                for schedule, memory in memories:
                    before.append((schedule, schedule.state_dict()))
                    schedule.load_state_dict(memory)
                self._install(*others)
            except BaseException:
                for schedule, memory in reversed(before):
                    schedule.load_state_dict(memory)
                raise

    def _resume(self, state: dict[str, Array], step: int) -> None:
        """Go on at an update of a single array with its state in these arrays themselves."""
        binding = self._bound("state")
        binding = binding.restated(self._values, binding.overrides, [state])
        done = step - 1
        counters: _core.Counters = {
            **binding.core.counters(),
            "iterations": done,
            "calls": done,
            "steps": [done],
        }
        self._install(self._values, binding, (), counters)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return super().__reduce_ex__(max(operator.index(protocol), 2))  # older ones know no state

    def __getstate__(self) -> Values:
        with self._hold():
            state: Values = {"convention": self._variant.convention, "values": self._values}
            binding = self._binding
            if binding is not None:
                binding.core.check_unchanged()
                state["params"] = binding.tree.params
                # Arrays that were built later may be in groups that their structure does not show.
                state["groups"] = binding.overrides, binding.group_of
                # NumPy's pickles bring arrays back in another layout, on which sums depend.
                state["orders"] = binding.core.orders()
                state["state"] = _state.dump(self._values, binding)
            return state

    def __setstate__(self, state: Values) -> None:
        self._variant, values = Variant(type(self), state["convention"]), state["values"]
        if "params" not in state:
            return self._install(values, None)
        groups, orders = state["groups"], state["orders"]
        self._install(values, Binding.new(self._variant, state["params"], values, groups, orders))
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


def _meant(name: str, names: Iterable[str]) -> str:
    """Return a question for a name that a hyperparameter has elsewhere, or nearly has."""
    meant = [here for here in _NAMES_ELSEWHERE.get(name, ()) if here in names]
    if not meant:
        from difflib import get_close_matches

        meant = get_close_matches(name, names, 1)
    return f"; did you mean {', '.join(f'{here}=' for here in meant)}?" if meant else ""


def _bind(variant: Variant, params: Any, values: Values) -> Binding:
    """Return the first binding of an optimizer, or say what else the parameters look like."""
    try:
        return Binding.new(variant, params, values)
    except (TypeError, ValueError) as error:
        hint = ""
        if isinstance(params, (list, tuple)) and any(
            isinstance(each, Mapping) and "params" in each for each in params
        ):
            hint = (
                "; groups of arrays are instep.Group(arrays, learning_rate=...), not dicts with a "
                "key 'params'"
            )
        elif any(isinstance(each, np.ndarray) for each in getattr(params, "__dict__", {}).values()):
            hint = "; did you mean vars(...) of the object, the dict of its attributes?"
        raise type(error)(f"{error}{hint}") from None


def _pair(position: int, pair: Any) -> tuple[Any, Any]:
    """Return a (gradient, variable) pair; raise TypeError for anything else."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(
            f"grads_and_vars[{position}]: expected (gradient, variable), got {type(pair).__name__}"
        )
    return pair[0], pair[1]


if unknown := {*_core.options, *_core.group_options} - Optimizer._hyperparameters().keys():
    raise ImportError(f"Optimizer: the engine's options {', '.join(sorted(unknown))} are unknown")
