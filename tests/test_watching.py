"""What `watch` tells of a step."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model import freeze
from references import REFERENCES

import instep

untyped: Any = instep
ALL = ("grad_norm", "update_norm", "param_norm", "nonfinite")
SHAPES = [(), (3, 4), (0,), (5000,), (37, 1000), (17, 3, 5)]


def values(seed: int, dtype: str = "float64") -> list[Any]:
    draw = np.random.default_rng(seed).normal
    return [np.asarray(draw(size=shape)).astype(dtype) for shape in SHAPES]


def norms(arrays: list[Any]) -> list[float]:
    return [float(np.linalg.norm(a.astype(float).ravel())) for a in arrays]


@pytest.mark.parametrize("rule", sorted(REFERENCES))
@pytest.mark.parametrize("options", [{}, {"global_clipnorm": 0.5}, {"clipnorm": 0.5}])
def test_norms_of_every_rule(rule: str, options: dict[str, Any]) -> None:
    params, others = values(0), values(0)
    opt = getattr(untyped, rule)(params, learning_rate=0.1, watch=ALL, **options)
    plain = getattr(untyped, rule)(others, learning_rate=0.1, **options)
    assert opt.watched == {name: [None] * len(SHAPES) for name in ALL}
    for step in range(1, 4):
        before, grads = [p.copy() for p in params], values(step)
        opt.step(grads)
        plain.step(grads)
        assert freeze(params) == freeze(others)  # to look changes nothing
        seen = opt.watched
        moves = [p - old for p, old in zip(params, before, strict=True)]
        np.testing.assert_allclose(seen["grad_norm"], norms(grads), rtol=1e-12)
        np.testing.assert_allclose(seen["update_norm"], norms(moves), rtol=1e-12)
        np.testing.assert_allclose(seen["param_norm"], norms(params), rtol=1e-12)
        assert seen["nonfinite"] == [0] * len(SHAPES)
        assert opt.grad_norm == pytest.approx(np.linalg.norm(norms(grads)), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layouts_formats_scales_and_windows(dtype: str) -> None:
    params = [np.asfortranarray(np.ones((33, 70), dtype)), np.ones((66, 140), dtype)[::2, ::2]]
    opt = instep.SGD(
        params, learning_rate=1.0, watch=ALL, gradient_accumulation_steps=3, loss_scale_factor=4.0
    )
    draw = np.random.default_rng(0).normal
    grads = [[draw(size=(33, 70)).astype("float16"), draw(size=(70, 33)).T] for _ in range(3)]
    for each in grads:
        opt.step(each)
    means = [sum(each[k].astype(float) for each in grads) / 12 for k in range(2)]
    np.testing.assert_allclose(opt.watched["grad_norm"], norms(means), rtol=1e-6)
    np.testing.assert_allclose(opt.watched["update_norm"], norms(means), rtol=1e-5)
    np.testing.assert_allclose(opt.watched["param_norm"], norms(params), rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_for_every_thread_count(threads: int) -> None:
    def run() -> Any:
        params = [np.ones(300_000, np.float32), np.ones((300, 1000), np.float32)]
        opt = instep.Adam(params, watch=ALL)
        draw = np.random.default_rng(0).normal
        opt.step([draw(size=p.shape).astype(np.float32) for p in params])
        return opt.watched, opt.grad_norm

    before = instep.get_num_threads()
    try:
        instep.set_num_threads(1)
        expected = run()
        instep.set_num_threads(threads)
        assert run() == expected
    finally:
        instep.set_num_threads(before)


def seen_bits() -> str:
    """Return what is watched of a few steps, to the last bit."""
    params: list[Any] = [np.ones((33, 70), np.float32), np.ones(70_000), np.ones(7, np.float32)]
    opt = instep.Adam(params, watch=ALL, gradient_accumulation_steps=2)
    draw = np.random.default_rng(0).normal
    for _ in range(4):
        opt.step([draw(size=p.shape).astype(p.dtype) for p in params])
    bits = [float(n).hex() for name in ALL for n in opt.watched[name]]
    return " ".join([*bits, float(opt.grad_norm or 0).hex()])


@pytest.mark.parametrize(
    "setting", [{"INSTEP_ISA": "baseline"}, {"INSTEP_PREFETCH": "0"}, {"INSTEP_PREFETCH": "512"}]
)
def test_the_same_bits_on_every_instruction_set(setting: dict[str, str]) -> None:
    if "INSTEP_ISA" in setting and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("INSTEP_ISA is for x86-64")
    run = subprocess.run(
        [sys.executable, "-c", "import test_watching; print(test_watching.seen_bits())"],
        cwd=Path(__file__).parent,
        env={**os.environ, **setting},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == seen_bits()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_finite_is_counted(dtype: str) -> None:
    params = [np.ones(5000, dtype), np.ones(3, dtype), np.ones(4, dtype)]
    opt = instep.SGD(params, watch=("nonfinite", "grad_norm"), skip_nonfinite=True)
    grads = [np.ones(5000, dtype), np.ones(3, dtype), np.ones(4, dtype)]
    grads[0][[0, 1500, 4999]] = np.inf, np.nan, -np.inf
    grads[2][:] = 1e30 if dtype == "float32" else 1e300  # finite, though not its square
    opt.step(grads)
    assert opt.skipped_steps == 1
    assert opt.watched == {"nonfinite": [3, 0, 0], "grad_norm": [None] * 3}
    opt.step([np.ones_like(grad) for grad in grads])
    opt.step(grads)  # norms stay those of the last update
    assert (opt.skipped_steps, opt.iterations) == (2, 1)
    assert opt.watched["nonfinite"] == [3, 0, 0]
    assert opt.watched["grad_norm"] == [5000**0.5, 3**0.5, 2.0]
    opt.skip_nonfinite = False
    opt.step(grads)
    assert opt.watched["nonfinite"] == [3, 0, 0]
    norms = opt.watched["grad_norm"]
    assert not np.isfinite(norms[0])
    np.testing.assert_allclose(norms[1:], [3**0.5, 2 * float(grads[2][0])], rtol=1e-6)
    assert all(isinstance(count, int) for count in opt.watched["nonfinite"])


def test_arrays_without_a_gradient_and_what_is_asked_for() -> None:
    params = {"a": np.ones(2), "b": np.ones(2)}
    opt = instep.Adam(params, watch=("param_norm", "grad_norm"))
    opt.step({"a": np.ones(2), "b": None})
    assert opt.watched["grad_norm"] == {"a": pytest.approx(2**0.5), "b": None}
    opt.step({"a": None, "b": np.full(2, 3.0)})
    assert opt.watched["grad_norm"] == {"a": pytest.approx(2**0.5), "b": pytest.approx(18**0.5)}
    assert opt.grad_norm == pytest.approx(18**0.5)
    assert opt.watch == ("grad_norm", "param_norm")
    state = opt.state_dict()
    assert "watch" not in state["hyperparameters"]
    opt.watch = ()
    opt.step({"a": None, "b": np.ones(2)})
    assert (opt.watched, opt.grad_norm) == ({}, None)
    opt.load_state_dict(state)
    assert opt.watch == ()
    for bad in ("grad_norm", 3, ["norm"], [3], {"grad_norm": True}):
        with pytest.raises((TypeError, ValueError), match="watch: expected some of 'grad_norm'"):
            opt.watch = bad  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="watched"):
        instep.Adam(watch=("grad_norm",)).watched  # noqa: B018
