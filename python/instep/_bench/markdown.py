"""The tables as README has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instep._bench.measure import Result
from instep._bench.text import caches, duration, significant
from instep._kinds import counted


def tables(results: Sequence[Result], processor: str) -> str:
    """Return a table for each rule, dtype and number of threads, with warm beside cold caches."""
    sections: dict[str, list[Result]] = {}
    for result in results:
        case = result.case
        title = f"{case.rule.name}, {case.dtype}, {counted(case.threads, 'thread')} ({processor})"
        sections.setdefault(title, []).append(result)
    return "\n\n".join(_table(title, section) for title, section in sections.items())


def _table(title: str, results: Sequence[Result]) -> str:
    peers = dict.fromkeys(name for each in results for name in each.contenders if name != "instep")
    heads = ["parameters", "caches", "instep", "limit", *peers]
    lines = [heads, ["---"] * len(heads)]
    workloads = dict.fromkeys(result.case.workload for result in results)
    for workload in workloads:
        for result in results:
            if result.case.workload == workload:
                arrays = counted(len(workload.shapes), "array")
                lines.append(
                    [
                        f"`{workload.name}`: {workload.parameters:,} in {arrays}",
                        caches(result.case),
                        duration(float(np.median(result.times("instep")))),
                        *(_times_instep(result, name) for name in (result.limit, *peers)),
                    ]
                )
    return "\n".join([f"**{title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _times_instep(result: Result, name: str) -> str:
    ratios = result.ratios(name, "instep")
    return f"{significant(float(np.median(ratios)))}x" if ratios else "-"
