"""State from and to Optax: its forms and structures, or an error and no change."""

from __future__ import annotations

import functools
import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from journeys import bound, grown, put, same, stored, unchanged
from trajectories.compare import optimizer

import instep
from instep import interop


class ScaleByAdamState(NamedTuple):
    """As Optax's."""

    count: Any
    mu: Any
    nu: Any


class EmptyState(NamedTuple):
    """As Optax's."""


class MaskedNode(NamedTuple):
    """As Optax's."""


class MaskedState(NamedTuple):
    """As Optax's."""

    inner_state: Any


class MultiStepsState(NamedTuple):
    """As Optax's."""

    mini_step: Any
    gradient_step: Any
    inner_opt_state: Any
    acc_grads: Any
    skip_state: Any = ()


def count(number: int) -> Any:
    return np.array(number, np.int32)


def moments(params: Any, m: float, v: float, updates: int) -> ScaleByAdamState:
    return ScaleByAdamState(count(updates), grown(params, m), grown(params, v))


def adam(params: Any, **keywords: Any) -> instep.Adam:
    return instep.Adam(params, learning_rate=0.1, convention="optax", **keywords)


def as_flax(tree: Any) -> Any:
    """Return what flax's to_state_dict makes of a state."""
    if hasattr(tree, "_fields"):
        return {name: as_flax(part) for name, part in tree._asdict().items()}
    if isinstance(tree, (tuple, list)):
        return {str(k): as_flax(part) for k, part in enumerate(tree)}
    if isinstance(tree, dict):
        return {str(key): as_flax(part) for key, part in tree.items()}
    return tree


def test_forms_of_a_state() -> None:
    """Named tuples, flax's dicts, other mappings: the same state, and each form comes back."""
    params = {"layers": [np.ones((2, 3)) * k for k in range(12)], "b": (np.ones(2), np.ones(3))}
    state = ((EmptyState(), None), (moments(params, 0.5, 0.25, 7), EmptyState()))
    for k, array in enumerate(state[1][0].mu["layers"]):
        array[...] = k
    opt = adam(params)
    for form in (state, as_flax(state), list(state), OrderedDict(as_flax(state))):
        opt.step(grown(params))
        interop.from_optax(opt, form)
        assert opt.iterations == 7
        assert [float(slots["m"][0, 0]) for slots in opt.state["layers"]] == list(range(12))
        back = interop.to_optax(opt, form)
        assert type(back) is type(form)
        assert same(as_flax(back), as_flax(state))
    kinds = type(interop.to_optax(opt, state)[1][0]), type(interop.to_optax(opt, state)[0][0])
    assert kinds == (ScaleByAdamState, EmptyState)


def test_named_tuples_as_parameters() -> None:
    Layer = namedtuple("Layer", "w b")
    params = Layer(np.ones((2, 2)), np.ones(2))
    state = (moments(list(params), 0.5, 0.25, 3),)
    for kind in (Layer._make, tuple, list):
        trees = {"mu": kind(state[0].mu), "nu": kind(state[0].nu)}
        form = (state[0]._replace(**trees),)
        for each in (form, as_flax(form)):
            opt = adam(params)
            interop.from_optax(opt, each)
            assert np.all(opt.state[1]["m"] == 0.5)


def test_what_is_no_parameter() -> None:
    """Stands in Optax's structures, too, and is left alone there."""
    params = {"w": np.ones(3), "n": np.array(5), "count": 7, "none": None}
    opt = adam(params, ignore=lambda path, each: getattr(each, "ndim", 0) == 0)
    mu = {"w": np.full(3, 0.5), "n": np.array(0), "count": np.array(0), "none": None}
    state = (ScaleByAdamState(count(3), mu, mu),)
    interop.from_optax(opt, state)
    assert opt.state["w"]["m"][0] == 0.5
    assert same(as_flax(interop.to_optax(opt, state)), as_flax(state))


def test_one_array() -> None:
    param = np.ones(3)
    opt = adam(param)
    interop.from_optax(opt, (moments(param, 0.5, 0.25, 3), EmptyState()))
    assert (opt.iterations, opt.state["m"][0]) == (3, 0.5)


