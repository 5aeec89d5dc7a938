"""State in 8 bits: blocks of 256 elements with a power of two each."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import REFERENCES
from stored import from_float8
from test_sixteen_bits import EXACT

import instep
from instep import _core


def encoded(numbers: Any, coding: str) -> tuple[Any, Any]:
    codes = np.zeros(numbers.size, np.uint8)
    scale = np.zeros(-(-numbers.size // 256), np.float32)
    _core.encode(numbers, coding, codes, scale)
    return codes, scale


def decoded(codes: Any, scale: Any, coding: str) -> Any:
    numbers = np.zeros(codes.size, np.float32)
    _core.decode(codes, coding, scale, numbers)
    return numbers


@pytest.mark.parametrize("coding", ["float8", "positive_float8"])
def test_every_code(coding: str) -> None:
    """NumPy alone reads what is stored; and what was read is stored as the same code."""
    codes = np.arange(256, dtype=np.uint8)
    for exponent in (-100, -3, 0, 60):
        scale = np.array([2.0**exponent], np.float32)
        found = decoded(codes, scale, coding)
        expected = from_float8(codes, scale, positive=coding != "float8")
        assert np.array_equal(found, expected, equal_nan=True)
        # Other numbers are larger than those that the scale is for.
        largest = 0x77 if coding == "float8" else 0xEF
        usual = (codes & (0x7F if coding == "float8" else 0xFF)) <= largest
        again, its_scale = encoded(np.ascontiguousarray(found[usual]), coding)
        assert its_scale == scale
        assert np.array_equal(decoded(again, its_scale, coding), found[usual])


@given(
    st.integers(0, 700),
    st.sampled_from(["float8", "positive_float8"]),
    st.floats(-30, 30),
    st.floats(0, 12),
    st.integers(0, 2**32 - 1),
)
def test_numbers_are_near(
    count: int, coding: str, magnitude: float, spread: float, seed: int
) -> None:
    """Within an eighth, or a small part of the largest one of their block; zero where they are."""
    rng = np.random.default_rng(seed)
    numbers = (
        rng.standard_normal(count) * 10.0 ** (magnitude + rng.uniform(-spread, 0, count))
    ).astype("f4")
    if coding == "positive_float8":
        numbers = np.abs(numbers)
    numbers[rng.random(count) < 0.1] = 0
    codes, scale = encoded(numbers, coding)
    found = decoded(codes, scale, coding)
    for start in range(0, count, 256):
        block, read = numbers[start : start + 256], found[start : start + 256]
        largest = np.abs(block).max()
        least = largest * 2.0 ** (-16 if coding == "float8" else -31)
        least = max(least, 4 * np.finfo(np.float32).tiny)  # subnormal numbers are zero
        assert (np.abs(read - block) <= np.maximum(np.abs(block) / 8, least)).all()
        assert (read[block == 0] == 0).all()
        if coding == "positive_float8":
            assert (read[block >= np.finfo(np.float32).tiny] > 0).all()
        frexp = np.frexp(scale)[0]
        assert (frexp == 0.5).all()


@pytest.mark.parametrize("coding", ["float8", "positive_float8"])
def test_what_is_no_number_stays_in_its_element(coding: str) -> None:
    numbers = np.full(600, 3.0, np.float32)
    numbers[7], numbers[300] = np.nan, np.inf
    found = decoded(*encoded(numbers, coding), coding)
    others = np.delete(found, [7, 300])
    assert ((others >= 2.75) & (others <= 3.25)).all()
    assert np.isnan(found[7])
    assert found[300] == np.inf if coding == "positive_float8" else np.isnan(found[300])


@pytest.mark.parametrize("rule", sorted(REFERENCES.keys() - EXACT))
def test_every_rule(rule: str) -> None:
    """A step of its own size at every size of array, on any layout."""
    rng = np.random.default_rng(0)
    for size in [0, 1, 2, 255, 256, 257, 511, 1000]:
        makes: list[Any] = [np.array, lambda a: np.repeat(a, 2)[::2]]
        for make in makes:
            start = rng.standard_normal(size).astype(np.float32)
            param, twin = make(start), start.copy()
            opt = getattr(instep, rule)(param, state_dtype="float8")
            other = getattr(instep, rule)(twin)
            for _ in range(5):
                grad = rng.standard_normal(size).astype(np.float32)
                opt.step(grad)
                other.step(grad)
            ours, theirs = param - start, twin - start
            assert np.isfinite(ours).all()
            if size < 200:  # a few roundings say nothing
                continue
            assert np.linalg.norm(ours - theirs) <= 0.3 * np.linalg.norm(theirs) + 1e-6, size
            assert np.abs(ours).max(initial=0) <= 1.6 * np.abs(theirs).max(initial=0) + 1e-6, size


def test_steps_are_never_out_of_proportion() -> None:
    """Gradients of 1e-7 beside such of 1e3 in one block: nothing moves farther than Adam does."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.choice([-7, -3, 0, 3], 5000)
    param = np.zeros(5000, np.float32)
    opt = instep.Adam(param, learning_rate=1.0, state_dtype="float8", epsilon=0.0)
    twin = np.zeros(5000, np.float32)
    other = instep.Adam(twin, learning_rate=1.0, epsilon=0.0)
    longest = 0.0
    for _ in range(300):
        before, before_twin = param.copy(), twin.copy()
        grad = (rng.standard_normal(5000) * scale).astype(np.float32)
        opt.step(grad)
        other.step(grad)
        longest = max(
            longest, float(np.abs(param - before).max() / np.abs(twin - before_twin).max())
        )
    assert np.isfinite(param).all()
    assert longest < 2
    large = scale == 1e3
    assert np.corrcoef(param[large], twin[large])[0, 1] > 0.95


