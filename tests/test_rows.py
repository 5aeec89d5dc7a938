"""Gradients of some rows: what they mean, to every rule and option, and what is refused."""

from __future__ import annotations

import copy
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import repository
from model import snapshot
from references import REFERENCES

import instep
from instep import Rows
from instep._cli import main

# Called with arguments that a type checker would refuse.
untyped: Any = instep

ELEMENTWISE = sorted(name for name, reference in REFERENCES.items() if reference.elementwise)
WHOLE = sorted(set(REFERENCES) - {*ELEMENTWISE, "RowwiseAdagrad"})

OPTIONS: list[dict[str, Any]] = [
    {},
    {"l2": 0.01, "maximize": True, "clipvalue": 0.5},
    {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    {"loss_scale_factor": 4.0, "clipnorm": 0.5, "skip_nonfinite": True},
    {"gradient_accumulation_steps": 3, "global_clipnorm": 0.5},
    {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.75},
]


def random_rows(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = "f4", most: int = 12
) -> Rows:
    """Rows with repeated ids, sometimes none, one or all of them."""
    count = rng.choice([0, 1, 2, most, most, most])
    ids = rng.integers(0, shape[0], count)
    if rng.random() < 0.1:
        ids = rng.permutation(shape[0])
    return Rows(ids, rng.standard_normal((len(ids), *shape[1:])).astype(dtype))


def options_of(name: str, options: dict[str, Any]) -> dict[str, Any]:
    if name in ("Lamb", "Lars", "NovoGrad") or "weight_decay" in options:
        return options
    return {**options, "weight_decay": 0.1} if options.get("l2") else options


def bits(opt: instep.Optimizer) -> list[bytes]:
    """All numbers of an optimizer."""
    opt.settle()
    found = [p.tobytes() for p in opt.params]
    for state in opt.state:
        found += [np.asarray(value).tobytes() for _, value in sorted(state.items())]
    return found + [p.tobytes() for p in opt.averages or []]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_exact_is_the_dense_step(name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    shapes = [(40, 7), (9,), (5, 2, 3)]
    dtype = rng.choice(["f4", "f8"])
    params = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    twins = [p.copy() for p in params]
    make, options = getattr(untyped, name), options_of(name, options)
    opt = make(params, sparse="exact", **options)
    twin = make(twins, **options)
    for k in range(14):
        given: list[Any] = [random_rows(rng, shape, dtype) for shape in shapes]
        if k == 5:
            given[0] = rng.standard_normal(shapes[0])
        if k in (3, 8, 9):
            given[k % 3] = None
        dense = [
            each.dense(shape, dtype) if isinstance(each, Rows) else each
            for each, shape in zip(given, shapes, strict=True)
        ]
        opt.step(given)
        twin.step(dense)
        if k in (6, 13):
            assert bits(opt) == bits(twin), k
            assert opt.grad_norm == twin.grad_norm


# --- lazy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", [*ELEMENTWISE, "RowwiseAdagrad"])
def test_lazy_leaves_other_rows_alone(name: str, options: dict[str, Any]) -> None:
    """The dense step, but where no row is named."""
    rng = np.random.default_rng(2)
    shape = (17, 5)
    p = rng.standard_normal(shape)
    make, options = getattr(untyped, name), options_of(name, options)
    window = options.get("gradient_accumulation_steps", 1)
    mu = options.pop("ema_momentum") if "use_ema" in (options := dict(options)) else None
    for key in ("use_ema", "ema_overwrite_frequency"):
        options.pop(key, None)
    averaging = {"use_ema": True, "ema_momentum": mu} if mu else {}
    opt, twin = make(p, **options, **averaging), make(p.copy(), **options)
    average = None
    for _ in range(5):
        touched = np.zeros(shape[0], bool)
        before = [each.copy() for each in arrays_of(twin)]
        for _ in range(window):
            rows = random_rows(rng, shape, "f8", 6)
            touched[rows.ids] = True
            opt.step(rows)
            twin.step(rows.dense(shape))
        for now, old in zip(arrays_of(twin), before, strict=True):
            now[~touched] = old[~touched]
        if name == "RowwiseAdagrad":  # which adds up each row's squares on its own
            assert all(map(np.allclose, arrays_of(opt), arrays_of(twin)))
            continue
        assert [a.tobytes() for a in arrays_of(opt)] == [a.tobytes() for a in arrays_of(twin)]
        if mu:  # in every row
            average = twin.params if average is None else mu * average + (1 - mu) * twin.params
            assert np.allclose(opt.averages, average, rtol=1e-12)
            average = average.copy()


def arrays_of(opt: Any) -> list[Any]:
    """The parameter, and the state that has its rows."""
    state = sorted((key, value) for key, value in opt.state.items() if key != "step")
    return [opt.params, *(value for _, value in state if value.ndim)]


def test_dense_gradients_in_between() -> None:
    """Whatever the gradient before it was, and wherever it lies."""
    p, q = np.ones((5, 2)), np.ones((5, 2))
    opt, twin = instep.AdamW(p, sparse="exact"), instep.AdamW(q)
    dense = np.full((5, 2), 0.5)
    for k in range(30):
        rows = Rows([k % 5], dense[:1])
        opt.step(rows if k % 3 else dense)
        twin.step(rows.dense((5, 2)) if k % 3 else dense)
    opt.settle()
    assert p.tobytes() == q.tobytes()


def test_an_update_without_rows_counts() -> None:
    p = np.ones((3, 2))
    opt = instep.Adam(p)
    opt.step(Rows([], np.zeros((0, 2))))
    assert (opt.iterations, opt.state["step"]) == (1, 1)
    assert p.tolist() == np.ones((3, 2)).tolist()
    assert not opt.state["m"].any()


def test_decay_of_touched_rows_once() -> None:
    p = np.ones((3, 2))
    opt = instep.SGD(p, learning_rate=0.5, weight_decay=0.5)
    opt.step(Rows([2, 2, 2], np.zeros((3, 2))))
    assert p.tolist() == [[1, 1], [1, 1], [0.75, 0.75]]


@pytest.mark.parametrize("name", WHOLE)
def test_rules_that_need_all_rows(name: str) -> None:
    p = np.ones((4, 3))
    opt = getattr(untyped, name)({"table": p})
    before = snapshot(opt)
    with pytest.raises(ValueError, match=r"gradient for params\['table'\]: .*sparse=.exact"):
        opt.step({"table": Rows([1], np.ones((1, 3)))})
    assert snapshot(opt) == before


# --- values and ids -----------------------------------------------------------------------------

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 6, 1), ()])
def test_ids_of_any_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    ids = rng.integers(0, 9, shape).astype(dtype)
    values = rng.standard_normal((*shape, 2, 2))
    p, q = np.zeros((9, 2, 2)), np.zeros((9, 2, 2))
    instep.SGD(p, learning_rate=1.0).step(Rows(ids, values))
    np.subtract.at(q, ids, values)
    np.testing.assert_allclose(p, q, rtol=1e-15)


