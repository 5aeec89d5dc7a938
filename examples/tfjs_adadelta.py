"""Which Adadelta learns? TensorFlow.js's with each of its learning rates, and Zeiler's.

The network and the data are those of adadelta_ones.py. Without a word of its own, TensorFlow.js has
a learning rate of 1 in ``model.compile({optimizer: 'adadelta'})`` and of 0.001 in
``tf.train.adadelta()``; and its Adadelta is gradient descent, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import adadelta_ones
import numpy as np

import instep

Rule = Callable[[Sequence[adadelta_ones.Array]], instep.Optimizer]

RULES: dict[str, Rule] = {
    "TensorFlow.js, learning rate 1": lambda params: instep.Adadelta(
        params, learning_rate=1.0, convention="tfjs"
    ),
    "TensorFlow.js, learning rate 0.001": lambda params: instep.Adadelta(
        params, learning_rate=0.001, convention="tfjs"
    ),
    "gradient descent, learning rate 1": lambda params: instep.SGD(params, learning_rate=1.0),
    "Zeiler, learning rate 1": lambda params: instep.Adadelta(params, learning_rate=1.0),
    "Keras, learning rate 0.001": lambda params: instep.Adadelta(params, convention="keras"),
}


def train(rule: Rule) -> tuple[float, float]:
    """Return the loss before and after ten epochs."""
    rng = np.random.default_rng(0)
    params = adadelta_ones.initial_params(rng)
    x = np.ones((100, 5), np.float32)
    y = np.zeros((100, 1), np.float32)
    before, _, _ = adadelta_ones.evaluate(params, x, y)
    adadelta_ones.fit(
        params,
        x,
        y,
        optimizer=rule(params),
        epochs=10,
        batch_size=32,
        rng=rng,
        on_epoch_end=lambda epoch, logs: None,
    )
    after, _, _ = adadelta_ones.evaluate(params, x, y)
    return before, after


def main() -> None:
    """Train with each rule and print the losses."""
    for name, rule in RULES.items():
        before, after = train(rule)
        print(f"{name}: loss {before:.4f} -> {after:.4f}")


if __name__ == "__main__":
    main()
