"""instep's updates under Keras's optimizers, beside Keras's own; KERAS_BACKEND says with which."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import repository

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
pytest.importorskip(os.environ["KERAS_BACKEND"])

import instep  # noqa: E402
import instep.keras  # noqa: E402

# Of Keras's own: its tensors' way to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CASES: dict[str, dict[str, Any]] = {
    "SGD": {"learning_rate": 0.1},
    "SGD momentum": {"learning_rate": 0.1, "momentum": 0.9},
    "SGD nesterov": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
    "Adagrad": {"learning_rate": 0.1},
    "RMSprop": {},
    "RMSprop centered": {"momentum": 0.5, "centered": True},
    "Adadelta": {"learning_rate": 1.0},
    "Adam": {},
    "Adam amsgrad": {"amsgrad": True, "beta_1": 0.8, "epsilon": 1e-5},
    "AdamW": {"weight_decay": 0.1},
    "Adamax": {},
    "Lion": {},
    "Nadam": {},
    "Ftrl": {"learning_rate": 0.1, "l1_regularization_strength": 0.01, "beta": 0.1},
    "Lamb": {"weight_decay": 0.1},
    "Adafactor": {"learning_rate": 0.1, "beta_2_decay": -0.7},
    "Muon": {"learning_rate": 0.01, "muon_a": 3.4},
    "Muon plain": {"rms_rate": None, "nesterov": False, "weight_decay": None, "ns_steps": 3},
    "Muon Adam": {"exclude_layers": ["dense"], "adam_lr_ratio": 0.5, "adam_beta_1": 0.8},
    "ScheduleFreeAdamW": {"weight_decay": 0.1, "warmup_steps": 5},
}
NAMES = list(dict.fromkeys(case.split()[0] for case in CASES))
if os.environ["KERAS_BACKEND"] == "torch":
    del CASES["ScheduleFreeAdamW"]  # there Keras's own has other numbers
OPTIONS: dict[str, dict[str, Any]] = {
    "clipnorm": {"clipnorm": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "ema": {"use_ema": True, "ema_overwrite_frequency": 3},
    "window": {"gradient_accumulation_steps": 2},
}


def data() -> tuple[Any, Any]:
    x = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
    return x, x.sum(1, keepdims=True)


def a_model(optimizer: Any, seed: int = 1) -> Any:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((5,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse")
    return model


def fitted(ours: bool, name: str, epochs: int = 3, **options: Any) -> Any:
    model = a_model(getattr(instep.keras if ours else keras.optimizers, name)(**options))
    model.fit(*data(), batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return model


def assert_alike(one: Any, other: Any, tolerance: float = 2e-5) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    pairs = zip(one.optimizer.variables, other.optimizer.variables, strict=True)
    anew = "kernel_velocity" if isinstance(one.optimizer, keras.optimizers.Adafactor) else None
    for u, v in pairs:
        if anew and u.path.endswith(anew):
            continue  # Keras computes it in every step
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(u.value),
            keras.ops.convert_to_numpy(v.value),
            rtol=1e-4,
            atol=tolerance,
        )


@pytest.mark.parametrize("case", CASES)
def test_fit_is_keras(case: str) -> None:
    name = case.split()[0]
    theirs, ours = (fitted(mine, name, **CASES[case]) for mine in (False, True))
    assert isinstance(ours.optimizer, getattr(keras.optimizers, name))
    assert_alike(theirs, ours)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_surrounds_updates_is_keras(options: dict[str, Any]) -> None:
    theirs, ours = (fitted(mine, "Adam", 4, **options) for mine in (False, True))
    assert_alike(theirs, ours)


def test_schedules() -> None:
    models = []
    for mine in (False, True):
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        models.append(fitted(mine, "SGD", learning_rate=rate, momentum=0.5))
    assert_alike(*models)


@pytest.mark.parametrize("case", CASES)
def test_state_goes_over(case: str) -> None:
    """In the middle of a run, from Keras's own to ours and back."""
    name = case.split()[0]
    stays, goes = (fitted(False, name, 1, **CASES[case]) for _ in range(2))
    for mine in (True, False):
        new = fitted(mine, name, 0, **CASES[case])
        new.optimizer.build(new.trainable_variables)
        new.set_weights(goes.get_weights())
        new.optimizer.set_weights([np.array(each) for each in goes.optimizer.variables])
        goes = new
        for each in (stays, goes):
            each.fit(*data(), batch_size=16, epochs=1, shuffle=False, verbose=0)
        assert_alike(stays, goes)


def test_schedule_free_keeps_to_its_formula() -> None:
    options: dict[str, Any] = {"learning_rate": 0.1, "beta_1": 0.8, "warmup_steps": 3}
    param = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    variable = keras.Variable(param)
    ours = instep.keras.ScheduleFreeAdamW(**options)
    plain = instep.ScheduleFreeAdamW(param, **options, convention="keras")
    for g in np.random.default_rng(0).standard_normal((10, 4, 3)).astype(np.float32):
        ours.apply([keras.ops.convert_to_tensor(g)], [variable])
        plain.step(g)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), param)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_goes_on(name: str, tmp_path: Path) -> None:
    model = fitted(True, name, learning_rate=0.01)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is getattr(instep.keras, name)
    for each in (model, loaded):
        each.fit(*data(), batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert_alike(model, loaded, 1e-7)


def test_all_of_keras() -> None:
    """Each of its optimizers but those that hold others."""
    theirs = {name for name in dir(keras.optimizers) if name[0].isupper()}
    around = {"LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap"}
    assert {*NAMES, *around} == theirs


def test_other_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="KERAS_BACKEND: expected 'torch' or 'jax'"):
        instep.keras.Adam()._backend_update_step([], [], 0.1)


@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="the page is about PyTorch's")
def test_the_page_on_it() -> None:
    page = repository.file("docs/adapters.md")
    section = page.read_text(encoding="utf-8").partition("## Keras\n")[2]
    exec(section.partition("```python\n")[2].partition("```")[0], {"instep": instep})
