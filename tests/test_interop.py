"""Moving to PyTorch and Keras and back: the same numbers, or an error and no change."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trajectories.compare import optimizer
from trajectories.interop import CASES, FRAMEWORKS, LEG, Journey, journey, load
from trajectories.problem import Array, Case, gradients, start

import instep
from instep import interop

STORED = list(load())
TAKE_OVER: dict[str, Callable[..., None]] = {
    "torch": interop.from_torch,
    "keras": interop.from_keras,
}
HAND_OVER: dict[str, Callable[..., Any]] = {"torch": interop.to_torch, "keras": interop.to_keras}


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    """Restore what the journeys with PyTorch change."""
    yield
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_default_dtype(torch.float32)


def tolerance(case: Case) -> float:
    return 2e-5 if case.dtype == "float32" else 1e-10


def assert_close(mine: Sequence[Array], theirs: Journey, leg: int, case: Case) -> None:
    """Compare parameters relative to the largest magnitude that each element has had."""
    for k, array in enumerate(mine):
        largest = np.max([np.abs(params[k]) for params in theirs.params], axis=0)
        error = np.abs(array - theirs.params[leg][k])
        assert np.all(error <= tolerance(case) * largest), (leg, k)


def arrays_of(state: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of either framework's state with their names."""
    if isinstance(state, dict):
        for index, slots in sorted(state["state"].items()):
            for name, array in slots.items():
                yield f"{index} {name}", array
    else:
        yield from state


def named(values: Sequence[Array], variables: Sequence[tuple[str, Array]]) -> list[Any]:
    """Return the values of Keras's variables with their paths."""
    return [(path, value) for (path, _), value in zip(variables, values, strict=True)]


def assert_same_state(mine: Any, theirs: Any, case: Case) -> None:
    """Compare states, each array relative to its largest element."""
    if isinstance(theirs, dict):
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
    else:
        mine = named(mine, theirs)
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
    assert_same_state(HAND_OVER[case.convention](opt), theirs.states[0], case)
    for leg in (1, 2):
        for grads in calls[leg * LEG : (leg + 1) * LEG]:
            opt.step(list(grads))
        assert_close(params, theirs, leg + 1, case)
        assert_same_state(HAND_OVER[case.convention](opt), theirs.states[leg], case)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.convention} {case.name}") for case in CASES]
)
def test_there_here_and_there_again(case: Case) -> None:
    pytest.importorskip(case.convention)
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
    second.load(HAND_OVER[case.convention](opt))
    for grads in calls[2 * LEG :]:
        second.step(grads)
    assert_close(second.params, journey(case), 3, case)


# PyTorch ----------------------------------------------------------------------------------------


def stored(rule: str, convention: str, *, problem: str = "missing") -> tuple[Case, Journey]:
    """Return a float32 journey."""
    return next(
        (case, theirs)
        for case, theirs in STORED
        if (case.rule, case.convention, case.problem, case.dtype)
        == (rule, convention, problem, "float32")
    )


def grown(like: Any, grad: float = 1.0) -> Any:
    """Return gradients for a structure of arrays."""
    if isinstance(like, dict):
        return {key: grown(value, grad) for key, value in like.items()}
    if isinstance(like, list):
        return [grown(value, grad) for value in like]
    return np.full_like(like, grad)