def test_repeated_ids_are_added_in_the_order_of_positions() -> None:
    values = np.array([1e8, 1.0, -1e8, 1.0], "f4")
    for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
        p = np.zeros((3, 1), "f4")
        instep.SGD(p, learning_rate=1.0).step(Rows([1] * 4, values[order][:, None]))
        total = np.float32(0)
        for x in values[order]:
            total += x
        assert p[1, 0] == -total


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("param", ["f4", "f8"])
def test_values_of_any_dtype_and_layout(dtype: str, param: str) -> None:
    rng = np.random.default_rng(5)
    ids = np.array([4, 0, 4, 2])[::-1]
    wide = rng.standard_normal((8, 12)).astype(dtype)
    for values in (
        wide[:4, :3],
        wide[::2, ::4],
        wide[4:, 3:6][::-1],
        np.broadcast_to(wide[0, :3], (4, 3)),
        np.asfortranarray(wide[:4, :3]),
    ):
        p, q = np.ones((5, 3), param), np.ones((5, 3), param)
        instep.Adagrad(p).step(Rows(ids, values))
        dense = np.zeros((5, 3), param)
        for k, row in enumerate(ids):
            dense[row] += values[k].astype(param)
        instep.Adagrad(q, sparse="exact").step(dense)
        assert p.tobytes() == q.tobytes()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 5], r"expected ids of rows from 0 to 4, got 5 at position \(1,\)"),
        ([[0, 1], [-1, 2]], r"from 0 to 4, got -1 at position \(1, 0\)"),
        (np.array([2**40], "u8"), "got 1099511627776 at position"),
    ],
)
def test_ids_that_are_none(ids: Any, message: str) -> None:
    p = np.ones((5, 2))
    opt = instep.Adam({"t": p}, use_ema=True)
    before = snapshot(opt)
    with pytest.raises(ValueError, match=rf"gradient for params\['t'\]: .*{message}"):
        opt.step({"t": Rows(ids, np.ones((*np.shape(ids), 2)))})
    assert snapshot(opt) == before


