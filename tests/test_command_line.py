"""The commands that tell what is there: versions, rules, and what a report of a bug needs."""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import repository
from processes import python

import instep
from instep._cli import main
from instep._conventions import CONVENTIONS
from instep._rule import FAMILIES


def test_the_version_is_that_of_the_project() -> None:
    project = repository.file("pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'(?m)^version = "(.+)"$', project) == [instep.__version__]
    changes = repository.file("CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (\S+)", changes)[0] == instep.__version__


def test_rules_are_listed_by_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and line[0] != " "] == [f"{name}:" for name in FAMILIES]
    listed = [line.split() for line in lines if line.startswith(" ")]
    assert sorted(name for name, *_ in listed) == sorted(CONVENTIONS)
    assert all(len(line) > 2 for line in listed)


def test_a_rule_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "Adam", "Lion"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Adam\n\n")
    for word in ("\nLion\n", "beta_1", "learning_rate", "References"):
        assert word in text


def test_an_unknown_rule_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "Adam", "Adamm"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("instep rules has no rule Adamm: choose from SGD")


def test_a_list_may_be_cut_off() -> None:
    command = f"{sys.executable} -m instep rules | head -n 1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == (f"{FAMILIES[0]}:\n", "")


REPORT = "from instep._cli import main; main(['info', '--report'])"


def test_a_report_tells_what_it_takes_to_look_into_a_bug() -> None:
    run = python(REPORT, INSTEP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    assert run.stderr == ""
    rows = dict(re.findall(r"(?m)^- \*\*(.+)\*\*: (.+)$", run.stdout))
    assert len(rows) == len(run.stdout.splitlines())
    assert rows["instep"] == instep.__version__
    assert rows["NumPy"] == np.__version__
    assert rows["Python"] == platform.python_version()
    assert rows["threads"].startswith("2 ")
    assert "in use" in rows["instruction sets"]
    assert "ahead" in rows["tuning"]
    assert rows["environment"] == "`INSTEP_NUM_THREADS=2`, `OMP_WAIT_POLICY=passive`"
    if Path("/proc/self/maps").exists():
        assert re.fullmatch(r"lib\w*omp[\w.-]*", rows["OpenMP"])
    assert all(rows[name] for name in ("compiler", "processor", "NumPy was built with"))


def test_a_report_names_no_person_and_no_folder() -> None:
    home = os.path.expanduser("~")
    run = python(REPORT, OMP_TOOL_LIBRARIES=f"{home}/tool.so", USER="wintermute")
    assert "`OMP_TOOL_LIBRARIES=~/tool.so`" in run.stdout
    assert f"{home}/" not in run.stdout
    for name in {getpass.getuser(), socket.gethostname(), "wintermute"} - {"root", "localhost"}:
        assert not re.search(rf"\b{re.escape(name)}\b", run.stdout)
