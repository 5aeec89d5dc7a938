#!/usr/bin/env bash
# One would guess that an Adam which loads the state of an AdamW, whose averages it shares, goes on
# as Adam: with the weight decay inside the gradient.
# It goes on as AdamW. `decoupled_weight_decay` is one of the numbers in `param_groups`, which
# load_state_dict takes over; its type is still Adam. The other way round nothing changes: AdamW
# sets it again after loading.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/bin/python" - <<'END'
import torch
from torch.optim import Adam, AdamW

OPTIONS = {"lr": 0.1, "weight_decay": 0.5}


def decayed(rule, source):
    """Return what weight decay alone makes of 1, in a rule that loaded the state of another."""
    param = torch.nn.Parameter(torch.ones(1))
    param.grad = torch.zeros(1)
    optimizer = rule([param], **OPTIONS)
    optimizer.load_state_dict(source([param], **OPTIONS).state_dict())
    assert type(optimizer) is rule
    optimizer.step()
    print(f"{rule.__name__} that loaded the state of {source.__name__}: {param.item():.6f}")
    return round(param.item(), 6)


print(f"torch {torch.__version__}: 1 after a step with gradient 0, rate 0.1, weight decay 0.5")
assert decayed(Adam, Adam) == 0.9  # by the rate: the decay is Adam's whole gradient
assert decayed(AdamW, AdamW) == 0.95  # by the rate times the decay
assert decayed(Adam, AdamW) == 0.95
assert decayed(AdamW, Adam) == 0.95
END
