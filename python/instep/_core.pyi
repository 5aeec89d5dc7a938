from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from instep._rows import Rows
from instep.typing import Array as _Array
from instep.typing import Gradients

class RuleInfo(TypedDict):
    slots: tuple[tuple[str, bool], ...]
    divisible: str | None
    positive: tuple[str, ...]
    exact: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    scalars: tuple[str, ...]
    elementwise: bool

class CodingInfo(TypedDict):
    itemsize: int
    elements: int
    companion_bytes: int

class GroupConfiguration(TypedDict):
    values: dict[str, Any]
    own: dict[str, Any]
    other_options: dict[str, float]
    other_numbers: dict[str, float]

class Asked(TypedDict):
    group: int
    name: str
    schedule: Callable[[int], float]
    limits: tuple[float, float] | None
    check: Callable[[Any], float]

class Configuration(TypedDict):
    groups: list[GroupConfiguration]
    group_of: list[int]
    schedules: list[Asked]
    options: dict[str, Any]
    tied: AbstractSet[str]
    switches: AbstractSet[str]
    global_clock: bool
    every_call: bool
    update: Callable[[Sequence[int], Sequence[float]], list[tuple[_Array, _Array]]] | None

# Hyperparameters by name, what there is in place of options and of the rule's numbers of a name,
# and hyperparameters that something else hangs on.
Told = tuple[dict[str, Any], dict[str, float], dict[str, float], AbstractSet[str]]

class Counters(TypedDict):
    iterations: int
    skipped_steps: int
    calls: int
    window: int
    grad_norm: float | None
    steps: list[int]
    in_window: list[bool]
    begun: list[bool]
    frozen: list[bool]
    rows_in_window: list[list[int] | None]
    swapped: bool

class Manner(TypedDict):
    prefetch: int
    half_of_roots: bool
    seconds_per_byte: float

class Finding(TypedDict):
    precision: str
    streams: int
    least_bytes: int
    small_arrays: bool
    watched: bool
    several_threads: bool
    manners: list[Manner]
    chosen: int

class Tuning(TypedDict):
    prefetch: int | None
    findings: list[Finding]

ASK_SCHEDULE: float
CHOICE_SAMPLES: int
CHOICE_REST: int
MOST_STEPS: int
rules: dict[str, RuleInfo]
element_operations: dict[str, int]
number_operations: dict[str, int]
program_layout: dict[str, int]
formats: tuple[str, ...]
codings: dict[str, CodingInfo]
options: tuple[str, ...]
group_options: tuple[str, ...]

class Formula:
    def __init__(
        self,
        *,
        rule: str,
        slots: tuple[str, ...],
        positive: tuple[str, ...],
        exact: tuple[str, ...],
        hyperparameters: tuple[str, ...],
        scalars: tuple[str, ...],
        literals: tuple[float, ...],
        numbers: tuple[tuple[str | int, ...], ...],
        constants: tuple[tuple[int, str], ...],
        becomes: tuple[int, ...],
        measure: tuple[tuple[str | int, ...], ...],
        update: tuple[tuple[str | int, ...], ...],
        sums: tuple[tuple[int, int, bool], ...],
    ) -> None: ...
    @property
    def info(self) -> RuleInfo: ...

class Tree:
    def __init__(
        self,
        params: object,
        group_type: type,
        ignore: Callable[[str, Any], Any] | None,
        writable: bool,
        /,
    ) -> None: ...
    @property
    def params(self) -> Any: ...
    @property
    def leaves(self) -> list[_Array]: ...
    @property
    def objects(self) -> list[Any]: ...
    @property
    def paths(self) -> list[str]: ...
    @property
    def groups(self) -> list[tuple[Any, ...]]: ...
    def same_structure(self, other: Tree) -> bool: ...
    def unflatten(self, values: list[Any]) -> Any: ...
    def gradients(self, grads: object, lenient: bool, /) -> list[_Array | Rows | None]: ...
    def ids(self, ids: object, /) -> list[list[int] | None]: ...
    def check_unchanged(self) -> None: ...

_Update = Callable[..., list[tuple[_Array, _Array]]]

class Partner(Protocol):
    def agree(self, numbers: bytes, /) -> object: ...
    def bring(
        self, phase: str, reads_gradients: bool, span: int, arrays: list[int], /
    ) -> Sequence[NDArray[np.uint8] | None] | None: ...
    def add_up(self, numbers: _Array, /) -> object: ...
    def guarding(self, update: _Update, /) -> _Update: ...

class Sharing(TypedDict):
    partner: Partner
    is_shared: bool
    wholes: list[tuple[int, int]]
    row_lengths: list[int]
    spans: list[list[tuple[int, int, int]]]

