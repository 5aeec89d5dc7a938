"""What tests read of the repository is there, and only a source distribution may leave it out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import repository

PROJECT = repository.file("pyproject.toml").read_text(encoding="utf-8")


def test_only_a_source_distribution_leaves_files_out(tmp_path: Path) -> None:
    missing = tmp_path / "docs" / "digits.png"
    assert repository.file("docs/digits.png", tmp_path) == missing
    (tmp_path / "PKG-INFO").touch()
    with pytest.raises(pytest.skip.Exception, match=r"docs/digits\.png is not in the source"):
        repository.file("docs/digits.png", tmp_path)


@pytest.mark.skipif((repository.ROOT / "PKG-INFO").exists(), reason="this is a source distribution")
def test_the_repository_has_what_the_source_distribution_leaves_out() -> None:
    patterns = re.findall(r'"(.+?)"', re.findall(r"(?ms)^sdist\.exclude = \[(.+?)\]", PROJECT)[0])
    assert patterns
    for pattern in patterns:
        assert any(repository.ROOT.glob(pattern.lstrip("/"))), pattern
