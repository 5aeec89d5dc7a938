"""An optimizer whose state is shared out among ranks."""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from instep import _core, _formats, _state
from instep._around import Around
from instep._binding import Binding
from instep._group import Group, Where, ignoring, selected
from instep._grouping import Grouping
from instep._kinds import Choice, shown
from instep._optimizer import Optimizer
from instep._rows import Rows
from instep._rule import Values
from instep.sharded import _checkpoint
from instep.sharded._division import Part, divide, rounds, unit_of
from instep.sharded._exchange import (
    NO_BATCHES,
    Exchange,
    Held,
    common_formats,
    formats_of,
    without_rows,
)
from instep.sharded._memory import memory_like
from instep.sharded._ranks import Ranks, agree, agree_on, ranks_of
from instep.sharded._rows import Tables, added, is_of_rows

if TYPE_CHECKING:
    from instep.sharded._rows import Ids
    from instep.typing import Array, Arrays, Convention, Gradients

_ROUND_BYTES = 1 << 22
"""Of gradients that a rank has in memory at a time, from all ranks together."""
_SEEN = 8
"""Rounds are so many times as long where all ranks see each other's gradients."""


class Sharded(Around):
    """An optimizer whose state is shared out among ranks, with the bits of a single process.

    Every rank has all parameters and gradients of its own, and 1/N of the state: ZeRO's first
    stage. In a step ranks get the gradients of what they hold from all others, add them up in the
    order of ranks, update, and send the parameters back, a round at a time. All ranks construct
    it, and call each method that says so, together.

    Parameters
    ----------
    rule : type
        A class of instep's, or a rule of one's own.
    params : ndarray or nesting of list, tuple and dict
        The arrays to update, the same on all ranks: copy those of rank 0 before. C-contiguous ones
        are cut at multiples of 16,384 elements; others, and all of rules that see whole arrays or
        rows and columns, are held by one rank each.
    comm : mpi4py.MPI.Comm or Ranks, optional
        What connects ranks; `MPI.COMM_WORLD` by default.
    reduce : {"mean", "sum"}, optional
        What becomes of all ranks' gradients, or microbatches.
    shared : bool, optional
        Whether parameters and gradients are in memory that all ranks of a node see, so that nothing
        is sent: `params` of this object are new arrays, once in the node, that begin with the
        numbers of those given, and its `grads` are there to put each rank's gradients in.
    groups, ignore, convention, **options
        As for the rule itself. Schedules are asked on every rank, and must answer alike. Arrays for
        which `sparse` is given, by a group or for all, may have `Rows` as gradients, and are cut
        between rows.

    Raises
    ------
    TypeError, ValueError
        As the rule's constructor does, or on all ranks where one of them has another rule, option,
        structure, shape, dtype or other numbers in its parameters.
    RuntimeError
        On the other ranks, where one has raised.
    ImportError
        If there is no mpi4py.

    Notes
    -----
    Hyperparameters are attributes, as those of the rule; assign them on all ranks. So are
    `iterations`, `state`, `averages`, `groups` and the like, of what this rank holds. A gradient
    laid out otherwise than its parameter gives the same updates, but its norm is summed in the
    parameter's order.
    """

    _lacks = frozenset(
        {"apply_gradients", "build", "copies", "swap_averages", "updated", "updates"}
    )

    _ranks: Ranks
    _tree: _core.Tree
    _parts: list[list[Part]]
    _is_cut: list[bool]
    _row_lengths: list[int]
    _is_mean: bool
    _is_connected_by_us: bool
    _exchange: Exchange | None
    _grads: list[list[Array]]
    _params: Any

    def __init__(
        self,
        rule: type[Optimizer],
        params: Arrays,
        *,
        comm: Any = None,
        reduce: str = "mean",
        shared: bool = False,
        groups: Sequence[Group] = (),
        ignore: Where = None,
        convention: Convention = "paper",
        **options: Any,
    ) -> None:
        self._ranks = ranks = ranks_of(comm)
        self._is_connected_by_us = ranks is not comm
        error: BaseException | None = None
        told: Values = {}
        try:
            if not (isinstance(rule, type) and issubclass(rule, Optimizer)):
                raise TypeError(f"rule: expected a class of instep's, got {shown(rule)}")
            self._is_mean = Choice("mean", "sum").check("reduce", reduce) == "mean"
            if options.get("copies") is not None:
                raise ValueError(f"copies: expected none on ranks, got {options['copies']!r}")
            inner = rule(groups=groups, ignore=ignore, convention=convention, **options)
            tree = _core.Tree(params, Group, ignoring(ignore), True)
            if not tree.leaves:
                raise ValueError("params: expected at least one array, got none")
            grouping = Grouping.of(inner._variant, tree, inner._choosing)
            takes_rows = ["sparse" in {**options, **own} for own in grouping.overrides]
            told = {"reduce": reduce, "shared": shared, **_described(inner, tree, grouping)}
        except BaseException as raised:
            error = raised
        agree_on(ranks, {"call": "Sharded(...)", **told}, None, error)
        self._inner = inner
        self._exchange = None
        self._grads = []
        self._tree = self._in_common_memory(tree) if shared else tree
        is_other = shared or any(tree.groups)
        self._params = self._tree.unflatten(self._tree.objects) if is_other else params
        self._row_lengths = [
            _row_length(leaf) if takes_rows[group] else 0
            for leaf, group in zip(self._tree.leaves, grouping.group_of, strict=True)
        ]
        self._bind(grouping)

    def _in_common_memory(self, tree: _core.Tree) -> _core.Tree:
        """Return the parameters in memory that all ranks see, with room for gradients beside."""
        ranks = self._ranks
        memory = memory_like(ranks, tree.leaves)
        self._grads = memory.grads
        for grad in memory.grads[ranks.rank]:
            grad[...] = 0
        if ranks.rank == 0:
            for param, leaf in zip(memory.params, tree.leaves, strict=True):
                param[...] = leaf
        ranks.barrier()
        ignore = ignoring(self._inner._ignore)
        return _core.Tree(tree.unflatten(memory.params), Group, ignore, True)

    def _bind(self, grouping: Grouping) -> None:
        """Share arrays out, and bind the rank's optimizer to its own parts."""
        inner, leaves, ranks = self._inner, self._tree.leaves, self._ranks
        rule = inner._variant.rule
        sees_more = rule._sees_whole_arrays() or rule._info()["divisible"] is not None
        units = [
            0 if sees_more or not leaf.flags.c_contiguous else unit_of(leaf.size, length or 1)
            for leaf, length in zip(leaves, self._row_lengths, strict=True)
        ]
        self._parts = parts = divide([leaf.size for leaf in leaves], units, ranks.size)
        self._is_cut = is_cut = [unit > 0 for unit in units]
        if ranks.size == 1:
            binding = Binding.new(
                inner._variant,
                self._tree.params,
                inner._values,
                grouping=grouping,
                ignore=inner._ignore,
            )
            return inner._install(inner._values, binding)
        mine = parts[ranks.rank]
        # Fewer rounds where nearly nothing is sent.
        most = (_SEEN if self._grads else 1) * _ROUND_BYTES // (4 * ranks.size)
        all_rounds = [rounds(each, is_cut, most) for each in parts]
        count = max(map(len, all_rounds))
        for each in all_rounds:
            each += [[] for _ in range(count - len(each))]
        held = [_held(leaf, cut) for leaf, cut in zip(leaves, is_cut, strict=True)]
        tables = Tables(ranks, leaves, parts, self._row_lengths)
        exchange = Exchange(ranks, leaves, held, parts, all_rounds, self._grads, tables)
        segments = [
            _segment(leaf, part, cut) for leaf, part, cut in zip(leaves, mine, is_cut, strict=True)
        ]
        sharing: _core.Sharing = {
            "partner": exchange,
            "is_shared": True,
            "wholes": [
                (part.first if part.size else 0, leaf.size)
                for part, leaf in zip(mine, leaves, strict=True)
            ],
            "row_lengths": self._row_lengths,
            "spans": [
                [(k, first, count) for k, first, count in pieces]
                for pieces in all_rounds[ranks.rank]
            ],
        }
        tree = _core.Tree(self._tree.unflatten(segments), Group, ignoring(inner._ignore), True)
        binding = Binding(inner._variant, tree, inner._values, grouping, sharing=sharing)
        self._exchange = exchange
        return inner._install(inner._values, binding)

    # Hyperparameters ------------------------------------------------------------------------------

    @property
    def params(self) -> Any:
        """The parameters, whole, as they were given; with `shared` in memory that all ranks see."""
        return self._params

    @property
    def grads(self) -> Any:
        """With `shared`, arrays for this rank's gradients, where the other ranks read them.

        What is in them when all ranks `step` with them counts. Other arrays that are given to
        `step` are copied there.
        """
        if not self._grads:
            raise ValueError("grads: expected an optimizer that was made with shared=True")
        return self._tree.unflatten(self._grads[self._ranks.rank])

    @property
    def rank(self) -> int:
        """Which of the ranks this is."""
        return self._ranks.rank

    @property
    def parts(self) -> Any:
        """What this rank holds of each array, in their structure, as (first element, how many)."""
        return self._tree.unflatten([tuple(part) for part in self._parts[self._ranks.rank]])

    def freeze(self, where: Where) -> None:
        """Ignore the gradients of arrays from now on, as `Optimizer.freeze`; on all ranks."""
        self._inner.freeze(self._paths_of(where, "freeze"))

    def unfreeze(self, where: Where) -> None:
        """Take gradients of arrays again; see `freeze`."""
        self._inner.unfreeze(self._paths_of(where, "unfreeze"))

    def exclude_from_weight_decay(
        self, var_list: Iterable[Array] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Give arrays a `weight_decay` of 0, as `Optimizer.exclude_from_weight_decay`."""
        where = [*(() if var_list is None else var_list), *(() if var_names is None else var_names)]
        paths = self._paths_of(where, "exclude_from_weight_decay")
        self._inner.exclude_from_weight_decay(var_names=paths)

    def _paths_of(self, where: Where, what: str) -> list[str]:
        paths = self._tree.paths
        meant = selected(where, paths, self._tree.leaves, what)
        return [path for path, is_meant in zip(paths, meant, strict=True) if is_meant]

    # Stepping -------------------------------------------------------------------------------------

    def step(
        self,
        grads: Gradients | None = None,
        *,
        microbatches: Sequence[Gradients] | None = None,
        missing: Literal["error", "none"] = "error",
    ) -> None:
        """Update all parameters; all ranks call it.

        Parameters
        ----------
        grads : ndarray or nesting of list, tuple and dict, optional
            This rank's gradients, as for `Optimizer.step`; Rows for arrays for which `sparse` was
            given, on all ranks. All ranks' are added up in the order of ranks, in what the rule
            computes in.
        microbatches : sequence, optional
            Instead, several such gradients, as many as this rank has, or none. All ranks' are added
            up in their order, those of rank 0 first: the sum does not depend on how they are shared
            out. Their mean is that of all ranks' microbatches.
        missing : {"error", "none"}, optional
            As for `Optimizer.step`.

        Raises
        ------
        TypeError, ValueError
            If anything is wrong with this rank's gradients or schedules, or differs between ranks.
            Nothing has changed then, on no rank.
        RuntimeError
            On the other ranks, with the rank and its message.
        """
        exchange = self._exchange
        if exchange is None:
            return self._step_alone(grads, microbatches, missing)
        exchange.open()
        counts = [1] * self._ranks.size
        try:
            batches = self._read(grads, microbatches, missing)
            if microbatches is None:
                formats = formats_of(batches[0])
            else:
                counts, formats = exchange.count(batches)
            is_update = self._updates_next()
            rows = exchange.bring_rows(batches, formats, self._window() if is_update else {})
            formats = without_rows(formats)
            own = exchange.begin(
                batches, counts, formats, is_update=is_update, by_rows=self._changes_rows_alone()
            )
            divisor = float(sum(counts)) if self._is_mean else 1.0
            self._inner._step_on_sums(formats, divisor, own, rows)
        except BaseException as error:
            exchange.refuse(error)
            raise
        exchange.finish()
        return None

    def _updates_next(self) -> bool:
        """Return whether the next step updates, or only accumulates."""
        window = self._inner._bound("step").core.counters()["window"]
        return bool(window + 1 >= self._inner.gradient_accumulation_steps)

    def _window(self) -> dict[int, list[int] | None]:
        """Return the rows of arrays that an unfinished window has gradients of; None for all."""
        if not self._inner.accumulated_calls:
            return {}
        counters = self._inner._bound("step").core.counters()
        return {
            k: counters["rows_in_window"][k]
            for k, is_in_window in enumerate(counters["in_window"])
            if is_in_window
        }

    def _changes_rows_alone(self) -> bool:
        """Return whether an update leaves other rows of an array than those named as they are."""
        inner = self._inner
        return inner._variant.rule._info()["elementwise"] or not self._is_exact()

    def _is_exact(self) -> bool:
        """Return whether other rows than those named have updates, too, in some group."""
        inner = self._inner
        overrides = inner._bound("step").overrides
        return any(own.get("sparse", inner.sparse) == "exact" for own in overrides)

    def flush(self) -> bool:
        """Update with the mean of what an unfinished window holds, as `Optimizer.flush`."""
        exchange = self._exchange
        if exchange is None:
            return self._inner.flush()
        exchange.open()
        none = [None] * len(self._tree.leaves)
        if not exchange.agree_on_flush(self._inner.accumulated_calls):
            return False
        try:
            exchange.begin([none], [1] * self._ranks.size, [*none], is_update=True)
            has_updated = self._inner.flush()
        except BaseException as error:
            exchange.refuse(error)
            raise
        exchange.finish()
        return has_updated

    def _read(self, grads: Any, microbatches: Any, missing: str) -> list[list[Any]]:
        """Return the gradients of each batch as leaves, checked."""
        if (grads is None) == (microbatches is None):
            raise TypeError("step: expected either grads or microbatches")
        is_lenient = Choice("error", "none").check("missing", missing) == "none"
        self._tree.check_unchanged()
        given = [grads] if microbatches is None else list(microbatches)
        batches = [self._tree.gradients(each, is_lenient) for each in given]
        for batch in batches:
            for k, grad in enumerate(batch):
                if isinstance(grad, Rows):
                    batch[k] = self._checked_rows(k, grad)
        frozen = self._inner._bound("step").core.counters()["frozen"]
        return [
            [None if is_frozen else grad for grad, is_frozen in zip(batch, frozen, strict=True)]
            for batch in batches
        ]

    def _checked_rows(self, array: int, rows: Rows) -> Any:
        """Return a gradient of rows, or the array that it is of one without elements."""
        leaf = self._tree.leaves[array]
        if leaf.size == 0 and leaf.shape[0]:
            return np.empty(leaf.shape, rows.values.dtype)
        self._check_takes_rows(array, "gradient")
        if np.may_share_memory(leaf, rows.values):
            raise ValueError(
                f"gradient for {self._tree.paths[array]}: expected values apart from the "
                "parameter, got some that share memory with it; pass a copy"
            )
        return rows

    def _check_takes_rows(self, array: int, what: str) -> None:
        """Raise ValueError for rows of an array that is not shared out by rows."""
        if not self._row_lengths[array]:
            raise ValueError(
                f"{what} for {self._tree.paths[array]}: expected none of rows, as ranks may hold "
                'parts of them; give sparse="lazy" or "exact" for the array, in a Group or for all'
            )

    def _step_alone(self, grads: Any, microbatches: Any, missing: Literal["error", "none"]) -> None:
        """Make a step of the only rank."""
        batches = self._read(grads, microbatches, missing)
        if microbatches is None:
            return self._inner.step(grads, missing=missing)
        if not batches:
            raise NO_BATCHES
        sums: list[Any] = []
        for leaf, format_name, *each in zip(
            self._tree.leaves, common_formats(batches), *batches, strict=True
        ):
            sums.append(None)
            if format_name is None:
                continue
            dtype = _formats.computed(leaf.dtype)
            if is_of_rows(format_name):
                divisor = len(each) if self._is_mean else 1
                sums[-1] = added(each, leaf.shape[1:], dtype, divisor)
                continue
            first, *others = [grad.astype(dtype, order="K", copy=False) for grad in each]
            for k, grad in enumerate(others):
                first = np.add(first, grad, out=first) if k else np.asarray(np.add(first, grad))
            if others and self._is_mean:
                first /= dtype.type(len(each))
            sums[-1] = first
        return self._inner.step(self._tree.unflatten(sums))

    def settle(self, ids: Any = None) -> None:
        """Let rows have the updates that they have missed, as `Optimizer.settle`.

        All ranks call it, each with the ids that it is to look up: afterwards all have them.
        """
        exchange = self._exchange
        if exchange is None:
            return self._inner.settle(ids)
        if ids is None:
            with self._together("settle()") as done:
                self._inner.settle()
            done()
            return exchange.publish()
        exchange.open()
        try:
            named = {k: np.array(its) for k, its in enumerate(self._tree.ids(ids)) if its}
            for k in named:
                self._check_takes_rows(k, "ids")
        except BaseException as error:
            exchange.refuse(error)
            raise
        return exchange.settle(named, self._settle)

    def _let_all_have_the_same(self) -> None:
        """Settle on all ranks what is to be read, if rows may have missed something."""
        if any(self._row_lengths) and (self._is_exact() or self._inner.use_ema):
            self.settle()

    def _settle(self, ids: Mapping[int, Ids]) -> None:
        """Settle rows of the parts that this rank holds."""
        self._inner._settle(self._tree.unflatten([ids.get(k) for k in range(len(self._parts[0]))]))

    # State ----------------------------------------------------------------------------------------

    def state_dict(self) -> Values:
        """Return the state as a plain optimizer has it, whole, on every rank; all ranks call it.

        For what fits into memory; `save` never brings it together.
        """
        inner = self._inner
        if self._exchange is None:
            return inner.state_dict()
        self._let_all_have_the_same()
        with inner._hold():
            saved = self._saved(params=False).copied()
        gathered = agree_on(self._ranks, {"call": "state_dict()"}, saved.shards)
        shards = {path: [each[path][0] for each in gathered] for path in saved.arrays}
        all_shards = saved._replace(shards=shards).checked()
        arrays = {path: all_shards.whole_state_of(path) for path in saved.arrays}
        return {**saved.head, "arrays": arrays}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take over what `state_dict` of this or of a plain optimizer returned; all ranks call it.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `Optimizer.load_state_dict`; on all ranks. Nothing has changed then.
        """
        self._take_over(lambda: (_checkpoint.of_state(dict(d), self._cuts()), None), False)

    def save(
        self,
        directory: str | os.PathLike[str],
        params: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write everything that training needs to go on; all ranks call it.

        Each rank writes what it holds, and then rank 0 a manifest that makes it count: a crash of
        any of them at any moment leaves what was saved before, or all of this.

        Parameters
        ----------
        directory : str or os.PathLike
            The directory, the same on all ranks; made if it does not exist.
        params, extra
            As for `Optimizer.save`; `extra` is that of rank 0.

        Raises
        ------
        TypeError, ValueError, RuntimeError, OSError
            As `Optimizer.save`; on the other ranks a RuntimeError.
        """
        place = os.fspath(directory)
        self._let_all_have_the_same()
        with self._together("save(directory)") as done:
            if self._ranks.rank == 0:
                os.makedirs(place, exist_ok=True)
        token = done(value=os.urandom(8).hex())[0]
        names = [_checkpoint.name_of(token, rank) for rank in range(self._ranks.size)]
        with self._together("save(directory)") as done, self._inner._hold():
            saved = self._saved(params=params)
            shards = {path: shards[0] for path, shards in saved.shards.items()}
            _checkpoint.write_shard(place, names[self._ranks.rank], shards)
        done()
        with self._together("save(directory)") as done:
            if self._ranks.rank == 0:
                of_extra = None if extra is None else dict(extra)
                _checkpoint.write_manifest(place, names, saved, of_extra)
        done()

    def load(self, directory: str | os.PathLike[str]) -> Any:
        """Take over what any number of ranks, or a plain optimizer, have saved; all ranks call it.

        Parameters
        ----------
        directory : str or os.PathLike
            A directory that `save` wrote, or a file of `Optimizer.save`.

        Returns
        -------
        dict or None
            What was saved as `extra`.

        Raises
        ------
        TypeError, ValueError, OSError, RuntimeError
            As `Optimizer.load`; on the other ranks a RuntimeError. Nothing has changed then.
        """
        place = os.fspath(directory)
        return self._take_over(lambda: _checkpoint.read(place, self._cuts()), True)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Any]:
        """Put the averages in the place of the parameters, on all ranks, for a ``with`` block.

        Yields
        ------
        ndarray or nesting of list, tuple and dict
            `params`, which hold the averages.
        """
        self._wait()
        try:
            with self._inner.averaged():
                self._publish()
                try:
                    yield self.params
                finally:
                    self._wait()
        finally:
            self._publish()

    def eval_params(self) -> Any:
        """Return what a schedule-free optimizer evaluates with, whole; all ranks call it."""
        inner: Any = self._inner
        mine = inner.eval_params()
        if self._exchange is None:
            return mine
        tree = _core.Tree(mine, Group, ignoring(self._inner._ignore), True)
        gathered = agree_on(self._ranks, {"call": "eval_params()"}, tree.leaves)
        wholes = []
        for k, leaf in enumerate(self._tree.leaves):
            pieces = [each[k] for each in gathered]
            is_whole = not self._is_cut[k] and leaf.size
            joined = max(pieces, key=np.size) if is_whole else np.concatenate(pieces)
            wholes.append(joined.reshape(leaf.shape))
        return self._tree.unflatten(wholes)

    def close(self) -> None:
        """Give back the communicator and the memory between ranks; all ranks call it.

        MPI has few of them. What `comm` was given as other than a communicator stays open, and the
        arrays of `shared` ones stay until the program ends.
        """
        if self._exchange is not None:
            self._exchange.close()
        if self._is_connected_by_us:
            self._ranks.close()

    def __enter__(self) -> Sharded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:  # else others may be anywhere
            self.close()

    def _wait(self) -> None:
        if self._exchange is not None:
            self._exchange.wait()

    def _publish(self) -> None:
        if self._exchange is not None:
            self._exchange.publish()

    @contextlib.contextmanager
    def _together(self, call: str) -> Iterator[Callable[..., list[Any]]]:
        """Do something on all ranks: what is yielded tells of it when all have done it."""
        error: list[BaseException] = []
        told = {"call": call}

        def done(others: Values | None = None, value: Any = None) -> list[Any]:
            return agree_on(self._ranks, {**told, **(others or {})}, value, *error)

        try:
            yield done
        except BaseException as raised:
            error.append(raised)

    def _cuts(self) -> dict[str, _checkpoint.Cut]:
        """Return the arrays by path, and whether they are cut."""
        arrays = zip(self._tree.paths, self._tree.leaves, self._is_cut, strict=True)
        return {path: _checkpoint.Cut(leaf.shape, is_cut) for path, leaf, is_cut in arrays}

    def _saved(self, *, params: bool) -> _checkpoint.Saved:
        """Return what this rank holds: arrays of the optimizer itself."""
        inner = self._inner
        state = inner._tree("save", params=params)
        mine = self._parts[self._ranks.rank]
        shards = {}
        for path, part, is_cut in zip(self._tree.paths, mine, self._is_cut, strict=True):
            param = state["parameters"][path] if params else None
            entry = dict(state["arrays"][path])
            if is_cut and self._exchange is None:
                flat = _checkpoint.of_state({"arrays": {path: entry}}, self._cuts())
                entry = dict(flat.shards[path][0].state)
                param = None if param is None else param.reshape(-1)
            shards[path] = [_checkpoint.Shard(part, entry, param)]
        head = {key: v for key, v in state.items() if key not in ("arrays", "parameters")}
        return _checkpoint.Saved(head, self._cuts(), shards)

    def _take_over(self, find: Callable[[], tuple[_checkpoint.Saved, Any]], params: bool) -> Any:
        """Load what a function finds, on all ranks or on none."""
        told: Values = {}
        self._let_all_have_the_same()
        with self._together("load(...)") as done:
            saved, extra = find()
            state, wholes = self._own(saved, params=params)
            told = {f"state[{name!r}]": repr(value) for name, value in saved.head.items()}
        done(told)

        def agree_to_go_on(error: BaseException | None) -> None:
            agree(self._ranks, None, error)

        self._inner._take_over(state, params=params and saved.has_params, agree=agree_to_go_on)
        for leaf, whole in wholes:
            leaf[...] = whole
        return extra

    def _own(self, saved: _checkpoint.Saved, *, params: bool) -> tuple[Values, list[Any]]:
        """Return this rank's own state, and what all parameters become."""
        mine = self._inner._tree("load", params=False)
        paths, leaves = self._tree.paths, self._tree.leaves
        if saved.shards.keys() != set(paths):
            raise ValueError(f"state: expected the arrays {sorted(paths)}, got {[*saved.shards]}")
        arrays, own_params, wholes = {}, {}, []
        for k, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
            part = self._parts[self._ranks.rank][k]
            there = saved.arrays[path]
            if there != (leaf.shape, self._is_cut[k]):
                raise ValueError(
                    f"{path}: expected an array of shape {leaf.shape}, "
                    f"{'C-contiguous' if self._is_cut[k] else 'held by one rank'}, got {there}"
                )
            arrays[path] = (
                saved.state_of(path, part) if self._exchange else saved.whole_state_of(path)
            )
            if _state.ROWS in arrays[path]:
                self._check_takes_rows(k, "the window")
            if not part.size and leaf.size and not self._is_cut[k]:
                # Somebody else holds it: what is known of all arrays comes with it.
                here = dict(mine["arrays"][path])
                here.pop(_state.ROWS, None)
                known = {*self._inner._variant.rule._info()["scalars"]}
                told = {
                    name: each
                    for name, each in arrays[path].items()
                    if name in known or not (isinstance(each, np.ndarray) or name == "kept")
                }
                if _state.ROWS in arrays[path]:
                    told[_state.ROWS] = arrays[path][_state.ROWS][:0]
                arrays[path] = {**here, **told}
            if params and saved.has_params:
                whole = saved.whole_param(path)
                if whole.dtype != leaf.dtype:
                    raise ValueError(f"{path}: expected {leaf.dtype}, got {whole.dtype}")
                wholes.append((leaf, whole))
                own_params[path] = (
                    _segment(whole, part, self._is_cut[k]) if self._exchange else whole
                )
        state = {**saved.head, "arrays": arrays}
        return ({**state, "parameters": own_params} if own_params else state), wholes

    def __repr__(self) -> str:
        return f"<Sharded on rank {self._ranks.rank} of {self._ranks.size}: {self._inner!r}>"


def _held(leaf: Array, is_cut: bool) -> Held:
    """Return in which order the engine visits an array: that of its memory."""
    axes = sorted(
        range(leaf.ndim), key=lambda axis: (leaf.shape[axis] <= 1, -abs(leaf.strides[axis]))
    )
    return Held(axes, is_cut)


def _row_length(leaf: Array) -> int:
    """Return how many elements a row has; 1 where there is no row."""
    if leaf.ndim == 0:
        return 0
    return math.prod(leaf.shape[1:]) if leaf.shape[0] else 1


def _segment(leaf: Array, part: Part, is_cut: bool) -> Array:
    """Return a part of an array as one: a view, in one dimension where it may be cut."""
    if is_cut:
        flat: Array = leaf.reshape(-1)[part.first : part.end]
        return flat
    return leaf if part.size == leaf.size else np.empty(0, leaf.dtype)


def _described(inner: Optimizer, tree: _core.Tree, grouping: Grouping) -> Values:
    """Return what all ranks must have in common."""
    variant = inner._variant
    plain = _state._plain(inner._values)
    told: Values = {"rule": variant.rule.__name__, "formula": variant.rule._formula}
    told |= {"convention": variant.convention, "ignore": inner._ignore is not None}
    told |= {name: repr(value) for name, value in plain.items()}
    told["groups"] = [repr(_state._plain(each)) for each in grouping.overrides]
    told["paths"] = tree.paths
    for path, leaf, group in zip(tree.paths, tree.leaves, grouping.group_of, strict=True):
        told[path] = f"{leaf.dtype} of shape {leaf.shape} and strides {leaf.strides}"
        told[f"group of {path}"] = group
        told[f"checksum of the numbers in {path}"] = zlib.crc32(
            np.ascontiguousarray(leaf).view(np.uint8).data
        )
    return told
