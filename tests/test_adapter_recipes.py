"""The recipes of docs/adapters.md, with the libraries themselves."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "adapters.md").read_text(encoding="utf-8")
RECIPES = dict(
    re.findall(r"### ([^\n]+)\n\n```python\n(.*?)```", PAGE.partition("## Recipes\n")[2], re.DOTALL)
)
pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


def run(recipe: str, *needed: str) -> dict[str, Any]:
    """Return the names that a recipe has at its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in needed:
            pytest.importorskip(library)
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(RECIPES[recipe], names)
    return names


def test_there_are_no_others() -> None:
    assert set(RECIPES) == {
        "autograd",
        "JAX with NumPy's parameters",
        "PennyLane",
        "spaCy and thinc",
        "Ray",
        "An evolution strategy",
    }


def test_autograd() -> None:
    assert run("autograd", "autograd")["value"] < 0.01


def test_jax() -> None:
    names = run("JAX with NumPy's parameters", "jax")
    assert names["value"] < 0.01
    before = np.array(names["kept"]["v"])
    names["opt"].step(names["grads"])
    assert np.array_equal(names["kept"]["v"], before)


def test_jax_has_the_memory_of_state() -> None:
    jax = pytest.importorskip("jax")
    names = run("JAX with NumPy's parameters")
    m = names["opt"].state["v"]["m"]
    assert m.ctypes.data % 64 == 0
    shared, before = jax.device_put(m), m.copy()
    names["opt"].step(names["grads"])
    assert not np.array_equal(shared, before)


def test_pennylane() -> None:
    names = run("PennyLane", "pennylane")
    assert names["circuit"](names["angles"]) < -0.95


def test_spacy() -> None:
    names = run("spaCy and thinc", "spacy")
    assert names["losses"]["textcat"] < 0.1
    cats = names["nlp"]("what an awful day").cats
    assert cats["bad"] > cats["good"]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("ray")
        found.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    found.shutdown()


@pytest.mark.usefixtures("ray")
def test_ray() -> None:
    params = run("Ray")["params"]
    assert not params.flags.writeable
    np.testing.assert_allclose(params, 1, atol=0.2)


def test_an_evolution_strategy() -> None:
    names = run("An evolution strategy")
    assert names["fitness"](names["center"]) > -0.5
