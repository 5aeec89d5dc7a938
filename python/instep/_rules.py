"""The update rules: one class each, with its formula, the paper's defaults and its source.

What frameworks do otherwise stands in `_conventions.py`. In formulas `g` is the gradient, `p` the
parameter, `t` the count of the update from 1, and `x_hat` is `x / (1 - beta**t)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from instep._hyperparameters import (
    Count,
    Flag,
    Number,
    OptionalNumber,
    Rate,
    Scheduled,
    decay_rate,
    non_negative,
    positive,
)
from instep._optimizer import Optimizer
from instep._rule import PARAMETER, Values


class SGD(Optimizer):
    """Gradient descent, with momentum, dampening and Nesterov's variant.

    With momentum ``b = momentum * b + (1 - dampening) * g`` (the first step takes ``b = g``) and
    ``p -= learning_rate * b``; nesterov ``p -= learning_rate * (g + momentum * b)``; without
    ``p -= learning_rate * g``.

    Momentum as a moving average from zero, ``v = beta * v + (1 - beta) * g`` and
    ``p -= learning_rate * v``, is this with ``momentum=beta`` and a learning rate of
    ``learning_rate * (1 - beta)``.

    Parameters
    ----------
    momentum : float or schedule, optional
        At least 0; 0 by default, which keeps no state.
    dampening : float, optional
        0 by default.
    nesterov : bool, optional
        Needs momentum, and no dampening.

    References
    ----------
    B. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and
    momentum in deep learning", ICML 2013, equations 1 to 4.
    """

    _family = "gradient descent"
    _kernel = "sgd"
    _clock = "momentum"
    _optional_slots = {"momentum": "momentum"}

    learning_rate: Rate = Rate(default=0.01)
    momentum: Scheduled = Scheduled(at_least=0, default=0.0)
    dampening: Number = Number(default=0.0)
    nesterov: Flag = Flag(default=False)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        super()._check_together(values)
        if not values["nesterov"]:
            return
        alone = not values.get("nesterov_may_be_alone", False) and values["momentum"] == 0
        if alone or values["dampening"] != 0:
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
    initial_accumulator_value : float, optional
        Where the sum starts; 0 by default.
    learning_rate_decay : float, optional
        0 by default.
    epsilon : float, optional
        1e-10 by default.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011, figure 1 (diagonal).
    """

    _family = "with a rate for each element"
    _kernel = "adagrad"
    _clock = "learning_rate_decay"
    _initial_state = {"accumulator": "initial_accumulator_value"}

    learning_rate: Rate = Rate(default=0.01)
    initial_accumulator_value: Number = non_negative(default=0.0)
    learning_rate_decay: Number = non_negative(default=0.0)
    epsilon: Number = non_negative(default=1e-10)


class RMSprop(Optimizer):
    """RMSprop: gradients over a moving root mean square; plain, centered, with momentum.

    ``v = rho * v + (1 - rho) * g**2``; the update is
    ``u = learning_rate * g / sqrt(v + epsilon)``, centered with ``a = rho * a + (1 - rho) * g``
    ``u = learning_rate * g / sqrt(v - a**2 + epsilon)``, where rounding cannot make ``v - a**2``
    negative; ``p -= u``, with momentum ``b = momentum * b + u`` and ``p -= b``.

    Parameters
    ----------
    rho : float, optional
        Decay rate of the averages; 0.9 by default.
    momentum : float or schedule, optional
        0 by default.
    centered : bool, optional
        Divide by an estimate of the variance instead of the mean square.
    epsilon : float, optional
        1e-7 by default.
    nesterov : bool, optional
        With momentum: ``p -= u + momentum * b``.
    eps_in_sqrt : bool, optional
        Whether epsilon is added inside of the root, as by default, or to the root.
    bias_correction : bool, optional
        Divide both averages by ``1 - rho**t``.
    initial_accumulator_value : float, optional
        Where v starts; 0 by default.

    References
    ----------
    T. Tieleman and G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012.
    A. Graves, "Generating sequences with recurrent neural networks", 2013, equations 38 to 41.
    """

    _family = "with a rate for each element"
    _kernel = "rmsprop"
    _clock = "bias_correction"
    _optional_slots = {"mean_gradient": "centered", "momentum": "momentum"}
    _initial_state = {"mean_square": "initial_accumulator_value"}

    learning_rate: Rate = Rate(default=0.001)
    rho: Number = decay_rate(default=0.9)
    momentum: Scheduled = Scheduled(at_least=0, default=0.0)
    centered: Flag = Flag(default=False)
    epsilon: Number = non_negative(default=1e-7)
    nesterov: Flag = Flag(default=False)
    eps_in_sqrt: Flag = Flag(default=True)
    bias_correction: Flag = Flag(default=False)
    initial_accumulator_value: Number = non_negative(default=0.0)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        super()._check_together(values)
        may_be_alone = not values["nesterov"] or values.get("nesterov_may_be_alone", False)
        if not may_be_alone and values["momentum"] == 0:
            raise ValueError("nesterov: expected momentum above 0, got momentum=0.0")


