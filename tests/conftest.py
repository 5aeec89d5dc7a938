"""Fixtures that several modules of tests use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before instep and NumPy load OpenMP and the BLAS: threads that wait for each other sleep, and
# matrices, which are small here, are left to one. Spinning threads would take the processors from
# other tests. In processes of their own (`processes.py`) threads are those that users have.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Helpers whose assertions tell as much as those of the tests.
pytest.register_assert_rewrite("bad_arrays", "journeys", "processes", "references")


@pytest.fixture(scope="module")
def without_fsync() -> Iterator[None]:
    """Leave out what matters when the power fails, and takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Yield a path in a folder where nothing else may be in the end."""
    folder = tmp_path / "folder"
    folder.mkdir()
    yield folder / "checkpoint.npz"
    assert {each.name for each in folder.iterdir()} <= {"checkpoint.npz"}
