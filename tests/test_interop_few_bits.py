"""State in few bits from and to other frameworks: PyTorch in bfloat16, 8 bits of bitsandbytes."""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import Any

import numpy as np
import pytest
from journeys import unchanged

import instep
from instep import interop

STATE = "__bnb_optimizer_quant_state__"
SHAPES = [(70, 100), (5,)]


def a_table(lowest: float) -> Any:
    """Return a table of 256 numbers up to 1, dense near 0, as bitsandbytes has."""
    upper = np.geomspace(1e-7, 1, 128 if lowest < 0 else 255)
    return np.concatenate([-upper[::-1] if lowest < 0 else [], [0.0], upper])[-256:].astype("f4")


def an_8_bit_state(seed: int = 0) -> dict[str, Any]:
    """Return what `state_dict` of an 8-bit Adam of bitsandbytes is like, in NumPy's arrays."""
    rng = np.random.default_rng(seed)
    large = {
        "state1": rng.integers(0, 256, SHAPES[0], np.uint8),
        "state2": rng.integers(0, 256, SHAPES[0], np.uint8),
        "qmap1": a_table(-1),
        "qmap2": a_table(0),
        "absmax1": rng.uniform(0.1, 2, 28).astype("f4"),
        "absmax2": rng.uniform(0.1, 2, 28).astype("f4"),
    }
    small = {name: np.abs(rng.standard_normal(5)).astype("f4") for name in ("state1", "state2")}
    numbers = {"lr": 0.25, "betas": (0.5, 0.75), "eps": 1e-6, "weight_decay": 0.125, "alpha": 0.0}
    return {
        "state": {0: {"step": 7, STATE: large}, 1: {"step": 7, STATE: small}},
        "param_groups": [{**numbers, "params": [0, 1]}],
    }


def a_bound(**options: Any) -> Any:
    return instep.AdamW([np.ones(s, np.float32) for s in SHAPES], convention="torch", **options)


def test_8_bits_of_bitsandbytes() -> None:
    there = an_8_bit_state()
    opt = a_bound()
    interop.from_bitsandbytes(opt, there)
    kept = there["state"][0][STATE]
    for slot, k in (("m", "1"), ("v", "2")):
        scale = np.repeat(kept[f"absmax{k}"], 256)[:7000].reshape(SHAPES[0])
        assert np.array_equal(opt.state[0][slot], kept[f"qmap{k}"][kept[f"state{k}"]] * scale)
        assert np.array_equal(opt.state[1][slot], there["state"][1][STATE][f"state{k}"])
    assert opt.iterations == 7
    assert (opt.learning_rate, opt.beta_2, opt.weight_decay) == (0.25, 0.75, 0.125)

    back = interop.to_bitsandbytes(opt, an_8_bit_state(seed=1))
    again = a_bound()
    interop.from_bitsandbytes(again, back)
    for mine, its in zip(opt.state, again.state, strict=True):
        for slot in ("m", "v"):
            error = np.abs(mine[slot] - its[slot])
            assert (error <= 0.13 * np.abs(mine[slot]) + 1e-6).all()
    assert back["param_groups"][0]["weight_decay"] == 0.125


def test_what_is_no_8_bit_adam_is_refused() -> None:
    damages: list[tuple[Any, str]] = [
        (lambda d: d.pop("state"), "state_dict: expected a dict of 'state'"),
        (lambda d: d["param_groups"][0].pop("lr"), "expected that of an Adam"),
        (lambda d: d["param_groups"][0].update(alpha=0.5), "expected that of an Adam"),
        (lambda d: d["param_groups"][0].update(params=[0]), "groups"),
        (lambda d: d["state"][0].pop("step"), r"state_dict\['state'\]\[0\]: expected 'step'"),
        (lambda d: d["state"][0][STATE].pop("state2"), "expected 'state2', too"),
        (lambda d: d["state"][0][STATE].update(absmax1=np.ones(3)), "in blocks of 256"),
        (lambda d: d["state"][0][STATE].update(qmap1=np.ones(16)), "in blocks of 256"),
        (lambda d: d["state"][1][STATE].update(state1=np.ones(6, "f4")), "expected a float32 arr"),
    ]
    opt = a_bound()
    for damage, message in damages:
        there = copy.deepcopy(an_8_bit_state())
        damage(there)
        said = unchanged(opt, partial(interop.from_bitsandbytes, opt, there))
        assert re.search(message, said), said
    plain = instep.Adam([np.ones(s, np.float32) for s in SHAPES], convention="torch")
    said = unchanged(plain, lambda: interop.from_bitsandbytes(plain, an_8_bit_state()))
    assert "expected AdamW for the weight_decay" in said
    with pytest.raises(ValueError, match=re.escape("like['state']: expected the state of 2")):
        interop.to_bitsandbytes(opt, {**an_8_bit_state(), "state": {}})


