"""Schedules with a memory go on from where they were, as part of an optimizer's state."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep import Group, schedules

Carry = Callable[[Any, Any, Path], None]


def by_dict(old: Any, new: Any, folder: Path) -> None:
    new.load_state_dict(old.state_dict())


def by_file(old: Any, new: Any, folder: Path) -> None:
    old.save(folder / "state")
    new.load(folder / "state")


def by_safetensors(old: Any, new: Any, folder: Path) -> None:
    pytest.importorskip("safetensors.numpy")
    from instep import interop

    interop.to_safetensors(old, folder / "state.safetensors")
    interop.from_safetensors(new, folder / "state.safetensors")


WAYS: list[Carry] = [by_dict, by_file, by_safetensors]


class Counting:
    """A schedule of a user's that counts how often it was asked, and notes what it gave."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, step: int) -> float:
        self.asked.append(0.5 ** len(self.asked))
        return self.asked[-1]

    def state_dict(self) -> dict[str, Any]:
        return {"asked": list(self.asked), "table": {"x": np.arange(3)}}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        assert d["table"]["x"].tolist() == [0, 1, 2]
        self.asked = list(d["asked"])


def plateau() -> schedules.ReduceLROnPlateau:
    return schedules.ReduceLROnPlateau(0.1, factor=0.5, patience=0)


def reduced(schedule: schedules.ReduceLROnPlateau, times: int) -> schedules.ReduceLROnPlateau:
    for _ in range(times + 1):
        schedule.update(1.0)
    return schedule


@pytest.mark.parametrize("carry", WAYS)
def test_a_plateau_goes_on(carry: Carry, tmp_path: Path) -> None:
    old = instep.SGD(np.ones(2), learning_rate=reduced(plateau(), 2))
    old.step(np.ones(2))
    rate = plateau()
    new = instep.SGD(np.ones(2), learning_rate=rate)
    carry(old, new, tmp_path)
    assert new.learning_rate is rate
    assert new.current_learning_rate == old.current_learning_rate == 0.025
    rate.update(1.0)
    assert new.current_learning_rate == 0.0125


@pytest.mark.parametrize("carry", WAYS)
def test_one_that_has_seen_nothing_yet(carry: Carry, tmp_path: Path) -> None:
    old = instep.SGD(np.ones(2), learning_rate=plateau())
    new = instep.SGD(np.ones(2), learning_rate=reduced(plateau(), 1))
    carry(old, new, tmp_path)
    assert new.current_learning_rate == 0.1


@pytest.mark.parametrize("carry", WAYS)
def test_those_of_groups_and_of_users(carry: Carry, tmp_path: Path) -> None:
    def made(times: int) -> Any:
        joined = schedules.join_schedules([abs, reduced(plateau(), times)], [0])
        chained = schedules.ChainedScheduler(0.5, [abs, reduced(plateau(), times)])
        arrays = [
            np.ones(2),
            Group(np.ones(2), learning_rate=reduced(plateau(), times)),
            Group(np.ones(2), learning_rate=joined),
            Group(np.ones(2), learning_rate=chained),
            Group(np.ones(2), learning_rate=schedules.CosineDecay(1.0, 10)),
        ]
        return instep.SGD(arrays, learning_rate=Counting())

    old, new = made(2), made(0)
    for _ in range(3):
        old.step([np.ones(2)] * 5)
    carry(old, new, tmp_path)
    new.build(old.params)
    for opt in (copy.deepcopy(old), new):
        opt.step([np.ones(2)] * 5)
        assert opt.learning_rate.asked == [1.0, 0.5, 0.25, 0.125]
        assert [g["learning_rate"](2) for g in opt.groups[1:4]] == [0.025, 0.025, 0.025]


def test_pickles_hold_them() -> None:
    opt = instep.SGD(np.ones(2), learning_rate=reduced(plateau(), 2))
    opt.step(np.ones(2))
    assert pickle.loads(pickle.dumps(opt)).current_learning_rate == 0.025


