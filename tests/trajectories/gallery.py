"""Record how other packages move a parameter by the rules of `instep.gallery`.

python tests/trajectories/gallery.py
    runs them and writes gallery.npz beside this file: by rule and options a parameter, gradients,
    and the parameter after each of them, in float64.

The packages live in an environment of their own, made by

    python -m venv peers
    peers/bin/pip install numpy torch==2.13.0
    peers/bin/pip install --no-deps madgrad==1.3 adamp==0.3.0 qhoptim==1.1.0 timm==1.0.31 \
        pytorch_optimizer==4.1.0

The tests read the file and need none of this. Of Sophia without Hessian there is no package; ClipUp
is a built-in rule, too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

STEPS, SHAPE = 12, (1, 16)
COMMON = {"lr": 0.01}
PACKAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "CautiousAdamW weight_decay=0.01": (
        "timm.optim.adamw",
        "AdamWLegacy",
        {"weight_decay": 0.01, "caution": True},
    ),
    "ADOPT": ("timm.optim.adopt", "Adopt", {"clip_exp": 0.25}),
    "LaProp": ("timm.optim.laprop", "LaProp", {"betas": (0.9, 0.999), "eps": 1e-15}),
    "MADGRAD": ("madgrad", "MADGRAD", {}),
    "AdamP": ("adamp", "AdamP", {}),
    "Grams": ("pytorch_optimizer", "Grams", {"weight_decay": 0.0}),
    "MARS": (
        "timm.optim.mars",
        "Mars",
        {"betas": (0.9, 0.99), "weight_decay": 0.0, "optimize_1d": True},
    ),
    "QHAdam": ("qhoptim.pyt", "QHAdam", {"nus": (0.7, 1.0), "betas": (0.995, 0.999)}),
}


def without_models() -> None:
    """Let timm's optimizers be imported without its models, which need more packages."""
    spec = importlib.util.find_spec("timm")
    package = types.ModuleType("timm")
    package.__path__ = list((spec and spec.submodule_search_locations) or [])
    sys.modules["timm"] = package
    with contextlib.suppress(ModuleNotFoundError):  # of what builds models; optimizers are there
        importlib.import_module("timm.optim")


def path_of(module: str, name: str, options: dict[str, Any], seed: int) -> Any:
    """Return the parameter, its gradients, and what it becomes."""
    random = np.random.default_rng(seed)
    start = random.standard_normal(SHAPE)
    param = torch.nn.Parameter(torch.tensor(start))
    optimizer = getattr(importlib.import_module(module), name)([param], **COMMON, **options)
    grads, after = [], []
    for step in range(STEPS):
        g = random.standard_normal(SHAPE)
        if step % 3 == 2:  # nearly along the surface of a sphere, for AdamP
            now = param.detach().numpy()
            g -= 0.999 * (g * now).sum() / (now * now).sum() * now
        param.grad = torch.tensor(g)
        optimizer.step()
        grads.append(g)
        after.append(param.detach().numpy().copy())
    return np.stack([start, *grads, *after])


if __name__ == "__main__":
    without_models()
    paths = {
        f"{case} learning_rate=0.01": path_of(*told, seed)
        for seed, (case, told) in enumerate(PACKAGES.items())
    }
    np.savez_compressed(Path(__file__).with_name("gallery.npz"), **paths)
