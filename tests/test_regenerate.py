"""What `tools/regenerate.py` makes is current, and it tells where it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "docs/conventions.md", "python/instep/_kernel_signatures.pyi"]


def regenerate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "tools" / "regenerate.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_made_from_the_code_is_current() -> None:
    run = regenerate(ROOT, "--check")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_what_is_stale_is_told_and_written_anew(tmp_path: Path) -> None:
    for name in [*PAGES, "tools/regenerate.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("tests", "bench"):
        (tmp_path / name).symlink_to(ROOT / name)
    files = [tmp_path / name for name in PAGES]
    current = [file.read_text(encoding="utf-8") for file in files]
    stale = [
        current[0]
        .replace("`Lion`", "`Loin`")
        .replace("Keras 3.15.", "Keras 2.15.")
        .replace("x |", "|"),
        current[1].replace("paper: Chen", "Chen").replace("- `lr`: ", "- `lr` is "),
        current[2].replace("beta_1: float = 0.95", "beta_1: float = 0.9"),
    ]
    for file, text in zip(files, stale, strict=True):
        file.write_text(text, encoding="utf-8")
    run = regenerate(tmp_path, "--check")
    assert (run.returncode, run.stderr) == (1, "")
    assert all(f"{name}: stale" in run.stdout for name in PAGES)
    assert [file.read_text(encoding="utf-8") for file in files] == stale
    run = regenerate(tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert all(f"{name}: written" in run.stdout for name in PAGES)
    assert [file.read_text(encoding="utf-8") for file in files] == current
