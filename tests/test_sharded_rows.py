"""Gradients of rows on ranks: the bits of one process, at the cost of the rows touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import ThreadRanks, on_ranks
from references import REFERENCES
from sharded_rows import STEPS, check, gradients, parameters, together
from sharded_steps import assert_same

import instep
from instep import Rows
from instep.sharded import Sharded, _optimizer, merge

WAYS = ["window", "messages", "shared"]
RULES = [rule for rule, reference in REFERENCES.items() if reference.elementwise]
OPTIONS: dict[str, dict[str, Any]] = {
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipnorm": {"clipnorm": 0.5, "weight_decay": 0.1},
    "accumulation": {"gradient_accumulation_steps": 2, "l2": 0.01},
    "averages": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "watched": {"watch": ("grad_norm", "nonfinite"), "skip_nonfinite": True},
    "bfloat16 state": {"state_dtype": "bfloat16"},
    "keras": {"convention": "keras", "gradient_accumulation_steps": 3},
}


@pytest.fixture(autouse=True)
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each round have a block or two."""
    monkeypatch.setattr(_optimizer, "_ROUND_BYTES", 1 << 18)


def table(ranks: ThreadRanks, rule: Any = instep.SGD, **options: Any) -> tuple[Any, Sharded]:
    """Return a table of 4,096 rows that ranks share, and their optimizer."""
    options = {"learning_rate": 1.0, "sparse": "lazy", "reduce": "sum", **options}
    params = np.ones((4096, 16), np.float32)
    return params, Sharded(rule, params, comm=ranks, **options)


@pytest.mark.parametrize("sparse", ["lazy", "exact"])
@pytest.mark.parametrize("rule", [*RULES, "RowwiseAdagrad"])
def test_every_rule_has_the_bits_of_one_process(rule: str, sparse: str) -> None:
    on_ranks(3, lambda ranks: check(ranks, 3, rule, {"sparse": sparse}))


