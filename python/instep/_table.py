"""The conventions as a table to read, from the data that the code runs on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import instep
from instep._conventions import CONVENTIONS, LETTERS, Convention
from instep._optimizer import Optimizer

NAMES = {"paper": "paper", "keras": "Keras", "torch": "PyTorch", "optax": "Optax", "tfjs": "TF.js"}


@dataclass(frozen=True)
class Row:
    """One rule in one convention.

    Attributes
    ----------
    rule, convention
        The class, and what its argument `convention` takes.
    source
        What the rule is called there; of papers the authors.
    defaults
        The learning rate and the rule's own hyperparameters, by name.
    decay
        What the weight decay there is.
    formula
        The update.
    """

    rule: str
    convention: str
    source: str
    defaults: dict[str, str]
    decay: str
    formula: str


def rows(rules: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the table, or the part of it that is about these rules."""
    for rule, conventions in CONVENTIONS.items():
        if not rules or rule in rules:
            cls: type[Optimizer] = getattr(instep, rule)
            for name, convention in conventions.items():
                yield _row(cls, name, convention)


def _row(cls: type[Optimizer], name: str, convention: Convention) -> Row:
    known = cls._hyperparameters()
    shown = ["learning_rate", *cls._own(), "weight_decay"]
    values = {each: convention.default(each, known[each].default) for each in shown}
    if not values["weight_decay"]:
        del values["weight_decay"]
    defaults = {key: _number(key, value) for key, value in values.items()}
    formula = convention.formula
    if formula.startswith("the paper's"):
        paper = CONVENTIONS[cls.__name__]["paper"].formula
        formula = formula.replace("the paper's", paper, 1)
    return Row(cls.__name__, name, convention.source, defaults, convention.decay, formula)


def _number(name: str, value: object) -> str:
    if value is None:
        words = {
            "learning_rate": "required",
            "beta_3": "sqrt(beta_2)",
            "epsilon_1": "the dtype's",
            "adjust_lr_fn": "as above",
        }
        return words.get(name, "none")
    return f"{value:g}" if isinstance(value, float) else str(value)


DECAYS = {
    "decoupled": "weight_decay: p -= lr * weight_decay * p",
    "coupled": "its weight decay is coupled: l2",
    "inside": "weight_decay: as in the formula",
}


def text(rules: Sequence[str] = ()) -> str:
    """Return the table for a terminal."""
    lines: list[str] = []
    rule = None
    for row in rows(rules):
        if row.rule != rule:
            rule = row.rule
            lines += ["", rule] if lines else [rule]
        lines.append(f"  {row.convention:<6} {row.source}")
        about = ", ".join(f"{name}={value}" for name, value in row.defaults.items())
        for part in (row.formula, about, DECAYS[row.decay]):
            lines += textwrap.wrap(part, 92, initial_indent=9 * " ", subsequent_indent=11 * " ")
    lines += ["", "In formulas, unless they say otherwise:"]
    lines += [f"  {letter:<12}{meaning}" for letter, meaning in LETTERS.items()]
    return "\n".join(lines)


def letters() -> str:
    """Return what letters mean for the documentation, in which stars would make letters bold."""
    meanings = {letter: meaning.replace("*", r"\*") for letter, meaning in LETTERS.items()}
    return "\n".join(f"- `{letter}`: {meaning}" for letter, meaning in meanings.items())


def markdown() -> str:
    """Return the table for the documentation."""
    lines = []
    rule = None
    for row in rows():
        if row.rule != rule:
            rule = row.rule
            lines += ["", f"### {rule}", "", "| | formula | defaults |", "| --- | --- | --- |"]
        about = ", ".join(f"{name} {value}" for name, value in row.defaults.items())
        decay = {"decoupled": "", "coupled": "; decay coupled", "inside": ""}[row.decay]
        what = f"{NAMES[row.convention]}: {row.source}"
        lines.append(f"| {what} | `{row.formula}` | {about}{decay} |")
    return "\n".join(lines[1:])
