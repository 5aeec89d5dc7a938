"""Optimizer state from and to Optax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep.interop._common import (
    agree_with_last_update,
    array_of,
    check_last_update,
    check_like,
    check_no_window,
    check_own,
    count_of,
    entry_of,
    listed,
    number_of,
    resumed,
    shown,
)

if TYPE_CHECKING:
    from instep._binding import Binding
    from instep._optimizer import Optimizer
    from instep._rule import Values


class _Arrays(NamedTuple):
    """A field that holds an array for each parameter: a slot, and its sign there.

    With `always`, Optax has the field where no array has the slot, too, and does not use it;
    `by_axis`: for each parameter it has a list of an array per axis, of slots with their numbers.
    """

    slot: str
    sign: int = 1
    always: bool = False
    by_axis: bool = False


class _Number(NamedTuple):
    """A field that holds one number for all parameters: a slot of each of them here."""

    slot: str


class _Count(NamedTuple):
    """A field that counts updates, from some number on; `only` with a hyperparameter."""

    first: int = 0
    only: str = ""


class _Setting(NamedTuple):
    """A field that holds a hyperparameter."""

    name: str


@dataclass(frozen=True)
class _Leaf:
    """Stands for an array in the structure of the parameters."""

    index: int


class _Nested(NamedTuple):
    """A field that holds another state."""


class _Window(NamedTuple):
    """A field that counts gradients that wait for their update: 0 here."""


class _Cleared(NamedTuple):
    """A field that does not matter outside of a window, and is zeros there."""


_Field = _Arrays | _Number | _Count | _Setting | _Nested | _Window | _Cleared
_Record = Mapping[str, _Field]
"""The fields of one of Optax's named tuples."""


class _Rule(NamedTuple):
    """What Optax calls a rule, its state, and hyperparameters here that it has not."""

    name: str
    records: tuple[_Record, ...]
    lacks: tuple[str, ...] = ()


def _moments(second: str = "v") -> _Record:
    return {"count": _Count(), "mu": _Arrays("m"), "nu": _Arrays(second)}


def _schedule_free(*of_base: _Record) -> tuple[_Record, ...]:
    own: _Record = {
        "b1": _Setting("beta_1"),
        "weight_sum": _Number("weight_sum"),
        "step_count": _Count(first=1),
        "max_lr": _Number("learning_rate_max"),
        "base_optimizer_state": _Nested(),
        "z": _Arrays("z"),
    }
    return own, *of_base


