"""The command: measure, print, keep."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

import instep
from instep._bench import machine, measure, report, samples
from instep._bench.case import Case
from instep._bench.measure import Note, Result
from instep._bench.peers import ADAPTERS, PEERS
from instep._bench.peers.base import Peer

_WIDTH = 120


def run(
    cases: Sequence[Case],
    peer_names: Iterable[str],
    *,
    seconds: float,
    arguments: Mapping[str, Any],
    json_path: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Measure all cases, print tables, write files.

    An interruption ends the measuring, and what there is is reported.

    Parameters
    ----------
    cases : sequence of Case
        What to measure.
    peer_names : iterable of str
        Keys of `PEERS` and `ADAPTERS`.
    seconds : float
        How long to measure each case.
    arguments : mapping
        What the user asked for, kept with the samples.
    json_path : Path, optional
        Where to write the raw samples.
    plot : Path, optional
        Where to write a PNG of the times over the limit's.

    Returns
    -------
    int
        The exit status: 0, or 130 after an interruption.
    """
    # Progress and notes leave the standard output to the tables.
    progress_console = Console(stderr=True)
    notes: list[str] = []
    results: list[Result] = []
    peers: dict[str, Peer] = {}
    status = 0
    threads = instep.get_num_threads()
    load = machine.load()
    with Progress(
        console=progress_console, transient=True, disable=not progress_console.is_terminal
    ) as progress:

        def note(text: str) -> None:
            notes.append(text)
            progress.console.print(text, style="yellow", markup=False, soft_wrap=True)

        try:
            _load(peers, list(peer_names), progress, note)
            _measure(results, cases, peers, seconds, progress, note)
        except KeyboardInterrupt:
            note("interrupted: this is what was measured so far")
            status = 130
        finally:
            instep.set_num_threads(threads)

    results = [result for result in results if result.rounds]
    described = {**machine.describe(peers), "load_before": load}
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(machine.summary(described), highlight=False, markup=False, soft_wrap=True)
    for table in report.tables(results, peers, console.width):
        console.print(table)
    console.print(report.LEGEND)
    for table in report.adapters(results):
        console.print(table)
    if json_path is not None:
        everything = samples.raw(results, machine=described, arguments=arguments, notes=notes)
        json_path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        _tell(progress_console, "raw samples", json_path)
    single = [result for result in results if len(result.case.workload.shapes) == 1]
    if plot is not None and single:
        from instep._bench.plot import draw

        draw(single, described, plot)
        _tell(progress_console, "picture", plot)
    return status


def _load(peers: dict[str, Peer], names: Sequence[str], progress: Progress, note: Note) -> None:
    task = progress.add_task("loading", total=len(names))
    absent = []
    for name in names:
        progress.update(task, description=f"loading {name}", refresh=True)
        try:
            peers[name] = {**PEERS, **ADAPTERS}[name]()
        except ModuleNotFoundError:
            absent.append(name)
        except Exception as error:
            # Libraries fail on some machines with whatever they like.
            note(f"{name} is left out: {error}")
        progress.advance(task)
    progress.remove_task(task)
    if absent:
        note(f"not installed: {', '.join(absent)}")


def _measure(
    results: list[Result],
    cases: Sequence[Case],
    peers: Mapping[str, Peer],
    seconds: float,
    progress: Progress,
    note: Note,
) -> None:
    task = progress.add_task("measuring", total=len(cases))
    for index, case in enumerate(cases):
        what = case.workload.name, case.rule.name, case.dtype, f"threads: {case.threads}"
        progress.update(task, completed=index, description=", ".join(what), refresh=True)
        results.append(Result(case))
        for share in measure.measure(results[-1], peers, seconds, note):
            progress.update(task, completed=index + share)


def _tell(console: Console, what: str, path: Path) -> None:
    console.print(f"{what}: {path}", highlight=False, markup=False, soft_wrap=True)
