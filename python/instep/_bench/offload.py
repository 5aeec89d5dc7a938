"""A step on parameters and state in files, beside the same reads and writes without arithmetic."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import instep
from instep._bench import machine
from instep._bench.text import duration, significant
from instep.offload import Streamed

ARRAYS, QUICK_ARRAYS, SIZE = 16, 2, 1 << 22
STREAMED, BARE, MAPPED = "instep.offload", "reads and writes alone", "numpy.memmap, in place"
STATE_ONLY = "instep.offload, state_only"
MOVED = {STREAMED: 24, BARE: 24, STATE_ONLY: 20, MAPPED: 24}
"""Bytes of files that a step reads and writes for a parameter."""


def run(folder: Path, *, quick: bool, json_path: Path | None) -> int:
    """Measure in a folder, print a table, write a file; return the exit status."""
    arrays, rounds = (QUICK_ARRAYS, 2) if quick else (ARRAYS, 7)
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(SIZE, dtype=np.float32) for _ in range(arrays)]
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        params = [np.broadcast_to(np.float32(0), SIZE) for _ in range(arrays)]
        kept = [np.zeros(SIZE, np.float32) for _ in range(arrays)]
        with (
            Streamed(instep.Adam, os.path.join(place, "streamed"), params) as streamed,
            Streamed(instep.Adam, os.path.join(place, "state"), kept, state_only=True) as state,
        ):
            mapped = _mapped(Path(place), arrays)
            steps: dict[str, Callable[[], object]] = {
                STREAMED: lambda: streamed.step(grads),
                BARE: streamed._rewrite,
                STATE_ONLY: lambda: state.step(grads),
                MAPPED: lambda: mapped(grads),
            }
            for turn in range(rounds):
                names = list(steps)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    start = time.perf_counter_ns()
                    steps[name]()
                    times.setdefault(name, []).append((time.perf_counter_ns() - start) / 1e3)
    table = Table(title=f"Adam on {SIZE * arrays:,} parameters, float32, in {folder}")
    for column in ("", "a step", "read and written", f"times {BARE}"):
        table.add_column(column, justify="right" if column else "left")
    bare = float(np.median(times[BARE]))
    for name, moved in MOVED.items():
        median = float(np.median(times[name]))
        rate = f"{significant(moved * SIZE * arrays / median / 1e3)} GB/s"
        table.add_row(name, duration(median), rate, f"{median / bare:.2f}x")
    described = machine.describe({})
    console = Console(width=120)
    console.print(table)
    console.print(f"{machine.name(described)}; medians of {rounds}")
    if json_path:
        found = {"machine": described, "parameters": SIZE * arrays, "microseconds": times}
        json_path.write_text(json.dumps(found))
    return 0


def _mapped(place: Path, arrays: int) -> Callable[[Any], None]:
    """Return a step on maps of files, whose changes it brings to the disk."""
    maps = [
        [np.memmap(place / f"{k}-{name}", np.float32, "w+", shape=(SIZE,)) for name in "pmv"]
        for k in range(arrays)
    ]
    count = 0

    def step(grads: Any) -> None:
        nonlocal count
        count += 1
        for (p, m, v), grad in zip(maps, grads, strict=True):
            instep.kernels.adam(p, grad, m, v, step=count, learning_rate=1e-3)
            for each in (p, m, v):
                each.flush()

    return step
