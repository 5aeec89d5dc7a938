from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.floating[Any]]
_Numbers = tuple[
    float | Callable[[int], float],
    float,
    float,
    float | None,
    float | None,
    bool,
    Sequence[float],
]

ASK_SCHEDULE: float
rules: dict[str, tuple[tuple[tuple[str, bool], ...], tuple[str, ...], tuple[str, ...]]]

class Tree:
    def __init__(self, params: object, group_type: type) -> None: ...
    @property
    def leaves(self) -> list[_Array]: ...
    @property
    def paths(self) -> list[str]: ...
    @property
    def groups(self) -> list[tuple[Any, ...]]: ...
    def same_structure(self, other: Tree) -> bool: ...
    def unflatten(self, values: list[Any]) -> Any: ...

class Bound:
    def __init__(
        self,
        rule: str,
        tree: Tree,
        slots: list[list[_Array | None]],
        scalars: list[list[_Array]],
        averages: list[_Array | None],
        accumulators: list[_Array | None],
    ) -> None: ...
    def set_groups(self, groups: list[_Numbers], of_leaves: list[int]) -> None: ...
    def set_options(
        self,
        loss_scale_factor: float,
        global_clipnorm: float | None,
        skip_nonfinite: bool,
        accumulation_steps: int,
        ema_momentum: float,
        ema_overwrite_frequency: int,
        global_clock: bool,
        by_call: bool,
    ) -> None: ...
    def set_copies(self, pairs: list[tuple[_Array, _Array]]) -> None: ...
    def set_directions(
        self, function: Callable[[Sequence[int], Sequence[float]], list[tuple[_Array, _Array]]]
    ) -> None: ...
    def check_idle(self) -> None: ...
    def counters(self) -> tuple[int, int, int, float | None, list[int], list[bool]]: ...
    def set_counters(
        self,
        iterations: int,
        skipped_steps: int,
        window: int,
        grad_norm: float | None,
        steps: list[int],
        in_window: list[bool],
    ) -> None: ...
    @property
    def schedule_index(self) -> int: ...
    @property
    def iterations(self) -> int: ...
    @property
    def skipped_steps(self) -> int: ...
    @property
    def grad_norm(self) -> float | None: ...

class Stepper:
    _binding: Any
    def step(self, grads: Any) -> None: ...

class Kernel:
    def __new__(
        cls,
        rule: str,
        numbers: int,
        check: Callable[[tuple[Any, ...], tuple[bool, ...]], tuple[float, list[float]]],
        check_step: Callable[[Any, tuple[Any, ...]], int],
        /,
    ) -> Kernel: ...
    def __call__(self, *arguments: Any) -> None: ...

def touch(grads: list[_Array], written: list[list[_Array]], repeats: int) -> None: ...
def build_info() -> dict[str, Any]: ...
def fused_square_roots(
    x: NDArray[np.float32], estimates: NDArray[np.float32] | None = None
) -> NDArray[np.float32] | None: ...
def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
