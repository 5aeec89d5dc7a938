"""Optimizer state from and to bitsandbytes' 8-bit optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep.interop._common import array_of, check_optimizer, listed, shown
from instep.interop._torch import entries_of_groups, from_torch, to_torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep._optimizer import Optimizer

_STATE = "__bnb_optimizer_quant_state__"
_SLOTS = {"1": "exp_avg", "2": "exp_avg_sq"}
_NUMBERS = ("lr", "betas", "eps", "weight_decay")


def from_bitsandbytes(
    optimizer: Optimizer,
    state_dict: Mapping[str, Any],
    *,
    order: Sequence[NDArray[Any]] | None = None,
) -> None:
    """Take over the state and the hyperparameters of an 8-bit Adam of bitsandbytes.

    Parameters
    ----------
    optimizer
        `AdamW`, bound, with ``convention="torch"``; `Adam` where nothing decays. With
        ``state_dtype="float8"`` it keeps as few bits, of its own format.
    state_dict
        What `state_dict()` of a bitsandbytes ``AdamW8bit`` or ``Adam8bit`` returns (seen in
        0.50.2). Its tensors, on the CPU, may be ndarrays instead.
    order
        As for `from_torch`.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        As for `from_torch`. Nothing has changed then.

    Notes
    -----
    A code stands for an entry of the table beside it, times the largest magnitude of its block of
    256 elements in C order; arrays of less than 4,096 elements are float32. What bitsandbytes calls
    ``weight_decay`` is decoupled from the gradient, also in its ``Adam8bit``.
    """
    check_optimizer(optimizer)
    _check(state_dict, "state_dict")
    state = {}
    for index, entry in state_dict["state"].items():
        what = f"state_dict['state'][{index!r}]"
        slots = {_SLOTS[k]: _numbers(entry, k, what) for k in _SLOTS}
        state[index] = {"step": np.array(float(entry["step"]), np.float32), **slots}
    groups = []
    for j, (theirs, own) in enumerate(
        zip(state_dict["param_groups"], entries_of_groups(optimizer, order), strict=False)
    ):
        if type(optimizer).__name__ != "AdamW" and theirs["weight_decay"]:
            raise ValueError(
                f"optimizer: expected AdamW for the weight_decay={theirs['weight_decay']!r} of "
                f"group {j}, which bitsandbytes decouples from the gradient; got {optimizer!r}"
            )
        numbers = {name: theirs[name] for name in _NUMBERS}
        groups.append({**own, **numbers, "params": theirs["params"]})
    groups += state_dict["param_groups"][len(groups) :]
    from_torch(optimizer, {"state": state, "param_groups": groups}, order=order)


def to_bitsandbytes(
    optimizer: Optimizer,
    like: Mapping[str, Any],
    *,
    order: Sequence[NDArray[Any]] | None = None,
) -> dict[str, Any]:
    """Return the state and the hyperparameters as the `state_dict` of an 8-bit Adam.

    Parameters
    ----------
    optimizer, order
        As for `from_bitsandbytes`.
    like
        What `state_dict()` of the bitsandbytes optimizer returns that is to take it; it has made a
        step, so that its tables are there.

    Returns
    -------
    dict
        What its `load_state_dict` takes, once ``torch.as_tensor`` has made tensors of the ndarrays
        in the state. Each element is the nearest one that its table has.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        As for `to_torch`, or if `like` is of other parameters, or has made no step.
    """
    d = to_torch(optimizer, order=order)
    _check(like, "like")
    if like["state"].keys() != d["state"].keys():
        raise ValueError(
            f"like['state']: expected the state of {len(d['state'])} parameters, as an optimizer "
            f"has that has stepped; got {listed(like['state'])}"
        )
    state = {}
    for index, entry in like["state"].items():
        what, kept = f"like['state'][{index!r}]", dict(entry[_STATE])
        for k, name in _SLOTS.items():
            numbers = d["state"][index][name]
            kept.update(_codes(numbers, kept, k, f"{what}[{_STATE!r}]"))
        state[index] = {**entry, "step": int(d["state"][index]["step"]), _STATE: kept}
    groups = [
        {**theirs, **{name: own[name] for name in _NUMBERS}}
        for theirs, own in zip(like["param_groups"], d["param_groups"], strict=True)
    ]
    return {**like, "state": state, "param_groups": groups}


def _check(state_dict: Any, what: str) -> None:
    """Raise for what is not the state of an 8-bit Adam."""
    is_whole = isinstance(state_dict, Mapping) and {"state", "param_groups"} <= state_dict.keys()
    if not is_whole:
        raise TypeError(
            f"{what}: expected a dict of 'state' and 'param_groups', as state_dict() of a "
            f"bitsandbytes optimizer returns it; got {shown(state_dict)}"
        )
    for j, group in enumerate(state_dict["param_groups"]):
        if not {*_NUMBERS} <= group.keys() or group.get("alpha") or len(group["betas"]) != 2:
            raise ValueError(
                f"{what}['param_groups'][{j}]: expected that of an Adam, got {group!r}"
            )
    for index, entry in state_dict["state"].items():
        if not isinstance(entry, Mapping) or "step" not in entry or not entry.get(_STATE):
            raise ValueError(
                f"{what}['state'][{index!r}]: expected 'step' and {_STATE!r}, got {shown(entry)}"
            )
        missing = {"state1", "state2"} - entry[_STATE].keys()
        if missing:
            raise ValueError(f"{what}['state'][{index!r}]: expected {listed(missing)}, too")


def _numbers(entry: Mapping[str, Any], k: str, what: str) -> NDArray[Any]:
    """Return the numbers of a state, 1 or 2."""
    kept = entry[_STATE]
    codes = array_of(kept[f"state{k}"], f"{what}[{_STATE!r}]['state{k}']")
    if f"qmap{k}" not in kept:
        return codes
    table, largest = (array_of(kept[f"{name}{k}"], what) for name in ("qmap", "absmax"))
    if codes.dtype != np.uint8 or table.shape != (256,) or largest.shape != (_blocks(codes),):
        raise ValueError(f"{what}: expected codes of 8 bits in blocks of 256 elements")
    scale = np.repeat(largest.astype(np.float32), 256)[: codes.size].reshape(codes.shape)
    numbers: NDArray[Any] = table[codes].astype(np.float32) * scale
    return numbers


def _codes(numbers: NDArray[Any], kept: Mapping[str, Any], k: str, what: str) -> dict[str, Any]:
    """Return numbers as the state 1 or 2 is kept."""
    there = array_of(kept[f"state{k}"], what)
    if there.shape != numbers.shape:
        raise ValueError(f"{what}: expected shape {numbers.shape}, got {there.shape}")
    if f"qmap{k}" not in kept:
        return {f"state{k}": numbers.astype(np.float32)}
    table = array_of(kept[f"qmap{k}"], what).astype(np.float64)
    flat = np.zeros((_blocks(numbers), 256))
    flat.reshape(-1)[: numbers.size] = numbers.reshape(-1)
    largest = np.abs(flat).max(1)
    shares = flat / np.where(largest, largest, 1)[:, None]
    codes = np.searchsorted((table[1:] + table[:-1]) / 2, shares).astype(np.uint8)
    return {
        f"state{k}": codes.reshape(-1)[: numbers.size].reshape(numbers.shape),
        f"absmax{k}": largest.astype(np.float32),
    }


def _blocks(array: NDArray[Any]) -> int:
    return -(-array.size // 256)
