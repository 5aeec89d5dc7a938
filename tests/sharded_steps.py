"""Training that ranks share, and the same in one process: what must be equal to the last bit.

Run as a script under MPI, ranks train as one process does, and the first says so: in every so
manieth configuration, with "messages" as if they were on different nodes, and with "shared" in
memory that all of them see.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from references import REFERENCES

import instep
from instep.sharded import Sharded

STEPS = 3
SHAPES = [(200, 150), (150,), (3, 5), (), (40, 1024), (0, 3), (3, 20000)]
Make = Callable[..., Any]

OPTIONS: dict[str, dict[str, Any]] = {
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipnorm": {"clipnorm": 0.5, "weight_decay": 0.1},
    "accumulation": {"gradient_accumulation_steps": 2, "clipnorm": 0.5, "l2": 0.01},
    "averages": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "watched": {"watch": ("grad_norm", "update_norm", "param_norm", "nonfinite")},
    "bfloat16 state": {"state_dtype": "bfloat16"},
    "float8 state": {"state_dtype": "float8"},
    "schedule": {"learning_rate": instep.schedules.CosineDecay(0.1, 10)},
    "skipped": {"skip_nonfinite": True, "watch": ("nonfinite",), "global_clipnorm": 2.0},
}


@cache
def _drawn(seed: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return drawn * np.exp2(np.arange(drawn.size) % 7).reshape(shape)


def numbers(seed: tuple[int, ...], shape: tuple[int, ...], dtype: str) -> Any:
    """Draw numbers, not all of one size."""
    return np.array(_drawn(seed, shape), dtype)


def parameters(dtype: str = "float32") -> Any:
    """Return a structure of arrays, some of which are cut for ranks."""
    arrays = [numbers((k,), shape, dtype) for k, shape in enumerate(SHAPES)]
    return {"first": arrays[:3], "others": dict(zip("abcd", arrays[3:], strict=True))}


def gradients(step: int, batch: int, dtype: str = "float32") -> Any:
    """Return the gradients of a batch; none for an array in the second step."""
    arrays = [numbers((step, batch, k), shape, dtype) for k, shape in enumerate(SHAPES)]
    first: list[Any] = arrays[:3]
    if step == 1:
        first[1] = None
    return {"first": first, "others": dict(zip("abcd", arrays[3:], strict=True))}


def leaves(structure: Any) -> list[Any]:
    """Return what is in a structure."""
    return [*structure["first"], *structure["others"].values()]


def summed(batches: list[Any], computed: str = "float32", *, mean: bool = False) -> Any:
    """Return the sum of gradients in their order, or their mean."""
    sums: list[Any] = []
    for each in zip(*map(leaves, batches), strict=True):
        total = None if each[0] is None else each[0].astype(computed)
        for grad in each[1:]:
            if total is not None:
                total = total + grad.astype(computed)
        if mean and total is not None:
            total = total / total.dtype.type(len(each))
        sums.append(total)
    return {"first": sums[:3], "others": dict(zip("abcd", sums[3:], strict=True))}


def alone(make: Make, grads: list[Any], dtype: str = "float32") -> tuple[Any, Any]:
    """Train in one process; return the parameters and the optimizer."""
    params = parameters(dtype)
    optimizer = make(params)
    for each in grads:
        optimizer.step(each)
    return params, optimizer


def assert_same(given: Any, expected: Any, what: str = "") -> None:
    """Compare nested dicts and arrays bit by bit."""
    if isinstance(expected, Mapping):
        assert given.keys() == expected.keys(), what
        for key in expected:
            assert_same(given[key], expected[key], f"{what}[{key!r}]")
    elif isinstance(expected, list):
        assert len(given) == len(expected), what
        for k, each in enumerate(expected):
            assert_same(given[k], each, f"{what}[{k}]")
    elif isinstance(expected, np.ndarray):
        assert (given.shape, given.dtype) == (expected.shape, expected.dtype), what
        assert given.tobytes() == expected.tobytes(), what
    else:
        assert given == expected or (given != given and expected != expected), what


def trained(
    ranks: Any, rule: str, options: dict[str, Any], dtype: str = "float32", *, shared: bool = False
) -> Any:
    """Train on a rank, each with the gradients of a batch; return parameters and optimizer."""
    params = parameters(dtype)
    optimizer = Sharded(
        getattr(instep, rule), params, comm=ranks, reduce="sum", shared=shared, **options
    )
    for step in range(STEPS):
        grads = gradients(step, optimizer.rank, dtype)
        if shared and step > 0:  # some are where all ranks see them
            first, rooms = grads["first"], optimizer.grads["first"]
            for k, grad in enumerate(first):
                if grad is not None:
                    rooms[k][...] = grad
                    first[k] = rooms[k]
        optimizer.step(grads)
    return optimizer.params, optimizer


def check(
    ranks: Any,
    size: int,
    rule: str,
    options: dict[str, Any],
    dtype: str = "float32",
    *,
    shared: bool = False,
) -> None:
    """Raise AssertionError where ranks do not train as one process does."""
    batches = [[gradients(step, rank, dtype) for rank in range(size)] for step in range(STEPS)]
    params, expected = alone(
        lambda given: getattr(instep, rule)(given, **options),
        [summed(each, "float64" if dtype == "float64" else "float32") for each in batches],
        dtype,
    )
    given, optimizer = trained(ranks, rule, options, dtype, shared=shared)
    assert_same(given, params, "params")
    assert_same(optimizer.state_dict(), expected.state_dict(), "state")
    for name in ("iterations", "skipped_steps", "grad_norm", "watched", "accumulated_calls"):
        assert_same(getattr(optimizer, name), getattr(expected, name), name)


def configurations() -> list[tuple[str, dict[str, Any]]]:
    """Return every rule, with each configuration that its reference knows."""
    return [
        (rule, {"learning_rate": 0.01, **configuration})
        for rule, reference in REFERENCES.items()
        for configuration in reference.configurations
    ]


if __name__ == "__main__":
    from mpi4py import MPI

    from instep.sharded._mpi import MPIRanks

    ranks = MPIRanks(MPI.COMM_WORLD)
    if "messages" in sys.argv:
        ranks._is_one_node = False
    shared = "shared" in sys.argv
    chosen = configurations()[:: int(sys.argv[1]) if len(sys.argv) > 1 else 1]
    for rule, options in chosen:
        check(ranks, ranks.size, rule, options, shared=shared)
    for options in OPTIONS.values():
        check(ranks, ranks.size, "Adam", options, shared=shared)
    if ranks.rank == 0:
        print(f"{ranks.size} ranks, {len(chosen) + len(OPTIONS)} runs: the bits of one process")
