"""The cases of PyTorch's own tests of optimizers, ours beside PyTorch's."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which PyTorch's tests need
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import optim_db

import instep.torch  # noqa: E402

OURS = {
    info.optim_cls.__name__: info
    for info in optim_db
    if info.optim_cls.__name__ in vars(instep.torch)
}
CASES = [
    pytest.param(info, case, id=f"{name} {case.desc}")
    for name, info in OURS.items()
    for case in info.optim_inputs_func(device="cpu")
]
each_case = pytest.mark.parametrize(("info", "case"), CASES)
each_rule = pytest.mark.parametrize("info", OURS.values(), ids=OURS)
STEPS = 7
IN_FLOAT32 = {"NAdam": {"mu_product"}, "ASGD": {"eta", "mu"}}
"""Numbers that PyTorch keeps in float32, whatever parameters are, and instep with these."""


def tolerance(info: Any, dtype: Any, rate: Any = None) -> float:
    """Return how far parameters of about 1 may be apart."""
    name = info.optim_cls.__name__
    if name == "Muon":  # PyTorch multiplies matrices in bfloat16
        return 0.1 * float(1e-3 if rate is None else rate)
    if dtype is torch.float32:
        return 2e-6
    return 1e-8 if name in IN_FLOAT32 else 1e-13


def parameters(info: Any, dtype: Any = torch.float64) -> list[Any]:
    torch.manual_seed(1)
    shapes = [(6, 4), (3, 5)] if info.optim_cls is torch.optim.Muon else [(6, 4), (5,), ()]
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]


def pair(info: Any, options: dict[str, Any], dtype: Any = torch.float64) -> Any:
    """Return parameters and an optimizer of PyTorch's, and ours."""
    classes = info.optim_cls, getattr(instep.torch, info.optim_cls.__name__)
    both = [parameters(info, dtype) for _ in classes]
    return [(p, cls(p, **copy.deepcopy(options))) for p, cls in zip(both, classes, strict=True)]


def train(params: list[Any], opt: Any, steps: int = STEPS, seed: int = 0) -> None:
    torch.manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn_like(p)
        opt.step()


def assert_alike(one: list[Any], other: list[Any], absolute: float) -> None:
    for p, q in zip(one, other, strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=0, atol=absolute)


