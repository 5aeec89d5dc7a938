"""instep's step under PyTorch's optimizers: their constructors, groups, hooks and state.

``instep.torch.Adam(model.parameters(), lr=0.001)`` is a `torch.optim.Adam` whose step is instep's,
on the very memory of parameters, gradients and state; so it is with all classes that both have.
Rules that PyTorch lacks are here as classes of `torch.optim.Optimizer` in PyTorch's spelling (`lr`,
`betas`, `eps`), such as ``instep.torch.Lion``, and `of` makes one of any rule. Parameters are on
the CPU.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

import instep
from instep import _foreign
from instep.interop._torch import COMMON, RULES, Rule, as_there, values_of

if TYPE_CHECKING:
    from instep._optimizer import Optimizer as Engine

_BESIDE = ("remainder", "master")
"""What state has besides slots, where parameters have 16 bits."""
_BETAS = ("beta_1", "beta_2", "beta_3")
_REFUSED = ("differentiable", "capturable")
"""What PyTorch's own steps can do, and these cannot."""


class _Adapter(torch.optim.Optimizer):
    """Makes the steps of an optimizer of PyTorch's with instep."""

    _rule: ClassVar[type[Engine]]
    _convention: ClassVar[str] = "torch"
    _parts: _Parts | None = None

    @classmethod
    def _names(cls) -> Rule:
        """Return what groups and state are called here and there."""
        return RULES[cls._rule.__name__]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Of PyTorch's fused steps; here a scaler unscales gradients as for all others.
        self._step_supports_amp_scaling = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient, in place.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew, and returns the loss.

        Returns
        -------
        object
            What `closure` returned, or None.

        Raises
        ------
        TypeError, ValueError
            If a parameter or a gradient can't be updated here. Nothing has changed then.
        """
        # What PyTorch wraps around steps takes several times as long as a small one.
        if self._has_hooks() or torch._C._autograd._profiler_enabled():
            return _wrapped_step(self, closure) if closure else _wrapped_step(self)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]

    def _has_hooks(self) -> bool:
        own = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        return bool(own or _global_optimizer_pre_hooks or _global_optimizer_post_hooks)

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parts = self._parts
        if parts is None or not parts.is_current(self):
            parts = self._parts = _Parts(self)
        parts.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` of the same class, or of PyTorch's own, has returned."""
        super().load_state_dict(state_dict)
        # PyTorch rounds state to the parameters' dtype, and takes what is left over for numbers.
        saved = [each for group in state_dict["param_groups"] for each in group["params"]]
        here = [each for group in self.param_groups for each in group["params"]]
        for index, param in zip(saved, here, strict=True):
            if param.dtype.itemsize == 2 and index in state_dict["state"]:
                self.state[param] = dict(state_dict["state"][index])
        self._parts = _Parts(self)  # PyTorch's state is still the memory that was given

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take more parameters, in a group of their own."""
        super().add_param_group(param_group)
        self._parts = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._parts = None


_wrapped_step = torch.optim.Optimizer.profile_hook_step(_Adapter._step)


class _Parts:
    """An optimizer of instep's on the memory of one of PyTorch's.

    Parameters
    ----------
    adapter
        The one of PyTorch's.
    """

    def __init__(self, adapter: _Adapter) -> None:
        names = self._names = adapter._names()
        self._slots_by_name = {**names.slots, **{name: name for name in _BESIDE}}
        self._group_sizes = [len(group["params"]) for group in adapter.param_groups]
        self._params = [p for group in adapter.param_groups for p in group["params"]]
        self._locals = [_local(p, f"parameter {k}") for k, p in enumerate(self._params)]
        self._addresses = [p.data_ptr() for p in self._locals]
        self._state = adapter.state
        self._entries_of = itemgetter(*names.all_entries)
        self._groups = [self._entries(group) for group in adapter.param_groups]
        rule: Any = adapter._rule
        options = [_options(adapter, names, group) for group in adapter.param_groups]
        common = {name: options[0][name] for name in ("learning_rate", *rule._joint)}
        options = [_without_joint(rule, own, common) for own in options]
        arrays = self._nested([_array(p) for p in self._locals])
        groups = [instep.Group(a, **own) for a, own in zip(arrays, options, strict=True)]
        self._engine = rule(groups, convention=adapter._convention, **common)
        self._slots: list[Mapping[str, Any]] = self._engine._binding.slots
        # State has the elements of this as "step": one operation counts for all.
        self._steps = torch.zeros(len(self._params))
        self._counts = self._steps.numpy()
        self._all: Sequence[int] = range(len(self._params))
        self._gradients = [_Gradient() for _ in self._params]
        self._without_state = set(range(len(self._params)))
        self._take_over()

    def _nested(self, items: Sequence[Any]) -> list[list[Any]]:
        """Return a list for each group."""
        if len(self._group_sizes) == 1:
            return [list(items)]
        rest = iter(items)
        return [[next(rest) for _ in range(size)] for size in self._group_sizes]

    def _take_over(self) -> None:
        """Go on with the state that PyTorch's optimizer has."""
        counters = self._engine._binding.core.counters()
        for k, param in enumerate(self._params):
            entry = self._state.get(param)
            if not entry:
                continue
            slots = self._slots[k]
            for name, value in entry.items():
                slot = self._slots_by_name.get(name, "")
                if slot in slots and value is not None:
                    _copy(value, slots[slot], f"state of parameter {k}: {name}")
            steps = int(entry.get("step", 1))
            counters["steps"][k], counters["begun"][k] = steps, steps > 0
            self._counts[k] = steps
            self._show_state(k)
        counters["iterations"] = max(counters["steps"], default=0)
        values, binding = self._engine._values, self._engine._binding
        self._engine._install(values, binding.configured(values), (), counters)

    def _show_state(self, k: int) -> None:
        """Let PyTorch's optimizer have the k-th parameter's state, in this memory."""
        param, slots = self._params[k], self._slots[k]
        entry: dict[str, Any] = {}
        if self._names.counters:
            entry["step"] = self._steps[k]
        for name, slot in self._slots_by_name.items():
            if slot in slots:
                tensor = torch.from_numpy(as_there(name, slots[slot]))
                entry[name] = _distributed_like(tensor, param)
        if entry:
            self._state[param] = entry
        self._without_state.discard(k)

    def is_current(self, adapter: _Adapter) -> bool:
        """Return whether the same memory is meant; take over what groups have become."""
        addresses = [p.data_ptr() for p in self._locals]
        if adapter.state is not self._state or addresses != self._addresses:
            return False
        for k, group in enumerate(adapter.param_groups):
            entries = self._entries(group)
            if entries == self._groups[k]:
                continue
            view = self._engine.groups[k + 1]
            for name, value in _options(adapter, self._names, group).items():
                if name in adapter._rule._joint:
                    setattr(self._engine, name, value)
                elif view[name] != value:
                    view[name] = value
            self._groups[k] = entries
        return True

    def _entries(self, group: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what a group has of what instep knows, as it is now."""
        try:
            entries: tuple[Any, ...] = self._entries_of(group)
        except KeyError:  # of a checkpoint from before there was one
            entries = tuple(group.get(name) for name in self._names.all_entries)
        return tuple(map(_number, entries)) if torch.Tensor in map(type, entries) else entries

    def step(self) -> None:
        """Update the parameters that have a gradient."""
        grads, stepping = [], self._all
        for known, param in zip(self._gradients, self._params, strict=True):
            grad = param.grad
            grads.append(None if grad is None else known.array_of(grad))
        if any(grad is None for grad in grads):
            stepping = [k for k in self._all if grads[k] is not None]
        self._engine.step(self._nested(grads))
        if stepping is self._all:
            np.add(self._counts, 1, self._counts)
            params = self._params
        else:
            self._counts[stepping] += 1
            params = [self._params[k] for k in stepping]
        for k in self._without_state.intersection(stepping) if self._without_state else ():
            self._show_state(k)
        if params:  # autograd has not seen that their memory was written
            torch.autograd.graph.increment_version(params)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value


def _options(adapter: _Adapter, names: Rule, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's options as instep has them."""
    for name in _REFUSED:
        if group.get(name):
            raise ValueError(f"{name}: expected False, got {group[name]!r}; torch.optim has that")
    given = {name: _number(group[name]) for name in names.all_entries if name in group}
    return values_of(adapter._rule, names, given, "param_groups")


def _without_joint(
    rule: type[Engine], options: dict[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a group's options but for those that all groups have in common."""
    for name in rule._joint:
        if options[name] != common[name]:
            raise ValueError(
                f"{name}: expected {common[name]!r} in all groups, for {rule.__name__} has one for "
                f"all arrays; got {options[name]!r}"
            )
    return {name: value for name, value in options.items() if name not in rule._joint}


def _local(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """Return the part of a tensor that is in this process, which must be on the CPU."""
    to_local = getattr(tensor, "to_local", None)
    local: torch.Tensor = tensor if to_local is None else to_local()
    if not local.is_cpu or local.layout is not torch.strided:
        raise TypeError(
            f"{what}: expected a dense tensor on the CPU, got a {local.layout} one on "
            f"{local.device}; use torch.optim's optimizer for it, or train a copy on the CPU"
        )
    return local


def _distributed_like(tensor: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """Return a tensor distributed as a parameter of its shape is, if that is."""
    mesh = getattr(param, "device_mesh", None)
    if mesh is None or tensor.dim() == 0:
        return tensor
    kind: Any = type(param.data)
    placements: Any = getattr(param, "placements", ())
    distributed: torch.Tensor = kind.from_local(tensor, mesh, placements, run_check=False)
    return distributed


def _array(tensor: torch.Tensor) -> Any:
    """Return a tensor's memory as an array."""
    return _foreign.parameter(tensor, "params")


class _Gradient:
    """Finds the array of a parameter's gradient, which is mostly where the one before was.

    What PyTorch makes of a tensor takes longer than a small step. The array that is kept does not
    hold the memory; it is used for a tensor alone that is there.
    """

    __slots__ = ("_address", "_array", "_dtype")

    def __init__(self) -> None:
        self._address = 0
        self._array: Any = None
        self._dtype: torch.dtype | None = None

    def array_of(self, grad: torch.Tensor) -> Any:
        """Return the array of a gradient."""
        try:
            is_there = grad.data_ptr() == self._address and grad.dtype is self._dtype
        except RuntimeError:  # a sparse one has no memory of its own
            return _gradient(grad)
        if is_there and grad.is_contiguous():
            return self._array
        array = _gradient(grad)
        if isinstance(array, np.ndarray) and array.size and grad.is_contiguous():
            memory: Any = (ctypes.c_char * array.nbytes).from_address(grad.data_ptr())
            self._array = np.frombuffer(memory, array.dtype).reshape(array.shape)
            self._address, self._dtype = grad.data_ptr(), grad.dtype
        return array


def _gradient(grad: torch.Tensor) -> Any:
    """Return a gradient for instep."""
    try:
        return grad.numpy()
    except (RuntimeError, TypeError):  # sparse, distributed, bfloat16, part of a graph
        local = getattr(grad, "to_local", None)
        grad = (grad if local is None else local()).detach()
        if grad.layout is torch.sparse_coo:
            return instep.Rows.of(grad)
        return grad


def _copy(value: Any, to: Any, what: str) -> None:
    """Copy a tensor of state, maybe of other bits, to an array."""
    local = _local(value, what).detach() if isinstance(value, torch.Tensor) else value
    is_bits = isinstance(local, torch.Tensor) and local.dtype == torch.bfloat16
    array = np.asarray(local.float() if is_bits else local)
    if array.size != to.size:
        raise ValueError(f"{what}: expected {to.size} elements, got {array.size}")
    to[...] = array.reshape(to.shape)


# PyTorch's own classes ---------------------------------------------------------------------------


class SGD(_Adapter, torch.optim.SGD):
    """`torch.optim.SGD` with instep's step."""

    _rule = instep.SGD


class Adagrad(_Adapter, torch.optim.Adagrad):
    """`torch.optim.Adagrad` with instep's step."""

    _rule = instep.Adagrad


class RMSprop(_Adapter, torch.optim.RMSprop):
    """`torch.optim.RMSprop` with instep's step."""

    _rule = instep.RMSprop


class Adadelta(_Adapter, torch.optim.Adadelta):
    """`torch.optim.Adadelta` with instep's step."""

    _rule = instep.Adadelta


class Adam(_Adapter, torch.optim.Adam):
    """`torch.optim.Adam` with instep's step."""

    _rule = instep.AdamW  # whose weight decay may be either, as PyTorch's by a flag

    @classmethod
    def _names(cls) -> Rule:
        return RULES["Adam"]._replace(decoupled=(False, True))


class AdamW(Adam, torch.optim.AdamW):
    """`torch.optim.AdamW` with instep's step."""

    @classmethod
    def _names(cls) -> Rule:
        return RULES["AdamW"]


class Adamax(_Adapter, torch.optim.Adamax):
    """`torch.optim.Adamax` with instep's step."""

    _rule = instep.Adamax


class NAdam(_Adapter, torch.optim.NAdam):
    """`torch.optim.NAdam` with instep's step."""

    _rule = instep.Nadam


class RAdam(_Adapter, torch.optim.RAdam):
    """`torch.optim.RAdam` with instep's step."""

    _rule = instep.RAdam


class Rprop(_Adapter, torch.optim.Rprop):
    """`torch.optim.Rprop` with instep's step."""

    _rule = instep.Rprop


class ASGD(_Adapter, torch.optim.ASGD):
    """`torch.optim.ASGD` with instep's step."""

    _rule = instep.ASGD


class Adafactor(_Adapter, torch.optim.Adafactor):
    """`torch.optim.Adafactor` with instep's step."""

    _rule = instep.Adafactor


class Muon(_Adapter, torch.optim.Muon):
    """`torch.optim.Muon` with instep's step, which computes in the parameters' precision."""

    _rule = instep.Muon


# Other rules --------------------------------------------------------------------------------------


class _Own(_Adapter):
    """A rule that PyTorch lacks, in its spelling."""

    _convention = "paper"

    def __init__(self, params: Iterable[Any], lr: Any = None, **options: Any) -> None:
        names, defaults = self._names(), self._defaults()
        if lr is not None:
            defaults["lr"] = lr
        for name, value in options.items():
            if name not in defaults:
                raise TypeError(
                    f"{type(self).__name__}: expected options among {', '.join(defaults)}; got "
                    f"{name!r}"
                )
            defaults[name] = value
        if defaults["lr"] is None:
            raise TypeError(f"lr: {type(self).__name__} has no default for it, give one")
        values_of(self._rule, names, defaults, type(self).__name__)  # which checks them
        super().__init__(params, defaults)

    @classmethod
    @cache
    def _names(cls) -> Rule:
        known = cls._rule._hyperparameters()
        betas = tuple(name for name in _BETAS if name in known)
        entries: dict[str, tuple[str, ...]] = {"betas": betas} if len(betas) > 1 else {}
        for name in cls._rule._own():
            is_beta = len(betas) > 1 and name in betas
            if name != "learning_rate" and not is_beta:
                entries["eps" if name == "epsilon" else name] = (name,)
        info = cls._rule._info()
        slots = [name for name, _ in info["slots"]]
        return Rule(
            cls._rule.__name__,
            entries,
            {name: name for name in (*slots, *info["scalars"])},
            decoupled=(True,),
        )

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        known = cls._rule._hyperparameters()
        defaults: dict[str, Any] = {}
        for entry, own in {**COMMON, **cls._names().entries}.items():
            values = tuple(known[name].default for name in own)
            defaults[entry] = values if len(own) > 1 else values[0]
        return defaults


def of(rule: type[Engine]) -> type[torch.optim.Optimizer]:
    """Return a rule as one of PyTorch's optimizers.

    Parameters
    ----------
    rule : type
        A class of instep's, one's own or one of `instep.gallery` among them.

    Returns
    -------
    type
        A `torch.optim.Optimizer`, whose constructor takes ``params, lr`` and by name ``betas``,
        ``eps``, ``weight_decay`` (decoupled, unless the rule's formula has it), ``maximize`` and
        the rule's other hyperparameters, for all parameters or in groups.

    Raises
    ------
    TypeError
        If it is no rule.
    """
    is_rule = isinstance(rule, type) and issubclass(rule, instep.Optimizer)
    if not is_rule or rule is instep.Optimizer:
        raise TypeError(f"rule: expected a subclass of instep.Optimizer, got {rule!r:.80}")
    known: Any = _made  # to type checkers, classes with a descriptor are not hashable
    made: type[torch.optim.Optimizer] = known(rule)
    return made


@cache
def _made(rule: type[Engine]) -> type[torch.optim.Optimizer]:
    doc = f"`instep.{rule.__name__}` as an optimizer of PyTorch's.\n\n{inspect.getdoc(rule)}"
    namespace = {"_rule": rule, "__doc__": doc, "__module__": __name__}
    made: type[torch.optim.Optimizer] = type(rule.__name__, (_Own,), namespace)
    return made


def __getattr__(name: str) -> type[torch.optim.Optimizer]:
    rule = getattr(instep, name, None)
    if name.startswith("_") or not (isinstance(rule, type) and issubclass(rule, instep.Optimizer)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return of(rule)
