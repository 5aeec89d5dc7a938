"""instep inside other libraries, called as these call their own optimizers."""

from __future__ import annotations

from typing import Any

import instep
from instep._bench.case import Array, Case
from instep._bench.peers.base import library
from instep._bench.peers.keras import Keras
from instep._bench.peers.sklearn import ScikitLearn
from instep._bench.peers.torch import Torch


class TorchAdapter(Torch):
    """``instep.torch``."""

    temporaries = 0

    def __init__(self) -> None:
        super().__init__("foreach")  # to a step of instep's it makes no difference
        self.title = "instep in PyTorch"
        self._optimizers = library("instep.torch")

    def set_num_threads(self, threads: int) -> None:
        """Set instep's number."""
        instep.set_num_threads(threads)


class KerasAdapter(Keras):
    """``instep.keras``, called eagerly."""

    title = "instep in Keras"
    temporaries = 0

    def __init__(self) -> None:
        super().__init__()
        self._optimizers = library("instep.keras")

    def set_num_threads(self, threads: int) -> None:
        """Set instep's number, and that of what Keras does around its updates."""
        super().set_num_threads(threads)
        instep.set_num_threads(threads)


class ScikitLearnAdapter(ScikitLearn):
    """What ``instep.sklearn`` puts in the place of scikit-learn's optimizers."""

    title = "instep in scikit-learn"
    temporaries = 0

    def __init__(self) -> None:
        super().__init__()
        self._estimators = library("instep.sklearn")

    def set_num_threads(self, threads: int) -> None:
        """Set instep's number."""
        instep.set_num_threads(threads)

    def optimizer(self, case: Case, params: list[Array]) -> Any:
        """Return what a classifier with these parameters has as its optimizer."""
        model = self._estimators.MLPClassifier(optimizer=case.rule.optimizer(**case.rule.settings))
        model.coefs_, model.intercepts_ = params, []
        model._optimizer = super().optimizer(case, params)
        return model._optimizer
