"""Moving to other frameworks and back: the same numbers, in the same order, on the same terms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from journeys import STORED
from numpy.typing import NDArray
from trajectories.compare import is_installed, optimizer
from trajectories.interop import CASES, FRAMEWORKS, LEG, Journey, journey
from trajectories.problem import Array, Case, gradients, start

import instep
from instep import interop

TAKE_OVER: dict[str, Callable[..., None]] = {
    "torch": interop.from_torch,
    "keras": interop.from_keras,
    "optax": interop.from_optax,
    "tfjs": interop.from_tfjs,
}
HAND_OVER: dict[str, Callable[[instep.Optimizer, Any], Any]] = {
    "torch": lambda opt, _: interop.to_torch(opt),
    "keras": lambda opt, _: interop.to_keras(opt),
    "optax": interop.to_optax,
    "tfjs": lambda opt, _: interop.to_tfjs(opt),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch from": lambda opt, **k: interop.from_torch(opt, {}, **k),
    "torch to": interop.to_torch,
    "keras from": lambda opt, **k: interop.from_keras(opt, [], **k),
    "keras to": interop.to_keras,
    "optax from": lambda opt: interop.from_optax(opt, ()),
    "optax to": lambda opt: interop.to_optax(opt, ()),
    "tfjs from": lambda opt, **k: interop.from_tfjs(opt, [], **k),
    "tfjs to": interop.to_tfjs,
}


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    """Restore what the journeys with PyTorch change."""
    yield
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_default_dtype(torch.float32)


def test_no_framework_is_imported() -> None:
    code = (
        "import instep.interop, sys; print({'torch', 'keras', 'optax', 'jax'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n"


def tolerance(case: Case) -> float:
    return 2e-5 if case.dtype == "float32" else 1e-10


def assert_close(mine: Sequence[Array], theirs: Journey, leg: int, case: Case) -> None:
    """Compare parameters relative to the largest magnitude that each element has had."""
    for k, array in enumerate(mine):
        largest = np.max([np.abs(params[k]) for params in theirs.params], axis=0)
        error = np.abs(array - theirs.params[leg][k])
        assert np.all(error <= tolerance(case) * largest), (leg, k)


def arrays_of(state: Any, path: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays and numbers of a state with their places."""
    if hasattr(state, "_fields"):
        state = state._asdict()
    if isinstance(state, dict):
        for key, part in state.items():
            yield from arrays_of(part, f"{path}/{key}")
    elif isinstance(state, (list, tuple)):
        for k, part in enumerate(state):
            yield from arrays_of(part, f"{path}/{k}")
    else:
        yield path, np.asarray(state)


def named(values: Sequence[Array], variables: Sequence[tuple[str, Array]]) -> list[Any]:
    """Return the values of Keras's variables with their paths."""
    return [(path, value) for (path, _), value in zip(variables, values, strict=True)]


def assert_same_state(mine: Any, theirs: Any, case: Case) -> None:
    """Compare states, each array relative to its largest element."""
    if case.convention == "torch":
        assert mine.keys() == theirs.keys()
        for group, other in zip(mine["param_groups"], theirs["param_groups"], strict=True):
            assert group.keys() == other.keys() - {
                "foreach",
                "capturable",
                "differentiable",
                "fused",
            }
            for name, value in group.items():
                assert np.array_equal(value, other[name]), name
        mine, theirs = mine["state"], theirs["state"]
    elif case.convention == "keras":
        mine = dict(named(mine, theirs))
        theirs = dict(theirs)
    elif case.convention == "tfjs":
        endings = [each["name"].split("/")[-1] for each in theirs]
        assert [each["name"].split("/")[-1] for each in mine] == endings
        mine, theirs = (
            {
                f"{k} {ending}": np.asarray(each["tensor"])
                for k, (ending, each) in enumerate(zip(endings, weights, strict=True))
                if (case.rule, ending) != ("RMSprop", "momentum") or "momentum" in case.keywords
            }
            for weights in (mine, theirs)
        )
    found, expected = dict(arrays_of(mine)), dict(arrays_of(theirs))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        if case.rule == "Adafactor" and name.endswith("velocity") and array.ndim > 1:
            continue  # Keras does not use it
        largest = np.abs(array).max(initial=0)
        assert np.all(np.abs(found[name] - array) <= tolerance(case) * largest), name


