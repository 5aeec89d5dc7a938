"""Steps on several threads, in all ways in which threads meet, for ThreadSanitizer to watch."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import instep

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from references import REFERENCES

SHAPE = (600, 700)
OPTIONS: list[dict[str, Any]] = [
    {"global_clipnorm": 1.0, "skip_nonfinite": True, "weight_decay": 0.1, "l2": 0.1},
    {"clipnorm": 1.0, "gradient_accumulation_steps": 2, "use_ema": True, "clipvalue": None},
]


def arrays(dtype: str) -> list[Any]:
    """Return arrays of which one is shared by all threads, in several layouts."""
    rng = np.random.default_rng(0)
    shapes = [(5,), SHAPE, (3, 4), (40_000,)]
    result = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    result.append(np.zeros((300, 500), dtype)[:, ::2])
    result.append(rng.normal(size=(400, 300)).astype(dtype).T)
    return result


def train(rule: str, options: dict[str, Any], dtype: str, grad_dtype: str) -> None:
    """Take a few steps with one optimizer."""
    opt = getattr(instep, rule)(arrays(dtype), **options)
    for _ in range(2):
        opt.step(arrays(grad_dtype))
    opt.step([np.ascontiguousarray(g).reshape(g.shape, order="F") for g in arrays(grad_dtype)])


def train_rows(rule: str, sparse: str) -> None:
    """Take a few steps with gradients of some rows."""
    rng = np.random.default_rng(0)
    tables = [np.ones((4000, 64), np.float32), np.ones((30_000, 3), np.float32)]
    opt = getattr(instep, rule)(tables, sparse=sparse, use_ema=True, global_clipnorm=1.0)
    for _ in range(4):
        ids = [rng.integers(0, len(table), 9000) for table in tables]
        opt.settle(ids)
        grads = [rng.random((9000, t.shape[1]), np.float32) for t in tables]
        opt.step([instep.Rows(*pair) for pair in zip(ids, grads, strict=True)])
    opt.settle()


def at_once(work: Callable[[], object], count: int) -> None:
    """Run something on several of Python's threads at once."""
    start = threading.Barrier(count)

    def run() -> None:
        start.wait()
        work()

    workers = [threading.Thread(target=run) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def share() -> None:
    """Use one optimizer, one gradient and one kernel on several of Python's threads."""
    grads, params = arrays("float32"), arrays("float32")
    opt = instep.Adam(params, **OPTIONS[0])

    def step() -> None:
        for k in range(5):
            with contextlib.suppress(RuntimeError):  # in the middle of a step
                opt.step(grads)
                opt.learning_rate = 0.1 / (k + 1)
                opt.state_dict()

    def kernel() -> None:
        param, m, v = np.zeros((3, *SHAPE), np.float32)
        for k in range(1, 4):
            instep.kernels.adam(param, grads[1], m, v, step=k)

    def set_threads() -> None:
        for count in (1, 2, 3, 4):
            instep.set_num_threads(count)
            instep.get_num_threads()
            kernel()

    for work in (step, kernel, set_threads):
        at_once(work, 3)


for threads in (2, 7):
    instep.set_num_threads(threads)
    for name, reference in REFERENCES.items():
        if threads == 2 and name != "Muon":  # most of whose time is the BLAS's
            train(name, dict(reference.configurations[-1]), "float32", "float32")
    for given in [{}, *OPTIONS]:
        for types in (("float32", "float64"), ("float64", "float32")):
            train("Adam", given, *types)
            train("Lamb", given, *types)
    for state_dtype in ("bfloat16", "float8"):
        kept = {"state_dtype": state_dtype, "rounding": "stochastic"}
        train("Adam", kept, "float16", "float32")
        train("Adam", {**kept, "copies": "float16"}, "float32", "float16")
    train_rows("Adam", "lazy")
    train_rows("Adam", "exact")
    train_rows("RowwiseAdagrad", "lazy")
instep.set_num_threads(4)
for given in OPTIONS:
    at_once(lambda given=given: train("Lamb", given, "float32", "float32"), 3)  # type: ignore[misc]
share()
print("no races")
