"""scikit-learn's perceptrons trained by instep, beside those trained by itself."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from inspect import signature
from typing import Any

import numpy as np
import pytest
import repository

pytest.importorskip("sklearn")

from sklearn import base, datasets, model_selection, neural_network
from sklearn.exceptions import ConvergenceWarning

import instep
import instep.sklearn

NAMES = ("MLPClassifier", "MLPRegressor")
SOLVERS: dict[str, dict[str, Any]] = {
    "adam": {"solver": "adam"},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.01},
    "plain": {"solver": "sgd", "learning_rate_init": 0.01, "momentum": 0.0},
    "classic": {"solver": "sgd", "learning_rate_init": 0.01, "nesterovs_momentum": False},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 0.01,
        "n_iter_no_change": 1,
        "tol": 0.05,
    },
}


@pytest.fixture(autouse=True)
def _unconverged() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def data(name: str, dtype: Any = np.float64) -> tuple[Any, Any]:
    x, y = datasets.load_digits(return_X_y=True)
    x = (x[:300] / 16).astype(dtype)
    return (x, y[:300]) if name == "MLPClassifier" else (x, y[:300].astype(dtype))


def fitted(name: str, ours: bool, dtype: Any = np.float64, **options: Any) -> Any:
    options = {"hidden_layer_sizes": (12, 7), "max_iter": 12, "random_state": 0, **options}
    cls = getattr(instep.sklearn if ours else neural_network, name)
    return cls(**options).fit(*data(name, dtype))


def assert_alike(one: Any, other: Any, tolerance: float = 1e-12) -> None:
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    assert one.n_iter_ == other.n_iter_


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_do_what_they_do_in_scikit_learn(name: str, solver: str) -> None:
    theirs, ours = (fitted(name, mine, **SOLVERS[solver]) for mine in (False, True))
    assert_alike(ours, theirs)
    assert isinstance(ours, getattr(neural_network, name))


@pytest.mark.parametrize("name", NAMES)
def test_early_stopping_and_float32(name: str) -> None:
    options = {"early_stopping": True, "max_iter": 30, "dtype": np.float32, "n_iter_no_change": 3}
    theirs, ours = (fitted(name, mine, **options) for mine in (False, True))
    assert ours.coefs_[0].dtype == np.float32
    assert_alike(ours, theirs, 1e-4)


def test_the_other_solver_is_scikit_learns() -> None:
    theirs, ours = (fitted("MLPClassifier", mine, solver="lbfgs") for mine in (False, True))
    assert_alike(ours, theirs, 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_partial_fit_and_warm_start(name: str) -> None:
    x, y = data(name)
    more: dict[str, Any] = {"classes": np.arange(10)} if name == "MLPClassifier" else {}
    models = []
    for module in (neural_network, instep.sklearn):
        cls = getattr(module, name)
        parts = cls(hidden_layer_sizes=(8,), random_state=0)
        for k in range(6):
            parts.partial_fit(x[50 * k : 50 * k + 50], y[50 * k : 50 * k + 50], **more)
        warm = cls(hidden_layer_sizes=(8,), random_state=0, warm_start=True, max_iter=3)
        warm.fit(x, y).fit(x, y)
        models.append((parts, warm))
    for theirs, ours in zip(*models, strict=True):
        assert_alike(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "optimizer", [instep.Lion, instep.AdamW(learning_rate=0.01, weight_decay=0.1, clipnorm=1.0)]
)
def test_any_rule(name: str, optimizer: Any) -> None:
    x, y = data(name)
    model = getattr(instep.sklearn, name)(
        hidden_layer_sizes=(10,), optimizer=optimizer, max_iter=40, random_state=0
    )
    assert model.fit(x, y).loss_curve_[-1] < model.loss_curve_[0]
    engine: Any = model._optimizer.optimizer
    assert type(engine).__name__ == ("Lion" if isinstance(optimizer, type) else "AdamW")
    if isinstance(optimizer, type):
        assert engine.learning_rate == model.learning_rate_init
    else:
        assert (engine.learning_rate, engine.clipnorm, optimizer.params) == (0.01, 1.0, None)


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_go_on(name: str) -> None:
    x, y = data(name)
    more: dict[str, Any] = {"classes": np.arange(10)} if name == "MLPClassifier" else {}
    model = getattr(instep.sklearn, name)(
        hidden_layer_sizes=(8,), optimizer=instep.Yogi, random_state=0
    )
    model.partial_fit(x, y, **more)
    other = pickle.loads(pickle.dumps(model))
    for each in (model, other):
        each.partial_fit(x, y)
    assert_alike(model, other, 0)
    new = base.clone(model)
    assert new.optimizer is instep.Yogi
    assert not hasattr(new, "_optimizer")
    assert not hasattr(new, "coefs_")


def test_a_search_over_rules() -> None:
    x, y = data("MLPClassifier")
    search = model_selection.GridSearchCV(
        instep.sklearn.MLPClassifier((8,), max_iter=5, random_state=0),
        {"optimizer": [None, instep.Lion, instep.Adam(learning_rate=0.01)], "alpha": [0, 1e-3]},
        cv=2,
    ).fit(x, y)
    assert len(search.cv_results_["params"]) == 6
    assert "optimizer" in search.best_estimator_.get_params()


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        ("adam", "expected a rule"),
        (instep.Optimizer, "expected a rule"),
        (instep.Adam(np.ones(3)), "without parameters"),
    ],
)
def test_what_is_no_optimizer(optimizer: Any, told: str) -> None:
    model = instep.sklearn.MLPClassifier(optimizer=optimizer)
    with pytest.raises((TypeError, ValueError), match=told):
        model.fit(*data("MLPClassifier"))


def test_the_documentation_has_both() -> None:
    text = str(instep.sklearn.MLPClassifier.__doc__)
    assert "hidden_layer_sizes" in text
    assert "optimizer : type or Optimizer" in text
    assert "optimizer=None" in str(signature(instep.sklearn.MLPClassifier))


def test_the_page_on_it() -> None:
    page = repository.file("docs/adapters.md")
    section = page.read_text(encoding="utf-8").partition("## scikit-learn\n")[2]
    exec(section.partition("```python\n")[2].partition("```")[0], {"instep": instep})
