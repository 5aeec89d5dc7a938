"""Steps on the CPU for models elsewhere, with the CPU in the place of the accelerator."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import instep  # noqa: E402
import instep.torch  # noqa: E402
from instep.torch import Offloaded  # noqa: E402

BUCKET = 120
"""Bytes, so that the small model below has several buckets."""
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_way = pytest.mark.parametrize("in_backward", [False, True], ids=["step", "backward"])


@pytest.fixture(autouse=True)
def bfloat16() -> None:
    pytest.importorskip("ml_dtypes")


def a_model(dtype: Any = torch.bfloat16) -> Any:
    torch.manual_seed(1)
    layers = [torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 1)]
    return torch.nn.Sequential(*layers).to(dtype)


def backward(model: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    x = torch.randn(16, 6, dtype=next(model.parameters()).dtype)
    loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
    loss.backward()
    return loss


def train(model: Any, opt: Any, seeds: Any) -> None:
    for seed in seeds:
        opt.zero_grad()
        backward(model, seed)
        opt.step()


def masters_of(model: Any) -> list[Any]:
    wide = {torch.float64: torch.float64}
    return [
        p.detach().to(wide.get(p.dtype, torch.float32)).numpy().copy() for p in model.parameters()
    ]


def plainly(model: Any, make: Callable[[list[Any]], Any], seeds: Any) -> list[Any]:
    """Return masters that instep's rule has stepped, on gradients of the rounded model."""
    masters = masters_of(model)
    opt = make(masters)
    for seed in seeds:
        with torch.no_grad():
            for p, master in zip(model.parameters(), masters, strict=True):
                p.copy_(torch.from_numpy(master))
        model.zero_grad()
        backward(model, seed)
        opt.step([p.grad for p in model.parameters()])
    return masters


def assert_same(model: Any, opt: Any, masters: list[Any]) -> None:
    for p, master in zip(model.parameters(), masters, strict=True):
        assert np.array_equal(opt.state[p]["master"].numpy(), master)
        assert torch.equal(p.detach(), torch.from_numpy(master).to(p.dtype))


@each_way
@each_dtype
def test_bit_equal_to_masters_by_the_plain_rule(dtype: Any, in_backward: bool) -> None:
    model, beside = a_model(dtype), a_model(dtype)
    opt = Offloaded(
        model.parameters(),
        instep.AdamW,
        lr=0.01,
        weight_decay=0.1,
        bucket_bytes=BUCKET,
        step_in_backward=in_backward,
    )
    assert len(opt._buckets) > 2
    train(model, opt, range(6))
    masters = plainly(
        beside, lambda m: instep.AdamW(m, learning_rate=0.01, weight_decay=0.1), range(6)
    )
    assert_same(model, opt, masters)
    assert all(opt.state[p]["step"] == 6 for p in model.parameters())


RULES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "by name": ("Adam", {"betas": (0.8, 0.9)}, {"beta_1": 0.8, "beta_2": 0.9}),
    "norms of arrays": (instep.Lamb, {}, {}),
    "rows and columns": (instep.Adafactor, {}, {}),
    "matrices, in NumPy": (instep.Muon, {}, {}),
    "a formula": (instep.gallery.MARS, {}, {}),
    "clipping of arrays": (instep.SGD, {"clipnorm": 0.01}, {"clipnorm": 0.01}),
    "state in 16 bits": ("Adam", {"state_dtype": "bfloat16"}, {"state_dtype": "bfloat16"}),
    "state in 8 bits": ("Lion", {"state_dtype": "float8"}, {"state_dtype": "float8"}),
    "maximize": ("Yogi", {"maximize": True}, {"maximize": True}),
}


