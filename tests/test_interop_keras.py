"""State from and to Keras: its forms and order, or an error and no change."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from journeys import bound, grown, put, same, stored, unchanged
from trajectories.compare import is_installed, optimizer
from trajectories.problem import Array

import instep
from instep import interop


def test_keras_forms_of_variables() -> None:
    """Pairs, a mapping, arrays alone and things with a path: the same state."""
    case, theirs = stored("RMSprop", "keras")
    variables = theirs.states[0]
    forms: list[Any] = [
        dict(variables),
        [array for _, array in variables],
        [Variable(*each) for each in variables],
        tuple([path, array] for path, array in variables),
    ]
    opt = optimizer(case, [p.copy() for p in theirs.params[1]])
    interop.from_keras(opt, variables)
    expected = opt.state_dict()
    assert expected["hyperparameters"]["learning_rate"] == float(np.float32(0.1))
    for form in forms:
        other = optimizer(case, [p.copy() for p in theirs.params[1]])
        interop.from_keras(other, form)
        assert same(other.state_dict(), expected)


class Variable:
    """What a Keras variable shows of itself."""

    def __init__(self, path: str, value: Array) -> None:
        self.path, self._value = path, value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self._value


def test_keras_order() -> None:
    w, b = np.ones((2, 3)), np.zeros(2)
    opt = instep.Adam({"w": w, "b": b}, convention="keras")
    opt.step({"w": grown(w), "b": grown(b, 2.0)})
    shapes = [array.shape for array in interop.to_keras(opt, order=[w, b])]
    assert shapes == [(), (), (2, 3), (2, 3), (2,), (2,)]
    before = opt.state_dict()
    interop.from_keras(opt, interop.to_keras(opt, order=[w, b]), order=[w, b])
    assert same(opt.state_dict(), before)


def equal_shapes() -> tuple[list[Array], list[Array]]:
    """Return five arrays and the twelve variables of their Adam, which shapes do not tell apart."""
    params: list[Array] = [np.ones(3) for _ in range(5)]
    slots = [np.full(3, float(k)) for k in range(10)]
    return params, [np.array(4), np.array(0.5), *slots]


@pytest.mark.parametrize("name", [str, int, "arr_{}".format])
def test_names_that_are_positions(name: Callable[[int], Any]) -> None:
    """In the order of text, as h5py and others walk them: 0, 1, 10, 11, 2."""
    params, variables = equal_shapes()
    by_text = {name(k): variables[k] for k in sorted(range(12), key=str)}
    opt = instep.Adam(params, convention="keras")
    interop.from_keras(opt, by_text)
    assert [slots["m"][0] for slots in opt.state] == [0, 2, 4, 6, 8]
    assert [slots["v"][0] for slots in opt.state] == [1, 3, 5, 7, 9]
    by_text[name(14)] = by_text.pop(name(3))
    message = unchanged(opt, lambda: interop.from_keras(opt, by_text))
    expected = "ValueError: variables: expected all positions from 0 to 14, got none of 3"
    assert message == expected


def test_savez(tmp_path: Any) -> None:
    params, variables = equal_shapes()
    np.savez(tmp_path / "state.npz", *variables)
    opt = instep.Adam(params, convention="keras")
    with np.load(tmp_path / "state.npz") as file:
        interop.from_keras(opt, file)
    assert [slots["m"][0] for slots in opt.state] == [0, 2, 4, 6, 8]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras
@pytest.mark.parametrize("mixed", [False, True])
def test_files_of_keras(tmp_path: Any, mixed: bool) -> None:
    """Whole files and their groups, of Keras itself; with mixed_float16 the inner optimizer's."""
    h5py = pytest.importorskip("h5py")
    if not is_installed("keras"):
        pytest.skip("keras is not installed")
    from trajectories.with_keras import keras

    policy = "mixed_float16" if mixed else "float32"
    layers = [keras.layers.Dense(3, use_bias=False, dtype=policy) for _ in range(6)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    theirs = keras.optimizers.Adam()
    model.compile(keras.optimizers.LossScaleOptimizer(theirs) if mixed else theirs, "mse")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("f4")
    model.fit(x, x, epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "of.weights.h5")
    expected = [np.asarray(v) for v in theirs.variables]

    def check(variables: Any) -> None:
        opt = instep.Adam([np.array(v) for v in model.trainable_variables], convention="keras")
        interop.from_keras(opt, variables)
        assert same(interop.to_keras(opt), expected)

    with (
        zipfile.ZipFile(tmp_path / "model.keras") as archive,
        archive.open("model.weights.h5") as weights,
        h5py.File(weights) as file,
    ):
        check(file)
    with h5py.File(tmp_path / "of.weights.h5") as file:
        check(file)
        check(file["optimizer"])
        check(file["optimizer/inner_optimizer/vars" if mixed else "optimizer/vars"])
        if mixed:
            with pytest.raises(ValueError, match=r"got 18, as a LossScale.* its inner_optimizer"):
                check(file["optimizer/vars"])
    if mixed:
        with pytest.raises(ValueError, match=r"variables\[0\]: .* LossScale.* its inner_optimizer"):
            check([(v.path, np.asarray(v)) for v in model.optimizer.variables])


def test_variables_of_a_loss_scale_optimizer() -> None:
    params, variables = equal_shapes()
    own: list[Any] = [np.array(4), np.array(0.0), np.array(3), np.array(2.0)]
    opt = instep.Adam(params, convention="keras")
    message = unchanged(opt, lambda: interop.from_keras(opt, [*own, *variables]))
    assert re.match(r"ValueError: variables: .* got 16, as .* of its inner_optimizer", message)
    named = [("loss_scale_optimizer_1/iteration", np.array(4)), *variables[1:]]
    message = unchanged(opt, lambda: interop.from_keras(opt, named))
    assert re.match(
        r"ValueError: variables\[0\]: got 'loss_scale.* of its inner_optimizer", message
    )


WRONG_KERAS: list[tuple[Callable[[Any], None], str]] = [
    (put(-1, ...), r"ValueError: variables: expected the 10 .* Adam .* 4 arrays .* got 9"),
    (
        put(slice(9, None), [("adam/x", np.ones(1))] * 3),
        r"ValueError: variables\[9\]: expected the",
    ),
    (put(1, ...), r"ValueError: variables\[1\]: expected the variable 'learning_rate', got 'adam"),
    (
        put(0, ("lamb_3/iteration", np.array(3))),
        r"ValueError: variables\[0\]: expected the variables of Keras's Adam, .* those of Lamb",
    ),
    (
        put(4, ("adam/array_1_velocity", np.ones(7))),
        r"ValueError: variables\[4\]: expected the variable 'momentum' of params\[1\], got 'adam/",
    ),
    (
        put(4, ("adam/array_1_momentum", np.ones(8, np.float32))),
        r"ValueError: variables\[4\] \('adam/array_1_momentum'\): expected a float32 array "
        r"of shape \(7,\) for params\[1\], got a float32 array of shape \(8,\)",
    ),
    (
        put(0, ("adam/iteration", np.array(-1))),
        r"ValueError: variables\[0\]: expected a whole number",
    ),
    (put(0, ("adam/iteration", np.array([1, 2]))), r"ValueError: variables\[0\] .* finite number"),
    (
        put(1, ("adam/learning_rate", np.array(-1.0))),
        "ValueError: learning_rate: expected a finite",
    ),
    (
        put(1, ("adam/learning_rate", np.array(np.nan))),
        r"ValueError: variables\[1\] .* finite number",
    ),
    (put(3, ("adam/array_0_velocity", "none")), r"ValueError: variables\[3\] .* float32 array"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_KERAS)
def test_wrong_keras(change: Callable[[Any], None], message: str) -> None:
    _, theirs = stored("Adam", "keras", problem="vectors")
    variables = list(theirs.states[0])
    del variables[2:6]  # the accumulators
    change(variables)
    opt = bound("Adam", "keras", theirs)
    assert re.match(message, unchanged(opt, lambda: interop.from_keras(opt, variables)))


@pytest.mark.parametrize("variables", [None, 3, "text", np.ones(3)])
def test_keras_variables_of_another_kind(variables: Any) -> None:
    opt = bound("Lion", "keras", stored("Lion", "keras")[1])
    message = unchanged(opt, lambda: interop.from_keras(opt, variables))
    assert message.startswith("TypeError: variables: expected a list of (path, array)")


@pytest.mark.parametrize("theirs", ["SGD", "RMSprop", "Adam", "Adamax", "Nadam", "Ftrl", "Lamb"])
@pytest.mark.parametrize("mine", ["SGD", "Adagrad", "Lion", "Adam", "AdamW", "Lamb", "Nadam"])
def test_keras_state_of_another_rule(mine: str, theirs: str) -> None:
    _, journey_of_theirs = stored(theirs, "keras")
    opt = bound(mine, "keras", journey_of_theirs)
    if mine != theirs:
        message = unchanged(opt, lambda: interop.from_keras(opt, journey_of_theirs.states[0]))
        assert re.match(rf"ValueError: variables\[0\]: .* Keras's {mine}, .* of {theirs}", message)


def test_what_keras_has_no_place_for() -> None:
    opt = instep.Adafactor([np.ones((2, 3))], momentum=0.5, convention="keras")
    message = unchanged(opt, lambda: interop.to_keras(opt))
    assert message.startswith("ValueError: params[0]: expected no 'momentum' in its state")


@pytest.mark.parametrize(
    ("rule", "keywords"),
    [
        ("SGD", {"dampening": 0.5}),
        ("Adagrad", {"learning_rate_decay": 0.5}),
        ("RMSprop", {"eps_in_sqrt": False}),
        ("RMSprop", {"initial_accumulator_value": 0.5}),
        ("Adam", {"epsilon_root": 0.5}),
        ("Nadam", {"momentum_decay": 0.5}),
        ("Adafactor", {"weight_decay_rate": 0.5}),
        ("Muon", {"consistent_rms": 0.5}),
        ("ScheduleFreeAdamW", {"weight_lr_power": 1.0}),
    ],
)
def test_hyperparameters_that_keras_lacks(rule: str, keywords: dict[str, Any]) -> None:
    opt = getattr(instep, rule)([np.ones((2, 3))], convention="keras", **keywords)
    ((name, value),) = keywords.items()
    expected = f"ValueError: {name}: expected .* Keras's {rule} has no such .*; got {value}"
    assert re.match(expected, unchanged(opt, lambda: interop.to_keras(opt)))
    assert re.match(expected, unchanged(opt, lambda: interop.from_keras(opt, [])))


def test_groups_that_keras_has_no_place_for() -> None:
    w, b = np.ones(3), np.zeros(2)
    group: dict[str, Any]
    for group in ({"learning_rate": 0.5}, {"beta_1": 0.5}, {"weight_decay": 0.2}, {"clipnorm": 1}):
        opt = instep.Adam({"w": w, "b": instep.Group(b, **group)}, convention="keras")
        ((name, value),) = group.items()
        message = rf"^params\['b'\]: expected {name}=.* Keras's Adam has no groups; got {value}"
        with pytest.raises(ValueError, match=message):
            interop.to_keras(opt)
    for group in ({}, {"weight_decay": 0.0}, {"learning_rate": 0.001}):
        opt = instep.Adam([w, instep.Group(b, **group)], convention="keras", weight_decay=0.1)
        assert len(interop.to_keras(opt)) == 6