def same(one: Any, other: Any) -> bool:
    """Return whether two trees of dicts, lists and arrays are equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.array_equal(one, other))


def test_neither_framework_is_imported() -> None:
    code = "import instep.interop, sys; print({'torch', 'keras'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n"


def test_torch_tensors() -> None:
    """Tensors in, tensors out, a parameter without state, hyperparameters that are tensors."""
    torch = pytest.importorskip("torch")
    tensors = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.zeros(3))]
    theirs = torch.optim.Adam(tensors, lr=torch.tensor(0.25), betas=(0.5, 0.75))
    tensors[0].grad = torch.full((2, 3), 2.0)
    theirs.step()

    params = [p.detach().numpy().copy() for p in tensors]
    opt = instep.Adam(params, convention="torch")
    opt.step(grown(params))  # state that must go
    interop.from_torch(opt, theirs.state_dict())
    assert opt.iterations == 1
    assert (opt.learning_rate, opt.beta_1, opt.beta_2) == (0.25, 0.5, 0.75)
    assert [slots["step"] for slots in opt.state] == [1, 0]
    assert np.all(opt.state[0]["m"] == 1)
    assert not opt.state[1]["m"].any()
    assert not opt.state[1]["v"].any()


@pytest.mark.parametrize(
    "rule", sorted({case.rule for case in CASES if case.convention == "torch"})
)
def test_torch_before_the_first_step(rule: str) -> None:
    """State that has not begun goes both ways, too."""
    torch = pytest.importorskip("torch")
    name = {"Nadam": "NAdam"}.get(rule, rule)
    momentum = {"momentum": 0.5, "dampening": 0.25} if rule == "SGD" else {}
    tensor = torch.nn.Parameter(torch.arange(1.0, 4.0))
    fresh = getattr(torch.optim, name)([tensor], **momentum)

    params = [np.arange(1.0, 4.0, dtype=np.float32)]
    opt = getattr(instep, rule)(params, convention="torch")
    opt.step(grown(params))
    params[0][...] = np.arange(1.0, 4.0)
    interop.from_torch(opt, fresh.state_dict())
    d = interop.to_torch(opt)
    for slots in d["state"].values():
        slots.update({name: torch.as_tensor(slot) for name, slot in slots.items()})
    fresh.load_state_dict(d)
    for _ in range(3):
        tensor.grad = torch.full((3,), 0.5)
        fresh.step()
        opt.step(grown(params, 0.5))
    np.testing.assert_allclose(params[0], tensor.detach().numpy(), rtol=2e-5)


def test_torch_groups() -> None:
    """Groups keep their own hyperparameters and PyTorch's order in it."""
    torch = pytest.importorskip("torch")
    values = {"b1": np.ones(3), "b2": np.ones(2), "w1": np.ones((2, 3)), "w2": np.ones((3, 2))}
    decayed, others = ["w2", "w1"], ["b2", "b1"]
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}

    def make() -> Any:
        return torch.optim.AdamW(
            [
                {"params": [tensors[name] for name in decayed]},
                {"params": [tensors[name] for name in others], "weight_decay": 0.0, "lr": 0.25},
            ],
            lr=0.5,
            weight_decay=0.1,
        )

    def steps(opt: Any, count: int) -> None:
        for _ in range(count):
            for k, name in enumerate(values):
                tensors[name].grad = torch.full(values[name].shape, k + 1.0, dtype=torch.float64)
            opt.step()

    whole = make()
    steps(whole, 6)
    expected = {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}

    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    first = make()
    steps(first, 2)
    params = {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
    biases = instep.Group([params[name] for name in others], weight_decay=1.0, learning_rate=1.0)
    matrices = {name: params[name] for name in decayed}
    opt = instep.AdamW({"biases": biases, **matrices}, convention="torch")
    order = [params[name] for name in (*decayed, *others)]
    interop.from_torch(opt, first.state_dict(), order=order)
    assert [group["weight_decay"] for group in opt.groups] == [0.1, 0.0]
    assert [group["learning_rate"] for group in opt.groups] == [0.5, 0.25]
    for _ in range(2):
        grads = {name: np.full_like(params[name], k + 1) for k, name in enumerate(values)}
        matrices = {name: grads[name] for name in decayed}
        opt.step({"biases": [grads[name] for name in others], **matrices})
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    second = make()
    d = interop.to_torch(opt, order=order)
    assert [group["params"] for group in d["param_groups"]] == [[0, 1], [2, 3]]
    for slots in d["state"].values():
        slots.update({name: torch.as_tensor(slot) for name, slot in slots.items()})
    second.load_state_dict(d)
    steps(second, 2)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor.detach().numpy(), expected[name], rtol=1e-10)


