"""An optimizer whose parameters and state are in files."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np

from instep import _checkpoint, _core, _state
from instep._around import Around
from instep._binding import Binding
from instep._group import Group, Where, ignoring
from instep._grouping import Grouping
from instep._kinds import shown
from instep._optimizer import Optimizer
from instep._rule import Values
from instep.offload._pipeline import Memory, Piece, Pipeline
from instep.offload._store import (
    MANIFEST,
    Placed,
    Store,
    Stream,
    end_of,
    laid_out,
    read_fully,
    write_fully,
)

if TYPE_CHECKING:
    from instep.typing import Array, Arrays, Convention, Gradients

_PIECE = 1 << 20
"""Elements of a piece: 4 MiB of a float32 array."""
_SMALL = 16384
"""Arrays of no more elements stay in memory."""
_FORMAT = 1


_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def _in_turn(
    method: Callable[Concatenate[Streamed, _Given], _Result],
) -> Callable[Concatenate[Streamed, _Given], _Result]:
    """Let threads take turns in a method, which refuses forked processes: they get no turn."""

    @functools.wraps(method)
    def in_turn(self: Streamed, /, *given: _Given.args, **named: _Given.kwargs) -> _Result:
        with self._turn if self._store.is_ours else contextlib.nullcontext():
            return method(self, *given, **named)

    return in_turn


class Streamed(Around):
    """An optimizer whose parameters and state are in files, for models larger than memory.

    A step reads them a few pieces at a time, updates them, and writes them to a second generation
    of files; when all is on the disk, a manifest makes that one count. So every step is a
    checkpoint: after a crash at any moment the next one goes on from the last whole step, with the
    bits of an optimizer in memory.

    Parameters
    ----------
    rule : type
        A class of instep's, or a rule of one's own that is a formula; not one that sees whole
        arrays, such as Muon.
    directory : str or os.PathLike
        Where the files are. One that already holds a generation is gone on from: rule, options and
        structure must agree with it.
    params : ndarray or nesting of list, tuple and dict
        What the parameters are at first; they are not changed. Where the directory holds a
        generation, the structure only, whatever the arrays hold.
    state_only : bool, optional
        Whether `params` are the parameters, which stay in memory and are updated in place, as
        those of an optimizer in memory; the files have the state, and a copy of the parameters as
        they were after each step. Where the directory holds a generation, they become that.
    groups, ignore, convention, **options
        As for the rule itself; schedules are asked as there.

    Raises
    ------
    TypeError, ValueError
        As the rule's constructor does, or for a directory of another optimizer, or with files that
        are missing, cut off or foreign, or a manifest that is damaged.
    OSError
        If the directory cannot be used, is in use, or has no room for two generations: what a step
        needs is allocated here.

    Notes
    -----
    Arrays of at most 16,384 elements, numbers of whole arrays, and rows and columns of rules such
    as Adafactor stay in memory, and in the manifest. Rules with numbers for rows and columns have
    one array at a time in memory. Hyperparameters are attributes, as those of the rule. Arrays are
    kept in C order, whatever that of `params` is, and norms are summed in it.
    """

    _lacks = frozenset(
        {
            "apply_gradients",
            "averaged",
            "averages",
            "build",
            "copies",
            "eval_params",
            "exclude_from_weight_decay",
            "groups",
            "settle",
            "state",
            "swap_averages",
            "updated",
            "updates",
        }
    )

    _turn: threading.RLock
    _tree: _core.Tree
    _grouping: Grouping
    _constructed: Values
    _at_first: Values
    _store: Store
    _placed: list[Placed | None]
    _token: str
    _manifest: Values
    _pipeline: Pipeline | None

    def __init__(
        self,
        rule: type[Optimizer],
        directory: str | os.PathLike[str],
        params: Arrays,
        *,
        state_only: bool = False,
        groups: Sequence[Group] = (),
        ignore: Where = None,
        convention: Convention = "paper",
        **options: Any,
    ) -> None:
        if not (isinstance(rule, type) and issubclass(rule, Optimizer)):
            raise TypeError(f"rule: expected a class of instep's, got {shown(rule)}")
        if options.get("copies") is not None:
            raise ValueError(
                f"copies: expected none of what is in files, got {options['copies']!r}"
            )
        if rule._sees_whole_arrays():
            raise ValueError(
                f"rule: expected one that updates elements, got {rule.__name__}, which sees whole "
                "arrays at once; train those with an optimizer in memory"
            )
        inner = rule(groups=groups, ignore=ignore, convention=convention, **options)
        tree = _core.Tree(params, Group, ignoring(ignore), state_only)
        if not tree.leaves:
            raise ValueError("params: expected at least one array, got none")
        if state_only:
            _check_in_one_piece(tree)
        self._inner = inner
        self._state_only = state_only
        self._tree = tree
        self._grouping = Grouping.of(inner._variant, tree, inner._choosing)
        self._constructed = _plain_values(inner)
        self._at_first = dict(self._constructed)
        self._turn = threading.RLock()
        self._store = Store(os.path.abspath(os.fspath(directory)))
        self._pipeline = None
        try:
            self._placed = self._lay_out()
            if self._store.has_manifest:
                self._restore(self._checked_manifest())
            else:
                self._create()
        except BaseException:
            self.close()
            raise

    # Files ----------------------------------------------------------------------------------------

    def _whole_at_once(self) -> bool:
        return self._inner._variant.rule._info()["divisible"] is not None

    def _binding_of(self, k: int, param: Array) -> Binding:
        """Return a binding of some elements of an array: its state is what they start with."""
        grouping = replace(self._grouping, group_of=[self._grouping.group_of[k]])
        tree = _core.Tree([param], Group, None, True)
        return Binding(self._inner._variant, tree, self._inner._values, grouping)

    def _streams_of(self, k: int) -> list[Stream] | None:
        """Return what the files hold of an array's elements; None where it stays in memory."""
        leaf = self._tree.leaves[k]
        if leaf.size <= _SMALL:
            return None
        like = np.zeros(leaf.shape if self._whole_at_once() else 2, leaf.dtype)
        arrays = self._binding_of(k, like).arrays_of(0)
        return [
            Stream("", leaf.dtype),
            *(
                Stream(name, each.dtype)
                for name, each in arrays.items()
                if each.shape == like.shape
            ),
        ]

    def _lay_out(self) -> list[Placed | None]:
        """Return where arrays lie in the files."""
        found: list[tuple[int, int, Sequence[Stream]] | None] = []
        for k, leaf in enumerate(self._tree.leaves):
            streams = self._streams_of(k)
            piece = leaf.size if self._whole_at_once() else min(_PIECE, leaf.size)
            found.append(None if streams is None else (leaf.size, piece, streams))
        return laid_out(found)

    def _new_pipeline(self) -> Pipeline:
        """Return a pipeline with new addresses, in place of the one before."""
        if self._pipeline is not None:
            self._pipeline.close()
        memory = [
            [] if each is None else [Memory(each.size, dtype) for _, dtype in each.streams]
            for each in self._placed
        ]
        rounds: list[list[Piece]] = []
        filled = 0
        for k, each in enumerate(self._placed):
            for index in range(0 if each is None else each.pieces):
                assert each is not None
                count = each.elements(index)[1]
                if not rounds or filled + count > _PIECE:
                    rounds.append([])
                    filled = 0
                rounds[-1].append(Piece(k, index))
                filled += count
        kept = [
            leaf.reshape(-1) if self._state_only and placed else None
            for leaf, placed in zip(self._tree.leaves, self._placed, strict=True)
        ]
        pipeline = Pipeline(self._store, self._placed, memory, kept, rounds)
        self._pipeline = pipeline
        return pipeline

    def _create(self) -> None:
        """Write the first generation."""
        self._token = os.urandom(16).hex()
        self._store.create(end_of(self._placed))
        pipeline = self._new_pipeline()
        beside = [self._write_first(pipeline, k) for k in range(len(self._placed))]
        self._store.sync()
        self._store.mark(self._token)
        small = [np.array(leaf) if leaf.size <= _SMALL else None for leaf in self._tree.leaves]
        values = self._inner._values
        self._inner._install(values, self._bind(pipeline, values, self._grouping, small, beside))
        self._keep(self._as_manifest())

    def _write_first(self, pipeline: Pipeline, k: int) -> dict[str, Array]:
        """Write what an array and its state are at first; return what stays in memory."""
        leaf, placed = self._tree.leaves[k], self._placed[k]
        if placed is None:
            return {}
        beside: list[dict[str, Array]] = []
        flat = leaf.reshape(-1)
        for index in range(placed.pieces):
            first, count = placed.elements(index)
            piece = np.array(flat[first : first + count])
            if self._whole_at_once():
                piece = piece.reshape(leaf.shape)
            arrays = {"": piece, **self._binding_of(k, piece).arrays_of(0)}
            for (name, _), memory in zip(placed.streams, pipeline.memory[k], strict=True):
                memory.array[first : first + count] = arrays.pop(name).reshape(-1)
            pipeline.transfer(write_fully, Piece(k, index), 0)
            pipeline.give_back(Piece(k, index))
            beside.append(arrays)
        # What is beside blocks of elements goes on from piece to piece.
        is_piecewise = not self._whole_at_once()
        return {
            name: np.concatenate([each[name] for each in beside])
            if array.ndim and is_piecewise
            else array
            for name, array in beside[0].items()
        }

    def _bind(
        self,
        pipeline: Pipeline,
        values: Values,
        grouping: Grouping,
        small: Sequence[Array | None],
        beside: Sequence[dict[str, Array]],
    ) -> Binding:
        """Return a binding of addresses for what is in the files, and of arrays for all else."""
        leaves, state = [], []
        for k, (like, placed) in enumerate(zip(self._tree.leaves, self._placed, strict=True)):
            if placed is None:
                leaves.append(like if self._state_only else small[k])
                state.append(beside[k])
                continue
            param, *others = (memory.array.reshape(like.shape) for memory in pipeline.memory[k])
            leaves.append(like if self._state_only else param)
            names = [name for name, _ in placed.streams[1:]]
            state.append({**dict(zip(names, others, strict=True)), **beside[k]})
        sharing: _core.Sharing = {
            "partner": pipeline,
            "is_shared": False,
            "wholes": [(0, leaf.size) for leaf in self._tree.leaves],
            "row_lengths": [0] * len(self._tree.leaves),
            "spans": [
                [(k, *self._elements(k, index)) for k, index in pieces]
                for pieces in pipeline.rounds
            ],
        }
        ignore = ignoring(self._inner._ignore)
        tree = _core.Tree(self._tree.unflatten(leaves), Group, ignore, True)
        return Binding(self._inner._variant, tree, values, grouping, sharing=sharing, state=state)

    def _elements(self, k: int, piece: int) -> tuple[int, int]:
        placed = self._placed[k]
        assert placed is not None
        return placed.elements(piece)

    def _in_files(self, k: int) -> set[str]:
        placed = self._placed[k]
        return set() if placed is None else {name for name, _ in placed.streams}

    def _as_manifest(self) -> Values:
        """Return what a directory is to tell of this moment."""
        pipeline, binding = self._opened("step"), self._inner._bound("step")
        state = _state.dump(self._inner._values, binding, copy=False)
        for k, path in enumerate(self._tree.paths):
            in_files = self._in_files(k)
            entry = state["arrays"][path]
            state["arrays"][path] = {n: v for n, v in entry.items() if n not in in_files}
        return {
            **self._description(),
            "token": self._token,
            "generations": list(pipeline.generations),
            "state": state,
            "parameters": {
                path: binding.tree.leaves[k]
                for k, path in enumerate(self._tree.paths)
                if self._placed[k] is None
            },
        }

    def _keep(self, manifest: Values) -> None:
        """Make what a manifest tells count."""
        self._store.write_manifest(manifest)
        self._manifest = copy.deepcopy(manifest)

    def _remember(self) -> None:
        """Let a step that fails go back to this moment, whatever the disk gives then."""
        self._manifest = copy.deepcopy(self._as_manifest())

    def _description(self) -> Values:
        """Return what a directory and an optimizer must have in common."""
        variant = self._inner._variant
        return {
            "format": _FORMAT,
            "rule": variant.rule.__name__,
            "formula": variant.rule._formula,
            "convention": variant.convention,
            "options": self._constructed,
            "groups": {
                str(k): _state._plain(each) for k, each in enumerate(self._grouping.overrides)
            },
            "group_of": list(self._grouping.group_of),
            "arrays": {
                path: {
                    "shape": list(leaf.shape),
                    "dtype": leaf.dtype.name,
                    "in_files": [[n, d.str] for n, d in placed.streams] if placed else [],
                    "piece": placed.piece if placed else 0,
                }
                for path, leaf, placed in zip(
                    self._tree.paths, self._tree.leaves, self._placed, strict=True
                )
            },
        }

    def _checked_manifest(self) -> Values:
        """Return the manifest of the directory, and open its files."""
        manifest: Values = self._store.read_manifest()
        path = self._store.path(MANIFEST)
        _check_alike(manifest, self._description(), f"{path}: manifest")
        with _checkpoint.naming(path):
            self._token = manifest["token"]
        self._manifest = copy.deepcopy(manifest)
        self._store.open(self._token, end_of(self._placed))
        return manifest

    def _restore(self, manifest: Values) -> None:
        """Become what the manifest tells."""
        inner, state = self._inner, manifest["state"]
        variant = inner._variant
        with _checkpoint.naming(self._store.path(MANIFEST)):
            values = _state._restored(variant, state["hyperparameters"], inner._values, "state")
            overrides = [
                _state._restored(variant, state["groups"][str(k)], each, "state['groups']")
                for k, each in enumerate(self._grouping.overrides)
            ]
            grouping = replace(self._grouping, overrides=overrides)
            paths, entries = self._tree.paths, state["arrays"]
            small = [manifest["parameters"].get(path) for path in paths]
            beside = [
                {n: a for n, a in entries[path].items() if isinstance(a, np.ndarray)}
                for path in paths
            ]
            for each in beside:
                each.pop("order", None)
            pipeline = self._new_pipeline()
            pipeline.generations = list(manifest["generations"])
            binding = self._bind(pipeline, values, grouping, small, beside)
            counters = _state.counters_of(state, binding)
            memories = _state._remembered(values, binding, state, False)
        for schedule, memory in memories:
            schedule.load_state_dict(memory)
        inner._install(values, binding, (), counters)
        if self._state_only:
            self._put_back(pipeline, small)

    def _put_back(self, pipeline: Pipeline, small: Sequence[Array | None]) -> None:
        """Make the parameters in memory those that count."""
        try:
            for k, leaf in enumerate(self._tree.leaves):
                if self._placed[k] is None:
                    leaf[...] = small[k]
                else:
                    pipeline.put_back(k)
        except BaseException:  # state without its parameters is of no use
            pipeline.close()
            self._pipeline = None
            raise

    # Hyperparameters ------------------------------------------------------------------------------

    @_in_turn
    def _assign(self, name: str, value: Any) -> None:
        is_other_kind = False
        inner: Any = self._inner
        if name in inner._variant.rule._hyperparameters():
            checked = inner._variant.checked(name, value)
            is_other_kind = callable(checked) != callable(inner._values[name])
            binding = inner._bound(name)
            values = {**inner._values, name: checked}
            inner._variant.check_together(values)
            if Binding._needs(inner._variant, values, binding.overrides)[0] != binding._uses:
                raise ValueError(
                    f"{name}: expected no change that takes other state than the files have; make "
                    "another optimizer in another directory, and load this one's file"
                )
        super()._assign(name, value)
        if is_other_kind:  # with a schedule, or without, it is to be constructed from now on
            first, now = self._at_first.get(name), _plain_values(inner)[name]
            both_numbers = isinstance(first, (int, float)) and isinstance(now, (int, float))
            self._constructed[name] = first if both_numbers else now
        self._remember()

    @_in_turn
    def freeze(self, where: Where) -> None:
        """Ignore the gradients of arrays from now on, as `Optimizer.freeze`."""
        self._inner.freeze(where)
        self._remember()

    @_in_turn
    def unfreeze(self, where: Where) -> None:
        """Take gradients of arrays again; see `freeze`."""
        self._inner.unfreeze(where)
        self._remember()

    # Stepping -------------------------------------------------------------------------------------

    def step(self, grads: Gradients, *, missing: Literal["error", "none"] = "error") -> None:
        """Update all parameters and their state; on return the update is on the disk.

        Parameters
        ----------
        grads, missing
            As for `Optimizer.step`.

        Raises
        ------
        TypeError, ValueError
            As for `Optimizer.step`. Nothing has changed then.
        RuntimeError
            If the optimizer is closed.
        OSError
            If reading or writing fails. The last whole step counts then, here and on the disk; with
            `state_only`, if the parameters cannot be read back, the optimizer is closed.
        """
        self._change("step", lambda: self._inner.step(grads, missing=missing))

    def flush(self) -> bool:
        """Update with what an unfinished window holds, as `Optimizer.flush`."""
        return bool(self._change("flush", self._inner.flush))

    @_in_turn
    def _change(self, what: str, change: Callable[[], object]) -> object:
        """Carry out a step, and make it count; where that fails, become what counts."""
        pipeline = self._opened(what)
        pipeline.begin()
        try:
            result = change()
            if pipeline.has_begun:
                self._commit()
        except BaseException:
            if pipeline.has_begun:
                pipeline.abandon()
                self._restore(copy.deepcopy(self._manifest))
            raise
        return result

    @_in_turn
    def _rewrite(self) -> None:
        """Read all that is in the files and write it to the other generation, with nothing changed.

        What a step takes without its arithmetic: for measurements.
        """
        pipeline = self._opened("rewrite")
        pipeline.begin()
        everything = [k for k, placed in enumerate(self._placed) if placed is not None]
        for span in range(len(pipeline.rounds)):
            pipeline.bring("update", False, span, everything)
        self._commit()

    def _commit(self) -> None:
        """Make the generation that was written the one that counts."""
        pipeline = self._opened("step")
        pipeline.finish()
        if pipeline.written:
            self._store.sync()
        pipeline.generations = [
            1 - each if k in pipeline.written else each
            for k, each in enumerate(pipeline.generations)
        ]
        self._keep(self._as_manifest())

    def _opened(self, what: str) -> Pipeline:
        pipeline: Pipeline | None = self._pipeline
        if pipeline is None:
            raise RuntimeError(f"{what}: expected an open optimizer; this one is closed")
        if not self._store.is_ours:
            raise RuntimeError(
                f"{what}: expected the process that has opened the files, got one that it forked; "
                "close the optimizer there, and open the directory here"
            )
        return pipeline

    # State ----------------------------------------------------------------------------------------

    @property
    @_in_turn
    def params(self) -> Any:
        """The parameters after the last step, in their structure, as read-only maps of the files.

        Ask for them again after each step: a later one writes over them. With `state_only` they are
        the arrays that were given.
        """
        pipeline = self._opened("params")
        if self._state_only:
            return self._inner.params
        leaves = []
        for k, like in enumerate(self._tree.leaves):
            placed = self._placed[k]
            if placed is None:
                leaf = self._inner._bound("params").tree.leaves[k].view()
            else:
                leaf = self._store.map(pipeline.generations[k], placed).reshape(like.shape)
            leaf.flags.writeable = False
            leaves.append(leaf)
        return self._tree.unflatten(leaves)

    @_in_turn
    def state_dict(self) -> Values:
        """Return the state as an optimizer in memory has it: all of it, in memory."""
        state = self._state(params=False)
        for entry in state["arrays"].values():
            for name, each in entry.items():
                if isinstance(each, _InFiles):
                    entry[name] = each.read()
                elif isinstance(each, np.ndarray):
                    entry[name] = each.copy()
        return state

    @_in_turn
    def save(
        self,
        path: str | os.PathLike[str],
        params: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a file that any optimizer of the rule loads, with one array in memory at a time.

        Parameters
        ----------
        path, params, extra
            As for `Optimizer.save`.
        """
        state = self._state(params=params)
        later = _checkpoint.Later()
        for arrays in (*state["arrays"].values(), state.get("parameters", {})):
            for name, each in arrays.items():
                if isinstance(each, _InFiles):
                    arrays[name] = later(each.dtype, each.shape, each.read)
        if extra is not None:
            state["extra"] = dict(extra)
        _checkpoint.write(path, state, later)

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take over what `state_dict` of this or of an optimizer in memory returned.

        Raises
        ------
        TypeError, ValueError
            As `Optimizer.load_state_dict`. Nothing has changed then.
        """
        self._take_over(dict(d))

    def load(self, path: str | os.PathLike[str]) -> Any:
        """Take over what `save` of this or of an optimizer in memory wrote; return its `extra`."""
        state = _checkpoint.read(path, mapped=True)
        extra = state.pop("extra", None)
        self._take_over(state)
        return extra

    @_in_turn
    def close(self) -> None:
        """Keep what was assigned or frozen since the last step, and close the files.

        Other optimizers may use the directory then.
        """
        pipeline = self._pipeline
        try:
            is_ours = self._store.is_ours and self._inner._binding is not None
            if pipeline is not None and is_ours:
                self._keep(self._as_manifest())
        finally:
            if pipeline is not None:
                pipeline.close()
                self._pipeline = None
            self._store.close()

    def __enter__(self) -> Streamed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Streamed in {self._store.directory}: {self._inner!r}>"

    def _state(self, *, params: bool) -> Values:
        """Return the state, with `_InFiles` for what is there."""
        pipeline = self._opened("state")
        binding = self._inner._bound("state")
        state = _state.dump(self._inner._values, binding, copy=False, params=params)
        for k, path in enumerate(self._tree.paths):
            placed = self._placed[k]
            if placed is None:
                continue
            shape = self._tree.leaves[k].shape
            for number, (name, dtype) in enumerate(placed.streams):
                each = _InFiles(pipeline, k, number, shape, dtype)
                if number:
                    state["arrays"][path][name] = each
                elif params and not self._state_only:
                    state["parameters"][path] = each
        return state

    @_in_turn
    def _take_over(self, state: Values) -> None:
        """Write another state into the files."""
        pipeline = self._opened("load")
        ours = self._write_checked(state)
        pipeline.begin()
        written = set()
        try:
            for k, path in enumerate(self._tree.paths):
                placed = self._placed[k]
                if placed is None:
                    continue
                entry = state["arrays"][path]
                params = state.get("parameters")
                for index in range(placed.pieces):
                    first, count = placed.elements(index)
                    if params is None and self._state_only:
                        pipeline.take(Piece(k, index))
                    elif params is None:
                        pipeline.transfer(read_fully, Piece(k, index), pipeline.generations[k])
                    for (name, _), memory in zip(placed.streams, pipeline.memory[k], strict=True):
                        source = entry[name] if name else None if params is None else params[path]
                        if source is not None:
                            memory.array[first : first + count] = source.reshape(-1)[
                                first : first + count
                            ]
                    pipeline.transfer(write_fully, Piece(k, index), 1 - pipeline.generations[k])
                    pipeline.give_back(Piece(k, index))
                written.add(k)
            self._store.sync()
            ours["generations"] = [
                1 - each if k in written else each for k, each in enumerate(pipeline.generations)
            ]
            self._keep(ours)
        finally:
            self._restore(copy.deepcopy(self._manifest))

    def _write_checked(self, state: Values) -> Values:
        """Return the manifest that a state makes; raise for one that is not of this optimizer."""
        inner, binding = self._inner, self._inner._bound("load")
        if state.get("format") != _state.FORMAT:
            raise ValueError(
                f"state['format']: expected {_state.FORMAT}, got {state.get('format')!r}; an "
                "optimizer in memory loads those of earlier releases, and saves one of this"
            )
        self._check_uses(state)
        arrays = state.get("arrays")
        if not isinstance(arrays, Mapping) or arrays.keys() != set(self._tree.paths):
            raise ValueError(
                f"state['arrays']: expected {sorted(self._tree.paths)}, got {shown(arrays)}"
            )
        like, checked = dict[str, Any](), dict[str, Any]()
        for k, path in enumerate(self._tree.paths):
            if not isinstance(arrays[path], Mapping):
                raise TypeError(f"state['arrays'][{path!r}]: expected a dict")
            here, entry = binding.arrays_of(k), dict(arrays[path])
            stand_ins = {}
            for name in self._in_files(k) - {""}:
                _check_like(entry.pop(name, None), here[name], f"{name} of {path}")
                stand_ins[name] = np.broadcast_to(np.zeros((), here[name].dtype), here[name].shape)
            like[path] = entry
            checked[path] = {**entry, **stand_ins}
        params: Any = state.get("parameters")
        for path, leaf in zip(self._tree.paths, self._tree.leaves, strict=True):
            if params is not None:
                _check_like(params.get(path), leaf, path)
        plain = {name: value for name, value in state.items() if name != "parameters"}
        _state.load(inner._values, binding, {**plain, "arrays": checked})
        small = {
            path: binding.tree.leaves[k] if params is None else np.array(params[path])
            for k, path in enumerate(self._tree.paths)
            if self._placed[k] is None
        }
        ours = {**plain, "arrays": like}
        return {**self._description(), "token": self._token, "state": ours, "parameters": small}

    def _check_uses(self, state: Values) -> None:
        """Raise ValueError for hyperparameters that take other state than the files have."""
        inner, binding = self._inner, self._inner._bound("load")
        saved = state.get("hyperparameters")
        values = _state._restored(inner._variant, saved, inner._values, "state['hyperparameters']")
        uses, _ = Binding._needs(inner._variant, values, binding.overrides)
        if uses != binding._uses:
            raise ValueError(
                "state['hyperparameters']: expected none that take other state than the files "
                f"have, got {shown(saved)}; make an optimizer with them in another directory"
            )


class _InFiles:
    """An array in the files."""

    def __init__(
        self,
        pipeline: Pipeline,
        array: int,
        stream: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self._pipeline, self._array, self._stream = pipeline, array, stream
        self.shape, self.dtype = shape, dtype

    def read(self) -> Array:
        """Return it in memory."""
        pipeline, k = self._pipeline, self._array
        placed = pipeline.arrays[k]
        assert placed is not None
        found = np.empty(placed.size, self.dtype)
        for index in range(placed.pieces):
            first, count = placed.elements(index)
            pipeline.transfer(read_fully, Piece(k, index), pipeline.generations[k])
            found[first : first + count] = pipeline.memory[k][self._stream].array[
                first : first + count
            ]
            pipeline.give_back(Piece(k, index))
        return found.reshape(self.shape)


def _plain_values(inner: Optimizer) -> Values:
    """Return the hyperparameters as they were constructed."""
    return _state._plain(_state._saved(inner._variant, inner._values))


def _check_in_one_piece(tree: _core.Tree) -> None:
    """Raise ValueError for parameters whose pieces are not next to each other."""
    for path, leaf in zip(tree.paths, tree.leaves, strict=True):
        if leaf.size > _SMALL and not leaf.flags.c_contiguous:
            raise ValueError(
                f"{path}: expected a C-contiguous array with state_only=True, got strides "
                f"{leaf.strides}; numpy.ascontiguousarray(...) makes one"
            )


def _check_like(array: Any, like: Array, what: str) -> None:
    is_array = isinstance(array, np.ndarray)
    given = f"{array.dtype} of shape {array.shape}" if is_array else shown(array)
    if not is_array or (array.shape, array.dtype) != (like.shape, like.dtype):
        raise ValueError(f"{what}: expected {like.dtype} of shape {like.shape}, got {given}")


def _check_alike(there: Any, here: Any, what: str) -> None:
    """Raise ValueError where a directory was made by another optimizer."""
    if isinstance(here, dict) and isinstance(there, dict):
        for name in here:
            if name not in there:
                raise ValueError(
                    f"{what}: expected {name!r}, which this optimizer has, got {shown(there)}"
                )
            _check_alike(there[name], here[name], f"{what}[{name!r}]")
        return
    is_same = np.array_equal(there, here) if isinstance(here, np.ndarray) else there == here
    if not is_same:
        raise ValueError(
            f"{what}: expected {shown(here)}, as this optimizer is constructed, got "
            f"{shown(there)}; construct it as the first one in the directory, and assign what is "
            "to change"
        )
