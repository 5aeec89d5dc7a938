#!/usr/bin/env bash
# One would guess that optax.rprop moves against the sign of the gradient that it is given.
# It returns the update of the call before: the first call moves nothing, an element whose gradient
# is zero moves if its last one was not, and after a change of sign two calls in a row move nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet optax==0.2.8 jax==0.10.2 numpy==2.4.6

"$work/bin/python" - <<'END'
import jax
import numpy as np
import optax

# Columns: always the same sign, a gradient in the first step alone, a change of sign.
GRADIENTS = np.array([[1, 1, 1], [1, 0, 1], [1, 0, -1], [1, 0, -1], [1, 0, -1]], np.float32)
# By the paper without its way back, steps 0.1 at first, times 1.2 or 0.5.
EXPECTED = [
    [-0.1, -0.1, -0.1],
    [-0.12, 0, -0.12],
    [-0.144, 0, 0],
    [-0.1728, 0, 0.06],
    [-0.20736, 0, 0.072],
]
SEEN = [[0, 0, 0], [-0.1, -0.1, -0.1], [-0.12, 0, 0], [-0.144, 0, 0], [-0.1728, 0, 0.06]]

rprop = optax.rprop(0.1, eta_minus=0.5, eta_plus=1.2)
state = rprop.init(np.zeros(3, np.float32))
updates = []
for gradient in GRADIENTS:
    update, state = rprop.update(gradient, state)
    updates.append(update)

print(f"optax {optax.__version__}, jax {jax.__version__}: rprop returns the update before")
for gradient, expected, update in zip(GRADIENTS, EXPECTED, updates):
    print("gradient", gradient, "expected", expected, "returned", np.round(update, 6) + 0.0)
np.testing.assert_allclose(updates, SEEN, rtol=1e-6)
END
