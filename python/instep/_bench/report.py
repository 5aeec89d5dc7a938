"""The tables, and everything that was measured as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from instep._bench.case import Case
from instep._bench.measure import Result
from instep._bench.peers.base import Peer

LEGEND = (
    "Each cell: the median time of one step; how many times as long as instep's it is; the share "
    "of the limit that is reached. The limit is the step's bare memory traffic. Ratios are medians "
    "over rounds, ± half their interquartile range (in instep's column, that of its time)."
)
_NAME_WIDTH, _CELL_WIDTH = 13, 13


def tables(results: Sequence[Result], peers: Mapping[str, Peer], width: int) -> list[Table]:
    """Return tables for each rule, dtype and number of threads, each with peers as width allows."""
    made = []
    room = max(1, (width - _NAME_WIDTH - 2 * _CELL_WIDTH) // _CELL_WIDTH)
    for title, section in sections(results).items():
        names = [name for name in peers if any(result.times(name) for result in section)]
        parts = max(1, math.ceil(len(names) / room))
        for part in range(parts):
            first, end = (len(names) * k // parts for k in (part, part + 1))
            titles = {name: peers[name].title for name in names[first:end]}
            made.append(_table(title, section, titles))
    return made


def sections(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results that can be compared, by the title of their table."""
    parts: dict[str, list[Result]] = {}
    for result in results:
        case = result.case
        plural = "s" if case.threads > 1 else ""
        cold = ", cold" if case.cold else ""
        title = f"{case.rule.name}, {case.dtype}, {case.threads} thread{plural}{cold}"
        parts.setdefault(title, []).append(result)
    return parts


def _table(title: str, results: Sequence[Result], titles: Mapping[str, str]) -> Table:
    table = Table(
        "workload",
        title=title,
        min_width=len(title),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("instep", *titles.values(), "limit"):
        table.add_column(heading, justify="right", max_width=_CELL_WIDTH - 1)
    for result in results:
        instep = result.times("instep")
        table.add_row(
            _workload(result.case),
            _cell(instep, _spread(instep), result.ratios("limit", "instep")),
            *(
                _cell(result.times(name), _ratio(result, name), result.ratios("limit", name))
                for name in titles
            ),
            _cell(result.times("limit"), _rate(result), []),
        )
        table.add_row()
    return table


def _workload(case: Case) -> str:
    name, arrays = case.workload.name, len(case.workload.shapes)
    lines = dict.fromkeys([name, f"{case.workload.parameters:,}"])
    return "\n".join([*lines, *([f"{arrays} arrays"] if arrays > 1 else [])])


def _cell(times: Sequence[float], second: str, fractions: Sequence[float]) -> str:
    if not times:
        return "-"
    lines = [duration(float(np.median(times))), second]
    if fractions:
        fraction = float(np.median(fractions))
        lines.append(f"{fraction:.2f}" if fraction >= 0.01 else f"{fraction:.1g}")
    return "\n".join(lines)


def _spread(samples: Sequence[float]) -> str:
    """Return half the interquartile range as a share of the median."""
    if not samples:
        return ""
    low, middle, high = np.percentile(samples, (25, 50, 75))
    return f"±{(high - low) / 2 / middle:.0%}"


def _ratio(result: Result, name: str) -> str:
    ratios = result.ratios(name, "instep")
    return f"{_significant(float(np.median(ratios)))}x {_spread(ratios)}" if ratios else ""


def _rate(result: Result) -> str:
    times = result.times("limit")
    return f"{_significant(gigabytes_per_second(result, 'limit'))} GB/s" if times else ""


def gigabytes_per_second(result: Result, name: str) -> float:
    """Return the median rate at which a contender moved what the step has to move."""
    return result.case.step_bytes / float(np.median(result.times(name))) / 1e3


def duration(microseconds: float) -> str:
    """Return a time in the unit that suits it, with three digits."""
    for limit, unit in ((1e3, "us"), (1e6, "ms")):
        if microseconds < 0.9995 * limit:
            return f"{_significant(microseconds / limit * 1e3)} {unit}"
    return f"{_significant(microseconds / 1e6)} s"


def _significant(number: float) -> str:
    """Return a number with three digits, or all those before the point."""
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:,.{decimals}f}"


def raw(
    results: Sequence[Result],
    *,
    machine: Mapping[str, Any],
    arguments: Mapping[str, Any],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return every sample, and what it takes to understand them, ready for JSON."""
    return {
        "machine": machine,
        "arguments": arguments,
        "notes": notes,
        "results": [
            {
                "workload": result.case.workload.name,
                "arrays": len(result.case.workload.shapes),
                "parameters": result.case.workload.parameters,
                "rule": result.case.rule.name,
                "settings": result.case.rule.settings,
                "dtype": result.case.dtype,
                "threads": result.case.threads,
                "bytes_per_step": result.case.step_bytes,
                "steps_per_sample": result.steps,
                "microseconds_per_step": [
                    {name: float(f"{time:.4g}") for name, time in times.items()}
                    for times in result.rounds
                ],
            }
            for result in results
        ],
    }
