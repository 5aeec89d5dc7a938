#!/usr/bin/env bash
# One would guess that a tensor, or an optimizer's state that holds one, which pickle writes without
# a complaint can be read again. Tensors of uint16, uint32, uint64 and the 8-bit floats can't: loads
# raises an AttributeError on a storage without dtype, which shows when the run is to go on.
# torch.save and torch.load bring the same tensors back, and so does pickle with int16 or bfloat16.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/bin/python" - <<'END'
import io
import pickle

import torch


def by_pickle(state):
    return pickle.loads(pickle.dumps(state))


def by_torch(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


def outcome(carry, dtype):
    """Return what becomes of a state dict with a slot of that dtype."""
    state = {"state": {0: {"slot": torch.arange(4).to(dtype)}}, "param_groups": []}
    try:
        back = carry(state)["state"][0]["slot"]
    except AttributeError as error:
        return f"AttributeError: {error}"
    return "the same" if torch.equal(back.double(), torch.arange(4).double()) else "another"


print(f"torch {torch.__version__}: a state dict with a slot of this dtype, written and read")
unread = "uint16 uint32 uint64 float8_e4m3fn float8_e5m2".split()
for name in [*unread, "int16", "bfloat16", "float32"]:
    pickled, saved = (outcome(carry, getattr(torch, name)) for carry in (by_pickle, by_torch))
    print(f"{name:14} pickle: {pickled}; torch.save: {saved}")
    assert saved == "the same"
    assert pickled.startswith("AttributeError") if name in unread else pickled == "the same"
END
