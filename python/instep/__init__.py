"""The optimizer step for NumPy, at memory speed."""

from instep import interop as interop
from instep import kernels as kernels
from instep import schedules as schedules
from instep._array_rules import *  # noqa: F403
from instep._config import __version__ as __version__
from instep._config import get_num_threads as get_num_threads
from instep._config import set_num_threads as set_num_threads
from instep._config import show_config as show_config
from instep._group import Group as Group
from instep._optimizer import Optimizer as Optimizer
from instep._rules import *  # noqa: F403
