"""The wheel on a processor without AVX: it imports, it says so, and it computes the same bits.

Needs qemu-x86_64, and the tests' workloads, from which it takes a few.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
NEHALEM = ["qemu-x86_64", "-cpu", "Nehalem"]  # NumPy itself needs x86-64-v2
SIZES = [0, 1, 3, 7, 33, 130, 1025]


def hashes() -> dict[str, dict[str, str]]:
    """Return the hashes of one configuration of each rule in each dtype."""
    import workloads

    workloads.TAILS = SIZES
    workloads.SIZES = [*SIZES, 16385]
    chosen = [case for case in workloads.CASES if case.configuration == {} and case.rule != "Muon"]
    return {str(case): case.train("contiguous") for case in chosen}


def run(command: list[str], *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this Python by a command in front of it."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "INSTEP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, sys.executable, *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def main() -> None:
    """Compare this processor with an old one."""
    config = run(NEHALEM, "-m", "instep")
    assert "baseline in use" in config.stdout, config
    print(config.stdout)
    refused = run(NEHALEM, "-c", "import instep", INSTEP_ISA="avx2")
    message = "ImportError: INSTEP_ISA=avx2: this processor does not have these instructions"
    assert refused.returncode == 1, refused
    assert refused.stderr.strip().endswith(message), refused
    old, new = (run(command, __file__, "hashes") for command in (NEHALEM, []))
    assert old.returncode == new.returncode == 0, old.stderr + new.stderr
    expected = json.loads(new.stdout)
    assert expected
    differing = [case for case, given in json.loads(old.stdout).items() if given != expected[case]]
    assert not differing, differing
    print(f"the same bits in {len(expected)} cases")


if __name__ == "__main__":
    if sys.argv[1:] == ["hashes"]:
        print(json.dumps(hashes()))
    else:
        main()
