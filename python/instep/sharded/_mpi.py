"""Ranks that MPI connects: the only module that knows mpi4py."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep.sharded._ranks import Window

if TYPE_CHECKING:
    from instep.sharded._ranks import Bytes
    from instep.typing import Array


def _check_cores(ranks: int) -> None:
    """Warn where each of a node's ranks has a core, though there are more."""
    if not hasattr(os, "sched_getaffinity") or "OMP_NUM_THREADS" in os.environ:
        return
    cores = os.cpu_count() or 1
    if len(os.sched_getaffinity(0)) == 1 and cores >= 2 * ranks:
        warnings.warn(
            f"each rank is bound to one of {cores} cores, as Open MPI does by itself, so that a "
            f"step has one thread; mpiexec --map-by slot:PE={cores // ranks} gives it "
            f"{cores // ranks}, and --bind-to none all of them",
            stacklevel=5,
        )


class MPIRanks:
    """Ranks of a communicator, through one of its own.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or None
        The communicator; None for `MPI.COMM_WORLD`.

    Raises
    ------
    ImportError
        If there is no mpi4py.
    TypeError
        If it is something else.
    """

    def __init__(self, comm: Any) -> None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise ImportError(
                "instep.sharded needs mpi4py and an MPI, such as pip install mpi4py mpich"
            ) from error
        comm = MPI.COMM_WORLD if comm is None else comm
        if not isinstance(comm, MPI.Intracomm):
            raise TypeError(
                "comm: expected a communicator of mpi4py, or an object with the methods of "
                f"instep.sharded.Ranks, got {type(comm).__name__}"
            )
        self._mpi = MPI
        self._comm = comm.Dup()
        self.rank: int = self._comm.Get_rank()
        self.size: int = self._comm.Get_size()
        node = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        self._is_one_node = self._comm.allreduce(node.Get_size()) == self.size**2
        if node.Get_rank() == 0:
            _check_cores(node.Get_size())
        node.Free()
        self._windows: list[Any] = []

    def gather(self, value: Any) -> list[Any]:
        if self._comm == self._mpi.COMM_NULL:
            raise RuntimeError("expected an open optimizer; this one is closed")
        return list(self._comm.allgather(value))

    def add_up(self, numbers: Array) -> None:
        self._comm.Allreduce(self._mpi.IN_PLACE, numbers, self._mpi.SUM)

    def window(self, size: int) -> Window | None:
        if not self._is_one_node:
            return None
        window = self._mpi.Win.Allocate_shared(size, 1, comm=self._comm)
        window.Lock_all(self._mpi.MODE_NOCHECK)
        memory: list[Any] = [window.Shared_query(rank)[0] for rank in range(self.size)]
        self._windows.append(window)

        def free() -> None:
            self._windows.remove(window)
            window.Unlock_all()
            window.Free()

        return Window([np.frombuffer(each, np.uint8) for each in memory], free)

    def close(self) -> None:
        if self._comm != self._mpi.COMM_NULL:
            self._comm.Free()

    def barrier(self) -> None:
        for window in self._windows:
            window.Sync()
        self._comm.Barrier()
        for window in self._windows:
            window.Sync()

    def post(
        self, sends: Sequence[Bytes | None], receives: Sequence[Bytes | None]
    ) -> Callable[[], None]:
        requests = [
            self._comm.Irecv(memory, rank)
            for rank, memory in enumerate(receives)
            if memory is not None
        ]
        requests += [
            self._comm.Isend(memory, rank)
            for rank, memory in enumerate(sends)
            if memory is not None
        ]
        return lambda: self._mpi.Request.Waitall(requests)
