"""What the benchmark makes of its samples: tables, a picture, files."""

from __future__ import annotations

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import repository
from hypothesis import given
from hypothesis import strategies as st

from instep._bench import markdown, samples
from instep._bench.case import RULES, Case
from instep._bench.measure import Result
from instep._bench.text import duration
from instep._bench.workloads import MODELS, of_size


def result(size: int, threads: int, cold: bool, **times: float) -> Result:
    """Return a result whose rounds are all alike."""
    case = Case(of_size(str(size)), RULES["Adam"], "float32", threads, cold)
    return Result(case, dict.fromkeys(times, 1), [times] * 3)


def test_the_picture_shows_times_over_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from instep._bench import plot

    results = [
        result(size, threads, cold, instep=0.9 * size, limit=1.0 * size, keras=40.0 * size)
        for cold in (False, True)
        for size in (1000, 10)
        for threads in (1, 2)
    ]
    results.append(result(10, 1, False, instep=1.0, limit=2.0, other=3.0))
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, _: drawn.append(figure))
    plot.draw(results, {"cpu": "Some processor", "processors": 2}, tmp_path / "x.png")
    [figure] = drawn
    assert "Some processor, processors: 2" in figure.get_suptitle()
    assert [axes.get_title() for axes in figure.axes] == [
        f"Adam, float32, {caches} caches, {threads}"
        for caches in ("warm", "cold")
        for threads in ("1 thread", "2 threads")
    ]
    cold = figure.axes[2]
    lines: dict[Any, Any] = {line.get_color(): line.get_xydata() for line in cold.get_lines()}
    np.testing.assert_allclose(lines["crimson"], [(10, 0.9), (1000, 0.9)])
    np.testing.assert_allclose(np.unique(lines["black"][:, 1]), [1])
    labels = [text.get_text() for text in cold.texts]
    assert sorted(labels) == ["instep 0.90", "keras 40.0 ↑", "limit 1.00"]
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert high / low <= 2**5
        assert len({line.get_color() for line in axes.get_lines()}) == len(axes.get_lines())


@given(st.lists(st.floats(0, 1), max_size=15).map(sorted))
def test_labels_do_not_meet(heights: list[float]) -> None:
    pytest.importorskip("matplotlib")
    from instep._bench.plot import spread

    places = spread(heights, 0.05)
    assert len(places) == len(heights)
    assert all(above - below >= 0.05 - 1e-9 for below, above in pairwise(places))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)


def test_the_fastest_way_is_the_limit() -> None:
    both = Result(
        Case(MODELS["1k"], RULES["Adam"], "float32", 1),
        {"instep": 1, "limit": 1, "limit-512": 1, "numpy": 1},
        [
            {"instep": 4.0, "limit": 3.0, "limit-512": 2.0, "numpy": 8.0},
            {"instep": 4.0, "limit": 1.0, "limit-512": 2.0},
            {"instep": 4.0, "limit": 3.0, "limit-512": 2.5},
        ],
    )
    assert both.limit == "limit-512"
    assert both.contenders == ["instep", "numpy"]
    assert both.ratios("instep", both.limit) == [2, 2, 1.6]


def test_the_tables_of_readme() -> None:
    results = [
        result(1000, threads, cold, instep=2.0, limit=4.0, **{"limit-2": 1.0}, slow=3000.0)
        for cold in (False, True)
        for threads in (1, 2)
    ]
    results += [result(10, 1, False, instep=2.0, limit=2.0, fast=1.0)]
    assert (
        markdown.tables(results, "Some processor")
        == """\
**Adam, float32, 1 thread (Some processor)**

| parameters | caches | instep | limit | slow | fast |
| --- | --- | --- | --- | --- | --- |
| `1,000`: 1,000 in 1 array | warm | 2.00 us | 0.50x | 1,500x | - |
| `1,000`: 1,000 in 1 array | cold | 2.00 us | 0.50x | 1,500x | - |
| `10`: 10 in 1 array | warm | 2.00 us | 1.00x | - | 0.50x |

**Adam, float32, 2 threads (Some processor)**

| parameters | caches | instep | limit | slow |
| --- | --- | --- | --- | --- |
| `1,000`: 1,000 in 1 array | warm | 2.00 us | 0.50x | 1,500x |
| `1,000`: 1,000 in 1 array | cold | 2.00 us | 0.50x | 1,500x |"""
    )


@pytest.mark.parametrize("status", [0, 130])
def test_all_results_or_none_are_replaced(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    script = repository.file("bench/run.py")
    spec = importlib.util.spec_from_file_location("bench_run", script)
    assert spec
    assert spec.loader
    run: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    commands = []

    def bench(command: list[str]) -> int:
        commands.append(command)
        print("a table")
        document = samples.raw(
            [result(10, 1, False, instep=2.0, limit=1.0)],
            machine={"cpu": "Some processor", "processors": 1},
            arguments={"cold": "--cold" in command},
            notes=[],
        )
        Path(command[command.index("--json") + 1]).write_text(json.dumps(document))
        return status if len(commands) == 4 else 0

    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "main", bench)
    assert run.run(["--seconds", "1"]) == status
    assert ["--cold" in command for command in commands] == [False, False, True, True]
    assert ["--sizes" in command for command in commands] == [False, True, False, True]
    assert all(command[-2:] == ["--seconds", "1"] for command in commands)
    files = {f"{name}{kind}" for name in ("table", "sizes") for kind in ("", "-cold")}
    expected = {f"{file}.{suffix}" for file in files for suffix in ("txt", "json")} | {"sizes.png"}
    assert {path.name for path in tmp_path.iterdir()} == (set() if status else expected)
    assert run.run(["--cold"]) == 2


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0.1234, "0.12 us"),
        (9.996, "10.0 us"),
        (99.96, "100 us"),
        (999.6, "1.00 ms"),
        (1234.0, "1.23 ms"),
        (1_234_567.0, "1.23 s"),
        (1_234_567_890.0, "1,235 s"),
    ],
)
def test_durations(microseconds: float, text: str) -> None:
    assert duration(microseconds) == text
