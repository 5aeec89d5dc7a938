"""What a step on the CPU takes for parameters in bfloat16 on an accelerator, which the CPU plays.

``python bench/offloaded.py`` prints a table: from bfloat16 gradients to new bfloat16 parameters, in
microseconds, medians in turns in one process. It needs PyTorch and ml_dtypes; where DeepSpeed is
installed, its CPUAdam stands beside.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import instep
import instep.torch

SIZES = {"mlp": [784 * 128, 128, 128 * 10, 10], "2^24": [2**20] * 16}
OTHER_MEMORY = np.zeros(2**23)
Step = Callable[[], Any]


def offloaded(params: list[Any]) -> Step:
    opt: Any = instep.torch.Offloaded(params, instep.AdamW, lr=1e-3)
    return opt.step  # type: ignore[no-any-return]


def copies_alone(params: list[Any]) -> Step:
    """What `offloaded` is around: nothing travels."""
    masters = [p.detach().float().numpy() for p in params]
    opt = instep.AdamW(masters, learning_rate=1e-3, copies="bfloat16")
    return lambda: opt.step([p.grad for p in params])


def remainder(params: list[Any]) -> Step:
    """Parameters on the CPU themselves, no masters."""
    opt: Any = instep.torch.AdamW(params, lr=1e-3)
    return opt.step  # type: ignore[no-any-return]


def with_masters(make: Callable[[list[Any]], Any], params: list[Any]) -> Step:
    """Masters of another optimizer, before and after which everything is converted."""
    masters = [torch.nn.Parameter(p.detach().float()) for p in params]
    for master in masters:
        master.grad = torch.empty_like(master)
    opt = make(masters)

    def step() -> None:
        for p, master in zip(params, masters, strict=True):
            master.grad.copy_(p.grad)
        opt.step()
        with torch.no_grad():
            for p, master in zip(params, masters, strict=True):
                p.copy_(master)

    return step


def fused(params: list[Any]) -> Step:
    return with_masters(lambda m: torch.optim.AdamW(m, lr=1e-3, fused=True), params)


def deepspeed(params: list[Any]) -> Step:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return with_masters(lambda m: DeepSpeedCPUAdam(m, lr=1e-3, adamw_mode=True), params)


WAYS: dict[str, Callable[[list[Any]], Step]] = {
    "instep.torch.Offloaded": offloaded,
    "instep.AdamW, copies": copies_alone,
    "instep.torch.AdamW, remainder": remainder,
    "torch AdamW(fused), masters": fused,
    "DeepSpeedCPUAdam, masters": deepspeed,
}


def parameters(sizes: list[int]) -> list[Any]:
    """Return bfloat16 parameters with gradients."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(size).bfloat16()) for size in sizes]
    for p in params:
        p.grad = torch.randn(p.shape).bfloat16()
    return params


def medians(steps: dict[str, Step], repeats: int, *, cold: bool) -> dict[str, float]:
    """Return the median time of each in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(repeats + 3):
        for name, step in steps.items():
            if cold:
                OTHER_MEMORY.__iadd__(1.0)
            else:
                step()
            start = time.perf_counter()
            step()
            if k >= 3:
                times[name].append(1e6 * (time.perf_counter() - start))
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=23)
    repeats = parser.parse_args().repeats
    print(
        "| | " + " | ".join(f"{size}, {how}" for size in SIZES for how in ("warm", "cold")) + " |"
    )
    rows: dict[str, list[str]] = {name: [] for name in WAYS}
    for sizes in SIZES.values():
        steps = {}
        for name, make in WAYS.items():
            try:
                steps[name] = make(parameters(sizes))
            except ImportError:
                print(f"{name}: not installed")
        for cold in (False, True):
            found = medians(steps, repeats, cold=cold)
            for name, row in rows.items():
                row.append(f"{found[name]:,.0f}" if name in found else "-")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
