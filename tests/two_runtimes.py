"""Steps beside a library that brings an OpenMP runtime of its own.

Run as a script: two_runtimes.py FIRST SECOND, which are imported in this order. Without pytest and
the modules beside it, which would import something before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np


def cluster() -> float:
    from sklearn.cluster import KMeans

    points = np.random.default_rng(0).normal(size=(20_000, 4))
    means = KMeans(3, n_init=1, algorithm="lloyd", random_state=0).fit(points)
    return float(means.inertia_)


def exponentials() -> float:
    import torch

    return float(torch.ones(1 << 20, dtype=torch.float64).exp().mean())


OTHERS: dict[str, tuple[str, Callable[[], float]]] = {
    "sklearn": ("sklearn.cluster", cluster),
    "torch": ("torch", exponentials),
}


def train() -> bytes:
    import instep

    p = np.ones(1 << 20, np.float32)
    opt = instep.Adam(p)
    for t in range(5):
        opt.step(np.full(p.shape, 0.25 * t, np.float32))
    return p.tobytes()


def main(names: list[str]) -> None:
    for name in names:
        import_module(OTHERS.get(name, (name,))[0])
    import threadpoolctl

    import instep

    [use] = (OTHERS[name][1] for name in names if name in OTHERS)

    def other() -> float:
        return round(use(), 6)  # its sums depend on its threads

    instep.set_num_threads(1)
    expected = train(), other()
    instep.set_num_threads(2)
    assert (train(), other()) == expected
    with ThreadPoolExecutor(4) as pool:
        trained = [pool.submit(train) for _ in range(4)]
        used = [pool.submit(other) for _ in range(4)]
        assert {done.result() for done in trained} == {expected[0]}
        assert {done.result() for done in used} == {expected[1]}
    with threadpoolctl.threadpool_limits(1):
        assert instep.get_num_threads() == 1
        assert (train(), other()) == expected
    assert instep.get_num_threads() == 2
    child = os.fork()
    if not child:
        os._exit(train() != expected[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (train(), other()) == expected
    for pool_ in threadpoolctl.threadpool_info():
        if pool_["user_api"] == "openmp":
            print(pool_["filepath"])


if __name__ == "__main__":
    main(sys.argv[1:])
