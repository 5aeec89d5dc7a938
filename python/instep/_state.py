"""State as plain dicts, and back with every check before the first change."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep import _core, _formats
from instep._binding import ACCUMULATOR, Binding
from instep._kinds import Flag, Norm, Optional, WholeNumber, shown
from instep._rule import Values, Variant

if TYPE_CHECKING:
    from instep._memory import Array

Copies = list[tuple["Array", "Array"]]
"""Pairs of an array to write and one to read."""
Memories = list[tuple[Any, Any]]
"""Pairs of a schedule that has a memory and the state that it is to go on from."""

ROWS = "rows_in_window"
"""Those that an unfinished window has gradients of, in an array's state; where it has them of all,
there is nothing of that name."""

FORMAT = 2
EARLIER_FORMATS = (1,)
"""In the first one accumulators held plain sums, not times `_core.window_share`."""
SCHEDULE = "schedule"
"""Stands for a schedule, which is code and not part of the state; what it remembers is."""


def dump(values: Values, binding: Binding, *, copy: bool = True, params: bool = False) -> Values:
    """Return the state of an optimizer with these hyperparameters; see `Optimizer.state_dict`.

    Without `copy` arrays are those of the optimizer themselves; with `params` the parameters are
    part of it.
    """
    counters = binding.core.counters()
    binding.core.refresh()
    arrays = {}
    paths, orders = binding.tree.paths, binding.core.orders()
    for k, path in enumerate(paths):
        arrays[path] = {
            "group": binding.group_of[k],
            "step": counters["steps"][k],
            "in_window": counters["in_window"][k],
            **({"begun": False} if counters["steps"][k] and not counters["begun"][k] else {}),
            **({"frozen": True} if counters["frozen"][k] else {}),
            **(
                {}
                if (ids := counters["rows_in_window"][k]) is None
                else {ROWS: np.array(ids, np.int64)}
            ),
            **({"kept": dict(binding.kept[k])} if binding.kept[k] else {}),
            **({"order": np.array(orders[k])} if binding.is_in_blocks(k) else {}),
            **{
                name: array.copy() if copy else array
                for name, array in {**binding.asleep[k], **binding.arrays_of(k)}.items()
            },
        }
    return {
        "format": FORMAT,
        "rule": binding.variant.rule.__name__,
        "convention": binding.variant.convention,
        **({} if (formula := binding.variant.rule._formula) is None else {"formula": formula}),
        "hyperparameters": _plain(_saved(binding.variant, values)),
        "groups": {str(k): _plain(override) for k, override in enumerate(binding.overrides)},
        "iterations": counters["iterations"],
        "skipped_steps": counters["skipped_steps"],
        "calls": counters["calls"],
        "window": counters["window"],
        **({} if counters["grad_norm"] is None else {"grad_norm": counters["grad_norm"]}),
        "arrays": arrays,
        **({"parameters": dict(zip(paths, binding.tree.leaves, strict=True))} if params else {}),
        **({"schedules": memories} if (memories := _memories(values, binding)) else {}),
    }


def counters_of(state: Mapping[str, Any], binding: Binding) -> _core.Counters:
    """Return the counters of a state that `dump` made of such a binding."""
    entries = [state["arrays"][path] for path in binding.tree.paths]
    return {
        "iterations": state["iterations"],
        "skipped_steps": state["skipped_steps"],
        "calls": state["calls"],
        "window": state["window"],
        "grad_norm": state.get("grad_norm"),
        "steps": [entry["step"] for entry in entries],
        "in_window": [entry["in_window"] for entry in entries],
        "begun": [entry.get("begun", entry["step"] > 0) for entry in entries],
        "frozen": [entry.get("frozen", False) for entry in entries],
        "rows_in_window": [None for _ in entries],
        "swapped": False,
    }


class Differences(NamedTuple):
    """What was not taken over of a state, by path.

    Attributes
    ----------
    left
        Arrays that the state has, but not the optimizer.
    new
        Arrays that the optimizer has, but not the state.
    """

    left: list[str]
    new: list[str]


def load(
    here: Values, binding: Binding, d: Any, *, params: bool = False, partial: bool = False
) -> tuple[tuple[Values, Binding, Copies, _core.Counters], Memories, Differences]:
    """Check a state; return what `Stepper._install` needs to take it over, and schedules' states.

    `here` are the hyperparameters in force.

    With `params`, parameters that are part of it are taken over, too; with `partial`, arrays may be
    others: what there is of them in both is taken over. Nothing has changed yet.
    """
    state = _mapping(d, "state")
    given = state.get("format")
    is_earlier = isinstance(given, int) and given in EARLIER_FORMATS
    if not is_earlier:
        _expect(state, "format", FORMAT)
    variant = binding.variant
    _expect(state, "rule", variant.rule.__name__)
    _expect({"formula": None, **state}, "formula", variant.rule._formula)
    _expect(state, "convention", variant.convention)

    saved = _entry(state, "hyperparameters", "state")
    values = _restored(variant, saved, here, "state['hyperparameters']")
    variant.check_together(values)
    groups = _mapping(_entry(state, "groups", "state"), "state['groups']")
    if len(groups) != len(binding.overrides) and not partial:
        raise ValueError(
            f"state['groups']: expected {len(binding.overrides)} groups, got {len(groups)}"
        )
    overrides = []
    for k, override in enumerate(binding.overrides):
        if partial and (str(k) not in groups or groups[str(k)].keys() != _plain(override).keys()):
            overrides.append(override)
            continue
        saved = _entry(groups, str(k), "state['groups']")
        overrides.append(_restored(variant, saved, override, f"state['groups']['{k}']"))
    iterations, skipped_steps = (
        _count(state, name, "state") for name in ("iterations", "skipped_steps")
    )
    window = _count(state, "window", "state")
    if window and window >= values["gradient_accumulation_steps"]:
        raise ValueError(f"state['window']: expected less than a whole window, got {window}")

    calls = iterations * values["gradient_accumulation_steps"] + window  # in earlier releases
    calls = _count({"calls": min(calls, _core.MOST_STEPS), **state}, "calls", "state")
    grad_norm = Optional(Norm()).check("state['grad_norm']", state.get("grad_norm"))

    arrays = _mapping(_entry(state, "arrays", "state"), "state['arrays']")
    grouping = replace(binding.grouping, overrides=overrides)
    target = binding.restated(values, grouping, orders=_orders(binding, arrays))
    paths = binding.tree.paths
    differences = Differences(
        [path for path in arrays if path not in set(paths)],
        [path for path in paths if path not in arrays],
    )
    if partial and len(differences.new) == len(paths):
        raise ValueError(f"state['arrays']: expected some of {sorted(paths)}, got {sorted(arrays)}")
    if not partial:
        _expect_paths(arrays, paths, "state['arrays']")
    counters: _core.Counters = {
        **target.core.counters(),
        "iterations": iterations,
        "skipped_steps": skipped_steps,
        "calls": calls,
        "window": window,
        "grad_norm": grad_norm,
    }
    of_window = _core.window_share(values["gradient_accumulation_steps"])
    share = of_window if is_earlier else 1.0
    copies: Copies = []
    for k, path in enumerate(paths):
        if path not in arrays:
            counters["in_window"][k] = False
            continue
        what = f"state['arrays'][{path!r}]"
        entry = _mapping(arrays[path], what)
        if not partial:
            _expect(entry, "group", binding.group_of[k], what)
        step = counters["steps"][k] = _count(entry, "step", what)
        is_in_window = counters["in_window"][k] = _flag(entry, "in_window", what)
        if is_in_window and not window:
            raise ValueError(f"{what}['in_window']: expected False outside of a window, got True")
        counters["begun"][k] = _flag({"begun": step > 0, **entry}, "begun", what)
        counters["frozen"][k] = _flag({"frozen": False, **entry}, "frozen", what)
        kept = entry.get("kept", {})
        is_dict = isinstance(kept, Mapping) and all(isinstance(how, str) for how in kept.values())
        if not is_dict or kept != target.kept[k]:
            raise ValueError(
                f"{what}: expected arrays kept as here, {target.kept[k]}, got {shown(kept)}; "
                "nothing is cast on loading: construct with the rounding and state_dtype of what "
                "was saved"
            )
        arrays_here = target.arrays_of(k)
        optional = variant.rule._optional_slots
        target.asleep[k] = {
            name: _array(entry, name, _asleep_like(binding, k, name), what).copy()
            for name in entry
            if _formats.slot_of(name) in optional and name not in arrays_here
        }
        counters["rows_in_window"][k] = (
            _ids(entry[ROWS], binding.tree.leaves[k], what)
            if is_in_window and ROWS in entry
            else None
        )
        numbers = {"group", "step", "in_window", "begun", "frozen", "kept", "order", ROWS}
        known = {*numbers, *arrays_here, *target.asleep[k]}
        if unknown := set(entry) - known:
            raise ValueError(f"{what}: expected no {sorted(unknown, key=str)}")
        for name, array in arrays_here.items():
            if name in variant.rule._newer and name not in entry:
                copies.append((array, np.zeros_like(array)))
                continue
            saved_array = _array(entry, name, array, what)
            if name.endswith("_scale") and name in target.slots[k]:
                _check_scale(saved_array, f"{what}[{name!r}]")
            if name == ACCUMULATOR and share != 1:
                saved_array = np.multiply(
                    saved_array, array.dtype.type(share), out=np.empty_like(array)
                )
            copies.append((array, saved_array))

    if params and "parameters" in state:
        what = "state['parameters']"
        saved = _mapping(state["parameters"], what)
        if not partial:
            _expect_paths(saved, paths, what)
        copies += [
            (leaf, _array(saved, path, leaf, what))
            for path, leaf in zip(paths, binding.tree.leaves, strict=True)
            if not partial or path in saved
        ]
    # The dict may hold arrays that are to be written themselves, and misaligned ones.
    copies = [
        (to, each if each.flags.aligned and target.core.is_apart(each) else each.copy())
        for to, each in copies
    ]
    memories = _remembered(here, binding, state, partial)
    return (values, target, copies, counters), memories, differences


def _asleep_like(binding: Binding, k: int, name: str) -> Array:
    """Return an array of the shape and dtype that one of a slot out of use has."""
    shape, dtype = _formats.form_of(name, binding.tree.leaves[k], binding.kept[k])
    return np.broadcast_to(np.zeros((), dtype), shape)


def _ids(saved: Any, param: Array, what: str) -> list[int]:
    """Return ids of a parameter's rows, ascending."""
    is_list = isinstance(saved, np.ndarray) and saved.ndim == 1
    rows = param.shape[0] if param.ndim else 0
    if not is_list or (saved.size and saved.dtype.kind not in "iu"):
        raise TypeError(f"{what}[{ROWS!r}]: expected a list of ids, got {shown(saved)}")
    ids: list[int] = saved.tolist()
    if ids and not (ids[0] >= 0 and ids[-1] < rows and (np.diff(saved.astype(np.int64)) > 0).all()):
        raise ValueError(
            f"{what}[{ROWS!r}]: expected ascending ids below {rows}, got {shown(saved)}"
        )
    return list(map(int, ids))