_ADAM: _Record = {**_moments(), "nu_max": _Arrays("v_max")}
_RULES: Mapping[str, _Rule] = {
    "SGD": _Rule("sgd", ({"trace": _Arrays("momentum")},), ("dampening",)),
    "Adagrad": _Rule(
        "adagrad", ({"sum_of_squares": _Arrays("accumulator")},), ("learning_rate_decay",)
    ),
    "RMSprop": _Rule(
        "rmsprop",
        (
            {
                "count": _Count(only="bias_correction"),
                "mu": _Arrays("mean_gradient"),
                "nu": _Arrays("mean_square"),
            },
            {"trace": _Arrays("momentum", -1)},
        ),
    ),
    "Adadelta": _Rule(
        "adadelta", ({"e_g": _Arrays("mean_square"), "e_x": _Arrays("mean_square_update")},)
    ),
    "Adam": _Rule("adam or amsgrad", (_ADAM,)),
    "AdamW": _Rule("adamw", (_ADAM,)),
    "Adamax": _Rule("adamax", (_moments("u"),), ("learning_rate_decay",)),
    "Nadam": _Rule("nadam", (_moments(),), ("momentum_decay",)),
    "RAdam": _Rule("radam", (_moments(),)),
    "Rprop": _Rule(
        "rprop",
        ({"step_sizes": _Arrays("step_size"), "prev_updates": _Arrays("previous_gradient")},),
    ),
    "Lion": _Rule("lion", ({"count": _Count(), "mu": _Arrays("m")},)),
    "Lamb": _Rule("lamb", (_moments(),)),
    "Lars": _Rule("lars", ({"trace": _Arrays("momentum", -1, always=True)},)),
    "Yogi": _Rule("yogi", (_moments(),)),
    "AdaBelief": _Rule("adabelief", (_moments(),)),
    "Adan": _Rule(
        "adan",
        (
            {
                "m": _Arrays("m"),
                "v": _Arrays("v"),
                "n": _Arrays("n"),
                "g": _Arrays("previous_gradient"),
                "t": _Count(),
            },
        ),
    ),
    "NovoGrad": _Rule("novograd", (_moments(),)),
    "SignSGD": _Rule("sign_sgd", ()),
    "Signum": _Rule("signum", ({"count": _Count(), "ema": _Arrays("momentum", always=True)},)),
    "Fromage": _Rule("fromage", ()),
    "AdEMAMix": _Rule(
        "contrib.ademamix",
        (
            {
                "count": _Count(),
                "count_m2": _Count(),
                "m1": _Arrays("m_1"),
                "m2": _Arrays("m_2"),
                "nu": _Arrays("v"),
            },
        ),
    ),
    "ScheduleFreeAdamW": _Rule(
        "contrib.schedule_free_adamw", _schedule_free({"count": _Count(), "nu": _Arrays("v")})
    ),
    "ScheduleFreeSGD": _Rule("contrib.schedule_free_sgd", _schedule_free()),
    "Prodigy": _Rule(
        "contrib.prodigy",
        (
            {
                "exp_avg": _Arrays("m"),
                "exp_avg_sq": _Arrays("v"),
                "grad_sum": _Arrays("s"),
                "params0": _Arrays("p_0"),
                "estim_lr": _Number("d"),
                "numerator_weighted": _Number("r"),
                "count": _Count(),
            },
        ),
    ),
    "Adafactor": _Rule(
        "adafactor",
        (
            {
                "count": _Count(),
                "v_row": _Arrays("r", always=True),
                "v_col": _Arrays("c", always=True),
                "v": _Arrays("v", always=True),
            },
            {"count": _Count(), "ema": _Arrays("momentum")},
        ),
        ("relative_step", "epsilon_2"),
    ),
    "SM3": _Rule(
        "sm3",
        (
            {
                "mu": _Arrays("accumulator_", by_axis=True, always=True),
                "nu": _Arrays("momentum", always=True),
            },
        ),
    ),
    "Muon": _Rule(
        "contrib.muon",
        (
            {
                "count": _Count(),
                "mu": _Arrays("momentum", always=True),
                "ns_coeffs": _Setting("ns_coefficients"),
            },
            {
                "count": _Count(),
                "mu": _Arrays("m", always=True),
                "nu": _Arrays("v", always=True),
            },
        ),
        ("adjust_lr_fn", "rms_rate"),
    ),
}
_OF_A_SCHEDULE: _Record = {"count": _Count()}
_OF_A_WINDOW: _Record = {
    "mini_step": _Window(),
    "gradient_step": _Count(),
    "inner_opt_state": _Nested(),
    "acc_grads": _Cleared(),
    "skip_state": _Cleared(),
}
_ELSEWHERE = ("u_product", "last_beta_1")
"""Slots that follow from hyperparameters, and that Optax does not have."""


