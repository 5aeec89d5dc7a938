"""The update rules: one class each, with its formula, defaults and source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instep._binding import Values
from instep._hyperparameters import Flag, Number, Schedule, decay_rate, non_negative
from instep._optimizer import Optimizer, Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SGD(Optimizer):
    """Gradient descent, with momentum, dampening and Nesterov's variant.

    With momentum ``b = momentum * b + (1 - dampening) * g`` (the first step takes ``b = g``) and
    ``p -= learning_rate * b``; nesterov ``p -= learning_rate * (g + momentum * b)``; without
    ``p -= learning_rate * g``.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict, optional
        See `Optimizer`.
    learning_rate : float or schedule, optional
        0.01 by default.
    momentum : float, optional
        At least 0; 0 by default, which keeps no state.
    dampening : float, optional
        0 by default.
    nesterov : bool, optional
        Needs momentum, and no dampening.
    **options
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        For a value of another type or out of range.

    References
    ----------
    B. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and
    momentum in deep learning", ICML 2013, equations 1 to 4.
    """

    _rule = "sgd"
    _clock = "momentum"
    _optional_slots = {"momentum": "momentum"}
    _conventions = {"paper": {"learning_rate": 0.01}}

    momentum = non_negative(0.0)
    dampening = Number(0.0)
    nesterov = Flag(False)

    def __init__(
        self,
        params: Any = None,
        *,
        learning_rate: float | Schedule | None = None,
        momentum: float | None = None,
        dampening: float | None = None,
        nesterov: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            options,
            learning_rate=learning_rate,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
        )

    @classmethod
    def _check_together(cls, values: Values) -> None:
        super()._check_together(values)
        if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
            raise ValueError(
                f"nesterov: expected momentum above 0 and dampening 0, got "
                f"momentum={values['momentum']!r} and dampening={values['dampening']!r}"
            )


class Adagrad(Optimizer):
    """Adagrad: each element's rate falls with the sum of its squared gradients.

    ``a += g**2``; ``p -= rate * g / (sqrt(a) + epsilon)`` with
    ``rate = learning_rate / (1 + (t - 1) * learning_rate_decay)``.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict, optional
        See `Optimizer`.
    learning_rate : float or schedule, optional
        0.01 by default.
    initial_accumulator_value : float, optional
        Where the sum starts; 0 by default.
    learning_rate_decay : float, optional
        0 by default.
    epsilon : float, optional
        1e-10 by default.
    **options
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        For a value of another type or out of range.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011, figure 1 (diagonal).
    """

    _rule = "adagrad"
    _clock = "learning_rate_decay"
    _initial_state = {"accumulator": "initial_accumulator_value"}
    _conventions = {"paper": {"learning_rate": 0.01, "epsilon": 1e-10}}

    initial_accumulator_value = non_negative(0.0)
    learning_rate_decay = non_negative(0.0)
    epsilon = non_negative()

    def __init__(
        self,
        params: Any = None,
        *,
        learning_rate: float | Schedule | None = None,
        initial_accumulator_value: float | None = None,
        learning_rate_decay: float | None = None,
        epsilon: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            options,
            learning_rate=learning_rate,
            initial_accumulator_value=initial_accumulator_value,
            learning_rate_decay=learning_rate_decay,
            epsilon=epsilon,
        )


class RMSprop(Optimizer):
    """RMSprop: gradients over a moving root mean square; plain, centered, with momentum.

    ``v = rho * v + (1 - rho) * g**2``; the update is
    ``u = learning_rate * g / sqrt(v + epsilon)``, centered with ``a = rho * a + (1 - rho) * g``
    ``u = learning_rate * g / sqrt(v - a**2 + epsilon)``, where rounding cannot make ``v - a**2``
    negative; ``p -= u``, with momentum ``b = momentum * b + u`` and ``p -= b``.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict, optional
        See `Optimizer`.
    learning_rate : float or schedule, optional
        0.001 by default.
    rho : float, optional
        Decay rate of the averages; 0.9 by default.
    momentum : float, optional
        0 by default.
    centered : bool, optional
        Divide by an estimate of the variance instead of the mean square.
    epsilon : float, optional
        Inside the root; 1e-7 by default.
    **options
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        For a value of another type or out of range.

    References
    ----------
    T. Tieleman and G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012.
    A. Graves, "Generating sequences with recurrent neural networks", 2013, equations 38 to 41.
    """

    _rule = "rmsprop"
    _optional_slots = {"mean_gradient": "centered", "momentum": "momentum"}
    _conventions = {"paper": {"learning_rate": 0.001, "rho": 0.9, "epsilon": 1e-7}}

    rho = decay_rate()
    momentum = non_negative(0.0)
    centered = Flag(False)
    epsilon = non_negative()

    def __init__(
        self,
        params: Any = None,
        *,
        learning_rate: float | Schedule | None = None,
        rho: float | None = None,
        momentum: float | None = None,
        centered: bool | None = None,
        epsilon: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            options,
            learning_rate=learning_rate,
            rho=rho,
            momentum=momentum,
            centered=centered,
            epsilon=epsilon,
        )


class Adadelta(Optimizer):
    """Adadelta: steps in units of the parameter, from the running size of earlier steps.

    ``a = rho * a + (1 - rho) * g**2``; ``u = sqrt(d + epsilon) / sqrt(a + epsilon) * g``;
    ``d = rho * d + (1 - rho) * u**2``; ``p -= learning_rate * u``.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict, optional
        See `Optimizer`.
    learning_rate : float or schedule, optional
        1.0 by default, as the paper has none.
    rho : float, optional
        Decay rate of the averages; 0.95 by default.
    epsilon : float, optional
        1e-6 by default.
    **options
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        For a value of another type or out of range.

    References
    ----------
    M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.
    """

    _rule = "adadelta"
    _conventions = {"paper": {"learning_rate": 1.0, "rho": 0.95, "epsilon": 1e-6}}

    rho = decay_rate()
    epsilon = non_negative()

    def __init__(
        self,
        params: Any = None,
        *,
        learning_rate: float | Schedule | None = None,
        rho: float | None = None,
        epsilon: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, options, learning_rate=learning_rate, rho=rho, epsilon=epsilon)


class Adam(Optimizer):
    """Adam: bias-corrected moving averages of the gradient and of its square.

    ``m = beta_1 * m + (1 - beta_1) * g``; ``v = beta_2 * v + (1 - beta_2) * g**2``;
    ``p -= learning_rate * m_hat / (sqrt(v_hat) + epsilon)`` with ``m_hat = m / (1 - beta_1**t)``
    and ``v_hat = v / (1 - beta_2**t)``. AMSGrad puts the maximum of all v so far in the place of v.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict, optional
        See `Optimizer`.
    learning_rate : float or schedule, optional
        0.001 by default.
    beta_1, beta_2 : float, optional
        Decay rates of the averages; 0.9 and 0.999 by default.
    epsilon : float, optional
        1e-8 by default.
    amsgrad : bool, optional
        False by default.
    **options
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        For a value of another type or out of range.

    References
    ----------
    D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    S. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", ICLR 2018,
    algorithm 2.
    """

    _rule = "adam"
    _clock = True
    _optional_slots = {"v_max": "amsgrad"}
    _conventions = {
        "paper": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
    }

    beta_1 = decay_rate()
    beta_2 = decay_rate()
    epsilon = non_negative()
    amsgrad = Flag(False)

    def __init__(
        self,
        params: Any = None,
        *,
        learning_rate: float | Schedule | None = None,
        beta_1: float | None = None,
        beta_2: float | None = None,
        epsilon: float | None = None,
        amsgrad: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            options,
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p -= learning_rate * weight_decay * p``, then Adam.

    Takes what `Adam` takes; `weight_decay` is 0.01 by default.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2,
    its decay times the learning rate as in every framework.
    """

    _conventions = {"paper": {**Adam._conventions["paper"], "weight_decay": 0.01}}


# Assigned this way, type checkers see every class above without a list of them.
globals()["__all__"] = [
    name
    for name, each in globals().items()
    if isinstance(each, type) and issubclass(each, Optimizer) and each is not Optimizer
]