def test_what_is_given_stays_as_it_is() -> None:
    params = [np.ones(3)]
    state = (moments(params, 0.5, 0.25, 3),)
    opt = adam(params)
    interop.from_optax(opt, state)
    new = interop.to_optax(opt, state)
    new[0].mu[0][...] = 9
    opt.step(grown(params))
    assert np.all(state[0].mu[0] == 0.5)
    assert opt.state[0]["m"][0] < 1


def test_partitions_are_groups() -> None:
    """Several states of a rule, each for some of the arrays."""
    w, b = np.ones((2, 3)), np.ones(2)
    opt = adam({"w": w, "b": instep.Group(b, learning_rate=0.5)})
    of_w = ScaleByAdamState(
        count(4), {"w": w * 2, "b": MaskedNode()}, {"w": w * 4, "b": MaskedNode()}
    )
    of_b = ScaleByAdamState(count(4), {"w": {}, "b": b * 3}, {"w": {}, "b": b * 5})
    state = ({"slow": MaskedState((of_w, EmptyState())), "fast": MaskedState((of_b,))},)
    interop.from_optax(opt, state)
    assert [opt.state[name]["m"].max() for name in "wb"] == [2, 3]
    assert [opt.state[name]["v"].max() for name in "wb"] == [4, 5]
    back = interop.to_optax(opt, state)
    assert same(as_flax(back), as_flax(state))
    assert isinstance(back[0]["slow"].inner_state[0].mu["b"], MaskedNode)
    del state[0]["fast"]
    message = unchanged(opt, lambda: interop.from_optax(opt, state))
    assert re.match(
        r"ValueError: state: .* Optax's adam .*; got none with 'm' of params\['b'\]", message
    )


def test_windows() -> None:
    params = [np.ones(3)]
    inner = (moments(params, 0.5, 0.25, 3),)
    state = MultiStepsState(count(0), count(3), inner, grown(params, 7.0))
    opt = adam(params, gradient_accumulation_steps=2)
    interop.from_optax(opt, state)
    assert (opt.iterations, opt.state[0]["m"][0]) == (3, 0.5)
    assert not interop.to_optax(opt, state).acc_grads[0].any()
    message = unchanged(opt, lambda: interop.from_optax(opt, state._replace(mini_step=count(1))))
    assert message.startswith("ValueError: state.mini_step: expected 0, since gradients that wait")
    opt.step(grown(params))
    message = unchanged(opt, lambda: interop.to_optax(opt, state))
    assert message.startswith("ValueError: optimizer: expected no gradients that wait for their")
    opt = adam(params)
    message = unchanged(opt, lambda: interop.from_optax(opt, state))
    assert message.startswith("ValueError: state.mini_step: expected the state of Optax's adam")


def test_counts() -> None:
    """One count everywhere; where there is none, that of here, unless a schedule needs it."""
    params = [np.ones(3)]
    opt = instep.SGD(params, learning_rate=0.1, momentum=0.9, convention="optax")
    state: Any = ({"trace": [np.full(3, 2.0)]}, {})
    interop.from_optax(opt, state)
    assert opt.iterations == 1
    opt.step([np.ones(3)])
    assert np.allclose(opt.state[0]["momentum"], 0.9 * 2 + 1)
    interop.from_optax(opt, (*state, {"count": count(5)}))
    assert opt.iterations == 5
    assert interop.to_optax(opt, (*state, {"count": count(0)}))[2]["count"] == 5
    twice = (*state, {"count": count(5)}, {"count": count(6)})
    message = unchanged(opt, lambda: interop.from_optax(opt, twice))
    assert message == (
        "ValueError: state: expected the same count of updates everywhere, got "
        "6 in state[3].count, 5 in state[2].count"
    )
    schedule = instep.schedules.ExponentialDecay(1.0, decay_steps=10, decay_rate=0.5)
    opt.learning_rate = schedule
    message = unchanged(opt, lambda: interop.from_optax(opt, state))
    assert message.startswith("ValueError: state: expected the count of a schedule")
    most = 2**31 - 1
    d = opt.state_dict()
    d["iterations"] = d["calls"] = most + 5
    opt.load_state_dict(d)
    assert interop.to_optax(opt, (*state, {"count": count(0)}))[2]["count"] == most