def from_optax(optimizer: Optimizer, state: Any) -> None:
    """Take over the state of an Optax optimizer.

    Parameters
    ----------
    optimizer
        Bound to arrays in the structure of Optax's parameters, with ``convention="optax"``, and
        with the hyperparameters of the Optax optimizer, of which its state holds none.
    state
        The state: nested tuples and named tuples of arrays, as `init` and `update` return it, or
        dicts in their place, as flax's ``to_state_dict`` and ``msgpack_restore`` do. Chains, masks,
        ``partition`` and ``MultiSteps`` may be around the rule.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If the state is of another rule, incomplete, in the middle of an accumulation window, or not
        for these arrays. Nothing has changed then.

    Notes
    -----
    Rules that differ in the formula alone have the same state, which does not tell them apart:
    adam, adamax, nadam, radam, yogi, adabelief, lamb and novograd. sgd, adagrad, rmsprop, adadelta,
    rprop, lars and sm3 count no updates; unless a schedule does, `iterations` stays, and is 1 if it
    was 0. Of ``inject_hyperparams`` give the `inner_state`.
    """
    binding, d, exchange = _prepared(optimizer, "from_optax")
    exchange.take(state)
    counts = {count: what for what, count in reversed(exchange.counts)}
    if len(counts) > 1:
        given = ", ".join(f"{count} in {what}" for count, what in counts.items())
        raise ValueError(f"state: expected the same count of updates everywhere, got {given}")
    if counts:
        (d["iterations"],) = counts
    elif any(callable(group["learning_rate"]) for group in optimizer.groups):
        raise ValueError(
            "state: expected the count of a schedule, since the learning rate here is one; got a "
            "state without any count"
        )
    elif exchange.met:
        d["iterations"] = max(d["iterations"], 1)
    updates = d["iterations"]
    groups = optimizer.groups
    for k, path in enumerate(binding.tree.paths):
        entry = d["arrays"][path]
        slots = {name: entry[name] for name in binding.slots[k]}
        if "u_product" in slots:
            slots["u_product"] = np.array(groups[binding.group_of[k]]["beta_1"] ** updates)
        d["arrays"][path] = resumed(entry, updates, slots)
    agree_with_last_update(optimizer, binding, d)
    d["window"] = 0
    del d["calls"]  # as many as make these updates
    optimizer.load_state_dict(d)


def to_optax(optimizer: Optimizer, like: Any) -> Any:
    """Return the state of an Optax optimizer that goes on from this one.

    Parameters
    ----------
    optimizer
        As for `from_optax`.
    like
        A state of the Optax optimizer, such as `init` returns, in any of the forms that
        `from_optax` takes.

    Returns
    -------
    Any
        The same structure, with new ndarrays in it.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If `like` is of another rule, or if Optax's state has no place for something: gradients in
        the middle of an accumulation window, a hyperparameter of other conventions, counts from
        another first step.

    Notes
    -----
    A state holds no hyperparameters: those of the Optax optimizer are the caller's, those of groups
    (``partition``), clipping, decay and schedules among them. Averages of the parameters, which
    arrays are frozen, `skip_nonfinite` and `skipped_steps` are no part of it.
    """
    binding, d, exchange = _prepared(optimizer, "to_optax", writes=True)
    check_no_window(d, "Optax's state here")
    check_last_update(optimizer, binding, d)
    return exchange.take(like)


def _prepared(
    optimizer: Optimizer, caller: str, *, writes: bool = False
) -> tuple[Binding, Values, _Exchange]:
    rule = entry_of(optimizer, "optax", _RULES)
    binding = optimizer._bound(caller)
    check_own(optimizer, {*type(optimizer)._own()} - {*rule.lacks}, f"Optax's {rule.name}")
    d = optimizer.state_dict()
    return binding, d, _Exchange(optimizer, rule, binding, d, writes=writes)


