"""The Sphinx extension that fills the pages' ``{made}`` blocks, and typesets formulas.

What a page takes from the code or from another file stands in it as a block, whose language is
``{made}``, whose first line names one of `MAKERS`, and whose other lines are its arguments.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx

import comparison
import instep
import pictures
import typeset
from instep import _table, gallery, kernels, schedules
from instep._bench import machine, samples
from instep._bench.text import duration

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "CONTRIBUTING.md": "reference/contributing.md",
    "findings/README.md": "reference/findings.md",
}
"""Files elsewhere that are pages here."""
_MADE = re.compile(r"(?ms)^```\{made\} *(.*?)\n```$")
_INITIAL = re.compile(r"(?m)^[A-Z](?=\. )")
"""An author's, which would begin a list."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


class Page(NamedTuple):
    """A page that is being read, and where its pictures go."""

    file: Path
    drawn: Path


# What blocks become -----------------------------------------------------------------------------


def part(page: Page, name: str, heading: str = "") -> str:
    """Return what stands in a file, or in it below a heading and above the next one."""
    file = ROOT / name
    text = file.read_text(encoding="utf-8")
    if heading:
        found = re.search(rf"(?ms)^{re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text)
        if found is None:
            raise ValueError(f"heading: expected one of {name}, got {heading!r}")
        text = found[1]
    return with_links(text, file.parent, page.file.parent)


def family(page: Page, *names: str) -> str:
    """Return sections on rules of families."""
    rules = (getattr(instep, name) for name in instep._RULES)
    return "\n\n".join(_rule(page, rule, "instep") for rule in rules if rule._family in names)


def formulas(page: Page) -> str:
    """Return sections on the rules of `instep.gallery`."""
    rules = (getattr(gallery, name) for name in gallery.__all__)
    return "\n\n".join(_rule(page, rule, "instep.gallery") for rule in rules)


def _rule(page: Page, rule: type[instep.Optimizer], module: str) -> str:
    methods = "\n   :members: eval_params" if "eval_params" in vars(rule) else ""
    drawn = pictures.paths(rule, page.drawn / module)
    parts = [
        f"## {rule.__name__}",
        _directive("autoclass", f"{module}.{rule.__name__}{methods}"),
        " ".join(_image(page, each) for each in drawn),
    ]
    return "\n\n".join([*parts, *_defaults(rule)])


def _defaults(rule: type[instep.Optimizer]) -> list[str]:
    """Return a table of a rule's defaults by convention, unless there is but one."""
    cells = [row for row in _table.rows() if getattr(instep, row.rule) is rule]
    if len(cells) < 2:
        return []
    link = f"[{{}}](../conventions.md#{rule.__name__.lower()})"
    heads = [_table.NAMES[row.convention] for row in cells]
    columns = {name: None for row in cells for name in row.defaults}
    lines = [[link.format("defaults"), *heads]]
    lines += [[f"`{n}`", *(row.defaults.get(n, "0") for row in cells)] for n in columns]
    lines += [["weight decay", *(row.decay for row in cells)]]
    return [_rows(lines)]


def _rows(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "| --- " * len(lines[0]) + "|", *rest])


def drawn_schedules(page: Page) -> str:
    """Return sections on all schedules."""
    sections = []
    for name in pictures.EXAMPLES:
        kind = "autoclass" if isinstance(getattr(schedules, name), type) else "autofunction"
        members = "\n   :members:" if name == "ReduceLROnPlateau" else ""
        image = _image(page, pictures.schedule(name, page.drawn))
        code = f"```python\n{pictures.EXAMPLES[name]}\n```"
        about = _directive(kind, f"instep.schedules.{name}{members}")
        sections.append(f"## {name}\n\n{image}\n\n{code}\n\n{about}")
    return "\n\n".join(sections)


def functions(page: Page) -> str:
    """Return the documentation of every kernel."""
    names = (f"instep.kernels.{name}" for name in sorted(kernels.__all__))
    return "\n".join(_directive("autofunction", name) for name in names)


def findings(page: Page) -> str:
    """Return a section on each finding: what its script says at its top."""
    sections = []
    for file in sorted((ROOT / "findings").glob("*.sh")):
        lines = file.read_text(encoding="utf-8").splitlines()[1:]
        said = itertools.takewhile(lambda line: line.startswith("#"), lines)
        parts = " ".join(line.lstrip("# ") for line in said).split("`")
        parts[::2] = (words.replace("*", r"\*") for words in parts[::2])  # those not in backticks
        text = "`".join(parts)
        script = _relative(file, page.file.parent)
        sections.append(f"## {file.stem.replace('_', ' ')}\n\n{text} ([script]({script}))")
    return "\n\n".join(sections)


