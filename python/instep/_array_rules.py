"""The rules that see whole arrays at once: statistics of rows and columns, products of matrices.

The engine hands them the gradient, clipped and so on, in an array of their own, and takes the step
that they leave there; in between they compute in NumPy. That array and their temporary ones are as
large as the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from instep._hyperparameters import (
    Choice,
    Count,
    Flag,
    Number,
    Numbers,
    OptionalNumber,
    Rate,
    decay_rate,
    non_negative,
    positive,
)
from instep._optimizer import Optimizer
from instep._rule import Values

if TYPE_CHECKING:
    from instep._memory import Array

    State = Mapping[str, Array]


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
        1 by default.
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
    momentum : float, optional
        Decay rate of an average of the update, which takes its place; 0 by default.
    weight_decay_rate : float, optional
        ``p -= weight_decay_rate * p``, without the learning rate; 0 by default.

    References
    ----------
    N. Shazeer and M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML
    2018, algorithms 4 and 5.
    """

    _family = "on whole matrices, in NumPy"
    _clock = True

    learning_rate: Rate = Rate(default=0.01)
    beta_2_decay: Number = Number(default=-0.8, below=0)
    epsilon_1: OptionalNumber = OptionalNumber(default=1e-30, at_least=0)
    epsilon_2: Number = non_negative(default=1e-3)
    clip_threshold: Number = positive(default=1.0)
    relative_step: Flag = Flag(default=True)
    min_dim_size_to_factor: Count = Count(default=0, at_least=0)
    momentum: Number = decay_rate(default=0.0)
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
    def _state_shapes(cls, param: Array, path: str, numbers: Values) -> dict[str, tuple[int, ...]]:
        shapes = {}
        factored = _factored_axes(param.shape, numbers)
        if factored is None:
            shapes["v"] = param.shape
        else:
            columns, rows = factored
            shapes["r"] = _without(param.shape, columns)
            shapes["c"] = _without(param.shape, rows)
        if numbers["momentum"]:
            shapes["momentum"] = param.shape
        return shapes

    @classmethod
    def _update(
        cls, g: Array, param: Array, state: State, numbers: Values, step: int
    ) -> dict[str, Array]:
        new: dict[str, Array] = {}
        lr, epsilon = numbers["learning_rate"], numbers["epsilon_1"]
        if epsilon is None:
            epsilon = float(np.finfo(g.dtype).eps)
        clamps = numbers.get("clamps", False)
        added = 0.0 if clamps else epsilon
        exponent = (
            numbers["beta_2_decay"] if numbers["decay_rate"] is None else -numbers["decay_rate"]
        )
        share = float(max(step - numbers["decay_offset"], 1)) ** exponent

        def averaged(name: str, mean: Array) -> Array:
            now: Array = np.asarray((1 - share) * state[name] + share * mean, g.dtype)
            new[name] = now
            return now

        factored = _factored_axes(g.shape, numbers)
        if factored is None:
            v = averaged("v", np.square(g, dtype=np.float64) + added)
        else:
            columns, rows = factored
            r = np.expand_dims(averaged("r", _mean_square(g, columns) + added), columns)
            c = np.expand_dims(averaged("c", _mean_square(g, rows) + added), rows)
            mean = r.mean(axis=rows, keepdims=True)
            v = r / (np.maximum(mean, epsilon) if clamps else mean) * c
        if clamps:
            v = np.maximum(v, epsilon * epsilon)
        root = np.sqrt(v)
        np.divide(g, root, out=g, where=root > 0)
        np.multiply(g, root > 0, out=g)  # where v underflows, there is next to no gradient

        rate = lr
        if numbers["relative_step"] or numbers.get("always_relative", False):
            rate = min(lr, 1 / math.sqrt(step))
        if numbers["multiply_by_parameter_scale"]:
            decay = 0.0 if numbers.get("rms_before_decay", False) else numbers["weight_decay"]
            rate *= max(numbers["epsilon_2"], abs(1 - lr * decay) * _rms(param))
        g *= rate / max(1.0, _rms(g) / numbers["clip_threshold"])
        if numbers["momentum"]:
            new["momentum"] = _averaged(g, state["momentum"], numbers["momentum"])
        if numbers["weight_decay_rate"]:
            g += numbers["weight_decay_rate"] * param
        return new


