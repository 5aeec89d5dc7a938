"""Gradients stored in another format than their parameter: as if they had been converted first.

Run as a script, this checks the instruction set in use.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from references import REFERENCES
from workloads import LAYOUTS, OPTIONS, Layout, contiguous, place

import instep
from instep import _core

with contextlib.suppress(ImportError):  # formats may be of this package
    import ml_dtypes  # noqa: F401


def is_known(name: str) -> bool:
    """Return whether NumPy knows a dtype."""
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True


SIZES = [0, 1, 31, 130, 1025]
GRADIENT_LAYOUTS = ["contiguous", "strided gradients", "fortran gradients", "reversed"]
PARAMETERS = ["float32", "float64"]
GRADIENTS = [name for name in _core.formats if name not in PARAMETERS and is_known(name)]


def every_number(stored: str) -> Any:
    """Return an array of all numbers of a 16-bit format."""
    return np.arange(2**16, dtype=np.uint16).view(stored)


def check_every_number(stored: str, dtype: str) -> None:
    grad = every_number(stored)
    with np.errstate(invalid="ignore"):
        converted = grad.astype(np.float32)
        if dtype == "float64":  # through float32, of which subnormal numbers count as zero
            converted[np.abs(converted) < np.finfo(np.float32).tiny] *= 0
        converted = converted.astype(dtype)
    param, momentum = np.zeros((2, grad.size), dtype)
    instep.kernels.sgd(param, grad, momentum, step=1, momentum=0.5, learning_rate=1.0)
    numbers = ~np.isnan(converted)
    assert (np.isnan(momentum) == ~numbers).all()
    assert momentum[numbers].tobytes() == converted[numbers].tobytes()


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every rule, plain and with each set of options that it takes."""
    for rule in REFERENCES:
        for options in ({}, *OPTIONS):
            yield rule, dict(options)


@cache
def gradient(size: int, step: int, layout: Layout, stored: str, numbers: str) -> Any:
    """Return the gradient of a step, of numbers that the format `numbers` has."""
    rounded = place(size, step, contiguous, numbers)
    grad = layout((rounded.shape[0], rounded.shape[1]), stored)
    grad[...] = rounded
    return grad


def trained(
    rule: str, options: dict[str, Any], layout: str, dtype: str, stored: str, numbers: str
) -> list[Any]:
    """Return parameters and state after steps with gradients stored so."""
    ours, theirs = LAYOUTS[layout]
    params = [place(size, 0, ours, dtype) for size in SIZES]
    opt = getattr(instep, rule)(params, **options)
    for step in range(1, 5):
        opt.step([gradient(size, step, theirs, stored, numbers) for size in SIZES])
    slots = [slot for state in opt.state for slot in state.values()]
    return [opt.grad_norm, *(np.asarray(each).tobytes() for each in (*params, *slots))]


def check_rules() -> int:
    """Compare every rule in every layout; return how many configurations there were."""
    count = 0
    for rule, options in cases():
        for dtype, layout, stored in product(PARAMETERS, GRADIENT_LAYOUTS, GRADIENTS):
            given = trained(rule, options, layout, dtype, stored, stored)
            converted = trained(rule, options, layout, dtype, dtype, stored)
            assert given == converted, (rule, options, dtype, layout, stored)
            count += 1
    return count


@pytest.mark.parametrize("dtype", PARAMETERS)
@pytest.mark.parametrize("stored", GRADIENTS)
def test_every_number(stored: str, dtype: str) -> None:
    check_every_number(stored, dtype)


def test_every_rule() -> None:
    assert check_rules() == len(REFERENCES) * 4 * 2 * len(GRADIENT_LAYOUTS) * len(GRADIENTS)


@pytest.mark.parametrize("isa", _core.build_info()["isa_built"])
def test_every_instruction_set(isa: str) -> None:
    built = _core.build_info()["isa_built"]
    if built.index(isa) >= built.index(_core.build_info()["isa"]):
        pytest.skip("in use, or not a part of this processor")
    run = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "INSTEP_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("options", [{}, {"clipnorm": 1.0}, {"skip_nonfinite": True}])
def test_infinite_gradients(options: dict[str, Any]) -> None:
    """65,520 and more are inf in float16, and count as that."""
    params = [np.ones(5, np.float32), np.ones(5, np.float32)]
    opt = instep.SGD(params, learning_rate=0.5, **options)
    opt.step([np.full(5, np.inf, np.float16), np.ones(5, np.float16)])
    assert opt.skipped_steps == bool(options.get("skip_nonfinite"))
    if not options:
        assert (params[0] == -np.inf).all()
        assert (params[1] == 0.5).all()


def listed(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]])


def test_others_are_refused() -> None:
    message = f"^params: expected dtype {listed([*_core.formats])}, got int16$"
    with pytest.raises(TypeError, match=message):
        instep.SGD(np.ones(3, np.int16))
    message = f"^gradient for params: expected dtype {listed([*_core.formats])}, got int64$"
    with pytest.raises(TypeError, match=message):
        instep.SGD(np.ones(3)).step(np.ones(3, int))


if __name__ == "__main__":
    for number_format in GRADIENTS:
        for precision in PARAMETERS:
            check_every_number(number_format, precision)
    check_rules()
