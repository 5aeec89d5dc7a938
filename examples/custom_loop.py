"""A custom training loop: gradients by hand, updates by ``apply_gradients``.

A network with 4 inputs, 16 hidden units (tanh) and one output learns a smooth function by mean
squared error, once with each of five optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

import instep

Array: TypeAlias = NDArray[np.floating[Any]]
Gradients: TypeAlias = Callable[[list[Array], Array, Array], Sequence[Array]]

LEARNING_RATE = 0.001
OPTIMIZERS: dict[str, Callable[[], instep.Optimizer]] = {
    "SGD": lambda: instep.SGD(learning_rate=LEARNING_RATE),
    "momentum": lambda: instep.SGD(learning_rate=LEARNING_RATE, momentum=0.9),
    "Adagrad": lambda: instep.Adagrad(learning_rate=LEARNING_RATE),
    "RMSprop": lambda: instep.RMSprop(learning_rate=LEARNING_RATE),
    "Adam": lambda: instep.Adam(learning_rate=LEARNING_RATE),
}


class Losses(NamedTuple):
    """The mean squared error before and after a training."""

    before: float
    after: float


def make_data(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return 256 points and the values of the function to learn."""
    x = rng.normal(size=(256, 4))
    y = np.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    return x, y


def make_variables(rng: np.random.Generator) -> list[Array]:
    """Return the initial weights and biases: ``[w1, b1, w2, b2]``."""
    return [rng.normal(size=(4, 16)) / 2, np.zeros(16), rng.normal(size=(16, 1)) / 4, np.zeros(1)]


def mean_squared_error(variables: Sequence[Array], x: Array, y: Array) -> float:
    """Return the mean squared error of the network."""
    w1, b1, w2, b2 = variables
    return float(np.mean((np.tanh(x @ w1 + b1) @ w2 + b2 - y) ** 2))


def gradients(variables: list[Array], x: Array, y: Array) -> list[Array]:
    """Return the gradients of the mean squared error."""
    w1, b1, w2, b2 = variables
    hidden = np.tanh(x @ w1 + b1)
    d_output = 2 * (hidden @ w2 + b2 - y) / y.size
    d_hidden = d_output @ w2.T * (1 - hidden**2)
    return [x.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_output, d_output.sum(axis=0)]


def train(optimizer: instep.Optimizer, gradients_of: Gradients, *, steps: int = 300) -> Losses:
    """Train from the same start on the same data every time."""
    rng = np.random.default_rng(0)
    x, y = make_data(rng)
    variables = make_variables(rng)
    before = mean_squared_error(variables, x, y)
    for _ in range(steps):
        grads = gradients_of(variables, x, y)
        optimizer.apply_gradients(zip(grads, variables))  # noqa: B905
    return Losses(before, mean_squared_error(variables, x, y))


def report(gradients_of: Gradients) -> None:
    """Train with every optimizer and print the losses."""
    for name, make_optimizer in OPTIMIZERS.items():
        losses = train(make_optimizer(), gradients_of)
        print(f"{name}: loss {losses.before:.4f} -> {losses.after:.4f}")


def main() -> None:
    """Train on the gradients by hand."""
    report(gradients)


if __name__ == "__main__":
    main()
