"""Train a small classifier with Adadelta, as a TensorFlow.js program would.

A network with 5 inputs, 10 hidden units (ReLU) and one output (sigmoid) learns to answer 0 to
inputs of all ones. `fit` keeps to `model.fit` of TensorFlow.js: shuffled batches, epochs counted
from 0, and a callback that receives each epoch's loss and accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import instep

Array: TypeAlias = NDArray[np.floating[Any]]
Logs: TypeAlias = dict[str, float]


def initial_params(rng: np.random.Generator) -> list[Array]:
    """Return Glorot uniform weights and zero biases: ``[w1, b1, w2, b2]``."""

    def weights(rows: int, columns: int) -> Array:
        limit = math.sqrt(6 / (rows + columns))
        return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)

    return [weights(5, 10), np.zeros(10, np.float32), weights(10, 1), np.zeros(1, np.float32)]


def evaluate(params: Sequence[Array], x: Array, y: Array) -> tuple[float, float, list[Array]]:
    """Return the binary cross-entropy, the accuracy, and the gradients of the first."""
    w1, b1, w2, b2 = params
    hidden = np.maximum(x @ w1 + b1, 0)
    logits = hidden @ w2 + b2
    # The cross-entropy of sigmoid(logits), in a form that cannot overflow.
    loss = np.mean(np.logaddexp(0, logits) - y * logits)
    accuracy = np.mean((logits > 0) == (y > 0.5))

    sigmoid = np.exp(-np.logaddexp(0, -logits))
    d_logits = (sigmoid - y) / y.size
    d_hidden = d_logits @ w2.T * (hidden > 0)
    grads = [x.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_logits, d_logits.sum(axis=0)]
    return float(loss), float(accuracy), grads


def fit(
    params: Sequence[Array],
    x: Array,
    y: Array,
    *,
    optimizer: instep.Optimizer,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
    on_epoch_end: Callable[[int, Logs], None],
) -> None:
    """Train, and report the means over each epoch's samples."""
    for epoch in range(epochs):
        logs = {"loss": 0.0, "acc": 0.0}
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            loss, accuracy, grads = evaluate(params, x[batch], y[batch])
            optimizer.step(grads)
            logs["loss"] += loss * len(batch) / len(x)
            logs["acc"] += accuracy * len(batch) / len(x)
        on_epoch_end(epoch, logs)


def main() -> None:
    """Train for ten epochs and print the loss of each."""
    rng = np.random.default_rng(0)
    params = initial_params(rng)
    x = np.ones((100, 5), np.float32)
    y = np.zeros((100, 1), np.float32)

    def on_epoch_end(epoch: int, logs: Logs) -> None:
        print(f"Epoch {epoch}: loss = {logs['loss']}")

    fit(
        params,
        x,
        y,
        optimizer=instep.Adadelta(params, learning_rate=1.0, rho=0.95, epsilon=1e-6),
        epochs=10,
        batch_size=32,
        rng=rng,
        on_epoch_end=on_epoch_end,
    )
    _, accuracy, _ = evaluate(params, x, y)
    print(f"accuracy = {accuracy}")


if __name__ == "__main__":
    main()
