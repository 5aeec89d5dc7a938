"""PyTorch's optimizers: a loop over tensors, lists of tensors at a time, or one fused kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, library, repeated

Config = Mapping[str, Any]


def _adam(c: Config) -> dict[str, Any]:
    return {"betas": (c["beta_1"], c["beta_2"]), "eps": c["epsilon"]}


def _adafactor(c: Config) -> dict[str, Any]:
    eps = c["epsilon_1"], c["epsilon_2"]
    return {"beta2_decay": c["beta_2_decay"], "eps": eps, "d": c["clip_threshold"]}


# The class, and its keywords besides the learning rate.
_RULES: dict[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "SGD": ("SGD", lambda _: {}),
    "Momentum": ("SGD", lambda c: {"momentum": c["momentum"]}),
    "Adagrad": ("Adagrad", lambda c: {"eps": c["epsilon"]}),
    "RMSprop": ("RMSprop", lambda c: {"alpha": c["rho"], "eps": c["epsilon"]}),
    "Adadelta": ("Adadelta", lambda c: {"rho": c["rho"], "eps": c["epsilon"]}),
    "Adam": ("Adam", _adam),
    "AdamW": ("AdamW", lambda c: {**_adam(c), "weight_decay": c["weight_decay"]}),
    "Adamax": ("Adamax", _adam),
    "Nadam": ("NAdam", lambda c: {**_adam(c), "momentum_decay": c["momentum_decay"]}),
    "RAdam": ("RAdam", _adam),
    "Adafactor": ("Adafactor", _adafactor),
}
_FUSED = ("SGD", "Momentum", "Adagrad", "Adam", "AdamW")
_LOOPED = (*_RULES, "Muon")
_MODES = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def parameters(torch: Any, grads: Sequence[Array]) -> list[Any]:
    """Return tensors of ones that have copies of the gradients."""
    params = []
    for g in grads:
        gradient = torch.from_numpy(g).clone()
        params.append(torch.ones_like(gradient, requires_grad=True))
        params[-1].grad = gradient
    return params


def stepping(optimizer: Any, params: Sequence[Any]) -> Contender:
    """Return a contender made of an optimizer in PyTorch's manner."""
    return Contender(repeated(optimizer.step), lambda: [p.detach().numpy() for p in params])


def _muon(torch: Any, params: Sequence[Any], c: Config) -> Contender:
    """Return Muon for matrices and Adam for the rest, in the parameters' own type."""
    # The cast to bfloat16 would be 40 times as slow on a processor that can't compute with it.
    torch.Tensor.bfloat16 = torch.Tensor.clone
    rate = c["learning_rate"]
    matrices = [p for p in params if p.ndim == 2]
    others = [p for p in params if p.ndim != 2]
    optimizers = []
    if matrices:
        options = ("momentum", "nesterov", "ns_coefficients", "ns_steps", "weight_decay")
        keywords = {name: c[name] for name in options}
        optimizers.append(torch.optim.Muon(matrices, lr=rate, eps=c["epsilon"], **keywords))
    if others:
        betas = c["adam_beta_1"], c["adam_beta_2"]
        adam = torch.optim.Adam(others, lr=rate, betas=betas, eps=c["epsilon"], foreach=False)
        optimizers.append(adam)

    def step() -> None:
        for optimizer in optimizers:
            optimizer.step()

    return Contender(repeated(step), lambda: [p.detach().numpy() for p in params])


class Torch(Peer):
    """``torch.optim`` in one of its implementations."""

    temporaries = 3

    def __init__(self, mode: str) -> None:
        self._torch = library("torch")
        self._optimizers: Any = self._torch.optim
        self._mode = mode
        self.title = f"PyTorch {mode}"
        self.version = self._torch.__version__
        self.rules = {"for-loop": _LOOPED, "foreach": _RULES, "fused": _FUSED}[mode]

    def set_num_threads(self, threads: int) -> None:
        """Set PyTorch's number."""
        self._torch.set_num_threads(threads)

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Make tensors and their optimizer."""
        params = parameters(self._torch, grads)
        if case.rule.name == "Muon":
            return _muon(self._torch, params, case.rule.config)
        name, keywords = _RULES[case.rule.name]
        config = case.rule.config
        optimizer = getattr(self._optimizers, name)(
            params, lr=config["learning_rate"], **keywords(config), **_MODES[self._mode]
        )
        return stepping(optimizer, params)
