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
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

import instep
from instep import _core, _foreign
from instep._kinds import Flag, WholeNumber
from instep.interop._torch import COMMON, RULES, Rule, as_there, values_of

if TYPE_CHECKING:
    from instep._optimizer import Optimizer as Engine

_BESIDE: Mapping[str, Sequence[torch.dtype]] = {
    "remainder": (torch.int16, torch.uint16),
    "master": (torch.float32,),
}
"""What state has besides slots where parameters have 16 bits, and its dtypes."""
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
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or torch._C._autograd._profiler_enabled()
        ):
            return _wrapped_step(self, closure) if closure else _wrapped_step(self)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]

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
        self._state = adapter.state
        self._entries_of = itemgetter(*names.all_entries)
        self._groups = [tuple(map(_number, self._entries(group))) for group in adapter.param_groups]
        rule: Any = adapter._rule
        options = [_options(rule, names, group) for group in adapter.param_groups]
        joint = ("learning_rate", *rule._joint)
        common = {name: options[0][name] for name in joint if name in options[0]}
        options = [_without_joint(rule, own, common) for own in options]
        arrays = self._nested([_array(p) for p in self._locals])
        groups = [instep.Group(a, **own) for a, own in zip(arrays, options, strict=True)]
        self._engine = rule(groups, convention=adapter._convention, **common)
        self._slots: list[Mapping[str, Any]] = self._engine._binding.slots
        # State has the elements of this as "step": one operation counts for all.
        self._steps = torch.zeros(len(self._params))
        self._counts = self._steps.numpy()
        by_group = self._nested(self._params)
        self._tensors = _core.Tensors(torch.Tensor, by_group, self._locals, _look, self._counts)
        self._without_state = set(range(len(self._params)))
        self._take_over()

    def _nested(self, items: list[Any]) -> list[list[Any]]:
        """Return a list for each group."""
        if len(self._group_sizes) == 1:
            return [items]
        rest = iter(items)
        return [[next(rest) for _ in range(size)] for size in self._group_sizes]

    def _take_over(self) -> None:
        """Go on with the state that PyTorch's optimizer has."""
        counts = {}
        for k, param in enumerate(self._params):
            entry = self._state.get(param)
            if not entry:
                continue
            slots = self._slots[k]
            count = int(entry.get("step", 1))
            # PyTorch has rounded what state of 16-bit parameters begins with.
            is_rounded = not count and param.dtype.itemsize == 2
            for name, value in entry.items():
                slot = self._slots_by_name.get(name, "")
                # PyTorch's own classes round what they don't know, and let it go stale.
                is_stale = name in _BESIDE and getattr(value, "dtype", None) not in _BESIDE[name]
                if slot in slots and value is not None and not (is_rounded or is_stale):
                    _copy(value, slots[slot], f"state of parameter {k}: {name}")
            self._counts[k] = counts[k] = count
            self._show_state(k)
        _go_on(self._engine, counts)
        self._tensors.remember(self._state)

    def _show_state(self, k: int) -> None:
        """Let PyTorch's optimizer have the k-th parameter's state, in this memory."""
        param, slots = self._params[k], self._slots[k]
        entry: dict[str, Any] = {}
        if self._names.counters:
            entry["step"] = self._steps[k]
        for name, slot in self._slots_by_name.items():
            if slot in slots:
                tensor = _tensor(as_there(name, slots[slot]))
                entry[name] = _distributed_like(tensor, param)
        if entry:
            self._state[param] = entry
        self._without_state.discard(k)

    def is_current(self, adapter: _Adapter) -> bool:
        """Return whether the same memory is meant; take over what groups have become."""
        groups, state = adapter.param_groups, self._state
        if adapter.state is not state or self._tensors.have_changed(groups, state):
            return False
        for k, group in enumerate(adapter.param_groups):
            entries = self._entries(group)
            if entries == self._groups[k]:  # a rate that is a tensor equals its number
                continue
            entries = tuple(map(_number, entries))
            view = self._engine.groups[k + 1]
            for name, value in _options(adapter._rule, self._names, group).items():
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
        return entries

    def step(self) -> None:
        """Update the parameters that have a gradient."""
        self._engine.step(self._tensors.gradients())
        which, params = self._tensors.count(), self._params
        if which is not None:
            params = [params[k] for k in which]
        if self._without_state:
            stepping = range(len(params)) if which is None else which
            for k in self._without_state.intersection(stepping):
                self._show_state(k)
            self._tensors.remember(self._state)
        if params:  # autograd has not seen that their memory was written
            torch.autograd.graph.increment_version(params)


