"""Everything that is refused: by name, with both sides of the contradiction, without a trace."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model import freeze, snapshot
from numpy.lib.stride_tricks import as_strided

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep

PATH = "params['encoder'][2]"
SHAPE = (2, 3)


def a_tree(dtype: npt.DTypeLike = np.float64, fill: float = 1.0) -> dict[str, Any]:
    """Arrays before and after the one at PATH, so that a half-written step would show."""
    return {
        "decoder": np.full(4, fill, dtype),
        "encoder": [np.full(5, fill, dtype), np.full((), fill, dtype), np.full(SHAPE, fill, dtype)],
        "head": (np.full(3, fill, dtype),),
    }


def with_leaf(leaf: object, dtype: npt.DTypeLike = np.float64, fill: float = 1.0) -> dict[str, Any]:
    tree = a_tree(dtype, fill)
    tree["encoder"][2] = leaf
    return tree


def refused(call: Callable[[], object], *patterns: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    for pattern in patterns:
        assert re.search(pattern, str(caught.value), re.IGNORECASE), (pattern, str(caught.value))


def refused_without_a_trace(opt: Any, call: Callable[[], object], *patterns: str) -> None:
    before = snapshot(opt)
    refused(call, *patterns)
    assert snapshot(opt) == before


def plain(params: Any) -> Any:
    return instep.SGD(params, learning_rate=0.5)


def mid_window(params: Any) -> Any:
    opt = instep.Adam(
        params,
        learning_rate=0.5,
        global_clipnorm=1.0,
        skip_nonfinite=True,
        use_ema=True,
        ema_overwrite_frequency=2,
        gradient_accumulation_steps=2,
    )
    for _ in range(3):
        opt.step(a_tree(opt.params["decoder"].dtype))
    return opt


each_optimizer = pytest.mark.parametrize("make", [plain, mid_window])
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def misaligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    size = int(np.prod(shape))
    store = np.zeros(size * np.dtype(dtype).itemsize + 1, np.uint8)
    return store[1:].view(dtype).reshape(shape)


def read_only(a: Any) -> Any:
    a.flags.writeable = False
    return a


# --- parameters at binding ----------------------------------------------------------------------

BAD_PARAMETERS: dict[str, tuple[Callable[[], object], str]] = {
    "read-only": (lambda: read_only(np.zeros(SHAPE)), "read.?only|writ"),
    "broadcast": (lambda: np.broadcast_to(np.zeros(3), SHAPE), "read.?only|writ"),
    "self-overlapping": (lambda: as_strided(np.zeros(3), SHAPE, (0, 8)), "overlap|memory"),
    "sliding-window": (lambda: as_strided(np.zeros(4), SHAPE, (8, 8)), "overlap|memory"),
    "byte-swapped": (lambda: np.zeros(SHAPE, np.dtype(float).newbyteorder()), "native|byte"),
    "misaligned": (lambda: misaligned(SHAPE, np.float64), "align"),
    "complex": (lambda: np.zeros(SHAPE, complex), "complex128"),
    "int": (lambda: np.zeros(SHAPE, np.int64), "int64"),
    "uint": (lambda: np.zeros(SHAPE, np.uint8), "uint8"),
    "bool": (lambda: np.zeros(SHAPE, bool), "bool"),
    "object": (lambda: np.full(SHAPE, 1.0, object), "object"),
    "float16": (lambda: np.zeros(SHAPE, np.float16), "float16"),
    "longdouble": (lambda: np.zeros(SHAPE, np.longdouble), "float|longdouble"),
    "text": (lambda: np.zeros(SHAPE, "U3"), "str|U3"),
    "time": (lambda: np.zeros(SHAPE, "m8[s]"), "timedelta64|m8"),
    "structured": (lambda: np.zeros(SHAPE, [("x", float)]), "x|void"),
    "masked": (lambda: np.ma.masked_array(np.zeros(SHAPE)), "mask"),
    "none": (lambda: None, "None"),
    "float": (lambda: 1.0, "float"),
    "scalar": (lambda: np.float64(1.0), "float64"),
    "string": (lambda: "weights", "str"),
    "set": (lambda: {1.0}, "set"),
    "generator": (lambda: (x for x in [np.zeros(1)]), "generator"),
    "class": (lambda: np.ndarray, "type"),
}
each_bad_parameter = pytest.mark.parametrize("kind", BAD_PARAMETERS)


@each_bad_parameter
def test_bad_parameter_at_construction(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    refused(lambda: instep.Adam(with_leaf(make())), re.escape(PATH), word)


@each_bad_parameter
def test_bad_parameter_deeper_and_in_a_group(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    tree = {"x": instep.Group([np.zeros(1), (np.zeros(1), make())], learning_rate=0.1)}
    refused(lambda: instep.Adam(tree), re.escape("params['x'][1][1]"), word)


@each_bad_parameter
def test_bad_parameter_at_building_leaves_the_optimizer_unbound(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    opt = instep.Adam()
    tree = with_leaf(make())
    refused(lambda: opt.build(tree), re.escape(PATH), word)
    with pytest.raises(RuntimeError):
        opt.step(tree)


@each_bad_parameter
def test_bad_parameter_at_rebinding(kind: str) -> None:
    make = BAD_PARAMETERS[kind][0]
    params = a_tree()
    opt = mid_window(params)
    refused_without_a_trace(opt, lambda: opt.build(with_leaf(make())), re.escape(PATH))
    assert opt.params["encoder"][2] is params["encoder"][2]


@each_bad_parameter
def test_bad_parameter_at_the_first_apply_gradients(kind: str) -> None:
    make, word = BAD_PARAMETERS[kind]
    good = np.zeros(3)
    opt = instep.SGD(learning_rate=1.0)
    pairs = [(np.ones(3), good), (np.ones(SHAPE), make())]
    refused(lambda: opt.apply_gradients(pairs), re.escape("params[1]"), word)
    assert good.tolist() == [0.0] * 3
    assert opt.iterations == 0


def test_bad_bare_parameter_is_called_params() -> None:
    refused(lambda: instep.Adam(np.zeros(3, int)), r"\bparams\b", "int64")


# --- memory of parameters -----------------------------------------------------------------------


def test_the_same_array_twice_gets_advice() -> None:
    shared = np.zeros(SHAPE)
    tree = with_leaf(shared)
    tree["decoder"] = shared
    refused(lambda: instep.Adam(tree), re.escape(PATH), r"params\['decoder'\]", "once", "sum")
    refused(lambda: instep.Adam([shared, shared[:]]), r"params\[0\]", r"params\[1\]", "sum")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.s_[:4], np.s_[3:]),
        (np.s_[:], np.s_[2:3]),
        (np.s_[::2], np.s_[::3]),
        (np.s_[1::4], np.s_[3::6]),
        (np.s_[::-1], np.s_[:1]),
    ],
)
def test_overlapping_views_are_refused(first: slice, second: slice) -> None:
    base = np.zeros(12)
    tree = with_leaf(base[first])
    tree["head"] = (base[second],)
    refused(lambda: instep.Adam(tree), re.escape(PATH), r"params\['head'\]\[0\]", "overlap|memory")


def test_overlap_between_different_dtypes_is_refused() -> None:
    base = np.zeros(6)
    refused(lambda: instep.Adam([base, base.view(np.float32)[3:4]]), r"params\[0\]", r"params\[1\]")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.s_[::2], np.s_[1::2]),
        (np.s_[1::4], np.s_[2::6]),
        (np.s_[:5], np.s_[5:]),
        (np.s_[::-2], np.s_[::2]),
    ],
)
def test_interleaved_views_are_fine(first: slice, second: slice) -> None:
    base = np.zeros(12)
    params = [base[first], base[second]]
    opt = instep.SGD(params, learning_rate=1.0)
    opt.step([np.full(p.shape, value) for p, value in zip(params, (1.0, 2.0), strict=True)])
    expected = np.zeros(12)
    expected[first] = -1.0
    expected[second] = -2.0
    assert base.tolist() == expected.tolist()


two_views = st.tuples(st.slices(7), st.slices(9))


@settings(deadline=None, max_examples=300)
@given(two_views, two_views)
def test_memory_is_compared_exactly(
    first: tuple[slice, slice], second: tuple[slice, slice]
) -> None:
    base, index = np.zeros((7, 9)), np.arange(63).reshape(7, 9)
    shared = np.intersect1d(index[first], index[second]).size > 0
    p, q = base[first], base[second]
    if shared:
        refused(lambda: instep.SGD([p, q]), r"params\[0\]", r"params\[1\]")
        opt = instep.SGD(p)
        refused_without_a_trace(opt, lambda: opt.step(np.broadcast_to(q, q.shape)), "params")
    else:
        instep.SGD([p, q], learning_rate=1.0).step([np.ones(p.shape), np.full(q.shape, 2.0)])
        assert np.all(p == -1.0)
        assert np.all(q == -2.0)


def test_strides_of_axes_of_length_one_do_not_matter() -> None:
    base = np.zeros(3)
    p = as_strided(base, (1, 3), (0, 8))
    instep.SGD(p, learning_rate=1.0).step(np.ones((1, 3)))
    assert base.tolist() == [-1.0] * 3


def test_empty_views_overlap_nothing() -> None:
    base = np.zeros(4)
    opt = instep.SGD([base, base[2:2], base[2:2]], learning_rate=1.0)
    opt.step([np.ones(4), np.zeros(0), np.zeros(0)])
    assert base.tolist() == [-1.0] * 4


# --- parameters and containers after binding ----------------------------------------------------


@pytest.fixture(params=[plain, mid_window], ids=["plain", "mid-window"])
def bound(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Any]:
    tree = a_tree()
    return tree, request.param(tree)


def replace_in_list(tree: dict[str, Any]) -> None:
    tree["encoder"][2] = tree["encoder"][2] - 1.0


def replace_list(tree: dict[str, Any]) -> None:
    tree["encoder"] = [*tree["encoder"][:2], np.zeros(SHAPE)]


def replace_by_none(tree: dict[str, Any]) -> None:
    tree["encoder"][2] = None


def remove_from_list(tree: dict[str, Any]) -> None:
    del tree["encoder"][2]


def swap_type(tree: dict[str, Any]) -> None:
    tree["encoder"][2] = tree["encoder"][2].tolist()


@pytest.mark.parametrize(
    "change", [replace_in_list, replace_list, replace_by_none, remove_from_list, swap_type]
)
def test_a_container_that_holds_something_else_is_noticed(
    bound: tuple[dict[str, Any], Any], change: Callable[[dict[str, Any]], None]
) -> None:
    tree, opt = bound
    leaves = [tree["decoder"], *tree["encoder"], *tree["head"]]
    before = freeze([leaves, opt.iterations, opt.skipped_steps])
    change(tree)
    path = re.escape("params['encoder']")
    with pytest.raises((TypeError, ValueError, RuntimeError), match=path):
        opt.step(a_tree())
    assert freeze([leaves, opt.iterations, opt.skipped_steps]) == before


def test_a_replaced_dict_entry_is_noticed_and_can_be_put_back(
    bound: tuple[dict[str, Any], Any],
) -> None:
    tree, opt = bound
    kept = tree["decoder"]
    before = snapshot(opt)
    tree["decoder"] = tree["decoder"] - 0.5
    with pytest.raises((ValueError, RuntimeError), match=re.escape("params['decoder']")):
        opt.step(a_tree())
    tree["decoder"] = kept
    assert snapshot(opt) == before
    opt.step(a_tree())
    assert snapshot(opt) != before


def test_added_arrays_are_noticed(bound: tuple[dict[str, Any], Any]) -> None:
    tree, opt = bound
    leaves = [tree["decoder"], *tree["encoder"], *tree["head"]]
    before = freeze(leaves)
    tree["tail"] = np.zeros(2)
    with pytest.raises((ValueError, RuntimeError), match="params"):
        opt.step(a_tree())
    del tree["tail"]
    tree["encoder"].append(np.zeros(2))
    with pytest.raises((ValueError, RuntimeError), match=re.escape("params['encoder']")):
        opt.step(a_tree())
    assert freeze(leaves) == before


def test_a_replaced_entry_inside_a_group_is_noticed() -> None:
    inside = {"w": np.zeros(2)}
    opt = instep.SGD([np.zeros(1), instep.Group(inside, learning_rate=0.1)])
    inside["w"] = np.zeros(2)
    with pytest.raises((ValueError, RuntimeError), match=re.escape("params[1]['w']")):
        opt.step([np.ones(1), {"w": np.ones(2)}])
    assert opt.iterations == 0


def test_a_replaced_entry_is_noticed_by_apply_gradients_and_with_none() -> None:
    tree = a_tree()
    opt = plain(tree)
    tree["decoder"] = tree["decoder"] - 1.0
    calls: list[Callable[[], object]] = [
        lambda: opt.step({"decoder": None, "encoder": [None] * 3, "head": (None,)}),
        lambda: opt.apply_gradients([(np.ones(3), tree["head"][0])]),
        lambda: opt.apply_gradients([(np.ones(4), tree["decoder"])]),
    ]
    for call in calls:
        with pytest.raises((ValueError, RuntimeError)):
            call()
    assert tree["head"][0].tolist() == [1.0] * 3
    assert opt.iterations == 0


def test_changes_in_place_are_fine(bound: tuple[dict[str, Any], Any]) -> None:
    tree, opt = bound
    tree["decoder"] -= 0.5
    tree["encoder"][2] *= 2.0
    before = tree["decoder"].copy()
    opt.step(a_tree())
    assert np.all(tree["decoder"] != before)


def grow(p: Any) -> None:
    p.resize((40_000,), refcheck=False)


def shrink(p: Any) -> None:
    p.resize((2, 1), refcheck=False)


def reshape(p: Any) -> None:
    p.shape = (3, 2)


def restride(p: Any) -> None:
    p.strides = (8, 16)


def retype(p: Any) -> None:
    p.dtype = np.int64


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [grow, shrink, reshape, restride, retype, read_only])
def test_an_array_that_changed_under_the_optimizer_is_noticed(
    bound: tuple[dict[str, Any], Any], change: Callable[[Any], object]
) -> None:
    tree, opt = bound
    others = [tree["decoder"], *tree["encoder"][:2], *tree["head"]]
    before = freeze([others, opt.iterations, opt.skipped_steps])
    p = tree["encoder"][2]
    change(p)
    changed = freeze(p)
    for g in (np.ones(SHAPE), np.ones(p.shape), None):
        with pytest.raises((TypeError, ValueError, RuntimeError), match=re.escape(PATH)):
            opt.step(with_leaf(g))
    assert freeze([others, opt.iterations, opt.skipped_steps]) == before
    assert freeze(p) == changed


def test_an_array_made_writeable_again_is_welcome(bound: tuple[dict[str, Any], Any]) -> None:
    tree, opt = bound
    p = tree["encoder"][2]
    p.flags.writeable = False
    refused_without_a_trace(opt, lambda: opt.step(a_tree()), re.escape(PATH), "read.?only|writ")
    p.flags.writeable = True
    opt.step(a_tree())
    assert np.all(p < 1.0)


# --- gradients ----------------------------------------------------------------------------------

BAD_GRADIENTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "int": (lambda g: g.astype(np.int64), "int64"),
    "int32": (lambda g: g.astype(np.int32), "int32"),
    "bool": (lambda g: g.astype(bool), "bool"),
    "float16": (lambda g: g.astype(np.float16), "float16"),
    "longdouble": (lambda g: g.astype(np.longdouble), "float|longdouble"),
    "complex": (lambda g: g.astype(complex), "complex128"),
    "object": (lambda g: g.astype(object), "object"),
    "text": (lambda g: g.astype("U3"), "str|U3"),
    "byte-swapped": (lambda g: g.astype(g.dtype.newbyteorder()), "native|byte"),
    "misaligned": (lambda g: misaligned(g.shape, g.dtype), "align"),
    "masked": (np.ma.masked_array, "mask"),
    "list": (lambda g: g.tolist(), "list"),
    "tuple": (lambda g: (g,), "tuple"),
    "dict": (lambda g: {"g": g}, "dict"),
    "float": (lambda g: 1.0, "float"),
    "scalar": (lambda g: np.float64(1.0), "float"),
    "string": (lambda g: "gradient", "str"),
    "transposed": (lambda g: g.T.copy(), r"\(3, 2\)"),
    "one-row": (lambda g: g[:1], r"\(1, 3\)"),
    "one-column": (lambda g: g[:, :1], r"\(2, 1\)"),
    "row": (lambda g: g[0], r"\(3,\)"),
    "flat": (lambda g: g.ravel(), r"\(6,\)"),
    "deeper": (lambda g: g[None], r"\(1, 2, 3\)"),
    "zero-dimensional": (lambda g: np.array(1.0), r"\(\)"),
    "single": (lambda g: np.ones(1), r"\(1,\)"),
    "empty": (lambda g: np.ones((0, 3)), r"\(0, 3\)"),
    "larger": (lambda g: np.ones((2, 4)), r"\(2, 4\)"),
}
SHAPES = [kind for kind, (_, word) in BAD_GRADIENTS.items() if word.startswith(r"\(")]
each_bad_gradient = pytest.mark.parametrize("kind", BAD_GRADIENTS)


@each_bad_gradient
@each_optimizer
@each_dtype
def test_bad_gradient(kind: str, make: Callable[[Any], Any], dtype: npt.DTypeLike) -> None:
    spoil, word = BAD_GRADIENTS[kind]
    opt = make(a_tree(dtype))
    bad = with_leaf(spoil(np.ones(SHAPE, dtype)), dtype)
    refused_without_a_trace(opt, lambda: opt.step(bad), re.escape(PATH), word)


@pytest.mark.parametrize("kind", SHAPES)
def test_shape_errors_tell_the_expected_shape(kind: str) -> None:
    opt = plain(a_tree())
    bad = with_leaf(BAD_GRADIENTS[kind][0](np.ones(SHAPE)))
    refused(lambda: opt.step(bad), r"\(2, 3\)")


@each_bad_gradient
@each_optimizer
def test_bad_gradient_in_apply_gradients(kind: str, make: Callable[[Any], Any]) -> None:
    spoil, word = BAD_GRADIENTS[kind]
    tree = a_tree()
    opt = make(tree)
    pairs = [
        (np.ones(3), tree["head"][0]),
        (spoil(np.ones(SHAPE)), tree["encoder"][2]),
        (np.ones(4), tree["decoder"]),
    ]
    refused_without_a_trace(opt, lambda: opt.apply_gradients(pairs), re.escape(PATH), word)


@each_bad_gradient
def test_bad_gradient_at_the_first_apply_gradients(kind: str) -> None:
    spoil, word = BAD_GRADIENTS[kind]
    a, b = np.zeros(4), np.zeros(SHAPE)
    opt = instep.SGD(learning_rate=1.0)
    bad = spoil(np.ones(SHAPE))
    refused(lambda: opt.apply_gradients([(np.ones(4), a), (bad, b)]), re.escape("params[1]"), word)
    assert not a.any()
    assert not b.any()
    assert opt.iterations == 0
    opt.apply_gradients([(np.ones(4), a), (np.ones(SHAPE), b)])
    assert b.tolist() == [[-1.0] * 3] * 2


@pytest.mark.parametrize(
    "bad", [1, True, 1j, "1", np.int64(1), np.float16(1), np.longdouble(1), [1.0], np.ones(1)]
)
@each_optimizer
def test_bad_gradient_of_a_zero_dimensional_parameter(bad: Any, make: Callable[[Any], Any]) -> None:
    opt = make(a_tree())
    tree = a_tree()
    tree["encoder"][1] = bad
    refused_without_a_trace(opt, lambda: opt.step(tree), re.escape("params['encoder'][1]"))


def test_a_gradient_of_a_bare_parameter_is_named_params() -> None:
    opt = plain(np.zeros(3))
    refused_without_a_trace(opt, lambda: opt.step(np.ones(4)), r"\bparams\b", r"\(3,\)", r"\(4,\)")


def test_a_bad_gradient_is_refused_even_where_another_would_skip() -> None:
    opt = mid_window(a_tree())
    bad = with_leaf(np.ones((3, 2)))
    bad["decoder"][0] = np.nan
    refused_without_a_trace(opt, lambda: opt.step(bad), re.escape(PATH))


# --- gradients in the memory of the optimizer ---------------------------------------------------


@pytest.mark.parametrize(
    "own",
    [
        lambda opt: opt.params["encoder"][2],
        lambda opt: opt.params["encoder"][2][:],
        lambda opt: opt.params["encoder"][2][::-1],
        lambda opt: opt.state["encoder"][2]["m"],
        lambda opt: opt.state["encoder"][2]["v"],
        lambda opt: np.broadcast_to(opt.params["encoder"][2][:, :1], SHAPE),
        lambda opt: np.broadcast_to(opt.params["encoder"][1], SHAPE),
        lambda opt: np.broadcast_to(opt.params["head"][0], SHAPE),
        lambda opt: np.broadcast_to(opt.state["head"][0]["v"], SHAPE),
        lambda opt: np.broadcast_to(opt.params["decoder"][1:], SHAPE),
        lambda opt: np.broadcast_to(opt.state["decoder"]["m"][:3], SHAPE),
    ],
    ids=[
        "parameter",
        "view",
        "reversed",
        "m",
        "v",
        "column",
        "parameter-before",
        "parameter-after",
        "state-after",
        "first-parameter",
        "first-state",
    ],
)
def test_gradient_in_the_memory_of_parameters_or_state(own: Callable[[Any], Any]) -> None:
    opt = mid_window(a_tree())
    bad = with_leaf(own(opt))
    refused_without_a_trace(opt, lambda: opt.step(bad), re.escape(PATH), "memory|overlap|shar")


def test_the_parameters_as_their_own_gradients() -> None:
    for params in (a_tree(), np.zeros(3), [np.zeros(1)]):
        opt = plain(params)
        refused_without_a_trace(opt, lambda o=opt, p=params: o.step(p), "params")  # type: ignore[misc]


def test_gradient_interleaved_with_its_parameter_is_fine() -> None:
    base = np.ones(10)
    opt = instep.SGD(base[::2], learning_rate=1.0)
    opt.step(base[1::2])
    assert base.tolist() == [0.0, 1.0] * 5


def test_gradients_may_share_memory_among_themselves() -> None:
    params = [np.zeros(3), np.zeros(3), np.zeros(2)]
    g = np.ones(3)
    instep.SGD(params, learning_rate=1.0).step([g, g, g[1:]])
    assert np.concatenate(params).tolist() == [-1.0] * 8


# --- gradients that are fine --------------------------------------------------------------------


@each_dtype
def test_read_only_and_broadcast_gradients_are_fine(dtype: npt.DTypeLike) -> None:
    g = np.array([1.0, 2.0, 3.0], dtype)
    forms = [
        np.tile(g, (2, 1)),
        read_only(np.tile(g, (2, 1))),
        np.broadcast_to(g, SHAPE),
        np.repeat(g, 2)[::2][None].repeat(2, axis=0),
        np.asfortranarray(np.tile(g, (2, 1))),
        np.tile(g[::-1], (2, 1))[:, ::-1],
    ]
    results = []
    for form in forms:
        p = np.ones(SHAPE, dtype)
        opt = instep.Adam(p)
        opt.step(form)
        results.append(freeze([p, opt.state]))
    assert results.count(results[0]) == len(forms)
    p = np.zeros(SHAPE, dtype)
    instep.SGD(p, learning_rate=1.0).step(np.broadcast_to(np.asarray(1.0, dtype), SHAPE))
    assert p.tolist() == [[-1.0] * 3] * 2


@pytest.mark.parametrize("accumulation", [1, 2])
def test_double_gradient_is_rounded_for_a_single_parameter(accumulation: int) -> None:
    rng = np.random.default_rng(0)
    p, q = np.zeros((2, 1001), np.float32)
    options = {"global_clipnorm": 1.0, "gradient_accumulation_steps": accumulation}
    first, second = instep.Adam(p, **options), instep.Adam(q, **options)  # type: ignore[arg-type]
    for _ in range(4):
        g = rng.normal(size=1001)
        first.step(g)
        second.step(g.astype(np.float32))
    assert p.tobytes() == q.tobytes()
    assert p.any()
    assert first.grad_norm == second.grad_norm


def test_single_gradient_is_exact_for_a_double_parameter() -> None:
    rng = np.random.default_rng(0)
    p, q = np.zeros((2, 1001))
    first, second = instep.Adam(p), instep.Adam(q)
    for _ in range(4):
        g = rng.normal(size=1001).astype(np.float32)
        first.step(g)
        second.step(g.astype(np.float64))
    assert p.tobytes() == q.tobytes()
    assert p.any()


@pytest.mark.parametrize("value", [1e39, -1e39, 1e300])
def test_gradient_that_overflows_on_rounding_is_not_finite(value: float) -> None:
    params: list[Any] = [np.zeros(3, np.float32), np.zeros((), np.float32), np.zeros(3)]
    opt = instep.SGD(params, learning_rate=1e-30, skip_nonfinite=True)
    opt.step([np.array([1.0, value, 1.0]), None, None])
    opt.step([None, value, None])
    assert (opt.skipped_steps, opt.iterations) == (2, 0)
    assert not any(p.any() for p in params)
    opt.step([np.full(3, 3e38), None, np.full(3, value)])
    assert (opt.skipped_steps, opt.iterations) == (2, 1)
    assert all(p.all() for p in params[::2])


# --- structure ----------------------------------------------------------------------------------


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != key}


BAD_STRUCTURES: dict[str, tuple[Callable[[], object], str]] = {
    "missing-key": (lambda: without(a_tree(), "head"), "head"),
    "extra-key": (lambda: a_tree() | {"tail": np.ones(1)}, "tail"),
    "other-key": (lambda: without(a_tree(), "head") | {"heads": (np.ones(3),)}, "head"),
    "shorter": (lambda: a_tree() | {"encoder": a_tree()["encoder"][:2]}, r"params\['encoder'\]"),
    "longer": (
        lambda: a_tree() | {"encoder": [*a_tree()["encoder"], np.ones(1)]},
        r"params\['encoder'\]",
    ),
    "no-container": (lambda: a_tree() | {"encoder": np.ones(3)}, r"params\['encoder'\]"),
    "dict-for-list": (
        lambda: a_tree() | {"encoder": dict(enumerate(a_tree()["encoder"]))},
        r"params\['encoder'\]",
    ),
    "container-for-leaf": (lambda: a_tree() | {"decoder": [np.ones(4)]}, r"params\['decoder'\]"),
    "list-for-dict": (lambda: list(a_tree().values()), "params"),
    "array-for-dict": (lambda: np.ones(4), "params"),
    "generator": (lambda: iter(a_tree().values()), "params"),
    "number": (lambda: 1.0, "params"),
    "string": (lambda: "decoder", "params"),
}


@pytest.mark.parametrize("kind", BAD_STRUCTURES)
@each_optimizer
def test_gradients_of_another_structure(kind: str, make: Callable[[Any], Any]) -> None:
    build, word = BAD_STRUCTURES[kind]
    opt = make(a_tree())
    refused_without_a_trace(opt, lambda: opt.step(build()), word)


def test_a_list_parameter_needs_a_list_of_gradients() -> None:
    opt = plain([np.zeros(2), np.zeros(2)])
    for bad in (np.ones((2, 2)), {0: np.ones(2), 1: np.ones(2)}, iter([np.ones(2)] * 2), "ab"):
        refused_without_a_trace(opt, lambda b=bad: opt.step(b), "params")  # type: ignore[misc]


# --- user code that fails within a step ---------------------------------------------------------


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


@pytest.mark.parametrize("good", [1, 0.5, np.float32(0.5), np.float64(0.5), 0.0])
def test_schedule_may_return_any_real_number(good: Any) -> None:
    p = np.zeros(1)
    instep.SGD(p, learning_rate=lambda update: good).step(np.ones(1))
    assert p[0] == -good


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


def failing_pairs(pairs: list[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    yield from pairs
    raise OwnError


def test_pairs_that_raise() -> None:
    tree = a_tree()
    opt = mid_window(tree)
    before = snapshot(opt)
    pairs = [(np.ones(4), tree["decoder"]), (np.ones(3), tree["head"][0])]
    with pytest.raises(OwnError):
        opt.apply_gradients(failing_pairs(pairs))
    assert snapshot(opt) == before


def test_pairs_that_raise_at_the_first_call_bind_nothing() -> None:
    p = np.zeros(4)
    opt = instep.SGD(learning_rate=1.0)
    with pytest.raises(OwnError):
        opt.apply_gradients(failing_pairs([(np.ones(4), p)]))
    assert not p.any()
    with pytest.raises(RuntimeError):
        opt.step([np.ones(4)])


@pytest.mark.parametrize(
    "bad", [None, 1, np.ones(4), [np.ones(4)], [(np.ones(4),)], [(np.ones(4), 1, 2)], ["ab"]]
)
def test_pairs_that_are_no_pairs(bad: Any) -> None:
    tree = a_tree()
    opt = mid_window(tree)
    refused_without_a_trace(opt, lambda: opt.apply_gradients(bad))
