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
    """Print version, compiler, instruction sets built and chosen, threads, NumPy.

    And how far ahead steps fetch memory into the cache, as far as the steps of this process have
    found out: that is chosen by measurement, and changes no number.
    """
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
    rows["fetching ahead"], *more = _fetching_ahead(_core.prefetch())
    for name, value in rows.items():
        print(f"{name:<17} {value}")
    for line in more:
        print(f"{'':<17} {line}")


def _fetching_ahead(prefetch: _core.Prefetch) -> list[str]:
    """Describe what is set, or was found out."""
    if prefetch["setting"] is not None:
        return [f"{prefetch['setting']} bytes (INSTEP_PREFETCH)"]
    if not prefetch["findings"]:
        return ["not measured yet; steps of 64 KB and more find out"]
    return [_description(finding) for finding in prefetch["findings"]]


def _description(finding: _core.PrefetchFinding) -> str:
    speeds = {distance: 1e-9 / seconds for distance, seconds in finding["seconds_per_byte"].items()}
    arrays = "small arrays" if finding["small_arrays"] else "arrays"
    threads = "several threads" if finding["several_threads"] else "one thread"
    listed = ", ".join(f"{distance}: {speed:.3g}" for distance, speed in speeds.items())
    return (
        f"{finding['chosen']} bytes for {arrays} of {finding['precision']}, {finding['streams']} "
        f"at a time, from {finding['least_bytes'] >> 10} KB on, {threads} (GB/s by bytes: {listed})"
    )
