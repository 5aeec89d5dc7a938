"""Measure a step with each rule, and write bench/results/rules.json: python bench/rules.py.

Rules are measured one after another, on one array and one thread. Those for matrices and rows are
left out.
"""

import json
import sys
from pathlib import Path

from instep._bench.case import RULES
from instep._cli import main

FILE = Path(__file__).parent / "results" / "rules.json"
LEFT_OUT = ("Muon", "RowwiseAdagrad")


def run() -> int:
    """Write the samples, in one line."""
    names = [name for name in RULES if name not in LEFT_OUT]
    sizes = ("1000", "2^16", "2^24")
    options = ["--threads", "1", "--seconds", "1", "--peers", "--json", str(FILE)]
    status = main(["bench", "--rules", *names, "--sizes", *sizes, *options])
    if not status:
        FILE.write_text(json.dumps(json.loads(FILE.read_text(encoding="utf-8"))), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(run())
