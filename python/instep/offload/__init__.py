"""Beyond one memory: an optimizer whose parameters and state are in files."""

from instep.offload._optimizer import Streamed

__all__ = ["Streamed"]
