"""The loop of `custom_loop` with gradients from autograd: ``pip install autograd``."""

from __future__ import annotations

from collections.abc import Sequence

import autograd.numpy as anp
from autograd import grad
from custom_loop import Array, report


def mean_squared_error(variables: Sequence[Array], x: Array, y: Array) -> Array:
    """Return the mean squared error of the network, in functions autograd can differentiate."""
    w1, b1, w2, b2 = variables
    error: Array = anp.mean((anp.tanh(x @ w1 + b1) @ w2 + b2 - y) ** 2)
    return error


gradients = grad(mean_squared_error)


def main() -> None:
    """Train on the gradients of autograd."""
    report(gradients)


if __name__ == "__main__":
    main()
