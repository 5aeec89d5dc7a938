"""The optimizers inside scikit-learn's multi-layer perceptrons, which have one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, library, repeated


class ScikitLearn(Peer):
    """``sklearn.neural_network._stochastic_optimizers``."""

    title = "scikit-learn"
    rules = ("SGD", "Momentum", "Adam")
    temporaries = 4

    def __init__(self) -> None:
        self._optimizers = library("sklearn.neural_network._stochastic_optimizers")
        self.version = library("sklearn").__version__

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Allocate parameters and state."""
        params = case.ones()
        optimizer = self.optimizer(case, params)
        return Contender(repeated(optimizer.update_params, params, grads), lambda: params)

    def optimizer(self, case: Case, params: list[Array]) -> Any:
        """Return scikit-learn's optimizer of these parameters."""
        config = case.rule.config
        if case.rule.name == "Adam":
            return self._optimizers.AdamOptimizer(
                params,
                config["learning_rate"],
                config["beta_1"],
                config["beta_2"],
                config["epsilon"],
            )
        return self._optimizers.SGDOptimizer(
            params, config["learning_rate"], momentum=config["momentum"], nesterov=False
        )
