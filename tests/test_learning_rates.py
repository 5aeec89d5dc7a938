"""Learning rates that are schedules: when they are asked, and what they may answer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bad_arrays import a_tree, each_dtype, plain, refused_without_a_trace
from model import snapshot
from optimizers import close, halving

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep


# --- when ---------------------------------------------------------------------------------------


def test_schedule_is_asked_for_the_index_of_the_update() -> None:
    seen: list[int] = []

    def schedule(update: int) -> float:
        seen.append(update)
        return 2.0**-update

    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=schedule)
    assert opt.learning_rate is schedule
    moves = []
    for number in range(4):
        seen.clear()
        assert opt.iterations == number
        assert opt.current_learning_rate == 2.0**-number
        before = p.copy()
        opt.step(np.ones(1))
        moves.append(float((before - p)[0]))
        assert set(seen) == {number}
        assert {type(update) for update in seen} == {int}
    assert moves == [1.0, 0.5, 0.25, 0.125]


def test_schedule_counts_updates_not_calls() -> None:
    p = np.zeros(1)
    opt = instep.SGD(
        p,
        learning_rate=lambda update: 2.0**-update,
        gradient_accumulation_steps=2,
        skip_nonfinite=True,
    )
    rates = []
    for g in [1.0, np.nan, 1.0, 1.0, 1.0, 1.0]:
        opt.step(np.array([g]))
        rates.append(opt.current_learning_rate)
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    close(p, [-1.5])


def test_current_learning_rate_of_a_number() -> None:
    opt = instep.SGD(np.zeros(1), learning_rate=0.25)
    assert opt.current_learning_rate == 0.25
    opt.learning_rate = 0.5
    assert opt.current_learning_rate == 0.5
    opt.learning_rate = halving
    assert opt.current_learning_rate == halving(0)


def test_learning_rate_may_turn_into_a_schedule_and_back() -> None:
    p = np.zeros(1)
    opt = instep.SGD(p, learning_rate=1.0)
    opt.step(np.ones(1))
    opt.learning_rate = lambda update: 10.0 * update
    opt.step(np.ones(1))
    close(p, [-11.0])
    opt.learning_rate = 2.0
    opt.step(np.ones(1))
    close(p, [-13.0])


@pytest.mark.parametrize("rule", ["Rprop", "ASGD", "SGD"])
def test_schedules_are_asked_in_steps_alone(rule: str) -> None:
    asked = []

    def rate(update: int) -> float:
        asked.append(update)
        return 0.25

    opt = getattr(instep, rule)(np.ones(3), learning_rate=rate)
    opt.build(np.ones(3))
    copy.deepcopy(opt)
    pickled = opt.state_dict()
    assert asked == []
    opt.step(np.ones(3))
    opt.load_state_dict(pickled)
    copy.deepcopy(opt).load_state_dict(pickled)
    assert asked == [0]


def test_a_schedule_where_the_first_update_is_not_that_of_an_array() -> None:
    params = [np.ones(2), np.ones(2)]
    opt = instep.Rprop(params, convention="optax", learning_rate=lambda update: 0.5 + update)
    opt.step([np.ones(2), None])
    assert [state["step_size"].tolist() for state in opt.state] == [[0.5, 0.5]] * 2


@pytest.mark.parametrize("rule", ["SGD", "Adafactor"])
def test_schedules_are_not_compared(rule: str) -> None:
    class Table:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = object.__hash__

        def __call__(self, update: int) -> float:
            return 0.5

    opt = getattr(instep, rule)(np.ones((2, 2)), learning_rate=Table())
    opt.learning_rate = Table()
    opt.step(np.ones((2, 2)))


# --- what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [1, 0.5, np.float32(0.5), np.float64(0.5), 0.0])
def test_schedule_may_return_any_real_number(good: Any) -> None:
    p = np.zeros(1)
    instep.SGD(p, learning_rate=lambda update: good).step(np.ones(1))
    assert p[0] == -good


@pytest.mark.parametrize("rate", [np.array(0.5), np.float32(0.5), np.float64(0.5), 0.5])
def test_a_schedule_that_returns_a_number_of_numpy(rate: Any) -> None:
    param = np.ones(2)
    opt = instep.SGD(param, learning_rate=lambda update: rate)
    opt.step(np.ones(2))
    assert opt.current_learning_rate == 0.5 == param[0]


BAD_RATES = [np.nan, -1.0, "0.1", None, 10**400, 10**5000]


@pytest.mark.parametrize("bad", BAD_RATES, ids=range(len(BAD_RATES)))
def test_a_schedule_that_returns_nonsense(bad: Any) -> None:
    param = np.ones(2)
    opt = instep.Rprop(param, learning_rate=lambda update: bad)
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        opt.step(np.ones(2))
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        opt.current_learning_rate  # noqa: B018
    assert param.tolist() == [1.0, 1.0]
    torch = instep.SGD(param, convention="torch", learning_rate=lambda update: bad)
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        instep.interop.to_torch(torch)


@pytest.mark.parametrize(
    "bad",
    [np.nan, np.inf, -np.inf, -0.5, "0.1", None, 1j, [0.1], np.ones(2)],
    ids=["nan", "inf", "-inf", "negative", "str", "none", "complex", "list", "array"],
)
@each_dtype
def test_schedule_that_returns_nonsense(bad: Any, dtype: npt.DTypeLike) -> None:
    opt = untyped.Adam(a_tree(dtype), learning_rate=lambda update: 0.1 if update < 1 else bad)
    opt.step(a_tree(dtype))
    refused_without_a_trace(opt, lambda: opt.step(a_tree(dtype)), "learning_rate|schedule")


@pytest.mark.parametrize("bad", [np.nan, -0.5, "0.1"])
def test_schedule_of_a_group_that_returns_nonsense(bad: Any) -> None:
    tree = a_tree()
    tree["head"] = untyped.Group(
        tree["head"], learning_rate=lambda update: 0.1 if update < 1 else bad
    )
    opt = plain(tree)
    opt.step(a_tree())
    refused_without_a_trace(opt, lambda: opt.step(a_tree()), "learning_rate|schedule")


class OwnError(Exception):
    pass


@each_dtype
def test_schedule_that_raises(dtype: npt.DTypeLike) -> None:
    def schedule(update: int) -> float:
        if update == 1 and broken:
            raise OwnError
        return 0.1

    broken = True
    opt = instep.Adam(a_tree(dtype), learning_rate=schedule, gradient_accumulation_steps=2)
    for _ in range(3):
        opt.step(a_tree(dtype))
    before = snapshot(opt)
    with pytest.raises(OwnError):
        opt.step(a_tree(dtype))
    assert snapshot(opt) == before
    broken = False
    opt.step(a_tree(dtype))
    assert opt.iterations == 2


def test_schedule_that_steps_gets_a_runtime_error() -> None:
    p = np.zeros(3)

    def recursive(update: int) -> float:
        if armed:
            opt.step(np.ones(3))
        return 1.0

    armed = False
    opt = instep.SGD(p, learning_rate=recursive, momentum=0.5)
    opt.step(np.ones(3))
    before = snapshot(opt)
    armed = True
    with pytest.raises(RuntimeError):
        opt.step(np.ones(3))
    armed = False
    assert snapshot(opt) == before
    opt.step(np.ones(3))
    assert opt.iterations == 2


def test_schedule_may_survive_its_own_attempt_to_step() -> None:
    p = np.zeros(3)
    refused: list[int] = []

    def recursive(update: int) -> float:
        try:
            opt.step(np.ones(3))
        except RuntimeError:
            refused.append(update)
        return 1.0

    opt = instep.SGD(p, learning_rate=recursive)
    opt.step(np.ones(3))
    assert set(refused) == {0}
    assert p.tolist() == [-1.0] * 3
    assert opt.iterations == 1


def test_keras_counts_calls_whatever_a_window_was_before() -> None:
    """Values of Keras 3.15: the window changes after ten calls that each updated."""
    asked: list[int] = []
    w = np.ones(2)

    def rate(step: int) -> float:
        asked.append(step)
        return 0.1

    opt = instep.SGD(w, learning_rate=rate, convention="keras")
    for _ in range(10):
        opt.step(np.ones(2))
    opt.gradient_accumulation_steps = 4
    other = instep.SGD(w.copy(), learning_rate=rate, convention="keras")
    other.gradient_accumulation_steps = 4
    for _ in range(3):
        opt.step(np.ones(2))
    other.load_state_dict(opt.state_dict())
    for either in (opt, other):
        del asked[:]
        for _ in range(5):
            either.step(np.ones(2))
        assert asked == [13, 17]
        assert int(instep.interop.to_keras(either)[0]) == 18
    assert opt.iterations == other.iterations == 12


def test_states_of_earlier_releases_have_as_many_calls_as_their_updates_took() -> None:
    opt = instep.SGD(np.ones(2), gradient_accumulation_steps=3, convention="keras")
    for _ in range(8):
        opt.step(np.ones(2))
    state = opt.state_dict()
    assert state.pop("calls") == 8
    opt.load_state_dict(state)
    assert opt.state_dict()["calls"] == 8