def test_bitsandbytes_itself() -> None:
    torch = pytest.importorskip("torch")
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = bitsandbytes.optim.AdamW8bit(params, lr=1e-3, weight_decay=0.1)
    grads = [[torch.randn_like(p) for p in params] for _ in range(9)]

    def step(k: int) -> None:
        for param, grad in zip(params, grads[k], strict=True):
            param.grad = grad.clone()
        theirs.step()

    for k in range(3):
        step(k)
    arrays = [p.detach().numpy().copy() for p in params]
    opt = instep.AdamW(arrays, convention="torch")
    interop.from_bitsandbytes(opt, theirs.state_dict())
    for k in range(3, 6):
        step(k)
        opt.step([grad.numpy() for grad in grads[k]])
    for param, array in zip(params, arrays, strict=True):
        assert np.abs(param.detach().numpy() - array).max() < 3e-4  # three steps of 1e-3
    d = interop.to_bitsandbytes(opt, theirs.state_dict())
    with torch.no_grad():
        for param, array in zip(params, arrays, strict=True):
            param.copy_(torch.as_tensor(array))
    to_tensors = torch.utils._pytree.tree_map_only
    theirs.load_state_dict(to_tensors(np.ndarray, torch.as_tensor, d))
    for k in range(6, 9):
        step(k)
        opt.step([grad.numpy() for grad in grads[k]])
    for param, array in zip(params, arrays, strict=True):
        assert np.abs(param.detach().numpy() - array).max() < 3e-4


@pytest.mark.parametrize("state_dtype", [None, "bfloat16", "float8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_of_pytorch(dtype: str, state_dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, dtype=getattr(torch, dtype))) for s in SHAPES]
    theirs = torch.optim.Adam(params, fused=True)
    for _ in range(3):
        for param in params:
            param.grad = torch.randn_like(param)
        theirs.step()
    arrays = [param.detach().clone() for param in params]
    opt: Any = instep.Adam(arrays, convention="torch", rounding="nearest", state_dtype=state_dtype)
    interop.from_torch(opt, theirs.state_dict())
    assert opt.iterations == 3
    d = interop.to_torch(opt)
    error = {None: 0.0, "bfloat16": 0.0 if dtype == "bfloat16" else 2**-8, "float8": 2**-4}
    for k, state in theirs.state_dict()["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            expected = state[name].float().numpy()
            off = np.abs(d["state"][k][name] - expected).max()
            assert off <= error[state_dtype] * np.abs(expected).max()


def test_state_in_another_order_of_memory() -> None:
    """Blocks are of elements as they lie in memory, codes in their places."""
    rng = np.random.default_rng(0)
    start = np.asfortranarray(rng.standard_normal((30, 50)).astype("f4"))
    opt = instep.Adam([start], convention="torch", state_dtype="float8")
    opt.step([rng.standard_normal((30, 50))])
    d = interop.to_torch(opt)
    other = instep.Adam([start.copy(order="C")], convention="torch", state_dtype="float8")
    interop.from_torch(other, d)
    again = interop.to_torch(other)
    for name in ("exp_avg", "exp_avg_sq"):
        before, after = d["state"][0][name], again["state"][0][name]
        assert np.abs(before - after).max() <= np.abs(before).max() / 16
    interop.from_torch(opt, d)
    same = interop.to_torch(opt)
    for name in ("exp_avg", "exp_avg_sq"):
        assert np.array_equal(d["state"][0][name], same["state"][0][name])