def test_states_of_earlier_releases_leave_them_as_they_are() -> None:
    old = instep.SGD(np.ones(2), learning_rate=schedules.CosineDecay(1.0, 10)).state_dict()
    assert "schedules" not in old
    new = instep.SGD(np.ones(2), learning_rate=reduced(plateau(), 1))
    new.load_state_dict(old)
    assert new.current_learning_rate == 0.05


def test_a_memory_that_is_not_of_these_schedules_changes_nothing() -> None:
    old = instep.SGD(np.ones(2), learning_rate=reduced(plateau(), 2))
    old.step(np.ones(2))
    new = instep.SGD(np.ones(2), learning_rate=schedules.CosineDecay(1.0, 10))
    with pytest.raises(ValueError, match=r"^state\['schedules'\]: expected the states of"):
        new.load_state_dict(old.state_dict())
    assert new.iterations == 0


@pytest.mark.parametrize("wrong", ["of another mode", "of another array"])
def test_all_or_nothing(wrong: str) -> None:
    def made(times: int, mode: Any = "min", size: int = 2) -> Any:
        second = schedules.ReduceLROnPlateau(0.1, mode, factor=0.5, patience=0)
        group = Group(np.ones(size), learning_rate=reduced(second, times))
        rate = reduced(plateau(), times)
        return instep.SGD([np.ones(2), group], learning_rate=rate, momentum=0.9)

    old = made(2, "max") if wrong == "of another mode" else made(2, size=3)
    new = made(0)
    with pytest.raises(ValueError, match="mode" if wrong == "of another mode" else "shape"):
        new.load_state_dict(old.state_dict())
    rates = [group["learning_rate"](0) for group in new.groups]
    assert rates == [0.1, 0.1]


class Live:
    """A schedule of a user's that hands out and takes over its own memory."""

    def __init__(self, rate: float, *, takes: bool = True) -> None:
        self.rate, self.takes, self.seen = rate, takes, np.zeros(2)

    def __call__(self, step: int) -> float:
        return self.rate

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        if not self.takes:
            raise KeyError("seen")
        if self.rate > 0.1:
            self.seen = d["seen"]
        else:
            self.seen[...] = d["seen"]


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_a_state_is_nobodys_memory(rate: float) -> None:
    schedule = Live(rate)
    opt = instep.SGD(np.ones(2), learning_rate=schedule)
    state = opt.state_dict()
    for _ in range(2):
        schedule.seen += 3
        opt.load_state_dict(state)
        assert schedule.seen.tolist() == [0, 0]


def test_a_memory_that_is_not_taken_leaves_live_ones_as_they_were() -> None:
    def make(**options: Any) -> tuple[Live, Any]:
        first, second = Live(0.1), Live(0.05, **options)
        group = Group("['a']", learning_rate=second)
        params = {"a": np.ones(2), "b": np.ones(2)}
        return first, instep.Adam(params, learning_rate=first, groups=[group])

    other, saved = make()
    other.seen[:] = 5
    first, opt = make(takes=False)
    with pytest.raises(KeyError):
        opt.load_state_dict(saved.state_dict())
    assert first.seen.tolist() == [0, 0]


def test_loading_in_part_takes_the_memories_there_are() -> None:
    old, new, own = reduced(plateau(), 2), plateau(), plateau()
    state = instep.Adam({"a": np.ones(2), "b": np.ones(2)}, learning_rate=old).state_dict()
    group = Group("['c']", learning_rate=own)
    opt = instep.Adam({"a": np.ones(2), "c": np.ones(2)}, learning_rate=new, groups=[group])
    with pytest.raises(ValueError, match="expected"):
        opt.load_state_dict(state)
    opt.load_state_dict(state, partial=True)
    assert new.state_dict() == old.state_dict()
    assert own.state_dict() == plateau().state_dict()
