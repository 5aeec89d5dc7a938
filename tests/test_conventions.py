"""Every rule in every convention against the paths that the real frameworks took."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trajectories.compare import Reference, error, follow, is_installed, load
from trajectories.make import references
from trajectories.problem import Case

import instep
from instep import Optimizer
from instep._conventions import CONVENTIONS, LETTERS
from instep.typing import Convention

STORED = Path(__file__).parent / "trajectories"
FRAMEWORKS = ["keras", "torch", "optax", "tfjs"]
REFERENCES = {framework: list(load(STORED / f"{framework}.npz")) for framework in FRAMEWORKS}
CASES = [
    pytest.param(case, reference, id=f"{framework} {case.name}")
    for framework, all_of_it in REFERENCES.items()
    for case, reference in all_of_it
]
CLASSES = {
    name: each
    for name, each in vars(instep).items()
    if isinstance(each, type) and issubclass(each, Optimizer) and each is not Optimizer
}
EXISTING = [(rule, name) for rule, conventions in CONVENTIONS.items() for name in conventions]


def tolerance(case: Case) -> float:
    """Return how far apart two paths may be, relative to the largest magnitude of an element."""
    if case.dtype == "float32":
        return 2e-5
    return 1e-10


@pytest.mark.parametrize(("case", "reference"), CASES)
def test_path(case: Case, reference: Reference) -> None:
    assert error(follow(case), reference) <= tolerance(case)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_path_of_the_installed_framework(framework: str) -> None:
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    module = importlib.import_module(f"trajectories.with_{framework}")
    for case, reference in references(module):
        assert error(follow(case), reference) <= tolerance(case), case.name


def test_an_error_shows() -> None:
    """The paths tell a rule from its neighbours."""
    case, reference = next(
        (case, reference)
        for case, reference in REFERENCES["keras"]
        if case.rule == "Adam" and case.dtype == "float32" and not case.keywords
    )
    other = Case("Adam", "torch", {"epsilon": 1e-7}, case.dtype, case.problem)
    assert error(follow(case), reference) <= 2e-5 < error(follow(other), reference)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_cell_has_a_path(framework: str) -> None:
    followed: dict[str, set[str]] = defaultdict(set)
    for case, _ in REFERENCES[framework]:
        followed[case.rule].add(case.dtype)
    dtypes = {"float32"} if framework == "tfjs" else {"float32", "float64"}
    expected = {rule: dtypes for rule, name in EXISTING if name == framework}
    assert {rule: followed[rule] for rule in expected} == expected


def golden() -> list[Any]:
    stored = json.loads((STORED / "keras_golden.json").read_text())
    return [pytest.param(each, id=f"{each['rule']} {each['keywords']}") for each in stored]


@pytest.mark.parametrize("case", golden())
def test_golden_numbers_of_keras(case: dict[str, Any]) -> None:
    """The numbers in Keras's own tests, which are in float32."""
    param = np.array(case["params"], "float32")
    keywords = {key: schedule(value) for key, value in case["keywords"].items()}
    optimizer = CLASSES[case["rule"]](param, convention="keras", **keywords)
    for grad, expected in zip(case["gradients"], case["golden"], strict=True):
        optimizer.step(np.array(grad, "float32"))
        if expected is not None:  # not every test looks at every step
            bound = case["tolerance"]
            np.testing.assert_allclose(param, expected, rtol=bound, atol=bound)


def schedule(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    arguments = dict(value)
    return getattr(instep.schedules, arguments.pop("schedule"))(**arguments)


# The table


@pytest.mark.parametrize(("rule", "convention"), EXISTING)
def test_defaults_are_those_of_the_table(rule: str, convention: Convention) -> None:
    cls, cell = CLASSES[rule], CONVENTIONS[rule][convention]
    needs_rate = "learning_rate" in cell.values and cell.values["learning_rate"] is None
    rate: dict[str, Any] = {"learning_rate": 0.5} if needs_rate else {}
    config = cls(convention=convention, **rate).config
    for name, value in {**cell.values, **rate}.items():
        if name in config:
            assert config[name] == value
    if needs_rate:
        with pytest.raises(TypeError, match=f"learning_rate.*{convention}.*{rule}"):
            cls(convention=convention)


def test_every_class_is_in_the_table() -> None:
    assert list(CONVENTIONS) == list(dict.fromkeys(CONVENTIONS))
    assert set(CONVENTIONS) == set(CLASSES)
    assert all("paper" in conventions for conventions in CONVENTIONS.values())


@pytest.mark.parametrize("rule", CONVENTIONS)
def test_switches_reach_the_formula(rule: str) -> None:
    """A name in the table is a hyperparameter or one that the rule reads."""
    cls = CLASSES[rule]
    for convention, cell in CONVENTIONS[rule].items():
        for name in cell.values:
            assert name in cls._hyperparameters() or name in _read_by(cls), (convention, name)


def _read_by(cls: type[Optimizer]) -> set[str]:

    if cls._sees_whole_arrays():
        source = Path(sys.modules[cls.__module__].__file__ or "").read_text()
        return {name for name in source.replace('"', " ").split() if name.isidentifier()}
    initial = {str(value) for value in cls._initial_state.values()}
    elsewhere = {"nesterov_may_be_alone", "is_one_late", "factors_largest"}
    return {*cls._info()["hyperparameters"], *initial, *elsewhere}


@pytest.mark.parametrize("rule", CONVENTIONS)
def test_a_convention_that_a_rule_lacks(rule: str) -> None:
    for convention in {*FRAMEWORKS, "jax"} - set(CONVENTIONS[rule]):
        with pytest.raises(ValueError, match=f"convention.*{rule} has .*'paper'"):
            CLASSES[rule](convention=convention)  # type: ignore[arg-type]


COUPLED = [(rule, name) for rule, name in EXISTING if CONVENTIONS[rule][name].decay == "coupled"]


@pytest.mark.parametrize(("rule", "convention"), COUPLED)
def test_coupled_decay_has_another_name(rule: str, convention: Convention) -> None:
    with pytest.raises(ValueError, match=r"weight_decay: expected l2=0.1"):
        CLASSES[rule](learning_rate=0.1, weight_decay=0.1, convention=convention)
    optimizer = CLASSES[rule](learning_rate=0.1, l2=0.1, weight_decay=0, convention=convention)
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.weight_decay = 0.1
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.build([instep.Group(np.zeros(2), weight_decay=0.1)])
    assert optimizer.config["weight_decay"] == 0
    assert optimizer.params is None


def conventions_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "instep", "conventions", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command() -> None:
    run = conventions_command()
    assert run.returncode == 0
    for rule, convention in EXISTING:
        section = run.stdout.partition(f"\n{rule}\n")[2] or run.stdout
        assert f"  {convention:<6} {CONVENTIONS[rule][convention].source}" in section
    one = conventions_command("Adamax").stdout
    assert one.startswith("Adamax\n")
    assert all(f"  {letter:<12}{meaning}\n" in one for letter, meaning in LETTERS.items())
    assert "learning_rate=0.002" in one
    assert "SGD" not in one


def test_command_with_an_unknown_rule() -> None:
    run = conventions_command("Adam", "Adamm")
    assert run.returncode == 1
    assert "Adamm" in run.stderr
    assert "AdamW" in run.stderr
