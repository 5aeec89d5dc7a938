"""Other libraries bring OpenMP runtimes of their own into the process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import two_runtimes
from processes import SECONDS, TEST_SETTINGS, environment


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("other", two_runtimes.OTHERS)
@pytest.mark.parametrize("is_first", [False, True], ids=["second", "first"])
def test_both_work_whichever_comes_first(other: str, is_first: bool) -> None:
    for module in (other, "threadpoolctl"):
        if not find_spec(module):
            pytest.skip(f"{module} is not installed")
    names = (other, "instep") if is_first else ("instep", other)
    run = subprocess.run(
        [sys.executable, two_runtimes.__file__, *names],
        env=environment(*TEST_SETTINGS),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout  # the files of the runtimes
