"""The command line: ``python -m instep`` and the script ``instep``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import instep

_DISTRIBUTIONS = {"sklearn": "scikit-learn", "rich": "rich", "matplotlib": "matplotlib"}


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
    parser.set_defaults(run=_run_info)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    info_help = "print version, compiler, instruction sets and threads (the default)"
    info = commands.add_parser("info", help=info_help, description=info_help)
    info.set_defaults(run=_run_info)

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

    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _run_info(_: argparse.Namespace) -> int:
    instep.show_config()
    return 0


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


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _png(text: str) -> Path:
    # Checked before the training, which would be lost if only the drawing failed.
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text} does not end in .png")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path
