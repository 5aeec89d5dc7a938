"""Beyond one process: an optimizer whose state is shared out among ranks, with the same bits."""

from instep.sharded._checkpoint import merge
from instep.sharded._optimizer import Sharded
from instep.sharded._ranks import Ranks, Window

__all__ = ["Ranks", "Sharded", "Window", "merge"]
