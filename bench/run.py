"""Measure what the README shows, and write bench/results: python bench/run.py [--quick].

Any options of `python -m instep bench` but --model, --sizes, --plot and --json can be given. What
is there is replaced only by a run that came to its end.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from instep._cli import main

RESULTS = Path(__file__).parent / "results"
OURS = ("--model", "--sizes", "--plot", "--json")


def run(options: list[str]) -> int:
    """Write the table of the default models with its samples, then the roofline with its own."""
    if taken := [option for option in options if option.startswith(OURS)]:
        print(f"{taken[0]}: expected other options than {', '.join(OURS)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as directory:
        new = Path(directory)
        with (new / "table.txt").open("w", encoding="utf-8") as table, redirect_stdout(table):
            status = main(["bench", "--json", str(new / "raw.json"), *options])
        print((new / "table.txt").read_text(encoding="utf-8"))
        plot, samples = str(new / "roofline.png"), str(new / "roofline.json")
        status = status or main(["bench", "--plot", plot, "--json", samples, *options])
        if status == 0:
            for file in new.iterdir():
                file.replace(RESULTS / file.name)
    return status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