def measured(page: Page, what: str) -> str:
    """Return a part of the comparison on digits: words, tables or pictures."""
    runs = comparison.read(ROOT / "docs" / "guide" / "which_rule.json")
    match what:
        case "setting":
            return runs.setting
        case "findings":
            return runs.findings
        case "tables":
            sections = [(name, _rows(lines)) for name, lines in runs.tables()]
        case "losses" | "rates":
            drawn = getattr(runs, what)(page.drawn)
            sections = [
                (name, " ".join(_image(page, each) for each in of_family))
                for name, of_family in drawn
            ]
        case _:
            raise ValueError(f"measured: expected a part of the comparison, got {what!r}")
    return "\n\n".join(f"### {name}\n\n{text}" for name, text in sections)


def steps(page: Page, file: str) -> str:
    """Return a table of how long steps take with each rule, from the benchmark's samples."""
    document = json.loads((ROOT / file).read_text(encoding="utf-8"))
    results = samples.results(document)
    medians = {
        (each.case.rule.name, each.case.workload.parameters): median(each.times("instep"))
        for each in results
    }
    sizes = sorted({size for _, size in medians})
    lines = [["", *(f"{size:,} elements" for size in sizes)]]
    for rule in dict.fromkeys(each.case.rule.name for each in results):
        lines.append([f"`{rule}`", *(duration(medians[rule, size]) for size in sizes)])
    return f"{_rows(lines)}\n\n{machine.name(document['machine'])}."


def _directive(kind: str, argument: str) -> str:
    return f"```{{eval-rst}}\n.. {kind}:: {argument}\n```"


def _image(page: Page, picture: pictures.Picture) -> str:
    return f"![{picture.shows}]({_relative(picture.file, page.file.parent)})"


MAKERS: dict[str, Callable[..., str]] = {
    "part": part,
    "rules": family,
    "gallery": formulas,
    "schedules": drawn_schedules,
    "kernels": functions,
    "findings": findings,
    "measured": measured,
    "steps": steps,
}


# Links ------------------------------------------------------------------------------------------


def with_links(text: str, old: Path, new: Path) -> str:
    """Return a text whose links to files hold in another folder, and lead to pages where they can.

    Links to folders become plain text.
    """

    def moved(link: re.Match[str]) -> str:
        file = (old / link[3]).resolve()
        if file.is_dir():
            return link[2]
        inside = file.relative_to(ROOT).as_posix()
        if inside in PAGES:
            file = ROOT / "docs" / PAGES[inside]
        return f"{link[1]}[{link[2]}]({_relative(file, new)}{link[4] or ''})"

    return _LINK.sub(moved, text)


def _relative(file: Path, folder: Path) -> str:
    return Path(os.path.relpath(file, folder)).as_posix()


# What Sphinx asks for ---------------------------------------------------------------------------


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Fill a page's blocks."""
    page = Page(Path(app.env.doc2path(name)), Path(app.doctreedir) / "drawn")

    def made(block: re.Match[str]) -> str:
        maker, *arguments = block[1].splitlines()
        return MAKERS[maker](page, *arguments)

    text = with_links(source[0], page.file.parent, page.file.parent)
    source[0] = _MADE.sub(made, text)


def document(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Leave what all rules have in common to their base, and typeset formulas."""
    if what != "class" or not issubclass(thing, instep.Optimizer) or thing is instep.Optimizer:
        return
    own = inspect.cleandoc(vars(thing)["__doc__"].own)
    text = _INITIAL.sub(r"\\\g<0>", typeset.documentation(own))
    lines[:] = text.splitlines()


def sign(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str | None, returns: Any
) -> tuple[str, Any] | None:
    """Show what a rule's constructor takes beyond what all take, and not what is unknown."""
    if arguments == "(*args, **kwargs)":  # of a framework's class that is not there
        return "(...)", None
    if what != "class" or not issubclass(thing, instep.Optimizer) or thing is instep.Optimizer:
        return None
    known = inspect.signature(thing).parameters
    names = ["learning_rate", *thing._own()]
    if "weight_decay" not in names and known["weight_decay"].default:
        names.append("weight_decay")
    return f"(params=None, *, {', '.join(str(known[name]) for name in names)}, **options)", None


def _mathml(formula: str, *, as_block: bool) -> str:
    return str(latex2mathml.tex2mathml(formula, as_block=as_block))


def visit_inline(writer: Any, node: nodes.math) -> None:
    """Write a formula inside of a line as MathML, which browsers show without a script."""
    writer.body.append(_mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula with lines of its own as MathML."""
    writer.body.append(f'<div class="math">{_mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what to call."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", document, priority=400)  # before it is made reST
    app.connect("autodoc-process-signature", sign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
