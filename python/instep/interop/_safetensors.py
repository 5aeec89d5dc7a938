"""State and parameters to a safetensors file, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _checkpoint
from instep.interop._common import check_optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from instep._optimizer import Optimizer
    from instep._rule import Values


def to_safetensors(optimizer: Optimizer, path: _checkpoint.Path, *, params: bool = True) -> None:
    """Write the state and the parameters to a safetensors file, or leave the file as it was.

    Parameters
    ----------
    optimizer
        Bound.
    path : str, bytes or path-like
        The file. Its tensors are named after their places in `Optimizer.state_dict`, parameters
        after "parameters"; all else is JSON in the metadata.
    params
        Whether the parameters are written, too.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    ImportError
        If safetensors is not installed.
    OSError
        If the file cannot be written.

    Notes
    -----
    What is part of it is as in `Optimizer.save`. The whole file is put together in memory. Its
    metadata hold a hash of everything in it.
    """
    check_optimizer(optimizer)
    optimizer._bound("to_safetensors")
    safetensors = _safetensors()
    with optimizer._hold():
        tree = optimizer._tree("to_safetensors", params=params)
        manifest, arrays = _checkpoint.describe(tree)
        rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        metadata = {_checkpoint.MANIFEST: manifest, "sha256": _hash(manifest, rows)}
        data = safetensors.numpy.save(rows, metadata)
    _checkpoint.replace(path, lambda file: file.write(data))


def from_safetensors(optimizer: Optimizer, path: _checkpoint.Path) -> None:
    """Take over the state, and the parameters if they are there, from a safetensors file.

    Parameters
    ----------
    optimizer
        Bound.
    path : str, bytes or path-like
        What `to_safetensors` wrote.

    Raises
    ------
    RuntimeError
        If the optimizer is unbound.
    ImportError
        If safetensors is not installed.
    OSError
        If the file cannot be read.
    TypeError, ValueError
        If it is another file, or of another rule, convention or structure. Nothing has changed
        then.
    """
    check_optimizer(optimizer)
    optimizer._bound("from_safetensors")
    optimizer._take_over(_safetensors_tree(path), params=True)


def _safetensors() -> Any:
    """Return the package, whose module for NumPy is imported, too."""
    try:
        import_module("safetensors.numpy")
    except ImportError as error:
        raise ImportError("safetensors is not installed: pip install safetensors") from error
    return import_module("safetensors")


def _safetensors_tree(path: _checkpoint.Path) -> Values:
    safetensors, name = _safetensors(), _checkpoint.name_of(path)
    with _checkpoint.naming(name), safetensors.safe_open(name, framework="numpy") as file:
        metadata = file.metadata() or {}
        if _checkpoint.MANIFEST not in metadata:
            raise ValueError(f"expected metadata with a {_checkpoint.MANIFEST!r}, got {metadata}")
        manifest = metadata[_checkpoint.MANIFEST]
        rows = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("sha256") != _hash(manifest, rows):
            raise ValueError("expected what instep wrote, got something that was altered")
        return _checkpoint.rebuild(manifest, rows.__getitem__)


def _hash(manifest: str, rows: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of what a safetensors file holds."""
    sha256 = hashlib.sha256(manifest.encode())
    for name in sorted(rows):
        sha256.update(name.encode())
        sha256.update(rows[name].tobytes())
    return sha256.hexdigest()
