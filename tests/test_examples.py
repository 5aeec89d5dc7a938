"""The programs in examples/."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parent.parent / "examples"
LOOPS = ("custom_loop", "autograd_loop")
OPTIMIZERS = ("SGD", "momentum", "Adagrad", "RMSprop", "Adam")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return the importer of examples, which import each other by their plain names."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name: str) -> ModuleType:
        if name == "autograd_loop":
            pytest.importorskip("autograd")
        return import_module(name)

    return load


def finite_differences(
    loss: Callable[[Sequence[NDArray[np.float64]]], float], params: Sequence[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Return the central differences of ``loss(params)`` by every element."""
    gradients = [np.zeros_like(p) for p in params]
    for p, gradient in zip(params, gradients, strict=True):
        for index in np.ndindex(p.shape):
            middle = p[index]
            p[index] = middle + 1e-6
            above = loss(params)
            p[index] = middle - 1e-6
            gradient[index] = (above - loss(params)) / 2e-6
            p[index] = middle
    return gradients


def assert_all_close(
    actual: Sequence[NDArray[np.float64]], expected: Sequence[NDArray[np.float64]]
) -> None:
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-8)


def check_adadelta_output(output: str) -> None:
    *epochs, last = output.splitlines()
    losses = []
    for number, line in enumerate(epochs):
        match = re.fullmatch(rf"Epoch {number}: loss = (\d\.\d+)", line)
        assert match, line
        losses.append(float(match[1]))
    assert len(losses) == 10
    assert all(np.diff(losses) < 0)
    assert last == "accuracy = 1.0"


def check_loop_output(output: str) -> None:
    lines = output.splitlines()
    assert len(lines) == len(OPTIMIZERS)
    for name, line in zip(OPTIMIZERS, lines, strict=True):
        match = re.fullmatch(rf"{name}: loss (\d+\.\d{{4}}) -> (\d+\.\d{{4}})", line)
        assert match, line
        assert float(match[2]) < float(match[1])


def test_adadelta_ones(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    example("adadelta_ones").main()
    check_adadelta_output(capsys.readouterr().out)


def check_tfjs_adadelta_output(output: str) -> None:
    losses = {}
    for line in output.splitlines():
        match = re.fullmatch(r"(.+), learning rate (.+): loss 0\.6298 -> (0\.\d{4})", line)
        assert match, line
        losses[match[1], match[2]] = float(match[3])
    descent = losses.pop(("gradient descent", "1"))
    assert losses == {
        ("TensorFlow.js", "1"): descent,
        ("TensorFlow.js", "0.001"): pytest.approx(0.526, abs=1e-3),
        ("Zeiler", "1"): pytest.approx(0.070, abs=1e-3),
        ("Keras", "0.001"): pytest.approx(0.629, abs=1e-3),
    }
    assert descent < 0.001


def test_tfjs_adadelta(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    example("tfjs_adadelta").main()
    check_tfjs_adadelta_output(capsys.readouterr().out)


def test_adadelta_ones_hands_its_callback_means_over_samples(
    example: Callable[[str], ModuleType],
) -> None:
    module = example("adadelta_ones")
    rng = np.random.default_rng(1)
    params = module.initial_params(rng)
    x = rng.normal(size=(100, 5)).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    loss, accuracy, _ = module.evaluate(params, x, y)
    calls: list[tuple[int, dict[str, float]]] = []
    module.fit(
        params,
        x,
        y,
        # A rate of 0 keeps the parameters, so that every epoch has the loss of the first.
        optimizer=module.instep.Adadelta(params, learning_rate=0.0),
        epochs=3,
        batch_size=32,
        rng=rng,
        on_epoch_end=lambda epoch, logs: calls.append((epoch, logs)),
    )
    assert [epoch for epoch, _ in calls] == [0, 1, 2]
    for _, logs in calls:
        assert logs == pytest.approx({"loss": loss, "acc": accuracy}, rel=1e-5)


def test_adadelta_ones_makes_four_steps_per_epoch(
    example: Callable[[str], ModuleType],
) -> None:
    module = example("adadelta_ones")
    params = module.initial_params(np.random.default_rng(0))
    optimizer = module.instep.Adadelta(params)
    module.fit(
        params,
        np.ones((100, 5), np.float32),
        np.zeros((100, 1), np.float32),
        optimizer=optimizer,
        epochs=10,
        batch_size=32,
        rng=np.random.default_rng(0),
        on_epoch_end=lambda epoch, logs: None,
    )
    assert optimizer.iterations == 40


def test_adadelta_ones_gradients(example: Callable[[str], ModuleType]) -> None:
    module = example("adadelta_ones")
    rng = np.random.default_rng(2)
    params = [p.astype(np.float64) for p in module.initial_params(rng)]
    x, y = rng.normal(size=(20, 5)), rng.integers(0, 2, (20, 1)).astype(np.float64)
    _, _, grads = module.evaluate(params, x, y)
    assert_all_close(grads, finite_differences(lambda p: module.evaluate(p, x, y)[0], params))


@pytest.mark.parametrize("name", LOOPS)
def test_loop(
    name: str, example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    example(name).main()
    check_loop_output(capsys.readouterr().out)


@pytest.mark.parametrize("name", LOOPS)
def test_loop_gradients(name: str, example: Callable[[str], ModuleType]) -> None:
    loop = example("custom_loop")
    rng = np.random.default_rng(3)
    variables = loop.make_variables(rng)
    x, y = loop.make_data(rng)
    expected = finite_differences(lambda v: loop.mean_squared_error(v, x, y), variables)
    assert_all_close(example(name).gradients(variables, x, y), expected)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_loops_agree(optimizer: str, example: Callable[[str], ModuleType]) -> None:
    by_hand, automatic = (example(name) for name in LOOPS)
    make_optimizer = by_hand.OPTIMIZERS[optimizer]
    expected = by_hand.train(make_optimizer(), by_hand.gradients, steps=100)
    actual = by_hand.train(make_optimizer(), automatic.gradients, steps=100)
    assert actual.before == expected.before
    assert actual.after == pytest.approx(expected.after, rel=1e-9)


@pytest.mark.parametrize("name", ["adadelta_ones", "tfjs_adadelta", *LOOPS])
def test_as_a_script(name: str) -> None:
    if name == "autograd_loop":
        pytest.importorskip("autograd")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    checks = {
        "adadelta_ones": check_adadelta_output,
        "tfjs_adadelta": check_tfjs_adadelta_output,
    }
    checks.get(name, check_loop_output)(done.stdout)


def test_the_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)  # it writes a checkpoint
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]  # they would be stale one day
            exec("".join(cell["source"]), names)
    assert names["losses"][-1] < 0.05 < names["losses"][0]
    assert max(names["ends"].values()) < names["losses"][0]
    assert len(set(names["by_convention"].values())) > 1
    assert np.array_equal(names["params"]["hidden"]["w"], names["resumed_params"]["hidden"]["w"])