class _Exchange:
    """A walk over a state of Optax's, in which every number meets its counterpart here.

    Attributes
    ----------
    counts
        Each count of updates that was met, and where.
    met
        Slots that were met, with the indices of their arrays.
    """

    def __init__(
        self, optimizer: Optimizer, rule: _Rule, binding: Binding, d: Values, *, writes: bool
    ) -> None:
        self.counts: list[tuple[str, int]] = []
        self.met: set[tuple[int, str]] = set()
        self._groups = optimizer.groups
        self._rule, self._binding, self._writes = rule, binding, writes
        self._name = "like" if writes else "state"
        self._updates: int = d["iterations"]
        self._entries: list[Values] = [d["arrays"][path] for path in binding.tree.paths]
        self._indices = binding.tree.unflatten([_Leaf(k) for k in range(len(self._entries))])
        self._scalars = binding.variant.rule._info()["scalars"]
        slots = {name for each in binding.slots for name in each}
        own = (_used(record, slots, self._groups) for record in rule.records)
        self._records = [record for record in own if record]
        self._around: list[_Record] = [_OF_A_SCHEDULE]
        if optimizer.gradient_accumulation_steps > 1:
            self._around.append(_OF_A_WINDOW)

    def take(self, state: Any) -> Any:
        """Return the state, with the numbers from here in it if this writes."""
        new = self._state(state, self._name)
        for k, slots in enumerate(self._binding.slots):
            for slot in slots:
                if slot not in _ELSEWHERE and (k, slot) not in self.met:
                    raise ValueError(
                        f"{self._name}: expected {self._expected()}; got none with {slot!r} of "
                        f"{self._binding.tree.paths[k]}"
                    )
        return new

    def _expected(self) -> str:
        records = " and ".join(f"({', '.join(record)})" for record in self._records)
        return f"the state of Optax's {self._rule.name}, {records or 'which is empty'}"

    def _state(self, node: Any, what: str) -> Any:
        parts = _by_name(node)
        if parts is None:
            raise ValueError(f"{what}: expected {self._expected()}; got {shown(node)}")
        for record in (*self._records, *self._around):
            if record.keys() == parts.keys():
                new = [
                    self._field(record[name], part, f"{what}.{name}")
                    for name, part in parts.items()
                ]
                return _rebuilt(node, new)
        if len(parts) > 1 and "inner_state" in parts:
            raise ValueError(
                f"{what}: expected {self._expected()}; got ({', '.join(parts)}), of which give the "
                "inner_state"
            )
        return _rebuilt(
            node, [self._state(part, _at(what, node, name)) for name, part in parts.items()]
        )

    def _field(self, field: _Field, theirs: Any, what: str) -> Any:
        match field:
            case _Arrays():
                return self._arrays(field, theirs, self._indices, what)
            case _Number():
                return self._number(field, theirs, what)
            case _Count():
                return self._count(field, theirs, what)
            case _Setting():
                self._check_setting(field, theirs, what)
            case _Nested():
                return self._state(theirs, what)
            case _Window():
                self._check_no_window(theirs, what)
            case _Cleared():
                return self._cleared(theirs) if self._writes else theirs
        return theirs

    def _arrays(self, field: _Arrays, theirs: Any, ours: Any, what: str) -> Any:
        """Meet a structure of arrays like that of the parameters, whose places are `ours`."""
        parts = _by_name(theirs)
        if parts is not None and not parts:
            return theirs  # masked, or empty here as well
        if not isinstance(ours, _Leaf):
            if _by_name(ours) is None:
                return theirs  # no parameter
            aligned = _aligned(theirs, ours)
            if aligned is None:
                raise ValueError(
                    f"{what}: expected the structure of the parameters, {_outline(ours)}; got "
                    f"{_outline(theirs)}"
                )
            new = [
                self._arrays(field, part, mine, _at(what, theirs, name))
                for name, (part, mine) in aligned.items()
            ]
            return _rebuilt(theirs, new)
        if not field.by_axis:
            return self._array(field, theirs, ours.index, field.slot, what)
        if parts is None:
            raise ValueError(f"{what}: expected an array for each axis, got {shown(theirs)}")
        new = [
            self._array(field, part, ours.index, field.slot + name, f"{what}[{name}]")
            for name, part in parts.items()
        ]
        return _rebuilt(theirs, new)

    def _array(self, field: _Arrays, theirs: Any, index: int, slot: str, what: str) -> Any:
        there, entry, paths = array_of(theirs, what), self._entries[index], self._binding.tree.paths
        if slot not in self._binding.slots[index]:
            if field.by_axis:
                raise ValueError(f"{what}: expected no such axis in {paths[index]}")
            return np.zeros_like(there)
        self.met.add((index, slot))
        if slot in self._scalars:
            number_of(there, what)
            if self._writes:
                return entry[slot].astype(there.dtype)
            entry[slot] = there.astype(np.float64)
            return theirs
        check_like(there, entry[slot], paths[index], what)
        if self._writes:
            return np.asarray(field.sign * entry[slot])
        entry[slot] = np.asarray(field.sign * there)
        return theirs

    def _number(self, field: _Number, theirs: Any, what: str) -> Any:
        there, slot = array_of(theirs, what), field.slot
        number_of(there, what)
        if (0, slot) in self.met:
            raise ValueError(f"{what}: expected one number for all arrays, got another one before")
        self.met |= {(k, slot) for k in range(len(self._entries))}
        if not self._writes:
            for entry in self._entries:
                entry[slot] = there.astype(np.float64)
            return theirs
        numbers = {float(entry[slot]) for entry in self._entries}
        if len(numbers) > 1:
            raise ValueError(
                f"optimizer: expected the same {slot!r} in the state of every array, since Optax "
                f"has one for all; got {listed(sorted(numbers))}"
            )
        (number,) = numbers
        return np.array(number, there.dtype)

    def _count(self, field: _Count, theirs: Any, what: str) -> Any:
        there = array_of(theirs, what)
        count = count_of(there, what) - field.first
        if count < 0:
            raise ValueError(f"{what}: expected a whole number >= {field.first}, got 0")
        self.counts.append((what, count))
        if not self._writes:
            return theirs
        most = np.iinfo(there.dtype).max if there.dtype.kind in "iu" else self._updates
        return np.array(min(self._updates + field.first, most), there.dtype)

    def _check_no_window(self, theirs: Any, what: str) -> None:
        waiting = count_of(array_of(theirs, what), what)
        if waiting:
            raise ValueError(
                f"{what}: expected 0, since gradients that wait for their update cannot be taken "
                f"over; got {waiting}"
            )

    def _check_setting(self, field: _Setting, theirs: Any, what: str) -> None:
        there = array_of(theirs, what)
        for group in self._groups:
            here = group[field.name]
            if not np.array_equal(there, np.asarray(here, there.dtype)):
                raise ValueError(
                    f"{what}: expected {field.name}={here!r}, as here; got {there.tolist()!r}"
                )

    def _cleared(self, theirs: Any) -> Any:
        parts = _by_name(theirs)
        if parts is None:
            return np.zeros_like(theirs)
        return _rebuilt(theirs, [self._cleared(part) for part in parts.values()])


