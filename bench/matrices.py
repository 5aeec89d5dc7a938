"""Measure a step on matrices, warm and in turns: python bench/matrices.py.

Of rules that see more than one element at a time, beside Adam; on one thread, or on as many as
``--threads`` says. Muon's products of matrices are NumPy's. It needs threadpoolctl.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

import instep

RULES = ("Adam", "Adafactor", "SM3", "Lars", "Lamb", "Muon")
SHAPES = ((768, 3072), (512, 1024))
ROUNDS, STEPS = 15, 10


def measure(shape: tuple[int, int]) -> dict[str, float]:
    """Return the median time of a step with each rule, in milliseconds."""
    grad = np.random.default_rng(0).standard_normal(shape, dtype=np.float32) * np.float32(0.01)
    opts = {rule: getattr(instep, rule)(np.ones(shape, np.float32)) for rule in RULES}
    times: dict[str, list[float]] = {rule: [] for rule in RULES}
    for _ in range(ROUNDS):
        for rule, opt in opts.items():
            steps = 1 if rule == "Muon" else STEPS
            opt.step(grad)
            start = time.perf_counter()
            for _ in range(steps):
                opt.step(grad)
            times[rule].append(1e3 * (time.perf_counter() - start) / steps)
    return {rule: statistics.median(each) for rule, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    instep.set_num_threads(threads)
    print(f"| ms | {' | '.join(RULES)} |\n| --- |{' ---: |' * len(RULES)}")
    with threadpool_limits(threads):
        for shape in SHAPES:
            cells = [f"{value:.3g}" for value in measure(shape).values()]
            print(f"| {shape[0]:,} x {shape[1]:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
