"""The tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table

from instep._bench.case import Case
from instep._bench.measure import Result
from instep._bench.peers import IN_PLACE_OF
from instep._bench.peers.base import Peer
from instep._bench.text import duration, significant
from instep._kinds import counted

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


def adapters(results: Sequence[Result]) -> list[Table]:
    """Return tables of how many times as long as an adapter's a library's own steps are."""
    made = []
    for title, section in sections(results).items():
        table = Table("", title=f"{title}: times an adapter's step", box=box.SIMPLE_HEAD)
        for result in section:
            table.add_column(result.case.workload.name, justify="right")
        for adapter, own in IN_PLACE_OF.items():
            for name in own:
                cells = [_ratio(result, name, adapter) for result in section]
                if any(cells):
                    table.add_row(f"{name} / {adapter}", *(cell or "-" for cell in cells))
        if table.row_count:
            made.append(table)
    return made


def sections(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results that can be compared, by the title of their table."""
    parts: dict[str, list[Result]] = {}
    for result in results:
        case = result.case
        cold = ", cold" if case.cold else ""
        title = f"{case.rule.name}, {case.dtype}, {counted(case.threads, 'thread')}{cold}"
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
        instep, limit = result.times("instep"), result.limit
        table.add_row(
            _workload(result.case),
            _cell(instep, _spread(instep), result.ratios(limit, "instep")),
            *(
                _cell(result.times(name), _ratio(result, name), result.ratios(limit, name))
                for name in titles
            ),
            _cell(result.times(limit), _rate(result) if result.times(limit) else "", []),
        )
        table.add_row()
    return table


def _workload(case: Case) -> str:
    name, arrays = case.workload.name, len(case.workload.shapes)
    lines = dict.fromkeys([name, f"{case.workload.parameters:,}"])
    return "\n".join([*lines, *([counted(arrays, "array")] if arrays > 1 else [])])


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


def _ratio(result: Result, name: str, below: str = "instep") -> str:
    ratios = result.ratios(name, below)
    return f"{significant(float(np.median(ratios)))}x {_spread(ratios)}" if ratios else ""


def _rate(result: Result) -> str:
    times = result.times(result.limit)
    return f"{significant(result.case.step_bytes / float(np.median(times)) / 1e3)} GB/s"
