"""How a way of working is chosen, by invented times."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from instep import _core

TRIAL = _core.CHOICE_SAMPLES
WAYS = 3


def go(choice: object, pieces: int, time_of: Callable[[int], float], ways: int = WAYS) -> list[int]:
    return _core.choose(choice, ways, pieces, time_of)


def chosen(choice: object) -> int:
    """Return what is taken now, between two trials."""
    return go(choice, 1, lambda way: pytest.fail("no trial is due"))[0]


def times(*of_ways: float) -> Callable[[int], float]:
    return lambda way: of_ways[way]


def test_the_first_is_taken_until_something_is_known() -> None:
    assert go(_core.new_choice(), 1, times(3, 2, 1))[0] == 0


@pytest.mark.parametrize("fastest", range(WAYS))
def test_the_fastest_is_taken_after_a_trial_of_each_in_turns(fastest: int) -> None:
    choice = _core.new_choice()
    of_ways = [1.0, 1.0, 1.0]
    of_ways[fastest] = 0.8
    went = go(choice, WAYS * TRIAL + 100, times(*of_ways))
    assert went[: WAYS * TRIAL] == [*range(WAYS)] * TRIAL
    assert set(went[WAYS * TRIAL :]) == {fastest}


def test_a_trial_goes_on_from_step_to_step() -> None:
    choice = _core.new_choice()
    went = [go(choice, 1, times(3, 2, 1))[0] for _ in range(WAYS * TRIAL)]
    assert went == [*range(WAYS)] * TRIAL
    assert chosen(choice) == 2


def test_outliers_do_not_count() -> None:
    choice, rng = _core.new_choice(), random.Random(1)
    slow = {
        k for way in range(WAYS) for k in rng.sample(range(way, WAYS * TRIAL, WAYS), TRIAL // 2)
    }
    pieces = iter(range(WAYS * TRIAL))
    go(choice, WAYS * TRIAL, lambda way: (3, 2, 2.5)[way] + (1000 if next(pieces) in slow else 0))
    assert chosen(choice) == 1


def test_a_tie_changes_nothing() -> None:
    choice = _core.new_choice()
    between = WAYS * TRIAL * _core.CHOICE_REST
    go(choice, WAYS * TRIAL, times(3, 2, 3))
    assert chosen(choice) == 1
    assert set(go(choice, between, times(0.99, 1, 0.99))) == {1}
    assert set(go(choice, WAYS * TRIAL, times(0.99, 1, 0.99))) == {*range(WAYS)}
    assert chosen(choice) == 1


def test_it_is_asked_again_now_and_then() -> None:
    choice = _core.new_choice()
    trial, between = WAYS * TRIAL, WAYS * TRIAL * _core.CHOICE_REST
    disturbed = go(choice, trial, times(1, 5, 5))
    assert chosen(choice) == 0
    went = disturbed + go(choice, between, times(2, 1, 2)) + go(choice, trial, times(2, 1, 2))
    assert chosen(choice) == 1
    tried = [way for way in went[trial:] if way]
    assert len(tried) == 2 * TRIAL
    assert between / trial >= 30  # what a bad way costs is seldom paid


def test_threads_measure_one_at_a_time() -> None:
    choice = _core.new_choice()
    inside, go_on = threading.Event(), threading.Event()

    def time_of(way: int) -> float:
        inside.set()
        go_on.wait()
        return (3, 1, 2)[way]

    measuring = threading.Thread(target=go, args=(choice, WAYS * TRIAL, time_of))
    measuring.start()
    inside.wait()
    assert set(go(choice, 5 * WAYS * TRIAL, lambda way: pytest.fail("another measures"))) == {0}
    go_on.set()
    measuring.join()
    assert chosen(choice) == 1


def test_many_threads_at_once_choose_the_fastest() -> None:
    choice = _core.new_choice()
    threads = [
        threading.Thread(
            target=lambda: [go(choice, 7, times(2, 2, 1)) for _ in range(WAYS * TRIAL)]
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 in go(choice, WAYS, times(2, 2, 1))
