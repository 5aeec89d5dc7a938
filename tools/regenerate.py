"""Write what is made from the code: README's table of rules, and the tables of docs/conventions.md.

``python tools/regenerate.py`` writes, with ``--check`` it only tells what is not as it would be.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import instep
from instep import _array_rules, _rules, _table
from instep._rule import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
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
    """Put the rules into README: how many there are, and which."""
    named = ("Adam", "RMSprop", "Adagrad", "Adadelta", "SGD")
    more = len(rules()) - len(named)
    text = re.sub(r"momentum and \d+\nmore rules", f"momentum and {more}\nmore rules", text)
    rows = ["| | classes |", "| --- | --- |"]
    for family in FAMILIES:
        classes = [each.__name__ for each in rules() if each._family == family]
        cells = [f"`{name}` {NOTES.get(name, '')}".strip() for name in classes]
        rows.append(f"| {family} | {', '.join(cells)} |")
    return between(text, "## Rules\n\n", "\n\n`help(instep.Adam)`", "\n".join(rows))


def conventions(text: str) -> str:
    """Put the table of conventions into its page."""
    return between(text, "\n### SGD\n", "\n\n## Around the rule\n", _table.markdown(), first=1)


def between(text: str, before: str, after: str, new: str, *, first: int | None = None) -> str:
    """Replace what stands between two texts; with `first` from that character of the one before."""
    begin = text.index(before) + (len(before) if first is None else first)
    return text[:begin] + new + text[text.index(after, begin) :]


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
