"""What the documentation's guide shows works as it stands there, and all rules have formulas."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import instep

DOCS = Path(__file__).parent.parent / "docs"
GUIDE = sorted(
    file for file in (DOCS / "guide").glob("*.md") if "```python" in file.read_text("utf-8")
)
RULES = [
    *(getattr(instep, name) for name in instep._RULES),
    *(getattr(instep.gallery, name) for name in instep.gallery.__all__),
]
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


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return the importer of what the pages are made with, which Sphinx imports by plain names."""
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    return import_module


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_has_its_formula_typeset(
    rule: type[instep.Optimizer], extension: Callable[[str], Any]
) -> None:
    own = inspect.cleandoc(vars(rule)["__doc__"].own)
    above, _, below = extension("typeset").documentation(own).partition("\nParameters\n")
    assert "\\leftarrow" in above
    assert "\n::\n" not in above
    assert "``" not in re.sub(r"``\w+(=\w+)?``", "", above)
    assert below == own.partition("\nParameters\n")[2]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("p -= lr * m / (sqrt(v) + epsilon)", r"p - \frac{\mathrm{lr} \, m}{\sqrt{v} + \epsilon}"),
        ("a = b / c * d / e", r"\frac{b \, d}{c \, e}"),
        ("a = b / (c / d)", r"\frac{b \, d}{c}"),
        ("a = b - (c - d)", r"b - \left(c - d\right)"),
        ("a = (b + c)**2", r"\left(b + c\right)^{2}"),
        ("a = -b**2", "-b^{2}"),
        ("a = 2 * 1e-3", r"2 \cdot 0.001"),
        ("a *= b + c", r"a \, \left(b + c\right)"),
        ("a = m_1_hat", r"\hat{m}_{1}"),
        ("a = x.T @ x", r"x^\top \, x"),
        ("a = norm(g, all)", r"\left\lVert g \right\rVert_{\mathrm{all}}"),
    ],
)
def test_formulas_as_latex(source: str, expected: str, extension: Callable[[str], Any]) -> None:
    assert extension("typeset").latex(source).partition(r"\leftarrow ")[2] == expected


def test_what_is_no_formula_is_refused(extension: Callable[[str], Any]) -> None:
    typeset = extension("typeset")
    with pytest.raises(ValueError, match="formula: expected an expression, got 'a b'"):
        typeset.latex("a b")
    with pytest.raises(ValueError, match="formula: expected arithmetic, got 'lambda: a'"):
        typeset.latex("lambda: a")


def test_every_schedule_is_drawn(extension: Callable[[str], Any]) -> None:
    pytest.importorskip("matplotlib")
    assert {*extension("pictures").EXAMPLES} == {*instep.schedules.__all__}
