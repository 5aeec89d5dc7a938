"""State from and to PyTorch: its forms, groups and order, or an error and no change."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from journeys import bound, grown, put, same, stored, unchanged
from trajectories.interop import CASES, LEG

import instep
from instep import interop


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
def test_torch_before_the_first_step(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """State that has not begun goes both ways, too."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # to which Muon casts
    start = np.arange(1.0, 4.0, dtype=np.float32).reshape((1, 3) if rule == "Muon" else 3)
    name = {"Nadam": "NAdam"}.get(rule, rule)
    momentum = {"momentum": 0.5, "dampening": 0.25} if rule == "SGD" else {}
    tensor = torch.nn.Parameter(torch.tensor(start))
    fresh = getattr(torch.optim, name)([tensor], **momentum)

    params = [start.copy()]
    opt = getattr(instep, rule)(params, convention="torch")
    opt.step(grown(params))
    params[0][...] = start
    interop.from_torch(opt, fresh.state_dict())
    d = interop.to_torch(opt)
    for slots in d["state"].values():
        slots.update({name: torch.as_tensor(slot) for name, slot in slots.items()})
    fresh.load_state_dict(d)
    for _ in range(3):
        tensor.grad = torch.full_like(tensor, 0.5)
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
    params = [p.copy() for p in theirs.params[1]]
    opt = instep.SGD(params, convention="torch")
    opt.step(grown(params))
    opt.step(grown(params))
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
    decaying = instep.Rprop(p, l2=0.1, convention="torch")
    refuses(decaying, "ValueError: l2: expected it off, .* Rprop has no weight_decay; got 0.1")
    decaying = instep.Rprop(p, weight_decay=0.1, convention="torch")
    refuses(decaying, "ValueError: weight_decay: expected 0, .* Rprop is l2 here; got 0.1")
    ascending = instep.Muon([np.ones((2, 3))], maximize=True, convention="torch")
    refuses(ascending, "ValueError: maximize: expected it off, .* Muon has no maximize; got True")
    scaled = instep.Muon([np.ones((2, 3))], consistent_rms=0.1, convention="torch")
    refuses(scaled, "ValueError: consistent_rms: expected None, for PyTorch's Muon has no such")
    relative = instep.Adafactor(p, decay_offset=3, convention="torch")
    refuses(relative, "ValueError: decay_offset: expected 0, for PyTorch's Adafactor has no such")
    waiting = instep.Adam(p, gradient_accumulation_steps=2, convention="torch")
    waiting.step([np.ones(3)])
    refuses(waiting, "ValueError: optimizer: expected no gradients that wait .* got 1 calls")


def test_shapes_of_adafactor() -> None:
    """PyTorch keeps the axes along which it takes means."""
    params = [np.ones((2, 3, 4)), np.ones(5)]
    opt = instep.Adafactor(params, convention="torch")
    opt.step(grown(params))
    d = interop.to_torch(opt)
    shapes = [{name: slot.shape for name, slot in slots.items()} for slots in d["state"].values()]
    assert shapes == [
        {"step": (), "row_var": (2, 3, 1), "col_var": (2, 1, 4)},
        {"step": (), "variance": (5,)},
    ]
    assert d["param_groups"][0]["eps"] == (None, 0.001)
    before = opt.state_dict()
    interop.from_torch(opt, d)
    assert same(opt.state_dict(), before)
    d["state"][0]["row_var"] = np.ones((2, 3))
    message = unchanged(opt, lambda: interop.from_torch(opt, d))
    assert re.match(
        r"ValueError: .*\['row_var'\]: .* of shape \(2, 3, 1\) for params\[0\]", message
    )
    del d["state"][0]["row_var"]
    message = unchanged(opt, lambda: interop.from_torch(opt, d))
    assert re.match(r"ValueError: .*: expected 'row_var', too; got", message)


def test_torch_rules_without_weight_decay_or_maximize() -> None:
    """Both are off after it, whatever they were here; an entry that is too many is refused."""
    rprop = instep.Rprop([np.ones(3)], convention="torch")
    d = interop.to_torch(rprop)
    rprop.l2 = 0.5
    interop.from_torch(rprop, d)
    assert rprop.l2 == 0
    d["param_groups"][0]["weight_decay"] = 0.5
    message = unchanged(rprop, lambda: interop.from_torch(rprop, d))
    assert re.match(r"ValueError: .* Rprop, 'etas', .*; got 'weight_decay'", message)
    muon = instep.Muon([np.ones((2, 3))], convention="torch")
    d = interop.to_torch(muon)
    muon.maximize = True
    interop.from_torch(muon, d)
    assert muon.maximize is False


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