def test_torch_default_order_is_that_of_the_structure() -> None:
    w, b = np.ones((2, 3)), np.zeros(2)
    opt = instep.Adagrad({"w": w, "b": b}, convention="torch")
    opt.step({"w": grown(w), "b": grown(b, 2.0)})
    assert [slots["sum"].shape for slots in interop.to_torch(opt)["state"].values()] == [
        (2,),
        (2, 3),
    ]
    d = interop.to_torch(opt, order=[w.view(), b])
    assert [slots["sum"].shape for slots in d["state"].values()] == [(2, 3), (2,)]
    before = opt.state_dict()
    interop.from_torch(opt, d, order=[w, b])
    assert same(opt.state_dict(), before)


def test_torch_schedules_and_options_of_the_loop_stay() -> None:
    _, theirs = stored("Adam", "torch")
    schedule = instep.schedules.ExponentialDecay(1.0, decay_steps=10, decay_rate=0.5)
    params = theirs.params[1]
    opt = instep.Adam(
        params, learning_rate=schedule, clipnorm=2.0, use_ema=True, convention="torch"
    )
    interop.from_torch(opt, theirs.states[0])
    assert (opt.learning_rate, opt.clipnorm, opt.l2) == (schedule, 2.0, 0.1)
    assert opt.iterations == LEG
    assert interop.to_torch(opt)["param_groups"][0]["lr"] == 0.25
    assert all(map(np.array_equal, opt.averages, params))


def test_torch_sgd_does_not_count() -> None:
    _, theirs = stored("SGD", "torch")
    opt = instep.SGD(theirs.params[1], convention="torch")
    opt.step(grown(theirs.params[1]))
    opt.step(grown(theirs.params[1]))
    interop.from_torch(opt, theirs.states[0])
    assert opt.iterations == 2
    assert [slots["step"] for slots in opt.state] == [2] * 4


def test_torch_before_the_flag_of_decoupled_decay() -> None:
    """Earlier versions of PyTorch lack the flag; scheduler and NumPy leave their traces."""
    _, theirs = stored("AdamW", "torch")
    d = copy.deepcopy(theirs.states[0])
    del d["param_groups"][0]["decoupled_weight_decay"]
    d["param_groups"][0]["betas"] = (np.float32(0.5), np.float64(0.75))
    d["param_groups"][0]["initial_lr"] = 0.1  # by a scheduler
    for slots in d["state"].values():
        slots["step"] = int(slots["step"])
    opt = instep.AdamW(theirs.params[1], convention="torch")
    interop.from_torch(opt, d)
    assert (opt.weight_decay, opt.l2, opt.beta_1, opt.beta_2) == (0.1, 0, 0.5, 0.75)


def bound(rule: str, convention: str, theirs: Journey, **keywords: Any) -> Any:
    """Return an optimizer that has already stepped."""
    params = [p.copy() for p in theirs.params[1]]
    opt = getattr(instep, rule)(params, convention=convention, **keywords)
    opt.step(grown(params))
    return opt


def unchanged(opt: Any, act: Callable[[], Any]) -> str:
    """Return the message of the error that an action raises, without having changed anything."""
    before, params = opt.state_dict(), copy.deepcopy(opt.params)
    with pytest.raises((TypeError, ValueError)) as caught:
        act()
    assert same(opt.state_dict(), before)
    assert same(opt.params, params)
    return f"{caught.type.__name__}: {caught.value}"


def put(*path: Any) -> Callable[[Any], None]:
    """Return a function that puts the last of `path` where the others lead; ... takes away."""

    def change(tree: Any) -> None:
        *way, key, value = path
        for step in way:
            tree = tree[step]
        if value is ...:
            del tree[key]
        else:
            tree[key] = value

    return change


