"""Measure what the README shows, and write bench/results: python bench/run.py [--quick].

Any options of `python -m instep bench` but --model, --sizes, --plot and --json can be given.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from instep._cli import main

RESULTS = Path(__file__).parent / "results"


def run(options: list[str]) -> int:
    """Write the table of the default models with its samples, then the roofline with its own."""
    RESULTS.mkdir(exist_ok=True)
    raw, roofline = RESULTS / "raw.json", RESULTS / "roofline.png"
    with (RESULTS / "table.txt").open("w", encoding="utf-8") as table, redirect_stdout(table):
        status = main(["bench", "--json", str(raw), *options])
    print((RESULTS / "table.txt").read_text(encoding="utf-8"))
    samples = roofline.with_suffix(".json")
    return status or main(["bench", "--plot", str(roofline), "--json", str(samples), *options])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