def goes_on(case: Case, params: list[Array], *, bare: bool = False) -> instep.Optimizer:
    """Return instep's optimizer, with `bare` without the hyperparameters of the case."""
    if bare:
        cls: Any = getattr(instep, case.rule)
        made: instep.Optimizer = cls(params, convention=case.convention)
    else:
        made = optimizer(case, params)
    return made


@pytest.mark.parametrize(
    ("case", "theirs"),
    [pytest.param(case, j, id=f"{case.convention} {case.name}") for case, j in STORED],
)
def test_stored_journey(case: Case, theirs: Journey) -> None:
    """From their state after a leg, the next leg ends in their next state, and so on."""
    calls = gradients(case.problem, case.dtype)
    params = [p.copy() for p in theirs.params[1]]
    opt = goes_on(case, params, bare=case.convention == "torch")
    TAKE_OVER[case.convention](opt, theirs.states[0])
    hand_over, like = HAND_OVER[case.convention], theirs.states[0]
    assert_same_state(hand_over(opt, like), theirs.states[0], case)
    for leg in (1, 2):
        for grads in calls[leg * LEG : (leg + 1) * LEG]:
            opt.step(list(grads))
        assert_close(params, theirs, leg + 1, case)
        assert_same_state(hand_over(opt, like), theirs.states[leg], case)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.convention} {case.name}") for case in CASES]
)
def test_there_here_and_there_again(case: Case) -> None:
    if not is_installed(case.convention):
        pytest.skip(f"{case.convention} is not installed")
    framework: Any = FRAMEWORKS[case.convention]
    calls = gradients(case.problem, case.dtype)

    first = framework(case, start(case.problem, case.dtype))
    for grads in calls[:LEG]:
        first.step(grads)
    params = first.params
    opt = goes_on(case, params, bare=case.convention == "torch")
    TAKE_OVER[case.convention](opt, first.state)
    for grads in calls[LEG : 2 * LEG]:
        opt.step(list(grads))
    second = framework(case, params, **({"bare": True} if case.convention == "torch" else {}))
    like = second.state if case.convention == "optax" else None
    second.load(HAND_OVER[case.convention](opt, like))
    for grads in calls[2 * LEG :]:
        second.step(grads)
    assert_close(second.params, journey(case), 3, case)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_optimizers(name: str) -> None:
    act, convention = FUNCTIONS[name], name.split()[0]
    p = [np.ones(3)]
    with pytest.raises(TypeError, match="optimizer: expected an optimizer of instep, got list"):
        act(p)
    with pytest.raises(
        ValueError, match=rf"optimizer: expected one with convention='{convention}'"
    ):
        act(instep.Adam(p))
    with pytest.raises(RuntimeError, match=r"no parameters yet; call build"):
        act(instep.Adam(learning_rate=0.1, convention=convention))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"optimizer: expected one of 'SGD', .*; got <Adamax"):
        interop.to_tfjs(instep.Adamax(p, convention="tfjs"))


