"""Checkpoints of any number of ranks: a file of each rank's parts, and one that makes them whole.

The manifest names the files of one saving, which is there once it is. Those of the saving before
are deleted after that, so that a crash at any moment leaves one of the two.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from instep import _checkpoint, _core, _formats
from instep._kinds import shown
from instep._rule import Values
from instep.sharded._division import Part

if TYPE_CHECKING:
    from instep.typing import Array

MANIFEST = "manifest.npz"
_OURS = "shard-"


class Shard(NamedTuple):
    """What is known of some of an array's elements.

    Attributes
    ----------
    part
        Which elements.
    state
        The array's entry in a state, with arrays of those elements.
    param
        Those of the parameter, or None.
    """

    part: Part
    state: Mapping[str, Any]
    param: Array | None


class Cut(NamedTuple):
    """An array, and whether shards have some elements of it each; else one has it whole."""

    shape: tuple[int, ...]
    is_cut: bool

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


class Saved(NamedTuple):
    """A whole state in parts.

    Attributes
    ----------
    head
        What is not of one array.
    arrays
        The arrays, by path.
    shards
        Those of each array, in the order of their elements.
    """

    head: Values
    arrays: dict[str, Cut]
    shards: dict[str, list[Shard]]

    @property
    def has_params(self) -> bool:
        """Whether the parameters are among them."""
        return any(each.param is not None for shards in self.shards.values() for each in shards)

    def copied(self) -> Saved:
        """Return the same with arrays of its own, without the parameters."""
        shards = {
            path: [
                Shard(
                    part,
                    {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()},
                    None,
                )
                for part, state, _ in shards
            ]
            for path, shards in self.shards.items()
        }
        return self._replace(shards=shards)

    def checked(self) -> Saved:
        """Return the same with shards in their order; raise ValueError where some are missing."""
        found = {}
        for path, shards in self.shards.items():
            size = self.arrays[path].size
            some = [each for each in shards if each.part.size] if size else shards[:1]
            in_order = sorted(some, key=lambda shard: shard.part.first)
            ends = [0, *(shard.part.end for shard in in_order)]
            firsts = [*(shard.part.first for shard in in_order), size]
            if (
                not in_order
                or ends != firsts
                or not (self.arrays[path].is_cut or len(in_order) == 1)
            ):
                raise ValueError(f"{path}: expected all {size} elements, each once")
            found[path] = in_order
        return self._replace(shards=found)

    def state_of(self, path: str, part: Part) -> Values:
        """Return an array's state, with arrays of a part's elements."""
        return _joined(self.shards[path], part, self.arrays[path])

    def whole_state_of(self, path: str) -> Values:
        """Return an array's state as a plain optimizer has it."""
        shape, is_cut = cut = self.arrays[path]
        entry = self.state_of(path, Part(0, cut.size))
        for name, array in entry.items() if is_cut else ():
            if name == "order":
                entry[name] = np.array([k for k, extent in enumerate(shape) if extent > 1], int)
            elif isinstance(array, np.ndarray) and array.ndim and name not in _others(entry):
                entry[name] = array.reshape(shape)
        return entry

    def whole_param(self, path: str) -> Array:
        """Return a parameter."""
        cut = self.arrays[path]
        pieces = [(shard.part, shard.param) for shard in self.shards[path]]
        whole: Any = _concatenated(pieces, Part(0, cut.size), 1) if cut.is_cut else pieces[0][1]
        array: Array = whole.reshape(cut.shape)
        return array


def of_state(state: Values, here: Mapping[str, Cut]) -> Saved:
    """Return the parts of a plain state, whose arrays are whole.

    Parameters
    ----------
    state
        The state.
    here
        The arrays that it is to be of, by path.

    Raises
    ------
    TypeError, ValueError
        If it is no such state.
    """
    head = {name: value for name, value in state.items() if name not in ("arrays", "parameters")}
    arrays, params = state.get("arrays"), state.get("parameters")
    if not isinstance(arrays, Mapping) or not isinstance(params, Mapping | None):
        raise TypeError("state: expected one of an optimizer, as state_dict() returns it")
    shards: dict[str, list[Shard]] = {}
    for path, entry in arrays.items():
        if not isinstance(entry, Mapping):
            raise TypeError(f"state['arrays'][{path!r}]: expected a dict, got {shown(entry)}")
        cut = here.get(path, Cut((), False))
        param: Any = None if params is None else params.get(path)
        of_elements = {
            name: each
            for name, each in entry.items()
            if isinstance(each, np.ndarray) and each.ndim and name not in _others(entry)
        }
        flat = {name: _flat(each, cut, f"{name} of {path}") for name, each in of_elements.items()}
        param = None if param is None else _flat(param, cut, path)
        shards[path] = [Shard(Part(0, cut.size), {**entry, **flat}, param)]
    return Saved(head, {path: here.get(path, Cut((), False)) for path in shards}, shards)


def _flat(array: Array, cut: Cut, what: str) -> Array:
    """Return an array as shards have it."""
    if not cut.is_cut:
        return array
    if array.shape != cut.shape:
        raise ValueError(f"{what}: expected an array of shape {cut.shape}, got {array.shape}")
    return array.reshape(-1)


def _others(entry: Mapping[str, Any]) -> set[str]:
    """Return the arrays that don't have an element for each of the parameter's."""
    return {"order", "rows_in_window", *_in_blocks(entry)}


