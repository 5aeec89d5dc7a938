"""Optimizer state from and to TensorFlow.js."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep.interop._common import (
    array_of,
    check_like,
    check_no_groups,
    check_no_window,
    check_own,
    count_of,
    entry_of,
    leaves_in,
    listed,
    resumed,
    shown,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep._binding import Binding
    from instep._optimizer import Optimizer
    from instep._rule import Values


class _Rule(NamedTuple):
    """What TensorFlow.js calls a rule, its own hyperparameters, and its weights.

    Weights are endings of names with the slots that they are, in its order: all of one ending come
    before those of the next. It has those in `always` also where the rule does not use them.
    """

    name: str
    own: tuple[str, ...]
    weights: Mapping[str, str]
    always: tuple[str, ...] = ()


_RULES: Mapping[str, _Rule] = {
    "SGD": _Rule("sgd or momentum", ("momentum", "nesterov"), {"momentum": "momentum"}),
    "Adagrad": _Rule(
        "adagrad", ("initial_accumulator_value", "epsilon"), {"accumulator": "accumulator"}
    ),
    "RMSprop": _Rule(
        "rmsprop",
        ("rho", "momentum", "epsilon", "centered"),
        {"rms": "mean_square", "momentum": "momentum", "mg": "mean_gradient"},
        always=("momentum",),
    ),
    "Adadelta": _Rule(
        "adadelta",
        ("rho", "epsilon"),
        {"accum_grad": "mean_square", "accum_var": "mean_square_update"},
    ),
    "Adam": _Rule("adam", ("beta_1", "beta_2", "epsilon"), {"m": "m", "v": "v"}),
}
"""All rules but Adamax, whose `getWeights` TensorFlow.js lacks."""


class _Place(NamedTuple):
    """The slot of an array that a weight is; None for one that is not used."""

    ending: str
    leaf: int
    slot: str | None


def from_tfjs(
    optimizer: Optimizer, weights: Any, *, order: Sequence[NDArray[Any]] | None = None
) -> None:
    """Take over the weights of a TensorFlow.js optimizer.

    Parameters
    ----------
    optimizer
        Bound, with ``convention="tfjs"``, and with the hyperparameters of the TensorFlow.js
        optimizer, of which its weights hold none: SGD, Adagrad, RMSprop, Adadelta or Adam.
    weights
        What its `getWeights` returns: a list of ``{"name": name, "tensor": values}``, or of (name,
        values), first "iter". Values are float32 arrays, or nested lists of numbers such as
        `arraySync` makes, in which JSON carries them.
    order
        The optimizer's arrays in the order of the variables of TensorFlow.js. By default the order
        in which the structure is walked, that is, dicts by sorted keys.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If the weights are of another rule, too few or too many, or not for these arrays. Nothing
        has changed then.

    Notes
    -----
    An optimizer of TensorFlow.js that has not stepped has no weights but "iter" to take over. Its
    Adam multiplies powers of its betas up in float32 while it trains, and computes them anew when
    weights are set; here they are those of "iter", exact in float64.
    """
    rule, binding, d = _prepared(optimizer, "from_tfjs")
    named = _named(weights)
    places = list(_places(rule, binding, order))
    if len(named) != 1 + len(places):
        raise ValueError(
            f"weights: expected the {1 + len(places)} that {_there(rule)} of these hyperparameters "
            f"has for {len(binding.tree.leaves)} arrays ({listed(['iter', *_endings(places)])}), "
            f"got {len(named)}" + ("; one that has not stepped has none" if len(named) == 1 else "")
        )
    name, value = named[0]
    if name != "iter":
        raise ValueError(f"weights[0]: expected 'iter', the count of updates, got {name!r}")
    d["iterations"] = updates = count_of(array_of(value, "weights[0]"), "weights[0]")
    slots: list[Values] = [{} for _ in binding.slots]
    for k, (place, (name, value)) in enumerate(zip(places, named[1:], strict=True), 1):
        what, path = f"weights[{k}] ({name!r})", binding.tree.paths[place.leaf]
        if name.split("/")[-1] != place.ending:
            raise ValueError(f"{what}: expected the weight '.../{place.ending}' of {path}")
        like = binding.tree.leaves[place.leaf]
        array = array_of(value, what)
        if isinstance(value, (int, float, list)) and array.dtype.kind in "fiu":
            array = array.astype(np.float32)
        check_like(array, like, path, what)
        if place.slot is not None:
            slots[place.leaf][place.slot] = array
    for path, new in zip(binding.tree.paths, slots, strict=True):
        d["arrays"][path] = resumed(d["arrays"][path], updates, new)
    d["window"] = 0
    del d["calls"]  # as many as make these updates
    optimizer.load_state_dict(d)


def to_tfjs(
    optimizer: Optimizer, *, order: Sequence[NDArray[Any]] | None = None
) -> list[dict[str, Any]]:
    """Return the weights of a TensorFlow.js optimizer that goes on from here.

    Parameters
    ----------
    optimizer, order
        As for `from_tfjs`.

    Returns
    -------
    list of dict
        What `setWeights` of a TensorFlow.js optimizer of the same rule and hyperparameters takes,
        once ``tf.tensor`` has made tensors of the ndarrays under "tensor". Names start with the
        paths of arrays here; TensorFlow.js goes by the order.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    TypeError, ValueError
        If TensorFlow.js has no place for something: a group or hyperparameters of its own, float64,
        gradients in the middle of an accumulation window.

    Notes
    -----
    Learning rates are no part of the weights. What is no part of TensorFlow.js's optimizers is left
    out: decay, clipping, `maximize`, averages of the parameters, the length of accumulation
    windows, loss scaling, which arrays are frozen, `skip_nonfinite` and `skipped_steps`.
    """
    rule, binding, d = _prepared(optimizer, "to_tfjs")
    check_no_groups(optimizer, binding, _there(rule))
    check_no_window(d, "TensorFlow.js")
    weights: list[dict[str, Any]] = [{"name": "iter", "tensor": np.array(d["iterations"], "i4")}]
    for place in _places(rule, binding, order):
        path, like = binding.tree.paths[place.leaf], binding.tree.leaves[place.leaf]
        if like.dtype != np.float32:
            raise ValueError(f"{path}: expected float32, as all in TensorFlow.js; got {like.dtype}")
        unused = np.zeros(like.shape, like.dtype)
        tensor = unused if place.slot is None else d["arrays"][path][place.slot]
        weights.append({"name": f"{path}/{place.ending}", "tensor": tensor})
    return weights


def _prepared(optimizer: Optimizer, caller: str) -> tuple[_Rule, Binding, Values]:
    rule = entry_of(optimizer, "tfjs", _RULES)
    binding = optimizer._bound(caller)
    check_own(optimizer, rule.own, _there(rule))
    return rule, binding, optimizer.state_dict()


def _there(rule: _Rule) -> str:
    return f"TensorFlow.js's {rule.name}"


def _places(rule: _Rule, binding: Binding, order: Sequence[Any] | None) -> Iterator[_Place]:
    """Yield the places of the weights but the first, in the order of TensorFlow.js."""
    leaves = leaves_in(binding, order)
    for ending, slot in rule.weights.items():
        for leaf in leaves:
            if slot in binding.slots[leaf]:
                yield _Place(ending, leaf, slot)
            elif ending in rule.always:
                yield _Place(ending, leaf, None)


def _endings(places: Sequence[_Place]) -> list[str]:
    return [f".../{ending}" for ending in dict.fromkeys(place.ending for place in places)]


def _named(weights: Any) -> list[tuple[str, Any]]:
    """Return names and values."""
    if not isinstance(weights, Sequence) or isinstance(weights, str):
        raise TypeError(
            "weights: expected a list of {'name': ..., 'tensor': ...}, as getWeights() of a "
            f"TensorFlow.js optimizer returns it; got {shown(weights)}"
        )
    named = []
    for k, each in enumerate(weights):
        if isinstance(each, Mapping) and {"name", "tensor"} <= each.keys():
            each = (each["name"], each["tensor"])
        if not isinstance(each, (tuple, list)) or len(each) != 2 or not isinstance(each[0], str):
            raise TypeError(
                f"weights[{k}]: expected {{'name': ..., 'tensor': ...}} or (name, values), got "
                f"{shown(each)}"
            )
        named.append((each[0], each[1]))
    return named
