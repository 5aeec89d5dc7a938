"""Steps whose results are compared bit by bit between threads, instruction sets and layouts.

Run as a script, this prints the hashes of all results as JSON, or of those that threads share.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from references import REFERENCES, Configuration

import instep

Floats: TypeAlias = NDArray[np.floating[Any]]
Shape: TypeAlias = tuple[int, int]
Layout: TypeAlias = Callable[[Shape, str], Floats]
Results: TypeAlias = dict[str, dict[str, dict[str, str]]]

STEPS = 4
TILE = 1024
BLOCK = 16384
TAILS = [*range(131), *(TILE + i for i in (-1, 0, 1)), *(BLOCK + i for i in (-1, 0, 1))]
SIZES = [*TAILS, 2 * BLOCK - 1, 2 * BLOCK + 1, 100_003, 200_000]
# Elements that make a step worth several threads.
SHARED = 10 * BLOCK


def contiguous(shape: Shape, dtype: str) -> Floats:
    """Allocate as NumPy does by default."""
    return np.empty(shape, dtype)


def offset(shape: Shape, dtype: str) -> Floats:
    """Allocate one element behind where NumPy's memory starts."""
    return np.empty(shape[0] * shape[1] + 1, dtype)[1:].reshape(shape)


def strided(shape: Shape, dtype: str) -> Floats:
    """Allocate with a gap behind each element."""
    return np.empty((shape[0], 2 * shape[1]), dtype)[:, ::2]


def reversed_axes(shape: Shape, dtype: str) -> Floats:
    """Allocate with negative strides."""
    return np.empty(shape, dtype)[::-1, ::-1]


def fortran(shape: Shape, dtype: str) -> Floats:
    """Allocate column by column."""
    return np.empty(shape, dtype, order="F")


# The layouts of the parameters and of the gradients.
LAYOUTS: Mapping[str, tuple[Layout, Layout]] = {
    "contiguous": (contiguous, contiguous),
    "offset": (offset, offset),
    "offset gradients": (contiguous, offset),
    "strided": (strided, strided),
    "strided gradients": (contiguous, strided),
    "reversed": (reversed_axes, reversed_axes),
    "fortran": (fortran, fortran),
    "fortran gradients": (contiguous, fortran),
}
# Norms depend on the order of the elements in memory.
NORMS = {"clipnorm", "global_clipnorm"}
ALIGNMENTS = ["contiguous", "offset"]
# Some rules have numbers that all arrays share.
JOINT_RULES = {"ClipUp", "Prodigy"}

OPTIONS: Sequence[Configuration] = [
    {
        "l2": 0.01,
        "maximize": True,
        "clipvalue": 0.5,
        "use_ema": True,
        "ema_momentum": 0.9,
        "ema_overwrite_frequency": 3,
    },
    {"weight_decay": 0.1, "loss_scale_factor": 3.0, "clipnorm": 0.5, "skip_nonfinite": True},
    {"l2": 0.01, "global_clipnorm": 0.5, "gradient_accumulation_steps": 2},
]


@cache
def numbers(size: int, seed: int) -> Floats:
    """Draw numbers in a shape as near to a square as the size allows."""
    rows = max((n for n in range(1, isqrt(size) + 1) if size % n == 0), default=1)
    return np.random.default_rng([seed, size]).standard_normal((rows, size // rows))


def place(size: int, seed: int, layout: Layout, dtype: str) -> Floats:
    """Write the numbers of a size and a seed into a layout."""
    values = numbers(size, seed)
    array = layout((values.shape[0], values.shape[1]), dtype)
    array[...] = values
    return array


@cache
def gradient(size: int, step: int, layout: Layout, dtype: str) -> Floats:
    """Return the gradient of a step."""
    array = place(size, step, layout, dtype)
    array.flags.writeable = False
    return array


@dataclass(frozen=True)
class Case:
    """A rule, the keywords of its class, and the types of parameters and gradients."""

    rule: str
    configuration: Configuration
    dtypes: tuple[str, str]

    @property
    def thorough(self) -> bool:
        """Whether it has all sizes and layouts: one configuration of each rule, and all of some.

        What configurations share, all else but the formula, need not be tested with each.
        """
        if self.rule == "Muon":  # products of large matrices take their time
            return False
        return self.rule in ("SGD", "Adam") or self.configuration == {}

    @property
    def layouts(self) -> Iterable[str]:
        """The layouts that must give the same bits."""
        by_element = REFERENCES[self.rule].elementwise and not NORMS & self.configuration.keys()
        return LAYOUTS if by_element and self.thorough else ALIGNMENTS

    def sizes(self, layout: str) -> list[int]:
        """Return the sizes of the arrays: all for one layout, or where they bear on each other.

        Kernels see contiguous tiles of all layouts, so that two rules' ends and large arrays, which
        threads share, stand for all others' but in NumPy's own layout.
        """
        joint = "global_clipnorm" in self.configuration or self.rule in JOINT_RULES
        simple = self.rule in ("SGD", "Adam")
        if self.rule == "Muon" and self.configuration:
            sizes = TAILS
        elif layout == "contiguous" or joint or (simple and self.configuration == {}):
            sizes = SIZES
        else:
            sizes = TAILS if layout in ALIGNMENTS or simple else TAILS[1::3]
        return sizes if self.thorough else sizes[5::11]

    def is_shared(self, layout: str) -> bool:
        """Whether the arrays are large enough to be shared among threads."""
        return sum(self.sizes(layout)) >= SHARED

    def train(self, layout: str) -> dict[str, str]:
        """Take some steps with an array of each size; hash what each and its state became.

        The hash is over the elements in their logical order.
        """
        param_layout, grad_layout = LAYOUTS[layout]
        param_dtype, grad_dtype = self.dtypes
        sizes = self.sizes(layout)
        params = [place(size, 0, param_layout, param_dtype) for size in sizes]
        optimizer = getattr(instep, self.rule)(params, **self.configuration)
        for step in range(1, STEPS + 1):
            optimizer.step([gradient(size, step, grad_layout, grad_dtype) for size in sizes])
        averages = optimizer.averages if "use_ema" in self.configuration else [()] * len(sizes)
        hashes = {}
        for size, param, state, average in zip(
            sizes, params, optimizer.state, averages, strict=True
        ):
            slots = [value for slot, value in state.items() if slot != "step"]
            content = b"".join(array.tobytes() for array in [param, *slots, *average])
            hashes[str(size)] = hashlib.sha256(content).hexdigest()
        return hashes


CASES = [
    *(
        Case(rule, configuration, (dtype, dtype))
        for rule, reference in REFERENCES.items()
        for configuration in [*reference.configurations, *OPTIONS]
        for dtype in ("float32", "float64")
    ),
    *(
        Case(rule, {}, dtypes)
        for rule in REFERENCES
        for dtypes in [("float32", "float64"), ("float64", "float32")]
    ),
]


def results(*, shared: bool = False) -> Results:
    """Return the hashes of every case by layout and size, or of those alone that threads share."""
    return {
        str(case): {
            layout: case.train(layout)
            for layout in case.layouts
            if case.is_shared(layout) or not shared
        }
        for case in CASES
    }


if __name__ == "__main__":
    print(json.dumps(results(shared="shared" in sys.argv)))
