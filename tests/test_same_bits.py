"""The same bits for every thread count, instruction set, alignment and memory layout."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import workloads
from workloads import Results

import instep


def differences(some: Results, others: Results) -> list[tuple[str, str, str]]:
    """List the case, layout and size of each result that differs."""
    return [
        (case, layout, size)
        for case, layouts in some.items()
        for layout, sizes in layouts.items()
        for size, value in sizes.items()
        if value != others[case][layout][size]
    ]


def with_threads(count: int) -> Results:
    """Return the results of a number of threads, with this machine's best instruction set."""
    before = instep.get_num_threads()
    instep.set_num_threads(count)
    assert instep.get_num_threads() == count
    try:
        return workloads.results()
    finally:
        instep.set_num_threads(before)


@pytest.fixture(scope="module")
def expected() -> Results:
    return with_threads(1)


@pytest.mark.parametrize("count", [2, 7])
def test_threads(expected: Results, count: int) -> None:
    assert not differences(expected, with_threads(count))


def test_layouts(expected: Results) -> None:
    by_layout = {
        case: dict.fromkeys(layouts, layouts["contiguous"]) for case, layouts in expected.items()
    }
    assert not differences(expected, by_layout)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="INSTEP_ISA is for x86-64"
)
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets(expected: Results, isa: str) -> None:
    run = subprocess.run(
        [sys.executable, Path(workloads.__file__)],
        env={**os.environ, "INSTEP_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    if isa != "baseline" and f"ImportError: INSTEP_ISA={isa}: this processor" in run.stderr:
        pytest.skip(run.stderr.splitlines()[-1])
    assert run.returncode == 0, run.stderr
    assert not differences(expected, json.loads(run.stdout))
