"""What the documentation's guide shows works as it stands there, and all rules have formulas."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
GUIDE = sorted(
    file for file in (DOCS / "guide").glob("*.md") if "```python" in file.read_text("utf-8")
)
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
_DECIMAL = re.compile(r"(\d+\.\d+)")


def assert_prints(printed: str, shown: str) -> None:
    """Compare texts, but decimals nearly: products of matrices differ between machines."""
    actual, expected = _DECIMAL.split(printed), _DECIMAL.split(shown)
    assert actual[::2] == expected[::2]
    assert [*map(float, actual[1::2])] == pytest.approx([*map(float, expected[1::2])], rel=0.03)


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_blocks_run_and_print_what_is_shown(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    names: dict[str, Any] = {"__name__": page.stem}
    for code, shown in _BLOCK.findall(page.read_text("utf-8")):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert_prints(printed.getvalue(), shown)
