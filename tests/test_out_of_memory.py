"""Memory that runs out for real: each allocation of the process in turn is refused by malloc."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from operations import every_operation

TESTS = Path(__file__).parent
# The next `left` allocations succeed, and then so many fail.
SHIM = """
#include <errno.h>
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static long left = -1, failures = 0, failed = 0;
void refuse(long after, long many) { left = after; failures = many; failed = 0; }
long refused(void) { left = -1; return failed; }
static int fails(void) {
    if (left < 0) return 0;
    if (left > 0) return left--, 0;
    if (failures-- <= 0) return left = -1, 0;
    failed++;
    errno = ENOMEM;
    return 1;
}
void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t k, size_t n) { return fails() ? NULL : __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return fails() ? NULL : __libc_memalign(a, n); }
"""
CHILD = """
import ctypes, gc, sys
sys.path.insert(0, sys.argv[1])
from model import seen
from operations import every_operation

shim, what = ctypes.CDLL(sys.argv[2]), sys.argv[3]
shim.refuse.argtypes = [ctypes.c_long, ctypes.c_long]
shim.refused.restype = ctypes.c_long

def fresh():
    make, operate = every_operation(sys.argv[4])[what]
    return make(), operate

for _ in range(2):  # the first time, Python and NumPy keep things for the next ones
    opt, operate = fresh()
    operate(opt)
    done = seen(opt)
gc.disable()
tries, failed = 0, True
while failed:
    opt, operate = fresh()
    before, finished = seen(opt), False
    shim.refuse(tries, int(sys.argv[5]))
    try:
        operate(opt)
        finished = True
    except BaseException:
        pass
    failed = shim.refused()
    assert seen(opt) == (done if finished else before), (tries, finished)
    if not finished:
        operate(opt)
        assert seen(opt) == done, tries
    tries += 1
print(tries)
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or platform.libc_ver()[0] != "glibc":
        pytest.skip("needs a C compiler and glibc")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", library, folder / "shim.c"], check=True
    )
    return library


@pytest.mark.parametrize("what", every_operation())
@pytest.mark.parametrize("many", [1, 10**9])
def test_every_allocation_refused_in_turn(shim: Path, tmp_path: Path, what: str, many: int) -> None:
    """It raises, and nothing has changed, or it succeeds; then it works with memory again."""
    # Without memory for its smallest objects Python itself never comes back; files take thousands.
    all_objects = many == 1 and what not in ("save", "load")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, TESTS, shim, what, tmp_path, str(many)],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONMALLOC": "malloc" if all_objects else "pymalloc",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > all_objects
