"""Record how the frameworks move the parameters of `problem.py`.

python tests/trajectories/make.py torch keras optax tfjs
    runs the frameworks and writes one .npz each, beside this file.
python tests/trajectories/make.py --check torch
    runs the framework and prints how far instep is from it; writes nothing.

The frameworks live in an environment of their own, made by

    python -m venv peers
    peers/bin/pip install numpy torch==2.13.0 keras==3.15.1 tensorflow-cpu==2.21.* \
        jax==0.10.2 optax==0.2.8
    npm install @tensorflow/tfjs@4.22  # and name its folder: NODE_PATH=.../node_modules

The tests read the files and need none of this; where a framework is installed, they run it, too.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trajectories.compare import Reference, error, follow, save
from trajectories.problem import STEPS, Case, gradients, start

HERE = Path(__file__).resolve().parent


def references(framework: Any) -> Iterator[tuple[Case, Reference]]:
    """Run all cases of a framework's module."""
    names = [case.name for case in framework.CASES]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"cases of the same name: {', '.join(sorted(twice))}")
    for case in framework.CASES:
        params = start(case.problem, case.dtype)
        path = framework.run(
            case, start(case.problem, case.dtype), gradients(case.problem, case.dtype)
        )
        given = [(p.shape, p.dtype) for p in params]
        if len(path) != STEPS or any([(p.shape, p.dtype) for p in q] != given for q in path):
            raise ValueError(f"{case.name}: not {STEPS} times arrays like the parameters")
        yield case, Reference.of(params, path)


def check(framework: Any) -> None:
    """Print instep's error in every case, the largest last."""
    errors, missing = [], []
    for case, theirs in references(framework):
        try:
            errors.append((error(follow(case), theirs), case.name))
        except (AttributeError, ImportError, TypeError, ValueError) as reason:
            missing.append(f"{case.name}: {reason}")
    print("\n".join(missing))
    print("\n".join(f"{number:8.1e} {name}" for number, name in sorted(errors)))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("frameworks", nargs="+", choices=["torch", "keras", "optax", "tfjs"])
    parser.add_argument("--check", action="store_true", help="compare instep; write nothing")
    arguments = parser.parse_args()
    for name in arguments.frameworks:
        framework = importlib.import_module(f"trajectories.with_{name}")
        if arguments.check:
            check(framework)
        else:
            save(HERE / f"{name}.npz", framework.VERSIONS, references(framework))


if __name__ == "__main__":
    main()