def test_all_of_pytorchs_classes_are_here() -> None:
    missing = {info.optim_cls.__name__ for info in optim_db} - OURS.keys()
    assert missing == {"LBFGS", "SparseAdam"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@each_case
def test_inputs(info: Any, case: Any, dtype: Any) -> None:
    (theirs, their_opt), (ours, our_opt) = pair(info, case.kwargs, dtype)
    train(theirs, their_opt)
    train(ours, our_opt)
    assert_alike(theirs, ours, tolerance(info, dtype, case.kwargs.get("lr")))
    there, here = their_opt.state_dict(), our_opt.state_dict()
    differ = IN_FLOAT32.get(info.optim_cls.__name__, set())
    for k, entry in there["state"].items():
        kept = {name: value for name, value in entry.items() if value is not None}
        assert kept.keys() == here["state"][k].keys()
        for name, value in kept.items():
            own = here["state"][k][name]
            assert own.shape == value.shape
            assert own.dtype == value.dtype or name in differ


@each_rule
def test_implementations_that_are_asked_for(info: Any) -> None:
    for flag in set(info.supported_impls) - {"differentiable"}:
        (theirs, their_opt), (ours, our_opt) = pair(info, {flag: True})
        train(theirs, their_opt)
        train(ours, our_opt)
        assert_alike(theirs, ours, tolerance(info, torch.float64))
        assert our_opt.param_groups[0][flag] is True


@each_rule
def test_inputs_that_are_errors(info: Any) -> None:
    cls = getattr(instep.torch, info.optim_cls.__name__)
    for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
        case = error.optimizer_error_input
        if "complex" in case.desc:  # which is an error here with all classes, see below
            continue
        with pytest.raises(error.error_type, match=error.error_regex):
            cls(case.params, **case.kwargs)


@each_case
def test_steps_without_gradients_do_nothing(info: Any, case: Any) -> None:
    (_, their_opt), (params, opt) = pair(info, case.kwargs)
    before = copy.deepcopy(params)
    their_opt.step()
    opt.step()
    assert all(map(torch.equal, before, params))
    assert opt.state_dict()["state"].keys() == their_opt.state_dict()["state"].keys()


@each_case
def test_zeros_move_what_they_move_there(info: Any, case: Any) -> None:
    (theirs, their_opt), (ours, our_opt) = pair(info, case.kwargs)
    for params, opt in ((theirs, their_opt), (ours, our_opt)):
        for p in params:
            p.grad = torch.zeros_like(p)
        opt.step()
    assert_alike(theirs, ours, tolerance(info, torch.float64))


@each_case
def test_state_of_earlier_releases(info: Any, case: Any) -> None:
    """Without the flags that were not there, as torch's test_can_load_older_state_dict."""
    _, (params, opt) = pair(info, case.kwargs)
    train(params, opt)
    old = copy.deepcopy(opt.state_dict())
    for flag in info.not_og_supported_flags:
        for group in old["param_groups"]:
            group.pop(flag, None)
    opt.load_state_dict(old)
    again = copy.deepcopy((params, opt))
    train(params, opt, seed=3)
    train(*again, seed=3)
    assert_alike(params, again[0], 0)


@each_rule
def test_hooks_on_state(info: Any) -> None:
    _, (params, opt) = pair(info, {})
    called = []
    opt.register_state_dict_pre_hook(lambda *_: called.append("before saving"))
    opt.register_state_dict_post_hook(lambda *_: called.append("after saving"))
    opt.register_load_state_dict_pre_hook(lambda *_: called.append("before loading"))
    opt.register_load_state_dict_post_hook(lambda *_: called.append("after loading"))
    train(params, opt, 1)
    opt.load_state_dict(opt.state_dict())
    assert called == ["before saving", "after saving", "before loading", "after loading"]


@each_rule
def test_schedulers_of_each(info: Any) -> None:
    """All of `scheduler_inputs`, two and two, as PyTorch's tests have them."""
    for makers in info.scheduler_inputs:
        (theirs, their_opt), (ours, our_opt) = pair(info, {"lr": 0.01})
        for params, opt in ((theirs, their_opt), (ours, our_opt)):
            schedules = [make(opt) for make in makers]
            for seed in range(5):
                train(params, opt, 1, seed)
                for schedule in schedules:
                    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                        schedule.step(1.0)
                    else:
                        schedule.step()
        assert_alike(theirs, ours, 20 * tolerance(info, torch.float64, 0.01))


@each_rule
def test_complex_numbers_are_refused(info: Any) -> None:
    cls = getattr(instep.torch, info.optim_cls.__name__)
    p = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    with pytest.raises((TypeError, ValueError), match="got complex64"):
        cls([p]).step()
    assert torch.equal(p.detach(), torch.ones(2, 2, dtype=torch.complex64))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-4},
    {"maximize": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sparse_gradients_as_sparse_adam(options: dict[str, Any], dtype: Any) -> None:
    """Which adds epsilon to the uncorrected root, so that here it is a larger one at each step."""
    torch.manual_seed(0)
    start = torch.randn(20, 3, dtype=dtype)
    theirs, ours = (torch.nn.Parameter(start.clone()) for _ in range(2))
    eps, beta = options.get("eps", 1e-8), options.get("betas", (0.9, 0.999))[1]
    their_opt = torch.optim.SparseAdam([theirs], **options)
    our_opt = instep.torch.Adam([ours], **options)
    for step in range(1, 8):
        ids = torch.randint(0, 20, (1, 9))
        values = torch.randn(9, 3, dtype=dtype)
        for p in (theirs, ours):  # some ids twice
            p.grad = torch.sparse_coo_tensor(ids, values, p.shape, check_invariants=True)
        our_opt.param_groups[0]["eps"] = eps / (1 - beta**step) ** 0.5
        their_opt.step()
        our_opt.step()
    absolute = 1e-13 if dtype is torch.float64 else 1e-6
    assert_alike([theirs], [ours], absolute)
    for name in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_allclose(
            their_opt.state[theirs][name], our_opt.state[ours][name], rtol=0, atol=absolute
        )
