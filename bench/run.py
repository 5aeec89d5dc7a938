"""Measure what the README shows, and write bench/results: python bench/run.py [--quick].

Any options of `python -m instep bench` but --model, --sizes, --cold, --plot and --json can be
given. What is there is replaced only by a run that came to its end.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from instep._cli import main

RESULTS = Path(__file__).parent / "results"
OURS = ("--model", "--sizes", "--cold", "--plot", "--json")


def run(options: list[str]) -> int:
    """Write tables of the default models and pictures over sizes, with samples, warm and cold."""
    if taken := [option for option in options if option.startswith(OURS)]:
        print(f"{taken[0]}: expected other options than {', '.join(OURS)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as directory:
        new = Path(directory)
        for kind, cold in (("", []), ("-cold", ["--cold"])):
            table, samples = new / f"table{kind}.txt", new / f"table{kind}.json"
            with table.open("w", encoding="utf-8") as out, redirect_stdout(out):
                status = main(["bench", "--json", str(samples), *cold, *options])
            print(table.read_text(encoding="utf-8"))
            plot, samples = new / f"sizes{kind}.png", new / f"sizes{kind}.json"
            command = ["bench", "--plot", str(plot), "--json", str(samples)]
            if status := status or main([*command, *cold, *options]):
                return status
        for file in new.iterdir():
            file.replace(RESULTS / file.name)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
