"""The command line: ``python -m instep`` and the script ``instep``."""

from __future__ import annotations

import argparse
import inspect
import math
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import instep

if TYPE_CHECKING:
    from instep._bench.workloads import Workload

_DISTRIBUTIONS = {"sklearn": "scikit-learn", "rich": "rich", "matplotlib": "matplotlib"}
_BENCH_MODELS = ("1k", "mlp", "100x1k", "1m")
_BENCH_LARGE = "gpt2"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; by default those of this process.

    Returns
    -------
    int
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="instep", description="C++-accelerated optimizers for NumPy arrays."
    )
    parser.set_defaults(run=_run_info, report=False)
    parser.add_argument("--version", action="version", version=f"instep {instep.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    info_help = "print version, compiler, instruction sets and threads (the default)"
    info = commands.add_parser("info", help=info_help, description=info_help)
    info.set_defaults(run=_run_info)
    info.add_argument(
        "--report",
        action="store_true",
        help="print what a bug report has to tell, as Markdown; it names no person and no folder",
    )

    rules_help = "list the rules, or show what one does"
    rules = commands.add_parser("rules", help=rules_help, description=rules_help)
    rules.set_defaults(run=_run_rules)
    rules.add_argument(
        "rules", nargs="*", metavar="RULE", help="only these; an unknown name lists the known"
    )

    demo_help = "train a small network on handwritten digits with each optimizer"
    demo = commands.add_parser("demo", help=demo_help, description=demo_help)
    demo.set_defaults(run=_run_demo)
    demo.add_argument("--plot", type=_png, metavar="FILE.png", help="draw the loss curves")
    demo.add_argument("--epochs", type=_positive, metavar="N", default=20, help="default: 20")
    demo.add_argument("--seed", type=_natural, metavar="S", default=0, help="default: 0")
    demo.add_argument(
        "--optimizers",
        nargs="+",
        metavar="NAME",
        help="train only these; an unknown name lists the known",
    )

    _add_bench(commands)

    conventions_help = "print every rule's formula and defaults in every framework that has it"
    conventions = commands.add_parser(
        "conventions", help=conventions_help, description=conventions_help
    )
    conventions.set_defaults(run=_run_conventions)
    conventions.add_argument(
        "rules", nargs="*", metavar="RULE", help="only these; an unknown name lists the known"
    )

    rule_help = "look into rules that a file defines as formulas; nothing of the file is run"
    rule = commands.add_parser(
        "rule",
        help=rule_help,
        description='For each call rule("Name", formula="...", ...) in a file of Python, print '
        "its program, how far it is from NumPy in float64, how long a step takes, and the C++ that "
        "would make it a built-in rule. Nothing of the file is run.",
    )
    rule.set_defaults(run=_run_rule)
    rule.add_argument("file", type=Path, metavar="FILE.py")
    rule.add_argument("names", nargs="*", metavar="NAME", help="only these of its rules")
    rule.add_argument(
        "--plot", type=_png, metavar="FILE.png", help="draw the path of a rule on two functions"
    )

    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _run_info(arguments: argparse.Namespace) -> int:
    for size in (1 << 17, 1 << 20, 1 << 23):  # in the caches, and not: how far ahead to fetch
        opt, g = instep.Adam(np.zeros(size, np.float32)), np.ones(size, np.float32)
        for _step in range(4):
            opt.step(g)
    if arguments.report:
        from instep import _report

        print(_report.markdown())
    else:
        instep.show_config()
    return 0


def _run_rules(arguments: argparse.Namespace) -> int:
    from instep import _documentation
    from instep._conventions import CONVENTIONS
    from instep._rule import FAMILIES

    if unknown := [name for name in arguments.rules if name not in CONVENTIONS]:
        return _no_rule("rules", unknown)
    if arguments.rules:
        return _print(
            f"{name}\n\n{inspect.getdoc(getattr(instep, name))}\n" for name in arguments.rules
        )
    rules = [getattr(instep, name) for name in CONVENTIONS]
    return _print([_documentation.listed(FAMILIES, rules)])


def _run_conventions(arguments: argparse.Namespace) -> int:
    from instep import _table
    from instep._conventions import CONVENTIONS

    if unknown := [name for name in arguments.rules if name not in CONVENTIONS]:
        return _no_rule("conventions", unknown)
    return _print([_table.text(arguments.rules)])


def _no_rule(command: str, unknown: Sequence[str]) -> int:
    from instep._conventions import CONVENTIONS

    known = _listed(list(CONVENTIONS))
    return _fail(f"instep {command} has no rule {_listed(unknown)}: choose from {known}")


def _run_rule(arguments: argparse.Namespace) -> int:
    from instep._formulas import file, report

    if arguments.plot is not None and not _importable("matplotlib"):
        return _fail('instep rule --plot needs matplotlib: pip install "instep[demo]"')
    try:
        found = file.rules_in(arguments.file)
    except (OSError, ValueError) as error:
        return _fail(str(error))
    known = [each.cls.__name__ for each in found]
    if unknown := [name for name in arguments.names if name not in known]:
        return _fail(
            f"{arguments.file} has no rule {_listed(unknown)}: choose from {_listed(known)}"
        )
    chosen = [each for each in found if each.cls.__name__ in (arguments.names or known)]
    if arguments.plot is not None and len(chosen) > 1:
        return _fail(f"instep rule --plot draws one rule: name one of {_listed(known)}")
    return _print(line for each in chosen for line in (*report.lines(each, arguments.plot), ""))


def _run_demo(arguments: argparse.Namespace) -> int:
    modules = ["sklearn", "rich"]
    if arguments.plot is not None:
        modules.append("matplotlib")
    missing = [_DISTRIBUTIONS[module] for module in modules if not _importable(module)]
    if missing:
        return _fail(f'instep demo needs {_listed(missing)}: pip install "instep[demo]"')

    from instep import _demo

    names = list(dict.fromkeys(arguments.optimizers or _demo.RECIPES))
    unknown = [name for name in names if name not in _demo.RECIPES]
    if unknown:
        known = _listed(list(_demo.RECIPES))
        return _fail(f"instep demo has no optimizer {_listed(unknown)}: choose from {known}")
    _demo.run(names, epochs=arguments.epochs, seed=arguments.seed, plot=arguments.plot)
    return 0


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from instep._bench.case import DTYPES, RULES
    from instep._bench.machine import processors
    from instep._bench.peers import ADAPTERS, PEERS
    from instep._bench.workloads import MODELS

    bench_help = "measure the steps beside other libraries' and beside the machine's limit"
    bench = commands.add_parser("bench", help=bench_help, description=bench_help)
    bench.set_defaults(run=_run_bench)

    def names(option: str, known: Iterable[str], default: str, count: str = "+") -> None:
        text = f"any of {', '.join(known)}; default: {default}"
        bench.add_argument(option, nargs=count, choices=known, metavar="NAME", help=text)

    names("--model", MODELS, f"{' '.join(_BENCH_MODELS)} {_BENCH_LARGE}, unless --sizes are given")
    bench.add_argument(
        "--sizes",
        nargs="+",
        type=_workload,
        metavar="N",
        help="single arrays of so many parameters, such as 10, 1e6, 2^20 or 64k",
    )
    names("--rules", RULES, "Adam (Momentum is SGD with momentum 0.9)")
    names("--dtypes", DTYPES, "float32 (mixed: parameters in float32, gradients in float64)")
    known = [*PEERS, *ADAPTERS]
    names("--peers", known, "all that are installed; none where no name is given", count="*")
    threads = list(dict.fromkeys((1, processors())))
    bench.add_argument(
        "--threads",
        nargs="+",
        type=_threads,
        metavar="N",
        default=threads,
        help=f"default: {_listed(list(map(str, threads)))}",
    )
    bench.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="for each workload, rule, dtype and number of threads; default: 4, quick: 0.5",
    )
    bench.add_argument(
        "--cold",
        action="store_true",
        help="time each step after other memory was used, three times the caches, as forward and "
        "backward passes use it; otherwise steps repeat in warm caches",
    )
    bench.add_argument(
        "--adapters",
        action="store_true",
        help="measure steps inside PyTorch, Keras and scikit-learn, beside their own optimizers'",
    )
    bench.add_argument(
        "--rows",
        action="store_true",
        help="measure gradients of some rows of a table instead, beside sparse optimizers",
    )
    bench.add_argument(
        "--ranks",
        type=_threads,
        metavar="N",
        help="measure a step that so many ranks share instead, beside one process",
    )
    bench.add_argument(
        "--offload",
        type=Path,
        metavar="FOLDER",
        help="measure a step on files in that folder instead, beside the same reads and writes",
    )
    bench.add_argument(
        "--quick",
        action="store_true",
        help=f"a rough look: fewer rounds, without {_BENCH_LARGE} unless it is named",
    )
    bench.add_argument("--json", type=_file, metavar="FILE", help="write all samples")
    bench.add_argument(
        "--plot",
        type=_png,
        metavar="FILE.png",
        help="draw the times over the limit's, by --sizes, by default from 10 to 10^8",
    )


