"""The square root without the divider has the bits of the correctly rounded one."""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.typing import NDArray

from instep import _core

Floats = NDArray[np.float32]

# The engine takes whole vectors, whose lanes share the decision to fall back on the instruction.
LANES = 16
SIGNIFICANDS = 1 << 23
LEAST_NORMAL = np.finfo(np.float32).smallest_normal
# The error of an estimate that the function has to cope with.
ESTIMATE_ERROR = 1.5 * 2.0**-12
# Nearer to half-way between two numbers, a root is a hard case.
HARD = 2.0**-40


def from_bits(bits: NDArray[np.integer]) -> Floats:
    return bits.astype(np.uint32).view(np.float32)


def fused(x: Floats, estimates: Floats | None = None) -> Floats:
    roots = _core.fused_square_roots(x, estimates)
    assert roots is not None
    return roots


def correct(x: Floats) -> Floats:
    """Return the roots of the instruction; subnormal numbers are zeros to the engine."""
    flushed = np.where(np.abs(x) < LEAST_NORMAL, np.copysign(np.float32(0), x), x)
    with np.errstate(invalid="ignore"):
        return np.sqrt(flushed)


def wrong(x: Floats, roots: Floats, expected: Floats) -> list[tuple[str, str, str]]:
    """List the first numbers with other bits than expected, with both roots; NaN has no bits."""
    differs = roots.view(np.uint32) != expected.view(np.uint32)
    differs &= ~(np.isnan(roots) & np.isnan(expected))
    return [
        (float(x[i]).hex(), float(roots[i]).hex(), float(expected[i]).hex())
        for i in np.flatnonzero(differs)[:10]
    ]


@pytest.fixture(scope="module", autouse=True)
def _needs_fused_multiply_add() -> None:
    if _core.fused_square_roots(np.ones(LANES, np.float32)) is None:
        pytest.skip("this instruction set has no fused multiply-add")


@pytest.fixture(scope="module")
def hard_cases() -> tuple[Floats, Floats]:
    """Return the hard cases in [1, 4) and their correctly rounded roots, by integer arithmetic.

    With significands k, x is k * 2**(parity - 23). An odd n times 2**-24 is half-way between two
    roots and sqrt(x) above it where k * 2**(25 + parity) is larger than n * n.
    """
    hard, roots = [], []
    k = np.arange(SIGNIFICANDS, 2 * SIGNIFICANDS, dtype=np.int64)
    for parity in 0, 1:
        square = k << (25 + parity)
        n = np.sqrt(square.astype(np.float64)).astype(np.int64) | 1
        above = square - n * n
        # The derivative of the root makes a relative distance half of that of the squares.
        near = np.abs(above) < 2 * HARD * square
        hard.append(np.ldexp(k[near].astype(np.float32), parity - 23))
        significand = (n[near] + np.sign(above[near])) // 2
        roots.append(np.ldexp(significand.astype(np.float32), -23))
    return np.concatenate(hard), np.concatenate(roots)


@pytest.mark.parametrize("exponent", [0, 1])
def test_every_significand(exponent: int) -> None:
    x = np.ldexp(from_bits(np.arange(127 << 23, 128 << 23)), exponent)
    assert not wrong(x, fused(x), np.sqrt(x))


def test_every_binade(hard_cases: tuple[Floats, Floats]) -> None:
    extremes = np.arange(64)
    random = np.random.default_rng(0).integers(SIGNIFICANDS, size=3968)
    hard = hard_cases[0].view(np.uint32).astype(np.int64) % SIGNIFICANDS
    significands = np.concatenate([extremes, SIGNIFICANDS - 1 - extremes, random, hard])
    significands = np.resize(significands, -(-significands.size // LANES) * LANES)
    normal_exponents = np.arange(1, 255)
    x = from_bits((normal_exponents[:, None] << 23 | significands).ravel())
    assert not wrong(x, fused(x), correct(x))


SPECIAL = {
    "zero": 0.0,
    "negative zero": -0.0,
    "least subnormal": 2.0**-149,
    "largest subnormal": 2.0**-126 - 2.0**-149,
    "negative subnormal": -(2.0**-130),
    "least normal": 2.0**-126,
    "largest": (2 - 2.0**-23) * 2.0**127,
    "infinity": np.inf,
    "negative infinity": -np.inf,
    "nan": np.nan,
    "negative": -2.0,
    "least negative": -(2.0**-126),
}


@pytest.mark.parametrize("special", SPECIAL.values(), ids=SPECIAL)
def test_special_numbers(special: float) -> None:
    """Alone in each lane among normal numbers, and in all lanes."""
    x = np.random.default_rng(0).uniform(1, 100, (LANES + 1, LANES)).astype(np.float32)
    np.fill_diagonal(x[:LANES], np.float32(special))
    x[LANES] = special
    flat = x.ravel()
    assert not wrong(flat, fused(flat), correct(flat))


# The least numbers whose root is not left to the instruction, those around 1, and the largest.
@pytest.mark.parametrize("root_exponent", [-50, 0, 63])
def test_any_estimate(hard_cases: tuple[Floats, Floats], root_exponent: int) -> None:
    """Processors differ in their estimates: none may tell, not even in the hard cases."""
    assert len(hard_cases[0]) > 100
    failures = []
    for x, root in zip(*hard_cases, strict=True):
        exact = 1 / np.sqrt(np.float64(x))
        bounds = np.array([1 - ESTIMATE_ERROR, 1 + ESTIMATE_ERROR]) * exact
        first, last = bounds.astype(np.float32).view(np.uint32)
        # In all lanes, so that each estimate decides for itself whether to fall back.
        estimates = np.repeat(from_bits(np.arange(first, last + 1)), LANES)
        estimates = np.ldexp(estimates, -root_exponent)
        same = np.full_like(estimates, np.ldexp(x, 2 * root_exponent))
        expected = np.full_like(estimates, np.ldexp(root, root_exponent))
        failures += wrong(same, fused(same, estimates), expected)
    assert not failures


@pytest.mark.skipif(not os.environ.get("INSTEP_EXHAUSTIVE"), reason="set INSTEP_EXHAUSTIVE=1")
def test_every_number() -> None:
    chunk = 1 << 22
    for start in range(0, 1 << 32, chunk):
        x = from_bits(np.arange(start, start + chunk))
        assert not wrong(x, fused(x), correct(x))
