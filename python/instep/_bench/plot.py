"""A roofline: how fast memory was moved, over the number of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from instep._bench.measure import Result
from instep._bench.peers.base import Peer
from instep._bench.report import gigabytes_per_second, sections

# One for each peer, far from instep's red.
_NAMES = ("blue", "green", "orange", "purple", "brown", "pink", "gray", "olive", "cyan")
_COLORS = (*(f"tab:{name}" for name in _NAMES), "navy")


def draw(results: Sequence[Result], peers: Mapping[str, Peer], path: Path) -> None:
    """Write a PNG with a row of axes for each rule and dtype, a column for each thread count.

    Parameters
    ----------
    results : sequence of Result
        Of single arrays.
    peers : mapping
        The peers to draw beside instep, by name.
    path : Path
        The file.
    """
    parts = sections(results)
    columns = len({result.case.threads for result in results})
    rows = math.ceil(len(parts) / columns)
    figure = Figure(figsize=(5 * columns + 2, 4.4 * rows), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    handles: dict[str, Any] = {}
    for (title, part), axes in zip(parts.items(), grid.flat, strict=False):
        _draw_axes(axes, part, peers, handles)
        axes.set_title(title, fontsize=10)
    for axes in grid[:, 0]:
        axes.set_ylabel("GB/s, of what the step has to move")
    for axes in grid[-1]:
        axes.set_xlabel("parameters, in one array")
    figure.legend(
        handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9
    )
    figure.savefig(path)


def _draw_axes(
    axes: Any, results: Sequence[Result], peers: Mapping[str, Peer], handles: dict[str, Any]
) -> None:
    """Draw one diagram, and enter each of its lines into the legend's handles."""

    def line(name: str, title: str, **style: Any) -> tuple[list[int], list[float]]:
        points = sorted(
            (result.case.workload.parameters, gigabytes_per_second(result, name))
            for result in results
            if result.times(name)
        )
        sizes, rates = [size for size, _ in points], [rate for _, rate in points]
        if points:
            handles[title] = axes.plot(sizes, rates, **style)[0]
        return sizes, rates

    sizes, roof = line("limit", "limit", color="black", linewidth=2, zorder=3)
    line("instep", "instep", color="crimson", linewidth=2, marker="o", markersize=4, zorder=4)
    for index, (name, peer) in enumerate(peers.items()):
        color = _COLORS[index % len(_COLORS)]
        line(name, peer.title, color=color, linewidth=1, marker=".")
    axes.set_xscale("log")
    axes.set_yscale("log")
    if roof:
        axes.fill_between(sizes, roof, 2 * max(roof), color="black", alpha=0.06, linewidth=0)
    axes.grid(which="major", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
