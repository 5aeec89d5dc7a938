"""Gradients and parameters whose axes lie in memory in any order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from optimizers import close

import instep


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "grad_dtype"),
    [("float32", "float32"), ("float32", "float64"), ("float64", "float32")],
)
@pytest.mark.parametrize("shape", [(70, 900), (33, 5, 700), (3, 40, 3, 300), (900, 70, 1)])
def test_axes_of_the_gradient_in_any_order(
    shape: tuple[int, ...], dtype: str, grad_dtype: str, threads: int
) -> None:
    """Large enough for several threads, and for more rows and columns than are read together."""
    rng = np.random.default_rng(0)
    grad = rng.standard_normal(shape).astype(grad_dtype)
    expected = np.ones(shape, dtype)
    instep.Adam(expected).step(grad)
    before = instep.get_num_threads()
    instep.set_num_threads(threads)
    try:
        for axes in itertools.permutations(range(len(shape))):
            inverse = np.argsort(axes)
            turned = np.ascontiguousarray(grad.transpose(axes)).transpose(inverse)
            flipped = np.ascontiguousarray(turned[::-1])[::-1]
            spaced = np.zeros((*turned.shape[:-1], 2 * turned.shape[-1]), grad_dtype)[..., ::2]
            spaced[...] = grad
            for given in (turned, flipped, spaced):
                param = np.ones(shape, dtype)
                instep.Adam(param).step(given)
                np.testing.assert_array_equal(param, expected)
            param = np.ascontiguousarray(np.ones(shape, dtype).transpose(axes)).transpose(inverse)
            instep.Adam(param).step(grad)
            np.testing.assert_array_equal(param, expected)
    finally:
        instep.set_num_threads(before)


@pytest.mark.parametrize("options", [{"global_clipnorm": 0.5}, {"clipnorm": 0.5}])
@pytest.mark.parametrize("grad_dtype", ["float32", "float64"])
def test_norm_of_a_transposed_gradient(options: dict[str, Any], grad_dtype: str) -> None:
    """It is summed in the order of its memory, so that only rounding differs, and no thread."""
    grad = np.random.default_rng(0).standard_normal((700, 400)).astype(grad_dtype)
    turned = np.asfortranarray(grad)
    expected = np.ones(grad.shape)
    instep.SGD(expected, **options).step(grad)
    results = []
    before = instep.get_num_threads()
    for threads in (1, 2, 3):
        instep.set_num_threads(threads)
        param = np.ones(grad.shape)
        opt = instep.SGD(param, **options)
        opt.step(turned)
        results.append((param.tobytes(), opt.grad_norm))
        close(param, expected)
        if opt.grad_norm is not None:
            assert opt.grad_norm == pytest.approx(float(np.linalg.norm(grad.astype(float))))
    instep.set_num_threads(before)
    assert results.count(results[0]) == 3
