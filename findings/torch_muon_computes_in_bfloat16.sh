#!/usr/bin/env bash
# One would guess that torch.optim.Muon moves float64 parameters by float64 updates.
# It converts the gradient to bfloat16 before it makes it orthogonal, whatever its dtype is: every
# update has the 8 significant bits of bfloat16, and is about a percent from the same five
# iterations in float64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/bin/python" - <<'END'
import torch

torch.manual_seed(0)
param = torch.nn.Parameter(torch.zeros(20, 30, dtype=torch.float64))
param.grad = torch.randn(20, 30, dtype=torch.float64)
a, b, c = 3.4445, -4.7750, 2.0315
torch.optim.Muon([param], lr=1.0, weight_decay=0, ns_coefficients=(a, b, c), ns_steps=5).step()
update = -param.detach()

exact = param.grad / param.grad.norm()
for _ in range(5):
    gram = exact @ exact.T
    exact = a * exact + (b * gram + c * gram @ gram) @ exact

print(f"torch {torch.__version__}: Muon on {param.dtype}")
short = torch.equal(update, update.bfloat16().double())
print("every update is a number of bfloat16:", short)
difference = float((update - exact).norm() / exact.norm())
print(f"from the iterations in float64: {difference:.1e}")
assert update.dtype == torch.float64 and short
assert 1e-3 < difference < 1e-1
END
