"""The documentation of rules, which is complete without saying anything twice in the source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

_HEADING = re.compile(r"^(\w[\w ]*)\n-+\n", re.MULTILINE)
_PARAMETERS = "Parameters\n----------\n"


class Documentation:
    """A class's documentation with the parameters of its bases, put together when it is asked for.

    Parameters
    ----------
    own : str
        What the class's source says.
    """

    def __init__(self, own: str) -> None:
        self.own = own

    def __get__(self, optimizer: object, cls: Any) -> str:
        before, entries, after = _divided(self.own)
        known = {name for entry in entries for name in _names(entry)}
        for base in cls.__mro__[1:]:
            documentation = vars(base).get("__doc__")
            if isinstance(documentation, Documentation):
                new = [e for e in _divided(documentation.own)[1] if not known.issuperset(_names(e))]
                entries += new
                known.update(name for entry in new for name in _names(entry))
        places = {name: place for place, name in enumerate(inspect.signature(cls).parameters)}
        entries.sort(key=lambda entry: places.get(_names(entry)[0], len(places)))
        return f"{before}{_PARAMETERS}{''.join(entries)}\n{after}".rstrip() + "\n"


def _divided(text: str) -> tuple[str, list[str], str]:
    """Return what comes before the parameters, the entry of each, and what comes after them."""
    text = f"{inspect.cleandoc(text)}\n\n"
    before, heading, rest = text.partition(_PARAMETERS)
    next_section = _HEADING.search(rest if heading else text)
    if not heading:
        at = next_section.start() if next_section else len(text)
        return text[:at], [], text[at:]
    at = next_section.start() if next_section else len(rest)
    entries = re.findall(r"^\S.*\n(?:[ \t].*\n|\n(?=[ \t]))*", rest[:at], re.MULTILINE)
    return before, entries, rest[at:]


def _names(entry: str) -> list[str]:
    """Return the parameters that an entry is about."""
    return [name.strip(" *") for name in entry.partition(":")[0].split(",")]


def listed(families: Iterable[str], rules: Iterable[Any]) -> str:
    """Return a line for each rule, in families."""
    rules = list(rules)
    width = max(len(rule.__name__) for rule in rules)
    lines = []
    for family in families:
        lines += ["", f"{family}:"]
        for rule in rules:
            if rule._family == family:
                name = rule.__name__
                line = vars(rule)["__doc__"].own.lstrip().partition("\n")[0]
                if line.lower().startswith(f"{name}: ".lower()):
                    line = line[len(name) + 2 :]
                lines.append(f"    {name:{width}}  {line}")
    return "\n".join(lines[1:])
