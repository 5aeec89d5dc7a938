"""bitsandbytes' optimizers with 32 bits of state, the ones that follow the formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, library
from instep._bench.peers.torch import parameters, stepping

Config = Mapping[str, Any]


def _adam(c: Config) -> dict[str, Any]:
    betas = c["beta_1"], c["beta_2"]
    return {"betas": betas, "eps": c["epsilon"], "weight_decay": c["weight_decay"]}


_RULES: dict[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "Momentum": ("SGD32bit", lambda c: {"momentum": c["momentum"]}),
    "RMSprop": ("RMSprop32bit", lambda c: {"alpha": c["rho"], "eps": c["epsilon"]}),
    "Adagrad": ("Adagrad32bit", lambda c: {"eps": c["epsilon"]}),
    "Adam": ("Adam32bit", _adam),
    "AdamW": ("AdamW32bit", _adam),
    "Lion": ("Lion32bit", lambda c: {"betas": (c["beta_1"], c["beta_2"])}),
}


class BitsAndBytes(Peer):
    """``bitsandbytes.optim``."""

    title = "bitsandbytes"
    rules = _RULES
    dtypes = ("float32",)
    temporaries = 3

    def __init__(self) -> None:
        self._torch = library("torch")
        self._optim = library("bitsandbytes").optim
        self.version = library("bitsandbytes").__version__

    def set_num_threads(self, threads: int) -> None:
        """Set PyTorch's number."""
        self._torch.set_num_threads(threads)

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Make tensors and their optimizer."""
        params = parameters(self._torch, grads)
        name, keywords = _RULES[case.rule.name]
        config = case.rule.config
        optimizer = getattr(self._optim, name)(
            params, lr=config["learning_rate"], **keywords(config)
        )
        return stepping(optimizer, params)