@pytest.mark.parametrize("case", RULES)
def test_rules_and_options(case: str) -> None:
    rule, options, here = RULES[case]
    model, beside = a_model(), a_model()
    # Random roundings hang on which arrays are in one bucket.
    size = 2**20 if "state_dtype" in options else BUCKET
    opt = Offloaded(model.parameters(), rule, lr=0.01, bucket_bytes=size, **options)
    train(model, opt, range(4))
    made = getattr(instep, rule) if isinstance(rule, str) else rule
    assert_same(
        model, opt, plainly(beside, lambda m: made(m, learning_rate=0.01, **here), range(4))
    )


@pytest.mark.parametrize("options", [{"global_clipnorm": 0.01}, {"skip_nonfinite": True}])
def test_all_gradients_at_once_in_one_bucket(options: dict[str, Any]) -> None:
    model, beside = a_model(), a_model()
    opt = Offloaded(model.parameters(), "SGD", lr=0.1, **options)
    train(model, opt, range(4))
    masters = plainly(beside, lambda m: instep.SGD(m, learning_rate=0.1, **options), range(4))
    assert_same(model, opt, masters)
    joint, other = a_model(), a_model()
    opt = Offloaded(joint.parameters(), "Prodigy")
    train(joint, opt, range(4))
    assert_same(joint, opt, plainly(other, instep.Prodigy, range(4)))


def test_gradients_that_are_not_finite_are_skipped() -> None:
    model = a_model()
    opt = Offloaded(model.parameters(), "Adam", skip_nonfinite=True)
    before = [p.detach().clone() for p in model.parameters()]
    backward(model, 0)
    model[3].bias.grad.fill_(float("inf"))
    opt.step()
    assert all(map(torch.equal, before, model.parameters()))
    assert [opt.state[p]["step"] for p in model.parameters()] == [0] * 6


@each_way
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_checkpoints_go_on_bit_by_bit_in_other_buckets(dtype: Any, in_backward: bool) -> None:
    model = a_model(dtype)
    opt = Offloaded(model.parameters(), "AdamW", bucket_bytes=BUCKET, amsgrad=True)
    train(model, opt, range(3))
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    new = a_model(dtype)
    other = Offloaded(new.parameters(), "AdamW", amsgrad=True, step_in_backward=in_backward)
    other.load_state_dict(torch.load(file))
    assert all(map(torch.equal, model.parameters(), new.parameters()))
    other.load_state_dict(other.state_dict())  # as Accelerate does it
    train(model, opt, range(3, 6))
    train(new, other, range(3, 6))
    assert_same(new, other, [opt.state[p]["master"].numpy() for p in model.parameters()])
    assert other.state[new[0].weight]["step"] == 6


def test_pickles_of_state_in_16_bits() -> None:
    model = a_model()
    opt = Offloaded(model.parameters(), "Adam", state_dtype="bfloat16")
    train(model, opt, range(2))
    twin, its = pickle.loads(pickle.dumps((model, opt)))
    train(model, opt, range(2, 4))
    train(twin, its, range(2, 4))
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
@each_way
def test_copies_and_pickles(clone: Any, in_backward: bool) -> None:
    model = a_model()
    opt = Offloaded(
        model.parameters(),
        "Adam",
        bucket_bytes=BUCKET,
        clipvalue=0.1,
        step_in_backward=in_backward,
    )
    train(model, opt, range(3))
    other, its_opt = clone((model, opt))
    train(other, its_opt, range(3, 6))
    train(model, opt, range(3, 6))
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_groups_schedules_and_later_options() -> None:
    model, beside = a_model(), a_model()
    opt = Offloaded([{"params": model[0].parameters(), "lr": 0.1}], "Adam", bucket_bytes=BUCKET)
    rest = [*model[2].parameters(), *model[3].parameters()]
    opt.add_param_group({"params": rest, "lr": 0.01, "weight_decay": 0.5})
    schedule = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
    arrays = masters_of(beside)
    plain = instep.Adam(
        [
            instep.Group(arrays[:2], learning_rate=0.1),
            instep.Group(arrays[2:], learning_rate=0.01, weight_decay=0.5),
        ]
    )
    for seed in range(6):
        if seed == 3:
            opt.param_groups[0]["amsgrad"] = True
            plain.groups[1]["amsgrad"] = True
            train(model, opt, [seed])
            assert "v_max" in opt.state[model[0].weight]
        else:
            train(model, opt, [seed])
        schedule.step()
        with torch.no_grad():
            for p, master in zip(beside.parameters(), arrays, strict=True):
                p.copy_(torch.from_numpy(master))
        beside.zero_grad()
        backward(beside, seed)
        grads = [p.grad for p in beside.parameters()]
        plain.step([grads[:2], grads[2:]])
        if seed % 2:
            for group in (1, 2):
                plain.groups[group]["learning_rate"] *= 0.5
    assert_same(model, opt, arrays)


