#!/usr/bin/env bash
# One would guess that the gradient of a row of an embedding is the sum over its places in a batch,
# and that Adam and Adagrad square this sum.
# Keras on TensorFlow sums the squares of its parts. There the gradient is an IndexedSlices with one
# row for each place, and squaring it squares these. An id that is in a batch four times has a
# quarter of the second moment and moves twice as far as with the same gradient as a tensor; Adam's
# first step is then twice its learning rate.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet keras==3.15.1 tensorflow-cpu==2.21.0 numpy==2.4.6

KERAS_BACKEND=tensorflow KERAS_HOME="$work" TF_CPP_MIN_LOG_LEVEL=2 "$work/bin/python" - <<'END'
import keras
import numpy as np
import tensorflow as tf

IDS = np.array([0, 0, 0, 0, 1])


def step(optimizer, dense):
    """Return the embedding and the optimizer's squares after a step down the sum over a batch."""
    layer = keras.layers.Embedding(2, 1, embeddings_initializer="zeros")
    layer.build()
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(layer(IDS))
    gradient = tape.gradient(loss, layer.embeddings.value)
    if dense:
        gradient = tf.convert_to_tensor(gradient)
    optimizer.build([layer.embeddings])
    optimizer.apply([gradient])
    rows, squares = (v.numpy().ravel() for v in (layer.embeddings, optimizer.variables[-1]))
    print(f"{optimizer.name}, {type(gradient).__name__}: rows {rows}, squares {squares}")
    return rows, squares


def check(make, squares_of_parts, squares_of_sums):
    """Compare a step with an IndexedSlices to one with the same gradient as a tensor."""
    rows, squares = step(make(), dense=False)
    np.testing.assert_allclose(rows, [-2, -1], rtol=1e-4)
    np.testing.assert_allclose(squares, squares_of_parts, rtol=1e-4)
    rows, squares = step(make(), dense=True)
    np.testing.assert_allclose(rows, [-1, -1], rtol=1e-4)
    np.testing.assert_allclose(squares, squares_of_sums, rtol=1e-4)


print(f"keras {keras.__version__}, tensorflow {tf.__version__}: gradients 1 + 1 + 1 + 1 and 1")
check(lambda: keras.optimizers.Adagrad(1.0, initial_accumulator_value=0.0), [4, 1], [16, 1])
check(lambda: keras.optimizers.Adam(1.0), [0.004, 0.001], [0.016, 0.001])
END
