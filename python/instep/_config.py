"""Threads, and what this build and process use."""

from __future__ import annotations

import platform

import numpy as np

from instep import _core
from instep._kinds import WholeNumber

__version__: str = _core.build_info()["version"]


def set_num_threads(n: int) -> None:
    """Set the most threads that a step uses; results do not depend on it.

    Parameters
    ----------
    n : int
        From 1 to 1024.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    _core.set_num_threads(WholeNumber(at_least=1, at_most=1024).check("n", n))


def get_num_threads() -> int:
    """Return the most threads that a step uses.

    It is what `set_num_threads` set, else the environment variable INSTEP_NUM_THREADS, else
    OMP_NUM_THREADS, else the number of processors that this process may run on.
    """
    return _core.num_threads()


def show_config() -> None:
    """Print version, compiler, instruction sets built and chosen, threads, NumPy."""
    info = _core.build_info()
    threading = info["threading"] if info["threading"] != "none" else "no OpenMP: one thread"
    rows = {
        "instep": info["version"],
        "compiler": info["compiler"],
        "instruction sets": f"{', '.join(info['isa_built'])}; {info['isa']} in use",
        "threads": f"{get_num_threads()} ({threading})",
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
    for name, value in rows.items():
        print(f"{name:<17} {value}")