WRONG_OPTAX: list[tuple[Callable[[Any], None], str]] = [
    (put(0, "nu", ...), r"ValueError: state\[0\]\['count'\]: expected the state .* adam .*count"),
    (put(0, "more", np.ones(3)), r"ValueError: state\[0\]\['count'\]: expected the state"),
    (put(0, {}), r"ValueError: state: expected the state .* got none with 'm' of params\[0\]"),
    (put(0, np.ones(3)), r"ValueError: state\[0\]: expected .* got ndarray of shape \(3,\)"),
    (put(0, "count", count(-1)), r"ValueError: state\[0\].count: expected a whole number >= 0"),
    (put(0, "count", np.ones(2)), r"ValueError: state\[0\].count: expected a finite number"),
    (
        put(0, "mu", 1, np.ones(8, np.float32)),
        r"ValueError: state\[0\].mu\[1\]: expected a float32 array of shape \(7,\) for "
        r"params\[1\], got a float32 array of shape \(8,\)",
    ),
    (
        put(0, "mu", 1, np.ones(7)),
        r"ValueError: state\[0\].mu\[1\]: expected a float32 .* got a float64",
    ),
    (
        put(0, "mu", [np.ones(3)]),
        r"ValueError: state\[0\].mu: expected the structure of the parameters, list of 4; got list "
        r"of 1",
    ),
    (put(0, "mu", 2, None), r"ValueError: state: .* got none with 'm' of params\[2\]"),
    (put(0, "mu", 2, "none"), r"ValueError: state\[0\].mu\[2\]: expected a float32 array"),
    (
        put(0, "inner_state", ()),
        r"ValueError: state\[0\]: .* got \(count, mu, nu, inner_state\), of which give the inner",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG_OPTAX)
def test_wrong_optax(change: Callable[[Any], None], message: str) -> None:
    _, theirs = stored("Adam", "optax", problem="vectors")
    ((first, *rest),) = theirs.states[0]
    state: Any = [{**first}, *rest]
    state[0]["mu"], state[0]["nu"] = list(state[0]["mu"]), list(state[0]["nu"])
    change(state)
    opt = bound("Adam", "optax", theirs, learning_rate=0.1)
    given = unchanged(opt, lambda: interop.from_optax(opt, state))
    assert re.match(message, given), given
    given = unchanged(opt, lambda: interop.to_optax(opt, state))
    assert re.match(message.replace("state", "like", 1), given), given


@pytest.mark.parametrize("state", [None, 3, "text", np.ones(3), ()])
def test_optax_states_of_another_kind(state: Any) -> None:
    opt = bound("Lion", "optax", stored("Lion", "optax", problem="vectors")[1], learning_rate=0.1)
    message = unchanged(opt, lambda: interop.from_optax(opt, state))
    assert message.startswith("ValueError: state: expected the state of Optax's lion, (count, mu)")


@pytest.mark.parametrize(
    "theirs", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "Lion", "Adan"]
)
@pytest.mark.parametrize("mine", ["SGD", "Adagrad", "RMSprop", "Adadelta", "AdamW", "Lion", "Adan"])
def test_optax_state_of_another_rule(mine: str, theirs: str) -> None:
    _, journey_of_theirs = stored(theirs, "optax", problem="vectors")
    keywords = {"momentum": 0.9} if mine == "SGD" else {}
    opt = bound(mine, "optax", journey_of_theirs, learning_rate=0.1, **keywords)
    state = journey_of_theirs.states[0]
    if theirs == "SGD":
        state = [{"trace": grown(opt.params)}]
    if mine == theirs or (mine, theirs) == ("AdamW", "Adam"):
        return interop.from_optax(opt, state)
    message = unchanged(opt, lambda: interop.from_optax(opt, state))
    assert re.match(rf"ValueError: state.*: expected the state of Optax's {mine.lower()}", message)
    return None


def test_settings_must_agree() -> None:
    case, theirs = stored("ScheduleFreeSGD", "optax", problem="vectors")
    opt = optimizer(case, [p.copy() for p in theirs.params[1]])
    opt.beta_1 = 0.5
    message = unchanged(opt, lambda: interop.from_optax(opt, theirs.states[0]))
    assert message.startswith("ValueError: state[0].b1: expected beta_1=0.5, as here; got 0.80")
    case, theirs = stored("Muon", "optax", problem="matrices")
    opt = optimizer(case, [p.copy() for p in theirs.params[1]])
    opt.ns_coefficients = (2.0, -1.5, 0.5)
    message = unchanged(opt, lambda: interop.from_optax(opt, theirs.states[0]))
    assert "ns_coeffs: expected ns_coefficients=(2.0, -1.5, 0.5), as here; got [3.44" in message


