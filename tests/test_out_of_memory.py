"""Memory that runs out for real: each allocation of the process in turn is refused by malloc."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import refused_allocations
from operations import every_operation

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


FILES = ["save", "load"]
OTHERS = [what for what in every_operation() if what not in FILES]


# Without memory for its smallest objects Python itself never comes back; files take thousands.
@pytest.mark.parametrize(
    ("operations", "many", "allocator"),
    [
        (OTHERS, 1, "malloc"),
        (FILES, 1, "pymalloc"),
        ([*OTHERS, *FILES], 10**9, "pymalloc"),
    ],
    ids=["one", "one with files", "all from one on"],
)
def test_every_allocation_refused_in_turn(
    shim: Path, tmp_path: Path, operations: list[str], many: int, allocator: str
) -> None:
    """It raises, and nothing has changed, or it succeeds; then it works with memory again."""
    done = subprocess.run(
        [sys.executable, refused_allocations.__file__, shim, tmp_path, str(many), *operations],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONMALLOC": allocator,
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    tries = {what: int(count) for count, what in lines}
    assert list(tries) == operations
    assert min(tries.values()) > (allocator == "malloc")