@pytest.mark.parametrize("rule", ["Lamb", "Adafactor", "Prodigy", "Muon"])
def test_rules_that_see_whole_arrays_have_them(rule: str) -> None:
    on_ranks(3, lambda ranks: check(ranks, 3, rule, {"sparse": "exact"}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("sparse", ["lazy", "exact"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(name: str, sparse: str, size: int, way: str) -> None:
    options = {**OPTIONS[name], "sparse": sparse}
    on_ranks(
        size,
        lambda ranks: check(ranks, size, "Adam", options, shared=way == "shared"),
        has_window=way != "messages",
    )


@pytest.mark.parametrize("watch", [("grad_norm",), ("nonfinite",)])
@pytest.mark.parametrize("sparse", ["lazy", "exact"])
def test_ranks_that_hold_no_row_go_through_the_same_phases(sparse: str, watch: Any) -> None:
    options = {"sparse": sparse, "watch": watch}
    on_ranks(3, lambda ranks: check(ranks, 3, "RowwiseAdagrad", options))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_microbatches_give_the_same_bits_however_they_are_shared_out(
    size: int, reduce: str
) -> None:
    options: dict[str, Any] = {"sparse": "lazy", "global_clipnorm": 0.5, "reduce": reduce}

    def train(ranks: ThreadRanks) -> Any:
        given = parameters()
        optimizer = Sharded(instep.Adam, given, comm=ranks, **options)
        first, last = (5 * (ranks.rank + k) // ranks.size for k in range(2))
        for step in range(STEPS):
            batches = [gradients(step, 2 * batch) for batch in range(5)]
            optimizer.step(microbatches=batches[first:last])
        return given

    [expected] = on_ranks(1, train)
    for given in on_ranks(size, train):
        assert_same(given, expected)


def batch_of(kind: str) -> Any:
    """Return a gradient of some kind for a table of 4,096 rows."""
    dense = np.ones((4096, 16), np.float32)
    return {
        "none": None,
        "dense": dense,
        "dense float16": dense.astype(np.float16),
        "rows": Rows([1, 4000], dense[:2]),
        "rows float64": Rows([1], dense[:1].astype(np.float64)),
    }[kind]


@pytest.mark.parametrize("has_window", [True, False], ids=["window", "messages"])
@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("none", "rows"),
        ("none", "dense"),
        ("dense", "none"),
        ("dense", "rows"),
        ("rows", "dense"),
        ("dense", "dense float16"),
        ("rows", "rows float64"),
    ],
)
def test_microbatches_of_other_kinds_on_other_ranks_are_told(
    here: str, there: str, has_window: bool
) -> None:
    def run(ranks: ThreadRanks) -> None:
        params = np.ones((4096, 16), np.float32)
        optimizer = Sharded(instep.Adam, [params], comm=ranks, sparse="lazy")
        kind = here if ranks.rank == 0 else there
        with pytest.raises(ValueError, match=r"rank 1: gradients of microbatches: expected .* got"):
            optimizer.step(microbatches=[[batch_of(kind)]])
        assert (params == 1).all()
        optimizer.step(microbatches=[[batch_of("rows")]])
        assert (params[[1, 4000]] != 1).all()

    on_ranks(2, run, has_window=has_window)


def test_a_mean_is_that_of_sums() -> None:
    """Three ranks: a third of each value is no third of their sum."""
    values = np.array([[0.1, 0.7]], np.float32)

    def train(ranks: ThreadRanks) -> Any:
        params = np.zeros((3, 2), np.float32)
        optimizer = Sharded(instep.SGD, params, comm=ranks, learning_rate=1.0, sparse="lazy")
        optimizer.step(Rows([1], values * np.float32(1 + ranks.rank)))
        return params

    total = (values + values * np.float32(2)) + values * np.float32(3)
    for params in on_ranks(3, train):
        assert_same(params[1:2], -(total / np.float32(3)))
        assert not params[[0, 2]].any()


@pytest.mark.parametrize("given", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes(dtype: str, given: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    of = {"bfloat16": ml_dtypes.bfloat16}
    own, dtypes = of.get(dtype, dtype), of.get(given, given)
    batches = [[gradients(step, rank, dtypes) for rank in range(2)] for step in range(STEPS)]
    for each in batches:
        for grads in each:
            grads[4] = None
    params = parameters(own)
    expected = instep.Adam(params, sparse="exact")
    for each in batches:
        expected.step(together(each))
    expected.settle()

    def train(ranks: ThreadRanks) -> None:
        here = parameters(own)
        optimizer = Sharded(instep.Adam, here, comm=ranks, reduce="sum", sparse="exact")
        for each in batches:
            optimizer.step(each[ranks.rank])
        optimizer.settle()
        assert_same(here, params)

    on_ranks(2, train)


def test_rows_that_are_to_be_looked_up_are_settled_on_all_ranks() -> None:
    expected = np.ones((4096, 16), np.float32)
    alone = instep.Adam(expected, learning_rate=1.0, sparse="exact")
    everywhere = np.arange(4096)
    ones = np.ones((4096, 16), np.float32)

    def train(ranks: ThreadRanks) -> Any:
        params, optimizer = table(ranks, instep.Adam, sparse="exact")
        optimizer.step(Rows(everywhere[ranks.rank :: 2], ones[ranks.rank :: 2]))
        for _ in range(3):
            optimizer.step(Rows([7, 4000], ones[:2]))
        before = params.copy()
        optimizer.settle(np.array([1, 2 + ranks.rank, 4095]))
        settled = params.copy()
        optimizer.settle()
        return before, settled, params

    alone.step(Rows(everywhere, ones))
    for _ in range(3):
        alone.step(Rows([7, 4000], 2 * ones[:2]))
    alone.settle()
    for before, settled, params in on_ranks(2, train):
        assert_same(params, expected)
        changed = (before != settled).any(axis=1)
        assert np.flatnonzero(changed).tolist() == [1, 2, 3, 4095]
        assert_same(settled[changed], expected[changed])


@pytest.mark.parametrize("options", [{"sparse": "exact"}, {"sparse": "lazy", "use_ema": True}])
@pytest.mark.parametrize("read", ["state_dict", "save", "load_state_dict"])
def test_all_ranks_have_the_same_rows_after_reading(
    read: str, options: dict[str, Any], tmp_path: Path
) -> None:
    ones = np.ones((4096, 16), np.float32)
    if options["sparse"] == "lazy":
        options = {**options, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}

    def train(ranks: ThreadRanks) -> Any:
        params, optimizer = table(ranks, instep.Adam, **options)
        state = optimizer.state_dict()
        optimizer.step(Rows([1, 4000], ones[:2]))
        for _ in range(3):
            optimizer.step(Rows([7], ones[:1]))
        if read == "save":
            optimizer.save(tmp_path)
        elif read == "load_state_dict":
            optimizer.load_state_dict(state)
        else:
            optimizer.state_dict()
        return params

    expected = ones.copy()
    alone = instep.Adam(expected, learning_rate=1.0, **options)
    alone.step(Rows([1, 4000], 2 * ones[:2]))
    for _ in range(3):
        alone.step(Rows([7], 2 * ones[:1]))
    alone.settle()
    for params in on_ranks(2, train):
        assert_same(params, expected)


class Counting(ThreadRanks):
    """Ranks that count the bytes of their messages."""

    sent = 0

    def post(self, sends: Sequence[Any], receives: Sequence[Any]) -> Callable[[], None]:
        self.sent += sum(memory.nbytes for memory in sends if memory is not None)
        return super().post(sends, receives)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}], ids=str)
def test_no_more_is_sent_than_rows(options: dict[str, Any]) -> None:
    def train(ranks: ThreadRanks) -> int:
        ranks.__class__ = Counting
        params, optimizer = table(ranks, **options)
        for _ in range(2):
            optimizer.step(Rows(np.arange(ranks.rank, 4096, 41), np.ones((100, 16), np.float32)))
        assert (params[::41] != 1).all()
        sent = ranks.sent  # type: ignore[attr-defined]
        assert 100 * 16 * 4 < sent < params.nbytes // 4
        return 0

    on_ranks(2, train, has_window=False)


def test_tables_are_cut_between_rows() -> None:
    def share(ranks: ThreadRanks, around: Any) -> Any:
        table = np.zeros((12000, 100), np.float32)  # 4,096 rows have a whole number of blocks
        return Sharded(instep.Adam, [around(table)], comm=ranks).parts[0]

    for (first, _), expected in zip(
        on_ranks(2, lambda ranks: share(ranks, lambda table: table)), (0, 606208), strict=True
    ):
        assert first == expected
    for (first, _), expected in zip(
        on_ranks(2, lambda ranks: share(ranks, lambda table: instep.Group(table, sparse="lazy"))),
        (0, 409600),
        strict=True,
    ):
        assert first == expected


def refused(function: Any, size: int = 2) -> list[str]:
    """Return what each rank raises."""

    def attempt(ranks: ThreadRanks) -> str:
        with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
            function(ranks)
        return str(caught.value)

    return on_ranks(size, attempt)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("id", r"expected ids of rows from 0 to 4095, got 4096 at position \(0,\)"),
        ("shape", r"expected values of shape \(1, 16\)"),
        ("array", r"rank 1: gradients: expected \['Rows of float32'\], .* got \['float32'\]"),
        ("dtype", "float64"),
        ("none", r"rank 1: gradients: expected \['Rows of float32'\], .* got \[None\]"),
    ],
)
def test_what_is_wrong_on_one_rank_raises_on_all_before_anything_changes(
    what: str, message: str
) -> None:
    wrong = {
        "id": Rows([4096], np.ones((1, 16), np.float32)),
        "shape": Rows([1], np.ones((1, 15), np.float32)),
        "array": np.ones((4096, 16), np.float32),
        "dtype": Rows([1], np.ones((1, 16))),
        "none": None,
    }[what]

    def run(ranks: ThreadRanks) -> None:
        params = np.ones((4096, 16), np.float32)
        optimizer = Sharded(instep.Adam, [params], comm=ranks, sparse="lazy")
        good = Rows([1, 4000], np.ones((2, 16), np.float32))
        with pytest.raises((ValueError, RuntimeError), match=message):
            optimizer.step([wrong if ranks.rank == 1 else good])
        assert (params == 1).all()
        assert optimizer.iterations == 0
        optimizer.step([good])
        assert (params[[1, 4000]] != 1).all()

    on_ranks(2, run)


