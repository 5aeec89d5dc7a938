"""Operations on optimizers that may fail in the middle, where memory runs out."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep
# Of the arrays that get spoilt.
SHAPE = (2, 3)
# Numbers that each rule has, or has a word for; of the rest its defaults do.
OWN: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Lars": {"momentum": 0.9},
}


def arrays(dtype: Any = np.float64) -> list[Any]:
    return [np.ones(4, dtype), np.ones(SHAPE, dtype), np.ones((), dtype)]


def trained(name: str, **options: Any) -> Any:
    """An optimizer with all that there is to be damaged."""
    opt = getattr(untyped, name)(
        arrays(), use_ema=True, gradient_accumulation_steps=2, **OWN.get(name, {}), **options
    )
    for _ in range(3):
        opt.step(arrays())
    return opt


@cache
def a_saved_state() -> dict[str, Any]:
    opt = instep.Adam(arrays(np.float32), amsgrad=True, use_ema=True)
    opt.step(arrays())
    return opt.state_dict()


def operations() -> dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]:
    """What takes memory: how to make the optimizer, and the operation."""

    def make(name: str = "Adam", **options: Any) -> Any:
        opt = getattr(untyped, name)(arrays(np.float32), **{**OWN.get(name, {}), **options})
        opt.step(arrays())
        return opt

    variables = arrays(np.float32)

    def first(opt: Any) -> None:
        opt.apply_gradients(zip(arrays(), variables, strict=True))

    return {
        "build": (make, lambda opt: opt.build(arrays(np.float32))),
        "first build": (untyped.Adam, lambda opt: opt.build(arrays(np.float32))),
        "first apply_gradients": (untyped.Adam, first),
        "amsgrad": (make, lambda opt: setattr(opt, "amsgrad", True)),
        "use_ema": (make, lambda opt: setattr(opt, "use_ema", True)),
        "window": (make, lambda opt: setattr(opt, "gradient_accumulation_steps", 3)),
        "load_state_dict": (make, lambda opt: opt.load_state_dict(a_saved_state())),
        "state_dict": (make, lambda opt: opt.state_dict()),
        "pickle": (make, lambda opt: pickle.loads(pickle.dumps(opt))),
        "deepcopy": (make, copy.deepcopy),
        "step": (make, lambda opt: opt.step(arrays())),
        "Adafactor": (lambda: make("Adafactor"), lambda opt: opt.step(arrays())),
        "SM3": (lambda: make("SM3"), lambda opt: opt.step(arrays())),
        "Muon": (lambda: make("Muon"), lambda opt: opt.step(arrays())),
    }


def half(update: int) -> float:
    return 0.5


def every_operation(folder: str = "") -> dict[str, Any]:
    """How to make an optimizer, and what takes memory then. Files go to the folder."""
    known = operations()
    make: Any = known["build"][0]
    file = Path(folder, "state.npz")
    grad = arrays()[0].astype("float32")

    def about_to_load() -> Any:
        if not file.exists():
            other = make(amsgrad=True)
            other.step(arrays())
            other.save(file)
        return make(amsgrad=True)

    return {
        **known,
        "constructor": (make, lambda opt: instep.NovoGrad(arrays(), use_ema=True)),
        "group": (make, lambda opt: instep.SGD([instep.Group(arrays(), momentum=0.5)])),
        "learning_rate": (make, lambda opt: setattr(opt, "learning_rate", 0.5)),
        "schedule": (make, lambda opt: setattr(opt, "learning_rate", half)),
        "first step": (lambda: instep.Adam(arrays(), use_ema=True), lambda opt: opt.step(arrays())),
        "save": (make, lambda opt: opt.save(Path(folder, "other.npz"))),
        "load": (about_to_load, lambda opt: opt.load(file)),
        "kernel": (make, lambda opt: instep.kernels.sgd(opt.params[0], grad, learning_rate=0.5)),
        "repr": (make, repr),
    }
