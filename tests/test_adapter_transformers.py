"""instep's steps in the Trainer of transformers, which Accelerate wraps."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")

import instep.torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of both libraries, on themselves


def a_model() -> Any:
    """Return a language model of random numbers."""
    torch.manual_seed(1)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=32,
            n_positions=16,
            n_embd=16,
            n_layer=1,
            n_head=2,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    )


def data() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    ids = torch.randint(0, 32, (32, 8))
    return [{"input_ids": each, "labels": each} for each in ids]


def trainer(folder: Path, make: Any, epochs: int = 2, **more: Any) -> Any:
    model = a_model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",
        save_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        **more,
    )
    return transformers.Trainer(
        model, arguments, train_dataset=data(), optimizers=(make(model.parameters()), None)
    )


# The gradients of keys' biases are zero but for rounding, which a small epsilon would make large.
OPTIONS: dict[str, Any] = {"lr": 0.01, "eps": 1e-3}
MAKERS: dict[str, Any] = {
    "AdamW": lambda p: instep.torch.AdamW(p, **OPTIONS),
    "Offloaded": lambda p: instep.torch.Offloaded(p, "AdamW", **OPTIONS, bucket_bytes=2000),
}
each_maker = pytest.mark.parametrize("name", MAKERS)


@each_maker
@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2}], ids=str)
def test_training_is_that_with_pytorchs(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    """Gradients are clipped by Accelerate; it loads the optimizer's state from itself."""
    ours = trainer(tmp_path / "ours", MAKERS[name], **more)
    theirs = trainer(tmp_path / "theirs", lambda p: torch.optim.AdamW(p, **OPTIONS), **more)
    ours.train()
    theirs.train()
    assert ours.state.global_step == 16 // more.get("gradient_accumulation_steps", 1)
    for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-4)


@each_maker
def test_checkpoints_are_resumed_bit_by_bit(name: str, tmp_path: Path) -> None:
    whole = trainer(tmp_path, MAKERS[name])
    whole.train()
    resumed = trainer(tmp_path, MAKERS[name])
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert resumed.state.global_step == 16
    assert all(map(torch.equal, whole.model.parameters(), resumed.model.parameters()))
