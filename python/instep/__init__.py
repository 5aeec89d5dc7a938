"""The optimizer step for NumPy, at memory speed."""

from instep import kernels
from instep._config import __version__, get_num_threads, set_num_threads, show_config
from instep._group import Group
from instep._optimizer import Optimizer
from instep._rules import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Group",
    "Optimizer",
    "RMSprop",
    "__version__",
    "get_num_threads",
    "kernels",
    "set_num_threads",
    "show_config",
]
