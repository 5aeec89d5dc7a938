#!/usr/bin/env bash
# One would guess that RAdam's first update in thinc (spaCy's library) is learn_rate * gradient: the
# average of gradients, corrected for having begun at 0, of one gradient is that gradient. So it is
# in the paper, and for gradients that stay the same it stays so until updates are rectified.
# It is 1 / (1 + beta1) = 0.526 of that, and rectified is the fifth update, by what is meant for the
# sixth: updates are counted from 2, so that the average of one gradient is corrected as if it were
# of two. thinc's Adam counts from 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet thinc==8.3.14 numpy==2.4.6

"$work/bin/python" - <<'END'
from importlib.metadata import version

import numpy as np
from thinc.api import Adam, RAdam

RATE, BETA_1, BETA_2, GRADIENT = 0.01, 0.9, 0.999, 0.5


def updates(rule, steps=8):
    """Return how far each update goes, on gradients that stay the same."""
    optimizer = rule(RATE, beta1=BETA_1, beta2=BETA_2, eps=1e-8, grad_clip=0.0, L2=0.0)
    weights, moved = np.zeros(3, np.float32), []
    for _ in range(steps):
        before = weights[0]
        weights, _ = optimizer((0, "W"), weights, np.full(3, GRADIENT, np.float32))
        moved.append(float(before - weights[0]))
    return np.array(moved)


def paper(t):
    """Return RAdam's update t of Liu et al. 2020, over the learning rate: averages are exact."""
    most = 2 / (1 - BETA_2) - 1
    length = most - 2 * t * BETA_2**t / (1 - BETA_2**t)
    if length <= 5:  # the authors' program and others have 5, the paper 4
        return GRADIENT
    return np.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))


print(f"thinc {version('thinc')}, numpy {np.__version__}: updates over the learning rate")
seen, expected = updates(RAdam) / RATE, np.array([paper(t) for t in range(1, 9)])
print("thinc's RAdam", seen.round(4))
print("RAdam        ", expected.round(4))
print("thinc's Adam ", (updates(Adam) / RATE).round(4))
# The average after t gradients, corrected as of t + 1 of them.
t = np.arange(1, 5)
assert np.allclose(seen[:4], GRADIENT * (1 - BETA_1**t) / (1 - BETA_1 ** (t + 1)), rtol=1e-4)
assert np.isclose(seen[0], GRADIENT / (1 + BETA_1), rtol=1e-4)
assert seen[4] < 0.1 and np.allclose(expected[:5], GRADIENT) and expected[5] < 0.1
assert np.allclose(updates(Adam) / RATE, 1, rtol=1e-4)
END
