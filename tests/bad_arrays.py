"""Arrays that are refused, each in one way, and the structures that hold them in tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from model import snapshot
from numpy.lib.stride_tricks import as_strided
from operations import SHAPE

import instep

PATH = "params['encoder'][2]"


def a_tree(dtype: npt.DTypeLike = np.float64, fill: float = 1.0) -> dict[str, Any]:
    """Arrays before and after the one at PATH, so that a half-written step would show."""
    return {
        "decoder": np.full(4, fill, dtype),
        "encoder": [np.full(5, fill, dtype), np.full((), fill, dtype), np.full(SHAPE, fill, dtype)],
        "head": (np.full(3, fill, dtype),),
    }


def with_leaf(leaf: object, dtype: npt.DTypeLike = np.float64, fill: float = 1.0) -> dict[str, Any]:
    tree = a_tree(dtype, fill)
    tree["encoder"][2] = leaf
    return tree


def refused(call: Callable[[], object], *patterns: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    for pattern in patterns:
        assert re.search(pattern, str(caught.value), re.IGNORECASE), (pattern, str(caught.value))


def refused_without_a_trace(opt: Any, call: Callable[[], object], *patterns: str) -> None:
    before = snapshot(opt)
    refused(call, *patterns)
    assert snapshot(opt) == before


def plain(params: Any) -> Any:
    return instep.SGD(params, learning_rate=0.5)


def mid_window(params: Any) -> Any:
    opt = instep.Adam(
        params,
        learning_rate=0.5,
        global_clipnorm=1.0,
        skip_nonfinite=True,
        use_ema=True,
        ema_overwrite_frequency=2,
        gradient_accumulation_steps=2,
    )
    for _ in range(3):
        opt.step(a_tree(opt.params["decoder"].dtype))
    return opt


each_optimizer = pytest.mark.parametrize("make", [plain, mid_window])
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def misaligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    size = int(np.prod(shape))
    store = np.zeros(size * np.dtype(dtype).itemsize + 1, np.uint8)
    return store[1:].view(dtype).reshape(shape)


def read_only(a: Any) -> Any:
    a.flags.writeable = False
    return a


BAD_PARAMETERS: dict[str, tuple[Callable[[], object], str]] = {
    "read-only": (lambda: read_only(np.zeros(SHAPE)), "read.?only|writ"),
    "broadcast": (lambda: np.broadcast_to(np.zeros(3), SHAPE), "read.?only|writ"),
    "self-overlapping": (lambda: as_strided(np.zeros(3), SHAPE, (0, 8)), "overlap|memory"),
    "sliding-window": (lambda: as_strided(np.zeros(4), SHAPE, (8, 8)), "overlap|memory"),
    "byte-swapped": (lambda: np.zeros(SHAPE, np.dtype(float).newbyteorder()), "native|byte"),
    "misaligned": (lambda: misaligned(SHAPE, np.float64), "align"),
    "complex": (lambda: np.zeros(SHAPE, complex), "complex128"),
    "int": (lambda: np.zeros(SHAPE, np.int64), "int64"),
    "uint": (lambda: np.zeros(SHAPE, np.uint8), "uint8"),
    "bool": (lambda: np.zeros(SHAPE, bool), "bool"),
    "object": (lambda: np.full(SHAPE, 1.0, object), "object"),
    "int16": (lambda: np.zeros(SHAPE, np.int16), "int16"),
    "longdouble": (lambda: np.zeros(SHAPE, np.longdouble), "float|longdouble"),
    "text": (lambda: np.zeros(SHAPE, "U3"), "str|U3"),
    "time": (lambda: np.zeros(SHAPE, "m8[s]"), "timedelta64|m8"),
    "structured": (lambda: np.zeros(SHAPE, [("x", float)]), "x|void"),
    "masked": (lambda: np.ma.masked_array(np.zeros(SHAPE)), "mask"),
    "none": (lambda: None, "None"),
    "float": (lambda: 1.0, "float"),
    "scalar": (lambda: np.float64(1.0), "float64"),
    "string": (lambda: "weights", "str"),
    "set": (lambda: {1.0}, "set"),
    "generator": (lambda: (x for x in [np.zeros(1)]), "generator"),
    "class": (lambda: np.ndarray, "type"),
}
BAD_GRADIENTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "int": (lambda g: g.astype(np.int64), "int64"),
    "int32": (lambda g: g.astype(np.int32), "int32"),
    "bool": (lambda g: g.astype(bool), "bool"),
    "longdouble": (lambda g: g.astype(np.longdouble), "float|longdouble"),
    "complex": (lambda g: g.astype(complex), "complex128"),
    "object": (lambda g: g.astype(object), "object"),
    "text": (lambda g: g.astype("U3"), "str|U3"),
    "byte-swapped": (lambda g: g.astype(g.dtype.newbyteorder()), "native|byte"),
    "misaligned": (lambda g: misaligned(g.shape, g.dtype), "align"),
    "masked": (np.ma.masked_array, "mask"),
    "list": (lambda g: g.tolist(), "list"),
    "tuple": (lambda g: (g,), "tuple"),
    "dict": (lambda g: {"g": g}, "dict"),
    "float": (lambda g: 1.0, "float"),
    "scalar": (lambda g: np.float64(1.0), "float"),
    "string": (lambda g: "gradient", "str"),
    "transposed": (lambda g: g.T.copy(), r"\(3, 2\)"),
    "one-row": (lambda g: g[:1], r"\(1, 3\)"),
    "one-column": (lambda g: g[:, :1], r"\(2, 1\)"),
    "row": (lambda g: g[0], r"\(3,\)"),
    "flat": (lambda g: g.ravel(), r"\(6,\)"),
    "deeper": (lambda g: g[None], r"\(1, 2, 3\)"),
    "zero-dimensional": (lambda g: np.array(1.0), r"\(\)"),
    "single": (lambda g: np.ones(1), r"\(1,\)"),
    "empty": (lambda g: np.ones((0, 3)), r"\(0, 3\)"),
    "larger": (lambda g: np.ones((2, 4)), r"\(2, 4\)"),
}