def _in_blocks(entry: Mapping[str, Any]) -> dict[str, int]:
    """Return the arrays that stand beside others, with how many elements each number is for."""
    return {
        _formats.companion(entry["kept"], name): _core.codings[how]["elements"]
        for name, how in entry.get("kept", {}).items()
        if _formats.is_in_blocks(how)
    }


def _joined(shards: Sequence[Shard], part: Part, cut: Cut) -> Values:
    """Return the entry of a part of an array, from all that is known of it."""
    entry = dict(shards[0].state)
    if not cut.is_cut:
        return entry
    in_blocks = _in_blocks(entry)
    for name, array in entry.items():
        if not isinstance(array, np.ndarray) or not array.ndim:
            continue
        if name == "order":
            entry[name] = np.arange(int(part.size > 1))
            continue
        pieces = [(shard.part, shard.state[name]) for shard in shards]
        if name == "rows_in_window":
            length = math.prod(cut.shape[1:])
            ids = np.concatenate([its + own.first // length for own, its in pieces])
            first, end = part.first // length, part.end // length
            entry[name] = ids[(first <= ids) & (ids < end)] - first
            continue
        entry[name] = _concatenated(pieces, part, in_blocks.get(name, 1))
    return entry


def _concatenated(pieces: Sequence[tuple[Part, Any]], part: Part, elements: int) -> Array:
    """Return the numbers for a part's elements, of which each is for some."""
    found = []
    for its_part, array in pieces:
        first, end = max(part.first, its_part.first), min(part.end, its_part.end)
        if first < end:
            begin = (first - its_part.first) // elements
            found.append(array[begin : begin - (first - end) // elements])
    if not found:
        found = [pieces[0][1][:0]]
    joined: Array = found[0] if len(found) == 1 else np.concatenate(found)
    return joined


def name_of(token: str, rank: int) -> str:
    """Return the name of a rank's file of a saving."""
    return f"{_OURS}{token}-{rank:05d}.npz"


def write_shard(directory: str, name: str, shards: Mapping[str, Shard]) -> None:
    """Write what a rank holds."""
    arrays = {
        path: {
            "first": shard.part.first,
            "count": shard.part.size,
            "state": dict(shard.state),
            **({} if shard.param is None else {"parameter": shard.param}),
        }
        for path, shard in shards.items()
    }
    _checkpoint.write(os.path.join(directory, name), {"arrays": arrays})


def write_manifest(
    directory: str, names: Sequence[str], saved: Saved, extra: Values | None
) -> None:
    """Make a saving the one that counts, and delete the files of others, whole or not."""
    _checkpoint.write(
        os.path.join(directory, MANIFEST),
        {
            "shards": list(names),
            "head": saved.head,
            "arrays": {
                path: {"shape": list(cut.shape), "is_cut": cut.is_cut}
                for path, cut in saved.arrays.items()
            },
            "extra": extra,
        },
    )
    _checkpoint.remove_unfinished(directory)
    for other in os.listdir(directory):
        if other.startswith(_OURS) and other not in names:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, other))


def read(path: str, here: Mapping[str, Cut]) -> tuple[Saved, Any]:
    """Return a saved state, and what was saved as `extra`; arrays are maps of the files.

    Parameters
    ----------
    path
        A directory of shards, or a file of a plain optimizer.
    here
        The arrays that it is to be of, by path.

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If one is none of ours, damaged, or does not belong to the others.
    """
    if os.path.isdir(path):
        return _read_shards(path)
    state = _checkpoint.read(path, mapped=True)
    extra = state.pop("extra", None)
    return of_state(state, here), extra


def _read_shards(path: str) -> tuple[Saved, Any]:
    file = os.path.join(path, MANIFEST)
    manifest = _checkpoint.read(file, mapped=True)
    with _checkpoint.naming(file):
        arrays = {
            name: Cut(tuple(a["shape"]), a["is_cut"]) for name, a in manifest["arrays"].items()
        }
        names, head, extra = manifest["shards"], manifest["head"], manifest["extra"]
    shards: dict[str, list[Shard]] = {name: [] for name in arrays}
    for name in names:
        file = os.path.join(path, name)
        held = _checkpoint.read(file, mapped=True)
        with _checkpoint.naming(file):
            for array, its in held["arrays"].items():
                part = Part(its["first"], its["count"])
                shards[array].append(Shard(part, its["state"], its.get("parameter")))
    with _checkpoint.naming(path):
        return Saved(head, arrays, shards).checked(), extra


def merge(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Make of a directory that ranks have saved a file that any optimizer loads.

    Needs no MPI, and never has more than one array in memory with its state.

    Parameters
    ----------
    directory : str or os.PathLike
        What `Sharded.save` wrote.
    path : str or os.PathLike
        The file, as `Optimizer.save` writes it; replaced if it exists.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    ValueError
        If the directory holds no whole saving.
    """
    saved, extra = _read_shards(os.fspath(directory))
    later = _checkpoint.Later()

    def state_of(name: str) -> Values:
        def part(each: str) -> Array:
            array: Array = saved.whole_state_of(name)[each]
            return array

        return {
            each: later(array.dtype, array.shape, partial(part, each))
            if isinstance(array, np.ndarray)
            else array
            for each, array in saved.whole_state_of(name).items()
        }

    def param(name: str) -> Array:
        now = saved.whole_param(name)
        return later(now.dtype, now.shape, partial(saved.whole_param, name))

    tree = {**saved.head, "arrays": {name: state_of(name) for name in saved.arrays}}
    if saved.has_params:
        tree["parameters"] = {name: param(name) for name in saved.arrays}
    if extra is not None:
        tree["extra"] = extra
    _checkpoint.write(path, tree, later)
