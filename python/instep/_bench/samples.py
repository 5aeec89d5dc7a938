"""Everything that was measured, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instep._bench.case import RULES, Case
from instep._bench.measure import Result
from instep._bench.workloads import MODELS, Workload


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


def results(document: Mapping[str, Any]) -> list[Result]:
    """Return the results that `raw` was given."""
    cold = document["arguments"]["cold"]

    def workload(each: Mapping[str, Any]) -> Workload:
        one_array = Workload(each["workload"], ((each["parameters"],),))
        return MODELS.get(each["workload"], one_array)

    return [
        Result(
            Case(workload(each), RULES[each["rule"]], each["dtype"], each["threads"], cold),
            each["steps_per_sample"],
            each["microseconds_per_step"],
        )
        for each in document["results"]
    ]
