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

_PROCESSORS = Path("/sys/devices/system/cpu")


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


def last_level_bytes() -> int:
    """Return the size of the last level of all caches; 0 where the system does not tell."""
    sizes: dict[str, int] = {}
    for processor in _PROCESSORS.glob("cpu[0-9]*"):
        if levels := _levels(processor):
            last = levels[-1]
            sizes[last["shared_cpu_list"]] = int(last["size"].removesuffix("K")) * 1024
    return sum(sizes.values())


def describe(peers: Mapping[str, Peer]) -> dict[str, Any]:
    """Return everything known about the machine, and the versions of what runs on it."""
    return {
        "cpu": _fields("/proc/cpuinfo").get("model name") or platform.processor(),
        "architecture": platform.machine(),
        "processors": processors(),
        "caches": {f"L{each['level']}": each["size"] for each in _levels(_PROCESSORS / "cpu0")},
        "memory": _fields("/proc/meminfo").get("MemTotal"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instep": dict(_core.build_info()),
        "peers": {name: peer.version for name, peer in peers.items()},
        "load": load(),
    }


def name(machine: Mapping[str, Any]) -> str:
    """Return the processor's name, and how many there are."""
    return f"{machine['cpu'] or machine['architecture']}, processors: {machine['processors']}"


def summary(machine: Mapping[str, Any]) -> str:
    """Return what a reader of a table has to know, in two lines."""
    instep = machine["instep"]
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    load = machine["load_before"]
    versions = ", ".join(f"{peer} {version}" for peer, version in machine["peers"].items())
    return (
        f"{name(machine)}"
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


def _levels(processor: Path) -> list[dict[str, str]]:
    """Return what the system tells of a processor's caches of data, the nearest first."""
    names = ("level", "type", "size", "shared_cpu_list")
    levels = []
    for index in processor.glob("cache/index*"):
        try:
            levels.append({name: (index / name).read_text().strip() for name in names})
        except OSError:
            continue
    data = [each for each in levels if each["type"] != "Instruction"]
    return sorted(data, key=lambda each: int(each["level"]))
