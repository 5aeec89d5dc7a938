"""Timing in turns.

Every round times each contender once, in an order of its own and in one process, so that noise from
outside hits all of them alike: ratios are taken round by round, and instep and the limit take part
in every round. Steps from cold caches are timed one at a time, right after other memory was used.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from instep._bench import machine
from instep._bench.case import Array, Case
from instep._bench.cold import OtherMemory
from instep._bench.limit import LIMITS, ways
from instep._bench.peers.base import Contender, Peer
from instep._bench.peers.instep import Instep
from instep._bench.peers.numpy import NumPy
from instep._bench.workloads import Workload

ALWAYS: dict[str, Peer] = {"instep": Instep(), **LIMITS}

_BATCH_S = 0.005  # shorter steps are timed several at a time
_SLOW_S = 0.1  # longer ones are estimated from a single one
_TOO_SLOW_S = 10.0
_SETTLE_S = 0.01
_ROUNDS = 3  # at least
_SAMPLE = 4096
_TOLERANCE = 1e-5

Note = Callable[[str], None]


@dataclass
class Result:
    """What one case took.

    Attributes
    ----------
    case
        What was measured.
    steps
        How many steps each timing was of, by contender.
    rounds
        The microseconds of one step, by contender, in each round.
    """

    case: Case
    steps: dict[str, int] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def contenders(self) -> list[str]:
        """All that are compared with the limit: instep and its peers."""
        limits = ways(self.steps)
        return [name for name in self.steps if name not in limits]

    @property
    def limit(self) -> str:
        """The limit: that way to move the memory which took the least time, by its median."""
        limits = ways(self.steps)
        return min(limits, key=lambda name: float(np.median(self.times(name) or math.inf)))

    def times(self, name: str) -> list[float]:
        """Return the microseconds of a contender."""
        return [times[name] for times in self.rounds if name in times]

    def ratios(self, above: str, below: str) -> list[float]:
        """Return how many times as long one contender took as the other, by round."""
        both = [times for times in self.rounds if above in times and below in times]
        return [times[above] / times[below] for times in both]


def measure(
    result: Result, peers: Mapping[str, Peer], seconds: float, note: Note
) -> Iterator[float]:
    """Measure a case, and yield after each round which share of it is done.

    Parameters
    ----------
    result : Result
        Its `case` is measured; it grows by a round at a time.
    peers : mapping
        What to compare with, by name. Those without this case are passed over.
    seconds : float
        How long to measure, if that is enough for three rounds.
    note : callable
        Takes a sentence about whatever was left out.
    """
    case = result.case
    title = case.workload.name
    other = OtherMemory() if case.cold else None
    groups = _groups(case, {n: p for n, p in peers.items() if p.has(case)}, note)
    if not groups:
        return
    grads = case.gradients()
    expected = _expected(case, grads)
    for index, group in enumerate(groups):
        contenders: dict[str, Contender] = {}
        for name, peer in (ALWAYS | group).items():
            try:
                peer.set_num_threads(case.threads)
                contender = peer.bind(case, grads)
                _check_first_step(contender, expected)
                # NumPy has not every rule.
                expected = expected or [_sample(p).copy() for p in contender.params()]
            except Exception as error:
                # What a library raises is its own affair; instep and the limit must not fail.
                if name in ALWAYS:
                    raise
                note(f"{title}: {name} is left out: {error}")
            else:
                contenders[name] = contender
        turns = _turns(result, contenders, ALWAYS | group, other, seconds / len(groups), note)
        for share in turns:
            yield (index + share) / len(groups)
        del contenders, contender
        gc.collect()  # cycles in optimizers would keep these arrays beside the next group's


def _groups(case: Case, peers: Mapping[str, Peer], note: Note) -> list[dict[str, Peer]]:
    """Share out the peers to groups that fit, with instep and the limit, in half of the memory."""
    room = machine.available_bytes() / 2
    # All limits share their arrays.
    always = ALWAYS["instep"], next(iter(LIMITS.values()))
    needed = case.grad_bytes + sum(peer.bytes(case) for peer in always)
    if needed > room:
        note(
            f"{case.workload.name} is left out: it needs {needed / 1e9:,.1f} GB, and half of the "
            f"free memory is {room / 1e9:,.1f} GB"
        )
        return []
    groups: list[dict[str, Peer]] = [{}]
    used = needed
    for name, peer in peers.items():
        more = peer.bytes(case)
        if needed + more > room:
            note(
                f"{case.workload.name}: {name} is left out: together they need "
                f"{(needed + more) / 1e9:,.1f} GB, and half of the free memory is "
                f"{room / 1e9:,.1f} GB"
            )
            continue
        if used + more > room:
            groups.append({})
            used = needed
        groups[-1][name] = peer
        used += more
    return groups


def _expected(case: Case, grads: Sequence[Array]) -> list[Array]:
    """Return the first elements of all parameters after a step that NumPy makes in float64."""
    samples = [_sample(g).astype(np.float64) for g in grads]
    workload = Workload("samples", tuple(sample.shape for sample in samples))
    reference, small = NumPy(), Case(workload, case.rule, "float64", 1)
    if not reference.has(small):
        return []
    contender = reference.bind(small, samples)
    contender.run(1)
    return list(contender.params())


def _sample(array: Array) -> Array:
    return array.reshape(-1)[:_SAMPLE]


def _check_first_step(contender: Contender, expected: Sequence[Array]) -> None:
    """Make the first step and raise unless it was the rule's."""
    contender.run(1)
    for p, e in zip(contender.params(), expected, strict=False):
        difference = np.max(np.abs(_sample(p) - e), initial=0)
        if not difference <= _TOLERANCE:
            raise ArithmeticError(f"its first step is off by {difference:.1e}")


