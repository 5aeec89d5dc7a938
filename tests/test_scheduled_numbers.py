"""Schedules of other numbers than the learning rate: weight decay, momentum, averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model import snapshot

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep


def falling(k: int) -> float:
    return 0.5 / (k + 1)


def ramp(k: int) -> float:
    """Averages that hold less of the beginning: Polyak's with a ramp."""
    return (1 + k) / (10 + k)


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("AdamW", {}, "weight_decay"),
    ("SGD", {}, "weight_decay"),
    ("SGD", {"nesterov": True}, "momentum"),
    ("RMSprop", {}, "momentum"),
    ("Lars", {}, "momentum"),
    ("Signum", {}, "momentum"),
    ("SM3", {}, "momentum"),
    ("Adafactor", {}, "momentum"),
    ("Adam", {"use_ema": True}, "ema_momentum"),
]


@pytest.mark.parametrize(("rule", "options", "name"), CASES)
def test_it_is_that_number_in_each_update(rule: str, options: dict[str, Any], name: str) -> None:
    rng = np.random.default_rng(0)
    schedule = ramp if name == "ema_momentum" else falling
    params = [rng.standard_normal((4, 5)).astype("f4") for _ in range(2)]
    twins = [p.copy() for p in params]
    opt = getattr(instep, rule)(params, **options, **{name: schedule})
    twin = getattr(instep, rule)(twins, **options, **{name: schedule(0)})
    for k in range(5):
        setattr(twin, name, schedule(k))
        grads = [rng.standard_normal((4, 5)) for _ in params]
        opt.step(grads)
        twin.step(grads)
        assert all(np.array_equal(a, b) for a, b in zip(params, twins, strict=True))
        if "use_ema" in options:
            pairs = zip(opt.averages, twin.averages, strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
    assert getattr(opt, name) is schedule
    assert opt.config[name] is schedule


def test_groups_and_how_often_it_is_asked() -> None:
    asked = []

    def schedule(k: int) -> float:
        asked.append(k)
        return 0.1 * (k + 1)

    a, b, c = np.ones((3, 2))
    opt = instep.SGD(
        [a, instep.Group(b, weight_decay=0.5), instep.Group(c, learning_rate=2.0)],
        learning_rate=1.0,
        weight_decay=schedule,
    )
    for _ in range(3):
        opt.step([np.zeros(2)] * 3)
    assert asked == [0, 1, 2]
    np.testing.assert_allclose(a, 0.9 * 0.8 * 0.7)
    np.testing.assert_allclose(b, 0.5**3)
    np.testing.assert_allclose(c, 0.8 * 0.6 * 0.4)
    opt.groups[1]["weight_decay"] = lambda k: 1.0
    opt.weight_decay = 0.0
    opt.step([np.zeros(2)] * 3)
    assert not b.any()
    np.testing.assert_allclose(a, 0.9 * 0.8 * 0.7)


def test_windows() -> None:
    """Asked once an update; of Keras's averages, which move at every call, at every call."""
    for convention, expected in (("paper", [0, 1]), ("keras", [0, 1, 2, 3])):
        asked: list[int] = []

        def schedule(k: int, asked: list[int] = asked) -> float:
            asked.append(k)
            return 0.5

        opt = untyped.SGD(
            np.ones(3),
            gradient_accumulation_steps=2,
            use_ema=True,
            ema_momentum=schedule,
            convention=convention,
        )
        for _ in range(4):
            opt.step(np.ones(3))
        assert asked == expected


@pytest.mark.parametrize("answer", [-1.0, np.nan, np.inf, "x", None, 2j])
def test_what_is_no_such_number_changes_nothing(answer: Any) -> None:
    opt = untyped.SGD(np.ones(3), momentum=lambda k: answer if k else 0.5)
    opt.step(np.ones(3))
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError), match=r"^momentum: expected .*from its schedule$"):
        opt.step(np.ones(3))
    assert snapshot(opt) == before


class Remembering:
    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, k: int) -> float:
        self.asked += 1
        return 1 / (1 + self.asked)

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, d: dict[str, Any]) -> None:
        self.asked = d["asked"]


def test_resuming(tmp_path: Path) -> None:
    def made() -> Any:
        group = instep.Group(np.ones(2), weight_decay=Remembering())
        return instep.AdamW([np.ones(3), group], weight_decay=falling, learning_rate=0.1)

    opt, other = made(), made()
    grads = [np.ones(3), np.ones(2)]
    for _ in range(3):
        opt.step(grads)
    opt.save(tmp_path / "state.npz")
    other.load(tmp_path / "state.npz")
    for each in (opt, other):
        each.step(grads)
    assert all(np.array_equal(a, b) for a, b in zip(opt.params, other.params, strict=True))
    numbers = instep.AdamW([np.ones(3), instep.Group(np.ones(2), weight_decay=0.1)])
    with pytest.raises(ValueError, match="expected a number for 'weight_decay'"):
        numbers.load(tmp_path / "state.npz")


def test_where_there_are_numbers_only() -> None:
    p = np.ones((2, 2))
    with pytest.raises(TypeError, match="weight_decay: expected a number, got a schedule"):
        untyped.kernels.adam(p, p.copy(), *np.zeros((2, 2, 2)), step=1, weight_decay=falling)
    with pytest.raises(ValueError, match="weight_decay: expected a number, got a schedule; Muon"):
        untyped.Muon(p, weight_decay=falling)
    with pytest.raises(TypeError, match="epsilon: expected a number"):
        untyped.Adam(p, epsilon=falling)
    opt = untyped.SGD([p], momentum=falling, convention="torch")
    with pytest.raises(ValueError, match="momentum: expected a number, for PyTorch's SGD"):
        instep.interop.to_torch(opt)
    with pytest.raises(ValueError, match="weight_decay: expected l2="):
        untyped.Adam(p, weight_decay=falling, convention="torch")
