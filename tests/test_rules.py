"""The rules in both precisions against the references in float64."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from references import (
    REFERENCES,
    VECTOR_REFERENCES,
    Configuration,
    Reference,
    assert_rounded,
    slots,
)

import instep
from instep._conventions import CONVENTIONS

Floats: TypeAlias = NDArray[np.floating[Any]]
Shape: TypeAlias = tuple[int, ...]
Precision: TypeAlias = type[np.float32] | type[np.float64]

CASES = [
    pytest.param(rule, configuration, id=f"{rule}-{configuration}")
    for rule, reference in REFERENCES.items()
    for configuration in reference.configurations
]
every_case = pytest.mark.parametrize(("rule", "configuration"), CASES)
DTYPES: list[Precision] = [np.float32, np.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Subnormal hyperparameters would count as zero.
FRACTIONS = st.just(0.0) | st.floats(1e-3, 0.999)
EPSILONS = st.floats(1e-10, 1e-2)
HYPERPARAMETERS: Mapping[str, st.SearchStrategy[Any]] = {
    "learning_rate": st.floats(1e-6, 1.0),
    "momentum": FRACTIONS,
    "dampening": FRACTIONS,
    "nesterov": st.booleans(),
    "initial_accumulator_value": st.floats(1e-3, 0.999),
    "learning_rate_decay": FRACTIONS,
    "rho": FRACTIONS,
    "centered": st.booleans(),
    "eps_in_sqrt": st.booleans(),
    "bias_correction": st.booleans(),
    "beta_1": FRACTIONS,
    "beta_2": FRACTIONS,
    "beta_3": FRACTIONS,
    "amsgrad": st.booleans(),
    "epsilon": EPSILONS,
    "epsilon_root": st.just(0.0) | EPSILONS,
    "momentum_decay": FRACTIONS,
    "threshold": st.floats(4.0, 6.0),
    "eta_minus": st.floats(1e-3, 0.999),
    "eta_plus": st.floats(1.001, 3.0),
    "min_step_size": st.floats(1e-6, 1e-2),
    "max_step_size": st.floats(1e-2, 50.0),
    "lambd": FRACTIONS,
    "alpha": FRACTIONS | st.floats(1.0, 8.0),
    "t0": st.floats(0.0, 5.0),
    "learning_rate_power": st.just(0.0) | st.floats(-1.0, -0.1),
    "l1_regularization_strength": FRACTIONS,
    "l2_regularization_strength": FRACTIONS,
    "l2_shrinkage_regularization_strength": FRACTIONS,
    "beta": FRACTIONS,
    "trust_coefficient": st.floats(1e-3, 1.0),
    "min_norm": st.just(0.0) | st.floats(1e-6, 1e3),
    "warmup_steps": st.integers(0, 10),
    "weight_lr_power": st.just(0.0) | st.floats(0.1, 3.0),
    "estim_lr0": st.floats(1e-6, 1.0),
    "estim_lr_coef": st.floats(0.1, 10.0),
    "safeguard_warmup": st.booleans(),
    "beta_2_decay": st.floats(-1.0, -0.1),
    "epsilon_1": st.floats(1e-30, 1e-2),
    "epsilon_2": EPSILONS,
    "clip_threshold": st.floats(1.0, 3.0),
    "relative_step": st.booleans(),
    "ns_steps": st.integers(0, 5),
    "adjust_lr_fn": st.sampled_from(["original", "match_rms_adamw"]),
    "weight_decay": FRACTIONS,
}


def mixed(rng: np.random.Generator, shape: Shape, scales: list[float], dtype: Precision) -> Floats:
    """Draw normal numbers, each on one of several scales."""
    return (rng.choice(scales, shape) * rng.standard_normal(shape)).astype(dtype)


def parameters(rng: np.random.Generator, shape: Shape, dtype: Precision) -> Floats:
    """Draw parameters of several magnitudes, zeros among them."""
    return mixed(rng, shape, [0.0, 1e-3, 1.0, 1e2], dtype)


def gradients(rng: np.random.Generator, shape: Shape, dtype: Precision) -> Floats:
    """Draw gradients that are zero, tiny, normal and large."""
    return mixed(rng, shape, [0.0, 1e-12, 1.0, 1e4], dtype)


def check_steps(
    rule: str,
    configuration: Configuration,
    dtype: Precision,
    shape: Shape,
    steps: Collection[int],
    references: Mapping[str, Reference] = REFERENCES,
) -> None:
    """Compare some steps of a path, each from the state that the ones before have left."""
    reference = references[rule]
    rng = np.random.default_rng(0)
    param = parameters(rng, shape, dtype)
    optimizer = getattr(instep, rule)(param, **configuration)
    for step in range(1, max(steps) + 1):
        grad = gradients(rng, shape, dtype)
        old_param = param.copy()
        old_state = {slot: value.copy() for slot, value in slots(optimizer).items()}
        optimizer.step(grad)
        if step in steps:
            expected_param, expected_state = reference.step(
                old_param, grad, old_state, step, configuration
            )
            assert_rounded(param, expected_param, dtype, reference)
            for slot, value in slots(optimizer).items():
                assert_rounded(value, expected_state[slot], dtype, reference)


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
    reference = REFERENCES[rule]
    param: Floats = np.ones((3, 2), dtype)
    state = slots(getattr(instep, rule)(param, **configuration))
    expected = reference.initial_state(configuration, param.astype(np.float64))
    assert list(state) == list(expected)
    for slot, value in state.items():
        assert value.dtype == (np.float64 if slot in reference.scalars else dtype)
        np.testing.assert_array_equal(value, expected[slot].astype(value.dtype), strict=True)


# The fifth step is the first that RAdam rectifies.
@pytest.mark.parametrize("step", [1, 5])
@every_dtype
@every_case
def test_one_step(rule: str, configuration: Configuration, dtype: Precision, step: int) -> None:
    check_steps(rule, configuration, dtype, (100, 200), [step])


@pytest.mark.parametrize("step", [1, 5])
@every_dtype
@pytest.mark.parametrize("rule", VECTOR_REFERENCES)
def test_one_step_of_a_vector(rule: str, dtype: Precision, step: int) -> None:
    for configuration in VECTOR_REFERENCES[rule].configurations:
        check_steps(rule, configuration, dtype, (20_000,), [step], VECTOR_REFERENCES)


# In float64, where no rare sum of roundings comes near the tolerance.
@pytest.mark.parametrize("rule", REFERENCES)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_hyperparameters(rule: str, data: st.DataObject) -> None:
    reference = REFERENCES[rule]
    names = {"weight_decay", *reference.keywords({}, step=1), *reference.slots.values()}
    names |= {name for known in reference.configurations for name in known}
    strategies = {name: strategy for name, strategy in HYPERPARAMETERS.items() if name in names}
    configuration = data.draw(st.fixed_dictionaries({}, optional=strategies))
    in_force = {**reference.keywords({}, step=1), **configuration}
    momentum, dampening = in_force.get("momentum", True), in_force.get("dampening")
    assume(momentum or not dampening)
    assume(not in_force.get("nesterov") or (momentum and not dampening))
    # At first the corrected mean square is the square of the mean: all that is left is rounding.
    assume(not (in_force.get("centered") and in_force.get("bias_correction")))
    check_steps(rule, configuration, np.float64, (10, 20), [1, 2, 7])


@every_case
def test_thousand_steps(rule: str, configuration: Configuration) -> None:
    """Both precisions get the same numbers, which float32 can hold, and so have one reference."""
    reference = REFERENCES[rule]
    rng = np.random.default_rng(1)
    start = rng.standard_normal((10, 20)).astype(np.float32)
    optimizers = {
        dtype: getattr(instep, rule)(start.astype(dtype), **configuration) for dtype in DTYPES
    }
    path = {"param": start.astype(np.float64)}
    path |= reference.initial_state(configuration, path["param"])
    largest = {name: np.abs(value) for name, value in path.items()}
    for step in range(1, 1001):
        grad = rng.standard_normal(start.shape).astype(np.float32)
        for dtype, optimizer in optimizers.items():
            optimizer.step(grad.astype(dtype))
        new_param, new_state = reference.step(path.pop("param"), grad, path, step, configuration)
        quantities = {"param": new_param, **new_state}
        path = {name: quantities[name].value for name in largest}
        largest = {name: np.maximum(largest[name], quantities[name].scale) for name in path}
    for dtype, optimizer in optimizers.items():
        tolerance = reference.drift * (1e-5 if dtype == np.float32 else 1e-12)
        for name, value in {"param": optimizer.params, **slots(optimizer)}.items():
            error = np.abs(value - path[name]) / np.maximum(largest[name], np.finfo(dtype).tiny)
            assert error.max() <= tolerance, f"{name} is {error.max():.3g} away in {dtype.__name__}"


@every_dtype
@every_case
def test_class_and_kernel_give_the_same_bits(
    rule: str, configuration: Configuration, dtype: Precision
) -> None:
    reference = REFERENCES[rule]
    if "weight_decay" not in reference.keywords(configuration, step=1):
        # It is an option of the class.
        configuration = {**configuration, "weight_decay": 0.0}
    kernel = getattr(instep.kernels, reference.rule.__name__)
    rng = np.random.default_rng(2)
    param = parameters(rng, (20, 50), dtype)
    optimizer = getattr(instep, rule)(param, **configuration)
    own_param = param.copy()
    own_state = {slot: value.copy() for slot, value in slots(optimizer).items()}
    for step in range(1, 4):
        grad = gradients(rng, (20, 50), dtype)
        optimizer.step(grad)
        arrays = [own_param, grad, *map(own_state.get, reference.slots)]
        kernel(*arrays, **reference.keywords(configuration, step))
        assert own_param.tobytes() == param.tobytes()
        for slot, value in slots(optimizer).items():
            assert own_state[slot].tobytes() == value.tobytes()


@pytest.mark.parametrize("convention", CONVENTIONS["SGD"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_as_a_moving_average(convention: Any, nesterov: bool) -> None:
    """It is momentum with a smaller learning rate, as SGD's documentation says."""
    rng = np.random.default_rng(3)
    rate, beta = 0.1, 0.9
    param = rng.normal(size=20)
    expected, average = param.copy(), np.zeros(20)
    optimizer = instep.SGD(
        param,
        learning_rate=rate * (1 - beta),
        momentum=beta,
        nesterov=nesterov,
        convention=convention,
    )
    for _ in range(50):
        grad = rng.normal(size=20)
        optimizer.step(grad)
        average = beta * average + (1 - beta) * grad
        expected -= rate * (beta * average + (1 - beta) * grad if nesterov else average)
        np.testing.assert_allclose(param, expected, rtol=1e-12)
