#!/usr/bin/env bash
# One would guess that an optimizer which loads another one's `state_dict` has state of its own from
# then on, as a model has weights of its own after `load_state_dict`.
# Its state is the other one's memory, where dtype and device agree: a step of either moves the
# averages, and the count of steps, of both. Two runs that go on from one state, or a copy that is
# kept to go back to, must be deep copies.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/bin/python" - <<'END'
import copy

import torch


def trained():
    """Return a parameter and an Adam that has stepped once on a gradient of 1."""
    param = torch.nn.Parameter(torch.ones(1))
    param.grad = torch.ones(1)
    optimizer = torch.optim.Adam([param], lr=0.1)
    optimizer.step()
    return param, optimizer


print(f"torch {torch.__version__}: Adam's average and count in b, before and after a step of a")
for how, taken in (("state_dict()", lambda d: d), ("a deep copy of it", copy.deepcopy)):
    _, a = trained()
    param, b = trained()
    b.load_state_dict(taken(a.state_dict()))
    state = b.state[param]
    before = state["exp_avg"].item(), state["step"].item()
    a.step()
    after = state["exp_avg"].item(), state["step"].item()
    print(f"b has loaded {how}: {before[0]:.2f}, {before[1]:.0f}; {after[0]:.2f}, {after[1]:.0f}")
    assert (after != before) == (how == "state_dict()")
    assert before[1] == 1

weight = torch.nn.Linear(1, 1)
other = torch.nn.Linear(1, 1)
other.load_state_dict(weight.state_dict())
assert other.weight.data_ptr() != weight.weight.data_ptr()
print("a module that has loaded another one's state_dict has memory of its own")
END