def _go_on(engine: Engine, counts: Mapping[int, int]) -> None:
    """Let arrays go on after so many updates, with the state that they have."""
    values, binding = engine._values, engine._binding
    counters = binding.core.counters()
    for k, count in counts.items():
        counters["steps"][k], counters["begun"][k] = count, count > 0
    counters["iterations"] = max(counters["steps"], default=0)
    engine._install(values, binding.configured(values), (), counters)


def _number(value: Any) -> Any:
    """Return an option of a group with numbers in the place of tensors, which may change."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_number, value))
    return value.item() if isinstance(value, torch.Tensor) else value


def _options(rule: type[Engine], names: Rule, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's options as instep has them."""
    for name in _REFUSED:
        if group.get(name):
            raise ValueError(f"{name}: expected False, got {group[name]!r}; torch.optim has that")
    given = {name: _number(group[name]) for name in names.all_entries if name in group}
    return values_of(rule, names, given, "param_groups")


def _without_joint(
    rule: type[Engine], options: dict[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a group's options but for those that all groups have in common."""
    for name in rule._joint:
        if name in common and options[name] != common[name]:
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


def _tensor(slot: Any) -> torch.Tensor:
    """Return the memory of state as a tensor: uint16 as int16, since its pickles can't be read."""
    return torch.from_numpy(slot.view(np.int16) if slot.dtype == np.uint16 else slot)


def _array(tensor: torch.Tensor) -> Any:
    """Return a tensor's memory as an array."""
    return _foreign.parameter(tensor, "params")


def _look(grad: torch.Tensor) -> tuple[Any, Any]:
    """Return a gradient for instep, and its array as long as gradients lie there, or None.

    What PyTorch makes of a tensor takes longer than a small step, and gradients mostly lie where
    those before them did. The array that is kept does not hold the memory; it is used for a tensor
    alone that is there.
    """
    array = _gradient(grad)
    if not isinstance(array, np.ndarray) or not array.size or not grad.is_contiguous():
        return array, None
    memory: Any = (ctypes.c_char * array.nbytes).from_address(grad.data_ptr())
    return array, np.frombuffer(memory, array.dtype).reshape(array.shape)


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
        super().__init__(params, self._with_defaults(lr, options))

    @classmethod
    def _with_defaults(
        cls, lr: Any, options: Mapping[str, Any], others: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the entries of a group, checked; `others` are options that are not among them."""
        defaults, name_of_rule = cls._defaults(), cls._rule.__name__
        if lr is not None:
            defaults["lr"] = lr
        for name, value in options.items():
            if name not in defaults:
                raise TypeError(
                    f"{name_of_rule}: expected options among {', '.join((*defaults, *others))}; "
                    f"got {name!r}"
                )
            defaults[name] = value
        if defaults["lr"] is None:
            raise TypeError(f"lr: {name_of_rule} has no default for it, give one")
        values_of(cls._rule, cls._names(), defaults, name_of_rule)  # which checks them
        return defaults

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


# Models on an accelerator -------------------------------------------------------------------------


_OF_ENGINE = (
    "clipvalue",
    "clipnorm",
    "global_clipnorm",
    "skip_nonfinite",
    "loss_scale_factor",
    "independent_weight_decay",
    "state_dtype",
    "seed",
)
"""Options of instep's optimizers that `Offloaded` takes for all groups, under their names there."""
_AT_ONCE = ("global_clipnorm", "skip_nonfinite")
"""Those that look at all gradients before the first update."""
_SENT_AS = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
_TRAINED = (*_SENT_AS, torch.float32, torch.float64)


class Offloaded(torch.optim.Optimizer):
    """A rule of instep's with its numbers and its steps on the CPU, for models on an accelerator.

    The parameters' float32 numbers (the masters) and the state are in the CPU's memory. Gradients
    come there as they are; each update writes the parameters in their own dtype on its way, and
    these go back. Parameters travel in buckets: while one is stepped, the gradients of the next
    one are on their way. Training is bit-equal to that of the masters by the plain rule on the same
    gradients.

    Where somebody else writes to a parameter between steps, such as ``model.load_state_dict``, or
    replaces ``p.data``, the numbers that differ from the rounded masters become the new masters.
    What is written in place through ``p.data`` is not seen, as PyTorch does not count it; write to
    the parameter itself within ``torch.no_grad()``.

    Parameters
    ----------
    params : iterable of torch.Tensor, or of dicts
        Parameters or groups, as PyTorch's optimizers take them: dense, in bfloat16 (which needs
        ml_dtypes), float16, float32 or float64 (whose masters are float64), on CUDA or on the CPU,
        where the same code makes one step after the other.
    rule : type or str
        A class that `of` takes, or the name of one of instep's.
    lr : float, optional
        The learning rate; the rule's default by default.
    bucket_bytes : int, optional
        How many bytes of parameters travel together, 32 MiB by default. Two buckets of gradients
        are on the CPU at a time.
    step_in_backward : bool, optional
        Whether a bucket is stepped as soon as its last gradient is there, in ``backward()``, and
        its gradients are given up: each ``backward()`` is an update then, and `step` makes that of
        the buckets that have not got all of their gradients. Such an update can't be taken back
        where a later one fails.
    **options
        Those of ``instep.torch.of(rule)``: ``betas``, ``eps``, ``weight_decay``, ``maximize`` and
        so on, which groups may have of their own; and by instep's names, for all groups,
        `clipvalue`, `clipnorm`, `global_clipnorm`, `skip_nonfinite`, `loss_scale_factor`,
        `independent_weight_decay`, `state_dtype` and `seed`. Random roundings, as `state_dtype`
        brings them, hang on `bucket_bytes`.

    Attributes
    ----------
    state : dict
        Of each parameter: "step", "master" and the rule's state, live, in memory of the CPU.
        ``state_dict`` has it, whatever `bucket_bytes` is.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of another kind, the rule is none, or an option is unknown or out of
        range; if an option or a rule needs all gradients at once, and there are several buckets or
        steps are made in ``backward()``.

    Notes
    -----
    With CUDA, memory that travels is pinned, and copies are made on a stream of their own; state,
    and masters of 16-bit parameters, don't travel. That way has not been run on a device so far.
    """

    def __init__(
        self,
        params: Iterable[Any],
        rule: type[Engine] | str,
        lr: Any = None,
        *,
        bucket_bytes: int = 2**25,
        step_in_backward: bool = False,
        **options: Any,
    ) -> None:
        self._rule: Any = getattr(instep, rule, rule) if isinstance(rule, str) else rule
        made: Any = of(self._rule)
        self._others = {name: options.pop(name) for name in _OF_ENGINE if name in options}
        self._bucket_bytes = WholeNumber(at_least=1).check("bucket_bytes", bucket_bytes)
        self._in_backward = Flag().check("step_in_backward", step_in_backward)
        self._begin()
        super().__init__(params, made._with_defaults(lr, options, _OF_ENGINE))

    def _begin(self) -> None:
        """Have no parameters yet."""
        made: Any = of(self._rule)
        self._names: Rule = made._names()
        self._buckets: list[_Bucket] = []
        self._rooms = _Room(), _Room()
        self._under_way: _Bucket | None = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take more parameters, in a group of their own.

        Raises
        ------
        TypeError, ValueError
            As the constructor. Nothing has changed then.
        """
        super().add_param_group(param_group)
        try:
            self._take_in(len(self.param_groups) - 1)
        except BaseException:
            self.param_groups.pop()
            raise

    def _take_in(self, index: int) -> None:
        """Make buckets of a group."""
        group = self.param_groups[index]
        for k, param in enumerate(group["params"]):
            _check_can_travel(param, f"parameter {k} of group {index}")
        lists = _in_buckets(group["params"], self._bucket_bytes)
        self._check_at_once(len(self._buckets) + len(lists))
        values = _options(self._rule, self._names, group)
        buckets = [_Bucket(self._rule, {**values, **self._others}, each, index) for each in lists]
        for bucket in buckets:
            bucket.show(self.state)
            if self._in_backward:
                bucket.call_when_ready(weakref.WeakMethod(self._step_of))
        self._buckets += buckets

    def _check_at_once(self, buckets: int) -> None:
        """Raise ValueError if all gradients are needed at once, and don't come so."""
        named = [name for name in _AT_ONCE if self._others.get(name)]
        if self._rule._joint:
            named.append(self._rule.__name__)
        if named and self._in_backward:
            raise ValueError(
                f"{named[0]}: needs all gradients at once, so expected step_in_backward=False; got "
                "True, with which each bucket is stepped as soon as it is there"
            )
        if named and buckets > 1:
            raise ValueError(
                f"{named[0]}: needs all gradients at once, so expected one bucket; got {buckets}, "
                "for each group, dtype and device has its own: have one of each with a larger "
                "bucket_bytes, or clip and check gradients before the step, as "
                "torch.nn.utils.clip_grad_norm_ does"
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient.

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
            If a gradient is sparse, or a group's options are out of range. Nothing has changed
            then, but for what was stepped in ``backward()``.

        Notes
        -----
        What interrupts it, or is raised by a rule that is a function in Python, comes when earlier
        buckets may have been stepped.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        buckets = [bucket for bucket in self._buckets if bucket.has_gradients()]
        for bucket in buckets:
            bucket.prepare(self)
        try:
            for bucket in buckets:
                self._push(bucket)
            self._push(None)
        finally:
            self._under_way = None
        for device in {bucket.device for bucket in self._buckets}:
            _current_stream(device).wait_stream(_own_stream(device))
        return loss

    def _step_of(self, bucket: _Bucket) -> None:
        """Make the step of a bucket whose gradients are all there."""
        if bucket is self._under_way:  # of a backward() after which there was no step()
            self._push(None)
        bucket.prepare(self)
        self._push(bucket)
        for param in bucket.params:
            param.grad = None

    def _push(self, bucket: _Bucket | None) -> None:
        """Let a bucket's gradients travel, and meanwhile make the step of the one before."""
        if bucket is not None:
            self._rooms = self._rooms[::-1]
            bucket.fetch(self._rooms[0])
        before, self._under_way = self._under_way, bucket
        if before is not None:
            before.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` has returned, and write the parameters of it.

        Parameters
        ----------
        state_dict : dict
            Of the same rule and parameters; in buckets of any size.

        Raises
        ------
        TypeError, ValueError
            If it is of others. Nothing has changed then.
        """
        saved = [k for group in state_dict["param_groups"] for k in group["params"]]
        here = [param for group in self.param_groups for param in group["params"]]
        if len(saved) != len(here):
            raise ValueError(f"state_dict: expected {len(here)} parameters, got {len(saved)}")
        entries = {p: state_dict["state"].get(k, {}) for k, p in zip(saved, here, strict=True)}
        for k, param in enumerate(here):
            _check_like(entries[param], self.state[param], f"state_dict: parameter {k}")
        # PyTorch would bring state to the parameters' device, in their dtype.
        super().load_state_dict({**state_dict, "state": {}})
        self._go_on_with(entries)

    def _go_on_with(self, entries: Mapping[Any, Mapping[str, Any]]) -> None:
        for bucket in self._buckets:
            bucket.prepare(self)
            bucket.take_over(entries)
            bucket.show(self.state)

    def __getstate__(self) -> dict[str, Any]:
        own = ("_rule", "_others", "_bucket_bytes", "_in_backward")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_rule" not in state:  # PyTorch's load_state_dict brings groups
            return
        entries = dict(self.state)
        self._begin()
        for index in range(len(self.param_groups)):
            self._take_in(index)
        self._go_on_with(entries)


class _Bucket:
    """Parameters that travel together, with an optimizer of instep's for their masters.

    Parameters
    ----------
    rule
        Whose steps are made.
    options
        Its numbers.
    params
        Of one device and dtype.
    group
        Which of the optimizer's groups they are in.
    """

    def __init__(
        self, rule: Any, options: Mapping[str, Any], params: list[torch.Tensor], group: int
    ) -> None:
        self.params, self.device = params, params[0].device
        self._group = group
        dtype, pinned = params[0].dtype, self.device.type == "cuda"
        format_sent = _SENT_AS.get(dtype)
        is_short = format_sent is not None
        kept = torch.float32 if is_short else dtype
        self._masters = [_beside(p, kept, pinned and not is_short) for p in params]
        # What goes back: written by the engine, or the masters themselves.
        self._sent = [_beside(p, dtype, pinned) for p in params] if is_short else self._masters
        self._engine = rule([_array(each) for each in self._masters], copies=format_sent, **options)
        if is_short:
            values, binding = self._engine._values, self._engine._binding
            bits = [_bits(each) for each in self._sent]
            self._engine._install(values, binding.restated(values, binding.grouping, rounded=bits))
        self._seen = [_as_it_is(p) for p in params]
        self._ready = torch.get_device_module(self.device).Event()
        self._gradients: list[Any] = []
        self._entries: list[dict[str, Any]] = []

    def has_gradients(self) -> bool:
        """Return whether there are any."""
        return any(p.grad is not None for p in self.params)

    def call_when_ready(self, step: Callable[[], Callable[[_Bucket], None] | None]) -> None:
        """Call what a weak reference is to when backward has made the last of the gradients."""

        def arrived(_: torch.Tensor) -> None:
            call = step()
            if call and all(p.grad is not None for p in self.params if p.requires_grad):
                call(self)

        for param in filter(lambda p: p.requires_grad, self.params):
            param.register_post_accumulate_grad_hook(arrived)

    def prepare(self, optimizer: Offloaded) -> None:
        """Take over what the group and the parameters have become, and check the gradients."""
        for k, param in enumerate(self.params):
            if param.grad is not None and param.grad.layout is not torch.strided:
                raise TypeError(
                    f"gradient of a parameter of shape {tuple(param.shape)}: expected a dense one, "
                    f"got a {param.grad.layout} one; construct its layer with sparse=False"
                )
            if _as_it_is(param) != self._seen[k]:
                self._hear(k)
        engine, slots = self._engine, self._engine._binding.slots
        group = optimizer.param_groups[self._group]
        for name, value in _options(optimizer._rule, optimizer._names, group).items():
            if getattr(engine, name) != value:
                setattr(engine, name, value)
        if engine._binding.slots is not slots:  # as after amsgrad was switched on
            self.show(optimizer.state)

    def _hear(self, k: int) -> None:
        """Let the masters of a parameter become what somebody else has written to it."""
        master, param = self._masters[k], self.params[k]
        written = param.detach().cpu()
        is_rounded = master.to(written.dtype) == written
        master.copy_(torch.where(is_rounded, master, written.to(master.dtype)))
        self._seen[k] = _as_it_is(param)

    def fetch(self, room: _Room) -> None:
        """Let the gradients travel."""
        grads = [p.grad for p in self.params]
        views = room.for_those([g for g in grads if g is not None])
        own = _own_stream(self.device)
        own.wait_stream(_current_stream(self.device))
        with torch.get_device_module(self.device).stream(own), torch.no_grad():
            for grad, view in views:
                view.copy_(grad, non_blocking=True)
                if grad.is_cuda:  # whose memory is not given away before it was read
                    grad.record_stream(own)
        self._ready.record(own)
        arrays = iter([_array(view) for _, view in views])
        self._gradients = [None if grad is None else next(arrays) for grad in grads]

    def step(self) -> None:
        """Make the step once the gradients are there, and send what has changed back."""
        self._ready.synchronize()  # and what was sent before is there, too
        self._engine.step(self._gradients)
        self._send([k for k, grad in enumerate(self._gradients) if grad is not None])
        self._gradients = []
        self._count()

    def _send(self, which: Iterable[int]) -> None:
        module, own = torch.get_device_module(self.device), _own_stream(self.device)
        with module.stream(own), torch.no_grad():
            for k in which:
                self.params[k].copy_(self._sent[k], non_blocking=True)
                self._seen[k] = _as_it_is(self.params[k])

    def show(self, state: Any) -> None:
        """Let the optimizer have what there is of each parameter, in this memory."""
        self._entries = []
        for param, master, slots in zip(
            self.params, self._masters, self._engine._binding.slots, strict=True
        ):
            tensors = {name: _tensor(slot) for name, slot in slots.items()}
            state[param] = {"step": 0, "master": master, **tensors}
            self._entries.append(state[param])
        self._count()

    def _count(self) -> None:
        counts = self._engine._binding.core.counters()["steps"]
        for entry, count in zip(self._entries, counts, strict=True):
            entry["step"] = count

    def take_over(self, entries: Mapping[Any, Mapping[str, Any]]) -> None:
        """Go on with these masters and this state, which are checked."""
        counts = {}
        for k, (param, here) in enumerate(zip(self.params, self._entries, strict=True)):
            for name, value in entries[param].items():
                if name != "step":
                    here[name].copy_(value)
            counts[k] = int(entries[param]["step"])
        _go_on(self._engine, counts)  # which writes the rounded copies anew
        own = _own_stream(self.device)
        own.wait_stream(_current_stream(self.device))
        self._send(range(len(self.params)))
        _current_stream(self.device).wait_stream(own)


class _Room:
    """Memory of the CPU for the gradients of a bucket at a time."""

    _LINE = 64

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def for_those(self, grads: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return gradients with tensors to copy them to."""
        sizes = [-(-grad.nbytes // self._LINE) * self._LINE for grad in grads]
        if sum(sizes) > self._bytes.numel():
            self._bytes = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=grads[0].is_cuda)
        parts = self._bytes[: sum(sizes)].split(sizes)
        return [
            (grad, part[: grad.nbytes].view(grad.dtype).view(grad.shape))
            for grad, part in zip(grads, parts, strict=True)
        ]


def _check_can_travel(param: Any, what: str) -> None:
    is_plain = param.layout is torch.strided and not hasattr(param, "to_local")
    if not is_plain or param.dtype not in _TRAINED or param.device.type not in ("cuda", "cpu"):
        raise TypeError(
            f"{what}: expected a dense tensor of bfloat16, float16, float32 or float64 on CUDA or "
            f"the CPU, whole in this process; got a {type(param).__name__} of {param.dtype}, "
            f"{param.layout}, on {param.device}; shards of fully_shard are on the CPU with its "
            "CPUOffloadPolicy, where other classes of instep.torch step them"
        )
    _array(torch.empty(0, dtype=param.dtype))  # of bfloat16 NumPy may know nothing


def _in_buckets(params: Iterable[torch.Tensor], most: int) -> list[list[torch.Tensor]]:
    """Return parameters of one device and dtype in lists of so many bytes, or of a single one."""
    buckets: list[list[torch.Tensor]] = []
    last: dict[Any, list[torch.Tensor]] = {}
    for param in params:
        kind = param.device, param.dtype
        if kind not in last or sum(p.nbytes for p in last[kind]) + param.nbytes > most:
            last[kind] = []
            buckets.append(last[kind])
        last[kind].append(param)
    return buckets


def _check_like(given: Any, here: Mapping[str, Any], what: str) -> None:
    """Raise TypeError or ValueError for an entry of state that is not like the one here."""
    if not isinstance(given, Mapping) or given.keys() != here.keys():
        raise ValueError(
            f"{what}: expected {', '.join(here)}, got "
            f"{', '.join(map(str, given)) or 'nothing'}; construct Offloaded with the rule and the "
            "options of the one that was saved"
        )
    for name, own in here.items():
        value = given[name]
        if name == "step":
            WholeNumber(at_least=0).check(f"{what}: step", value)
        elif not isinstance(value, torch.Tensor):
            raise TypeError(f"{what}: {name}: expected a tensor, got {type(value).__name__}")
        elif (value.shape, value.dtype) != (own.shape, own.dtype):
            raise ValueError(
                f"{what}: {name}: expected a {own.dtype} tensor of shape {tuple(own.shape)}, got a "
                f"{value.dtype} tensor of shape {tuple(value.shape)}"
            )


def _beside(param: torch.Tensor, dtype: torch.dtype, pinned: bool) -> torch.Tensor:
    """Return the numbers of a parameter in memory of the CPU, in a dtype."""
    made = torch.empty_like(param.detach(), dtype=dtype, device="cpu", pin_memory=pinned)
    return made.copy_(param.detach())


def _as_it_is(param: torch.Tensor) -> tuple[int, int]:
    """Return what changes when somebody writes to a parameter or replaces its data."""
    return param._version, param.data_ptr()


def _bits(tensor: torch.Tensor) -> Any:
    """Return a tensor's memory as an array in the engine's dtype for its format."""
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


@cache
def _own_stream(device: torch.device) -> Any:
    """Return the stream on which gradients and parameters of a device travel."""
    return torch.get_device_module(device).Stream(device)


def _current_stream(device: torch.device) -> Any:
    return torch.get_device_module(device).current_stream(device)


def __getattr__(name: str) -> type[torch.optim.Optimizer]:
    rule = getattr(instep, name, None)
    if name.startswith("_") or not (isinstance(rule, type) and issubclass(rule, instep.Optimizer)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return of(rule)
