#!/usr/bin/env bash
# One would guess that Adam's update of a row is the same whether the gradient of its table is dense
# or names that row alone. Paddle's kernel for the gradients of paddle.nn.Embedding(sparse=True)
# corrects its averages with the powers of the betas of one step later than the dense kernel does:
# with a constant gradient, whose every step should be the learning rate, the first one is 0.744 of
# it and the tenth 0.995, with lazy_mode and without. (Asked about in Paddle's issue 53052, in 2023.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet paddlepaddle==3.3.1 numpy==2.4.6 setuptools==80.9.0

"$work/bin/python" -W ignore - <<'END'
import math

import numpy as np
import paddle

RATE, BETA_1, BETA_2 = 0.01, 0.9, 0.999


def steps(sparse, lazy):
    """Return how far ten updates with a gradient of one move a row, as multiples of the rate."""
    layer = paddle.nn.Embedding(4, 2, sparse=sparse)
    layer.weight.set_value(np.zeros((4, 2), np.float32))
    optimizer = paddle.optimizer.Adam(
        RATE, BETA_1, BETA_2, parameters=layer.parameters(), lazy_mode=lazy
    )
    moved = []
    for _ in range(10):
        before = layer.weight.numpy().copy()
        layer(paddle.to_tensor([1])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        moved.append(float((before - layer.weight.numpy())[1, 0]) / RATE)
    return moved


def correction(step):
    """Return what Adam's step is multiplied by."""
    return math.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)


print(f"paddlepaddle {paddle.__version__}: steps of Adam over its learning rate, gradient 1")
for sparse in (False, True):
    for lazy in (False, True):
        moved = steps(sparse, lazy)
        print(f"sparse={sparse!s:5} lazy_mode={lazy!s:5}:", *(f"{x:.3f}" for x in moved))
        wanted = [correction(t + sparse) / correction(t) for t in range(1, 11)]
        assert np.allclose(moved, wanted, rtol=1e-3), wanted
END
