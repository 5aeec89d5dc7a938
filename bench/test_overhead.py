"""Guards the cost of a call beside that of its arithmetic: python -m pytest bench.

Each call is held against calls of a NumPy function in the same process, with room for noise.
"""

from __future__ import annotations

import itertools
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

import instep

Array = NDArray[np.floating[Any]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = instep.get_num_threads()
    instep.set_num_threads(1)
    yield
    instep.set_num_threads(threads)


def arrays(count: int, size: int) -> list[Array]:
    return [np.full(size, 0.01, np.float32) for _ in range(count)]


def fastest(call: Callable[[], object]) -> float:
    """Return the least seconds of a call."""
    timer = timeit.Timer(call)
    number, _ = timer.autorange()
    return min(timer.repeat(7, number)) / number


def guard(benchmark: BenchmarkFixture, call: Callable[[], object], size: int, most: float) -> None:
    """Fail if a call takes more than so many additions of two arrays of that size."""
    a, b = arrays(2, size)
    addition = fastest(lambda: np.add(a, b, out=a))
    benchmark(call)
    if benchmark.enabled:
        additions = fastest(call) / addition
        benchmark.extra_info["additions"] = round(additions, 1)
        assert additions < most


@pytest.mark.parametrize(("size", "most"), [(10, 3), (1000, 5)])
def test_step_of_one_array(benchmark: BenchmarkFixture, size: int, most: float) -> None:
    [param], [grad] = arrays(1, size), arrays(1, size)
    optimizer = instep.Adam(param)
    guard(benchmark, lambda: optimizer.step(grad), size, most)


def test_step_of_many_arrays(benchmark: BenchmarkFixture) -> None:
    grads = arrays(1000, 64)
    optimizer = instep.Adam(arrays(1000, 64))
    guard(benchmark, lambda: optimizer.step(grads), 64, 500)


def test_kernel(benchmark: BenchmarkFixture) -> None:
    param, grad, m, v = arrays(4, 1000)
    guard(benchmark, lambda: instep.kernels.adam(param, grad, m, v, step=1), 1000, 5)


def test_apply_gradients(benchmark: BenchmarkFixture) -> None:
    params, grads = arrays(4, 1000), arrays(4, 1000)
    optimizer = instep.Adam()
    guard(benchmark, lambda: optimizer.apply_gradients(zip(grads, params, strict=True)), 1000, 35)


def in_turn(*values: Any) -> Callable[[], Any]:
    return itertools.cycle(values).__next__


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "beta_1", "loss_scale_factor"])
def test_assignment(benchmark: BenchmarkFixture, name: str) -> None:
    [param] = arrays(1, 10)
    optimizer, number = instep.Adam(param), in_turn(0.5, 0.25)
    guard(benchmark, lambda: setattr(optimizer, name, number()), 10, 3)


def test_kernel_with_another_number(benchmark: BenchmarkFixture) -> None:
    param, grad, m, v = arrays(4, 1000)
    rate = in_turn(0.5, 0.25, 0.125)
    guard(
        benchmark,
        lambda: instep.kernels.adam(param, grad, m, v, step=1, learning_rate=rate()),
        1000,
        5,
    )


def test_rebinding(benchmark: BenchmarkFixture) -> None:
    optimizer, params = instep.Adam(arrays(20, 64)), in_turn(arrays(20, 64), arrays(20, 64))
    guard(benchmark, lambda: optimizer.build(params()), 64, 40)
