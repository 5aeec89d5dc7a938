"""What all of them need: checks of what is given, and numbers and arrays of other frameworks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from instep import _core
from instep._foreign import bits_of_bfloat16
from instep._formats import PARAMETER, beside, companion, computed, dtype_of
from instep._optimizer import Optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep._binding import Binding
    from instep._rule import Values

T = TypeVar("T")


def check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected an optimizer of instep, got {type(optimizer).__name__}"
        )


def entry_of(optimizer: Optimizer, convention: str, table: Mapping[str, T]) -> T:
    """Return the entry of a framework's table for an optimizer."""
    check_optimizer(optimizer)
    if optimizer.convention != convention:
        raise ValueError(
            f"optimizer: expected one with convention={convention!r}, got {optimizer!r}"
        )
    if convention != "torch":
        check_kept(optimizer)
    for cls in type(optimizer).__mro__:
        if cls.__name__ in table:
            return table[cls.__name__]
    raise ValueError(f"optimizer: expected one of {listed(table)}; got {optimizer!r}")


def check_kept(optimizer: Optimizer) -> None:
    """Raise ValueError for state in few bits, and for what stands beside 16-bit parameters."""
    check_no_remainder(optimizer)
    binding = optimizer._binding
    for path, kept in zip(binding.tree.paths, binding.kept, strict=True) if binding else ():
        for name, how in kept.items():
            if name != PARAMETER and how in _core.codings:
                raise ValueError(
                    f"optimizer: expected state in float32 or float64; {name} of {path} is kept as "
                    f"{how}; use one without state_dtype"
                )


def check_no_remainder(optimizer: Optimizer) -> None:
    """Raise ValueError for what stands beside 16-bit parameters."""
    binding = optimizer._binding
    for path, kept in zip(binding.tree.paths, binding.kept, strict=True) if binding else ():
        if kept.get(PARAMETER) in ("remainder", "master"):
            raise ValueError(
                f"optimizer: expected parameters that are whole, as other frameworks have no place "
                f"for the {kept[PARAMETER]} of {path}; use one with rounding='stochastic' or "
                "'nearest', or float32 parameters with copies="
            )


def decoded(binding: Binding, leaf: int, entry: Values) -> Values:
    """Return an array's state with its slots as they are computed with."""
    result, kept = dict(entry), binding.kept[leaf]
    dtype = computed(binding.tree.leaves[leaf].dtype)
    for name in kept.keys() & entry.keys():
        beside = result.pop(companion(kept, name), None)
        if kept[name] in _core.codings:
            codes, restore = _in_order(binding, leaf, entry[name])
            numbers = np.empty(codes.size, np.float32)
            _core.decode(codes, kept[name], beside, numbers)
            result[name] = restore(numbers)
        result[name] = result[name].astype(dtype)
    return result


def encoded(binding: Binding, leaf: int, slots: Values) -> Values:
    """Return slots, given as they are computed with, as the optimizer keeps them."""
    result, kept = dict(slots), binding.kept[leaf]
    param = binding.tree.leaves[leaf]
    stands_beside = beside(kept, param.shape, kept)
    for name in kept.keys() & slots.keys():
        dtype = dtype_of(kept, name, param.dtype)
        if kept[name] not in _core.codings:
            result[name] = slots[name].astype(dtype)
            continue
        numbers, restore = _in_order(binding, leaf, slots[name].astype(np.float32))
        codes, scale = np.empty(numbers.size, dtype), None
        if (its := companion(kept, name)) in stands_beside:
            scale = result[its] = np.empty(*stands_beside[its])
        _core.encode(numbers, kept[name], codes, scale)
        result[name] = restore(codes)
    return result


