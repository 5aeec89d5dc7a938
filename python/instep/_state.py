"""State as plain dicts, and back with every check before the first change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core
from instep._binding import Binding
from instep._kinds import Flag, Norm, Optional, WholeNumber, shown
from instep._rule import Values, Variant

if TYPE_CHECKING:
    from instep._memory import Array

Copies = list[tuple["Array", "Array"]]
"""Pairs of an array to write and one to read."""
Memories = list[tuple[Any, Any]]
"""Pairs of a schedule that has a memory and the state that it is to go on from."""

FORMAT = 1
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
    paths = binding.tree.paths
    for k, path in enumerate(paths):
        arrays[path] = {
            "group": binding.group_of[k],
            "step": counters["steps"][k],
            "in_window": counters["in_window"][k],
            **{
                name: array.copy() if copy else array
                for name, array in binding.arrays_of(k).items()
            },
        }
    return {
        "format": FORMAT,
        "rule": binding.variant.rule.__name__,
        "convention": binding.variant.convention,
        "hyperparameters": _plain(values),
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


def load(
    here: Values, binding: Binding, d: Any, *, params: bool = False
) -> tuple[tuple[Values, Binding, Copies, _core.Counters], Memories]:
    """Check a state; return what `Stepper._install` needs to take it over, and schedules' states.

    `here` are the hyperparameters in force.

    With `params`, parameters that are part of it are taken over, too. Nothing has changed yet.
    """
    state = _mapping(d, "state")
    _expect(state, "format", FORMAT)
    variant = binding.variant
    _expect(state, "rule", variant.rule.__name__)
    _expect(state, "convention", variant.convention)

    saved = _entry(state, "hyperparameters", "state")
    values = _restored(variant, saved, here, "state['hyperparameters']")
    variant.check_together(values)
    groups = _mapping(_entry(state, "groups", "state"), "state['groups']")
    if len(groups) != len(binding.overrides):
        raise ValueError(
            f"state['groups']: expected {len(binding.overrides)} groups, got {len(groups)}"
        )
    overrides = []
    for k, override in enumerate(binding.overrides):
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

    target = binding.restated(values, overrides)
    arrays = _mapping(_entry(state, "arrays", "state"), "state['arrays']")
    paths = binding.tree.paths
    _expect_paths(arrays, paths, "state['arrays']")
    steps, in_window = [], []
    copies: Copies = []
    for k, path in enumerate(paths):
        what = f"state['arrays'][{path!r}]"
        entry = _mapping(arrays[path], what)
        _expect(entry, "group", binding.group_of[k], what)
        steps.append(_count(entry, "step", what))
        in_window.append(_flag(entry, "in_window", what))
        if in_window[k] and not window:
            raise ValueError(f"{what}['in_window']: expected False outside of a window, got True")
        arrays_here = target.arrays_of(k)
        unknown = set(entry) - {"group", "step", "in_window", *arrays_here}
        if unknown:
            raise ValueError(f"{what}: expected no {sorted(unknown, key=str)}")
        copies += [(array, _array(entry, name, array, what)) for name, array in arrays_here.items()]

    if params and "parameters" in state:
        what = "state['parameters']"
        saved = _mapping(state["parameters"], what)
        _expect_paths(saved, paths, what)
        copies += [
            (leaf, _array(saved, path, leaf, what))
            for path, leaf in zip(paths, binding.tree.leaves, strict=True)
        ]
    # The dict may hold arrays that are to be written themselves, and misaligned ones.
    copies = [
        (to, each if each.flags.aligned and target.core.is_apart(each) else each.copy())
        for to, each in copies
    ]
    counters: _core.Counters = {
        "iterations": iterations,
        "skipped_steps": skipped_steps,
        "calls": calls,
        "window": window,
        "grad_norm": grad_norm,
        "steps": steps,
        "in_window": in_window,
    }
    return (values, target, copies, counters), _remembered(here, binding, state)


def _with_memory(values: Values, binding: Binding) -> dict[str, Any]:
    """Return the schedules that have a state, by the group whose own they are."""
    rates = [values.get("learning_rate")]
    rates += [override.get("learning_rate") for override in binding.overrides[1:]]
    return {
        str(k): rate
        for k, rate in enumerate(rates)
        if callable(rate) and hasattr(rate, "state_dict") and hasattr(rate, "load_state_dict")
    }


def _memories(values: Values, binding: Binding) -> Values:
    return {k: rate.state_dict() for k, rate in _with_memory(values, binding).items()}


def _remembered(here: Values, binding: Binding, state: Mapping[str, Any]) -> Memories:
    """Return what each schedule is to go on from: nothing in states of earlier releases."""
    if "schedules" not in state:
        return []
    schedules, what = _with_memory(here, binding), "state['schedules']"
    saved = _mapping(state["schedules"], what)
    if saved.keys() != schedules.keys():
        raise ValueError(
            f"{what}: expected the states of the schedules of groups {sorted(schedules)}, got "
            f"those of {sorted(saved, key=str)}; construct them as those that were saved were"
        )
    return [(schedules[k], saved[k]) for k in schedules]


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
