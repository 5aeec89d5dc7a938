"""The same bits for every thread count, instruction set, alignment and memory layout."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import workloads
from processes import config
from workloads import Results

import instep
from instep._core import build_info


def differences(some: Results, others: Results) -> list[tuple[str, str, str]]:
    """List the case, layout and size of each result that differs."""
    return [
        (case, layout, size)
        for case, layouts in some.items()
        for layout, sizes in layouts.items()
        for size, value in sizes.items()
        if value != others[case][layout][size]
    ]


def elsewhere(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Let a process with these environment variables print results."""
    return subprocess.run(
        [sys.executable, workloads.__file__, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def expected() -> Iterator[Results]:
    """Return the results of one thread, with this machine's best instruction set."""
    before = instep.get_num_threads()
    instep.set_num_threads(1)
    yield workloads.results()
    instep.set_num_threads(before)


@pytest.mark.parametrize("count", [2, 7])
def test_threads(expected: Results, count: int) -> None:
    """On arrays that are large enough: what is not runs on one thread, whatever the number."""
    run = elsewhere("shared", INSTEP_NUM_THREADS=str(count))
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {layout for layouts in found.values() for layout in layouts} == set(workloads.LAYOUTS)
    assert not differences(found, expected)


def test_layouts(expected: Results) -> None:
    by_layout = {
        case: dict.fromkeys(layouts, layouts["contiguous"]) for case, layouts in expected.items()
    }
    assert not differences(expected, by_layout)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="INSTEP_ISA is for x86-64"
)
@pytest.mark.parametrize("isa", build_info()["isa_built"])
def test_instruction_sets(expected: Results, isa: str) -> None:
    if f"{isa} in use" in config():
        pytest.skip(f"{isa} is what the others are compared with")
    run = elsewhere(INSTEP_ISA=isa, INSTEP_NUM_THREADS="1")
    if isa != "baseline" and f"ImportError: INSTEP_ISA={isa}: this processor" in run.stderr:
        pytest.skip(run.stderr.splitlines()[-1])
    assert run.returncode == 0, run.stderr
    assert not differences(expected, json.loads(run.stdout))


@pytest.mark.parametrize("bytes_ahead", ["0", "1000", "65536"])
def test_fetching_ahead_changes_no_bit(expected: Results, bytes_ahead: str) -> None:
    run = elsewhere("shared", INSTEP_PREFETCH=bytes_ahead)
    assert run.returncode == 0, run.stderr
    assert not differences(json.loads(run.stdout), expected)


@pytest.mark.parametrize(
    "setting", [("OMP_PROC_BIND", "true"), ("OMP_DYNAMIC", "true"), ("OMP_THREAD_LIMIT", "2")]
)
def test_what_openmp_is_told_changes_no_bit(expected: Results, setting: tuple[str, str]) -> None:
    """Then threads work in a plain region of its own."""
    name, value = setting
    run = elsewhere("shared", INSTEP_NUM_THREADS="3", **{name: value})
    assert run.returncode == 0, run.stderr
    assert not differences(json.loads(run.stdout), expected)
