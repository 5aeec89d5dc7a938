"""What type checkers see: mypy, which knows each line that it must refuse, and tells of others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import instep
from instep import schedules
from instep._conventions import CONVENTIONS
from instep.typing import Array, Arrays, Convention, Gradients

w: NDArray[np.float64] = np.ones((3, 2))
b: NDArray[np.float32] = np.zeros(2, np.float32)


class Layer(NamedTuple):
    w: NDArray[np.float64]
    b: NDArray[np.float32]


def ordinary_parameters() -> list[Any]:
    """Return optimizers of what people have, made in as many statements as type checkers need."""
    arrays: list[NDArray[np.float64]] = [w]
    by_name: dict[str, NDArray[np.float32]] = {"b": b}
    by_number: dict[int, NDArray[np.float64]] = {1: w}
    ordered: OrderedDict[str, NDArray[np.float64]] = OrderedDict(w=w)
    mixed = {"w": w, "layers": [b, {"c": np.ones(3)}]}
    listed = [w, [b]]
    whatever: dict[str, Any] = {"w": w, "b": [b]}
    annotated: Arrays = {"w": w}
    return [
        instep.SGD(w),
        instep.SGD(arrays),
        instep.SGD(by_name),
        instep.SGD(by_number),
        instep.SGD(ordered),
        instep.SGD(mixed),
        instep.SGD(listed),
        instep.SGD(whatever),
        instep.SGD(annotated),
        instep.SGD((w, [b])),
        instep.SGD(Layer(w, b)),
        instep.SGD({"w": [w], "l": (b, Layer(w.copy(), b.copy()))}),
        instep.SGD([w, instep.Group([b], learning_rate=0.1)]),
        instep.SGD(groups=[instep.Group("b", learning_rate=0.1)]),
        of_others(arrays, ordered),
    ]


def of_others(arrays: Sequence[Array], by_name: Mapping[str, Array]) -> instep.Optimizer:
    opt = instep.Adam({"s": [each.copy() for each in arrays], **by_name})
    assert isinstance(instep.SGD(arrays), instep.Optimizer)
    return opt


def test_ordinary_parameters() -> None:
    assert all(isinstance(each, instep.Optimizer) for each in ordinary_parameters())


def test_ordinary_gradients() -> None:
    opt = instep.SGD([w.copy(), b.copy()], learning_rate=0.0)
    grads: list[NDArray[np.float64] | None] = [None, np.ones(2)]
    listed = [2 * w.mean(axis=0).sum() * w, b.astype(np.float16)]
    given: Gradients = [w, None]
    for each in (grads, listed, given):
        opt.step(each)
    opt.step([None, None])
    opt.step((w, b))
    opt.apply_gradients(zip(listed, opt.params, strict=True))
    instep.SGD(np.zeros(())).step(2.0)
    instep.SGD({"layer": Layer(w.copy(), b.copy())}).step({"layer": Layer(w, b)})
    assert opt.iterations == 6


def test_what_type_checkers_refuse() -> None:
    words = ["w", "b"]
    named = {"w": "b"}
    wrong = (TypeError, ValueError)
    with pytest.raises(wrong):
        instep.Adam("params")  # type: ignore[arg-type]
    with pytest.raises(wrong):
        instep.Adam(words)  # type: ignore[arg-type]
    with pytest.raises(wrong):
        instep.Adam(named)  # type: ignore[arg-type]
    with pytest.raises(wrong):
        instep.Adam(1e-3)  # type: ignore[arg-type]
    with pytest.raises(wrong):
        instep.Adam(w, convention="jax")  # type: ignore[arg-type]
    with pytest.raises(wrong):
        instep.Adam(w, learning_rat=0.1)  # type: ignore[call-arg]
    opt = instep.Adam(w.copy())
    with pytest.raises(wrong):
        opt.step("grads")  # type: ignore[arg-type]
    with pytest.raises(wrong):
        opt.step(words)  # type: ignore[arg-type]
    with pytest.raises(wrong):
        opt.build("params")  # type: ignore[arg-type]
    with pytest.raises(wrong):
        instep.kernels.adam(w.copy(), w, w.copy(), step=1)  # type: ignore[call-arg]
    with pytest.raises(wrong):
        instep.kernels.adam(w, w, w, w, step=1, convention="jax")  # type: ignore[arg-type]
    with pytest.raises(wrong):
        instep.kernels.adam(w, w, w, w, step=1, momentum=0.1)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        instep.kernels.adm  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError):
        instep.adam  # type: ignore[attr-defined]  # noqa: B018


def test_what_is_read_has_types() -> None:
    opt = instep.Adam(w.copy(), learning_rate=schedules.ExponentialDecay(0.1, 10, 0.5))
    beta: float = opt.beta_1
    convention: Convention = opt.convention
    group: Any = opt.groups[0]["beta_1"]
    assert (beta, convention, group) == (0.9, "paper", 0.9)


def test_conventions_are_those_of_the_table() -> None:
    assert set(get_args(Convention)) == {name for rule in CONVENTIONS.values() for name in rule}