def test_a_checkpoint_for_another_layout(tmp_path: Path) -> None:
    """Blocks are of elements as they lie in memory; loaded elsewhere they stay what they are."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((60, 70)).astype(np.float32)
    for first, second in (("C", "F"), ("F", "C")):
        opt = instep.Adam(np.array(start, order=first), state_dtype="float8")  # type: ignore[call-overload]
        grads = [rng.standard_normal(start.shape).astype(np.float32) for _ in range(6)]
        for grad in grads[:3]:
            opt.step(grad)
        opt.save(tmp_path / "state.npz")
        other = instep.Adam(np.array(start, order=second), state_dtype="float8")  # type: ignore[call-overload]
        other.load(tmp_path / "state.npz")
        for grad in grads[3:]:
            opt.step(grad)
            other.step(grad)
        assert np.array_equal(opt.params, other.params)
        for name in ("m", "v", "m_scale", "v_scale"):
            assert np.array_equal(opt.state[name], other.state[name])


def test_what_float32_has_no_number_for_is_no_zero() -> None:
    """Squares of float64 gradients may be less than float32's least number."""
    param = np.zeros(2)
    opt = instep.Adam(param, learning_rate=1.0, epsilon=1e-40, state_dtype="float8")
    for _ in range(3):
        opt.step(np.full(2, 1e-25))
    assert (opt.state["v"] > 0).all()
    assert (np.abs(param) <= 3).all()


def test_positive_numbers_of_all_sizes_in_one_block() -> None:
    """However far they are from the largest one, none becomes zero."""
    numbers = np.array([2.0**k for k in range(-126, 128)], np.float32)
    codes, scale = encoded(numbers, "positive_float8")
    assert (codes > 0).all()
    assert (decoded(codes, scale, "positive_float8") > 0).all()


def test_damaged_state_is_refused() -> None:
    opt = instep.Adam(np.ones(300, np.float32), state_dtype="float8")
    opt.step(np.ones(300, np.float32))
    damages: list[tuple[str, Any]] = [
        ("order", np.array(0)),
        ("order", np.array([3])),
        ("order", [0]),
        ("kept", np.ones(2)),
        ("kept", {"m": np.ones(3)}),
        ("m_scale", np.array([np.nan, 1], np.float32)),
        ("v_scale", np.array([-1, 1], np.float32)),
        ("v_scale", np.array([3, 1], np.float32)),
        ("v_scale", np.ones(3, np.float32)),
        ("m", np.ones(300, np.int8)),
    ]
    for name, value in damages:
        saved = opt.state_dict()
        saved["arrays"]["params"][name] = value
        with pytest.raises((TypeError, ValueError), match=r"state\['arrays'\]\['params'\]"):
            opt.load_state_dict(saved)


@pytest.mark.parametrize("first", "CF")
def test_arrays_of_another_layout_go_on(first: str) -> None:
    """Blocks stay those of the elements that they were made of."""
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-3, 3, (60, 1))
    start = (rng.standard_normal((60, 70)) * size).astype("f4")
    grads = [(rng.standard_normal((60, 70)) * size).astype("f4") for _ in range(6)]
    results = []
    for second in "CF":
        param = np.array(start, order=first)  # type: ignore[call-overload]
        opt = instep.Adam(param, learning_rate=0.01, state_dtype="float8")
        for grad in grads[:3]:
            opt.step(grad)
        opt.build(np.array(opt.params, order=second))  # type: ignore[call-overload]
        for grad in grads[3:]:
            opt.step(grad)
        results.append(opt.params)
    assert np.array_equal(*results)


def test_bytes_of_state() -> None:
    opt = instep.Adam(np.zeros(2**16, np.float32), state_dtype="float8")
    size = sum(slot.nbytes for name, slot in opt.state.items() if name != "step")
    assert size / 2**16 < 2.04


def test_a_first_value() -> None:
    """Accumulators that start at a number start near it."""
    opt: Any = instep.Adagrad(
        np.zeros(700, np.float32), initial_accumulator_value=0.1, state_dtype="float8"
    )
    opt.step(np.zeros(700, np.float32))
    found = from_float8(opt.state["accumulator"], opt.state["accumulator_scale"], positive=True)
    assert np.abs(found - 0.1).max() < 0.013
    assert abs(found.mean() - 0.1) < 0.002


def test_copies_of_one_that_has_not_stepped() -> None:
    opt = instep.Adam(np.zeros((10, 256), "f4"), state_dtype="float8")
    again = pickle.loads(pickle.dumps(opt))
    again.load_state_dict(opt.state_dict())
    again.step(np.ones((10, 256), "f4"))
    assert np.isfinite(again.params).all()
