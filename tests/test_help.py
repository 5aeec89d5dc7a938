"""What `help`, completion and the command line tell."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from references import REFERENCES

import instep
from instep._documentation import Documentation

untyped: Any = instep
RULES: list[str] = [
    name
    for name in untyped.__all__
    if inspect.isclass(cls := getattr(instep, name))
    and issubclass(cls, instep.Optimizer)
    and cls is not instep.Optimizer
]


def help_of(thing: Any) -> str:
    """Return what `help` shows, without the bold letters of terminals."""
    return pydoc.plain(pydoc.render_doc(thing))


def documented(cls: type) -> list[str]:
    """Return the parameters that a class documents, in order."""
    parameters = str(cls.__doc__).partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    entries = [line for line in parameters.splitlines() if not line.startswith(" ")]
    return [name.strip() for each in entries for name in each.partition(" :")[0].split(",")]


@pytest.mark.parametrize("rule", RULES)
def test_every_parameter_is_documented_once_and_has_its_default(rule: str) -> None:
    cls = getattr(instep, rule)
    signature = inspect.signature(cls)
    names = list(signature.parameters)
    assert sorted(documented(cls)) == sorted(names)
    assert names[:2] == documented(cls)[:2] == ["params", "learning_rate"]
    config = cls(np.zeros((2, 2))).config
    for name, parameter in signature.parameters.items():
        if parameter.default != config.get(name, parameter.default):
            assert parameter.default is None, name  # decided on by others
    assert "None by default" not in cls.__doc__
    assert "References\n----------\n" in cls.__doc__.partition("state_dtype")[2]


def test_a_signature() -> None:
    signature = str(inspect.signature(instep.Adam))
    assert signature.startswith("(params=None, *, learning_rate=0.001, beta_1=0.9, beta_2=0.999,")
    assert "convention='paper'" in signature
    assert str(inspect.signature(instep.AdamW)).count("weight_decay=0.01") == 1
    text = help_of(instep.Adam)
    assert "beta_1=0.9" in text
    assert "\n |  gradient_accumulation_steps : int, optional\n" in text


def test_the_documentation_of_ones_own_rules() -> None:
    class Mine(instep.Adam):
        """Mine.

        Parameters
        ----------
        beta_1, beta_2 : float, optional
            Others.
        """

    class Bare(instep.SGD):
        """Bare: nothing else."""

    class Silent(instep.SGD):
        pass

    assert "beta_1, beta_2 : float, optional\n    Others.\nepsilon : float" in str(Mine.__doc__)
    assert str(Mine().__doc__) == Mine.__doc__
    assert str(Bare.__doc__).startswith("Bare: nothing else.\n\nParameters\n----------\nparams : ")
    assert Silent.__doc__ is None


def test_help_lists_every_rule_in_a_line() -> None:
    text = help_of(instep)
    description = text.partition("DESCRIPTION\n")[2].partition("PACKAGE CONTENTS")[0]
    for rule in RULES:
        lines = [line for line in description.splitlines() if line.split()[:1] == [rule]]
        assert len(lines) == 1
        assert len(lines[0].split()) > 2
        assert f".{rule}\n" in text


def test_completion_is_tidy() -> None:
    names = [name for name in dir(instep) if not name.startswith("__")]
    assert {*names} == {*untyped.__all__, "typing"}
    assert all(hasattr(instep, name) for name in dir(instep))
    assert not [name for name in untyped.__all__ if name.startswith("_")]
    kernels = [name for name in dir(instep.kernels) if not name.startswith("__")]
    assert sorted(kernels) == sorted(instep.kernels.__all__)
    namespace: dict[str, Any] = {}
    exec("from instep import *", namespace)
    assert namespace.keys() - {"__builtins__"} == {*untyped.__all__}


ELEMENTWISE = {each.rule.__name__ for each in REFERENCES.values() if each.elementwise} | {"adamw"}


@pytest.mark.parametrize("kernel", [name for name in instep.kernels.__all__ if name != "of"])
def test_kernels_show_their_defaults(kernel: str) -> None:
    function = getattr(instep.kernels, kernel)
    signature = inspect.signature(function)
    names = list(signature.parameters)
    assert names[:2] == ["param", "grad"]
    takes_rows = ["rows"] if names[-1] == "rows" else []
    common = ["l2", "weight_decay", "convention", "out", "remainder", "master", *takes_rows]
    assert names[-len(common) :] == common
    assert bool(takes_rows) == (kernel in ELEMENTWISE)
    by_name = [each for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]
    assert [each.name for each in by_name][:2] == ["step", "learning_rate"]
    assert all(each.default is not ... for each in by_name)
    text = str(inspect.getdoc(function))
    described = text.partition("Raises")[0].replace("*", "")
    assert all(f"{name}" in described for name in names)


def test_without_documentation() -> None:
    code = "import instep; assert instep.__doc__ is None; instep.kernels.adam; print(instep.SGD())"
    run = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_version() -> None:
    command = [sys.executable, "-m", "instep", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"instep {instep.__version__}\n"


def test_a_description_is_divided_at_its_parameters() -> None:
    class Base:
        __doc__: Any = Documentation("""Base.

        Parameters
        ----------
        a : int
            The first.

            Of two paragraphs.
        *b : int
        """)

    class Derived(Base):
        __doc__: Any = Documentation("Derived.\n\n    Notes\n    -----\n    A note.\n    ")

    assert Derived.__doc__ == (
        "Derived.\n\nParameters\n----------\na : int\n    The first.\n\n    Of two paragraphs.\n"
        "*b : int\n\nNotes\n-----\nA note.\n"
    )
