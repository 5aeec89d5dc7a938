"""DeepSpeed's Adam for processors, which is compiled when it is used for the first time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from instep._bench.case import Array, Case
from instep._bench.peers.base import Contender, Peer, library
from instep._bench.peers.torch import parameters, stepping


class DeepSpeed(Peer):
    """``DeepSpeedCPUAdam``."""

    title = "DeepSpeed"
    rules = ("Adam", "AdamW")
    dtypes = ("float32",)

    def __init__(self) -> None:
        self._torch = library("torch")
        with redirect_stdout(sys.stderr):  # where it would log among the tables
            self._adam = library("deepspeed.ops.adam").DeepSpeedCPUAdam
            self.version = library("deepspeed").__version__
            self._adam([self._torch.ones(1)])

    def set_num_threads(self, threads: int) -> None:
        """Set the number of the OpenMP runtime that it shares with PyTorch."""
        self._torch.set_num_threads(threads)

    def bind(self, case: Case, grads: Sequence[Array]) -> Contender:
        """Make tensors and their optimizer."""
        params = parameters(self._torch, grads)
        config = case.rule.config
        optimizer = self._adam(
            params,
            lr=config["learning_rate"],
            betas=(config["beta_1"], config["beta_2"]),
            eps=config["epsilon"],
            weight_decay=config["weight_decay"],
            adamw_mode=case.rule.name == "AdamW",
        )
        return stepping(optimizer, params)
