"""The command line and its demonstration."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import instep
from instep._cli import main

NAMES = (
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "centered-rmsprop",
    "adadelta",
    "adam",
    "amsgrad",
    "adamw",
)
EPOCH = re.compile(r"(.+): epoch (\d+)/(\d+), loss (\d+\.\d{4}), test accuracy (\d+\.\d)%")
ROW = re.compile(r"\W*(.+?)\W+(\d+\.\d)%\W+(\d+\.\d) us\W+(\d+\.\d) us\W+(\d+\.\d)x\W*")


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the output independent of the terminal and settings pytest runs under."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")


@pytest.fixture
def demo() -> ModuleType:
    """Return the demonstration's module where it can be imported."""
    pytest.importorskip("sklearn")
    pytest.importorskip("rich")
    return import_module("instep._demo")


def rows(output: str) -> dict[str, tuple[float, ...]]:
    """Return the numbers of the final table by the optimizers' titles."""
    matches = [match for line in output.splitlines() if (match := ROW.fullmatch(line))]
    return {match[1]: tuple(map(float, match.groups()[1:])) for match in matches}


@pytest.mark.parametrize("arguments", [[], ["info"]])
def test_info_shows_the_configuration(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    instep.show_config()
    assert printed == capsys.readouterr().out
    assert instep.__version__ in printed


def test_python_m_instep() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "instep"], capture_output=True, text=True, check=True
    )
    assert instep.__version__ in done.stdout


def test_every_optimizer_learns_the_digits(
    demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo"]) == 0
    output = capsys.readouterr().out
    accuracies = {title: numbers[0] for title, numbers in rows(output).items()}
    assert list(accuracies) == [recipe.title for recipe in demo.RECIPES.values()]
    assert min(accuracies.values()) >= 95
    assert accuracies["AdamW"] >= 97

    losses: dict[str, list[float]] = {}
    for line in output.splitlines():
        if match := EPOCH.fullmatch(line):
            losses.setdefault(match[1], []).append(float(match[4]))
    assert losses.keys() == accuracies.keys()
    for history in losses.values():
        assert len(history) == 20
        assert history[-1] < history[0] / 5


@pytest.mark.usefixtures("demo")
def test_some_optimizers_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "losses.png"
    arguments = ["--optimizers", "adam", "sgd", "--epochs", "2", "--seed", "3", "--plot", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "instep", "demo", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    epochs = [
        match.groups()[:3] for line in done.stdout.splitlines() if (match := EPOCH.fullmatch(line))
    ]
    assert epochs == [
        ("Adam", "1", "2"),
        ("Adam", "2", "2"),
        ("gradient descent", "1", "2"),
        ("gradient descent", "2", "2"),
    ]
    assert list(rows(done.stdout)) == ["Adam", "gradient descent"]
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.usefixtures("demo")
def test_a_terminal_gets_a_progress_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["demo", "--optimizers", "adam", "--epochs", "1"]) == 0
    output = capsys.readouterr().out
    assert "training" in output
    assert "\x1b[" in output


@pytest.mark.usefixtures("demo")
def test_a_seed_repeats_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for seed in ("5", "5", "6"):
        assert main(["demo", "--optimizers", "adam", "--epochs", "1", "--seed", seed]) == 0
        outputs.append([line for line in capsys.readouterr().out.splitlines() if EPOCH.match(line)])
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize(
    ("blocked", "arguments", "needs"),
    [
        (["sklearn"], [], "scikit-learn"),
        (["sklearn", "rich"], [], "scikit-learn and rich"),
        (
            ["sklearn", "rich", "matplotlib"],
            ["--plot", "x.png"],
            "scikit-learn, rich and matplotlib",
        ),
    ],
)
def test_a_missing_extra_is_named(
    blocked: list[str],
    arguments: list[str],
    needs: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in blocked:
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f'instep demo needs {needs}: pip install "instep[demo]"\n'


@pytest.mark.usefixtures("demo")
def test_an_unknown_optimizer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--optimizers", "adam", "adamx"]) == 1
    error = capsys.readouterr().err
    assert "no optimizer adamx: " in error
    assert error.endswith(", amsgrad and adamw\n")


@pytest.mark.parametrize(
    "arguments",
    [["--epochs", "0"], ["--seed", "-1"], ["--plot", "x.svg"], ["--plot", "nowhere/x.png"]],
)
def test_bad_values_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["demo", *arguments])
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_names(demo: ModuleType) -> None:
    assert tuple(demo.RECIPES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_numpy_rules_are_those_of_instep(name: str, demo: ModuleType) -> None:
    recipe = demo.RECIPES[name]
    settings = dict(recipe.settings)
    if name == "amsgrad":
        # With the default of 0.999, v would hardly ever fall below its maximum in so few steps.
        settings["beta_2"] = 0.5
    rng = np.random.default_rng(0)
    params = [np.ones_like(p) for p in demo.initial_params(rng)]
    expected = [p.copy() for p in params]
    optimizer = recipe.optimizer(params, **settings)
    numpy_step = recipe.numpy_rule(expected, **settings)
    for _ in range(20):
        grads = [rng.normal(size=p.shape).astype(np.float32) for p in params]
        optimizer.step(grads)
        numpy_step(grads)
    for p, e in zip(params, expected, strict=True):
        np.testing.assert_allclose(p, e, rtol=2e-6, atol=1e-6)


def test_gradients_of_the_network(demo: ModuleType) -> None:
    rng = np.random.default_rng(0)
    params = [p.astype(np.float64) for p in demo.initial_params(rng)]
    x, y = rng.normal(size=(8, 64)), rng.integers(0, 10, 8)
    _, grads = demo.loss_and_grads(params, x, y)
    for p, gradient in zip(params, grads, strict=True):
        direction = rng.normal(size=p.shape)
        start = p.copy()
        p += 1e-6 * direction
        above, _ = demo.loss_and_grads(params, x, y)
        p[...] = start - 1e-6 * direction
        below, _ = demo.loss_and_grads(params, x, y)
        p[...] = start
        assert np.sum(gradient * direction) == pytest.approx((above - below) / 2e-6, rel=1e-6)