@pytest.mark.parametrize("name", ["torch to", "keras to", "tfjs to"])
def test_wrong_order(name: str) -> None:
    act = FUNCTIONS[name]
    p = [np.ones(3), np.ones(2)]
    opt = instep.Adam(p, convention=name.split()[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="order: expected a list of the 2 arrays"):
        act(opt, order=3)
    with pytest.raises(ValueError, match="order: expected the 2 arrays that were bound, got 1"):
        act(opt, order=p[:1])
    with pytest.raises(ValueError, match=r"order\[1\]: .* each once; got params\[0\]"):
        act(opt, order=[p[0], p[0]])
    with pytest.raises(ValueError, match=r"order\[0\]: .* got another one"):
        act(opt, order=["a", p[0]])


def test_a_class_of_ones_own() -> None:
    class Mine(instep.AdamW):
        pass

    opt = Mine([np.ones(3)], convention="torch")
    assert interop.to_torch(opt)["param_groups"][0]["decoupled_weight_decay"] is True


@pytest.mark.parametrize("name", FUNCTIONS)
def test_counts_from_another_first_step(name: str) -> None:
    cls: Any = instep.Adam
    opt = cls([np.ones(3)], learning_rate=0.1, first_step=2, convention=name.split()[0])
    with pytest.raises(ValueError, match=r"first_step: expected 1, where .* counts from; got 2"):
        FUNCTIONS[name](opt)


def test_factors_on_learning_rates() -> None:
    """The rate goes there as it is in force."""
    w, b = np.ones(3), np.zeros(2)
    keras = instep.Adam([w], learning_rate=0.5, learning_rate_factor=0.25, convention="keras")
    assert interop.to_keras(keras)[1] == 0.125
    interop.from_keras(keras, interop.to_keras(keras))
    assert (keras.learning_rate, keras.learning_rate_factor) == (0.125, 1)

    group = instep.Group(b, learning_rate_factor=0.5)
    torch = instep.Adam([w, group], convention="torch", learning_rate=0.3)
    d = interop.to_torch(torch)
    assert [each["lr"] for each in d["param_groups"]] == [0.3, 0.15]
    before = torch.state_dict()
    interop.from_torch(torch, d)
    assert str(torch.state_dict()) == str(before)
    d["param_groups"][1]["lr"] = 0.2
    with pytest.raises(ValueError, match=r"\[1\]\['lr'\]: expected 0.15, as here, .* 0.5, which"):
        interop.from_torch(torch, d)
    schedule = instep.schedules.ExponentialDecay(0.5, decay_steps=1, decay_rate=0.5)
    torch = instep.Adam([w, group], convention="torch", learning_rate=schedule)
    assert [each["lr"] for each in interop.to_torch(torch)["param_groups"]] == [0.5, 0.25]


def test_momentum_that_has_not_begun() -> None:
    """Switched on after some updates: its first update is its buffer's first, there as here."""
    p = [np.ones(3)]
    opt = instep.SGD(p, learning_rate=0.1, convention="torch")
    opt.step([np.ones(3)])
    opt.momentum = 0.9
    assert interop.to_torch(opt)["state"] == {}
    opt.dampening = 0.5
    d = interop.to_torch(opt)
    d["state"] = {0: {"momentum_buffer": np.full(3, 2.0)}}
    interop.from_torch(opt, d)
    opt.step([np.ones(3)])
    assert np.allclose(opt.state[0]["momentum"], 0.9 * 2 + 0.5)


@pytest.mark.parametrize("convention", ["keras", "optax"])
def test_the_average_of_another_beta(convention: str) -> None:
    """The average of schedule-free rules hangs on the beta_1 of the last update."""
    cls: Any = instep.ScheduleFreeAdamW
    opt = cls([np.ones(3)], learning_rate=0.1, convention=convention)
    empty = np.zeros((), np.int32)
    number = np.array(0.9)
    like = {
        "b1": number,
        "weight_sum": number,
        "step_count": empty + 1,
        "max_lr": number,
        "base_optimizer_state": ({"count": empty, "nu": [np.zeros(3)]},),
        "z": [np.ones(3)],
    }
    for _ in range(3):
        opt.step([np.ones(3)])
    state = HAND_OVER[convention](opt, like)
    other = cls([np.ones(3)], learning_rate=0.1, convention=convention)
    other.beta_1 = 0.5
    other.step([np.ones(3)])
    other.beta_1 = 0.9
    with pytest.raises(ValueError, match=r"beta_1: expected 0.5 for params\[0\], as in its last"):
        HAND_OVER[convention](other, like)
    TAKE_OVER[convention](other, state)
    other.params[0][...] = opt.params[0]
    for each in (opt, other):
        each.step([np.full(3, 0.5)])
    assert np.array_equal(opt.params, other.params)
    assert np.array_equal(opt.eval_params(), other.eval_params())
