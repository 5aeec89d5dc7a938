"""Write what is made from the code, the frameworks' recorded paths and the benchmark's samples.

These are README's tables of rules and of speed, the tables of docs/conventions.md, how many rules
and paths there are, the frameworks' versions, and the kernels' signatures for type checkers.
``python tools/regenerate.py`` writes, with ``--check`` it only tells what is not as it would be. It
asks the instep that is installed.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import instep
from instep import _array_rules, _rules, _table, kernels
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
OTHERS = {"step": "int", "convention": "Convention", "rows": "ArrayLike"}
"""What it takes for others than arrays."""
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
    letters = r"(?s)(?<=otherwise:\n\n)- `g`.*?(?=\n\nA learning rate)"
    text = replaced(with_versions(text), letters, _table.letters())
    return replaced(text, r"(?s)### SGD\n.*(?=\n\n## Around the rule\n)", _table.markdown())


def signatures(_: str) -> str:
    """Return a stub with every kernel, for type checkers: kernels are made when asked for."""
    lines = [
        '"""Every function of `instep.kernels`; written by tools/regenerate.py."""',
        "",
        "from numpy.typing import ArrayLike",
        "",
        "from instep.typing import Array, Convention",
    ]
    for name, rule in sorted(kernels._RULES.items()):
        kernel = getattr(kernels, name)
        known = rule._hyperparameters()
        lines += ["", f"def {name}("]
        parameters = inspect.signature(kernel).parameters
        for each in parameters.values():
            if each.name == "step" and "state" not in parameters:
                lines.append("    *,")
            if each.name in known and each.kind is each.KEYWORD_ONLY:
                type_ = known[each.name].plain_type
            else:
                type_ = OTHERS.get(each.name, "Array")
            if each.kind is each.VAR_POSITIONAL:
                lines.append(f"    *{each.name}: Array | None,")
            elif each.default is each.empty:
                lines.append(f"    {each.name}: {type_},")
            else:
                none = " | None" if each.default is None and "None" not in type_ else ""
                default = json.dumps(each.default) if type_ == "Convention" else repr(each.default)
                lines.append(f"    {each.name}: {type_}{none} = {default},")
        lines += [") -> None:", f'    """{str(inspect.getdoc(kernel)).splitlines()[0]}"""']
    return "\n".join([*lines, ""])


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


PAGES: dict[str, Callable[[str], str]] = {
    "README.md": readme,
    "docs/conventions.md": conventions,
    "python/instep/_kernel_signatures.pyi": signatures,
}


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
