"""Mistakes that a tired user makes, and what must not come of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import instep


def ones(count: int) -> list[Any]:
    """Return float32 arrays of three ones."""
    return [np.ones(3, np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, p, g, b: k.adam(p, g, *ones(2)), "step: adam needs it"),
        (lambda k, p, g, b: k.sgd(p, g, b, momentum=0.9), "step: sgd needs it"),
        (lambda k, p, g, b: k.adagrad(p, g, b, learning_rate_decay=0.1), "step: adagrad needs it"),
        (lambda k, p, g, b: k.sgd(p, g, momentum=0.9, step=1), "momentum: expected a state array"),
        (lambda k, p, g, b: k.rmsprop(p, g, b, momentum=0.9), "momentum: expected a state array"),
        (lambda k, p, g, b: k.sgd(p, g, b, nesterov=True, step=1), "nesterov: expected momentum"),
        (lambda k, p, g, b: k.sgd(p, None), "grad: expected a NumPy array, got None"),
        (lambda k, p, g, b: k.sgd(p, g, learning_rate=[0.1]), "learning_rate: expected a number"),
        (lambda k, p, g, b: k.sgd(p, g, step=np.ones(1)), "step: expected a whole number"),
    ],
)
def test_a_kernel_refuses_what_would_be_silently_wrong(
    call: Callable[..., None], message: str
) -> None:
    param, grad, buffer = ones(3)
    with pytest.raises((TypeError, ValueError), match=message):
        call(instep.kernels, param, grad, buffer)
    np.testing.assert_array_equal([param, grad, buffer], np.ones((3, 3)))


def test_kernels_need_no_step_where_the_rule_does_not() -> None:
    param, grad, accumulator = ones(3)
    instep.kernels.sgd(param, grad, learning_rate=0.5)
    instep.kernels.adagrad(param, grad, accumulator)
    instep.kernels.rmsprop(param, grad, accumulator)
    instep.kernels.adadelta(param, grad, accumulator, *ones(1))
    assert param[0] < 0.5


def test_the_same_state_array_twice_is_no_shared_parameter() -> None:
    param, grad, state = ones(3)
    with pytest.raises(ValueError, match="v of param shares memory with m of param"):
        instep.kernels.adam(param, grad, state, state, step=1)


def test_a_misspelt_attribute_is_an_error() -> None:
    opt = instep.Adam(ones(1))
    with pytest.raises(AttributeError, match="expected a hyperparameter among learning_rate"):
        opt.lr = 0.1  # type: ignore[attr-defined]


def test_groups_are_no_list_to_change() -> None:
    opt = instep.SGD(ones(1))
    with pytest.raises(TypeError):
        opt.groups[0] = {}  # type: ignore[index]
    with pytest.raises(AttributeError):
        opt.groups = []


def test_none_in_a_group_leaves_the_optimizer_s_value() -> None:
    [param] = ones(1)
    opt = instep.SGD([instep.Group(param, learning_rate=None)], learning_rate=0.5)
    opt.step(ones(1))
    np.testing.assert_array_equal(param, np.full(3, 0.5))


def test_a_container_is_no_variable() -> None:
    opt = instep.SGD()
    variables = {"w": np.ones(3)}
    with pytest.raises(TypeError, match="expected a NumPy array, got dict"):
        opt.apply_gradients([({"w": np.ones(3)}, variables)])  # type: ignore[list-item]
    assert opt.params is None


def test_binding_again_to_another_structure_of_equal_paths() -> None:
    opt = instep.SGD(ones(1), momentum=0.5)
    opt.step(ones(1))
    for params in ({0: np.ones(3, np.float32)}, tuple(ones(1))):
        opt.build(params)
        assert opt.state[0]["momentum"].tolist() == [1.0] * 3


def test_a_schedule_that_looks_at_half_a_step() -> None:
    [param] = ones(1)
    opt = instep.SGD([param], learning_rate=lambda step: len(opt.state_dict()))
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        opt.step(ones(1))
    np.testing.assert_array_equal(param, np.ones(3))


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("Adagrad", {}),
        ("RMSprop", {}),
        ("RMSprop", {"centered": True}),
        ("Adadelta", {}),
        ("Adam", {}),
        ("Adam", {"amsgrad": True}),
    ],
)
def test_a_gradient_whose_square_overflows_ends_updates(rule: str, options: dict[str, Any]) -> None:
    param = np.ones(40, np.float32)
    opt = getattr(instep, rule)(param, **options)
    opt.step(np.ones(40, np.float32))
    moved = param.copy()
    assert np.all(moved < 1)
    for size in (1e25, 1, 1, -1e25, 1):
        opt.step(np.full(40, size, np.float32))
        np.testing.assert_array_equal(param, moved)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and libgomp")
def test_a_child_steps_after_somebody_else_s_parallel_region() -> None:
    pytest.importorskip("threadpoolctl")
    program = """
        import ctypes, os
        import numpy as np
        import threadpoolctl
        import instep

        instep.SGD(np.ones(3)).step(np.ones(3))
        loaded = [each["filepath"] for each in threadpoolctl.threadpool_info()
                  if "gomp" in each["filepath"]]
        if loaded:
            region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: None)
            ctypes.CDLL(loaded[0]).GOMP_parallel(region, None, 2, 0)
        child = os.fork()
        if child == 0:
            big = np.ones(1_000_000)
            instep.Adam(big).step(big.copy())
            os._exit(0)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)
