"""Reference paths: how they are kept in a file, and how far instep's own are from them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path as File
from typing import Any

import numpy as np
from trajectories.problem import KEPT, Array, Case, Path, gradients, start

STORED = ("rule", "convention", "keywords", "dtype", "problem")
"""The fields of a case that its file holds."""


@dataclass(frozen=True)
class Reference:
    """What is kept of a path, all arrays raveled and concatenated.

    Attributes
    ----------
    path
        The parameters after each of the calls in `KEPT`, one row each.
    largest
        The largest magnitude of each element on the whole path, its start included.
    """

    path: Array
    largest: Array

    @classmethod
    def of(cls, params: Sequence[Array], path: Path) -> Reference:
        """Return what is kept of the path from `params`."""
        points = np.stack([_flat(arrays) for arrays in [params, *path]])
        return cls(points[list(KEPT)], np.fmax.reduce(np.abs(points)))


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays])


def save(
    file: File, versions: Mapping[str, str], references: Iterable[tuple[Case, Reference]]
) -> None:
    """Write the references of one framework."""
    cases, arrays = [], {}
    for case, reference in references:
        cases.append({"name": case.name} | {key: getattr(case, key) for key in STORED})
        arrays[f"{case.name}/path"] = reference.path
        arrays[f"{case.name}/largest"] = reference.largest
    listing = json.dumps({"versions": versions, "cases": cases})
    np.savez_compressed(file, allow_pickle=False, cases=np.array(listing), **arrays)


def load(file: File) -> Iterator[tuple[Case, Reference]]:
    """Yield the references of one framework."""
    with np.load(file) as arrays:
        for stored in json.loads(str(arrays["cases"]))["cases"]:
            name = stored["name"]
            case = Case(**{key: stored[key] for key in STORED})
            yield case, Reference(arrays[f"{name}/path"], arrays[f"{name}/largest"])


def optimizer(case: Case, params: list[Array]) -> Any:
    """Return instep's optimizer of the case, bound to `params`."""
    # Imported here, because references are made where instep need not be installed.
    rule = getattr(import_module("instep"), case.rule)
    keywords = {key: _argument(value) for key, value in case.keywords.items()}
    return rule(params, convention=case.convention, **keywords)


def _argument(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    arguments = dict(value)
    schedule = getattr(import_module("instep.schedules"), arguments.pop("schedule"))
    return schedule(**arguments)


@cache
def is_installed(framework: str) -> bool:
    """Return whether a framework can be run."""
    if framework != "tfjs":
        return importlib.util.find_spec(framework) is not None
    load = ["node", "-e", "require('@tensorflow/tfjs')"]
    return (
        shutil.which("node") is not None
        and not subprocess.run(load, capture_output=True).returncode
    )


_gradients = cache(gradients)


def follow(case: Case) -> Reference:
    """Return what instep does in this case."""
    params = start(case.problem, case.dtype)
    opt = optimizer(case, params)
    path = []
    for grads in _gradients(case.problem, case.dtype):
        opt.step(list(grads))
        path.append([p.copy() for p in params])
    return Reference.of(start(case.problem, case.dtype), path)


def error(mine: Reference, theirs: Reference) -> float:
    """Return the largest difference of two paths, relative to each element's own magnitude.

    Parameters of a training run live in sums: what counts is not the error of an element that
    happens to pass zero, but the error beside the largest value that it had. Where the reference is
    not finite (TensorFlow.js, roots of negative numbers), this path need only be.
    """
    defect = ~np.isfinite(theirs.path) & np.isfinite(mine.path)
    difference = np.abs(mine.path.astype("float64") - np.where(defect, 0.0, theirs.path))
    scale = np.fmax(theirs.largest, np.finfo(theirs.path.dtype).tiny)
    relative = np.where(defect | (mine.path == theirs.path), 0.0, difference / scale)
    return float(np.where(np.isnan(relative), np.inf, relative).max())
