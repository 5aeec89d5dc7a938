"""A picture: how many times as long as the machine's limit a step takes, over its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from instep._bench import machine
from instep._bench.measure import Result
from instep._bench.text import caches, significant
from instep._kinds import counted

# One for each peer, far from instep's red; their markers differ, too.
_COLORS = (
    *("#0072b2", "#009e73", "#e69f00", "#8c52c6", "#56b4e9", "#8b5a2b", "#5f6b73"),
    *("#d55fa0", "#858500", "#1f2f7a", "#00a8a8", "#76b041", "#b39ddb", "#404040"),
)
_LIMIT = "black"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LOWEST, _HIGHEST = 0.5, 16.0  # few octaves, in which a factor of 1.5 is seen
_TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
_APART = 0.052  # of labels, as a share of the height of the axes
_CONNECTOR = {"arrowstyle": "-", "linewidth": 0.8, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0}


def draw(results: Sequence[Result], described: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: a row of panels for each rule, dtype and kind of caches, a column per threads.

    Parameters
    ----------
    results : sequence of Result
        Of single arrays.
    described : mapping
        The machine that they are of.
    path : Path
        The file.
    """
    columns = sorted({result.case.threads for result in results})
    rows = list(dict.fromkeys(_row(result) for result in results))
    names = dict.fromkeys(name for result in results for name in result.contenders)
    styles = {
        name: {"color": _COLORS[k % len(_COLORS)], "marker": _MARKERS[k % len(_MARKERS)]}
        for k, name in enumerate(name for name in names if name != "instep")
    } | {"instep": {"color": "crimson", "marker": "o", "linewidth": 2.5, "zorder": 4}}

    size = 6.6 * len(columns), 4.6 * len(rows) + 0.6
    figure = Figure(figsize=size, dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(
        f"A step's time over that of its bare memory traffic ({machine.name(described)})"
    )
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    for row, beside in zip(rows, grid, strict=True):
        for threads, axes in zip(columns, beside, strict=True):
            part = [r for r in results if _row(r) == row and r.case.threads == threads]
            _draw_axes(axes, part, styles)
            axes.set_title(f"{row}, {counted(threads, 'thread')}", fontsize=11)
        beside[0].set_ylabel("times the limit")
    for axes in grid[-1]:
        axes.set_xlabel("parameters, in one array")
    figure.savefig(path)


def _row(result: Result) -> str:
    case = result.case
    return f"{case.rule.name}, {case.dtype}, {caches(case)} caches"


def _draw_axes(
    axes: Any, results: Sequence[Result], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw one panel, each line with its name and its last value at its end."""
    ends: dict[str, float] = {}
    for name, style in styles.items():
        points = sorted(
            (result.case.workload.parameters, float(np.median(ratios)))
            for result in results
            if (ratios := result.ratios(name, result.limit))
        )
        if points:
            sizes, times = zip(*points, strict=True)
            axes.plot(sizes, times, **{"linewidth": 1.2, "markersize": 3.5, **style})
            ends[name] = times[-1]
    axes.axhline(1, color=_LIMIT, linewidth=1.2, zorder=3)
    ends["limit"] = 1
    axes.set_xscale("log")
    axes.margins(x=0.01)
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST, _HIGHEST)
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(labelleft=True)
    axes.grid(which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)

    def height(value: float) -> float:
        share = np.log(value / _LOWEST) / np.log(_HIGHEST / _LOWEST)
        return float(np.clip(share, 0, 1))

    ordered = sorted(ends, key=lambda name: ends[name])
    places = spread([height(ends[name]) for name in ordered], _APART)
    for name, place in zip(ordered, places, strict=True):
        above = " ↑" if ends[name] > _HIGHEST else ""
        color = styles[name]["color"] if name in styles else _LIMIT
        axes.annotate(
            f"{name} {significant(ends[name])}{above}",
            xy=(1, height(ends[name])),
            xytext=(1.06, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=color,
            fontsize=9,
            fontweight="bold" if name == "instep" else "normal",
            va="center",
            arrowprops={**_CONNECTOR, "color": color},
        )


def spread(heights: Sequence[float], apart: float) -> list[float]:
    """Return places near these ascending heights, each so far above the one before, around 1/2."""
    groups: list[list[float]] = []  # each of places that touch each other
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and groups[-1][0] < groups[-2][-1] + apart:
            merged = [*groups[-2], *groups[-1]]
            groups[-2:] = [_around(float(np.mean(merged)), len(merged), apart)]
    return [place for group in groups for place in group]


def _around(middle: float, count: int, apart: float) -> list[float]:
    half = (count - 1) / 2 * apart
    middle = max(min(middle, 1 - half), half) if half < 0.5 else 0.5
    return [middle + (k - (count - 1) / 2) * apart for k in range(count)]