def _check_scale(scale: Array, what: str) -> None:
    if not (np.isfinite(scale).all() and ((np.frexp(scale)[0] == 0.5) | (scale == 0)).all()):
        raise ValueError(f"{what}: expected powers of two or zeros, as float8 state has them")


def _orders(binding: Binding, arrays: Mapping[str, Any]) -> list[list[int]]:
    """Return the orders in which to visit parameters: of state in blocks that in which it was."""
    orders = binding.core.orders()
    for k, path in enumerate(binding.tree.paths):
        if path not in arrays or not binding.is_in_blocks(k):
            continue
        what = f"state['arrays'][{path!r}]"
        order = _entry(_mapping(arrays[path], what), "order", what)
        is_list = isinstance(order, np.ndarray) and order.ndim == 1
        is_whole = is_list and (order.dtype.kind in "iu" or not order.size)
        if not is_whole or sorted(order.tolist()) != sorted(orders[k]):
            raise ValueError(f"{what}['order']: expected axes {sorted(orders[k])}, got {order!r}")
        orders[k] = [int(axis) for axis in order]
    return orders


def _with_memory(values: Values, binding: Binding) -> dict[str, Any]:
    """Return the schedules that have a state, by the group whose own they are, and the name."""
    return {
        str(k) if name == "learning_rate" else f"{k}.{name}": value
        for k, own in enumerate([values, *binding.overrides[1:]])
        for name, value in own.items()
        if callable(value) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
    }


