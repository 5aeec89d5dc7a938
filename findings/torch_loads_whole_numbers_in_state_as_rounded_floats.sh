#!/usr/bin/env bash
# One would guess that state comes back from `state_dict` as it went: an optimizer that keeps codes
# of 8 or 16 bits, or what rounding leaves out of bfloat16 parameters, has them again.
# Of parameters of floating-point numbers, load_state_dict converts every tensor of state but "step"
# to the parameter's dtype, whole numbers among them: 257 becomes 256 in bfloat16, and bits are bits
# no more. Nothing tells. An optimizer with such state has to load it by itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/bin/python" - <<'END'
import torch

CODES = [257, -3, 32767]


class Coded(torch.optim.Optimizer):
    """Keeps numbers of 16 bits for each parameter."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self):
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["codes"] = torch.tensor(CODES, dtype=torch.int16)


print(f"torch {torch.__version__}: codes {CODES} in int16, after load_state_dict")
found = {}
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    param = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    before, after = Coded([param]), Coded([param])
    before.step()
    after.load_state_dict(before.state_dict())
    codes = after.state[param]["codes"]
    print(f"with {dtype} parameters: {codes.dtype}, {codes.tolist()}")
    assert codes.dtype is dtype
    found[dtype] = codes.tolist()
assert found[torch.float32] == CODES
assert found[torch.bfloat16] == [256, -3, 32768]
assert found[torch.float16] == [257, -3, 32768]
END