class Bound:
    def __init__(
        self,
        *,
        rule: str | Formula,
        tree: Tree,
        state: list[dict[str, _Array]],
        parts: list[Mapping[str, tuple[int, ...]]],
        kept: list[dict[str, str]],
        averages: list[_Array] | None,
        accumulators: list[_Array] | None,
        rounded: list[_Array] | None,
        copies: list[tuple[_Array, int, bool]],
        counters: Counters | None,
        orders: Sequence[list[int] | None] | None,
        sharing: Sharing | None,
    ) -> None: ...
    @property
    def tree(self) -> Tree: ...
    def orders(self) -> list[list[int]]: ...
    def values(self, param: int) -> _Array: ...
    def refresh(self) -> None: ...
    def check_unchanged(self) -> None: ...
    def is_apart(self, array: _Array) -> bool: ...
    def counters(self) -> Counters: ...
    @property
    def schedule_index(self) -> int: ...
    @property
    def iterations(self) -> int: ...
    @property
    def skipped_steps(self) -> int: ...
    @property
    def grad_norm(self) -> float | None: ...
    @property
    def watched(self) -> list[dict[str, float | None]]: ...

class Hold:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...

class Attribute:
    name: str
    def __init__(self, limits: tuple[float, float] | None, /) -> None: ...

class Stepper:
    @property
    def _values(self) -> dict[str, Any]: ...
    @property
    def _binding(self) -> Any: ...
    def _install(
        self,
        values: dict[str, Any],
        binding: Any,
        copies: Sequence[tuple[_Array, _Array]] = ...,
        counters: Counters | None = ...,
        /,
    ) -> None: ...
    def _bind_and_step(self, values: dict[str, Any], binding: Any, grads: Any, /) -> bool: ...
    def _move(self, params: Any, /) -> bool: ...
    def _settle(self, ids: Any) -> None: ...
    def _behind(self) -> list[int]: ...
    def _refresh(self) -> None: ...
    def _swap_averages(self) -> None: ...
    def _check_not_swapped(self) -> None: ...
    def _step_on(self, params: Any, grads: Any, stay: bool, /) -> bool: ...
    def _step_on_sums(
        self,
        formats: Sequence[str | None],
        divisor: float,
        own: Sequence[Sequence[_Array | None]],
        rows: Sequence[Rows | None],
        /,
    ) -> None: ...
    def flush(self) -> bool: ...
    def _hold(self) -> Hold: ...
    def _assign(self, name: str, value: Any) -> None: ...
    def _check_attribute(self, name: str) -> None: ...
    def step(self, grads: Gradients, *, missing: Literal["error", "none"] = ...) -> None: ...

class Kernel:
    def __new__(
        cls,
        rule: str | Formula,
        arguments: Sequence[tuple[str, tuple[float, float] | None, bool]],
        check: Callable[[tuple[Any, ...], tuple[bool, ...]], Told],
        check_step: Callable[[Any, tuple[Any, ...]], int],
        /,
    ) -> Kernel: ...
    def __call__(self, *arguments: Any) -> None: ...

class Tensors:
    def __new__(
        cls,
        kind: type,
        groups: list[list[Any]],
        parts: list[Any],
        look: Callable[[Any], Any],
        counts: _Array,
        /,
    ) -> Tensors: ...
    def remember(self, state: Any, /) -> None: ...
    def have_changed(self, groups: list[dict[str, Any]], state: Any, /) -> bool: ...
    def gradients(self) -> list[list[Any]]: ...
    def count(self) -> list[int] | None: ...

def update(
    rule: str | Formula,
    param: _Array,
    grad: _Array,
    out: _Array | None,
    state: dict[str, _Array],
    parts: dict[str, tuple[int, ...]],
    step: int,
    told: Told,
) -> None: ...
def kept_beside(param: _Array, in_place: bool, state: dict[str, _Array]) -> dict[str, str]: ...
def zeros(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    strides: tuple[int, ...] | None,
    place: int | None,
) -> _Array: ...
def know_rows(rows: type) -> None: ...
def ask(schedule: Callable[[int], float], index: int) -> float: ...
def alias(array: _Array) -> _Array: ...
def encode(numbers: _Array, coding: str, codes: _Array, beside: _Array | None) -> None: ...
def decode(codes: _Array, coding: str, beside: _Array | None, numbers: _Array) -> None: ...
def window_share(calls: int) -> float: ...
def touch(
    grads: list[_Array], written: list[list[_Array]], repeats: int, prefetch: int = 0
) -> None: ...
def tuning() -> Tuning: ...
def new_choice() -> object: ...
def choose(
    choice: object, ways: int, pieces: int, time_of: Callable[[int], float]
) -> list[int]: ...
def build_info() -> dict[str, Any]: ...
def fused_square_roots(
    x: NDArray[np.float32], estimates: NDArray[np.float32] | None = None
) -> NDArray[np.float32] | None: ...
def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def processor_quota(cgroup: str, mountinfo: str, root: str) -> int | None: ...
def leave_this_processor() -> tuple[int, int]: ...
