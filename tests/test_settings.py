"""What holds for the whole process: threads, instruction set, mode of arithmetic, the module."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from processes import config, python

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = instep.get_num_threads()
    yield
    instep.set_num_threads(before)


@pytest.mark.usefixtures("restored_threads")
def test_number_of_threads() -> None:
    for n in (1, 2, 5):
        instep.set_num_threads(n)
        assert instep.get_num_threads() == n
    for bad in (0, -1, 1.5, "2", None):
        with pytest.raises((TypeError, ValueError)):
            untyped.set_num_threads(bad)
    assert instep.get_num_threads() == 5


@pytest.mark.usefixtures("restored_threads")
def test_threadpoolctl_sees_and_limits_the_pool() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    assert "openmp" in [pool["user_api"] for pool in threadpoolctl.threadpool_info()]
    instep.set_num_threads(2)
    with threadpoolctl.threadpool_limits(1):
        assert instep.get_num_threads() == 1
    assert instep.get_num_threads() == 2


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"INSTEP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"INSTEP_NUM_THREADS": "3", "OMP_NUM_THREADS": "4"}, 3),
    ],
)
def test_number_of_threads_from_the_environment(variables: dict[str, str], expected: int) -> None:
    done = python("import instep; print(instep.get_num_threads())", **variables)
    assert done.stdout.split() == [str(expected)], done.stderr


def test_a_limit_that_is_there_before_the_first_call_holds() -> None:
    pytest.importorskip("threadpoolctl")
    done = python(
        "import instep\n"
        "from threadpoolctl import threadpool_limits\n"
        "with threadpool_limits(1, user_api='openmp'):\n"
        "    print(instep.get_num_threads())\n",
        OMP_NUM_THREADS="3",
    )
    with_openmp = "no OpenMP" not in config()
    assert done.stdout.split() == ["1"] or not with_openmp, done.stderr


def test_a_number_of_threads_that_is_set_under_a_limit() -> None:
    pytest.importorskip("threadpoolctl")
    done = python(
        "import instep\n"
        "from threadpoolctl import threadpool_limits\n"
        "def limited():\n"
        "    with threadpool_limits(1, user_api='openmp'):\n"
        "        print(instep.get_num_threads())\n"
        "with threadpool_limits(1, user_api='openmp'):\n"
        "    instep.set_num_threads(2)\n"
        "limited()\n"
        "print(instep.get_num_threads())\n",
        OMP_NUM_THREADS="3",
    )
    with_openmp = "no OpenMP" not in config()
    assert done.stdout.split() == ["1", "2"] or not with_openmp, done.stderr


@pytest.mark.parametrize("bad", ["abc", "0", "-2", "2x", "1025", "99999999999999999999"])
def test_a_bad_number_of_threads_fails_the_import(bad: str) -> None:
    done = python(
        "try:\n    import instep\nexcept ImportError as error:\n    print('refused', error)",
        INSTEP_NUM_THREADS=bad,
    )
    assert done.stdout.startswith(f"refused INSTEP_NUM_THREADS={bad}: expected"), done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity")
def test_default_number_of_threads_respects_affinity() -> None:
    done = python(
        "import os\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "import instep\n"
        "print(instep.get_num_threads())"
    )
    assert done.stdout.split() == ["1"], done.stderr


def test_unknown_instruction_set_fails_the_import() -> None:
    done = python(
        "try:\n    import instep\nexcept ImportError as error:\n    print('refused', error)",
        INSTEP_ISA="z80",
    )
    assert done.stdout.startswith("refused"), done.stderr
    assert "z80" in done.stdout


def test_subnormals_count_as_zero_and_the_mode_is_restored() -> None:
    p = np.array([1e-40, 1.0, -1e-40], np.float32)
    instep.SGD(p, learning_rate=1.0).step(np.array([0.0, 1e-40, 0.0], np.float32))
    assert p.tolist() == [0.0, 1.0, 0.0]
    tiny = np.array([1e-40], np.float32)
    assert (tiny * np.float32(0.5))[0] > 0.0


def test_show_config_and_version(capfd: pytest.CaptureFixture[str]) -> None:
    instep.show_config()
    text = capfd.readouterr().out
    assert instep.__version__ in text
    assert np.__version__ in text
    for word in ("compiler", "instruction", "threads", "numpy"):
        assert word in text.lower()


def test_show_config_says_how_far_ahead_steps_fetch() -> None:
    steps = (
        "import numpy as np, instep\n"
        "opt, g = instep.Adam(np.zeros(1 << 18, np.float32)), np.ones(1 << 18, np.float32)\n"
        "for _ in range(5):\n    opt.step(g)\n"
        "instep.show_config()"
    )
    found = python(steps).stdout
    assert re.search(
        r"tuning +arrays of float32, 4 at a time, from 2048 KB on, \w+ threads?: "
        r"(nothing|512 bytes|2048 bytes) ahead",
        found,
    ), found
    assert re.search(
        r"tuning +640 bytes ahead \(INSTEP_", python(steps, INSTEP_PREFETCH="640").stdout
    )
    command = "from instep._cli import main; main([])"
    assert re.search("tuning +arrays of float32, 4 at a time", python(command).stdout)
    untried = python("import instep; instep.show_config()").stdout
    assert re.search("tuning +nothing measured yet", untried)


@pytest.mark.parametrize("setting", ["-1", "fast", "1e3", "65537", " 64", "99999999999999999999"])
def test_a_distance_that_is_none_fails_the_import(setting: str) -> None:
    done = python("import instep", INSTEP_PREFETCH=setting)
    assert f"ImportError: INSTEP_PREFETCH={setting}: expected a number of bytes" in done.stderr


def test_the_module_can_be_loaded_again() -> None:
    """As notebooks do; optimizers from before go on."""
    done = python(
        "import sys, numpy as np\n"
        "for _ in range(3):\n"
        "    import instep\n"
        "    opt = instep.Adam(np.ones(2))\n"
        "    for name in [name for name in sys.modules if name.startswith('instep')]:\n"
        "        del sys.modules[name]\n"
        "    opt.step(np.ones(2))\n"
        "    opt.use_ema = True\n"
        "    opt.load_state_dict(opt.state_dict())\n"
        "    print(opt.iterations)\n"
    )
    assert done.stdout.split() == ["1"] * 3, done.stderr
