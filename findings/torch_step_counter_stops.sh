#!/usr/bin/env bash
# One would guess that a step counter counts steps, at least to the 2**53 of Python's floats.
# Those of PyTorch's optimizers are float32 tensors: they stand still from step 2**24 = 16,777,216
# on, without a word, since float32 has no 2**24 + 1. This holds for parameters of any dtype; only
# torch.set_default_dtype(torch.float64) makes them count further.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/bin/python" - <<'END'
import torch

RULES = "Adadelta Adafactor Adagrad Adam AdamW Adamax ASGD NAdam RAdam RMSprop Rprop".split()


def counters(rule, dtype):
    """Return the counter after each of four steps, where the first will be step 2**24 - 1."""
    torch.set_default_dtype(dtype)
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    param.grad = torch.ones_like(param)
    optimizer = getattr(torch.optim, rule)([param])
    optimizer.step()
    checkpoint = optimizer.state_dict()
    checkpoint["state"][0]["step"].fill_(2**24 - 2)
    optimizer.load_state_dict(checkpoint)
    result = []
    for _ in range(4):
        optimizer.step()
        result.append(int(optimizer.state[param]["step"]))
    return result


print(f"torch {torch.__version__}: step counters")
for rule in RULES:
    short, long = counters(rule, torch.float32), counters(rule, torch.float64)
    print(f"{rule:8}: {short}; with default dtype float64: {long}")
    assert short == [2**24 - 1, 2**24, 2**24, 2**24]
    assert long == [2**24 - 1, 2**24, 2**24 + 1, 2**24 + 2]
END