def test_parameters_without_gradients() -> None:
    model = a_model()
    opt = Offloaded(model.parameters(), "Adam", bucket_bytes=BUCKET)
    model[2].requires_grad_(False)
    before = model[2].weight.detach().clone()
    train(model, opt, range(2))
    assert torch.equal(before, model[2].weight)
    assert [opt.state[p]["step"] for p in model.parameters()] == [2, 2, 0, 0, 2, 2]
    model[2].requires_grad_(True)
    train(model, opt, range(2))
    assert [opt.state[p]["step"] for p in model.parameters()] == [4, 4, 2, 2, 4, 4]


def test_what_others_write_is_heard() -> None:
    model = a_model()
    opt = Offloaded(model.parameters(), "SGD", lr=0.0)
    master = opt.state[model[0].weight]["master"]
    master += 1e-5  # less than a rounding of most
    with torch.no_grad():
        written = model[0].weight[0].fill_(3.0)
    kept = (master.to(torch.bfloat16) == model[0].weight)[1:]
    before = master[1:].clone()
    train(model, opt, [0])
    assert torch.equal(written.detach(), torch.full_like(written, 3.0))
    assert torch.equal(master[0], torch.full_like(master[0], 3.0))
    assert torch.equal(master[1:][kept], before[kept])
    assert kept.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_data_that_is_replaced_is_heard(dtype: Any) -> None:
    param = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    opt = Offloaded([param], "SGD", lr=0.125)
    for _ in range(2):
        param.grad = torch.ones_like(param)
        opt.step()
    param.data = torch.full((3,), 5.0, dtype=dtype)
    opt.step()
    assert param.tolist() == [4.875] * 3


def test_gradients_travel_while_the_bucket_before_is_stepped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, told = a_model(), list[str]()
    opt = Offloaded(model.parameters(), "SGD", lr=0.1, bucket_bytes=BUCKET)
    bucket = type(opt._buckets[0])

    def noting(name: str, call: Any) -> Any:
        def noted(self: Any, *args: Any) -> Any:
            told.append(f"{name} {opt._buckets.index(self)}")
            return call(self, *args)

        return noted

    for name in ("fetch", "step"):
        monkeypatch.setattr(bucket, name, noting(name, getattr(bucket, name)))
    train(model, opt, [0])
    assert told == ["fetch 0", "fetch 1", "step 0", "fetch 2", "step 1", "step 2"]
    assert max(room._bytes.numel() for room in opt._rooms) < 2 * BUCKET


class Told:
    """Stands for a stream or an event, and writes down what is asked of it."""

    def __init__(self, name: str, told: list[str]) -> None:
        self._name, self._told = name, told

    def wait_stream(self, other: Told) -> None:
        self._told.append(f"{self._name} waits for {other._name}")

    def record(self, stream: Told) -> None:
        self._told.append(f"{self._name} on {stream._name}")

    def synchronize(self) -> None:
        self._told.append(f"until {self._name}")


