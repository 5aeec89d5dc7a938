#!/usr/bin/env bash
# One would guess that optax.adadelta(), which may be called without a learning rate as Adadelta
# needs none, descends: updates are added to the parameters, so they point against the gradient.
# It ascends. The factor that is left out with the rate is minus the rate, and the sign goes with
# it. optax.adafactor(), whose rate may be left out as well, descends.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet optax==0.2.8 jax==0.10.2 numpy==2.4.6

"$work/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import optax


def square(x):
    return jnp.sum(x**2)


def train(optimizer):
    x = jnp.array([1.0, -2.0, 3.0])
    state = optimizer.init(x)
    for _ in range(100):
        updates, state = optimizer.update(jax.grad(square)(x), state, x)
        x = optax.apply_updates(x, updates)
    return float(square(x))


print(f"optax {optax.__version__}, jax {jax.__version__}: a sum of squares, 14 before 100 steps")
without = train(optax.adadelta())
with_one = train(optax.adadelta(1.0))
adafactor = train(optax.adafactor())
print(f"after adadelta()    {without:.3f}")
print(f"after adadelta(1.0) {with_one:.3f}")
print(f"after adafactor()   {adafactor:.3f}")
assert with_one < 14 and adafactor < 14 < without
END
