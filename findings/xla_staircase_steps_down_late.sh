#!/usr/bin/env bash
# One would guess that a learning rate that is halved every 41 steps is halved at step 41, and that
# jax.jit does not change this.
# Compiled, it is halved at step 42, with optax's as with Keras's exponential decay. XLA makes of
# the division by a constant a multiplication by its reciprocal, and floor(41 * (1 / 41)) is 0 in
# float32. This holds for one period in eight, uncompiled for none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet optax==0.2.8 keras==3.15.1 jax==0.10.2 numpy==2.4.6

KERAS_BACKEND=jax KERAS_HOME="$work" "$work/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax

PERIODS = range(2, 400)
# By plain float32 arithmetic.
SEEN = [n for n in PERIODS if np.float32(n) * (np.float32(1) / np.float32(n)) < 1]


def with_optax(period):
    return optax.exponential_decay(1.0, period, 0.5, staircase=True)


def with_keras(period):
    return keras.optimizers.schedules.ExponentialDecay(1.0, period, 0.5, staircase=True)


def late(schedule_of, compiled):
    """Return the periods after which the rate is still the first."""
    result = []
    for period in PERIODS:
        schedule = schedule_of(period)
        if compiled:
            schedule = jax.jit(schedule)
        before, at, after = (float(schedule(jnp.int32(period + k))) for k in (-1, 0, 1))
        assert before == 1 and after == 0.5
        if at != 0.5:
            result.append(period)
    return result


print(f"optax {optax.__version__}, keras {keras.__version__}, jax {jax.__version__}")
for schedule_of in (with_optax, with_keras):
    plain, compiled = late(schedule_of, False), late(schedule_of, True)
    print(f"{schedule_of.__name__}: late for {len(plain)} of {len(PERIODS)} periods;", end=" ")
    print(f"compiled for {len(compiled)}:", *compiled[:8], "...")
    assert not plain
    assert compiled == SEEN and len(SEEN) == 51
END
