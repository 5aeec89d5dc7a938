"""Steps with gradients of some rows of a table, beside other libraries' sparse optimizers.

Ids are drawn by Zipf's law, as those of words and of items are. Every round times each contender
once, in an order of its own, each time with other rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import instep
from instep._bench import machine
from instep._bench.text import duration
from instep._kinds import counted

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Step = Callable[[int], object]
"""Makes a step with the batch of that number."""

ROWS, LENGTH = 1_000_000, 64
QUICK_ROWS = 50_000
IDS = (800, 20_000, 460_000)
QUICK_IDS = (200, 2_000)
_BATCHES = 8
_ROUNDS = (3, 100)
_OURS = "instep lazy"


@dataclass(frozen=True)
class Batch:
    """The ids of a step, some of them repeated, and the gradient at each."""

    ids: Ids
    values: Floats


def batches(rows: int, count: int) -> list[Batch]:
    """Return batches of so many ids."""
    rng = np.random.default_rng(0)
    places = rng.permutation(rows)
    return [
        Batch(
            places[np.minimum(rows ** rng.random(count) - 1, rows - 1).astype(np.int64)],
            rng.standard_normal((count, LENGTH), dtype=np.float32),
        )
        for _ in range(_BATCHES)
    ]


def _instep(rule: str, **options: Any) -> Callable[[Floats, Sequence[Batch]], Step]:
    def bind(table: Floats, given: Sequence[Batch]) -> Step:
        opt = getattr(instep, rule)(table, **options)
        opt.step(np.zeros_like(table))  # memory that was never used is slow
        gradients = [instep.Rows(batch.ids, batch.values) for batch in given]
        return lambda k: opt.step(gradients[k])

    return bind


def _dense(table: Floats, given: Sequence[Batch]) -> Step:
    opt, gradient = instep.Adam(table), np.zeros_like(table)
    return lambda _: opt.step(gradient)


def _made_dense(table: Floats, given: Sequence[Batch]) -> Step:
    opt, gradient = instep.Adam(table), np.zeros_like(table)

    def step(k: int) -> None:
        gradient.fill(0)
        np.add.at(gradient, given[k].ids, given[k].values)
        opt.step(gradient)

    return step


def _torch(rule: str) -> Callable[[Floats, Sequence[Batch]], Step]:
    def bind(table: Floats, given: Sequence[Batch]) -> Step:
        torch: Any = import_module("torch")
        weight = torch.nn.Parameter(torch.from_numpy(table))
        opt = getattr(torch.optim, rule)([weight], lr=1e-3)
        gradients = [
            torch.sparse_coo_tensor(
                torch.from_numpy(batch.ids)[None],
                torch.from_numpy(batch.values),
                table.shape,
                check_invariants=False,
            )
            for batch in given
        ]

        def step(k: int) -> None:
            weight.grad = gradients[k]
            opt.step()

        step(0)  # makes the state
        return step

    return bind


def fbgemm_bag(table: Floats, rule: str, *, learning_rate: float, epsilon: float) -> Any:
    """Return FBGEMM's table with such rows, which a backward pass updates."""
    base = "fbgemm_gpu.split_table_batched_embeddings_ops_"
    training: Any = import_module(f"{base}training")
    common: Any = import_module(f"{base}common")
    rules: Any = import_module("fbgemm_gpu.split_embedding_configs").EmbOptimType
    place = common.EmbeddingLocation.HOST, training.ComputeDevice.CPU
    bag = training.SplitTableBatchedEmbeddingBagsCodegen(
        [(*table.shape, *place)], optimizer=rules[rule], learning_rate=learning_rate, eps=epsilon
    )
    bag.split_embedding_weights()[0].data.copy_(import_module("torch").from_numpy(table))
    return bag


def _fbgemm(rule: str) -> Callable[[Floats, Sequence[Batch]], Step]:
    def bind(table: Floats, given: Sequence[Batch]) -> Step:
        torch: Any = import_module("torch")
        bag = fbgemm_bag(table, rule, learning_rate=1e-3, epsilon=1e-8)
        # Bags of one row each: what is timed is the backward pass, which is the step.
        looked_up = [
            bag(torch.from_numpy(batch.ids), torch.arange(batch.ids.size + 1)) for batch in given
        ]
        gradients = [torch.from_numpy(batch.values) for batch in given]
        return lambda k: looked_up[k].backward(gradients[k], retain_graph=True)

    return bind


def _numba(table: Floats, given: Sequence[Batch]) -> Step:
    numba: Any = import_module("numba")
    m, v = np.full_like(table, 1e-3), np.full_like(table, 1e-3)

    @numba.njit(fastmath=True)  # type: ignore[untyped-decorator]
    def adam(p: Any, m: Any, v: Any, ids: Any, g: Any, rate: Any, root: Any) -> None:
        order = np.argsort(ids, kind="mergesort")
        total = np.empty(p.shape[1], np.float32)
        k = 0
        while k < order.size:
            row = ids[order[k]]
            total[:] = g[order[k]]
            k += 1
            while k < order.size and ids[order[k]] == row:
                total += g[order[k]]
                k += 1
            for i in range(p.shape[1]):
                x = total[i]
                m[row, i] += np.float32(0.1) * (x - m[row, i])
                v[row, i] += np.float32(0.001) * (x * x - v[row, i])
                p[row, i] -= rate * m[row, i] / (np.sqrt(v[row, i]) * root + np.float32(1e-8))

    rate, root = np.float32(1e-3), np.float32(1)
    return lambda k: adam(table, m, v, given[k].ids, given[k].values, rate, root)