def test_what_does_not_fit() -> None:
    p = np.ones((5, 2))
    opt = instep.Adam(p)
    before = snapshot(opt)
    for rows, error, message in [
        (Rows([1, 2], np.ones((2, 3))), ValueError, r"expected values of shape \(2, 2\)"),
        (Rows([1], np.ones((1, 2), int)), TypeError, "expected dtype"),
        (Rows([1], p[:1]), ValueError, "shares memory|memory"),
    ]:
        with pytest.raises(error, match=message):
            opt.step(rows)
        assert snapshot(opt) == before
    with pytest.raises(TypeError, match="no rows"):
        instep.Adam(np.ones(())).step(Rows([0], np.ones(1)))
    with pytest.raises(ValueError, match="ascontiguousarray"):
        instep.Adam(np.asfortranarray(np.ones((5, 2)))).step(Rows([0], np.ones((1, 2))))
    with pytest.raises(TypeError, match="ids: expected integers"):
        Rows([0.5], np.ones((1, 2)))
    with pytest.raises(TypeError, match="values: expected an array"):
        untyped.Rows([0], [[1.0]])
    with pytest.raises(ValueError, match="update_norm"):
        instep.Adam(p, watch=["update_norm"]).step(Rows([0], np.ones((1, 2))))


# --- layouts, threads, formats ------------------------------------------------------------------


@pytest.mark.parametrize("sparse", ["lazy", "exact"])
@pytest.mark.parametrize("length", [1, 3, 16, 33, 300, 1500])
def test_any_layout_has_the_same_bits(sparse: str, length: int) -> None:
    rng = np.random.default_rng(6)
    shape = (50, length)
    values = rng.standard_normal(shape).astype("f4")
    big = np.zeros((100, 2 * length), "f4")
    tables = [values.copy(), big[::2, :length], big[1::2, ::2][:, :length]]
    optimizers = []
    for table in tables:
        table[...] = values
        optimizers.append(untyped.AdamW(table, sparse=sparse, use_ema=True))
    for _ in range(6):
        rows = random_rows(rng, shape, most=30)
        for opt in optimizers:
            opt.step(rows)
    first, *others = [[np.ascontiguousarray(a).tobytes() for a in all_of(o)] for o in optimizers]
    assert all(each == first for each in others)


def all_of(opt: Any) -> list[Any]:
    opt.settle()
    return [opt.params, opt.state["m"], opt.state["v"], opt.averages]


@pytest.mark.parametrize("sparse", ["lazy", "exact"])
@pytest.mark.parametrize("length", [2, 64])
def test_any_number_of_threads_has_the_same_bits(sparse: str, length: int) -> None:
    rng = np.random.default_rng(7)
    shape = (60_000, length)
    before = instep.get_num_threads()
    found = set()
    batches = [random_rows(rng, shape, most=50_000) for _ in range(4)]
    start = rng.standard_normal(shape).astype("f4")
    try:
        for threads in (1, 2, 5):
            instep.set_num_threads(threads)
            opt = untyped.Adam(start.copy(), sparse=sparse, global_clipnorm=1.0, use_ema=True)
            for rows in batches:
                opt.step(rows)
            found.add(hash(b"".join(each.tobytes() for each in all_of(opt))))
    finally:
        instep.set_num_threads(before)
    assert len(found) == 1


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("bfloat16", {}),
    ("bfloat16", {"rounding": "stochastic", "state_dtype": "bfloat16"}),
    ("float16", {"rounding": "stochastic"}),
    ("float32", {"state_dtype": "bfloat16"}),
    ("float32", {"state_dtype": "float8"}),
    ("float32", {"copies": "bfloat16"}),
]


