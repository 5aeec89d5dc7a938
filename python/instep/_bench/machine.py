"""Where a measurement was made."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instep import _core
from instep._bench.peers.base import Peer

_CACHES = "/sys/devices/system/cpu/cpu0/cache"


def available_bytes() -> float:
    """Return the memory that is free for use; infinity where the system does not tell."""
    kilobytes = _fields("/proc/meminfo").get("MemAvailable", "").partition(" ")[0]
    return int(kilobytes) * 1024 if kilobytes else float("inf")


def processors() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> list[float] | None:
    """Return the load averages of 1, 5 and 15 minutes."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def describe(peers: Mapping[str, Peer]) -> dict[str, Any]:
    """Return everything known about the machine, and the versions of what runs on it."""
    return {
        "cpu": _fields("/proc/cpuinfo").get("model name") or platform.processor(),
        "architecture": platform.machine(),
        "processors": processors(),
        "caches": _caches(),
        "memory": _fields("/proc/meminfo").get("MemTotal"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instep": dict(_core.build_info()),
        "peers": {name: peer.version for name, peer in peers.items()},
        "load": load(),
    }


def summary(machine: Mapping[str, Any]) -> str:
    """Return what a reader of a table has to know, in two lines."""
    instep = machine["instep"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    load = machine["load_before"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["peers"].items())
    return (
        f"{machine['cpu'] or machine['architecture']}, processors: {machine['processors']}"
        f"{f', load before: {load[0]:.1f}' if load else ''}"
        f"{', ' if caches else ''}{caches}; Python {machine['python']}\n"
        f"instep {instep['version']} ({instep['isa']}, {instep['compiler']})"
        f"{'; ' if versions else ''}{versions}"
    )


def _fields(path: str) -> dict[str, str]:
    """Return what a file says in lines such as "name : value", each name's first value."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":") for line in reversed(lines)]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _caches() -> dict[str, str]:
    sizes = {}
    for index in sorted(Path(_CACHES).glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            sizes[f"L{level}"] = size
    return sizes
