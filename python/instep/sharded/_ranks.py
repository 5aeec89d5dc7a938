"""What ranks ask of whatever connects them, and how they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from instep.typing import Array

    Bytes = NDArray[np.uint8]


class Window(NamedTuple):
    """Memory that all ranks see."""

    memory: list[Bytes]
    """That of each rank, in bytes."""
    free: Callable[[], None]
    """Gives it back; all ranks call it."""


@runtime_checkable
class Ranks(Protocol):
    """What connects ranks: all that `Sharded` needs to know of MPI, or of something else.

    Every rank calls the same functions in the same order.

    Attributes
    ----------
    rank, size : int
        Which rank this is, and how many there are.
    """

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in their order; small objects that can be pickled."""
        ...

    def add_up(self, numbers: Array) -> None:
        """Make of float64 numbers their sum over all ranks, of which one at most has not zero."""
        ...

    def window(self, size: int) -> Window | None:
        """Return memory of which each rank has so many bytes, and all see all of it.

        What is written before a `barrier` is seen after it. None where ranks have no such memory.
        """
        ...

    def barrier(self) -> None:
        """Wait for all ranks."""
        ...

    def post(
        self, sends: Sequence[Bytes | None], receives: Sequence[Bytes | None]
    ) -> Callable[[], None]:
        """Begin to send bytes to each rank and to receive some; None for none, and for this rank.

        Returns
        -------
        callable
            Waits for all of them.
        """
        ...

    def close(self) -> None:
        """Give back what there is between ranks."""
        ...


def ranks_of(comm: Any) -> Ranks:
    """Return what connects ranks for a communicator of mpi4py, or for None: MPI.COMM_WORLD.

    Raises
    ------
    TypeError
        If it is neither that nor `Ranks`.
    ImportError
        If there is no mpi4py.
    """
    if isinstance(comm, Ranks):
        return comm
    from instep.sharded import _mpi

    return _mpi.MPIRanks(comm)


def agree(ranks: Ranks, told: Any, error: BaseException | None = None) -> list[Any]:
    """Return what each rank tells, or raise on all of them where one has an error.

    Parameters
    ----------
    ranks
        What connects them.
    told
        What this one tells the others.
    error
        Its error.

    Raises
    ------
    BaseException
        This rank's own error, on itself.
    RuntimeError
        On all others, with the rank and the message.
    """
    text = None if error is None else f"{type(error).__name__}: {error}"
    answers = ranks.gather((text, told))
    if error is not None:
        raise error
    for rank, (theirs, _) in enumerate(answers):
        if theirs is not None:
            raise RuntimeError(f"rank {rank} has raised {theirs}")
    return [answer for _, answer in answers]


def agree_on(
    ranks: Ranks, told: dict[str, Any], value: Any = None, error: BaseException | None = None
) -> list[Any]:
    """Return the value of each rank, or raise on all of them where one tells something else.

    Parameters
    ----------
    ranks, error
        As for `agree`.
    told
        What all ranks must have in common; "call" is what they do.
    value
        What they need not.

    Raises
    ------
    ValueError
        For the first thing that is not the same on all ranks.
    BaseException
        As `agree`.
    """
    answers = agree(ranks, (told, value), error)
    answers = [each if isinstance(each, tuple) else ({"call": "another"}, None) for each in answers]
    check_same([there for there, _ in answers])
    return [each for _, each in answers]


def check_same(answers: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError for the first thing that ranks do not have in common."""
    first = answers[0]
    for rank, answer in enumerate(answers):
        for name in [*first, *(name for name in answer if name not in first)]:
            if name not in first or name not in answer or answer[name] != first[name]:
                raise ValueError(
                    f"rank {rank}: {name}: expected {_shown(first, name)}, as on rank 0, got "
                    f"{_shown(answer, name)}"
                )


def _shown(answer: dict[str, Any], name: str) -> str:
    return str(answer[name])[:200] if name in answer else "none"