@pytest.mark.parametrize("length", [1, 3, 64, 200, 256, 1500])
@pytest.mark.parametrize(("dtype", "options"), FORMATS, ids=str)
def test_formats(dtype: str, options: dict[str, Any], length: int) -> None:
    if options.get("state_dtype") == "float8" and length % 256:
        pytest.skip("blocks are of 256")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(8)
    shape = (20, length)
    start = rng.standard_normal(shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    exact = untyped.Adam(start.copy(), sparse="exact", **options)
    dense = untyped.Adam(start.copy(), **options)
    lazy = untyped.Adam(start.copy(), **options)
    alone = untyped.Adam(start.copy(), **options)
    for _ in range(5):
        rows = random_rows(rng, shape)
        exact.step(rows)
        lazy.step(rows)
        dense.step(rows.dense(shape))
        before = [each.copy() for each in numbers_of(alone)]
        alone.step(rows.dense(shape))
        untouched = np.ones(20, bool)
        untouched[rows.ids] = False
        for now, old in zip(numbers_of(alone), before, strict=True):
            by_rows, old_rows = now.reshape(20, -1), old.reshape(20, -1)
            by_rows[untouched] = old_rows[untouched]
    exact.settle()
    for one, other in ((exact, dense), (lazy, alone)):
        pairs = zip(numbers_of(one), numbers_of(other), strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def numbers_of(opt: Any) -> list[Any]:
    state = sorted((key, value) for key, value in opt.state.items() if key != "step")
    copies = [] if opt.copies is None else [opt.copies]
    return [opt.params, *(value for _, value in state), *copies]


def test_blocks_are_those_of_rows() -> None:
    opt = instep.Adam(np.ones((9, 10), "f4"), state_dtype="float8")
    with pytest.raises(ValueError, match="a multiple of 256 elements"):
        opt.step(Rows([0], np.ones((1, 10), "f4")))


# --- what surrounds a step ----------------------------------------------------------------------


@pytest.mark.parametrize("sparse", ["lazy", "exact"])
@pytest.mark.parametrize("at", range(7))
def test_resume_at_any_call(sparse: str, at: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    shape = (12, 3)
    options: dict[str, Any] = {"gradient_accumulation_steps": 3, "use_ema": True, "sparse": sparse}
    batches = [random_rows(rng, shape, "f8", 5) for _ in range(8)]
    start = rng.standard_normal(shape)
    whole = untyped.AdamW(start.copy(), **options)
    opt = untyped.AdamW(start.copy(), **options)
    for k, rows in enumerate(batches):
        whole.step(rows)
        opt.step(rows)
        if k == at:
            opt.save(tmp_path / "state.npz")
            opt = untyped.AdamW(np.zeros(shape), **options)
            opt.load(tmp_path / "state.npz")
    assert [a.tobytes() for a in all_of(opt)] == [a.tobytes() for a in all_of(whole)]
    assert opt.flush() == whole.flush()
    assert [a.tobytes() for a in all_of(opt)] == [a.tobytes() for a in all_of(whole)]


def test_a_state_with_other_rows_in_its_window() -> None:
    opt = instep.SGD(np.ones((4, 2)), gradient_accumulation_steps=2)
    opt.step(Rows([1, 3], np.ones((2, 2))))
    state = opt.state_dict()
    assert state["arrays"]["params"]["rows_in_window"].tolist() == [1, 3]
    for bad in ([3, 1], [1, 4], [-1, 2], [1.0, 3.0], [[1, 3]]):
        state["arrays"]["params"]["rows_in_window"] = np.array(bad)
        with pytest.raises((TypeError, ValueError), match="rows_in_window"):
            opt.load_state_dict(state)


def test_what_is_read_is_settled() -> None:
    """Each way to read arrays through the optimizer, in the middle of exact steps."""

    def after(read: Any) -> Any:
        p = np.ones((5, 2))
        opt = untyped.AdamW(p, sparse="exact", use_ema=True)
        opt.step(np.ones((5, 2)))
        for _ in range(3):
            opt.step(Rows([1], np.ones((1, 2))))
        stale = p.copy()
        read(opt)
        return stale, p

    def averaged(opt: Any) -> None:
        with opt.averaged():
            pass

    reads = [
        lambda opt: opt.settle(),
        lambda opt: opt.state,
        lambda opt: opt.averages,
        lambda opt: opt.state_dict(),
        lambda opt: copy.deepcopy(opt),
        lambda opt: opt.step(np.zeros((5, 2))),
        averaged,
    ]
    _, expected = after(reads[0])
    for read in reads:
        stale, p = after(read)
        assert stale[0, 0] != expected[0, 0]
        assert (p[0] <= expected[0]).all()
        if read not in (reads[5],):
            assert p.tobytes() == expected.tobytes()


@pytest.mark.parametrize("length", [2, 40])
def test_rows_that_are_looked_up_are_settled_alone(length: int) -> None:
    rng = np.random.default_rng(12)
    start = rng.standard_normal((30, length))
    tables, twins = [{"t": start.copy(), "u": [start.copy()]} for _ in range(2)]
    opt: Any = instep.AdamW(tables, sparse="exact")
    twin = instep.AdamW(twins)
    for _ in range(12):
        rows = random_rows(rng, (30, length), "f8")
        ids = rng.integers(0, 30, (2, 3)).astype("u1")
        opt.settle({"t": ids, "u": [rows]})
        assert np.array_equal(tables["t"][ids], twins["t"][ids])
        assert np.array_equal(tables["u"][0][rows.ids], twins["u"][0][rows.ids])
        opt.settle({"t": None})
        opt.step({"t": rows, "u": [rows]})
        dense = rows.dense((30, length))
        twin.step({"t": dense, "u": [dense]})
    assert not np.array_equal(tables["t"], twins["t"])
    opt.settle()
    assert np.array_equal(tables["t"], twins["t"])
    for bad, message in [
        ({"t": [30]}, "expected Rows, an array of ids or None"),
        ({"t": np.array([30])}, r"ids for params\['t'\]: expected ids of rows from 0 to 29"),
        ({"t": np.array([0.5])}, "expected ids that are integers"),
        ({"x": np.array([1])}, "which the parameters don't have"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            opt.settle(bad)


def test_messages_on_ids_call_them_so() -> None:
    opt = instep.Adam({"t": np.ones((4, 2)), "u": [np.ones(3)]}, sparse="exact")
    with pytest.raises(TypeError, match=r"^ids for params\['u'\]: expected a list or tuple of 1"):
        opt.settle({"u": np.array([1])})
    with pytest.raises(ValueError, match=r"^ids for params: got the key 'v'"):
        opt.settle({"v": np.array([1])})


def test_out_of_place_settles_before() -> None:
    p, q = np.ones((5, 2)), np.ones((5, 2))
    opt, twin = instep.Adam(p, sparse="exact"), instep.Adam(q)
    for rows in (Rows([1, 2], np.ones((2, 2))), Rows([2], np.ones((1, 2)))):
        opt.step(rows)
        twin.step(rows.dense((5, 2)))
    grads = Rows([4], np.ones((1, 2)))
    new = opt.updated(p, grads)
    opt.settle()
    assert new.tobytes() == twin.updated(q, grads.dense((5, 2))).tobytes()


def test_long_absences_settle_by_themselves() -> None:
    p, q = np.ones((3, 70), "f4"), np.ones((3, 70), "f4")
    opt, twin = instep.AdamW(p, sparse="exact"), instep.AdamW(q)
    dense = np.zeros((3, 70), "f4")
    dense[1] = 0.5
    first = np.full((3, 70), 0.25, "f4")
    opt.step(first)
    twin.step(first)
    for _ in range(2500):
        opt.step(Rows([1], dense[1:2]))
        twin.step(dense)
    assert bits_of(opt) == bits_of(twin)


def bits_of(opt: Any) -> list[bytes]:
    opt.settle()
    return [a.tobytes() for a in arrays_of(opt)]


@pytest.mark.parametrize("sparse", ["lazy", "exact"])
@pytest.mark.parametrize("length", [1, 16, 1100])
@pytest.mark.parametrize("how", ["flush", "none", "rows"])
def test_windows_end_as_they_may(sparse: str, length: int, how: str) -> None:
    shape = (9, length)
    p, q = np.ones(shape), np.ones(shape)
    options: dict[str, Any] = {"gradient_accumulation_steps": 3, "sparse": sparse}
    opt, twin = untyped.AdamW(p, **options), untyped.AdamW(q, **options)
    rng = np.random.default_rng(13)
    for _ in range(3):
        gradients: list[Any] = [Rows([1, 2, 5, 6, 7], rng.standard_normal((5, length)))]
        gradients.append(Rows([5, 1], rng.standard_normal((2, length))))
        last: dict[str, list[Any]] = {"none": [None], "rows": [Rows([8], np.ones((1, length)))]}
        gradients += last.get(how, [])
        before = q.copy()
        untouched = np.ones(9, bool)
        for each in gradients:
            opt.step(each)
            twin.step(each and each.dense(shape))
            if each:
                untouched[each.ids] = False
        if how == "flush":
            assert opt.flush() == twin.flush()
        if sparse == "lazy":
            q[untouched] = before[untouched]
            for name in ("m", "v"):
                assert not opt.state[name][untouched].any() or how == "rows"
        opt.settle()
        assert p.tobytes() == q.tobytes()


def test_updates_in_between() -> None:
    p, q = np.zeros((4, 3)), np.zeros((4, 3))
    opt = instep.SGD(p, sparse="exact", learning_rate=1.0, momentum=0.5)
    twin = instep.SGD(q, learning_rate=1.0, momentum=0.5)
    first, second = Rows([1], np.ones((1, 3))), Rows([0], np.ones((1, 3)))
    opt.step(first)
    twin.step(first.dense((4, 3)))
    updates = opt.updates(second)
    assert updates.tobytes() == twin.updates(second.dense((4, 3))).tobytes()
    opt.settle()
    assert p.tobytes() == q.tobytes()
    opt.step(second)
    new = opt.updated(p, first)
    twin.step(second.dense((4, 3)))
    assert new.tobytes() == twin.updated(q, first.dense((4, 3))).tobytes()
    new.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        opt.settle()


def test_dense_adds_in_the_precision_of_steps() -> None:
    ones = Rows(np.zeros(5000, int), np.ones((5000, 1), "f2"))
    assert ones.dense((2, 1))[0, 0] == 5000
    for ids in ([-1], [2], np.array([2**63], "u8")):
        with pytest.raises(ValueError, match="expected those of rows from 0 to 1"):
            Rows(ids, np.ones((1, 1))).dense((2, 1))


def test_groups_freezing_skipping_and_watching() -> None:
    tables = {"lazy": np.ones((4, 2)), "exact": np.ones((4, 2)), "frozen": np.ones((4, 2))}
    opt = instep.AdamW(
        tables,
        groups=[instep.Group("exact", sparse="exact")],
        skip_nonfinite=True,
        watch=["grad_norm", "nonfinite"],
        weight_decay=0.5,
        learning_rate=0.5,
    )
    opt.freeze("frozen")
    rows = Rows([1], np.full((1, 2), 3.0))
    opt.step(dict.fromkeys(tables, rows))
    opt.settle()
    assert tables["lazy"][0, 0] == 1.0
    assert tables["exact"][0, 0] == 0.75
    assert (tables["frozen"] == 1).all()
    assert opt.watched["grad_norm"]["lazy"] == np.sqrt(18)
    bad = Rows([2, 3], np.array([[np.nan, 1.0], [1.0, np.inf]]))
    before = {name: table.copy() for name, table in tables.items()}
    opt.step(dict.fromkeys(tables, bad))
    assert opt.skipped_steps == 1
    assert opt.watched["nonfinite"]["lazy"] == 2
    assert all(np.array_equal(tables[name], before[name]) for name in tables)


def test_apply_gradients() -> None:
    table, bias = np.ones((5, 2)), np.ones(2)
    opt = instep.SGD(learning_rate=1.0)
    opt.apply_gradients([(Rows([3], np.ones((1, 2))), table), (np.ones(2), bias)])
    assert table.tolist() == [[1, 1]] * 3 + [[0, 0], [1, 1]]
    assert bias.tolist() == [0, 0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", [*ELEMENTWISE, "RowwiseAdagrad", "SM3", "Adafactor"])
def test_a_table_grows(name: str, options: dict[str, Any]) -> None:
    """Rows go on as they would have without those that came later."""
    rng = np.random.default_rng(14)
    make, options = getattr(untyped, name), options_of(name, options)
    alone = name not in ("SM3", "Adafactor")
    small = rng.standard_normal((6, 4))
    opt, twin = make({"t": small}, **options), make({"t": small.copy()}, **options)
    for _ in range(4):
        g = rng.standard_normal((6, 4))
        opt.step({"t": Rows(np.arange(6), g) if alone else g})
        twin.step({"t": g})
    before = twin.params["t"].copy()
    table = np.concatenate([opt.params["t"], rng.standard_normal((3, 4))])
    with pytest.raises(ValueError, match=r"expected a float64 array of shape \(6, 4\)"):
        opt.build({"t": table})
    opt.build({"t": table}, grow=True)
    assert opt.params["t"] is table
    assert table[:6].tobytes() == before.tobytes()
    for name_of_slot, slot in twin.state["t"].items():
        grown = np.asarray(opt.state["t"][name_of_slot])
        same = np.shape(slot) == grown.shape
        assert np.array_equal(grown if same else grown[:6], slot)
    if not alone:
        return
    for _ in range(6):
        g = rng.standard_normal((6, 4)) * 1e-3
        opt.step({"t": Rows(np.arange(6), g)})
        twin.step({"t": g})
    assert table[:6].tobytes() == twin.params["t"].tobytes()
    opt.step({"t": Rows([8], np.ones((1, 4)))})
    opt.flush()
    assert np.isfinite(table).all()


def test_copies_of_tables_that_are_behind() -> None:
    table = np.ones((6, 2))
    opt = instep.Adam({"t": table, "u": np.ones(2)}, sparse="exact")
    for row in range(3):
        opt.step({"t": Rows([row], np.ones((1, 2))), "u": None})
    before = table.copy()
    longer = np.concatenate([table, np.ones((2, 2))])
    wants = r"params\['t'\]: expected an array made after settle\(\)"
    for _ in range(2):  # nothing has changed: not even what waits
        with pytest.raises(ValueError, match=wants):
            opt.build({"t": table.copy(), "u": np.ones(2)})
        with pytest.raises(ValueError, match=wants):
            opt.build({"t": longer, "u": np.ones(2)}, grow=True)
        with pytest.raises(ValueError, match=wants):
            opt.updated({"t": table.copy(), "u": np.ones(2)}, {"t": None, "u": np.ones(2)})
    assert np.array_equal(table, before)
    opt.build({"t": table, "v": np.ones(3)})  # the array itself is brought up to date
    assert not np.array_equal(table, before)
    opt.step({"t": Rows([5], np.ones((1, 2))), "v": None})
    opt.build({"v": np.ones(3)})  # so it is where it is left out


def test_what_does_not_grow() -> None:
    opt = instep.Adam({"t": np.ones((6, 4), "f4")}, state_dtype="float8")
    with pytest.raises(ValueError, match=r"params\['t'\]: .* multiple of 256"):
        opt.build({"t": np.ones((8, 4), "f4")}, grow=True)
    for other in (np.ones((5, 4), "f4"), np.ones((8, 5), "f4"), np.ones((8, 4))):
        with pytest.raises(ValueError, match="was bound"):
            opt.build({"t": other}, grow=True)
    wide = instep.Adam({"t": np.ones((6, 256), "f4")}, state_dtype="float8")
    wide.step({"t": Rows([5], np.ones((1, 256), "f4"))})
    m, scale = wide.state["t"]["m"].copy(), wide.state["t"]["m_scale"].copy()
    wide.build({"t": np.ones((8, 256), "f4")}, grow=True)
    assert np.array_equal(wide.state["t"]["m"][:6], m)
    assert np.array_equal(wide.state["t"]["m_scale"][:6], scale)
    wide.step({"t": Rows([7], np.ones((1, 256), "f4"))})


def test_a_table_in_a_file(tmp_path: Path) -> None:
    """A memory map is an array as any other."""
    table = np.memmap(tmp_path / "table", np.float32, "w+", shape=(5000, 16))
    twin = np.zeros((5000, 16), "f4")
    opt, other = instep.Adam(table), instep.Adam(twin)
    rng = np.random.default_rng(15)
    for _ in range(3):
        rows = random_rows(rng, (5000, 16), most=40)
        opt.step(rows)
        other.step(rows)
    table.flush()
    assert np.fromfile(tmp_path / "table", "f4").tobytes() == twin.tobytes()


# --- functions, other libraries -----------------------------------------------------------------


def test_kernels() -> None:
    rng = np.random.default_rng(10)
    ids, grad = np.array([3, 1, 3]), rng.standard_normal((3, 2))
    p, q = np.ones((5, 2)), np.ones((5, 2))
    m, v = np.zeros((2, 5, 2))
    opt = instep.Adam(q)
    for step in (1, 2):
        instep.kernels.adam(p, grad, m, v, step=step, rows=ids)
        opt.step(Rows(ids, grad))
    assert p.tobytes() == q.tobytes()
    with pytest.raises(TypeError, match="unexpected keyword argument 'rows'"):
        untyped.kernels.lars(p, grad, m, rows=ids)
    with pytest.raises(ValueError, match="grad: expected an array"):
        instep.kernels.lars(p, Rows(ids, grad), m)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out: expected none with rows"):
        instep.kernels.sgd(p, grad, rows=ids, out=q)


def test_of_scipy() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.zeros((6, 3))
    dense[[1, 4]] = [[0, 2, 0], [3, 0, 4]]
    for make in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        rows = Rows.of(make(dense))
        assert rows.ids.tolist() == [1, 4]
        assert rows.dense((6, 3)).tolist() == dense.tolist()


def test_of_torch() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Embedding(6, 3, sparse=True)
    layer(torch.tensor([1, 4, 1])).sum().backward()
    rows = Rows.of(layer.weight.grad)
    assert rows.dense((6, 3)).sum(axis=1).tolist() == [0, 6, 0, 0, 3, 0]
    with pytest.raises(ValueError, match="1 sparse dimension"):
        Rows.of(torch.eye(3).to_sparse())


def test_of_others() -> None:
    class IndexedSlices:
        indices = np.array([2, 0])
        values = np.ones((2, 3))

    assert Rows.of(IndexedSlices()).ids.tolist() == [2, 0]
    assert Rows.of(([1], np.ones((1, 2)))).ids.tolist() == [1]
    rows = Rows([1], np.ones((1, 2)))
    assert Rows.of(rows) is rows
    assert repr(rows) == "<Rows: 1 ids, values (1, 2) float64>"
    with pytest.raises(TypeError, match="expected a sparse matrix"):
        Rows.of(3.0)


# --- what the page promises ---------------------------------------------------------------------


def test_the_page_on_rows() -> None:
    page = repository.file("docs/rows.md")
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["opt"].iterations == names["exact"].iterations == 1
    assert np.count_nonzero(names["table"].any(axis=1)) == 3


def test_the_benchmark_of_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    before = instep.get_num_threads()
    made = tmp_path / "rows.png", tmp_path / "rows.json"
    options = ["--quick", "--threads", "1", "--plot", str(made[0]), "--json", str(made[1])]
    try:
        assert main(["bench", "--rows", *options]) == 0
    finally:
        instep.set_num_threads(before)
    assert "instep exact" in capsys.readouterr().out
    assert main(["bench", "--rows", "--cold", "--rules", "SGD"]) == 1
    assert "whatever --rules and --cold" in capsys.readouterr().err
    assert all(path.stat().st_size > 0 for path in made)


def test_word_vectors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(repository.file("examples/word_vectors.py").parent))
    program: Any = import_module("word_vectors")
    monkeypatch.setattr(program, "BUCKETS", 2**10)
    monkeypatch.setattr("sys.argv", ["word_vectors.py", "--words", "4000", "--epochs", "2"])
    program.main()
    assert "dense and exact losses are the same" in capsys.readouterr().out
