"""Tables that ranks share, and the same in one process: what must be equal to the last bit.

Run as a script under MPI, ranks train as one process does, and the first says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from sharded_steps import assert_same

import instep
from instep import Rows
from instep.sharded import Sharded

STEPS = 5
# Cut between rows, for which nine times as many elements are needed as a block has; too few for
# that; cut; whole; without a gradient of rows; empty.
SHAPES = [(2000, 72), (1000, 100), (70000,), (5, 4, 3), (200, 300), (0, 8)]
NAMED = [150, 40, 200, 3, None, 0]


def parameters(dtype: Any = "float32") -> list[Any]:
    """Return tables and other arrays."""
    draw = np.random.default_rng(0).standard_normal
    return [draw(shape).astype(dtype) for shape in SHAPES]


def gradients(step: int, batch: int, dtype: Any = "float32") -> list[Any]:
    """Return the gradients of a batch: of rows, some of them named several times."""
    random = np.random.default_rng((step, batch))
    grads: list[Any] = []
    for shape, count in zip(SHAPES, NAMED, strict=True):
        if count is None:
            grads.append(random.standard_normal(shape).astype(dtype))
            continue
        named = 0 if (step, batch) == (1, 1) else count
        ids = (shape[0] * random.random(named) ** 2).astype(np.int32)
        grads.append(Rows(ids, random.standard_normal((named, *shape[1:])).astype(dtype)))
    if step == 2:
        grads[2] = None
    return grads


def together(batches: Sequence[list[Any]]) -> list[Any]:
    """Return the gradients of all batches: rows one after the other, arrays added up."""
    found: list[Any] = []
    for first, *others in zip(*batches, strict=True):
        if isinstance(first, Rows):
            all_rows = [first, *others]
            ids, values = ([getattr(each, name) for each in all_rows] for name in Rows.__slots__)
            found.append(Rows(np.concatenate(ids), np.concatenate(values)))
        else:
            found.append(first if first is None else sum(others, first))
    return found


def check(
    ranks: Any, size: int, rule: str, options: dict[str, Any], *, shared: bool = False
) -> None:
    """Raise AssertionError where ranks do not train as one process does."""
    options = {"learning_rate": 0.1, **options}
    batches = [[gradients(step, rank) for rank in range(size)] for step in range(STEPS)]
    params = parameters()
    expected = getattr(instep, rule)(params, **options)
    optimizer = Sharded(
        getattr(instep, rule), parameters(), comm=ranks, reduce="sum", shared=shared, **options
    )
    for each in batches:
        expected.step(together(each))
        optimizer.step(each[ranks.rank])
    expected.settle()
    optimizer.settle()
    assert_same(optimizer.params, params, "params")
    assert_same(optimizer.state_dict(), expected.state_dict(), "state")
    for name in ("iterations", "skipped_steps", "grad_norm", "accumulated_calls"):
        assert_same(getattr(optimizer, name), getattr(expected, name), name)


if __name__ == "__main__":
    from mpi4py import MPI

    from instep.sharded._mpi import MPIRanks

    ranks = MPIRanks(MPI.COMM_WORLD)
    if "messages" in sys.argv:
        ranks._is_one_node = False
    for rule in ("Adam", "RowwiseAdagrad"):
        for sparse in ("lazy", "exact"):
            check(ranks, ranks.size, rule, {"sparse": sparse}, shared="shared" in sys.argv)
    if ranks.rank == 0:
        print(f"{ranks.size} ranks: the bits of one process")
