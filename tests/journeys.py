"""Journeys between frameworks that are stored, and what tests of moving there and back share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trajectories.interop import Journey, load
from trajectories.problem import Case

import instep

STORED = list(load())


def stored(rule: str, convention: str, *, problem: str = "missing") -> tuple[Case, Journey]:
    """Return a float32 journey."""
    return next(
        (case, theirs)
        for case, theirs in STORED
        if (case.rule, case.convention, case.problem, case.dtype)
        == (rule, convention, problem, "float32")
    )


def grown(like: Any, grad: float = 1.0) -> Any:
    """Return gradients for a structure of arrays."""
    if isinstance(like, dict):
        return {key: grown(value, grad) for key, value in like.items()}
    if isinstance(like, (list, tuple)):
        return type(like)(grown(value, grad) for value in like)
    return np.full_like(like, grad)


def same(one: Any, other: Any) -> bool:
    """Return whether two trees of dicts, lists and arrays are equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.array_equal(one, other))


def bound(rule: str, convention: str, theirs: Journey, **keywords: Any) -> Any:
    """Return an optimizer that has already stepped."""
    params = [p.copy() for p in theirs.params[1]]
    opt = getattr(instep, rule)(params, convention=convention, **keywords)
    opt.step(grown(params))
    return opt


def unchanged(opt: Any, act: Callable[[], Any]) -> str:
    """Return the message of the error that an action raises, without having changed anything."""
    before, params = opt.state_dict(), copy.deepcopy(opt.params)
    with pytest.raises((TypeError, ValueError)) as caught:
        act()
    assert same(opt.state_dict(), before)
    assert same(opt.params, params)
    return f"{caught.type.__name__}: {caught.value}"


def put(*path: Any) -> Callable[[Any], None]:
    """Return a function that puts the last of `path` where the others lead; ... takes away."""

    def change(tree: Any) -> None:
        *way, key, value = path
        for step in way:
            tree = tree[step]
        if value is ...:
            del tree[key]
        else:
            tree[key] = value

    return change
