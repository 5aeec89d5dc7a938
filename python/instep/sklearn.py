"""scikit-learn's multi-layer perceptrons, trained by instep.

``instep.sklearn.MLPClassifier(optimizer=instep.Lion)`` is a
`sklearn.neural_network.MLPClassifier` with one argument more; without it, its solvers "adam" and
"sgd" do what they do in scikit-learn, in less time.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sklearn import neural_network

import instep

if TYPE_CHECKING:
    from instep._optimizer import Optimizer as Engine

_OPTIMIZER = """
optimizer : type or Optimizer, optional
    A rule of instep's, whose learning rate is `learning_rate_init`, or an optimizer of it
    without parameters, such as ``instep.AdamW(learning_rate=0.01, weight_decay=0.1)``, which is
    copied. By default `solver` says what is done. With "lbfgs" there is no use for it.
"""


class _Stepper:
    """Stands where scikit-learn has its stochastic optimizer.

    Parameters
    ----------
    theirs
        That optimizer, which goes on deciding on the learning rate, and when to stop.
    params
        The arrays to train.
    engine
        An optimizer without parameters.
    """

    def __init__(
        self, theirs: Any, params: Sequence[Any], engine: Engine, *, follows: bool
    ) -> None:
        for name in ("ms", "vs", "velocities"):  # its state, which nothing needs
            vars(theirs).pop(name, None)
        self._theirs, self._follows = theirs, follows
        self._params = list(params)
        self._engine = engine
        engine.build(self._params)

    @property
    def optimizer(self) -> Engine:
        """The optimizer that makes the steps."""
        return self._engine

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return self._engine.current_learning_rate

    def update_params(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        """Update the arrays with their gradients, in place."""
        if any(a is not b for a, b in zip(params, self._params, strict=True)):
            self._params = list(params)
            self._engine.build(self._params)
        self._engine.step(list(grads))

    def iteration_ends(self, time_step: int) -> None:
        """Go on after an epoch."""
        self._theirs.iteration_ends(time_step)
        self._follow()

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        """Return whether to stop, where the loss gets no better."""
        stops: bool = self._theirs.trigger_stopping(msg, verbose)
        self._follow()
        return stops

    def _follow(self) -> None:
        if self._follows:
            self._engine.learning_rate = self._theirs.learning_rate


class _Trained:
    """What both estimators have besides scikit-learn's."""

    optimizer: Any

    @property
    def _optimizer(self) -> _Stepper:
        try:
            stepper: _Stepper = vars(self)["_stepper"]
        except KeyError:
            raise AttributeError("_optimizer") from None  # before the first fit
        return stepper

    @_optimizer.setter
    def _optimizer(self, theirs: Any) -> None:
        self._stepper = _Stepper(
            theirs,
            self.coefs_ + self.intercepts_,  # type: ignore[attr-defined]
            self._engine(),
            follows=self.optimizer is None and self.solver == "sgd",  # type: ignore[attr-defined]
        )

    def _engine(self) -> Engine:
        """Return an optimizer that has no parameters yet."""
        model: Any = self
        given = self.optimizer
        if isinstance(given, instep.Optimizer):
            if given.params is not None:
                raise ValueError("optimizer: expected one without parameters, got a bound one")
            return copy.deepcopy(given)
        if given is not None:
            is_rule = isinstance(given, type) and issubclass(given, instep.Optimizer)
            if not is_rule or given is instep.Optimizer:
                raise TypeError(
                    "optimizer: expected a rule such as instep.Lion, or an optimizer without "
                    f"parameters; got {given!r:.80}"
                )
            made: Engine = given(learning_rate=model.learning_rate_init)
            return made
        # Keras has scikit-learn's formulas: epsilon on the uncorrected root, the rate in momentum.
        if model.solver == "adam":
            return instep.Adam(
                learning_rate=model.learning_rate_init,
                beta_1=model.beta_1,
                beta_2=model.beta_2,
                epsilon=model.epsilon,
                convention="keras",
            )
        return instep.SGD(
            learning_rate=model.learning_rate_init,
            momentum=model.momentum,
            nesterov=bool(model.nesterovs_momentum and model.momentum),
            convention="keras",
        )


def _with_optimizer(cls: Any) -> Any:
    """Give a class the constructor of scikit-learn's with one argument more."""
    _, theirs = cls.__bases__
    signature = inspect.signature(theirs.__init__)
    extra = inspect.Parameter("optimizer", inspect.Parameter.KEYWORD_ONLY, default=None)

    def constructor(self: Any, *arguments: Any, optimizer: Any = None, **named: Any) -> None:
        theirs.__init__(self, *arguments, **named)
        self.optimizer = optimizer

    cls.__init__ = constructor
    parameters = [*signature.parameters.values(), extra]
    cls.__init__.__signature__ = signature.replace(parameters=parameters)
    before, heading, after = inspect.cleandoc(theirs.__doc__ or "").partition("\nAttributes\n")
    cls.__doc__ = f"{cls.__doc__}\n\n{before.rstrip()}\n{_OPTIMIZER}{heading}{after}"
    return cls


@_with_optimizer
class MLPClassifier(_Trained, neural_network.MLPClassifier):
    """`sklearn.neural_network.MLPClassifier`, trained by instep."""

    _parameter_constraints = {
        **neural_network.MLPClassifier._parameter_constraints,
        "optimizer": "no_validation",
    }


@_with_optimizer
class MLPRegressor(_Trained, neural_network.MLPRegressor):
    """`sklearn.neural_network.MLPRegressor`, trained by instep."""

    _parameter_constraints = {
        **neural_network.MLPRegressor._parameter_constraints,
        "optimizer": "no_validation",
    }
