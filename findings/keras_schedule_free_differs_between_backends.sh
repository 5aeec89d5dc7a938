#!/usr/bin/env bash
# One would guess that Keras's ScheduleFreeAdamW, one code for all backends, moves parameters the
# same way on each, but for rounding.
# From the second step on it does not. The average is recovered from the parameters and the base
# point z as it was before the step, of which the code keeps `momentum.value`. On JAX this is an
# array that nothing changes; on PyTorch it is the storage that the step has changed meanwhile.
# JAX's path is that of the paper.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet keras==3.15.1 jax==0.10.2 torch==2.13.0 numpy==2.4.6

cat >"$work/train.py" <<'END'
import keras
import numpy as np

STEPS, SIZE, RATE, BETA_1, BETA_2, EPSILON = 50, 1000, 0.1, 0.9, 0.999, 1e-8
rng = np.random.default_rng(0)
start = rng.normal(size=SIZE).astype(np.float32)
gradients = rng.normal(size=(STEPS, SIZE)).astype(np.float32)

param = keras.Variable(start)
optimizer = keras.optimizers.ScheduleFreeAdamW(RATE, BETA_1, BETA_2, EPSILON)
optimizer.build([param])

x, z, v = start.astype(np.float64), start.astype(np.float64), np.zeros(SIZE)
for step, gradient in enumerate(gradients, 1):
    optimizer.apply([keras.ops.convert_to_tensor(gradient)])

    v = BETA_2 * v + (1 - BETA_2) * gradient.astype(np.float64) ** 2
    z = z - RATE * gradient / (np.sqrt(v / (1 - BETA_2**step)) + EPSILON)
    x = (1 - 1 / step) * x + z / step
    paper = (1 - BETA_1) * z + BETA_1 * x
    difference = np.linalg.norm(keras.ops.convert_to_numpy(param) - paper)
    relative = difference / np.linalg.norm(paper - start)
    if step in {1, 2, 10, STEPS}:
        print(f"    step {step}: {relative:.1e} of the way from the paper's parameters")
    expected = relative < 1e-4 if step == 1 or keras.backend.backend() == "jax" else relative > 0.01
    assert expected, (step, relative)
END

"$work/bin/pip" freeze | grep -E "^(keras|jax|torch)=="
export KERAS_HOME="$work"
for backend in jax torch; do
    echo "ScheduleFreeAdamW on $backend"
    KERAS_BACKEND=$backend "$work/bin/python" "$work/train.py"
done
