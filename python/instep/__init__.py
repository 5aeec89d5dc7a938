"""The optimizer step for NumPy, at memory speed.

``opt = instep.Adam(params)`` binds an optimizer to arrays, ``opt.step(grads)`` updates them in
place. `help(instep.Adam)` tells of one rule. `instep.schedules` has learning rates that change,
`instep.kernels` the rules as functions on bare arrays, `instep.interop` the way from and to the
state of other frameworks, `instep.typing` types for annotations.
"""

import typing as _typing
from importlib import import_module as _import_module

from instep import _array_rules, _documentation, _rules
from instep import kernels as kernels
from instep._array_rules import *  # noqa: F403
from instep._config import __version__ as __version__
from instep._config import get_num_threads as get_num_threads
from instep._config import set_num_threads as set_num_threads
from instep._config import show_config as show_config
from instep._group import Group as Group
from instep._optimizer import Optimizer as Optimizer
from instep._rows import Rows as Rows
from instep._rule import FAMILIES as _FAMILIES
from instep._rules import *  # noqa: F403

_RULES = [name for each in (_rules, _array_rules) for name in vars(each)["__all__"]]
_ON_DEMAND = ("gallery", "interop", "schedules", "typing")

# Assigned this way, type checkers see every rule without a list of them.
globals()["__all__"] = [
    "Group",
    "Optimizer",
    "Rows",
    "gallery",
    "get_num_threads",
    "interop",
    "kernels",
    "rule",
    "schedules",
    "set_num_threads",
    "show_config",
    *_RULES,
]

if __doc__:  # not with python -OO
    __doc__ += f"\n{_documentation.listed(_FAMILIES, map(globals().get, _RULES))}\n"

if _typing.TYPE_CHECKING:
    from instep import gallery as gallery
    from instep import interop as interop
    from instep import schedules as schedules
    from instep import typing as typing
    from instep._formulas.definition import rule as rule
else:

    def __getattr__(name: str) -> object:
        """Import what not every program needs when it is asked for."""
        if name in _ON_DEMAND:
            return _import_module(f"instep.{name}")
        if name == "rule":
            from instep._formulas.definition import rule

            return rule
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        names = {*globals()["__all__"], *_ON_DEMAND}
        return sorted(names | {name for name in globals() if name.startswith("__")})
