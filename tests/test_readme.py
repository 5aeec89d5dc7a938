"""What README.md shows works as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import repository

import instep

README = repository.file("README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_example_trains() -> None:
    names: dict[str, Any] = {}
    exec(BLOCKS[0], names)
    x, y, params = names["x"], names["y"], names["params"]
    assert np.mean((x @ params["w"] + params["b"] - y) ** 2) < 0.99 * np.mean(y**2)
    assert names["opt"].iterations == 100


class TorchOptimizer:
    """Stands for a fresh `torch.optim.AdamW` of one parameter."""

    def state_dict(self) -> dict[str, Any]:
        group = {
            "lr": 0.5,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "weight_decay": 0.01,
            "amsgrad": False,
            "maximize": False,
            "decoupled_weight_decay": True,
            "params": [0],
        }
        return {"state": {}, "param_groups": [group]}


def test_the_other_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes a checkpoint
    param = np.ones(3)
    names: dict[str, Any] = {
        "np": np,
        "instep": instep,
        "params": [param],
        "grads": [np.ones(3)],
        "variables": [np.ones(3)],
        "weights_of_this_round": [np.ones(3)],
        "pseudo_gradients": [np.ones(3)],
        "param": param,
        "gradient_of": np.copy,
        **{name: np.ones((2, 2)) for name in ("w", "grad_w")},
        **{name: np.ones(2) for name in ("b", "grad_b")},
        "torch_optimizer": TorchOptimizer(),
    }
    steps, conventions = 0, set()
    for block in BLOCKS[1:]:
        exec(block, names)
        steps = max(steps, names["opt"].iterations)
        conventions.add(names["opt"].convention)
    assert (tmp_path / "run.npz").exists()
    assert steps == 2
    assert conventions == {"paper", "optax", "torch"}
    assert names["opt"].learning_rate == 0.5
    np.testing.assert_allclose(param, 0.9, atol=0.05)


def test_state_in_few_bits_is_read_as_told() -> None:
    pytest.importorskip("ml_dtypes")
    page = repository.file("docs/formats.md")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    np.testing.assert_allclose(names["numbers"], 0.001, rtol=0.01)
    np.testing.assert_allclose(names["m"], 0.1, rtol=0.13)
    np.testing.assert_allclose(names["v"], 0.001, rtol=0.13)
    np.testing.assert_allclose(names["m"].mean(), 0.1, rtol=0.01)


def test_the_rules_listed_are_all() -> None:
    rules = {
        name
        for name, each in vars(instep).items()
        if isinstance(each, type) and issubclass(each, instep.Optimizer)
    } - {"Optimizer"}
    table = README[README.index("## Rules") : README.index("`help(instep.Adam)`")]
    listed = re.findall(r"`([A-Z]\w+)`", table)
    assert len(listed) == len(set(listed))
    assert set(listed) == rules
    assert f"Adadelta, momentum and {len(rules) - 5}" in README


def test_the_number_of_paths() -> None:
    count = 0
    for framework in ("keras", "torch", "optax", "tfjs"):
        with np.load(repository.file(f"tests/trajectories/{framework}.npz")) as stored:
            count += len(json.loads(str(stored["cases"]))["cases"])
    assert f"in {count} configurations" in README


PAGES = [
    "README.md",
    "docs/adapters.md",
    "docs/conventions.md",
    "docs/formats.md",
    "docs/formulas.md",
    "docs/frameworks.md",
    "docs/rows.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_pages_link_to_files_that_exist(page: str) -> None:
    path = repository.file(page)
    links = re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert repository.file(f"{Path(page).parent / link}").exists(), link