def _memories(values: Values, binding: Binding) -> Values:
    schedules = _with_memory(values, binding)
    return {k: copy.deepcopy(schedule.state_dict()) for k, schedule in schedules.items()}


def _remembered(
    here: Values, binding: Binding, state: Mapping[str, Any], partial: bool
) -> Memories:
    """Return what each schedule is to go on from: nothing in states of earlier releases."""
    if "schedules" not in state:
        return []
    schedules, what = _with_memory(here, binding), "state['schedules']"
    saved = _mapping(state["schedules"], what)
    if saved.keys() != schedules.keys() and not partial:
        raise ValueError(
            f"{what}: expected the states of the schedules of groups {sorted(schedules)}, got "
            f"those of {sorted(saved, key=str)}; construct them as those that were saved were"
        )
    return [(schedules[k], copy.deepcopy(saved[k])) for k in schedules if k in saved]


def _saved(variant: Variant, values: Values) -> Values:
    """Return the hyperparameters that are part of the state."""
    known = variant.rule._hyperparameters()
    return {name: value for name, value in values.items() if known[name].is_saved}


def _plain(values: Mapping[str, Any]) -> Values:
    """Return what is not None: schedules by their placeholder, tuples as arrays."""
    plain: Values = {}
    for name, value in values.items():
        if value is not None:
            plain[name] = SCHEDULE if callable(value) else value
        if isinstance(value, tuple):
            plain[name] = np.array(value)
    return plain