def _in_order(binding: Binding, leaf: int, array: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return elements in the order in which they are visited, and what puts such in place."""
    order = binding.core.orders()[leaf]
    axes = [*order, *(axis for axis in range(array.ndim) if axis not in order)]
    in_order = array.transpose(axes)

    def restore(elements: Any) -> Any:
        return elements.reshape(in_order.shape).transpose(np.argsort(axes))

    return np.ascontiguousarray(in_order).reshape(-1), restore


def check_own(optimizer: Optimizer, known: Collection[str], there: str) -> None:
    """Raise ValueError for hyperparameters of the rule that change it and that it lacks there."""
    variant = optimizer._variant
    for group in optimizer.groups:
        for name, value in group.items():
            if callable(value) and name != "learning_rate":
                raise ValueError(f"{name}: expected a number, for {there} takes no schedule of it")
        if group["independent_weight_decay"]:
            raise ValueError(
                "independent_weight_decay: expected False, for in "
                f"{there} weight decay is times the learning rate"
            )
    if optimizer.first_step != 1:
        raise ValueError(
            f"first_step: expected 1, where {there} counts from; got {optimizer.first_step}"
        )
    for group in optimizer.groups:
        for name in variant.rule._own():
            if name not in known and group[name] != variant.default(name):
                raise ValueError(
                    f"{name}: expected {variant.default(name)!r}, for {there} has no such "
                    f"hyperparameter; got {group[name]!r}"
                )


def check_no_groups(
    optimizer: Optimizer,
    binding: Binding,
    there: str,
    but: Container[tuple[str, Any]] = (),
) -> None:
    """Raise ValueError for a hyperparameter that some arrays have of their own, with exceptions."""
    for path, group in zip(binding.tree.paths, binding.group_of, strict=True):
        for name, own in binding.overrides[group].items():
            common = optimizer._values[name]
            if own != common and (name, own) not in but:
                raise ValueError(
                    f"{path}: expected {name}={common!r} as for all arrays, since {there} has no "
                    f"groups; got {own!r}"
                )


def check_no_window(d: Values, there: str) -> None:
    """Raise ValueError for gradients that wait for their update."""
    if d["window"]:
        raise ValueError(
            f"optimizer: expected no gradients that wait for their update, for which {there} has "
            f"no place; got {d['window']} calls of a window"
        )


def check_last_update(optimizer: Optimizer, binding: Binding, d: Values) -> None:
    """Raise ValueError where the average of a schedule-free rule is not that of its beta_1."""
    for path, group in zip(binding.tree.paths, binding.group_of, strict=True):
        used = float(d["arrays"][path].get("last_beta_1", 0))
        if used and used != optimizer.groups[group]["beta_1"]:
            raise ValueError(
                f"beta_1: expected {used!r} for {path}, as in its last update, which its average "
                f"hangs on; got {optimizer.groups[group]['beta_1']!r}"
            )


def agree_with_last_update(optimizer: Optimizer, binding: Binding, d: Values) -> None:
    """Let the average of a schedule-free rule be that of its beta_1."""
    for path, group in zip(binding.tree.paths, binding.group_of, strict=True):
        if "last_beta_1" in d["arrays"][path]:
            d["arrays"][path]["last_beta_1"] = np.array(optimizer.groups[group]["beta_1"])


OF_THE_LOOP = ("group", "frozen", "average", "accumulator_of_gradients", "kept", "order")
"""What an array's state has besides that of the rule, and that stays."""


def resumed(before: Values, step: int, slots: Values) -> Values:
    """Return an array's state as `state_dict` has it, after so many updates, with these slots."""
    stays = (*OF_THE_LOOP, "remainder", "master")
    kept = {name: before[name] for name in stays if name in before}
    return {**kept, "step": step, "in_window": False, **slots}


def leaves_in(binding: Binding, order: Sequence[Any] | None) -> list[int]:
    """Return the indices of all leaves in the order of some arrays."""
    count = len(binding.tree.leaves)
    if order is None:
        return list(range(count))
    if not isinstance(order, Sequence):
        raise TypeError(
            f"order: expected a list of the {count} arrays that were bound, got {shown(order)}"
        )
    leaves = [binding.index_of(array) for array in order]
    for position, leaf in enumerate(leaves):
        if leaf is None or leaf in leaves[:position]:
            raise ValueError(
                f"order[{position}]: expected one of the {count} arrays that were bound, each "
                f"once; got {'another one' if leaf is None else binding.tree.paths[leaf]}"
            )
    if len(leaves) != count:
        raise ValueError(f"order: expected the {count} arrays that were bound, got {len(leaves)}")
    return [leaf for leaf in leaves if leaf is not None]


def array_of(value: Any, what: str) -> NDArray[Any]:
    """Return a tensor or array as an ndarray; in float32 what is stored in fewer bits."""
    if callable(getattr(value, "dequantize", None)) and getattr(value, "codes", None) is not None:
        value = value.dequantize()  # a tensor of torchao's
    bits = bits_of_bfloat16(value)
    if bits is not None:
        return (np.asarray(bits).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    try:
        array = np.asarray(value)
        is_short = array.dtype.itemsize == 2 and array.dtype.kind in "fV"
        return array.astype(np.float32) if is_short else array
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{what}: expected an array or a tensor on the CPU, got {type(value).__name__}: {error}"
        ) from None


def check_like(array: NDArray[Any], like: NDArray[Any], path: str, what: str) -> None:
    if (array.dtype, array.shape) != (like.dtype, like.shape):
        raise ValueError(
            f"{what}: expected a {like.dtype} array of shape {like.shape} for {path}, "
            f"got a {array.dtype} array of shape {array.shape}"
        )


def number_of(array: NDArray[Any], what: str) -> Any:
    if array.shape != () or array.dtype.kind not in "fiu" or not np.isfinite(array):
        given = shown(array) if array.ndim else repr(array.item())
        raise ValueError(f"{what}: expected a finite number, got {given}")
    return array.item()


def count_of(array: NDArray[Any], what: str) -> int:
    number = number_of(array, what)
    if number < 0 or number != int(number):
        raise ValueError(f"{what}: expected a whole number >= 0, got {number!r}")
    return int(number)


def plain_number(value: Any) -> Any:
    """Return a tensor or scalar as a Python number."""
    array = np.asarray(value) if hasattr(value, "item") else None
    return value if array is None or array.size != 1 else array.item()


def listed(names: Any) -> str:
    return ", ".join(map(repr, names))


def shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {listed(value)}" if value else "an empty dict"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {shape}" if shape is not None else "")
