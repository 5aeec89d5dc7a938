"""Files of the repository, some of which the source distribution leaves out for their size."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def file(name: str, root: Path = ROOT) -> Path:
    """Return the path of a file; where a source distribution leaves it out, skip.

    Anywhere else a file that is missing is missed, and the test fails.
    """
    path = root / name
    if not path.exists() and (root / "PKG-INFO").exists():
        pytest.skip(f"{name} is not in the source distribution", allow_module_level=True)
    return path