def _restored(variant: Variant, saved: Any, here: Values, what: str) -> Values:
    """Return saved hyperparameters checked, with this optimizer's schedules."""
    known = variant.rule._hyperparameters()
    given = _mapping(saved, what)
    unknown = sorted(given.keys() - here.keys(), key=str)
    if unknown:
        raise ValueError(f"{what}: expected no {unknown}")
    result: Values = {}
    for name, value in here.items():
        if not known[name].is_saved:
            result[name] = value
            continue
        if name in variant.rule._newer and name not in given:
            result[name] = variant.default(name)
            continue
        restored = given.get(name)
        if isinstance(value, tuple) and isinstance(restored, np.ndarray):
            restored = tuple(restored.tolist())
        is_placeholder = isinstance(restored, str) and restored == SCHEDULE
        if callable(value) != is_placeholder or callable(restored):
            here_is = "a schedule" if callable(value) else "a number"
            raise ValueError(
                f"{what}: expected {here_is} for {name!r}, as here, got {shown(restored)}; "
                "construct it as the one that was saved was: schedules are not part of a state"
            )
        if restored is None and not known[name].kind.takes_none:
            raise ValueError(f"{what}: expected an entry {name!r}, got {sorted(given)}")
        if callable(value):
            result[name] = value
        elif restored is None:
            result[name] = known[name].check(None)
        else:
            result[name] = variant.checked(name, restored)
    return result


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{what}: expected a dict, got {type(value).__name__}")
    return value


def _entry(mapping: Mapping[str, Any], key: str, what: str) -> Any:
    if key not in mapping:
        raise ValueError(f"{what}: expected an entry {key!r}, got {sorted(map(str, mapping))}")
    return mapping[key]


def _expect(mapping: Mapping[str, Any], key: str, expected: object, what: str = "state") -> None:
    given = _entry(mapping, key, what)
    if isinstance(given, np.ndarray) or given != expected:
        raise ValueError(f"{what}[{key!r}]: expected {expected!r}, got {given!r}")


def _expect_paths(given: Mapping[str, Any], paths: list[str], what: str) -> None:
    if given.keys() != set(paths):
        raise ValueError(f"{what}: expected {sorted(paths)}, got {sorted(given, key=str)}")


def _count(mapping: Mapping[str, Any], key: str, what: str) -> int:
    return WholeNumber(at_least=0).check(f"{what}[{key!r}]", _entry(mapping, key, what))


def _flag(mapping: Mapping[str, Any], key: str, what: str) -> bool:
    return Flag().check(f"{what}[{key!r}]", _entry(mapping, key, what))


def _array(mapping: Mapping[str, Any], key: str, like: Array, what: str) -> Array:
    value = _entry(mapping, key, what)
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{what}[{key!r}]: expected an array, got {type(value).__name__}")
    if value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(
            f"{what}[{key!r}]: expected a {like.dtype} array of shape {like.shape}, "
            f"got a {value.dtype} array of shape {value.shape}"
        )
    return value
