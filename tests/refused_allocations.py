"""Operations whose allocations are refused in turn, for a process with a malloc that can refuse.

Run as a script: refused_allocations.py SHIM FOLDER MANY OPERATION...
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

from model import seen
from operations import every_operation


def refuse_in_turn(shim: ctypes.CDLL, folder: str, many: int, what: str) -> int:
    """Refuse so many allocations from the first on, from the second on, ...; return the tries."""

    def fresh() -> tuple[Any, Any]:
        make, operate = every_operation(folder)[what]
        return make(), operate

    for _ in range(2):  # the first time, Python and NumPy keep things for the next ones
        opt, operate = fresh()
        operate(opt)
        done = seen(opt)
    tries, failed = 0, True
    gc.disable()
    while failed:
        opt, operate = fresh()
        before, finished = seen(opt), False
        shim.refuse(tries, many)
        try:  # contextlib's way takes memory itself
            operate(opt)
            finished = True
        except BaseException:
            pass
        failed = shim.refused()
        assert seen(opt) == (done if finished else before), (what, tries, finished)
        if not finished:
            operate(opt)
            assert seen(opt) == done, (what, tries)
        tries += 1
    gc.enable()
    return tries


if __name__ == "__main__":
    library = ctypes.CDLL(sys.argv[1])
    library.refuse.argtypes = [ctypes.c_long, ctypes.c_long]
    library.refused.restype = ctypes.c_long
    for operation in sys.argv[4:]:
        print(refuse_in_turn(library, sys.argv[2], int(sys.argv[3]), operation), operation)
