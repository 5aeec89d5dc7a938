"""The same bits for every thread count, instruction set, alignment and memory layout."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
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


def with_threads(count: int, *, shared: bool = False) -> Results:
    """Return the results of a number of threads, with this machine's best instruction set."""
    before = instep.get_num_threads()
    instep.set_num_threads(count)
    assert instep.get_num_threads() == count
    try:
        return workloads.results(shared=shared)
    finally:
        instep.set_num_threads(before)


@pytest.fixture(scope="module")
def expected() -> Results:
    return with_threads(1)


@pytest.mark.parametrize("count", [2, 7])
def test_threads(expected: Results, count: int) -> None:
    """On arrays that are large enough: what is not runs on one thread, whatever the number."""
    found = with_threads(count, shared=True)
    assert {layout for layouts in found.values() for layout in layouts} == set(workloads.LAYOUTS)
    assert not differences(found, expected)


def test_layouts(expected: Results) -> None:
    by_layout = {
        case: dict.fromkeys(layouts, layouts["contiguous"]) for case, layouts in expected.items()
    }
    assert not differences(expected, by_layout)


def in_use() -> str:
    """Return the instruction set of this process."""
    with contextlib.redirect_stdout(io.StringIO()) as config:
        instep.show_config()
    found = re.search(r"(\w+) in use", config.getvalue())
    assert found
    return found[1]


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="INSTEP_ISA is for x86-64"
)
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets(expected: Results, isa: str) -> None:
    if isa == in_use():
        pytest.skip(f"{isa} is what the others are compared with")
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
