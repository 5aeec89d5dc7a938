"""instep's steps under PyTorch's optimizers, beside PyTorch's own."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import repository

torch = pytest.importorskip("torch")

import instep  # noqa: E402
import instep.torch  # noqa: E402

CASES: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1},
    "SGD momentum": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "Adadelta": {},
    "Adam": {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
    "Adam decoupled": {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "AdamW": {"lr": 0.01},
    "Adamax": {},
    "NAdam": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "RAdam": {},
    "Rprop": {},
    "ASGD": {},
    "Adafactor": {},
}
LOOSE = {"NAdam", "ASGD"}
"""Those whose numbers PyTorch keeps in float32."""
each_case = pytest.mark.parametrize("case", CASES)


def a_model(dtype: Any = torch.float64, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    layers = torch.nn.Linear(5, 10), torch.nn.Tanh(), torch.nn.Linear(10, 1)
    return torch.nn.Sequential(*layers).to(dtype)


def train(model: Any, optimizer: Any, steps: int, seed: int = 0) -> list[float]:
    torch.manual_seed(seed)
    dtype, losses = next(model.parameters()).dtype, []
    for _ in range(steps):
        x = torch.randn(32, 5, dtype=dtype)
        optimizer.zero_grad()
        loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def both(case: str, **more: Any) -> list[tuple[Any, Any]]:
    name, options = case.split()[0], {**CASES[case], **more}
    models = [a_model(), a_model()]
    classes = getattr(torch.optim, name), getattr(instep.torch, name)
    return [(m, c(m.parameters(), **options)) for m, c in zip(models, classes, strict=True)]


def assert_alike(one: Any, other: Any, tolerance: float = 1e-13) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=0, atol=tolerance)


def tolerance_of(case: str) -> float:
    return 1e-8 if case.split()[0] in LOOSE else 1e-13


@each_case
def test_steps_and_state_are_pytorchs(case: str) -> None:
    (theirs, their_opt), (ours, our_opt) = both(case)
    assert isinstance(our_opt, type(their_opt))
    train(theirs, their_opt, 10)
    train(ours, our_opt, 10)
    assert_alike(theirs, ours, tolerance_of(case))
    there, here = their_opt.state_dict(), our_opt.state_dict()
    assert there["param_groups"] == here["param_groups"]
    assert there["state"].keys() == here["state"].keys()
    for k, entry in there["state"].items():
        kept = {name for name, value in entry.items() if value is not None}
        assert kept == here["state"][k].keys()
        for name in kept:
            np.testing.assert_allclose(entry[name], here["state"][k][name], rtol=1e-6, atol=1e-9)
            assert entry[name].shape == here["state"][k][name].shape


@each_case
def test_checkpoints_go_both_ways_in_the_middle_of_a_run(case: str) -> None:
    (theirs, their_opt), (ours, our_opt) = both(case)
    train(theirs, their_opt, 6)
    train(ours, our_opt, 6)
    there, here = (copy.deepcopy(opt.state_dict()) for opt in (their_opt, our_opt))
    their_opt.load_state_dict(here)
    our_opt.load_state_dict(there)
    train(theirs, their_opt, 6, seed=2)
    train(ours, our_opt, 6, seed=2)
    assert_alike(theirs, ours, tolerance_of(case))


@each_case
def test_copies_and_pickles_go_on_bit_by_bit(case: str) -> None:
    _, (model, opt) = both(case)
    train(model, opt, 4)
    others = [copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))]
    saved = io.BytesIO()
    torch.save(opt.state_dict(), saved)
    train(model, opt, 3, seed=2)
    for other, its_opt in others:
        train(other, its_opt, 3, seed=2)
        assert_alike(model, other, 0)
    saved.seek(0)
    assert torch.load(saved).keys() == {"state", "param_groups"}


SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda opt: torch.optim.lr_scheduler.StepLR(opt, 2),
    "LambdaLR": lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 0.9**t),
    "CosineAnnealingLR": lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, 5),
    "OneCycleLR": lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=12),
    "CyclicLR": lambda opt: torch.optim.lr_scheduler.CyclicLR(
        opt, 0.01, 0.1, 3, cycle_momentum=False
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("case", ["SGD momentum", "AdamW"])
def test_schedulers(scheduler: str, case: str) -> None:
    for steps_of in ([*range(10)],):
        models = []
        for model, opt in both(case):
            schedule = SCHEDULERS[scheduler](opt)
            for k in steps_of:
                train(model, opt, 1, seed=k)
                schedule.step()
            models.append(model)
        assert_alike(*models)


def test_groups_that_are_added_and_changed() -> None:
    models = []
    for theirs in (True, False):
        model = a_model()
        cls = torch.optim.AdamW if theirs else instep.torch.AdamW
        opt = cls([{"params": model[0].parameters(), "lr": 0.01}], lr=0.1)
        train(model, opt, 3)
        opt.add_param_group({"params": model[2].parameters(), "lr": 0.05, "betas": (0.5, 0.9)})
        train(model, opt, 3)
        opt.param_groups[0]["lr"] = torch.tensor(0.02, dtype=torch.float64)
        opt.param_groups[1]["weight_decay"] = 0.3
        train(model, opt, 3)
        models.append(model)
    assert_alike(*models)


def test_parameters_without_gradients_and_late_ones() -> None:
    models = []
    for theirs in (True, False):
        model = a_model()
        cls = torch.optim.Adam if theirs else instep.torch.Adam
        opt = cls(model.parameters(), lr=0.01)
        for p in model[0].parameters():
            p.requires_grad_(False)
        train(model, opt, 3)
        assert len(opt.state) == 2
        for p in model[0].parameters():
            p.requires_grad_(True)
        train(model, opt, 3)
        assert [opt.state[p]["step"].item() for p in model.parameters()] == [3, 3, 6, 6]
        models.append(model)
    assert_alike(*models)


def test_data_that_is_replaced_is_found() -> None:
    model = a_model()
    opt = instep.torch.SGD(model.parameters(), lr=0.1, momentum=0.9)
    beside = a_model()
    its_opt = torch.optim.SGD(beside.parameters(), lr=0.1, momentum=0.9)
    for each, its in ((model, opt), (beside, its_opt)):
        train(each, its, 3)
        for p in each.parameters():
            p.data = p.data.clone() * 2
        train(each, its, 3)
    assert_alike(model, beside)


def test_pickles_of_what_bfloat16_leaves() -> None:
    pytest.importorskip("ml_dtypes")
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    opt = instep.torch.AdamW([param], lr=0.01)
    for _ in range(3):
        param.grad = torch.ones_like(param)
        opt.step()
    twins = []
    for pickled in (opt, opt.state_dict()):
        brought = pickle.loads(pickle.dumps(pickled))
        state = brought if isinstance(brought, dict) else brought.state_dict()
        twin = torch.nn.Parameter(param.detach().clone())
        its = instep.torch.AdamW([twin], lr=0.01)
        its.load_state_dict(state)
        twin.grad = torch.ones_like(twin)
        its.step()
        twins.append((twin, its.state[twin]["remainder"]))
    opt.step()
    for twin, remainder in twins:
        assert torch.equal(twin, param)
        assert torch.equal(remainder, opt.state[param]["remainder"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_rounding_left_out_begins_anew_after_pytorchs_class(dtype: Any) -> None:
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    param = torch.nn.Parameter(torch.full((3,), 1.3, dtype=dtype))

    def step(optimizer: Any, its: Any) -> Any:
        its.grad = torch.full_like(its, 0.3)
        optimizer.step()
        return optimizer.state_dict()

    ours = instep.torch.AdamW([param], lr=1e-3)
    for _ in range(3):
        state = step(ours, param)
    theirs = torch.optim.AdamW([param], lr=1e-3)
    theirs.load_state_dict(state)
    for _ in range(3):
        state = step(theirs, param)
    twin = torch.nn.Parameter(param.detach().clone())
    back, alone = instep.torch.AdamW([param], lr=1e-3), instep.torch.AdamW([twin], lr=1e-3)
    back.load_state_dict(state)
    for entry in state["state"].values():
        del entry["remainder" if dtype is torch.bfloat16 else "master"]
    alone.load_state_dict(state)
    step(back, param)
    step(alone, twin)
    assert torch.equal(param, twin)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adagrad_begins_with_all_digits_in_16_bits(dtype: Any) -> None:
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    short, long = (torch.nn.Parameter(torch.ones(3, dtype=each)) for each in (dtype, torch.float32))
    for param in (short, long):
        opt = instep.torch.Adagrad([param], lr=0.1, initial_accumulator_value=0.1)
        for _ in range(5):
            param.grad = torch.full_like(param, 0.0625)
            opt.step()
    assert torch.equal(short, long.to(dtype))


def test_tensors_of_a_library_without_dlpacks_table_are_refused() -> None:
    counts = np.zeros(1, np.float32)
    with pytest.raises(TypeError, match=r"expected tensors of PyTorch 2\.13 or newer"):
        instep._core.Tensors(object, [[object()]], [object()], print, counts)


def test_data_that_has_become_less_at_the_same_place_is_found() -> None:
    param = torch.nn.Parameter(torch.ones(4))
    rest = param.data[2:]
    opt = instep.torch.Adam([param], lr=0.1)
    param.grad = torch.ones(4)
    opt.step()
    param.grad, param.data = None, param.data[:2]
    param.grad = torch.ones(2)
    before = rest.clone()
    with pytest.raises(ValueError, match="expected 2 elements, got 4"):  # PyTorch's raises, too
        opt.step()
    assert torch.equal(rest, before)


def a_parameter(values: Any) -> Any:
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


def laid_out_otherwise(param: Any, optimizer: Any) -> None:
    param.data = param.data.t()


def with_the_other_sign(param: Any, optimizer: Any) -> None:
    param.grad = torch._neg_view(param.grad)


def filled_beta(param: Any, optimizer: Any) -> None:
    optimizer.param_groups[0]["betas"][0].fill_(0.5)


def filled_rate(param: Any, optimizer: Any) -> None:
    optimizer.param_groups[0]["lr"].fill_(0.5)


def forgotten_state(param: Any, optimizer: Any) -> None:
    optimizer.state.clear()


def forgotten_entry(param: Any, optimizer: Any) -> None:
    optimizer.state[param] = {}


def another_average(param: Any, optimizer: Any) -> None:
    optimizer.state[param]["exp_avg"] = torch.full_like(param, 3.0)


def another_count(param: Any, optimizer: Any) -> None:
    optimizer.state[param]["step"].fill_(7)


def a_parameter_more(param: Any, optimizer: Any) -> None:
    more = a_parameter([1.0])
    more.grad = torch.ones_like(more)
    optimizer.param_groups[0]["params"].append(more)


def another_parameter(param: Any, optimizer: Any) -> None:
    """As who makes a scene of Gaussians denser does it."""
    state = optimizer.state.pop(param)
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = torch.cat([state[name], torch.zeros(1, 2, dtype=torch.float64)])
    longer = a_parameter([*param.tolist(), [5.0, 6.0]])
    longer.grad = torch.ones_like(longer)
    optimizer.param_groups[0]["params"][0] = longer
    optimizer.state[longer] = state


@pytest.mark.parametrize(
    "change",
    [
        laid_out_otherwise,
        with_the_other_sign,
        filled_beta,
        filled_rate,
        forgotten_state,
        forgotten_entry,
        another_average,
        another_count,
        a_parameter_more,
        another_parameter,
    ],
)
def test_what_others_change_between_steps_is_found(change: Any) -> None:
    def trained(module: Any) -> list[Any]:
        param = a_parameter([[1.0, 2.0], [3.0, 4.0]])
        rate, *betas = torch.tensor([0.1, 0.875, 0.99], dtype=torch.float64)
        optimizer = module.Adam([param], lr=rate, betas=tuple(betas), foreach=False)
        for _ in range(2):
            param.grad = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
            optimizer.step()
        change(param, optimizer)
        for _ in range(3):
            optimizer.step()
        return [each.detach().clone() for each in optimizer.param_groups[0]["params"]]

    for ours, theirs in zip(trained(instep.torch), trained(torch.optim), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_autograd_notices_that_parameters_were_written() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = instep.torch.SGD([p], lr=0.1)
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hooks_and_closures() -> None:
    model, called = a_model(), []
    opt = instep.torch.SGD(model.parameters(), lr=0.1)
    first = opt.register_step_pre_hook(lambda *_: called.append("before"))
    opt.register_step_post_hook(lambda *_: called.append("after"))

    def closure() -> Any:
        called.append("closure")
        opt.zero_grad()
        loss = model(torch.ones(2, 5, dtype=torch.float64)).sum()
        loss.backward()
        return loss

    before = [p.detach().clone() for p in model.parameters()]
    assert opt.step(closure).item() != 0
    assert called == ["before", "closure", "after"]
    first.remove()
    opt.step()
    assert called[3:] == ["after"]
    assert not torch.equal(before[0], model[0].weight)


def test_a_scaler_that_finds_an_infinite_gradient_skips() -> None:
    model = a_model(torch.float32)
    opt = instep.torch.Adam(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for factor in (1.0, float("inf"), 1.0):
        opt.zero_grad()
        loss = model(torch.ones(2, 5)).sum() * factor
        before = model[0].weight.detach().clone()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        assert torch.equal(before, model[0].weight) == (factor != 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(dtype: Any) -> None:
    """Parameters of 16 bits train as those of float32 that they are rounded from."""
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    start = torch.randn(1000).to(dtype)
    grads = [torch.randn(1000).to(dtype) for _ in range(5)]
    short, whole = (torch.nn.Parameter(start.clone().to(d)) for d in (dtype, torch.float32))
    opts = [instep.torch.AdamW([p], lr=1e-3) for p in (short, whole)]
    for g in grads:
        short.grad, whole.grad = g, g.float()
        for opt in opts:
            opt.step()
    assert torch.equal(short.float(), whole.to(dtype).float())
    again = copy.deepcopy(short)
    other = instep.torch.AdamW([again], lr=1e-3)
    other.load_state_dict(opts[0].state_dict())
    for p, opt in ((short, opts[0]), (again, other)):
        p.grad = grads[0]
        opt.step()
    assert torch.equal(short, again)


def test_channels_last_and_views_of_one_buffer() -> None:
    image = torch.nn.Parameter(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last))
    buffer = torch.randn(30)
    parts = [torch.nn.Parameter(buffer[:10]), torch.nn.Parameter(buffer[10:].view(4, 5))]
    params = [image, *parts]
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    opts = [instep.torch.Adam(params, lr=0.1), torch.optim.Adam(copies, lr=0.1)]
    for seed in range(3):
        torch.manual_seed(seed)
        for p, q in zip(params, copies, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for opt in opts:
            opt.step()
    for p, q in zip(params, copies, strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(buffer[:10], parts[0].detach())


def test_sparse_gradients_are_rows() -> None:
    table = torch.nn.Embedding(20, 4, sparse=True)
    opt = instep.torch.Adam(table.parameters(), lr=0.1)
    before = table.weight.detach().clone()
    table(torch.tensor([3, 7, 3])).sum().backward()
    opt.step()
    changed = (table.weight.detach() != before).any(1).nonzero().ravel()
    assert changed.tolist() == [3, 7]


@pytest.mark.parametrize("rule", ["Lion", "Yogi", "AdaBelief", "Adan", "Lamb", "Prodigy", "Ftrl"])
def test_rules_that_pytorch_lacks(rule: str) -> None:
    cls = getattr(instep.torch, rule)
    assert issubclass(cls, torch.optim.Optimizer)
    model = a_model(torch.float32)
    arrays = [p.detach().numpy().copy() for p in model.parameters()]
    opt, beside = (
        cls(model.parameters(), lr=0.01),
        getattr(instep, rule)(arrays, learning_rate=0.01),
    )
    for seed in range(4):
        torch.manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        beside.step([p.grad.numpy() for p in model.parameters()])
        opt.step()
    for p, array in zip(model.parameters(), arrays, strict=True):
        assert np.array_equal(p.detach().numpy(), array)
    again, model_again = cls((copied := copy.deepcopy(model)).parameters(), lr=0.01), copied
    again.load_state_dict(opt.state_dict())
    train(model, opt, 2)
    train(model_again, again, 2)
    assert_alike(model, model_again, 0)


def test_a_rule_of_ones_own() -> None:
    rule = instep.rule("Mine", state="m", formula="m = beta*m + (1-beta)*g; p -= lr*m", beta=0.5)
    p = torch.nn.Parameter(torch.ones(4))
    opt = instep.torch.of(rule)([{"params": [p], "beta": 0.0}], lr=0.5)
    p.grad = torch.ones(4)
    opt.step()
    assert p.tolist() == [0.5] * 4
    assert instep.torch.of(instep.gallery.MARS).__name__ == "MARS"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: instep.torch.Lion(p), "lr"),
        (lambda p: instep.torch.Lion(p, lr=0.1, bets=1), "expected options among"),
        (lambda p: instep.torch.Lion(p, lr=0.1, betas=(2.0, 0.5)), "beta_1"),
        (lambda p: instep.torch.of(p), "instep.Optimizer"),
        (lambda p: instep.torch.Adam(p, lr=0.1, differentiable=True).step(), "differentiable"),
        (lambda p: instep.torch.Nothing, "no attribute"),
        (
            lambda p: instep.torch.SGD([torch.nn.Parameter(torch.ones(2, device="meta"))]).step(),
            "on the CPU",
        ),
    ],
)
def test_errors(make: Any, told: str) -> None:
    if told == "lr":
        assert make([torch.nn.Parameter(torch.ones(2))]).defaults["lr"] == 1e-4
        return
    with pytest.raises((AttributeError, TypeError, ValueError), match=told):
        make([torch.nn.Parameter(torch.ones(2))])


def test_a_gradient_that_is_refused_changes_nothing() -> None:
    params = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))]
    opt = instep.torch.Adam(params, lr=0.1)
    params[0].grad = torch.ones(2)
    params[1].grad = torch.ones(2, dtype=torch.float32)
    opt.step()
    before = [p.detach().clone() for p in params]
    params[0].grad = params[1].detach()  # memory that is written
    with pytest.raises(ValueError, match="share"):
        opt.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert opt.state[params[0]]["step"] == 1


def test_state_that_is_loaded_from_itself() -> None:
    """As Accelerate does it, right after it was made."""
    (theirs, their_opt), (ours, our_opt) = both("AdamW")
    for model, opt in ((theirs, their_opt), (ours, our_opt)):
        opt.load_state_dict(opt.state_dict())
        train(model, opt, 3)
        opt.load_state_dict(opt.state_dict())
        train(model, opt, 3)
    assert_alike(theirs, ours)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without processes")
def test_several_processes() -> None:
    """DistributedDataParallel, ZeroRedundancyOptimizer, fully_shard."""
    script = Path(__file__).with_name("distributed_steps.py")
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.keys() == {"replicated", "without_redundancy", "sharded"}
    assert max(found.values()) < 1e-6


def test_the_page_on_it() -> None:
    page = repository.file("docs/adapters.md")
    section = page.read_text(encoding="utf-8").partition("## PyTorch\n")[2].partition("\n## ")[0]
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    assert isinstance(names["opt"], instep.torch.Offloaded)