def test_numbers_of_all_arrays() -> None:
    """Optax has one where here each array has its own, which may be others."""
    case, theirs = stored("Prodigy", "optax", problem="vectors")
    opt = optimizer(case, [p.copy() for p in theirs.params[1]])
    interop.from_optax(opt, theirs.states[0])
    state = theirs.states[0]
    message = unchanged(opt, lambda: interop.from_optax(opt, [state, state]))
    assert "expected one number for all arrays" in message
    d = opt.state_dict()
    d["arrays"]["params[0]"]["r"] = np.array(5.0)
    opt.load_state_dict(d)
    message = unchanged(opt, lambda: interop.to_optax(opt, state))
    assert message.startswith("ValueError: optimizer: expected the same 'r' in the state of every")


def test_what_optax_has_no_place_for() -> None:
    params = [np.ones(3)]
    made: list[tuple[Any, str]] = [
        (instep.SGD(params, learning_rate=0.1, dampening=0.5, convention="optax"), "dampening"),
        (
            instep.Adagrad(params, learning_rate=0.1, learning_rate_decay=0.5, convention="optax"),
            "learning_rate_decay",
        ),
        (instep.Adafactor(params, relative_step=True, convention="optax"), "relative_step"),
        (
            instep.Muon(params, learning_rate=0.1, rms_rate=0.5, convention="optax"),
            "rms_rate",
        ),
    ]
    for opt, name in made:
        for act in (interop.from_optax, interop.to_optax):
            message = unchanged(opt, functools.partial(act, opt, ()))
            assert re.match(rf"ValueError: {name}: expected .* Optax's .* has no such", message)


def test_axes_of_sm3() -> None:
    params = [np.ones((2, 3))]
    opt = instep.SM3(params, learning_rate=0.1, convention="optax")
    axes = [np.ones(2), np.ones(3)]
    interop.from_optax(opt, [{"mu": [axes], "nu": [np.ones((2, 3))]}])
    for wrong in ([*axes, np.ones(4)], axes[:1], np.ones((2, 3)), axes[::-1]):
        state = [{"mu": [wrong], "nu": [np.ones((2, 3))]}]
        message = unchanged(opt, functools.partial(interop.from_optax, opt, state))
        assert message.startswith("ValueError: state")


def test_real_forms() -> None:
    """Chains, a schedule, masks and partitions of Optax itself; flax's bytes."""
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    params = {"w": np.ones((2, 3), np.float32), "layers": [np.ones(2, np.float32)] * 11}
    decays = jax.tree.map(lambda p: p.ndim > 1, params)
    tx = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.partition(
            {
                "slow": optax.adamw(optax.exponential_decay(0.1, 10, 0.5), mask=None),
                "fast": optax.chain(optax.adam(0.5), optax.masked(optax.scale(1.0), decays)),
            },
            jax.tree.map(lambda p: "slow" if p.ndim > 1 else "fast", params),
        ),
    )
    state = tx.init(params)
    for k in range(3):
        grads = jax.tree.map(lambda p, k=k: np.full_like(p, k + 1), params)
        _, state = tx.update(grads, state, params)
    mine = jax.tree.map(np.array, params)
    opt = adam({"w": mine["w"], "layers": instep.Group(mine["layers"], learning_rate=0.5)})
    interop.from_optax(opt, state)
    assert opt.iterations == 3
    back = interop.to_optax(opt, tx.init(params))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back, state)))

    serialization = pytest.importorskip("flax.serialization")
    read = serialization.msgpack_restore(serialization.to_bytes(state))
    other = adam({"w": mine["w"], "layers": instep.Group(mine["layers"], learning_rate=0.5)})
    interop.from_optax(other, read)
    assert same(other.state_dict(), opt.state_dict())
    restored = serialization.from_state_dict(tx.init(params), interop.to_optax(other, read))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, restored, state)))


def test_injected_hyperparameters() -> None:
    optax = pytest.importorskip("optax")
    params = [np.ones(3, np.float32)]
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    state = tx.init(params)
    opt = adam(params)
    message = unchanged(opt, lambda: interop.from_optax(opt, state))
    assert "of which give the inner_state" in message
    interop.from_optax(opt, state.inner_state)
