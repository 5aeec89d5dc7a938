"""The rules that see whole arrays at once: products of matrices.

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
)
from instep._optimizer import Optimizer
from instep._rule import Values

if TYPE_CHECKING:
    from instep._memory import Array, Scratch

    State = Mapping[str, Array]


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
        In the place of 0.2, where that is the convention's factor; None for no factor with
        ``convention="keras"``.
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
    rms_rate: OptionalNumber = OptionalNumber(default=0.2, above=0)
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
        cls, g: Array, param: Array, state: State, numbers: Values, step: int, scratch: Scratch
    ) -> dict[str, Array]:
        lr = numbers["learning_rate"]
        if param.ndim == 2:
            new, direction = _orthogonal_momentum(g, state, numbers, step, scratch)
            rate = lr * _muon_factor(param.shape, numbers)
            decay = lr * numbers["weight_decay"]
        else:
            new, direction = _adam(g, state, numbers, step), g
            rate = lr * numbers["adam_lr_ratio"]
            decays_by = rate if numbers.get("adam_decay_times_ratio", False) else lr
            decay = decays_by * numbers["adam_weight_decay"]
        np.multiply(direction, rate, out=g)
        if decay:
            g += np.multiply(param, decay, out=scratch("matrix", g.shape, g.dtype))
        return new


def _square(x: Array) -> float:
    """Return the sum of squares, in float64."""
    flat = x.ravel()  # in an order that does not depend on the layout
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64, casting="same_kind"))


def _orthogonal_momentum(
    g: Array, state: State, numbers: Values, step: int, scratch: Scratch
) -> tuple[dict[str, Array], Array]:
    """Return the momentum and Muon's direction, from a gradient that may be overwritten."""
    mu, form = numbers["momentum"], numbers.get("momentum_form", "sum")
    gain = 1.0 if form == "sum" else 1 - mu
    share = np.multiply(g, gain, out=scratch("matrix", g.shape, g.dtype))
    b = np.multiply(state["momentum"], mu)
    b += share
    now, then = (1 - mu**step, 1 - mu ** (step + 1)) if form == "corrected" else (1.0, 1.0)
    if numbers["nesterov"]:
        np.multiply(b, mu / then, out=g)
        share /= now
        g += share
    else:
        np.divide(b, now, out=g)
    epsilon: Any = numbers.get("ns_epsilon", numbers["epsilon"])
    norm = math.sqrt(_square(g))
    norm = max(norm, epsilon) if numbers.get("bounds_norm", False) else norm + epsilon
    g /= norm or 1.0
    return {"momentum": b}, _newton_schulz(g, share, numbers, scratch)


def _newton_schulz(x: Array, other: Array, numbers: Values, scratch: Scratch) -> Array:
    """Return the nearest orthogonal matrix, nearly; in one of two arrays, of which x is the first.

    A step multiplies x with a polynomial of its gram matrix. NumPy leaves half out of products of a
    matrix with its own transpose, of which the square of a symmetric one is one. Where x is long,
    products with it are what takes the time: then three steps are one. The gram matrix of the next
    one is that of the last times its polynomial's square: polynomials of one matrix commute.
    """
    a, b, c = numbers["ns_coefficients"]
    is_wide = x.shape[0] <= x.shape[1]
    side = min(x.shape)
    most = 3 if max(x.shape) >= 2 * side else 1
    gram, factor, last, square, room = (
        scratch(name, (side, side), x.dtype)
        for name in ("gram", "factor", "last", "square", "room")
    )

    def polynomial(gram: Array, out: Array, room: Array) -> Array:
        np.matmul(gram, gram.T, out=out)
        out *= c
        out += np.multiply(gram, b, out=room)
        out.reshape(-1)[:: side + 1] += a
        return out

    left = numbers["ns_steps"]
    while left > 0:
        wide, tall = (x, x.T) if is_wide else (x.T, x)
        np.matmul(wide, tall, out=gram)
        one = polynomial(gram, factor, room)
        for _ in range(min(left, most) - 1):
            np.matmul(one, one.T, out=square)
            gram, room = np.matmul(gram, square, out=room), gram
            one = polynomial(gram, last, room)
            factor, square = np.matmul(one, factor, out=square), factor
        np.matmul(*((factor, x) if is_wide else (x, factor)), other)
        x, other = other, x
        left -= min(left, most)
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
        if numbers["rms_rate"] is None:
            return 1.0
        return float(numbers["rms_rate"] * root_of_larger)
    return math.sqrt(max(1, rows / columns if chosen == "rows" else columns / rows))


def _adam(g: Array, state: State, numbers: Values, step: int) -> dict[str, Array]:
    """Turn a gradient into Adam's direction, in place; return its moments."""
    beta_1, beta_2 = numbers["adam_beta_1"], numbers["adam_beta_2"]
    c1, c2 = 1 - beta_1**step, 1 - beta_2**step
    m, v = beta_1 * state["m"], beta_2 * state["v"]
    v += (1 - beta_2) * np.square(g)
    g *= 1 - beta_1
    m += g
    if numbers.get("adam_nesterov", False) and numbers["nesterov"]:
        g /= c1
        g += beta_1 / (1 - beta_1 ** (step + 1)) * m
    else:
        np.divide(m, c1, out=g)
    if numbers.get("epsilon_hat", False):
        root = np.sqrt(v)
        g *= math.sqrt(c2)
    else:
        root = np.sqrt(v / c2)
    root += numbers["epsilon"]
    g /= root
    return {"m": m, "v": v}


# Assigned this way, type checkers see every class above without a list of them.
globals()["__all__"] = [
    name
    for name, each in globals().items()
    if isinstance(each, type) and issubclass(each, Optimizer) and each is not Optimizer
]
