"""What a report of a bug has to tell, to be pasted into it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from instep import _config
from instep._bench import machine

_MAPS = Path("/proc/self/maps")
_RUNTIME = re.compile(r"/(lib(?:gomp|i?omp|vcomp)[^/\n]*)$", re.MULTILINE)
_VARIABLES = ("INSTEP_", "OMP_")


def markdown() -> str:
    """Return it as a list in Markdown, without names of persons, machines or folders."""
    here = machine.describe({})
    rows = {
        **{name: "; ".join(lines) for name, lines in _config.config().items()},
        "processor": machine.name(here),
        "caches": ", ".join(f"{level} {size}" for level, size in here["caches"].items()),
        "memory": here["memory"],
        "platform": here["platform"],
        "OpenMP": ", ".join(_runtimes()),
        "environment": ", ".join(_environment()),
        "NumPy was built with": _numpy(),
    }
    return "\n".join(f"- **{name}**: {value or 'none'}" for name, value in rows.items())


def _runtimes() -> list[str]:
    """Return the files of the OpenMP runtimes in this process, where the system tells them."""
    return sorted({*_RUNTIME.findall(_MAPS.read_text())}) if _MAPS.exists() else []


def _environment() -> list[str]:
    """Return the variables that say how to work."""
    home = os.path.expanduser("~")
    return [
        f"`{name}={value.replace(home, '~')}`"
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES)
    ]


def _numpy() -> str:
    """Return its BLAS and the instructions that it uses."""
    known: Any = np.show_config(mode="dicts")
    blas = known["Build Dependencies"]["blas"]
    simd = known["SIMD Extensions"]
    return f"{blas['name']} {blas['version']}; {', '.join(simd['baseline'] + simd['found'])}"
