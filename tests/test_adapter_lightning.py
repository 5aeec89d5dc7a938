"""instep's steps in Lightning's loop: fitting, schedulers, checkpoints."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning")

import instep.torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers and workers
Module: Any = lightning.LightningModule


class Net(Module):  # type: ignore[misc]
    def __init__(self, make: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        layers = torch.nn.Linear(5, 10), torch.nn.Tanh(), torch.nn.Linear(10, 1)
        self.net, self._make = torch.nn.Sequential(*layers), make

    def training_step(self, batch: Any, index: int) -> Any:
        (x,) = batch
        return ((self.net(x) - x.sum(1, keepdim=True)) ** 2).mean()

    def configure_optimizers(self) -> Any:
        opt = self._make(self.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 20)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def data() -> Any:
    torch.manual_seed(0)
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(64, 5)), batch_size=8
    )


def fitted(folder: Path, make: Any, epochs: int, resumed: Path | None = None, **more: Any) -> Any:
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    model = Net(make)
    trainer.fit(model, data(), ckpt_path=resumed)
    return trainer, model


def offloaded(params: Any) -> Any:
    return instep.torch.Offloaded(params, "AdamW", lr=0.01, bucket_bytes=100)


MAKERS = {"AdamW": lambda p: instep.torch.AdamW(p, lr=0.01), "Offloaded": offloaded}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "more", [{}, {"gradient_clip_val": 0.1}, {"accumulate_grad_batches": 2}], ids=str
)
def test_a_fit_is_that_of_pytorchs(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    trainer, ours = fitted(tmp_path, MAKERS[name], 2, **more)
    _, theirs = fitted(tmp_path, lambda p: torch.optim.AdamW(p, lr=0.01), 2, **more)
    assert trainer.global_step == 16 // more.get("accumulate_grad_batches", 1)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_is_resumed_bit_by_bit(name: str, tmp_path: Path) -> None:
    trainer, _ = fitted(tmp_path, MAKERS[name], 1)
    trainer.save_checkpoint(tmp_path / "after_one.ckpt")
    _, resumed = fitted(tmp_path, MAKERS[name], 3, tmp_path / "after_one.ckpt")
    _, whole = fitted(tmp_path, MAKERS[name], 3)
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))


def test_steps_in_backward(tmp_path: Path) -> None:
    def make(params: Any) -> Any:
        return instep.torch.Offloaded(params, "AdamW", lr=0.01, step_in_backward=True)

    _, ours = fitted(tmp_path, make, 2)
    _, plain = fitted(tmp_path, offloaded, 2)
    assert all(map(torch.equal, ours.parameters(), plain.parameters()))
