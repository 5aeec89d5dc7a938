"""thinc's Adam, which is compiled and has one thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, library, repeated


class Thinc(Peer):
    """``thinc.optimizers``, called for each array."""

    title = "thinc"
    rules = ("Adam", "AdamW")
    dtypes = ("float32",)

    def __init__(self) -> None:
        self._optimizers = library("thinc.api")
        self.version = library("thinc").__version__

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Allocate parameters, and copies of the gradients, which a step sets to zero."""
        params = case.ones()
        config = case.rule.config
        optimizer = self._optimizers.Adam(
            config["learning_rate"],
            beta1=config["beta_1"],
            beta2=config["beta_2"],
            eps=config["epsilon"],
            L2=config["weight_decay"],
            L2_is_weight_decay=True,
            grad_clip=0.0,
            use_averages=False,
        )
        copies = [g.copy() for g in grads]
        streams = [
            ((index, "p"), p.reshape(-1), copy.reshape(-1))
            for index, (p, copy) in enumerate(zip(params, copies, strict=True))
        ]

        def refill() -> None:
            for copy, g in zip(copies, grads, strict=True):
                np.copyto(copy, g)

        def step() -> None:
            for key, p, g in streams:
                optimizer(key, p, g)

        return Contender(repeated(step), lambda: params, refill)
