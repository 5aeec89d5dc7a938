"""State: which arrays there are, and that they are the ones that steps use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from optimizers import each_configuration

import instep


@each_configuration
def test_state_holds_the_slots_the_configuration_needs(
    rule: str, options: dict[str, Any], slots: list[str]
) -> None:
    params: Any = {"x": [np.zeros((2, 3), np.float32)], "y": np.zeros(4)}
    opt = getattr(instep, rule)(params, **options)
    for _ in range(2):
        assert set(opt.state) == {"x", "y"}
        for state, p in [(opt.state["x"][0], params["x"][0]), (opt.state["y"], params["y"])]:
            assert [name for name in state if name != "step"] == slots
            assert [state[name].shape for name in slots] == [p.shape] * len(slots)
            assert [state[name].dtype for name in slots] == [p.dtype] * len(slots)
        opt.step({"x": [np.ones((2, 3))], "y": np.ones(4)})


def test_accumulator_starts_at_its_initial_value() -> None:
    opt = instep.Adagrad(np.zeros(3), initial_accumulator_value=0.5)
    assert opt.state["accumulator"].tolist() == [0.5] * 3


def test_state_is_live() -> None:
    opt = instep.Adam({"w": np.zeros(3)}, beta_1=0.5)
    m = opt.state["w"]["m"]
    opt.step({"w": np.full(3, 2.0)})
    assert m.tolist() == [1.0] * 3
    m[...] = 4.0
    opt.step({"w": np.zeros(3)})
    assert m.tolist() == [2.0] * 3
    assert np.shares_memory(opt.state["w"]["m"], m)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's smaps")
def test_large_state_may_use_huge_pages() -> None:
    def may(array: npt.NDArray[Any]) -> bool:
        middle = array.ctypes.data + array.nbytes // 2
        for mapping in re.split(
            r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()
        ):
            low, high = (int(end, 16) for end in mapping.split(maxsplit=1)[0].split("-"))
            if low <= middle < high:
                return " hg" in mapping
        raise AssertionError("the array is in no mapping")

    param = np.ones(2**23, np.float32)
    opt = instep.Adam(param, use_ema=True)
    for array in (opt.state["m"], opt.state["v"], opt.averages):
        assert may(array) == may(param)
