"""`instep.sharded`: ranks that share an optimizer have the bits of one process."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import ThreadRanks, on_ranks
from sharded_steps import (
    OPTIONS,
    STEPS,
    alone,
    assert_same,
    check,
    configurations,
    gradients,
    leaves,
    parameters,
    summed,
    trained,
)

import instep
from instep.sharded import Sharded, _optimizer, merge

WAYS = pytest.mark.parametrize("has_window", [True, False], ids=["window", "messages"])


@pytest.fixture(autouse=True)
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each round have a block or two."""
    monkeypatch.setattr(_optimizer, "_ROUND_BYTES", 1 << 18)


@pytest.mark.parametrize(("rule", "options"), configurations(), ids=str)
def test_every_rule_has_the_bits_of_one_process(rule: str, options: dict[str, Any]) -> None:
    on_ranks(3, lambda ranks: check(ranks, 3, rule, options))


@WAYS
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("rule", ["Adam", "Lamb", "Prodigy", "Adafactor", "Muon"])
def test_any_number_of_ranks(size: int, rule: str, has_window: bool) -> None:
    options = {"learning_rate": 0.1}
    on_ranks(size, lambda ranks: check(ranks, size, rule, options), has_window=has_window)


@pytest.mark.parametrize(("rule", "options"), configurations()[::2], ids=str)
def test_every_rule_in_memory_that_all_see(rule: str, options: dict[str, Any]) -> None:
    on_ranks(3, lambda ranks: check(ranks, 3, rule, options, shared=True))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("rule", ["Lamb", "Adafactor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_in_memory_that_all_see(rule: str, name: str, size: int) -> None:
    options = {"learning_rate": 0.1, **OPTIONS[name]}
    on_ranks(size, lambda ranks: check(ranks, size, rule, options, shared=True))


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes_in_memory_that_all_see(dtype: str) -> None:
    options = {"learning_rate": 0.01, "clipnorm": 1.0}
    on_ranks(3, lambda ranks: check(ranks, 3, "AdamW", options, dtype, shared=True))


def test_parameters_that_all_see(tmp_path: Path) -> None:
    def train(ranks: ThreadRanks) -> tuple[Any, Any]:
        given = parameters()
        optimizer = Sharded(
            instep.AdamW, given, comm=ranks, shared=True, use_ema=True, ema_momentum=0.5
        )
        assert_same(given, optimizer.params)
        for k in range(2):
            optimizer.step(gradients(0, 0, "float64"))  # of another dtype
            optimizer.step(microbatches=[gradients(0, 0)] * (ranks.rank + k))
        trained = copy.deepcopy(optimizer.params)
        optimizer.save(tmp_path)
        with optimizer.averaged() as averages:
            averaged = copy.deepcopy(averages)
        assert_same(optimizer.params, trained)
        optimizer.step(gradients(0, 0))
        optimizer.load(tmp_path)
        assert_same(optimizer.params, trained)
        ranks.barrier()
        if ranks.rank == 0:
            optimizer.params["first"][0][...] = 7
        ranks.barrier()
        assert np.all(optimizer.params["first"][0] == 7)
        return trained, averaged

    plain_params = parameters()
    plain = instep.AdamW(plain_params, use_ema=True, ema_momentum=0.5)
    for _ in range(4):
        plain.step(gradients(0, 0))
    with plain.averaged() as averages:
        averaged = copy.deepcopy(averages)
    for both in on_ranks(2, train):
        for given, expected in zip(both, (plain_params, averaged), strict=True):
            for one, other in zip(leaves(given), leaves(expected), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_nodes_have_no_memory_in_common() -> None:
    with pytest.raises(ValueError, match="shared: expected ranks of one node"):
        on_ranks(
            2,
            lambda ranks: Sharded(instep.Adam, parameters(), comm=ranks, shared=True),
            has_window=False,
        )
    with pytest.raises(ValueError, match="shared=True"):
        _ = on_ranks(1, lambda ranks: Sharded(instep.Adam, parameters(), comm=ranks))[0].grads


@WAYS
@pytest.mark.parametrize("rule", ["Adafactor", "SM3", "RowwiseAdagrad", "Muon"])
def test_ranks_that_hold_no_array_go_through_the_same_phases(rule: str, has_window: bool) -> None:
    shapes = [(300, 120), (7,)]
    start = [np.ones(shape, np.float32) for shape in shapes]
    grads = [np.random.default_rng(k).standard_normal(s) for k, s in enumerate(shapes)]
    expected = [each.copy() for each in start]
    plain = getattr(instep, rule)(expected, learning_rate=0.1, clipnorm=1.0)

    def train(ranks: ThreadRanks) -> None:
        given = [each.copy() for each in start]
        optimizer = Sharded(
            getattr(instep, rule), given, comm=ranks, learning_rate=0.1, clipnorm=1.0
        )
        for step in range(3):
            optimizer.step([grads[0], grads[1] if step != 1 else None])
        assert_same(given, expected)

    for step in range(3):  # the mean of four equal ones
        plain.step([grads[0], grads[1] if step != 1 else None])
    on_ranks(4, train, has_window=has_window)


@WAYS
@pytest.mark.parametrize("rule", ["Adam", "Lamb", "Adafactor", "SM3", "Muon"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(rule: str, name: str, has_window: bool) -> None:
    options = {"learning_rate": 0.1, **OPTIONS[name]}
    if rule == "Muon" and "state_dtype" in options:
        pytest.skip("keeps its state as it computes")
    on_ranks(3, lambda ranks: check(ranks, 3, rule, options), has_window=has_window)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("rounding", ["remainder", "stochastic"])
def test_other_dtypes(dtype: str, rounding: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    options = {"learning_rate": 0.01, "rounding": rounding, "clipnorm": 1.0}
    on_ranks(3, lambda ranks: check(ranks, 3, "AdamW", options, dtype))


def test_a_rule_of_ones_own() -> None:
    rule = instep.rule(
        "Mine",
        state="b",
        formula="b = beta*b + (1-beta)*g; p -= lr*b/(norm(b) + 1e-8)",
        learning_rate=0.1,
        beta=0.9,
    )
    batches = [[gradients(step, rank) for rank in range(3)] for step in range(STEPS)]
    params, expected = alone(rule, [summed(each) for each in batches])

    def train(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(rule, given, comm=ranks, reduce="sum")
        for step in range(STEPS):
            optimizer.step(gradients(step, ranks.rank))
        assert_same(given, params)
        assert_same(optimizer.state_dict(), expected.state_dict())

    on_ranks(3, train)


@WAYS
@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_microbatches_give_the_same_bits_however_they_are_shared_out(
    size: int, has_window: bool
) -> None:
    batches = [[gradients(step, batch) for batch in range(5)] for step in range(STEPS)]
    params, _ = alone(
        lambda given: instep.Adam(given, global_clipnorm=0.5),
        [summed(each, mean=True) for each in batches],
    )

    def train(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(instep.Adam, given, comm=ranks, global_clipnorm=0.5)
        first, last = (5 * (ranks.rank + k) // size for k in range(2))
        for each in batches:
            optimizer.step(microbatches=each[first:last])
        assert_same(given, params)

    on_ranks(size, train, has_window=has_window)


@pytest.mark.parametrize("where", [0, 2])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_on_one_rank_is_skipped_on_all(where: int, number: float) -> None:
    def train(ranks: ThreadRanks) -> list[Any]:
        given = parameters()
        options: dict[str, Any] = {"skip_nonfinite": True, "watch": ("nonfinite", "grad_norm")}
        optimizer = Sharded(instep.Adam, given, comm=ranks, **options)
        for step in range(STEPS):
            grads = gradients(step, ranks.rank)
            if step == 1 and ranks.rank == where:
                grads["others"]["d"][1, 7] = number
            optimizer.step(grads)
            if step == 1:
                assert optimizer.watched["nonfinite"]["others"]["d"] == 1
                assert optimizer.watched["nonfinite"]["first"][0] == 0
        assert (optimizer.iterations, optimizer.skipped_steps) == (2, 1)
        return leaves(given)

    first, *others = on_ranks(3, train)
    for each in others:
        assert_same(each, first)


def test_each_rank_holds_its_share() -> None:
    def share(ranks: ThreadRanks) -> int:
        optimizer = Sharded(instep.Adam, np.zeros(10 * 16384 + 5), comm=ranks)
        state = optimizer.state
        assert state["m"].shape == (optimizer.parts[1],)
        return int(optimizer.parts[1])

    assert on_ranks(4, share) == [3 * 16384, 2 * 16384, 3 * 16384, 2 * 16384 + 5]


def test_groups_choose_by_whole_arrays() -> None:
    vectors = instep.Group(lambda path, array: array.ndim < 2, weight_decay=0.0)
    batches = [[gradients(step, rank) for rank in range(2)] for step in range(STEPS)]
    params, _ = alone(
        lambda given: instep.AdamW(given, weight_decay=0.3, groups=[vectors]),
        [summed(each, mean=True) for each in batches],
    )

    def train(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(instep.AdamW, given, comm=ranks, weight_decay=0.3, groups=[vectors])
        for step in range(STEPS):
            optimizer.step(gradients(step, ranks.rank))
        assert_same(given, params)

    on_ranks(2, train)


def test_hyperparameters_and_frozen_arrays() -> None:
    def run(make: Any, grads: Any) -> Any:
        given = parameters()
        optimizer = make(given)
        optimizer.step(grads(0))
        optimizer.learning_rate = 0.5
        optimizer.freeze("params['others']")
        optimizer.step(grads(1))
        optimizer.unfreeze(lambda path, array: array.ndim == 2)
        optimizer.step(grads(2))
        assert optimizer.learning_rate == 0.5
        return given

    expected = run(instep.Adam, lambda t: summed([gradients(t, r) for r in range(2)], mean=True))

    def train(ranks: ThreadRanks) -> None:
        given = run(
            lambda params: Sharded(instep.Adam, params, comm=ranks),
            lambda step: gradients(step, ranks.rank),
        )
        assert_same(given, expected)

    on_ranks(2, train)


@WAYS
def test_averages_are_in_the_place_of_parameters_on_all_ranks(has_window: bool) -> None:
    batches = [[gradients(step, rank) for rank in range(2)] for step in range(STEPS)]
    params, plain = alone(
        lambda given: instep.Adam(given, use_ema=True, ema_momentum=0.5),
        [summed(each, mean=True) for each in batches],
    )

    def train(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(instep.Adam, given, comm=ranks, use_ema=True, ema_momentum=0.5)
        for step in range(STEPS):
            optimizer.step(gradients(step, ranks.rank))
        with optimizer.averaged() as averages:
            assert_same(averages, plain.averages)
        assert_same(given, params)

    on_ranks(2, train, has_window=has_window)


def test_parameters_come_back_where_an_evaluation_fails() -> None:
    def train(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(instep.Adam, given, comm=ranks, use_ema=True, ema_momentum=0.5)
        for step in range(STEPS):
            optimizer.step(gradients(step, ranks.rank))
        before = [each.copy() for each in leaves(given)]
        with pytest.raises(KeyError), optimizer.averaged():
            raise KeyError("evaluation")
        assert_same(leaves(given), before)

    on_ranks(2, train)


def test_what_schedule_free_rules_evaluate_with() -> None:
    batches = [[gradients(step, rank) for rank in range(2)] for step in range(STEPS)]
    _, plain = alone(instep.ScheduleFreeSGD, [summed(each, mean=True) for each in batches])

    def train(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.ScheduleFreeSGD, parameters(), comm=ranks)
        for step in range(STEPS):
            optimizer.step(gradients(step, ranks.rank))
        assert_same(optimizer.eval_params(), plain.eval_params())

    on_ranks(2, train)


def test_flush() -> None:
    def run(make: Any, grads: Any) -> Any:
        given = parameters()
        optimizer = make(given)
        optimizer.step(grads(0))
        assert optimizer.flush()
        assert not optimizer.flush()
        return given

    options: dict[str, Any] = {"gradient_accumulation_steps": 3}
    expected = run(
        lambda params: instep.Adam(params, **options),
        lambda t: summed([gradients(t, r) for r in range(2)], mean=True),
    )

    def train(ranks: ThreadRanks) -> None:
        given = run(
            lambda params: Sharded(instep.Adam, params, comm=ranks, **options),
            lambda step: gradients(step, ranks.rank),
        )
        assert_same(given, expected)

    on_ranks(2, train)


# Errors -------------------------------------------------------------------------------------------


def refused(size: int, function: Any) -> list[str]:
    """Return what each rank raises."""

    def attempt(ranks: ThreadRanks) -> str:
        with pytest.raises((TypeError, ValueError, RuntimeError, OSError)) as error:
            function(ranks)
        return f"{type(error.value).__name__}: {error.value}"

    return on_ranks(size, attempt)


WRONG: dict[str, Any] = {
    "another shape": lambda p, rank: Sharded(instep.Adam, [np.zeros(3 + rank)], comm=p),
    "another dtype": lambda p, rank: Sharded(
        instep.Adam, [np.zeros(3, [np.float32, np.float64][rank])], comm=p
    ),
    "another structure": lambda p, rank: Sharded(
        instep.Adam, [np.zeros(3), np.zeros(3)][: 1 + rank], comm=p
    ),
    "another rule": lambda p, rank: Sharded([instep.Adam, instep.AdamW][rank], np.zeros(3), comm=p),
    "another option": lambda p, rank: Sharded(
        instep.Adam, np.zeros(3), comm=p, clipnorm=[1.0, 2.0][rank]
    ),
    "another reduction": lambda p, rank: Sharded(
        instep.Adam, np.zeros(3), comm=p, reduce=["mean", "sum"][rank]
    ),
    "other numbers": lambda p, rank: Sharded(instep.Adam, np.full(3, 1.0 * rank), comm=p),
    "wrong option": lambda p, rank: Sharded(
        instep.Adam, np.zeros(3), comm=p, beta_1=[0.9, 2.0][rank]
    ),
    "wrong parameter": lambda p, rank: Sharded(
        instep.Adam, [np.zeros(3), np.zeros(3, int)][rank], comm=p
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_ranks_that_disagree_at_binding_are_all_told(what: str) -> None:
    messages = refused(2, lambda ranks: WRONG[what](ranks, ranks.rank))
    assert all("rank 1" in each or each is messages[1] for each in messages), messages
    assert messages[1].partition(":")[0] in ("ValueError", "TypeError")


STEPS_THAT_FAIL: dict[str, Any] = {
    "shape": lambda rank: {"grads": [np.zeros((3, 1)), np.zeros(4)][rank]},
    "dtype": lambda rank: {"grads": np.zeros((3, 1), [np.float32, np.float64][rank])},
    "no gradient": lambda rank: {"grads": [[np.zeros((3, 1))], [None]][rank]},
    "other call": lambda rank: [
        {"grads": np.zeros((3, 1))},
        {"microbatches": [np.zeros((3, 1))]},
    ][rank],
    "no microbatches": lambda rank: {"microbatches": []},
    "other dtypes": lambda rank: {
        "microbatches": [np.zeros((3, 1)), np.zeros((3, 1), [np.float64, np.float32][rank])]
    },
    "no list": lambda rank: {"microbatches": [[np.zeros((3, 1))], 3][rank]},
    "nothing": lambda rank: {},
    "missing": lambda rank: {"grads": np.zeros((3, 1)), "missing": ["error", "never"][rank]},
}


@WAYS
@pytest.mark.parametrize("what", STEPS_THAT_FAIL)
def test_what_is_wrong_on_one_rank_raises_on_all_before_anything_changes(
    what: str, has_window: bool
) -> None:
    def run(ranks: ThreadRanks) -> None:
        params = [np.ones((3, 1))] if what == "no gradient" else np.ones((3, 1))
        optimizer = Sharded(instep.Adam, params, comm=ranks)
        before = optimizer.state_dict()
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            optimizer.step(**STEPS_THAT_FAIL[what](ranks.rank))
        assert_same(optimizer.state_dict(), before)
        optimizer.step([np.ones((3, 1))] if what == "no gradient" else np.ones((3, 1)))
        assert optimizer.iterations == 1

    on_ranks(2, run, has_window=has_window)


def test_a_gradient_that_is_the_parameter_is_refused_on_all_ranks() -> None:
    def run(ranks: ThreadRanks) -> None:
        params = parameters()
        optimizer = Sharded(instep.Adam, params, comm=ranks)
        grads = gradients(0, 0)
        if ranks.rank == 1:
            grads["others"]["d"] = params["others"]["d"]
        with pytest.raises((ValueError, RuntimeError), match=r"gradient for .*'d'.* shares memory"):
            optimizer.step(grads)
        assert_same(params, parameters())

    on_ranks(3, run)


def test_the_message_names_rank_and_leaf() -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, {"w": np.ones(3)}, comm=ranks)
        optimizer.step({"w": np.ones(3 + (ranks.rank == 1))})

    messages = refused(3, run)
    assert messages[1].startswith("ValueError: gradient for params['w']: expected")
    for k in (0, 2):
        assert messages[k].startswith("RuntimeError: rank 1 has raised ValueError: gradient for")


def test_schedules_that_answer_otherwise_or_raise() -> None:
    def run(ranks: ThreadRanks) -> None:
        def schedule(step: int) -> float:
            if step == 2 and ranks.rank == 1:
                raise RuntimeError("no answer")
            return 0.5 if step == 1 and ranks.rank == 1 else 0.1

        params = np.ones(3)
        optimizer = Sharded(instep.SGD, params, comm=ranks, learning_rate=schedule)
        optimizer.step(np.ones(3))
        before = params.copy()
        with pytest.raises(ValueError, match="rank 1: numbers and options of the step"):
            optimizer.step(np.ones(3))
        assert_same(params, before)
        optimizer.learning_rate = 0.1
        optimizer.step(np.ones(3))
        optimizer.learning_rate = schedule
        with pytest.raises(RuntimeError, match="no answer"):
            optimizer.step(np.ones(3))
        assert optimizer.iterations == 2

    on_ranks(2, run)


def test_an_option_assigned_on_one_rank() -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, np.ones(3), comm=ranks)
        if ranks.rank == 1:
            optimizer.beta_1 = 0.5
        with pytest.raises(ValueError, match="rank 1: numbers and options of the step"):
            optimizer.step(np.ones(3))

    on_ranks(2, run)


def test_a_function_of_ones_own_that_raises_on_the_rank_that_holds_the_array() -> None:
    class Mine(instep.Optimizer):
        learning_rate: float = 0.1
        state = "b"

        def update(self, g: Any, p: Any, state: Any, numbers: Any, step: int) -> Any:
            if step == 2:
                raise ArithmeticError("no update")
            return 0.1 * g

    def run(ranks: ThreadRanks) -> None:
        params = [np.ones(3), np.ones(30000)]
        optimizer = Sharded(Mine, params, comm=ranks)
        optimizer.step([np.ones(3), np.ones(30000)])
        before = [each.copy() for each in params]
        with pytest.raises((ArithmeticError, RuntimeError), match="no update"):
            optimizer.step([np.ones(3), np.ones(30000)])
        assert_same(params, before)
        assert optimizer.iterations == 1

    on_ranks(2, run)


def test_what_one_process_alone_has_is_refused() -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, np.ones((5, 2)), comm=ranks)
        with pytest.raises(AttributeError, match="Sharded has not"):
            optimizer.apply_gradients  # noqa: B018

    on_ranks(2, run)


def test_flush_with_nothing_to_flush_against_a_step_is_told() -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, np.ones(3), comm=ranks, gradient_accumulation_steps=3)
        calls: list[Any] = [optimizer.flush, lambda: optimizer.step(np.ones(3))]
        with pytest.raises(ValueError, match=r"rank 1: call: expected flush\(\)"):
            calls[ranks.rank]()
        optimizer.step(np.ones(3))
        assert optimizer.flush()

    on_ranks(2, run)


def test_calls_of_different_kinds_are_told() -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, np.ones(3), comm=ranks)
        given: list[Any] = [{"grads": np.ones(3)}, {"microbatches": [np.ones(3)]}]
        with pytest.raises(ValueError, match=r"rank 1: call: expected step\(grads\)"):
            optimizer.step(**given[ranks.rank])

    on_ranks(2, run)


def test_other_states_on_other_ranks_are_refused() -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, np.ones(3), comm=ranks)
        state = optimizer.state_dict()
        state["iterations"] = ranks.rank
        with pytest.raises(ValueError, match=r"rank 1: state\['iterations'\]: expected 0"):
            optimizer.load_state_dict(state)
        assert optimizer.iterations == 0

    on_ranks(2, run)


def test_arrays_are_excluded_from_weight_decay_whole() -> None:
    def run(make: Any) -> Any:
        given = [np.ones(40000), np.ones(3)]
        optimizer = make(given)
        optimizer.exclude_from_weight_decay([given[0]])
        optimizer.step([np.zeros(40000), np.zeros(3)])
        return given

    options: dict[str, Any] = {"weight_decay": 0.5, "learning_rate": 0.1}
    expected = run(lambda given: instep.AdamW(given, **options))

    def train(ranks: ThreadRanks) -> None:
        given = run(lambda params: Sharded(instep.AdamW, params, comm=ranks, **options))
        assert_same(given, expected)

    on_ranks(2, train)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_there_are_no_copies(copied: Any) -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, np.ones(3), comm=ranks)
        with pytest.raises(TypeError, match="the only one of its kind"):
            copied(optimizer)

    on_ranks(2, run)


def test_what_connects_ranks_is_checked() -> None:
    with pytest.raises((TypeError, ImportError), match="mpi4py"):
        Sharded(instep.Adam, np.ones(3), comm="world")


# Checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "state_dtype"),
    [
        ("Adam", None),
        ("Adam", "float8"),
        ("Prodigy", None),
        ("Adafactor", None),
        ("SM3", "bfloat16"),
        ("Muon", None),
    ],
)
def test_a_checkpoint_is_loaded_by_any_number_of_ranks(
    rule: str, state_dtype: str | None, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"learning_rate": 0.1, "state_dtype": state_dtype}
    directory, file = str(tmp_path / "shards"), str(tmp_path / "merged.npz")

    def save(ranks: ThreadRanks) -> Any:
        _, optimizer = trained(ranks, rule, options)
        optimizer.save(directory, extra={"epoch": 3})
        state = optimizer.state_dict()
        optimizer.step(gradients(9, 0))
        return state

    state = on_ranks(3, save)[0]
    merge(directory, file)
    for place in (directory, file):
        for size in (1, 2, 4):

            def load(ranks: ThreadRanks, place: str = place) -> None:
                given = parameters()
                optimizer = Sharded(
                    getattr(instep, rule), given, comm=ranks, reduce="sum", **options
                )
                assert optimizer.load(place) == {"epoch": 3}
                assert_same(optimizer.state_dict(), state)
                optimizer.step(gradients(9, 0) if ranks.rank == 0 else none())
                if ranks.size == 1:
                    return
                assert optimizer.iterations == STEPS + 1

            def none() -> Any:
                zeros = [None if g is None else np.zeros_like(g) for g in leaves(gradients(9, 0))]
                return {"first": zeros[:3], "others": dict(zip("abcd", zeros[3:], strict=True))}

            on_ranks(size, load)
    plain = getattr(instep, rule)(parameters(), **options)
    assert plain.load(file) == {"epoch": 3}
    assert_same(plain.state_dict(), state)


def test_what_is_merged_has_parameters_of_16_bits(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")

    def save(ranks: ThreadRanks) -> Any:
        params, optimizer = trained(ranks, "Adam", {}, "bfloat16")
        optimizer.save(tmp_path / "shards")
        return params

    params = on_ranks(2, save)[0]
    merge(tmp_path / "shards", tmp_path / "merged.npz")
    given = parameters("bfloat16")
    instep.Adam(given).load(tmp_path / "merged.npz")
    assert_same(given, params)


def test_a_plain_optimizers_file_is_loaded_by_ranks(tmp_path: Path) -> None:
    params, plain = alone(instep.Adam, [gradients(step, 0) for step in range(STEPS)])
    plain.save(tmp_path / "plain.npz")

    def load(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(instep.Adam, given, comm=ranks)
        optimizer.load(tmp_path / "plain.npz")
        assert_same(given, params)
        assert_same(optimizer.state_dict(), plain.state_dict())
        other = Sharded(instep.Adam, parameters(), comm=ranks)
        other.load_state_dict(plain.state_dict())
        assert_same(other.state_dict(), plain.state_dict())

    on_ranks(3, load)


def test_saving_again_leaves_one_saving(tmp_path: Path) -> None:
    def save(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, parameters(), comm=ranks)
        for step in range(2):
            optimizer.step(gradients(step, ranks.rank))
            optimizer.save(tmp_path)
        other = Sharded(instep.Adam, parameters(), comm=ranks)
        other.load(tmp_path)
        assert other.iterations == 2

    on_ranks(2, save)
    assert len(os.listdir(tmp_path)) == 3


def test_a_rank_that_cannot_save_leaves_the_saving_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instep.sharded import _checkpoint

    write = _checkpoint.write_shard

    def fails(directory: str, name: str, shards: Any) -> None:
        if name.endswith("1.npz") and is_failing:
            raise OSError("no space left")
        write(directory, name, shards)

    monkeypatch.setattr(_checkpoint, "write_shard", fails)
    is_failing = False

    def save(ranks: ThreadRanks) -> None:
        nonlocal is_failing
        optimizer = Sharded(instep.Adam, parameters(), comm=ranks)
        optimizer.step(gradients(0, ranks.rank))
        optimizer.save(tmp_path)
        optimizer.step(gradients(2, ranks.rank))
        is_failing = True
        with pytest.raises((OSError, RuntimeError), match="no space left"):
            optimizer.save(tmp_path)
        optimizer.load(tmp_path)
        assert optimizer.iterations == 1

    on_ranks(2, save)


@pytest.mark.parametrize("damage", ["shard", "manifest", "missing"])
def test_damaged_and_foreign_checkpoints_are_refused_on_all_ranks(
    damage: str, tmp_path: Path
) -> None:
    def save(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, parameters(), comm=ranks)
        optimizer.step(gradients(0, ranks.rank))
        optimizer.save(tmp_path)

    on_ranks(2, save)
    name = next(
        n for n in sorted(os.listdir(tmp_path)) if n.startswith("shard") != (damage == "manifest")
    )
    file = tmp_path / name
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    def load(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(instep.Adam, given, comm=ranks)
        with pytest.raises((ValueError, OSError)):
            optimizer.load(tmp_path)
        assert optimizer.iterations == 0
        assert_same(given, parameters())

    on_ranks(2, load)


def test_another_rules_checkpoint_is_refused_on_all_ranks(tmp_path: Path) -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, parameters(), comm=ranks)
        optimizer.save(tmp_path)
        given = parameters()
        other = Sharded(instep.AdamW, given, comm=ranks)
        with pytest.raises(ValueError, match="rule"):
            other.load(tmp_path)
        fewer = Sharded(instep.Adam, given["first"], comm=ranks)
        with pytest.raises(ValueError, match="expected the arrays"):
            fewer.load(tmp_path)
        assert_same(given, parameters())

    on_ranks(2, run)


@pytest.mark.parametrize("other", ["save", "state_dict", "eval", "load"])
def test_calls_that_differ_are_told_on_all_ranks(other: str, tmp_path: Path) -> None:
    calls: dict[str, Callable[[Any], Any]] = {
        "save": lambda opt: opt.save(tmp_path),
        "state_dict": lambda opt: opt.state_dict(),
        "eval": lambda opt: opt.eval_params(),
        "load": lambda opt: opt.load(tmp_path / "saved"),
        "step": lambda opt: opt.step(gradients(0, 0)),
    }

    def run(ranks: ThreadRanks) -> None:
        given = parameters()
        optimizer = Sharded(instep.ScheduleFreeSGD, given, comm=ranks)
        optimizer.step(gradients(0, 0))
        optimizer.save(tmp_path / "saved")
        before = copy.deepcopy(given)
        mine = calls[other if ranks.rank == 0 else "step"]
        with pytest.raises(ValueError, match=r"rank 1: call: expected .*, as on rank 0, got step"):
            mine(optimizer)
        assert_same(given, before)
        optimizer.step(gradients(1, 0))

    on_ranks(2, run)


def test_copies_are_refused_on_ranks() -> None:
    with pytest.raises(ValueError, match="copies: expected none on ranks"):
        on_ranks(2, lambda ranks: Sharded(instep.Adam, parameters(), comm=ranks, copies="float16"))


def test_a_window_has_the_mean_of_its_calls_however_many_microbatches_they_had() -> None:
    def run(ranks: ThreadRanks) -> None:
        params = np.zeros(3)
        options: dict[str, Any] = {"learning_rate": 1.0, "gradient_accumulation_steps": 2}
        optimizer = Sharded(instep.SGD, params, comm=ranks, **options)
        for calls in ([[1.0, 2.0], [6.0]], [[6.0], []]):
            mine = calls[ranks.rank]
            optimizer.step(microbatches=[np.full(3, number) for number in mine])
        assert params.tolist() == [-4.5] * 3  # of 3 and 6

    on_ranks(2, run)


def test_groups_do_not_show_in_params() -> None:
    def run(ranks: ThreadRanks) -> None:
        w, b = np.ones(3), np.ones(2)
        optimizer = Sharded(instep.Adam, {"w": instep.Group(w, l2=0.1), "b": b}, comm=ranks)
        assert optimizer.params["w"] is w
        assert optimizer.params["b"] is b

    on_ranks(2, run)


def test_params_are_the_given_ones() -> None:
    given = {"w": np.ones(3), "b": np.ones(2)}
    assert on_ranks(2, lambda ranks: Sharded(instep.Adam, given, comm=ranks).params is given)[0]


def test_a_saving_removes_what_killed_writers_have_left(tmp_path: Path) -> None:
    left = tmp_path / ".instep-0123456789abcdef"
    left.write_bytes(b"half")
    on_ranks(2, lambda ranks: Sharded(instep.Adam, parameters(), comm=ranks).save(tmp_path))
    assert not left.exists()
