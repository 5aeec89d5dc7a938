"""How parameters and their state are kept: in which formats, and with what beside them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core

if TYPE_CHECKING:
    from instep._memory import Array
    from instep._rule import Rule

Kept = dict[str, str]
"""Formats and codings of the engine by what is kept so: slots, and `PARAMETER` itself."""

PARAMETER = "parameter"
ROUNDINGS = ("remainder", "stochastic", "nearest")
COPIES = ("bfloat16", "float16")
STATE_DTYPES = ("float32", "bfloat16", "float8")
OPTIONS = ("rounding", "state_dtype")
"""The hyperparameters that decide on it, which stay what they were when arrays were bound."""

_BITS: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}


def computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what kernels compute in for parameters of a dtype; state is kept in it by default."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def check(rule: type[Rule], slots: list[str], values: Mapping[str, Any]) -> None:
    """Raise ValueError for a `state_dtype` in which a rule can't keep its slots."""
    dtype = values["state_dtype"]
    if dtype not in ("bfloat16", "float8"):
        return
    name = rule.__name__
    if rule._sees_whole_arrays():
        raise ValueError(
            f"state_dtype: expected None or 'float32', got {dtype!r}; {name} works in NumPy, on "
            "state as it is"
        )
    exact = [slot for slot in slots if slot in rule._info()["exact"]]
    if exact:
        raise ValueError(
            f"state_dtype: expected None or 'float32', got {dtype!r}; {name} takes small "
            f"differences of its {exact[0]}, which so few bits don't hold"
        )


def kept(
    rule: type[Rule],
    dtype: np.dtype[Any],
    whole: list[str],
    values: Mapping[str, Any],
) -> Kept:
    """Return how a parameter of a dtype, and those of its slots that have its shape, are kept.

    What is not named is kept in what kernels compute in, parameters in their own dtype.
    """
    found: Kept = {}
    if dtype.itemsize == 2 and values["rounding"] == "remainder":
        found[PARAMETER] = "master" if dtype == np.float16 else "remainder"
    if dtype.itemsize == 2 and values["rounding"] == "stochastic":
        found[PARAMETER] = f"stochastic_{dtype.name}"
    state_dtype = values["state_dtype"]
    for slot in whole:
        if state_dtype == "float32" and computed(dtype) != np.float32:
            found[slot] = "float32"
        if state_dtype == "bfloat16":
            found[slot] = "stochastic_bfloat16"
        if state_dtype == "float8":
            is_positive = slot in rule._info()["positive"]
            found[slot] = "positive_float8" if is_positive else "float8"
    return found


def dtype_of(kept: Kept, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the array in which a slot is kept, for parameters of a dtype."""
    coding = kept.get(name)
    if coding in _core.codings:
        return _BITS[_core.codings[coding]["itemsize"]]
    return computed(dtype) if coding is None else np.dtype(coding)


def beside(
    kept: Kept, shape: tuple[int, ...], slots: Container[str]
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape and dtype of what codings keep beside these slots of a shape, by name.

    And beside the parameter.
    """
    found: dict[str, tuple[tuple[int, ...], Any]] = {}
    size = int(np.prod(shape, dtype=np.int64))
    for name, how in kept.items():
        coding = _core.codings.get(how)
        is_there = name == PARAMETER or name in slots
        if not is_there or not coding or not coding["companion_bytes"]:
            continue
        dtype = np.float32 if coding["companion_bytes"] == 4 else np.uint16
        elements = coding["elements"]
        its_shape = shape if elements == 1 else (-(-size // elements),)
        found[companion(kept, name)] = its_shape, np.dtype(dtype)
    return found


def form_of(name: str, param: Array, kept: Kept) -> tuple[tuple[int, ...], Any]:
    """Return shape and dtype of an array of a slot that has the parameter's shape, or beside it."""
    whole = param.shape, dtype_of(kept, name, param.dtype)
    return beside(kept, param.shape, kept).get(name, whole)


def companion(kept: Kept, name: str) -> str:
    """Return what is called what stands beside an array: beside the parameter, as its coding."""
    return kept[name] if name == PARAMETER else f"{name}_scale"


def is_in_blocks(how: str) -> bool:
    """Return whether a coding is of blocks of elements."""
    return how in _core.codings and _core.codings[how]["elements"] > 1


def slot_of(name: str) -> str:
    """Return the slot that an array of state is, or stands beside."""
    return name.removesuffix("_scale")


def check_same(path: str, names: Iterable[str], before: Kept, now: Kept) -> None:
    """Raise ValueError where arrays would have to be kept in another way than they are."""
    for name in (PARAMETER, *names):
        if before.get(name) != now.get(name):
            option = OPTIONS[0] if name == PARAMETER else OPTIONS[1]
            raise ValueError(
                f"{option}: expected no change once arrays are bound, as it would lose digits; "
                f"{name} of {path} is kept as {before.get(name, 'it is computed')}, not as "
                f"{now.get(name, 'it is computed')}; make another optimizer"
            )


def copy_of(param: Array, path: str, name: str) -> Array:
    """Return an array for the rounded copy of a parameter.

    Raises
    ------
    ValueError
        If the parameter has no more digits itself.
    """
    if param.dtype.itemsize == 2:
        raise ValueError(
            f"copies: expected float32 or float64 parameters, of which there are rounded copies; "
            f"{path} is {param.dtype} itself"
        )
    dtype: np.dtype[Any] = np.dtype(np.float16) if name == "float16" else _BITS[2]
    return _core.zeros(param.shape, dtype, np.empty_like(param, dtype, subok=False).strides, None)


def shown(array: Array, how: str | None) -> Array:
    """Return a view of bfloat16 in that dtype, where ml_dtypes is installed; else the bits."""
    if how not in ("bfloat16", "stochastic_bfloat16"):
        return array
    try:
        import ml_dtypes
    except ImportError:
        return array
    return array.view(ml_dtypes.bfloat16)
