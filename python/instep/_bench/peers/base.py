"""What a peer is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import ClassVar

from instep._bench.case import Array, Case


@dataclass(frozen=True)
class Contender:
    """A peer bound to its own parameters and to gradients.

    Attributes
    ----------
    run
        Makes so many steps.
    params
        Returns the parameters as they are; none where they don't follow the rule.
    refill
        Writes the gradients anew, where a step uses them up: before each step, in no one's time.
    """

    run: Callable[[int], object]
    params: Callable[[], Sequence[Array]]
    refill: Callable[[], object] | None = None


class Peer:
    """A way to make a step. Creating one raises where its library is not to be had."""

    title: str
    version: str
    rules: Collection[str]
    """The names of the rules it has."""
    dtypes: Collection[str] = ("float32", "float64")
    temporaries: ClassVar[int] = 0
    """How many arrays of the size of all parameters a step allocates."""

    def has(self, case: Case) -> bool:
        """Tell whether this rule and dtype can be had."""
        return case.rule.name in self.rules and case.dtype in self.dtypes

    def bytes(self, case: Case) -> int:
        """Return about how much memory it needs beside the gradients, including a copy of them."""
        return (case.written + self.temporaries) * case.param_bytes + case.grad_bytes

    def set_num_threads(self, threads: int) -> None:
        """Set how many threads the next steps use; nothing where there is only one."""

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Return a contender whose parameters are ones."""
        raise NotImplementedError


def repeated(step: Callable[..., object], *arguments: object) -> Callable[[int], None]:
    """Return a function that calls `step` as often as it is told."""

    def run(repeats: int) -> None:
        for _ in range(repeats):
            step(*arguments)

    return run


def library(name: str) -> ModuleType:
    """Import a library, whose warnings about itself are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)
