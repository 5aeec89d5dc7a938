"""What every framework is asked to optimize: given gradients, on arrays of several shapes.

Gradients do not depend on the parameters, so that an error stays what it is instead of growing
with the path that it leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Gradients: TypeAlias = Sequence[Sequence["Array | None"]]
"""For each call one gradient per array; None where an array has none."""
Path: TypeAlias = Sequence[Sequence[Array]]
"""For each call the parameters after it."""

STEPS = 60
KEPT = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 45, 60)
"""The steps whose parameters are stored, counted from 1."""

SHAPES: Mapping[str, Sequence[tuple[int, ...]]] = {
    "vectors": [(), (7,), (3, 4), (2, 3, 2)],
    "missing": [(), (7,), (3, 4), (2, 3, 2)],
    "matrices": [(6,), (4, 3), (3, 5), (4, 4), (2, 3, 4)],
    "rectangles": [(4, 3), (3, 5), (4, 4), (2, 7)],
}


@dataclass(frozen=True)
class Case:
    """One optimizer of one framework, and the same one in instep.

    Attributes
    ----------
    rule
        The class in instep.
    convention
        The framework.
    keywords
        The arguments of the class, without the convention: numbers, strings, booleans and lists of
        them, and for a schedule ``{"schedule": class name in instep.schedules, **its arguments}``.
    dtype
        Of parameters and gradients.
    problem
        A key of `SHAPES`.
    make
        What the framework's module needs to make its own optimizer; not stored.
    """

    rule: str
    convention: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    problem: str = "vectors"
    make: Callable[..., Any] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What the case is stored under."""
        words = [f"{key}={value}" for key, value in self.keywords.items()]
        return " ".join([self.rule, *words, self.problem, self.dtype])


def start(problem: str, dtype: str) -> list[Array]:
    """Return the parameters before the first step, some elements zero."""
    rng = np.random.RandomState(7)  # its streams are frozen for good
    params = [rng.standard_normal(shape) for shape in SHAPES[problem]]
    return [np.where(rng.random_sample(p.shape) < 0.2, 0.0, p).astype(dtype) for p in params]


def gradients(problem: str, dtype: str) -> Gradients:
    """Return the gradients of all calls: normal, zero, tiny (1e-12) and large (1e4) elements.

    An element mostly keeps its scale; now and then it is zero. In "missing" some arrays have no
    gradient in some of the calls.
    """
    rng = np.random.RandomState(11)
    shapes = SHAPES[problem]
    scales = [rng.choice([0.0, 1e-12, 1e-3, 1.0, 1.0, 1.0, 1e4], shape) for shape in shapes]
    drift = [rng.standard_normal(shape) for shape in shapes]
    calls: list[list[Array | None]] = []
    for call in range(STEPS):
        grads: list[Array | None] = []
        for k, shape in enumerate(shapes):
            noise = drift[k] + rng.standard_normal(shape)
            grad = np.where(rng.random_sample(shape) < 0.1, 0.0, scales[k] * noise)
            none = problem == "missing" and (call + k) % 5 < k
            grads.append(None if none else grad.astype(dtype))
        calls.append(grads)
    return calls
