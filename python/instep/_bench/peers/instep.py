"""instep itself, called as a loop of one's own calls it."""

from __future__ import annotations

from collections.abc import Sequence

import instep
from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, repeated


class Instep(Peer):
    """The bound optimizer."""

    title = "instep"

    def __init__(self) -> None:
        self.version = instep.__version__

    def has(self, case: Case) -> bool:
        """Tell that every rule is here."""
        return True

    def set_num_threads(self, threads: int) -> None:
        """Set instep's number."""
        instep.set_num_threads(threads)

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Bind the rule's class."""
        params = case.ones()
        optimizer = case.rule.optimizer(params, **case.rule.settings)
        return Contender(repeated(optimizer.step, grads), lambda: params)
