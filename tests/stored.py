"""What is stored in fewer bits, read by NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np


def from_bfloat16(bits: Any) -> Any:
    """Read bfloat16 or its bits: the upper half of float32."""
    return (np.asarray(bits).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def with_remainder(param: Any, remainder: Any) -> Any:
    """Read the float32 number that a bfloat16 parameter and its remainder stand for."""
    upper = param.view(np.uint16).astype(np.uint32) << 16
    whole = upper + remainder.view(np.int16).astype(np.int32).view(np.uint32)
    return np.where(np.isnan(whole.view(np.float32)), upper, whole).view(np.float32)


def from_float8(codes: Any, scale: Any, *, positive: bool) -> Any:
    """Read 8-bit state, of blocks of 256 elements as they lie in memory."""
    half = codes.astype(np.uint16)
    if positive:
        half = half << 7
    else:
        magnitude = half & 0x7F
        half = np.where(magnitude == 0x7F, 0x7E00, magnitude << 7) | (half & 0x80) << 8
    numbers = half.astype(np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return numbers.reshape(-1) * np.repeat(scale, 256)[: codes.size]


def exact(opt: Any, params: list[Any]) -> list[Any]:
    """Return the float32 numbers that 16-bit parameters stand for."""
    return [
        with_remainder(p, state["remainder"]) if "remainder" in state else state["master"]
        for p, state in zip(params, opt.state, strict=True)
    ]
