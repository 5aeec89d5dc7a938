"""What README.md shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

import instep

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_example_trains() -> None:
    names: dict[str, Any] = {}
    exec(BLOCKS[0], names)
    x, y, params = names["x"], names["y"], names["params"]
    assert np.mean((x @ params["w"] + params["b"] - y) ** 2) < 0.99 * np.mean(y**2)
    assert names["opt"].iterations == 100


def test_the_other_examples_run() -> None:
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
    }
    for block in BLOCKS[1:]:
        exec(block, names)
    assert names["opt"].iterations == 2
    np.testing.assert_allclose(param, 0.9, atol=0.05)


def test_the_rules_listed_exist() -> None:
    rules = {
        name
        for name, each in vars(instep).items()
        if isinstance(each, type) and issubclass(each, instep.Optimizer)
    } - {"Optimizer"}
    table = README[README.index("## Rules") : README.index("Every rule takes these options")]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(listed) >= 6
    assert set(listed) <= rules