class SM3(Optimizer):
    """SM3: Adagrad whose sums are bounded by one number per row, column and so on.

    ``a = g**2 + min(accumulator_0, accumulator_1, ...)``, broadcast along the other axes, of each
    of which the maximum is kept; ``u = g / sqrt(a + epsilon)``, 0 where a is;
    ``m = momentum * m + (1 - momentum) * u``; ``p -= learning_rate * m``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.1 by default.
    momentum : float, optional
        0.9 by default.
    epsilon : float, optional
        0 by default.

    References
    ----------
    R. Anil, V. Gupta, T. Koren and Y. Singer, "Memory-efficient adaptive optimization", NeurIPS
    2019, SM3-II.
    """

    _family = "on whole matrices, in NumPy"

    learning_rate: Rate = Rate(default=0.1)
    momentum: Number = decay_rate(default=0.9)
    epsilon: Number = non_negative(default=0.0)

    @classmethod
    def _state_shapes(cls, param: Array, path: str, numbers: Values) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = (
            {"momentum": param.shape} if numbers["momentum"] else {}
        )
        lengths: list[tuple[int, ...]] = [(n,) for n in param.shape] or [()]
        return {**shapes, **{f"accumulator_{k}": length for k, length in enumerate(lengths)}}

    @classmethod
    def _update(
        cls, g: Array, param: Array, state: State, numbers: Values, step: int
    ) -> dict[str, Array]:
        new: dict[str, Array] = {}
        axes = range(g.ndim)
        accumulated: Array = np.asarray(np.square(g))
        least: Any = state["accumulator_0"] if g.ndim < 2 else np.inf
        for axis in axes if g.ndim >= 2 else ():
            others = tuple(other for other in axes if other != axis)
            least = np.minimum(least, np.expand_dims(state[f"accumulator_{axis}"], others))
        accumulated += least
        for axis in axes if g.ndim >= 2 else (0,):
            others = tuple(other for other in axes if other != axis)
            new[f"accumulator_{axis}"] = (
                accumulated.max(axis=others, initial=0) if others else accumulated.copy()
            )
        accumulated[accumulated == 0] = np.inf
        accumulated += numbers["epsilon"]
        g /= np.sqrt(accumulated)
        if numbers["momentum"]:
            new["momentum"] = _averaged(g, state["momentum"], numbers["momentum"])
        g *= numbers["learning_rate"]
        return new


class Muon(Optimizer):
    """Muon: momentum made orthogonal, for matrices; Adam for arrays of other dimensions.

    ``b = momentum * b + g``; ``x = g + momentum * b`` (b itself without nesterov) over its
    Frobenius norm; `ns_steps` times ``x = a * x + (b * A + c * A @ A) @ x`` with ``A = x @ x.T``;
    ``p -= learning_rate * sqrt(max(1, rows / columns)) * x``.

    Parameters
    ----------
    learning_rate : float or schedule, optional
        0.02 by default.
    momentum : float, optional
        0.95 by default.
    nesterov : bool, optional
        True by default.
    ns_steps : int, optional
        5 by default.
    ns_coefficients : tuple of 3 floats, optional
        a, b and c; (3.4445, -4.775, 2.0315) by default.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        The factor on the learning rate: ``sqrt(max(1, rows / columns))`` or
        ``0.2 * sqrt(max(rows, columns))``; by default the convention's.
    rms_rate : float, optional
        In the place of 0.2, where that is the convention's factor.
    consistent_rms : float, optional
        Makes the factor ``consistent_rms * sqrt(max(rows, columns))``.
    epsilon : float, optional
        1e-7 by default.
    adam_lr_ratio : float, optional
        Adam's learning rate over this one; 1 by default.
    adam_weight_decay : float, optional
        The decoupled decay of the arrays that go to Adam; 0 by default.
    adam_beta_1, adam_beta_2 : float, optional
        0.9 and 0.999 by default.

    References
    ----------
    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    _family = "on whole matrices, in NumPy"

    learning_rate: Rate = Rate(default=0.02)
    momentum: Number = decay_rate(default=0.95)
    nesterov: Flag = Flag(default=True)
    ns_steps: Count = Count(default=5, at_least=0)
    ns_coefficients: Numbers = Numbers(default=(3.4445, -4.775, 2.0315))
    adjust_lr_fn: Choice = Choice(("original", "match_rms_adamw"), default=None)
    rms_rate: Number = positive(default=0.2)
    consistent_rms: OptionalNumber = OptionalNumber(default=None, above=0)
    epsilon: Number = non_negative(default=1e-7)
    adam_lr_ratio: Number = non_negative(default=1.0)
    adam_weight_decay: Number = non_negative(default=0.0)
    adam_beta_1: Number = decay_rate(default=0.9)
    adam_beta_2: Number = decay_rate(default=0.999)

    @classmethod
    def _counts(cls, param: Array) -> bool:
        return param.ndim != 2

    @classmethod
    def _state_shapes(cls, param: Array, path: str, numbers: Values) -> dict[str, tuple[int, ...]]:
        if param.ndim == 2:
            return {"momentum": param.shape}
        if numbers.get("matrices_only", False):
            raise ValueError(f"{path}: expected a matrix for Muon, got shape {param.shape}")
        return {"m": param.shape, "v": param.shape}

    @classmethod
    def _update(
        cls, g: Array, param: Array, state: State, numbers: Values, step: int
    ) -> dict[str, Array]:
        lr = numbers["learning_rate"]
        if param.ndim == 2:
            new = _orthogonal_momentum(g, state, numbers, step)
            g *= lr * _muon_factor(param.shape, numbers)
            decay = lr * numbers["weight_decay"]
        else:
            new = _adam(g, state, numbers, step)
            rate = lr * numbers["adam_lr_ratio"]
            g *= rate
            decays_by = rate if numbers.get("adam_decay_times_ratio", False) else lr
            decay = decays_by * numbers["adam_weight_decay"]
        if decay:
            g += decay * param
        return new


def _averaged(update: Array, momentum: Array, decay: float) -> Array:
    """Turn an update into the average of updates, in place; return the momentum that it becomes."""
    update *= 1 - decay
    update += decay * momentum
    new: Array = update.copy()
    return new


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _factored_axes(shape: tuple[int, ...], numbers: Values) -> tuple[int, int] | None:
    """Return the axis that rows run along and the one that columns do, or None for whole moments.

    Means over the first are one per row, and those of them over the second normalize them.
    """
    if len(shape) < 2:
        return None
    if not numbers.get("factors_largest", False):
        return len(shape) - 1, len(shape) - 2
    second, largest = (int(axis) for axis in np.argsort(shape)[-2:])
    return (largest, second) if shape[second] >= numbers["min_dim_size_to_factor"] else None


def _mean_square(x: Array, axis: int) -> Array:
    """Return means of squares along an axis in float64, without squares of all of x at a time."""
    y = np.moveaxis(x, axis, -1)
    sums: Array = np.einsum("...i,...i->...", y, y, dtype=np.float64, casting="same_kind")
    return np.asarray(sums / x.shape[axis])


def _square(x: Array) -> float:
    """Return the sum of squares, in float64."""
    flat = x.ravel()  # in an order that does not depend on the layout
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64, casting="same_kind"))


def _rms(x: Array) -> float:
    """Return the root of the mean square, in float64; 0 of nothing."""
    return math.sqrt(_square(x) / max(x.size, 1))


def _orthogonal_momentum(g: Array, state: State, numbers: Values, step: int) -> dict[str, Array]:
    """Turn a gradient into Muon's direction, in place; return the momentum."""
    mu, form = numbers["momentum"], numbers.get("momentum_form", "sum")
    gain = 1.0 if form == "sum" else 1 - mu
    b = mu * state["momentum"] + gain * g
    if form == "corrected":
        now, then = 1 - mu**step, 1 - mu ** (step + 1)
        x = mu / then * b + gain / now * g if numbers["nesterov"] else b / now
    else:
        x = gain * g + mu * b if numbers["nesterov"] else b
    epsilon: Any = numbers.get("ns_epsilon", numbers["epsilon"])
    norm = math.sqrt(_square(x))
    norm = max(norm, epsilon) if numbers.get("bounds_norm", False) else norm + epsilon
    x = x / (norm or 1.0)
    rows, columns = x.shape
    g[...] = _newton_schulz(x.T, numbers).T if rows > columns else _newton_schulz(x, numbers)
    return {"momentum": b}