def _used(record: _Record, slots: set[str], groups: Sequence[Mapping[str, Any]]) -> _Record | None:
    """Return the fields that Optax has where arrays have these slots, or None for no state."""
    used = {}
    for name, field in record.items():
        if isinstance(field, _Arrays) and not field.always and field.slot not in slots:
            continue
        if isinstance(field, _Count) and field.only and not any(g[field.only] for g in groups):
            continue
        used[name] = field
    return used if any(isinstance(field, _Arrays) for field in used.values()) else None


def _by_name(node: Any) -> dict[str, Any] | None:
    """Return what a node holds by the names of keys, fields or positions; None for a leaf."""
    if node is None:
        return {}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return dict(zip(node._fields, node, strict=True))
    return _by_position(node)


def _by_position(node: Any) -> dict[str, Any] | None:
    if isinstance(node, (tuple, list)):
        return {str(k): part for k, part in enumerate(node)}
    if isinstance(node, Mapping):
        return {str(key): part for key, part in node.items()}
    return None


def _at(what: str, node: Any, name: str) -> str:
    """Return the place of a part of a node, for messages."""
    if isinstance(node, Mapping):
        return f"{what}[{name!r}]"
    return f"{what}.{name}" if name in getattr(node, "_fields", ()) else f"{what}[{name}]"


def _outline(node: Any) -> str:
    return (
        f"{type(node).__name__} of {len(node)}" if isinstance(node, (tuple, list)) else shown(node)
    )


def _aligned(theirs: Any, ours: Any) -> dict[str, tuple[Any, Any]] | None:
    """Return the pairs of what two nodes hold, in their order; None where they hold others."""
    for opened in (_by_name, _by_position):
        one, other = opened(theirs), opened(ours)
        if one is not None and other is not None and one.keys() == other.keys():
            return {name: (part, other[name]) for name, part in one.items()}
    return None


def _rebuilt(node: Any, parts: list[Any]) -> Any:
    """Return a node like another one that holds these."""
    if node is None:
        return None
    if isinstance(node, Mapping):
        kind: Any = type(node)
        return kind(zip(node, parts, strict=True))
    if hasattr(node, "_fields"):
        return type(node)(*parts)
    return type(node)(parts)
