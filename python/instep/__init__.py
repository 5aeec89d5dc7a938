"""The optimizer step for NumPy, at memory speed."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from instep import kernels as kernels
from instep._array_rules import *  # noqa: F403
from instep._config import __version__ as __version__
from instep._config import get_num_threads as get_num_threads
from instep._config import set_num_threads as set_num_threads
from instep._config import show_config as show_config
from instep._group import Group as Group
from instep._optimizer import Optimizer as Optimizer
from instep._rules import *  # noqa: F403

if _TYPE_CHECKING:
    from instep import interop as interop
    from instep import schedules as schedules
else:

    def __getattr__(name: str) -> object:
        """Import what not every program needs when it is asked for."""
        if name in ("interop", "schedules"):
            return _import_module(f"instep.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*globals(), "interop", "schedules"]