def test_who_waits_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be on a device, whose streams run beside the program."""
    told = list[str]()
    own, current = Told("own", told), Told("current", told)
    monkeypatch.setattr(instep.torch, "_own_stream", lambda device: own)
    monkeypatch.setattr(instep.torch, "_current_stream", lambda device: current)
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    opt = Offloaded(params, "SGD", lr=0.1, bucket_bytes=12)
    for k, bucket in enumerate(opt._buckets):
        bucket._ready = Told(f"gradients {k}", told)
    for p in params:
        p.grad = torch.ones(3)
    opt.step()
    assert told == [
        "own waits for current",  # which makes gradients, and reads parameters
        "gradients 0 on own",
        "own waits for current",
        "gradients 1 on own",
        "until gradients 0",
        "until gradients 1",
        "current waits for own",  # before it reads parameters again
    ]


def test_steps_in_backward_take_gradients_away() -> None:
    model = a_model()
    opt = Offloaded(model.parameters(), "SGD", lr=0.1, bucket_bytes=BUCKET, step_in_backward=True)
    before = [p.detach().clone() for p in model.parameters()]
    backward(model, 0)
    assert all(p.grad is None for p in model.parameters())
    changed = [not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True)]
    assert changed == [False, False, True, True, True, True]  # the first layer waits for `step`
    opt.step()
    assert not torch.equal(before[0], model[0].weight)
    after = [p.detach().clone() for p in model.parameters()]
    opt.step()
    assert all(map(torch.equal, after, model.parameters()))
    del opt
    gc.collect()
    backward(model, 0)
    assert all(p.grad is not None for p in model.parameters())
    assert all(map(torch.equal, after, model.parameters()))


def test_two_backwards_without_a_step_are_two_updates() -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    opt = Offloaded([p], "SGD", lr=1.0, step_in_backward=True)
    for _ in range(2):
        p.sum().backward()
    opt.step()
    assert p.tolist() == [-1.0] * 3


def test_closures_and_hooks() -> None:
    model, called = a_model(), []
    opt = Offloaded(model.parameters(), "SGD", lr=0.1)
    opt.register_step_pre_hook(lambda *_: called.append("before"))
    opt.register_step_post_hook(lambda *_: called.append("after"))
    before = model[0].weight.detach().clone()
    assert opt.step(lambda: backward(model, 0)).item() > 0
    assert called == ["before", "after"]
    assert not torch.equal(before, model[0].weight)


def test_shapes_and_layouts() -> None:
    params = [
        torch.nn.Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)),
        torch.nn.Parameter(torch.randn(())),
        torch.nn.Parameter(torch.randn(0, 3)),
        torch.nn.Parameter(torch.randn(4, 5).T),
    ]
    beside = [torch.nn.Parameter(p.detach().clone()) for p in params]
    by_name: Any = instep.torch.of(instep.Adam)
    opts = [Offloaded(params, "Adam", lr=0.1), by_name(beside, lr=0.1)]
    for _ in range(3):
        for p, q in zip(params, beside, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for opt in opts:
            opt.step()
    assert all(map(torch.equal, params, beside))


def failing(case: str, model: Any, opt: Any) -> None:
    """Let the next step be one that can't be made."""
    last = model[3].bias
    if case == "sparse":
        last.grad = last.grad.to_sparse()
    else:
        opt.param_groups[1]["lr"] = -1.0


@pytest.mark.parametrize("case", ["sparse", "lr"])
def test_a_step_that_fails_changes_nothing(case: str) -> None:
    model = a_model()
    first, rest = [*model[0].parameters()], [*model[2].parameters(), *model[3].parameters()]
    opt = Offloaded([{"params": first}, {"params": rest}], "Adam", lr=0.1, bucket_bytes=BUCKET)
    train(model, opt, range(2))
    before = copy.deepcopy([*model.parameters(), opt.state_dict()["state"]])
    backward(model, 2)
    failing(case, model, opt)
    with pytest.raises((TypeError, ValueError), match=case):
        opt.step()
    assert all(map(torch.equal, before[:-1], model.parameters()))
    for k, entry in opt.state_dict()["state"].items():
        assert entry.pop("step") == before[-1][k].pop("step")
        assert all(torch.equal(value, before[-1][k][name]) for name, value in entry.items())


