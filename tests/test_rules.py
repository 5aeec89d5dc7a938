"""The rules in both precisions against the references in float64."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from references import REFERENCES, Configuration, Quantity

import instep

Floats: TypeAlias = NDArray[np.floating[Any]]
Precision: TypeAlias = type[np.float32] | type[np.float64]

CASES = [
    pytest.param(rule, configuration, id=f"{rule}-{configuration}")
    for rule, reference in REFERENCES.items()
    for configuration in reference.configurations
]
every_case = pytest.mark.parametrize(("rule", "configuration"), CASES)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Subnormal hyperparameters would count as zero.
FRACTIONS = st.just(0.0) | st.floats(1e-3, 0.999)
HYPERPARAMETERS: Mapping[str, st.SearchStrategy[Any]] = {
    "learning_rate": st.floats(1e-6, 1.0),
    "momentum": FRACTIONS,
    "dampening": FRACTIONS,
    "nesterov": st.booleans(),
    "initial_accumulator_value": FRACTIONS,
    "learning_rate_decay": FRACTIONS,
    "rho": FRACTIONS,
    "centered": st.booleans(),
    "beta_1": FRACTIONS,
    "beta_2": FRACTIONS,
    "amsgrad": st.booleans(),
    "epsilon": st.floats(1e-10, 1e-2),
    "weight_decay": FRACTIONS,
}


def mixed(rng: np.random.Generator, size: int, scales: list[float], dtype: Precision) -> Floats:
    """Draw normal numbers, each on one of several scales."""
    return (rng.choice(scales, size) * rng.standard_normal(size)).astype(dtype)


def parameters(rng: np.random.Generator, size: int, dtype: Precision) -> Floats:
    """Draw parameters of several magnitudes, zeros among them."""
    return mixed(rng, size, [0.0, 1e-3, 1.0, 1e2], dtype)


def gradients(rng: np.random.Generator, size: int, dtype: Precision) -> Floats:
    """Draw gradients that are zero, tiny, normal and large."""
    return mixed(rng, size, [0.0, 1e-12, 1.0, 1e4], dtype)


def slots(optimizer: Any) -> dict[str, Floats]:
    """Return the state arrays of an optimizer with a single parameter array."""
    return {slot: value for slot, value in optimizer.state.items() if slot != "step"}


def assert_rounded(actual: Floats, expected: Quantity) -> None:
    """Compare within 4 ulp (float32) or 1e-12 (float64) of the largest term."""
    assert actual.dtype in (np.float32, np.float64)
    if actual.dtype == np.float32:
        tolerance = 4 * np.spacing(expected.largest.astype(np.float32)).astype(np.float64)
    else:
        tolerance = 1e-12 * expected.largest
    # Subnormal results count as zero.
    tolerance = np.maximum(tolerance, np.finfo(actual.dtype).tiny)
    excess = np.abs(actual - expected.value) / tolerance
    worst = np.argmax(excess)
    assert excess[worst] <= 1, (
        f"{actual[worst]} is not {expected.value[worst]}: {excess[worst]:.3g} times the tolerance"
    )


def check_one_step(
    rule: str, configuration: Configuration, dtype: Precision, size: int, earlier_steps: int
) -> None:
    """Compare one step from the state that some earlier steps have left."""
    rng = np.random.default_rng(0)
    param = parameters(rng, size, dtype)
    optimizer = getattr(instep, rule)(param, **configuration)
    for _ in range(earlier_steps):
        optimizer.step(gradients(rng, size, dtype))
    old_param = param.copy()
    old_state = {slot: value.copy() for slot, value in slots(optimizer).items()}
    grad = gradients(rng, size, dtype)
    optimizer.step(grad)
    expected_param, expected_state = REFERENCES[rule].step(
        old_param, grad, old_state, earlier_steps + 1, configuration
    )
    assert_rounded(param, expected_param)
    for slot, value in slots(optimizer).items():
        assert_rounded(value, expected_state[slot])


def test_every_optimizer_has_a_reference() -> None:
    optimizers = {
        name
        for name, value in vars(instep).items()
        if inspect.isclass(value) and hasattr(value, "apply_gradients") and name != "Optimizer"
    }
    assert optimizers == set(REFERENCES)


@every_dtype
@every_case
def test_initial_state(rule: str, configuration: Configuration, dtype: Precision) -> None:
    param: Floats = np.ones((3, 2), dtype)
    state = slots(getattr(instep, rule)(param, **configuration))
    expected = REFERENCES[rule].initial_state(configuration, param.shape)
    assert list(state) == list(expected)
    for slot, value in state.items():
        assert value.dtype == dtype
        np.testing.assert_array_equal(value, expected[slot].astype(dtype))


@pytest.mark.parametrize("earlier_steps", [0, 3])
@every_dtype
@every_case
def test_one_step(
    rule: str, configuration: Configuration, dtype: Precision, earlier_steps: int
) -> None:
    check_one_step(rule, configuration, dtype, 20_000, earlier_steps)


# In float64, where no rare sum of roundings comes near the tolerance.
@pytest.mark.parametrize("rule", REFERENCES)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_hyperparameters(rule: str, data: st.DataObject) -> None:
    reference = REFERENCES[rule]
    names = {"weight_decay", *reference.keywords({}, step=1), *reference.slots.values()}
    strategies = {name: strategy for name, strategy in HYPERPARAMETERS.items() if name in names}
    configuration = data.draw(st.fixed_dictionaries({}, optional=strategies))
    momentum, dampening = configuration.get("momentum"), configuration.get("dampening")
    assume(momentum or not dampening)
    assume(not configuration.get("nesterov") or (momentum and not dampening))
    check_one_step(rule, configuration, np.float64, 200, data.draw(st.integers(0, 3)))


@every_dtype
@every_case
def test_thousand_steps(rule: str, configuration: Configuration, dtype: Precision) -> None:
    reference = REFERENCES[rule]
    rng = np.random.default_rng(1)
    param: Floats = rng.standard_normal(200).astype(dtype)
    optimizer = getattr(instep, rule)(param, **configuration)
    path = {"param": param.astype(np.float64)}
    path |= reference.initial_state(configuration, param.shape)
    largest = {name: np.abs(value) for name, value in path.items()}
    for step in range(1, 1001):
        grad: Floats = rng.standard_normal(param.size).astype(dtype)
        optimizer.step(grad)
        new_param, new_state = reference.step(path.pop("param"), grad, path, step, configuration)
        path = {"param": new_param.value}
        path |= {slot: quantity.value for slot, quantity in new_state.items()}
        largest = {name: np.maximum(largest[name], np.abs(value)) for name, value in path.items()}
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for name, value in {"param": param, **slots(optimizer)}.items():
        error = np.abs(value - path[name]) / largest[name]
        assert error.max() <= tolerance, f"{name} is {error.max():.3g} away"


@every_dtype
@every_case
def test_class_and_kernel_give_the_same_bits(
    rule: str, configuration: Configuration, dtype: Precision
) -> None:
    reference = REFERENCES[rule]
    # Decay is an option of the class.
    configuration = {**configuration, "weight_decay": 0.0}
    kernel = getattr(instep.kernels, reference.rule.__name__)
    rng = np.random.default_rng(2)
    param = parameters(rng, 1000, dtype)
    optimizer = getattr(instep, rule)(param, **configuration)
    own_param = param.copy()
    own_state = {slot: value.copy() for slot, value in slots(optimizer).items()}
    for step in range(1, 4):
        grad = gradients(rng, param.size, dtype)
        optimizer.step(grad)
        arrays = [own_param, grad, *map(own_state.get, reference.slots)]
        kernel(*arrays, **reference.keywords(configuration, step))
        assert own_param.tobytes() == param.tobytes()
        for slot, value in slots(optimizer).items():
            assert own_state[slot].tobytes() == value.tobytes()