def _newton_schulz(x: Array, numbers: Values) -> Array:
    """Return the nearest orthogonal matrix, nearly."""
    a, b, c = numbers["ns_coefficients"]
    for _ in range(numbers["ns_steps"]):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def _muon_factor(shape: tuple[int, ...], numbers: Values) -> float:
    """Return what the learning rate of a matrix is multiplied by."""
    rows, columns = (max(n, 1) for n in shape)
    root_of_larger = math.sqrt(max(rows, columns))
    if numbers["consistent_rms"] is not None:
        return float(numbers["consistent_rms"] * root_of_larger)
    scale = {"original": "rows", "match_rms_adamw": "larger", None: numbers.get("scale", "rows")}
    chosen = scale[numbers["adjust_lr_fn"]]
    if chosen == "larger":
        return float(numbers["rms_rate"] * root_of_larger)
    return math.sqrt(max(1, rows / columns if chosen == "rows" else columns / rows))


def _adam(g: Array, state: State, numbers: Values, step: int) -> dict[str, Array]:
    """Turn a gradient into Adam's direction, in place; return its moments."""
    beta_1, beta_2 = numbers["adam_beta_1"], numbers["adam_beta_2"]
    c1, c2 = 1 - beta_1**step, 1 - beta_2**step
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * np.square(g)
    if numbers.get("adam_nesterov", False) and numbers["nesterov"]:
        m_hat = beta_1 / (1 - beta_1 ** (step + 1)) * m + (1 - beta_1) / c1 * g
    else:
        m_hat = m / c1
    if numbers.get("epsilon_hat", False):
        g[...] = math.sqrt(c2) * m_hat / (np.sqrt(v) + numbers["epsilon"])
    else:
        g[...] = m_hat / (np.sqrt(v / c2) + numbers["epsilon"])
    return {"m": m, "v": v}


# Assigned this way, type checkers see every class above without a list of them.
globals()["__all__"] = [
    name
    for name, each in globals().items()
    if isinstance(each, type) and issubclass(each, Optimizer) and each is not Optimizer
]