def test_a_state_that_is_refused_changes_nothing() -> None:
    model = a_model()
    opt = Offloaded(model.parameters(), "Adam", lr=0.1)
    train(model, opt, [0])
    good = copy.deepcopy(opt.state_dict())
    train(model, opt, [1])
    before = [p.detach().clone() for p in model.parameters()]
    bad: dict[str, Any] = {}
    for name in ("expected step, master, m, v", "step", "tensor", "shape", "6 parameters"):
        bad[name] = copy.deepcopy(good)
    del bad["expected step, master, m, v"]["state"][5]["m"]
    bad["step"]["state"][5]["step"] = -1
    bad["tensor"]["state"][5]["m"] = 3
    bad["shape"]["state"][5]["v"] = torch.ones(7)
    bad["6 parameters"]["param_groups"][0]["params"].pop()
    for told, state in bad.items():
        with pytest.raises((TypeError, ValueError), match=told):
            opt.load_state_dict(state)
    assert all(map(torch.equal, before, model.parameters()))
    opt.load_state_dict(good)
    assert opt.state[model[0].weight]["step"] == 1


def a_shard() -> Any:
    param = torch.nn.Parameter(torch.ones(2))
    param.to_local = None  # as DTensors have it
    return param


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rule": "Adamm"}, "rule: expected a subclass of instep.Optimizer, got 'Adamm'"),
        ({"rule": 3}, "rule"),
        ({"rule": "Adam", "learning_rate": 0.1}, "expected options among lr, .*seed; got"),
        ({"rule": "Adam", "lr": -1.0}, "lr"),
        ({"rule": "Adam", "clipnorm": -1.0}, "clipnorm"),
        ({"rule": "Adam", "bucket_bytes": 0}, "bucket_bytes: expected a whole number >= 1"),
        ({"rule": "Adam", "step_in_backward": 1}, "step_in_backward: expected True or False"),
        (
            {"rule": "Adam", "global_clipnorm": 1.0, "bucket_bytes": BUCKET},
            "global_clipnorm: needs all gradients at once, so expected one bucket; got 3",
        ),
        (
            {"rule": "Adam", "global_clipnorm": 1.0, "step_in_backward": True},
            "global_clipnorm: needs all gradients at once, so expected step_in_backward=False",
        ),
        ({"rule": "Adam", "skip_nonfinite": True, "step_in_backward": True}, "skip_nonfinite"),
        ({"rule": "Prodigy", "step_in_backward": True}, "Prodigy: needs all gradients"),
        ({"rule": "Adam", "params": [torch.ones(2, dtype=torch.complex64)]}, "parameter 0 of"),
        ({"rule": "Adam", "params": [a_shard()]}, "CPUOffloadPolicy"),
        ({"rule": "Adam", "params": [torch.ones(2, device="meta")]}, "on CUDA or the CPU"),
    ],
)
def test_errors(options: dict[str, Any], told: str) -> None:
    params = options.pop("params", None) or a_model().parameters()
    with pytest.raises((TypeError, ValueError), match=told):
        Offloaded(params, **options)


def test_a_group_that_is_refused_is_not_there() -> None:
    model = a_model()
    opt = Offloaded(model[0].parameters(), "Adam", global_clipnorm=1.0)
    with pytest.raises(ValueError, match="expected one bucket; got 2"):
        opt.add_param_group({"params": model[2].parameters()})
    assert len(opt.param_groups) == len(opt._buckets) == 1
    train(model[:1].append(torch.nn.Linear(8, 1).to(torch.bfloat16)), opt, [0])
    assert opt.state[model[0].weight]["step"] == 1
