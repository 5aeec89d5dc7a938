"""Write what is made from the code, the frameworks' recorded paths and the benchmark's samples.

These are README's tables of rules and of speed, the tables of docs/conventions.md, how many rules
and paths there are, and the frameworks' versions. ``python tools/regenerate.py`` writes, with
``--check`` it only tells what is not as it would be. It asks the instep that is installed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import instep
from instep import _array_rules, _rules, _table
from instep._bench import machine, markdown, samples
from instep._rule import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {
    "keras": ("Keras", "keras"),
    "torch": ("PyTorch", "torch"),
    "optax": ("Optax", "optax"),
    "tfjs": ("TensorFlow.js", "@tensorflow/tfjs"),
}
"""What the pages call a framework, and under which name its paths have its version."""
NOTES = {"SGD": "(momentum, dampening, Nesterov)", "Adam": "(`amsgrad=True`: AMSGrad)"}
"""What README says of a rule behind its name."""


def rules() -> list[type[instep.Optimizer]]:
    """Return all rules, in the order of their modules."""
    return [
        each
        for module in (_rules, _array_rules)
        for each in (getattr(module, name) for name in vars(module)["__all__"])
    ]


def readme(text: str) -> str:
    """Put the rules into README, how many there are and which, and how long their steps take."""
    named = ("Adam", "RMSprop", "Adagrad", "Adadelta", "SGD")
    more = len(rules()) - len(named)
    text = replaced(text, r"(?<=momentum and )\d+(?=\nmore rules)", str(more))
    count = sum(len(paths(framework)["cases"]) for framework in FRAMEWORKS)
    text = with_versions(replaced(text, r"(?<=in )\d+(?= configurations)", str(count)))
    rows = ["| | classes |", "| --- | --- |"]
    for family in FAMILIES:
        classes = [each.__name__ for each in rules() if each._family == family]
        cells = [f"`{name}` {NOTES.get(name, '')}".strip() for name in classes]
        rows.append(f"| {family} | {', '.join(cells)} |")
    text = replaced(text, r"\| \| classes \|(\n\|.*)+", "\n".join(rows))
    return replaced(text, r"(?s)(?<=`limit` included\.\n\n).*?(?=\n\nTwo threads )", speed())


def speed() -> str:
    """Return the tables of what `bench/run.py` measured, warm before cold, and of what with."""
    files = (ROOT / "bench" / "results").glob("table*.json")
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    documents.sort(key=lambda document: document["arguments"]["cold"])
    results = [result for document in documents for result in samples.results(document)]
    where = documents[0]["machine"]
    return f"{markdown.tables(results, machine.name(where))}\n\n{machine.summary(where)}."


def conventions(text: str) -> str:
    """Put the table of conventions into its page."""
    text = with_versions(text)
    return replaced(text, r"(?s)### SGD\n.*(?=\n\n## Around the rule\n)", _table.markdown())


def replaced(text: str, pattern: str, new: str) -> str:
    """Replace the one place where a text matches a pattern."""
    text, count = re.subn(pattern, lambda _: new, text)
    if count != 1:
        raise ValueError(f"expected one place like {pattern!r}, found {count}")
    return text


def with_versions(text: str) -> str:
    """Put the versions of the frameworks into a page."""
    for framework, (name, package) in FRAMEWORKS.items():
        version = paths(framework)["versions"][package].partition("+")[0]
        text = replaced(text, rf"(?<=\b{re.escape(name)} )\d+\.\d+\.\d+", version)
    return text


def paths(framework: str) -> Any:
    """Return what a framework's recorded paths are of: versions and cases."""
    with np.load(ROOT / "tests" / "trajectories" / f"{framework}.npz") as stored:
        return json.loads(str(stored["cases"]))


PAGES: dict[str, Callable[[str], str]] = {"README.md": readme, "docs/conventions.md": conventions}


def main() -> None:
    """Write the pages, or fail where one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where it would")
    check = parser.parse_args().check
    stale = []
    for page, make in PAGES.items():
        file = ROOT / page
        text = file.read_text(encoding="utf-8")
        if (new := make(text)) != text:
            stale.append(page)
            if not check:
                file.write_text(new, encoding="utf-8")
    for page in stale:
        print(f"{page}: {'stale; run tools/regenerate.py' if check else 'written'}")
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
