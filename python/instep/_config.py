"""Threads, and what this build and process use."""

from __future__ import annotations

import platform

import numpy as np

from instep import _core
from instep._formats import STATE_DTYPES
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

    And what the steps of this process have found out about how to work fastest: how far ahead
    memory is fetched into the cache, for example. It changes no number.
    """
    for name, lines in config().items():
        for k, line in enumerate(lines):
            print(f"{'' if k else name:<17} {line}")


def config() -> dict[str, list[str]]:
    """Return what `show_config` prints: lines by name."""
    info = _core.build_info()
    threading = info["threading"] if info["threading"] != "none" else "no OpenMP: one thread"
    rows = {
        "instep": info["version"],
        "compiler": info["compiler"],
        "instruction sets": f"{', '.join(info['isa_built'])}; {info['isa']} in use",
        "formats": f"{', '.join(_core.formats)}; state also {', '.join(STATE_DTYPES[1:])}",
        "threads": f"{get_num_threads()} ({threading})",
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
    return {
        **{name: [value] for name, value in rows.items()},
        "tuning": _tuning(_core.tuning()),
    }


def _tuning(tuning: _core.Tuning) -> list[str]:
    """Describe what is set, or was found out."""
    lines = []
    if tuning["prefetch"] is not None:
        lines.append(f"{_distance(tuning['prefetch'])} (INSTEP_PREFETCH)")
    lines += map(_finding, tuning["findings"])
    return lines or ["nothing measured yet; steps find out"]


def _finding(finding: _core.Finding) -> str:
    arrays = "small arrays" if finding["small_arrays"] else "arrays"
    watched = ", watched" if finding["watched"] else ""
    threads = "several threads" if finding["several_threads"] else "one thread"
    speeds = ", ".join(
        f"{_manner(manner)} {1e-9 / manner['seconds_per_byte']:.3g}"
        for manner in finding["manners"]
    )
    return (
        f"{arrays} of {finding['precision']}, {finding['streams']} at a time, from "
        f"{finding['least_bytes'] >> 10} KB on{watched}, {threads}: "
        f"{_manner(finding['manners'][finding['chosen']])} (GB/s: {speeds})"
    )


def _manner(manner: _core.Manner) -> str:
    roots = "" if manner["half_of_roots"] else " with a quarter of the roots off the divider"
    return _distance(manner["prefetch"]) + roots


def _distance(prefetch: int) -> str:
    return f"{prefetch} bytes ahead" if prefetch else "nothing ahead"