def _run_bench(arguments: argparse.Namespace) -> int:
    modules = ["rich"] if arguments.plot is None else ["rich", "matplotlib"]
    missing = [_DISTRIBUTIONS[module] for module in modules if not _importable(module)]
    if missing:
        return _fail(f'instep bench needs {_listed(missing)}: pip install "instep[bench]"')

    apart = [name for name in ("rows", "ranks", "offload") if getattr(arguments, name)]
    if apart:
        others = ("model", "sizes", "rules", "dtypes", "peers", "adapters", "seconds", "cold")
        if given := [f"--{name}" for name in (*others, *apart[1:]) if getattr(arguments, name)]:
            return _fail(f"instep bench --{apart[0]} measures one thing, whatever {_listed(given)}")
    if arguments.ranks:
        if not _importable("mpi4py"):
            return _fail('instep bench --ranks needs mpi4py: pip install "instep[mpi]" mpich')
        from instep._bench import ranks

        return ranks.run(arguments.ranks, quick=arguments.quick, json_path=arguments.json)
    if arguments.offload:
        if not arguments.offload.is_dir():
            return _fail(f"--offload: expected a folder, got {arguments.offload}")
        from instep._bench import offload

        try:
            return offload.run(arguments.offload, quick=arguments.quick, json_path=arguments.json)
        except OSError as error:  # such as a full disk
            return _fail(f"--offload: expected a folder with room to write in: {error}")
    if arguments.rows:
        from instep._bench import rows

        return rows.run(
            arguments.threads,
            quick=arguments.quick,
            json_path=arguments.json,
            plot=arguments.plot,
        )

    from instep._bench import command
    from instep._bench.case import RULES, Case
    from instep._bench.peers import ADAPTERS, IN_PLACE_OF, PEERS
    from instep._bench.workloads import MODELS, sweep

    quick = arguments.quick
    workloads = [MODELS[name] for name in arguments.model or ()] + (arguments.sizes or [])
    if arguments.plot is not None and not arguments.sizes:
        workloads += sweep(per_decade=1 if quick else 2)
    if not workloads:
        workloads = [MODELS[n] for n in (*_BENCH_MODELS, *(() if quick else (_BENCH_LARGE,)))]
    # Thread counts lie inside of a workload: neighbours in time are neighbours in a comparison.
    cases = [
        Case(workload, RULES[rule], dtype, threads, arguments.cold)
        for rule in dict.fromkeys(arguments.rules or ["Adam"])
        for dtype in dict.fromkeys(arguments.dtypes or ["float32"])
        for workload in dict.fromkeys(workloads)
        for threads in dict.fromkeys(arguments.threads)
    ]
    beside = [name for names in IN_PLACE_OF.values() for name in names]
    default = (*ADAPTERS, *beside) if arguments.adapters else PEERS
    peers = dict.fromkeys(default if arguments.peers is None else arguments.peers)
    seconds = arguments.seconds or (0.5 if quick else 4.0)
    return command.run(
        cases,
        peers,
        seconds=seconds,
        arguments={
            "workloads": [workload.name for workload in dict.fromkeys(workloads)],
            "peers": list(peers),
            "seconds": seconds,
            "cold": arguments.cold,
        },
        json_path=arguments.json,
        plot=arguments.plot,
    )


def _print(lines: Iterable[str]) -> int:
    try:
        for line in lines:
            print(line, flush=True)
    except BrokenPipeError:  # read by `head`, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _importable(module: str) -> bool:
    try:
        import_module(module)
    except ModuleNotFoundError:
        return False
    return True


def _listed(words: Sequence[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _natural(text: str) -> int:
    number = _whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _threads(text: str) -> int:
    number = _positive(text)
    if number > 1024:
        raise argparse.ArgumentTypeError(f"{number} is above 1024")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive time")
    return number


def _workload(text: str) -> Workload:
    from instep._bench.workloads import of_size

    try:
        return of_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _png(text: str) -> Path:
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text} does not end in .png")
    return _file(text)


def _file(text: str) -> Path:
    # Checked before the work, which would be lost if only the writing failed.
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path
