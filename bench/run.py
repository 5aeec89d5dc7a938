"""Measure what the README shows, and write bench/results: python bench/run.py [--quick].

Any options of `python -m instep bench` but --model, --sizes, --cold, --plot and --json can be
given. What is there is replaced only by a run that came to its end.
"""

import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from instep._bench import samples
from instep._bench.plot import draw
from instep._bench.workloads import sweep
from instep._cli import main

RESULTS = Path(__file__).parent / "results"
OURS = ("--model", "--sizes", "--cold", "--plot", "--json")


def run(options: list[str]) -> int:
    """Write tables of the default models and a picture over sizes, with samples, warm and cold."""
    if taken := [option for option in options if option.startswith(OURS)]:
        print(f"{taken[0]}: expected other options than {', '.join(OURS)}", file=sys.stderr)
        return 2
    sizes = [each.name for each in sweep(per_decade=1 if "--quick" in options else 2)]
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as directory:
        new = Path(directory)
        over_sizes = []
        for kind, cold in (("", []), ("-cold", ["--cold"])):
            for name, workloads in (("table", []), ("sizes", ["--sizes", *sizes])):
                text, file = (new / f"{name}{kind}.{suffix}" for suffix in ("txt", "json"))
                command = ["bench", *cold, *workloads, "--json", str(file), *options]
                with text.open("w", encoding="utf-8") as out, redirect_stdout(out):
                    status = main(command)
                print(text.read_text(encoding="utf-8"))
                if status:
                    return status
            over_sizes.append(json.loads((new / f"sizes{kind}.json").read_text(encoding="utf-8")))
        results = [result for each in over_sizes for result in samples.results(each)]
        draw(results, over_sizes[0]["machine"], new / "sizes.png")
        for made in new.iterdir():
            made.replace(RESULTS / made.name)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