WRONG_TORCH: list[tuple[Callable[[Any], None], str]] = [
    (put("state", ...), "TypeError: state_dict: expected a dict of 'state' and 'param_groups'"),
    (put("param_groups", 0, 7), r"TypeError: state_dict\['param_groups'\]\[0\]: expected a dict"),
    (
        put("param_groups", 0, "params", [0, 1, 2]),
        r"ValueError: state_dict\['param_groups'\]: .* of \[4\] arrays; got groups of \[3\]",
    ),
    (
        put("param_groups", 0, "params", [0, 1, 2, 2]),
        r"ValueError: state_dict\['state'\]: .* 4 parameters .* got 3",
    ),
    (
        put("param_groups", 0, "amsgrad", ...),
        r"ValueError: state_dict\['param_groups'\]\[0\]: .* PyTorch's Adam, .*; no 'amsgrad'",
    ),
    (
        put("param_groups", 0, "momentum_decay", 0.1),
        r"ValueError: state_dict\['param_groups'\]\[0\]: .* PyTorch's Adam, .*got 'momentum_decay'",
    ),
    (
        put("param_groups", 0, "decoupled_weight_decay", True),
        r"ValueError: .*\['decoupled_weight_decay'\]: expected False.*Adam; got True, as in AdamW",
    ),
    (
        put("param_groups", 0, "betas", 0.9),
        r"TypeError: .*\[0\]\['betas'\]: expected 2 numbers, got 0.9",
    ),
    (
        put("param_groups", 0, "betas", (0.9, 1.0)),
        r"ValueError: .*\['betas'\]: beta_2: expected a finite number >= 0 and < 1, got 1.0",
    ),
    (
        put("param_groups", 0, "lr", np.ones(3)),
        r"TypeError: .*\['lr'\]: learning_rate: expected a number",
    ),
    (
        put("param_groups", 0, "weight_decay", -1.0),
        r"ValueError: .*\['weight_decay'\]: weight_decay: expected a finite number >= 0, got -1.0",
    ),
    (
        put("state", 2, None),
        r"TypeError: state_dict\['state'\]\[2\]: expected a dict, got NoneType",
    ),
    (put("state", "x", {}), r"ValueError: state_dict\['state'\]: .* got 'x'"),
    (
        put("state", 2, "exp_avg", ...),
        r"ValueError: state_dict\['state'\]\[2\]: expected 'exp_avg', too; got 'step'",
    ),
    (put("state", 2, "step", ...), r"ValueError: state_dict\['state'\]\[2\]: expected 'step', too"),
    (
        put("state", 2, "exp_inf", np.ones(3)),
        r"ValueError: state_dict\['state'\]\[2\]: .* PyTorch's Adam, .*; got 'exp_inf'",
    ),
    (
        put("state", 2, "exp_avg", np.ones((4, 3), np.float32)),
        r"ValueError: state_dict\['state'\]\[2\]\['exp_avg'\]: expected a float32 array of shape "
        r"\(3, 4\) for params\[2\], got a float32 array of shape \(4, 3\)",
    ),
    (
        put("state", 1, "exp_avg", np.ones(7)),
        r"ValueError: .*\['exp_avg'\]: expected a float32 array .* got a float64 array",
    ),
    (
        put("state", 1, "exp_avg", None),
        r"ValueError: state_dict\['state'\]\[1\]: expected 'exp_avg', too",
    ),
    (
        put("state", 1, "step", np.float32(2.5)),
        r"ValueError: .*\['step'\]: expected a whole number >= 0, got 2.5",
    ),
    (
        put("state", 1, "step", -1),
        r"ValueError: .*\['step'\]: expected a whole number >= 0, got -1",
    ),
    (
        put("state", 1, "step", np.ones(2)),
        r"ValueError: .*\['step'\]: expected a finite number, got ndarray of shape \(2,\)",
    ),
    (put("state", 1, "step", "one"), r"ValueError: .*\['step'\]: expected a finite number"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TORCH)
def test_wrong_torch(change: Callable[[Any], None], message: str) -> None:
    _, theirs = stored("Adam", "torch")
    d = copy.deepcopy(theirs.states[0])
    change(d)
    opt = bound("Adam", "torch", theirs)
    assert re.match(message, unchanged(opt, lambda: interop.from_torch(opt, d)))


@pytest.mark.parametrize("theirs", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW"])
@pytest.mark.parametrize("mine", ["Adamax", "RAdam", "Nadam", "AdamW", "Adam", "RMSprop", "SGD"])
def test_torch_state_of_another_rule(mine: str, theirs: str) -> None:
    _, journey_of_theirs = stored(theirs, "torch")
    opt = bound(mine, "torch", journey_of_theirs)
    if mine == theirs:
        return interop.from_torch(opt, journey_of_theirs.states[0])
    message = unchanged(opt, lambda: interop.from_torch(opt, journey_of_theirs.states[0]))
    name = {"Nadam": "NAdam"}.get(mine, mine)
    assert re.match(rf"ValueError: state_dict\[.* PyTorch's {name}\b", message)
    return None


def test_wrong_groups_for_torch() -> None:
    _, theirs = stored("Adam", "torch")
    w, b = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    opt = instep.Adam([w, instep.Group(b, beta_1=0.5)], convention="torch")
    d = interop.to_torch(opt)
    assert [group["betas"] for group in d["param_groups"]] == [(0.9, 0.999), (0.5, 0.999)]
    d["param_groups"][1]["lr"] = 0.5
    message = unchanged(opt, lambda: interop.from_torch(opt, d))
    assert re.match(
        r"ValueError: state_dict\['param_groups'\]\[1\]: expected learning_rate=0.001", message
    )
    message = unchanged(opt, lambda: interop.from_torch(opt, theirs.states[0]))
    assert "of [1, 1] arrays; got groups of [4]" in message


def test_what_torch_has_no_place_for() -> None:
    p = [np.ones(3)]

    def refuses(opt: Any, message: str) -> None:
        assert re.match(message, unchanged(opt, lambda: interop.to_torch(opt)))

    rmsprop = instep.RMSprop(p, eps_in_sqrt=True, convention="torch")
    refuses(rmsprop, "ValueError: eps_in_sqrt: expected False, .* RMSprop .*; got True")
    both = instep.Nadam(p, l2=0.1, weight_decay=0.1, convention="torch")
    refuses(both, "ValueError: l2: expected 0, .* NAdam is weight_decay here; got 0.1")
    coupled = instep.AdamW(p, l2=0.1, convention="torch")
    refuses(coupled, "ValueError: l2: expected 0, .* AdamW is weight_decay here; got 0.1")
    waiting = instep.Adam(p, gradient_accumulation_steps=2, convention="torch")
    waiting.step([np.ones(3)])
    refuses(waiting, "ValueError: optimizer: expected no gradients that wait .* got 1 calls")


def test_torch_tensors_that_need_gradients_or_another_device() -> None:
    torch = pytest.importorskip("torch")
    _, theirs = stored("Adam", "torch")
    d = copy.deepcopy(theirs.states[0])
    d["state"][1]["exp_avg"] = torch.ones(7, device="meta")
    opt = bound("Adam", "torch", theirs)
    message = unchanged(opt, lambda: interop.from_torch(opt, d))
    assert re.match(
        r"TypeError: .*\['exp_avg'\]: expected an array or a tensor on the CPU", message
    )


# Keras ------------------------------------------------------------------------------------------


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


# Both -------------------------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch from": lambda opt, **k: interop.from_torch(opt, {}, **k),
    "torch to": interop.to_torch,
    "keras from": lambda opt, **k: interop.from_keras(opt, [], **k),
    "keras to": interop.to_keras,
}


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
        act(instep.Adam(convention=convention))
    with pytest.raises(ValueError, match=r"optimizer: expected one of 'SGD', .*; got <Rprop"):
        interop.to_torch(instep.Rprop(p, convention="torch"))


@pytest.mark.parametrize("name", ["torch to", "keras to"])
def test_wrong_order(name: str) -> None:
    act = FUNCTIONS[name]
    p = [np.ones(3), np.ones(2)]
    opt = instep.Adam(p, convention=name.split()[0])
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