def test_tables_say_that_they_are_tables() -> None:
    def run(ranks: ThreadRanks) -> None:
        params = np.ones((5, 2))
        Sharded(instep.Adam, params, comm=ranks).step(Rows([1], np.ones((1, 2))))

    for message in refused(run):
        assert "gradient for params: expected none of rows" in message
        assert 'give sparse="lazy"' in message

    def lazy(ranks: ThreadRanks) -> None:
        table(ranks, instep.Lamb)[1].step(Rows([1], np.ones((1, 16), np.float32)))

    assert all('sparse="exact"' in message for message in refused(lazy))


def test_values_that_are_the_parameters_are_refused() -> None:
    def run(ranks: ThreadRanks) -> None:
        params, optimizer = table(ranks)
        optimizer.step(Rows([1], params[7:8]))

    assert all("share memory" in message for message in refused(run))


def test_a_table_without_elements() -> None:
    def run(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, [np.ones((5, 0))], comm=ranks, sparse="lazy")
        optimizer.step([Rows([1], np.ones((1, 0)))])
        assert optimizer.iterations == 1

    on_ranks(2, run)


def test_ids_that_are_none_are_told_on_all_ranks() -> None:
    def run(ranks: ThreadRanks) -> None:
        table(ranks, sparse="exact")[1].settle(np.array([9999 if ranks.rank else 1]))

    first, second = refused(run)
    assert first.startswith("rank 1 has raised ValueError: ids for params: expected ids of rows")
    assert second.startswith("ids for params: expected ids of rows")

    def another(ranks: ThreadRanks) -> None:
        optimizer = table(ranks, sparse="exact")[1]
        optimizer.settle(np.array([1]) if ranks.rank else None)

    assert all("settle" in message for message in refused(another))


