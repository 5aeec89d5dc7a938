#!/usr/bin/env bash
# One would guess that Adam on bfloat16 parameters is Adam with fewer digits: its average of squared
# gradients, which keeps 0.999 of itself in each step, halves in 693 steps without gradients.
# It never falls. PyTorch keeps that average in the parameter's dtype, whose numbers lie 0.4% to
# 0.8% of themselves apart: 0.999 of one of them is nearest to that one itself. What the first steps
# have seen stays for ever, with all three implementations; later gradients, a thousand times
# smaller, make steps more than a hundred times too short.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy

"$work/venv/bin/python" - <<'END'
import torch


def trained(dtype: torch.dtype, **kind: bool) -> tuple[float, float, float]:
    """Return the average of squares before and after small gradients, and the last step's length."""
    param = torch.zeros(1000, dtype=dtype)
    opt = torch.optim.Adam([param], lr=1e-3, **kind)

    def step(gradient: float) -> None:
        param.grad = torch.full_like(param, gradient)
        opt.step()

    for _ in range(20):
        step(1.0)
    before = opt.state[param]["exp_avg_sq"].mean().item()
    for _ in range(20_000):
        step(1e-3)
    after = opt.state[param]["exp_avg_sq"].mean().item()
    average, count = opt.state[param]["exp_avg"].mean().item(), opt.state[param]["step"].item()
    length = 1e-3 * average / ((after / (1 - 0.999**count)) ** 0.5 + 1e-8)
    return before, after, length


print(f"torch {torch.__version__}: 20 gradients of 1, then 20,000 of 0.001")
for kind in ({"foreach": False}, {"foreach": True}, {"fused": True}):
    exact, rounded = trained(torch.float32, **kind), trained(torch.bfloat16, **kind)
    print(kind, "average of squares before and after, length of the last step")
    print("  float32 ", *exact)
    print("  bfloat16", *rounded)
    assert abs(exact[1] / 1e-6 - 1) < 0.01
    assert rounded[1] == rounded[0]
    assert rounded[2] < exact[2] / 100
END