CONTENDERS: dict[str, tuple[str | None, Callable[[Floats, Sequence[Batch]], Step]]] = {
    _OURS: (None, _instep("Adam")),
    "instep exact": (None, _instep("Adam", sparse="exact")),
    "instep dense": (None, _dense),
    "instep dense, rows added up by NumPy": (None, _made_dense),
    "torch SparseAdam": ("torch", _torch("SparseAdam")),
    "numba Adam": ("numba", _numba),
    "instep row-wise Adagrad": (None, _instep("RowwiseAdagrad")),
    "fbgemm row-wise Adagrad": ("torch", _fbgemm("EXACT_ROWWISE_ADAGRAD")),
    "torch Adagrad": ("torch", _torch("Adagrad")),
    "fbgemm Adagrad": ("torch", _fbgemm("EXACT_ADAGRAD")),
}
"""What is measured: the library that it needs besides, and what binds it to a table."""


def run(threads: Sequence[int], *, quick: bool, json_path: Path | None, plot: Path | None) -> int:
    """Measure, print a table, write files; return the exit status."""
    rows, sizes = (QUICK_ROWS, QUICK_IDS) if quick else (ROWS, IDS)
    found: list[dict[str, Any]] = []
    console, notes = Console(stderr=True), list[str]()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("rows", total=len(threads) * len(sizes))
        for count in threads:
            for size in sizes:
                found.append(_measured(rows, size, count, 0.5 if quick else 4.0, notes))
                progress.advance(task)
    described = machine.describe({})
    out = Console(width=120)
    for count in threads:
        out.print(_table([each for each in found if each["threads"] == count], rows, count))
    out.print(f"{machine.name(described)}; medians; in brackets times {_OURS}")
    for note in dict.fromkeys(notes):
        console.print(note)
    if json_path:
        json_path.write_text(json.dumps({"machine": described, "rows": rows, "results": found}))
    if plot:
        _draw(found, machine.name(described), rows, plot)
    return 0


def _measured(rows: int, size: int, threads: int, seconds: float, notes: list[str]) -> Any:
    instep.set_num_threads(threads)
    given = batches(rows, size)
    steps: dict[str, Step] = {}
    for name, (library, bind) in CONTENDERS.items():
        try:
            if library == "torch":
                import_module("torch").set_num_threads(threads)
            step = bind(np.ones((rows, LENGTH), np.float32), given)
            step(1)
        except ImportError as error:
            notes.append(f"{name} is left out: {error}")
        else:
            steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    names, begin, rng = list(steps), time.perf_counter(), np.random.default_rng(0)
    for turn in range(_ROUNDS[1]):
        if turn >= _ROUNDS[0] and time.perf_counter() - begin > seconds * len(names):
            break
        for name in rng.permutation(names).tolist():  # what came before matters
            start = time.perf_counter_ns()
            steps[name](turn % _BATCHES)
            times[name].append((time.perf_counter_ns() - start) / 1e3)
    touched = int(np.mean([np.unique(batch.ids).size for batch in given]))
    return {"ids": size, "touched": touched, "threads": threads, "microseconds": times}


def _table(results: Sequence[Any], rows: int, threads: int) -> Table:
    title = f"a table of {rows:,} x {LENGTH}, {counted(threads, 'thread')}: touched rows / ids"
    table = Table(title=title)
    table.add_column("")
    for each in results:
        table.add_column(f"{each['touched']:,} / {each['ids']:,}", justify="right")
    for name in CONTENDERS:
        if any(name not in each["microseconds"] for each in results):
            continue
        medians = [float(np.median(each["microseconds"][name])) for each in results]
        ours = [float(np.median(each["microseconds"][_OURS])) for each in results]
        cells = [f"{duration(m)} ({m / o:.2f}x)" for m, o in zip(medians, ours, strict=True)]
        table.add_row(name, *cells)
    return table


def _draw(results: Sequence[Any], processor: str, rows: int, path: Path) -> None:
    from matplotlib.figure import Figure

    counts = sorted({each["threads"] for each in results})
    size = 6.2 * len(counts), 4.8
    figure = Figure(figsize=size, dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(f"A step on some rows of {rows:,} x {LENGTH} ({processor})")
    panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for count, axes in zip(counts, panels, strict=True):
        part = [each for each in results if each["threads"] == count]
        for k, name in enumerate(name for name in CONTENDERS if name in part[0]["microseconds"]):
            touched = [each["touched"] for each in part]
            medians = [np.median(each["microseconds"][name]) for each in part]
            style = "-o" if name.startswith("instep") else "--s"
            axes.plot(touched, medians, style, color=f"C{k}", label=name)
        axes.set(xscale="log", yscale="log", xlabel="touched rows")
        axes.set_title(counted(count, "thread"), fontsize=11)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("microseconds")
    panels[0].legend(fontsize=8)
    figure.savefig(path)
