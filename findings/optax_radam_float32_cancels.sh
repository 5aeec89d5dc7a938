#!/usr/bin/env bash
# One would guess that optax.radam in float32 is as near to its run in float64 as optax.adam, some
# 1e-5 of each update.
# It is a hundred times further away: its first rectified update is off by a percent. The length of
# the average that it rectifies by, 6 at the sixth step, is computed as 1999 - 1993, in float32. The
# parameters have no part in it: with JAX's 64 bits enabled, float32 parameters get good updates.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet optax==0.2.8 jax==0.10.2 numpy==2.4.6

"$work/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import numpy as np
import optax

GRADIENTS = np.random.default_rng(0).normal(size=(10, 1000)).astype(np.float32)


def updates(optimizer, dtype, enable_x64):
    """Return the updates of all steps, in float64."""
    with jax.enable_x64(enable_x64):
        state = optimizer.init(jnp.zeros(GRADIENTS.shape[1], dtype))
        result = []
        for gradient in GRADIENTS:
            update, state = optimizer.update(jnp.asarray(gradient, dtype), state)
            assert update.dtype == dtype
            result.append(np.asarray(update, np.float64))
    return np.array(result)


def errors(rule, enable_x64):
    """Return how far each float32 update is from its float64 one, relative to that."""
    optimizer = rule(0.1)
    exact = updates(optimizer, np.float64, True)
    error = updates(optimizer, np.float32, enable_x64) - exact
    return np.linalg.norm(error, axis=1) / np.linalg.norm(exact, axis=1)


print(f"optax {optax.__version__}, jax {jax.__version__}: float32 updates from float64 ones")
adam = errors(optax.adam, enable_x64=False)
radam = errors(optax.radam, enable_x64=False)
wide = errors(optax.radam, enable_x64=True)
np.set_printoptions(formatter={"float": "{:.0e}".format})
print("adam                  ", adam)
print("radam                 ", radam)
print("radam, 64 bits enabled", wide)
assert adam.max() < 1e-4
assert radam[:5].max() < 1e-4 and radam[5:].max() > 1e-3
assert wide.max() < 1e-5
END
