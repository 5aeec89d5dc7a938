"""State in parts: numbers for rows, columns and so on, of arrays of any axes and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from references import REFERENCES, VECTOR_REFERENCES, assert_rounded, slots

import instep

RULES = ["Adafactor", "SM3"]
SHAPES = [
    *((1,), (5,), (1, 1), (1, 7), (7, 1), (7, 9), (33, 31), (3, 200), (200, 3), (3, 4, 5)),
    *((6, 1, 4), (4, 2, 3, 3), (130, 140, 3), (2, 5000), (300, 500)),
    *((70000, 1), (1, 70000), (1, 40000, 1)),
]
LAYOUTS = ["C", "F", "strided", "reversed"]


def laid_out(values: Any, layout: str) -> Any:
    """Copy an array to memory of another layout."""
    if layout in ("C", "F") or values.ndim == 0:
        return np.array(values, order="F" if layout == "F" else "C")
    if layout == "strided":
        room = np.zeros([2 * n for n in values.shape], values.dtype)
        array = room[tuple(slice(None, None, 2) for _ in values.shape)]
    else:
        room = np.zeros(values.shape, values.dtype)
        array = room[tuple(slice(None, None, -1) for _ in values.shape)]
    array[...] = values
    return array


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rule", "shape"),
    [
        *((rule, shape) for rule in RULES for shape in SHAPES),
        *(("RowwiseAdagrad", shape) for shape in SHAPES if len(shape) <= 2),
    ],
    ids=str,
)
def test_any_axes_in_any_layout(rule: str, shape: tuple[int, ...], dtype: Any, layout: str) -> None:
    reference = (REFERENCES if len(shape) > 1 else VECTOR_REFERENCES)[rule]
    rng = np.random.default_rng(len(shape))
    param = laid_out(rng.standard_normal(shape).astype(dtype), layout)
    opt = getattr(instep, rule)(param)
    for step in range(1, 4):
        grad = laid_out(rng.standard_normal(shape).astype(dtype), LAYOUTS[step])
        before = {name: value.copy() for name, value in slots(opt).items()}
        expected, state = reference.step(param.copy(), grad, before, step, {})
        opt.step(grad)
        assert_rounded(param, expected, dtype, reference)
        assert slots(opt).keys() == state.keys()
        for name, value in slots(opt).items():
            assert_rounded(value, state[name], dtype, reference)


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_state_does_not_matter(rule: str) -> None:
    """Parts may have any strides, where they are the caller's."""
    rng = np.random.default_rng(0)
    param = rng.standard_normal((3, 200, 4))
    opt = getattr(instep, rule)(param)
    own_param = param.copy()
    own = [laid_out(value, "strided") for value in slots(opt).values()]
    kernel = getattr(instep.kernels, rule.lower())
    for step in range(1, 4):
        grad = rng.standard_normal(param.shape)
        opt.step(grad)
        kernel(own_param, grad, *own, step=step)
        assert own_param.tobytes() == param.tobytes()
        for mine, theirs in zip(own, slots(opt).values(), strict=True):
            assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_arrays_with_and_without_parts_take_turns(rule: str) -> None:
    """Those that are updated alike otherwise are not, where one is a vector."""
    rng = np.random.default_rng(0)
    together = [rng.standard_normal(shape) for shape in [(3, 4), (5,), (), (4, 3), (2, 2, 2)]]
    alone = [array.copy() for array in together]
    opt = getattr(instep, rule)(together)
    each = [getattr(instep, rule)(array) for array in alone]
    for missing in (None, 0, 1, None):
        grads: list[Any] = [np.asarray(rng.standard_normal(array.shape)) for array in together]
        if missing is not None:
            grads[missing] = None
        opt.step(grads)
        for single, grad in zip(each, grads, strict=True):
            if grad is not None:
                single.step(grad)
    for a, b in zip(together, alone, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(300, 260), (3, 9000), (70, 1030), (2, 3, 1500)], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_long_rows_give_what_short_ones_do(rule: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Kernels see them in another way; sums over rows are in the same order."""
    rng = np.random.default_rng(0)
    values, grads = rng.standard_normal((2, *shape)).astype(dtype)
    plain, strided = values.copy(), laid_out(values, "strided")
    for param, layout in [(plain, "C"), (strided, "F")]:
        opt = getattr(instep, rule)(param)
        for _ in range(3):
            opt.step(laid_out(grads, layout))
    assert plain.tobytes() == strided.tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_one_gradient_too_large_for_its_square_is_not_for_ever(rule: str) -> None:
    rng = np.random.default_rng(0)
    grads = rng.standard_normal((3, 40, 50)).astype(np.float32)
    opt = getattr(instep, rule)(np.ones((40, 50), np.float32))
    opt.step(grads[0] * np.float32(1e30))
    assert all(np.isfinite(value).all() for value in slots(opt).values())
    opt.step(grads[1])
    assert np.isfinite(opt.params).all()