class Adadelta(Optimizer):
    """Adadelta: steps in units of the parameter, from the running size of earlier steps.

    ``a = rho * a + (1 - rho) * g**2``; ``u = sqrt(d + epsilon) / sqrt(a + epsilon) * g``;
    ``d = rho * d + (1 - rho) * u**2``; ``p -= learning_rate * u``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        1.0 by default, as the paper has none.
    rho : float, optional
        Decay rate of the averages; 0.95 by default.
    epsilon : float, optional
        1e-6 by default.

    References
    ----------
    M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.
    """

    _family = "with a rate for each element"
    _kernel = "adadelta"

    learning_rate: Rate = Rate(default=1.0)
    rho: Number = decay_rate(default=0.95)
    epsilon: Number = non_negative(default=1e-6)


class Adam(Optimizer):
    """Adam: bias-corrected moving averages of the gradient and of its square.

    ``m = beta_1 * m + (1 - beta_1) * g``; ``v = beta_2 * v + (1 - beta_2) * g**2``;
    ``p -= learning_rate * m_hat / (sqrt(v_hat + epsilon_root) + epsilon)``. AMSGrad puts the
    maximum of all v so far in the place of v.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.001 by default.
    beta_1, beta_2 : float, optional
        Decay rates of the averages; 0.9 and 0.999 by default.
    epsilon : float, optional
        1e-8 by default.
    amsgrad : bool, optional
        False by default.
    epsilon_root : float, optional
        0 by default.

    References
    ----------
    D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    S. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", ICLR 2018,
    algorithm 2.
    """

    _family = "Adam"
    _kernel = "adam"
    _clock = True
    _optional_slots = {"v_max": "amsgrad"}

    learning_rate: Rate = Rate(default=0.001)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-8)
    amsgrad: Flag = Flag(default=False)
    epsilon_root: Number = non_negative(default=0.0)


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p -= learning_rate * weight_decay * p``, then Adam.

    Parameters
    ----------
    weight_decay : float, optional
        As in the formula; 0.01 by default.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2,
    its decay times the learning rate as in every framework.
    """

    _family = "Adam"

    weight_decay: Scheduled = Scheduled(default=0.01, at_least=0)


class Adamax(Optimizer):
    """Adamax: Adam with the infinity norm in the place of the second moment.

    ``m = beta_1 * m + (1 - beta_1) * g``; ``u = max(beta_2 * u, abs(g))``;
    ``p -= rate / (1 - beta_1**t) * m / (u + epsilon)`` with
    ``rate = learning_rate / (1 + (t - 1) * learning_rate_decay)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.002 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    epsilon : float, optional
        1e-8 by default.
    learning_rate_decay : float, optional
        0 by default.

    References
    ----------
    D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2,
    whose division by zero epsilon avoids.
    """

    _family = "Adam"
    _kernel = "adamax"
    _clock = True

    learning_rate: Rate = Rate(default=0.002)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-8)
    learning_rate_decay: Number = non_negative(default=0.0)


class Nadam(Optimizer):
    """Nadam: Adam with Nesterov's momentum.

    With ``u(t) = beta_1 * (1 - 0.5 * 0.96**(t * momentum_decay))``, ``U(t)`` the product of all of
    them so far, and Adam's m and v: ``p -= learning_rate * m_bar / (sqrt(v_hat) + epsilon)``,
    ``m_bar = u(t + 1) * m / (1 - U(t + 1)) + (1 - u(t)) * g / (1 - U(t))``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.002 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    epsilon : float, optional
        1e-8 by default.
    momentum_decay : float, optional
        0.004 by default.
    epsilon_root : float, optional
        Added to v_hat; 0 by default.

    References
    ----------
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016, algorithm 2 and
    section 3.
    """

    _family = "Adam"
    _kernel = "nadam"
    _clock = True
    _initial_state = {"u_product": 1.0}

    learning_rate: Rate = Rate(default=0.002)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-8)
    momentum_decay: Number = non_negative(default=0.004)
    epsilon_root: Number = non_negative(default=0.0)


class RAdam(Optimizer):
    """RAdam: Adam whose first steps wait until the variance of its rate is bounded.

    With ``r_inf = 2 / (1 - beta_2) - 1`` and
    ``r_t = r_inf - 2 * t * beta_2**t / (1 - beta_2**t)``: where ``r_t > threshold``, Adam's step
    times ``sqrt((r_t - 4) * (r_t - 2) * r_inf / ((r_inf - 4) * (r_inf - 2) * r_t))``, else
    ``p -= learning_rate * m_hat``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.001 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    epsilon : float, optional
        1e-8 by default.
    threshold : float, optional
        4 by default, and no less.
    nesterov : bool, optional
        ``beta_1 * m / (1 - beta_1**(t + 1)) + (1 - beta_1) * g / (1 - beta_1**t)`` for m_hat.
    epsilon_root : float, optional
        Added to v_hat; 0 by default.

    References
    ----------
    L. Liu, H. Jiang, P. He, W. Chen, X. Liu, J. Gao and J. Han, "On the variance of the adaptive
    learning rate and beyond", ICLR 2020, algorithm 2.
    """

    _family = "Adam"
    _kernel = "radam"
    _clock = True

    learning_rate: Rate = Rate(default=0.001)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-8)
    threshold: Number = Number(default=4.0, at_least=4)
    nesterov: Flag = Flag(default=False)
    epsilon_root: Number = non_negative(default=0.0)


class Rprop(Optimizer):
    """Rprop: a step size for each element, which grows while its gradient keeps its sign.

    ``z`` times `eta_plus` where the sign is that of the step before, times `eta_minus` where it is
    the other, within [`min_step_size`, `max_step_size`]; ``p -= sign(g) * z``, with ``g = 0`` where
    the sign has changed. For whole batches.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        The first step size, 0.01 by default; later values count for nothing.
    eta_minus : float, optional
        Below 1; 0.5 by default.
    eta_plus : float, optional
        Above 1; 1.2 by default.
    min_step_size, max_step_size : float, optional
        1e-6 and 50 by default.

    References
    ----------
    M. Riedmiller and H. Braun, "A direct adaptive method for faster backpropagation learning",
    1993.
    C. Igel and M. Huesken, "Improving the Rprop learning algorithm", 2000 (iRprop-).
    """

    _family = "gradient descent"
    _kernel = "rprop"
    _clock = True
    _initial_state = {"step_size": "learning_rate"}

    learning_rate: Rate = Rate(default=0.01)
    eta_minus: Number = Number(default=0.5, above=0, below=1)
    eta_plus: Number = Number(default=1.2, above=1)
    min_step_size: Number = non_negative(default=1e-6)
    max_step_size: Number = non_negative(default=50.0)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        super()._check_together(values)
        least, most = values["min_step_size"], values["max_step_size"]
        if least > most:
            raise ValueError(f"min_step_size: expected at most max_step_size={most}, got {least}")


class ASGD(Optimizer):
    """Averaged gradient descent.

    ``p -= lambd * eta * p + eta * g`` with ``eta = learning_rate`` at first and then
    ``eta = learning_rate / (1 + lambd * learning_rate * t)**alpha``. The average of p from update
    `t0` on is the slot ``ax``; before, it is p.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.01 by default.
    lambd : float, optional
        1e-4 by default.
    alpha : float, optional
        0.75 by default.
    t0 : float, optional
        1e6 by default.

    References
    ----------
    B. Polyak and A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J.
    Control Optim. 30, 1992; rates as in L. Bottou, "Large-scale machine learning with stochastic
    gradient descent", 2010.
    """

    _family = "gradient descent"
    _kernel = "asgd"
    _clock = True
    _initial_state = {"eta": "learning_rate", "mu": 1.0}

    learning_rate: Rate = Rate(default=0.01)
    lambd: Number = non_negative(default=1e-4)
    alpha: Number = Number(default=0.75)
    t0: Number = Number(default=1e6)


class Ftrl(Optimizer):
    """FTRL-Proximal: follow the regularized leader, for sparse linear models.

    With ``k = -learning_rate_power``: ``n = a + g**2``;
    ``l += g + 2 * l2_shrinkage * p - (n**k - a**k) / learning_rate * p``;
    ``p = (clip(l, -l1, l1) - l) / ((n**k + beta) / learning_rate + 2 * l2)``; ``a = n``. The first
    update overwrites p.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.001 by default; with 0 nothing changes.
    learning_rate_power : float, optional
        At most 0; -0.5 by default.
    initial_accumulator_value : float, optional
        Where a starts; 0.1 by default.
    l1_regularization_strength, l2_regularization_strength : float, optional
        Penalties ``l1 * abs(p)`` and ``l2 * p**2``; 0 by default.
    l2_shrinkage_regularization_strength : float, optional
        0 by default.
    beta : float, optional
        0 by default.

    References
    ----------
    H. B. McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013, algorithm 1,
    with lambda_2 as twice `l2_regularization_strength`.
    """

    _family = "with a rate for each element"
    _kernel = "ftrl"
    _initial_state = {"accumulator": "initial_accumulator_value"}

    learning_rate: Rate = Rate(default=0.001)
    learning_rate_power: Number = Number(default=-0.5, at_most=0)
    initial_accumulator_value: Number = non_negative(default=0.1)
    l1_regularization_strength: Number = non_negative(default=0.0)
    l2_regularization_strength: Number = non_negative(default=0.0)
    l2_shrinkage_regularization_strength: Number = non_negative(default=0.0)
    beta: Number = non_negative(default=0.0)


class Lion(Optimizer):
    """Lion: the sign of an interpolated momentum.

    ``p -= learning_rate * sign(beta_1 * m + (1 - beta_1) * g)``, then
    ``m = beta_2 * m + (1 - beta_2) * g``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        1e-4 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.99 by default.

    References
    ----------
    X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2.
    """

    _family = "Adam"
    _kernel = "lion"

    learning_rate: Rate = Rate(default=1e-4)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.99)


class Lamb(Optimizer):
    """LAMB: Adam's direction, as long as the parameter; for large batches.

    ``u = m_hat / (sqrt(v_hat + epsilon_root) + epsilon) + weight_decay * p``;
    ``p -= learning_rate * norm(p) / norm(u) * u``, norms over each array, their ratio 1 where one
    of them is 0.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.001 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    epsilon : float, optional
        1e-6 by default.
    epsilon_root : float, optional
        0 by default.
    trust_ratio : bool, optional
        Whether steps are as long as the parameter; if not, their ratio is 1, as groups of biases
        and norms are used to have it.
    weight_decay : float, optional
        As in the formula; 0 by default.

    References
    ----------
    Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR
    2020, algorithm 2.
    """

    _family = "with a norm for each array"
    _kernel = "lamb"
    _clock = True
    _newer = Optimizer._newer | {"trust_ratio"}

    learning_rate: Rate = Rate(default=0.001)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-6)
    epsilon_root: Number = non_negative(default=0.0)
    trust_ratio: Flag = Flag(default=True)


class Lars(Optimizer):
    """LARS: momentum on gradients in proportion to the parameter; for large batches.

    ``u = learning_rate * ratio * (g + weight_decay * p)``, ``ratio = trust_coefficient * norm(p) /
    (norm(g) + weight_decay * norm(p) + epsilon)``, norms over each array, 1 where one of them is 0;
    ``b = momentum * b + u``; ``p -= b``, nesterov ``p -= u + momentum * b``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.1 by default.
    momentum : float or schedule, optional
        0.9 by default.
    nesterov : bool, optional
        Needs momentum.
    trust_ratio : bool, optional
        Whether gradients are scaled in proportion to the parameter; if not, the ratio is 1, as
        groups of biases and norms are used to have it.
    trust_coefficient : float, optional
        0.001 by default.
    epsilon : float, optional
        0 by default.
    weight_decay : float, optional
        As in the formula; 0 by default.

    References
    ----------
    Y. You, I. Gitman and B. Ginsburg, "Large batch training of convolutional networks", 2017,
    algorithm 1.
    """

    _family = "with a norm for each array"
    _kernel = "lars"
    _optional_slots = {"momentum": "momentum"}
    _newer = Optimizer._newer | {"trust_ratio"}

    learning_rate: Rate = Rate(default=0.1)
    momentum: Scheduled = Scheduled(at_least=0, default=0.9)
    nesterov: Flag = Flag(default=False)
    trust_ratio: Flag = Flag(default=True)
    trust_coefficient: Number = non_negative(default=0.001)
    epsilon: Number = non_negative(default=0.0)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        super()._check_together(values)
        may_be_alone = not values["nesterov"] or values.get("nesterov_may_be_alone", False)
        if not may_be_alone and values["momentum"] == 0:
            raise ValueError("nesterov: expected momentum above 0, got momentum=0.0")


class Yogi(Optimizer):
    """Yogi: Adam whose second moment changes by no more than the square of the gradient.

    ``v -= (1 - beta_2) * sign(v - g**2) * g**2``; Adam's m;
    ``p -= learning_rate * m / (sqrt(v + epsilon_root) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.01 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    epsilon : float, optional
        0.001 by default.
    epsilon_root : float, optional
        0 by default.
    initial_accumulator_value : float, optional
        Where v starts; 1e-6 by default.

    References
    ----------
    M. Zaheer, S. Reddi, D. Sachan, S. Kale and S. Kumar, "Adaptive methods for nonconvex
    optimization", NeurIPS 2018, algorithm 2.
    """

    _family = "Adam"
    _kernel = "yogi"
    _initial_state = {"m": "initial_m", "v": "initial_accumulator_value"}

    learning_rate: Rate = Rate(default=0.01)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-3)
    epsilon_root: Number = non_negative(default=0.0)
    initial_accumulator_value: Number = non_negative(default=1e-6)


class AdaBelief(Optimizer):
    """AdaBelief: Adam that divides by how far gradients are from their average.

    ``v = beta_2 * v + (1 - beta_2) * (g - m)**2 + epsilon_root``, m first; then
    ``p -= learning_rate * m_hat / (sqrt(v_hat) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.001 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    epsilon, epsilon_root : float, optional
        1e-8 by default.
    nesterov : bool, optional
        ``beta_1 * m / (1 - beta_1**(t + 1)) + (1 - beta_1) * g / (1 - beta_1**t)`` for m_hat.

    References
    ----------
    J. Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients",
    NeurIPS 2020, algorithm 2.
    """

    _family = "Adam"
    _kernel = "adabelief"
    _clock = True

    learning_rate: Rate = Rate(default=0.001)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-8)
    epsilon_root: Number = non_negative(default=1e-8)
    nesterov: Flag = Flag(default=False)


class Adan(Optimizer):
    """Adan: Nesterov's momentum from differences of gradients.

    With ``d = g - previous_gradient`` (0 at first): moving averages m of g, v of d and n of
    ``(g + beta_2 * d)**2``;
    ``p -= learning_rate * (m_hat + beta_2 * v_hat) / (sqrt(n_hat + epsilon_root) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.001 by default.
    beta_1, beta_2, beta_3 : float, optional
        Decay rates of m, v and n, the complements of the paper's; 0.98, 0.92 and 0.99 by default.
    epsilon : float, optional
        1e-8 by default.
    epsilon_root : float, optional
        0 by default.

    References
    ----------
    X. Xie, P. Zhou, H. Li, Z. Lin and S. Yan, "Adan: adaptive Nesterov momentum algorithm for
    faster optimizing deep models", 2022, algorithm 1, with the bias corrections of its authors'
    code.
    """

    _family = "Adam"
    _kernel = "adan"
    _clock = True

    learning_rate: Rate = Rate(default=0.001)
    beta_1: Number = decay_rate(default=0.98)
    beta_2: Number = decay_rate(default=0.92)
    beta_3: Number = decay_rate(default=0.99)
    epsilon: Number = non_negative(default=1e-8)
    epsilon_root: Number = non_negative(default=0.0)


class NovoGrad(Optimizer):
    """NovoGrad: momentum on gradients over the moving norm of each array.

    ``v = beta_2 * v + (1 - beta_2) * norm(g)**2`` (at first ``norm(g)**2``);
    ``m = beta_1 * m + u`` (at first u) with
    ``u = g / (sqrt(v + epsilon_root) + epsilon) + weight_decay * p``; ``p -= learning_rate * m``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.01 by default.
    beta_1, beta_2 : float, optional
        0.95 and 0.98 by default.
    epsilon : float, optional
        1e-8 by default.
    epsilon_root : float, optional
        0 by default.
    weight_decay : float, optional
        As in the formula; 0 by default.

    References
    ----------
    B. Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for training
    of deep networks", 2019, algorithm 1.
    """

    _family = "with a norm for each array"
    _kernel = "novograd"
    _clock = True

    learning_rate: Rate = Rate(default=0.01)
    beta_1: Number = decay_rate(default=0.95)
    beta_2: Number = decay_rate(default=0.98)
    epsilon: Number = non_negative(default=1e-8)
    epsilon_root: Number = non_negative(default=0.0)


class SignSGD(Optimizer):
    """Sign descent: ``p -= learning_rate * sign(g)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        1e-4 by default.

    References
    ----------
    J. Bernstein, Y.-X. Wang, K. Azizzadenesheli and A. Anandkumar, "signSGD: compressed
    optimisation for non-convex problems", ICML 2018, algorithm 1.
    """

    _family = "gradient descent"
    _kernel = "sign_sgd"

    learning_rate: Rate = Rate(default=1e-4)


class Signum(Optimizer):
    """Signum: the sign of the momentum.

    ``m = momentum * m + (1 - momentum) * g``; ``p -= learning_rate * sign(m)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        1e-4 by default.
    momentum : float or schedule, optional
        0.9 by default.

    References
    ----------
    J. Bernstein, Y.-X. Wang, K. Azizzadenesheli and A. Anandkumar, "signSGD: compressed
    optimisation for non-convex problems", ICML 2018, algorithm 2.
    """

    _family = "gradient descent"
    _kernel = "signum"

    learning_rate: Rate = Rate(default=1e-4)
    momentum: Scheduled = Scheduled(at_least=0, below=1, default=0.9)


class Fromage(Optimizer):
    """Fromage: steps in proportion to the norm of each array, which does not grow by them.

    ``p = (p - learning_rate * norm(p) / norm(g) * g) / sqrt(1 + learning_rate**2)``, norms over
    each array and no less than `min_norm`; their ratio is 1 where one of them is 0.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.01 by default.
    min_norm : float, optional
        1e-6 by default.

    References
    ----------
    J. Bernstein, A. Vahdat, Y. Yue and M.-Y. Liu, "On the distance between two neural networks and
    the stability of learning", NeurIPS 2020, algorithm 1.
    """

    _family = "with a norm for each array"
    _kernel = "fromage"

    learning_rate: Rate = Rate(default=0.01)
    min_norm: Number = non_negative(default=1e-6)


class AdEMAMix(Optimizer):
    """AdEMAMix: Adam with a second, slow average of the gradient.

    Adam's m_1 and v; ``m_2 = beta_3 * m_2 + (1 - beta_3) * g``;
    ``p -= learning_rate * (m_1_hat + alpha * m_2) / (sqrt(v_hat + epsilon_root) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.001 by default.
    beta_1, beta_2, beta_3 : float, optional
        0.9, 0.999 and 0.9999 by default.
    alpha : float, optional
        5 by default.
    epsilon : float, optional
        1e-8 by default.
    epsilon_root : float, optional
        0 by default.

    References
    ----------
    M. Pagliardini, P. Ablin and D. Grangier, "The AdEMAMix optimizer: better, faster, older", 2024,
    algorithm 1, without its schedulers of beta_3 and alpha.
    """

    _family = "Adam"
    _kernel = "ademamix"
    _clock = True

    learning_rate: Rate = Rate(default=0.001)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    beta_3: Number = decay_rate(default=0.9999)
    alpha: Number = non_negative(default=5.0)
    epsilon: Number = non_negative(default=1e-8)
    epsilon_root: Number = non_negative(default=0.0)


class ScheduleFreeAdamW(Optimizer):
    """Schedule-free AdamW: an average of the iterates takes the place of a schedule.

    The parameters are ``y = beta_1 * x + (1 - beta_1) * z``. With
    ``rate = learning_rate * min(t / warmup_steps, 1)`` and Adam's v:
    ``z -= rate * (g / (sqrt(v_hat) + epsilon) + weight_decay * y)``; ``x = (1 - c) * x + c * z``
    where c is the part of this update's weight, ``max(rate)**weight_lr_power``, in the sum of all.
    Evaluate with x: `eval_params`.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.0025 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    epsilon : float, optional
        1e-8 by default.
    warmup_steps : int, optional
        0 by default.
    weight_lr_power : float, optional
        2 by default.
    weight_decay : float, optional
        As in the formula; 0 by default.

    References
    ----------
    A. Defazio et al., "The road less scheduled", NeurIPS 2024, algorithm 1.
    """

    _family = "Adam"
    _kernel = "schedule_free_adamw"
    _newer = Optimizer._newer | {"last_beta_1"}
    _clock = True
    _initial_state = {"z": PARAMETER}

    learning_rate: Rate = Rate(default=0.0025)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    epsilon: Number = non_negative(default=1e-8)
    warmup_steps: Count = Count(default=0, at_least=0)
    weight_lr_power: Number = non_negative(default=2.0)

    def eval_params(self) -> Any:
        """Return new arrays with x, the average to evaluate with, in the structure of `params`.

        Raises
        ------
        RuntimeError
            If the optimizer is unbound.
        ValueError
            If `beta_1` is 0 for any array, where y does not depend on x.
        """
        return _eval_params(self)


class ScheduleFreeSGD(Optimizer):
    """Schedule-free gradient descent: an average of the iterates takes the place of a schedule.

    As `ScheduleFreeAdamW` with ``z -= rate * (g + weight_decay * y)``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        1 by default.
    beta_1 : float, optional
        0.9 by default.
    warmup_steps : int, optional
        0 by default.
    weight_lr_power : float, optional
        2 by default.
    weight_decay : float, optional
        As in the formula; 0 by default.

    References
    ----------
    A. Defazio et al., "The road less scheduled", NeurIPS 2024, equations 3 to 5.
    """

    _family = "gradient descent"
    _kernel = "schedule_free_sgd"
    _newer = Optimizer._newer | {"last_beta_1"}
    _clock = True
    _initial_state = {"z": PARAMETER}

    learning_rate: Rate = Rate(default=1.0)
    beta_1: Number = decay_rate(default=0.9)
    warmup_steps: Count = Count(default=0, at_least=0)
    weight_lr_power: Number = non_negative(default=2.0)

    def eval_params(self) -> Any:
        """Return new arrays with x, the average to evaluate with, in the structure of `params`.

        Raises
        ------
        RuntimeError
            If the optimizer is unbound.
        ValueError
            If `beta_1` is 0 for any array, where y does not depend on x.
        """
        return _eval_params(self)


class ClipUp(Optimizer):
    """ClipUp: momentum on steps of one length, up to a speed; for evolution strategies.

    ``v = momentum * v + learning_rate * g / norm(g)``; ``v *= min(1, max_speed / norm(v))``;
    ``p -= v``. The norms are those of all arrays together; where the gradient's is 0, so is the
    step.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        How long the step of each update is; 0.075 by default.
    momentum : float, optional
        0.9 by default.
    max_speed : float, optional
        Twice the learning rate by default.

    Notes
    -----
    Groups may have an `l2`, `weight_decay`, clipping and `maximize` of their own; all else belongs
    to all arrays, as the norms do.

    References
    ----------
    N. Toklu, P. Liskowski and R. Srivastava, "ClipUp: a simple and powerful optimizer for
    distribution-based policy evolution", PPSN 2020, algorithm 2.
    """

    _family = "gradient descent"
    _kernel = "clipup"
    _joint = ("learning_rate", "learning_rate_factor", "momentum", "max_speed")

    learning_rate: Rate = Rate(default=0.075)
    momentum: Number = decay_rate(default=0.9)
    max_speed: OptionalNumber = OptionalNumber(default=None, at_least=0)

    @classmethod
    def _derived(cls, values: Mapping[str, Any]) -> Values:
        return {"max_speed": -1.0} if values["max_speed"] is None else {}


class Prodigy(Optimizer):
    """Prodigy: Adam that estimates its own learning rate.

    d, the estimate of the distance to the solution, belongs to all arrays together. m and v are
    Adam's of ``d * g``; ``r = beta_3 * r + learning_rate * d**2 / estim_lr0 * sum(g * (p_0 - p))``,
    ``s = beta_3 * s + learning_rate * d**2 / estim_lr0 * g``;
    ``p -= learning_rate * d * (m / (sqrt(v) + d * epsilon) + weight_decay * p)``, then
    ``d = max(d, estim_lr_coef * r / sum(abs(s)))``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        A factor on the estimate; 1 by default.
    beta_1, beta_2 : float, optional
        0.9 and 0.999 by default.
    beta_3 : float, optional
        The root of `beta_2` by default.
    epsilon : float, optional
        1e-8 by default.
    estim_lr0 : float, optional
        Where d starts; 1e-6 by default.
    estim_lr_coef : float, optional
        1 by default.
    safeguard_warmup : bool, optional
        Leave the learning rate out of s.
    weight_decay : float, optional
        As in the formula; 0 by default.

    Notes
    -----
    Groups may have an `epsilon`, `weight_decay`, `l2`, clipping and `maximize` of their own; all
    else is part of the estimate, which belongs to all arrays.

    References
    ----------
    K. Mishchenko and A. Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML
    2024, algorithm 4.
    """

    _family = "Adam"
    _kernel = "prodigy"
    _initial_state = {"p_0": PARAMETER, "d": "estim_lr0"}
    _joint = (
        "learning_rate",
        "learning_rate_factor",
        "beta_1",
        "beta_2",
        "beta_3",
        "estim_lr0",
        "estim_lr_coef",
        "safeguard_warmup",
    )

    learning_rate: Rate = Rate(default=1.0)
    beta_1: Number = decay_rate(default=0.9)
    beta_2: Number = decay_rate(default=0.999)
    beta_3: OptionalNumber = OptionalNumber(default=None, at_least=0, below=1)
    epsilon: Number = non_negative(default=1e-8)
    estim_lr0: Number = positive(default=1e-6)
    estim_lr_coef: Number = positive(default=1.0)
    safeguard_warmup: Flag = Flag(default=False)

    @classmethod
    def _derived(cls, values: Mapping[str, Any]) -> Values:
        return {"beta_3": math.sqrt(values["beta_2"])} if values["beta_3"] is None else {}


class Adafactor(Optimizer):
    """Adafactor: Adam's second moment from its rows' and columns' means alone.

    With ``beta = 1 - t**beta_2_decay``: ``r = beta * r + (1 - beta) * mean(g**2 + epsilon_1)`` over
    rows, c over columns, ``v = r * c / mean(r)``; arrays with less than two axes keep v itself.
    ``u = g / sqrt(v)``; ``u /= max(1, rms(u) / clip_threshold)``; ``p -= rate * u`` with
    ``rate = max(epsilon_2, rms(p)) * min(learning_rate, 1 / sqrt(t))``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.01 by default.
    beta_2_decay : float, optional
        Below 0; -0.8 by default.
    epsilon_1 : float, optional
        1e-30 by default.
    epsilon_2 : float, optional
        0.001 by default.
    clip_threshold : float, optional
        1 by default; infinite for none, and so is None with ``convention="optax"``.
    relative_step : bool, optional
        Whether ``1 / sqrt(t)`` bounds the rate, as by default.
    min_dim_size_to_factor : int, optional
        Arrays whose second largest axis is shorter keep v itself; 0 by default.
    decay_rate : float, optional
        Optax's name for ``-beta_2_decay``, which then must not be given.
    decay_offset : int, optional
        Taken off t in beta; 0 by default.
    multiply_by_parameter_scale : bool, optional
        Whether ``max(epsilon_2, rms(p))`` is part of the rate, as by default.
    momentum : float or schedule, optional
        Decay rate of an average of the update, which takes its place; 0 by default.
    weight_decay_rate : float, optional
        ``p -= weight_decay_rate * p``, without the learning rate; 0 by default.

    References
    ----------
    N. Shazeer and M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML
    2018, algorithms 4 and 5.
    """

    _family = "with numbers for rows and columns"
    _kernel = "adafactor"
    _optional_slots = {"momentum": "momentum"}
    _clock = True

    learning_rate: Rate = Rate(default=0.01)
    beta_2_decay: Number = Number(default=-0.8, below=0)
    epsilon_1: OptionalNumber = OptionalNumber(default=1e-30, at_least=0)
    epsilon_2: Number = non_negative(default=1e-3)
    clip_threshold: Number = positive(default=1.0, or_infinite=True)
    relative_step: Flag = Flag(default=True)
    min_dim_size_to_factor: Count = Count(default=0, at_least=0)
    momentum: Scheduled = Scheduled(at_least=0, below=1, default=0.0)
    decay_rate: OptionalNumber = OptionalNumber(default=None, above=0)
    decay_offset: Count = Count(default=0, at_least=-(2**31))
    multiply_by_parameter_scale: Flag = Flag(default=True)
    weight_decay_rate: Number = non_negative(default=0.0)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        super()._check_together(values)
        exponent, rate = values["beta_2_decay"], values["decay_rate"]
        if rate is not None and exponent not in (-rate, cls.beta_2_decay.default):
            raise ValueError(
                f"beta_2_decay: expected it or decay_rate, got {exponent} and decay_rate={rate}"
            )

    @classmethod
    def _derived(cls, values: Mapping[str, Any]) -> Values:
        epsilon, rate = values["epsilon_1"], values["decay_rate"]
        return {
            "epsilon_1": -1.0 if epsilon is None else epsilon,  # the dtype's
            "beta_2_decay": values["beta_2_decay"] if rate is None else -rate,
        }

    @classmethod
    def _parts(cls, shape: tuple[int, ...], numbers: Values) -> Mapping[str, tuple[int, ...]]:
        if len(shape) < 2:
            return {}
        rows, columns = range(len(shape))[-2:]
        if numbers.get("factors_largest", False):
            rows, columns = map(int, np.argsort(shape)[-2:])
            if shape[rows] < numbers["min_dim_size_to_factor"]:
                return {}
        axes = range(len(shape))
        return {
            "r": tuple(axis for axis in axes if axis != columns),
            "c": tuple(axis for axis in axes if axis != rows),
        }


class RowwiseAdagrad(Optimizer):
    """Row-wise Adagrad: Adagrad with one sum for each row, for embedding tables.

    Rows are the parts of an array along its first axis: ``a[row] += mean(g[row]**2)``;
    ``p[row] -= learning_rate * g[row] / (sqrt(a[row]) + epsilon)``. Arrays of one dimension have
    Adagrad.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.01 by default.
    epsilon : float, optional
        1e-8 by default.

    References
    ----------
    D. Mudigere et al., "Software-hardware co-design for fast and scalable training of deep learning
    recommendation models", ISCA 2022; FBGEMM's EXACT_ROWWISE_ADAGRAD.
    """

    _family = "with numbers for rows and columns"
    _kernel = "rowwise_adagrad"

    learning_rate: Rate = Rate(default=0.01)
    epsilon: Number = non_negative(default=1e-8)

    @classmethod
    def _parts(cls, shape: tuple[int, ...], numbers: Values) -> Mapping[str, tuple[int, ...]]:
        return {"accumulator": (0,)} if len(shape) > 1 else {}


class SM3(Optimizer):
    """SM3: Adagrad whose sums are bounded by one number per row, column and so on.

    ``a = g**2 + min(accumulator_0, accumulator_1, ...)``, broadcast along the other axes, of each
    of which the maximum is kept; ``u = g / sqrt(a + epsilon)``, 0 where a is;
    ``m = momentum * m + (1 - momentum) * u``; ``p -= learning_rate * m``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.1 by default.
    momentum : float or schedule, optional
        0.9 by default.
    epsilon : float, optional
        0 by default.

    References
    ----------
    R. Anil, V. Gupta, T. Koren and Y. Singer, "Memory-efficient adaptive optimization", NeurIPS
    2019, SM3-II.
    """

    _family = "with numbers for rows and columns"
    _kernel = "sm3"
    _optional_slots = {"momentum": "momentum"}

    learning_rate: Rate = Rate(default=0.1)
    momentum: Scheduled = Scheduled(at_least=0, below=1, default=0.9)
    epsilon: Number = non_negative(default=0.0)

    @classmethod
    def _parts(cls, shape: tuple[int, ...], numbers: Values) -> Mapping[str, tuple[int, ...]]:
        axes = range(len(shape)) if len(shape) > 1 else ()
        return {f"accumulator_{axis}": (axis,) for axis in axes}


def _eval_params(optimizer: Optimizer) -> Any:
    """Return x of ``y = beta_1 * x + (1 - beta_1) * z``, with that of each array's last update."""
    optimizer._refresh()
    binding = optimizer._bound("eval_params")
    betas = [group["beta_1"] for group in optimizer.groups]
    averages = []
    for k, (y, slots) in enumerate(zip(binding.tree.leaves, binding.slots, strict=True)):
        beta_1 = float(slots["last_beta_1"]) or betas[binding.group_of[k]]
        if beta_1 == 0:
            path = binding.tree.paths[k]
            raise ValueError(f"eval_params: expected beta_1 above 0 for {path}, got 0.0")
        averages.append(np.asarray((y - (1 - beta_1) * slots["z"]) / beta_1))
    return binding.tree.unflatten(averages)


# Assigned this way, type checkers see every class above without a list of them.
globals()["__all__"] = [
    name
    for name, each in globals().items()
    if isinstance(each, type) and issubclass(each, Optimizer) and each is not Optimizer
]
