#!/usr/bin/env bash
# One would guess that `jax.device_put(x, may_alias=False)` is a copy of a NumPy array: its
# documentation says "If False, `x` will be copied", and arrays of JAX do not change.
# On the CPU it is the memory of `x` itself where that begins at a multiple of 64 bytes, whatever
# `may_alias` says: what is written to `x` later shows up in the array, and in what is computed of
# it. At other addresses it is a copy, so that most arrays that NumPy has made don't show it.
# `jax.numpy.array` copies both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet jax==0.10.2 numpy==2.4.6

JAX_PLATFORMS=cpu "$work/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import numpy as np


def zeros_at(offset):
    """Return 1024 zeros that begin so many bytes after a multiple of 64."""
    memory = np.zeros(4 * 1024 + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    return memory[start : start + 4 * 1024].view(np.float32)


WAYS = {
    "device_put(x)": jax.device_put,
    "device_put(x, may_alias=True)": lambda x: jax.device_put(x, may_alias=True),
    "device_put(x, may_alias=False)": lambda x: jax.device_put(x, may_alias=False),
    "jnp.array(x)": jnp.array,
}
print(f"jax {jax.__version__}, numpy {np.__version__}: sums once x, 1024 zeros, has become ones")
for name, way in WAYS.items():
    sums = []
    for offset in (0, 4):
        x = zeros_at(offset)
        there = jax.block_until_ready(way(x))
        assert float(there.sum()) == 0
        x += 1
        sums.append(float(there.sum()))
    print(f"{name:30}: {sums[0]:.0f} of 64-byte-aligned memory, {sums[1]:.0f} of other")
    assert sums == ([0, 0] if name == "jnp.array(x)" else [1024, 0])
END