def _turns(
    result: Result,
    contenders: Mapping[str, Contender],
    peers: Mapping[str, Peer],
    other: OtherMemory | None,
    seconds: float,
    note: Note,
) -> Iterator[float]:
    threads = result.case.threads

    def turn(name: str, count: int) -> float:
        # Every time anew: contenders that share an OpenMP runtime change each other's number.
        peers[name].set_num_threads(threads)
        if threads > 1:  # the threads of the one before may still spin where this one's go
            time.sleep(_SETTLE_S)
        run, refill = contenders[name].run, contenders[name].refill
        if refill:
            refill()
        if other:
            other.use()
        elif count > 1 or refill:  # caches take several steps to forget what others have used
            run(count)
            if refill:
                refill()
        begin = time.perf_counter_ns()
        run(count)
        return (time.perf_counter_ns() - begin) / count / 1e9

    names = []
    for name in contenders:
        estimate = turn(name, 1)
        if estimate > _TOO_SLOW_S and name not in ALWAYS:
            note(f"{result.case.workload.name}: {name} is left out: a step takes {estimate:.0f} s")
            continue
        if estimate < _SLOW_S:
            estimate = min(estimate, turn(name, 1), turn(name, 1))
        single = other or contenders[name].refill
        result.steps[name] = 1 if single else max(1, round(_BATCH_S / estimate))
        names.append(name)

    spent = dict.fromkeys(names, 0.0)
    order = np.random.default_rng(0)  # whoever always follows the same one has what that leaves
    count = 0
    while waiting := [n for n in names if count < _ROUNDS or spent[n] < seconds / len(names)]:
        # A new round appears at once, so that an interrupted one is not lost.
        times: dict[str, float] = {}
        result.rounds.append(times)
        for name in order.permutation(names).tolist():
            if name in waiting or name in ALWAYS:
                begin = time.perf_counter()
                times[name] = 1e6 * turn(name, result.steps[name])
                spent[name] += time.perf_counter() - begin
        count += 1
        yield min(1.0, sum(spent.values()) / seconds)
