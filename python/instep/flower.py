"""Flower's server strategies with instep's rules: clients train, the server steps.

What clients have moved the weights by, averaged, is the gradient of a step on the server: S. Reddi
et al., "Adaptive federated optimization", ICLR 2021. `FedOpt` takes any optimizer; `FedAdam`,
`FedYogi`, `FedAdagrad` and `FedAvgM` have Flower's arguments. Arrays keep their dtypes; those that
are not of floating-point numbers become the rounded averages of the clients'.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy import FedAvg

import instep

if TYPE_CHECKING:
    from instep._optimizer import Optimizer as Engine


class FedOpt(FedAvg):
    """Federated averaging whose averages are gradients for an optimizer.

    Parameters
    ----------
    optimizer : Optimizer
        One without parameters, such as ``instep.Lamb(learning_rate=0.01)``.
    **options
        Those of `flwr.serverapp.strategy.FedAvg`.

    Attributes
    ----------
    optimizer : Optimizer
        The optimizer, bound to a dict of the weights from the first round on. Its `save` keeps the
        server's state; in a new strategy, `build` on a dict of them and then `load` bring it back.

    Raises
    ------
    TypeError, ValueError
        If `optimizer` is something else, or has parameters.
    """

    def __init__(self, *, optimizer: Engine, **options: Any) -> None:
        if not isinstance(optimizer, instep.Optimizer):
            raise TypeError(f"optimizer: expected one of instep's, got {optimizer!r:.80}")
        if optimizer.params is not None:
            raise ValueError("optimizer: expected one without parameters, got a bound one")
        super().__init__(**options)
        self.optimizer = optimizer
        self._current: dict[str, Any] | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: Any, grid: Any
    ) -> Iterable[Any]:
        """Send the weights to clients, and keep them to compare theirs with."""
        self._current = {name: np.array(array.numpy()) for name, array in arrays.items()}
        messages: Iterable[Any] = super().configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Any]
    ) -> tuple[ArrayRecord | None, Any]:
        """Make a step of what the clients' weights have become.

        Returns
        -------
        tuple of ArrayRecord or None and MetricRecord or None
            The new weights, and the clients' metrics; None where no client has answered.

        Raises
        ------
        AggregationError
            If clients have other arrays than were sent to them.
        """
        averages, metrics = super().aggregate_train(server_round, replies)
        if averages is None:
            return None, metrics
        arrays = {name: array.numpy() for name, array in averages.items()}
        current = self._current
        if current is None or {n: a.shape for n, a in arrays.items()} != {
            n: a.shape for n, a in current.items()
        }:
            raise AggregationError(
                reason="expected the clients' arrays to have the names and shapes of those that "
                "configure_train has sent"
            )
        weights = {n: a for n, a in current.items() if a.dtype.kind == "f"}
        for name, array in current.items():
            if name not in weights:
                array[...] = np.rint(arrays[name])
        if weights:
            self.optimizer.build(weights)
            # In the weights' precision, of a difference that the averages may have digits for.
            self.optimizer.step({n: np.asarray(a - arrays[n], a.dtype) for n, a in weights.items()})
        return ArrayRecord({name: Array(array) for name, array in current.items()}), metrics


class FedAdam(FedOpt):
    """Adam on the server, with epsilon (`tau`) on the uncorrected root.

    Parameters
    ----------
    eta, beta_1, beta_2, tau : float, optional
        The learning rate and Adam's numbers; 0.1, 0.9, 0.99 and 0.001 by default, as in Flower.
    as_flower : bool, optional
        Correct as Flower's class does, with the number of the round plus one.
    **options
        Those of `flwr.serverapp.strategy.FedAvg`.
    """

    def __init__(
        self,
        *,
        eta: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
        as_flower: bool = False,
        **options: Any,
    ) -> None:
        optimizer = instep.Adam(
            learning_rate=eta,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=tau,
            first_step=2 if as_flower else 1,
            convention="keras",
        )
        super().__init__(optimizer=optimizer, **options)


class FedYogi(FedOpt):
    """Yogi on the server.

    Parameters
    ----------
    eta, beta_1, beta_2, tau : float, optional
        The learning rate and Yogi's numbers; 0.01, 0.9, 0.99 and 0.001 by default, as in Flower.
    **options
        Those of `flwr.serverapp.strategy.FedAvg`.
    """

    def __init__(
        self,
        *,
        eta: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
        **options: Any,
    ) -> None:
        optimizer = instep.Yogi(
            learning_rate=eta,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=tau,
            initial_accumulator_value=0.0,
        )
        super().__init__(optimizer=optimizer, **options)


class FedAdagrad(FedOpt):
    """Adagrad on the server.

    Parameters
    ----------
    eta, tau : float, optional
        The learning rate and epsilon; 0.1 and 0.001 by default, as in Flower.
    **options
        Those of `flwr.serverapp.strategy.FedAvg`.
    """

    def __init__(self, *, eta: float = 0.1, tau: float = 1e-3, **options: Any) -> None:
        super().__init__(optimizer=instep.Adagrad(learning_rate=eta, epsilon=tau), **options)


class FedAvgM(FedOpt):
    """Momentum on the server.

    Parameters
    ----------
    server_learning_rate, server_momentum : float, optional
        1 and 0 by default, as in Flower: plain averaging.
    **options
        Those of `flwr.serverapp.strategy.FedAvg`.
    """

    def __init__(
        self, *, server_learning_rate: float = 1.0, server_momentum: float = 0.0, **options: Any
    ) -> None:
        optimizer = instep.SGD(learning_rate=server_learning_rate, momentum=server_momentum)
        super().__init__(optimizer=optimizer, **options)
