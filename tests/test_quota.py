"""The limit that control groups set to a process's time on processors, from files made up here.

`_core.processor_quota(cgroup, mountinfo, root)` reads /proc/self/cgroup and /proc/self/mountinfo as
given, and the groups' files below `root`. It returns processors, rounded up, or None for no limit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import instep

core: Any = instep._core

V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_SET = "34 30 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"


def v1(quota: int, period: int = 100_000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


def v2(quota: object, period: int = 100_000) -> dict[str, str]:
    return {"cpu.max": f"{quota} {period}\n"}


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "groups", "expected"),
    [
        ("0::/", V2, {}, None),
        ("0::/", V2, {"": v2("max")}, None),
        ("0::/", V2, {"": v2(200_000)}, 2),
        ("0::/", V2, {"": v2(150_000)}, 2),
        ("0::/", V2, {"": v2(200_001)}, 3),
        ("0::/", V2, {"": v2(1_000)}, 1),
        ("0::/", V2, {"": v2(100_000, 50_000)}, 2),
        ("0::/", V2, {"": {"cpu.max": "300000\n"}}, 3),
        ("0::/", V2, {"": {"cpu.max": ""}}, None),
        ("0::/", V2, {"": {"cpu.max": "many of them\n"}}, None),
        ("0::/", V2, {"": v2(100_000, 0)}, None),
        # The tightest of a group and those around it holds; some have no file.
        ("0::/a/b", V2, {"a": v2(100_000), "a/b": v2("max")}, 1),
        ("0::/a/b", V2, {"a": v2(400_000), "a/b": v2(300_000)}, 3),
        ("0::/a/b/c", V2, {"a": v2(200_000), "a/b/c": {}}, 2),
        ("0::/a", V2, {"a": v2(300_000), "a/b": v2(100_000), "b": v2(100_000)}, 3),
        ("0::/a:b", V2, {"a:b": v2(300_000)}, 3),
        # Containers: the mount shows a part of the tree, from the process's group or one around it.
        ("0::/pod/x", V2.replace(" / ", " /pod/x ", 1), {"": v2(300_000)}, 3),
        ("0::/pod/x/y", V2.replace(" / ", " /pod/x ", 1), {"": v2(300_000), "y": v2(200_000)}, 2),
        ("0::/pod/xy", V2.replace(" / ", " /pod/x ", 1), {"y": v2(200_000)}, None),
        ("0::/pod/x", V2, {"": v2(300_000)}, 3),  # the path is that outside of the container
        ("0::/", V2.replace(" / ", " /pod/x ", 1), {"": v2(300_000)}, 3),
        ("0::/../x", V2, {"": v2(100_000), "../x": v2(100_000)}, None),  # outside of what is shown
        # What else there may be in /proc/self/mountinfo.
        ("0::/", V2.replace("-", "master:1 shared:7 -", 1), {"": v2(300_000)}, 3),
        ("0::/", V2.replace("/fs/", r"/f\040s/"), {"": v2(300_000)}, 3),
        ("0::/", "21 1 0:4 net:[4026531840] /run/x rw - nsfs nsfs rw\n" + V2, {"": v2(300_000)}, 3),
        ("0::/", "nonsense\n\n1 2 - \n" + V2, {"": v2(300_000)}, 3),
        ("", V2, {"": v2(300_000)}, None),
        ("0::/", "", {"": v2(300_000)}, None),
        # Version 1, alone and beside a version 2 without the controller.
        ("4:cpu,cpuacct:/", V1, {"": v1(250_000)}, 3),
        ("4:cpu,cpuacct:/", V1, {"": v1(-1)}, None),
        ("4:cpu,cpuacct:/", V1, {"": v1(100_000, 0)}, None),
        ("4:cpu,cpuacct:/", V1, {"": {"cpu.cfs_quota_us": "100000\n"}}, None),
        ("4:cpu,cpuacct:/a/b", V1, {"": v1(-1), "a": v1(200_000), "a/b": v1(-1)}, 2),
        ("4:cpuacct,cpu:/d/x", V1.replace(" / ", " /d/x ", 1), {"": v1(200_000)}, 2),
        ("3:cpuset:/a", V1_SET, {"a": v1(100_000)}, None),
        ("3:cpuset:/b\n4:cpu,cpuacct:/a\n0::/c", f"{V1_SET}\n{V1}", {"a": v1(200_000)}, 2),
    ],
)
def test_quota(
    cgroup: str,
    mountinfo: str,
    groups: dict[str, dict[str, str]],
    expected: int | None,
    tmp_path: Path,
) -> None:
    place = next((p for p in mountinfo.split() if p.startswith("/sys")), "/sys").replace(
        r"\040", " "
    )
    if "cpu,cpuacct" in mountinfo:
        place = "/sys/fs/cgroup/cpu,cpuacct"
    for group, files in groups.items():
        folder = tmp_path / place.lstrip("/") / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    assert core.processor_quota(cgroup, mountinfo, str(tmp_path)) == expected
