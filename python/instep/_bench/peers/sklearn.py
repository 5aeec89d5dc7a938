"""The optimizers inside scikit-learn's multi-layer perceptrons, which have one thread."""

from __future__ import annotations

from collections.abc import Sequence

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
        config = case.rule.config
        if case.rule.name == "Adam":
            optimizer = self._optimizers.AdamOptimizer(
                params,
                config["learning_rate"],
                config["beta_1"],
                config["beta_2"],
                config["epsilon"],
            )
        else:
            optimizer = self._optimizers.SGDOptimizer(
                params, config["learning_rate"], momentum=config["momentum"], nesterov=False
            )
        return Contender(repeated(optimizer.update_params, params, grads), lambda: params)