@pytest.mark.parametrize("sparse", ["lazy", "exact"])
def test_a_checkpoint_in_mid_window_is_loaded_by_any_number_of_ranks(
    sparse: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "sparse": sparse,
        "gradient_accumulation_steps": 2,
        "watch": ("grad_norm",),
    }
    params = parameters()
    alone = instep.Adam(params, **options)
    for step in range(3):
        alone.step(together([gradients(step, 0), gradients(step, 2)]))
    plain, directory, file = (str(tmp_path / name) for name in ("plain", "shards", "merged"))
    alone.save(plain)

    def save(ranks: ThreadRanks) -> None:
        optimizer = Sharded(instep.Adam, parameters(), comm=ranks, reduce="sum", **options)
        for step in range(3):
            optimizer.step(gradients(step, 2 * ranks.rank))
        optimizer.save(directory)

    on_ranks(2, save)
    merge(directory, file)
    state = alone.state_dict()
    alone.step(gradients(3, 0))
    alone.settle()

    def go_on(ranks: ThreadRanks, place: str) -> None:
        given = parameters()
        optimizer = Sharded(instep.Adam, given, comm=ranks, reduce="sum", **options)
        optimizer.load(place)
        assert_same(optimizer.state_dict(), state)
        none = [g if g is None else Rows(g.ids[:0], g.values[:0]) if isinstance(g, Rows)
                else 0 * g for g in gradients(3, 0)]  # fmt: skip
        optimizer.step(none if ranks.rank else gradients(3, 0))
        optimizer.settle()
        assert_same(given, params)

    for place in (plain, directory, file):
        for size in (1, 2, 3):
            on_ranks(size, lambda ranks, place=place: go_on(ranks, place))  # type: ignore[misc]
    given = parameters()
    loaded = instep.Adam(given, **options)
    loaded.load(file)
    loaded.step(gradients(3, 0))
    loaded.settle()
    assert_same(given, params)


@pytest.mark.parametrize("id_", [3, 4000])
def test_a_window_that_names_rows_of_one_rank_alone(id_: int, tmp_path: Path) -> None:
    def save(ranks: ThreadRanks) -> None:
        _, optimizer = table(ranks, gradient_accumulation_steps=2)
        optimizer.step(Rows([id_], np.ones((1, 16), np.float32)))
        assert optimizer.state_dict()["arrays"]["params"]["rows_in_window"].dtype == np.int64
        optimizer.save(tmp_path)

    def load(ranks: ThreadRanks) -> None:
        params, optimizer = table(ranks, gradient_accumulation_steps=2)
        optimizer.load(tmp_path)
        optimizer.flush()
        assert np.flatnonzero((params != 1).any(axis=1)).tolist() == [id_]

    on_ranks(2, save)
    for size in (1, 2, 3):
        on_ranks(size, load)


def test_a_window_of_rows_is_for_tables_alone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 2}
    plain = instep.Adam(np.ones((4096, 16), np.float32), **options)
    plain.step(Rows([3], np.ones((1, 16), np.float32)))
    plain.save(file := str(tmp_path / "plain"))

    def load(ranks: ThreadRanks) -> None:
        params = np.ones((4096, 16), np.float32)
        Sharded(instep.Adam, params, comm=ranks, **options).load(file)

    assert all("the window for params" in message for message in refused(load))


def test_frozen_tables() -> None:
    def run(ranks: ThreadRanks) -> None:
        params, optimizer = table(ranks)
        optimizer.freeze("params")
        optimizer.step(Rows([1], np.ones((1, 16), np.float32)))
        assert (params == 1).all()
        optimizer.unfreeze("params")
        optimizer.step(Rows([2], np.ones((1, 16), np.float32)))
        assert_same(params[2], np.full(16, 1 - ranks.size, np.float32))

    on_ranks(2, run)
