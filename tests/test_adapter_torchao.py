"""instep's classes as the base of torchao's optimizer that offloads, with the CPU as the device.

Its constructor refuses all devices but CUDA and XPU, so `torch.xpu` has streams here that do
nothing, as `torch.cpu` has them, and memory is not pinned.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torchao")
    from torchao.optim import CPUOffloadOptimizer, cpu_offload

import instep.torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Stream:
    def wait_stream(self, other: Any) -> None:
        pass

    def record_event(self) -> Any:
        return torch.cpu.Event()

    def synchronize(self) -> None:
        pass


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    like = torch.empty_like
    monkeypatch.setattr(cpu_offload, "get_available_devices", lambda: ["cpu", "xpu"])
    monkeypatch.setattr(torch.xpu, "Stream", Stream)
    monkeypatch.setattr(torch.xpu, "current_stream", Stream)
    monkeypatch.setattr(torch.xpu, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch, "empty_like", lambda *a, pin_memory=False, **k: like(*a, **k))


def a_model() -> Any:
    torch.manual_seed(1)
    layers = torch.nn.Linear(5, 10), torch.nn.Tanh(), torch.nn.Linear(10, 1)
    return torch.nn.Sequential(*layers)


def train(model: Any, opt: Any, seeds: Any) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        x = torch.randn(32, 5)
        ((model(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
        opt.step()
        opt.zero_grad()


def offloading(model: Any, base: Any) -> Any:
    return CPUOffloadOptimizer(model.parameters(), base, minimal_size=0, lr=0.01)


def test_it_needs_a_device() -> None:
    if torch.cuda.is_available() or torch.xpu.is_available():
        pytest.skip("there is one")
    with pytest.raises(AssertionError, match="only supports CUDA & XPU"):
        offloading(a_model(), instep.torch.AdamW)


@pytest.mark.usefixtures("device")
def test_our_class_as_its_base() -> None:
    ours, theirs, plain = a_model(), a_model(), a_model()
    train(ours, offloading(ours, instep.torch.AdamW), range(6))
    train(theirs, offloading(theirs, torch.optim.AdamW), range(6))
    train(plain, instep.torch.AdamW(plain.parameters(), lr=0.01), range(6))
    assert all(map(torch.equal, ours.parameters(), plain.parameters()))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("device")
def test_its_state_is_resumed_bit_by_bit() -> None:
    model, new = a_model(), a_model()
    opt = offloading(model, instep.torch.AdamW)
    train(model, opt, range(3))
    new.load_state_dict(model.state_dict())
    its_opt = offloading(new, instep.torch.AdamW)
    its_opt.load_state_dict(opt.state_dict())
    train(model, opt, range(3, 6))
    train(new, its_opt, range(3, 6))
    assert all(map(torch.equal, model.parameters(), new.parameters()))
