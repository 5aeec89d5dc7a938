"""Rules as functions on bare arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bad_arrays import read_only
from model import freeze
from optimizers import CONFIGURATIONS, DEFAULTS

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep
# Slots and keywords; amsgrad and centered are told by the arrays that are given.
KERNELS: dict[str, tuple[list[str], list[str]]] = {
    "SGD": (["momentum"], ["momentum", "dampening", "nesterov", "step"]),
    "Adagrad": (["accumulator"], ["learning_rate_decay", "epsilon", "step"]),
    "RMSprop": (["mean_square", "mean_gradient", "momentum"], ["rho", "momentum", "epsilon"]),
    "Adadelta": (["mean_square", "mean_square_update"], ["rho", "epsilon"]),
    "Adam": (["m", "v", "v_max"], ["beta_1", "beta_2", "epsilon", "step"]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rule", "options", "slots"),
    [configuration for configuration in CONFIGURATIONS if configuration[0] in KERNELS],
)
def test_kernels_compute_the_digits_of_the_classes(
    rule: str, options: dict[str, Any], slots: list[str], dtype: npt.DTypeLike
) -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(size=(7, 9)).astype(dtype)
    room = np.zeros((14, 18), dtype)
    q = room[::2, ::2]
    q[...] = p
    opt = getattr(instep, rule)(p, learning_rate=0.1, **options)
    all_slots, keywords = KERNELS[rule]
    state = [np.zeros((7, 9), dtype) if slot in slots else None for slot in all_slots]
    kernel = getattr(instep.kernels, rule.lower())
    for t in range(1, 5):
        g = rng.normal(size=(7, 9)).astype(dtype)
        opt.step(g)
        given = {**DEFAULTS[rule], **options, "step": t}
        numbers = {name: given[name] for name in keywords}
        assert kernel(q, g, *state, learning_rate=0.1, **numbers) is None
    assert q.tobytes() == p.tobytes()
    assert np.count_nonzero(room) == q.size
    for name, slot in zip(all_slots, state, strict=True):
        if slot is not None:
            assert slot.tobytes() == opt.state[name].tobytes(), name


def test_kernel_of_the_example_in_the_documentation() -> None:
    param, m, v = np.zeros((3, 5))
    instep.kernels.adam(
        param,
        np.ones(5),
        m,
        v,
        step=1,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
    )
    np.testing.assert_allclose(param, -1e-3, rtol=1e-7)
    np.testing.assert_allclose(m, 0.1)
    np.testing.assert_allclose(v, 0.001)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(param=read_only(np.zeros(6))),
        lambda a: a.update(param=np.zeros(6, int)),
        lambda a: a.update(param=np.zeros(6, np.float16)),
        lambda a: a.update(param=np.zeros(6, ">f8")),
        lambda a: a.update(param=np.ma.masked_array(np.zeros(6))),
        lambda a: a.update(param=[0.0] * 6),
        lambda a: a.update(param=None),
        lambda a: a.update(grad=np.zeros(6, int)),
        lambda a: a.update(grad=np.zeros(6, ">f8")),
        lambda a: a.update(grad=np.zeros((1, 6))),
        lambda a: a.update(grad=np.zeros(1)),
        lambda a: a.update(grad=1.0),
        lambda a: a.update(grad=a["param"]),
        lambda a: a.update(grad=a["m"]),
        lambda a: a.update(m=read_only(np.zeros(6))),
        lambda a: a.update(m=np.zeros(5)),
        lambda a: a.update(m=np.zeros(6, int)),
        lambda a: a.update(m=a["param"]),
        lambda a: a.update(m=a["v"]),
        lambda a: a.update(m=None),
        lambda a: a.update(learning_rate=-1.0),
        lambda a: a.update(learning_rate=np.nan),
        lambda a: a.update(beta_1=1.0),
        lambda a: a.update(epsilon=-1.0),
        lambda a: a.update(step=0),
        lambda a: a.update(step=-1),
        lambda a: a.update(step=1.5),
    ],
)
def test_kernels_check_like_the_classes(change: Callable[[dict[str, Any]], object]) -> None:
    arguments: dict[str, Any] = {
        "param": np.ones(6),
        "grad": np.ones(6),
        "m": np.ones(6),
        "v": np.ones(6),
        "step": 1,
        "learning_rate": 1e-3,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
    }
    change(arguments)
    before = freeze(arguments)
    arrays = [arguments.pop(name) for name in ("param", "grad", "m", "v")]
    with pytest.raises((TypeError, ValueError)):
        instep.kernels.adam(*arrays, **arguments)
    assert freeze(dict(zip(("param", "grad", "m", "v"), arrays, strict=True)) | arguments) == before


def test_a_kernel_called_in_the_middle_of_a_call_of_its_own() -> None:
    """Its numbers are those of the outer call, whatever ran while its arguments were checked."""
    inner, param, grad = np.ones(3), np.ones(3), np.ones(3)

    class Calling(int):
        def __int__(self) -> int:
            untyped.kernels.sgd(inner, grad, learning_rate=0.25)
            return 1

    untyped.kernels.sgd(param, grad, step=Calling(1), learning_rate=0.5)
    np.testing.assert_array_equal(inner, 0.75)
    np.testing.assert_array_equal(param, 0.5)
