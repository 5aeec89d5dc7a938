"""One Adam step in float32: instep beside its peers and beside the limit of the machine.

Every round times every contender once, in rotating order and in one process, so that noise from
outside hits all of them alike: trust the ratios (medians over rounds) more than the times.
That limit is the faster one of two loops with Adam's reads and writes and one addition for each
array (touch.cpp): "touch" fetches ahead into the cache, "touch-plain" leaves it to the processor.

    python bench/peers.py [--threads 1 2] [--workloads NAME ...] [--peers NAME ...]
                          [--quick] [--json FILE]
"""

import argparse
import ctypes
import functools
import gc
import hashlib
import importlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

Array = NDArray[np.float32]
Shape = tuple[int, ...]

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
BATCH_US = 5_000.0  # steps shorter than this are timed several at a time
SETTLE_S = 0.01
QUICK, THOROUGH = (0.5, 3), (6.0, 5)  # seconds and rounds at least, by workload and threads
PAGE = 4096
COMPILER = os.environ.get("CXX", "g++")


# Workloads


def mlp() -> list[Shape]:
    """Return the shapes of a perceptron 784-128-10."""
    return [(784, 128), (128,), (128, 10), (10,)]


def resnet50() -> list[Shape]:
    """Return the shapes of torchvision's ResNet-50."""

    def conv(out: int, channels: int, size: int) -> list[Shape]:
        return [(out, channels, size, size), (out,), (out,)]

    shapes = conv(64, 3, 7)
    channels = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += conv(planes, channels, 1) + conv(planes, planes, 3)
            shapes += conv(4 * planes, planes, 1)
            if block == 0:
                shapes += conv(4 * planes, channels, 1)
            channels = 4 * planes
    return [*shapes, (1000, channels), (1000,)]


def gpt2() -> list[Shape]:
    """Return the shapes of GPT-2 124M, whose head shares the token embedding."""
    d = 768
    norm: list[Shape] = [(d,), (d,)]
    attention: list[Shape] = [(d, 3 * d), (3 * d,), (d, d), (d,)]
    feed_forward: list[Shape] = [(d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *12 * (norm + attention + norm + feed_forward), *norm]


WORKLOADS: dict[str, Sequence[Shape]] = {
    "1k": [(1000,)],
    "mlp": mlp(),
    "100x1k": 100 * [(1024,)],
    "1m": [(2**20,)],
    "resnet50": resnet50(),
    "gpt2": gpt2(),
}


# Contenders


def placed(grads: Sequence[Array], shift: int) -> list[Array]:
    """Return new arrays of ones on cache lines, `shift` bytes after the gradients modulo a page.

    A load whose low 12 bits match those of a recent store waits for it in vain.
    """
    offsets, end = [], 0
    for g in grads:
        end += (-(-g.ctypes.data // 64) * 64 + shift - end) % PAGE
        offsets.append(end)
        end += g.nbytes
    memory = np.empty(end + PAGE, np.uint8)
    page = memory[-memory.ctypes.data % PAGE :]
    arrays = [page[o : o + g.nbytes].view(np.float32) for o, g in zip(offsets, grads, strict=True)]
    for array in arrays:
        array.fill(1)
    return arrays


class Gradients(list[Array]):
    """The gradients of a workload and what several contenders make of them."""

    @functools.cached_property
    def tensors(self) -> list[Any]:
        """Copies in PyTorch."""
        torch = importlib.import_module("torch")
        return [torch.from_numpy(g).clone() for g in self]

    @functools.cached_property
    def touched(self) -> list[list[Array]]:
        """Arrays to write in the place of p, m and v, each out of the others' way."""
        return [placed(self, shift) for shift in (704, 2048, 3392)]


@dataclass(frozen=True)
class Contender:
    """A peer bound to a workload."""

    run: Callable[[int], None]  # makes so many steps
    params: list[Array]  # views of its parameters; none where they don't follow Adam
    memory: object = None  # what `run` uses without holding a reference


def repeated(step: Callable[..., object], *arguments: object) -> Callable[[int], None]:
    """Return a function that calls `step` as often as it is told."""

    def run(repeats: int) -> None:
        for _ in range(repeats):
            step(*arguments)

    return run


def ones_like(grads: Gradients) -> list[Array]:
    """Return new parameters."""
    return [np.ones_like(g) for g in grads]


def zeros_like(grads: Gradients) -> list[Array]:
    """Return new state."""
    return [np.zeros_like(g) for g in grads]


@dataclass(frozen=True)
class Peer:
    """A way to make an Adam step."""

    version: str
    bind: Callable[[Gradients], Contender]
    set_num_threads: Callable[[int], object]


def instep() -> Peer:
    """Return instep's Adam, called from Python."""
    library = importlib.import_module("instep")

    def bind(grads: Gradients) -> Contender:
        params = ones_like(grads)
        optimizer = library.Adam(params, learning_rate=LEARNING_RATE)
        return Contender(repeated(optimizer.step, grads), params)

    return Peer(library.__version__, bind, library.set_num_threads)


def torch(mode: str) -> Peer:
    """Return PyTorch's Adam in the implementation that `mode` names."""
    library = importlib.import_module("torch")

    def bind(grads: Gradients) -> Contender:
        params = [library.ones(g.shape, requires_grad=True) for g in grads]
        for p, g in zip(params, grads.tensors, strict=True):
            p.grad = g
        optimizer = library.optim.Adam(params, lr=LEARNING_RATE, **{mode: True})
        return Contender(repeated(optimizer.step), [p.detach().numpy() for p in params])

    return Peer(library.__version__, bind, library.set_num_threads)


def numpy() -> Peer:
    """Return Adam in NumPy, which has no threads, with `out=` so that nothing is allocated."""

    def bind(grads: Gradients) -> Contender:
        params, ms, vs = ones_like(grads), zeros_like(grads), zeros_like(grads)
        scratch = np.empty(max(g.size for g in grads), np.float32)
        scratches = [scratch[: g.size].reshape(g.shape) for g in grads]
        count = 0

        def step() -> None:
            nonlocal count
            count += 1
            rate = LEARNING_RATE / (1 - BETA_1**count)
            root = math.sqrt(1 - BETA_2**count)
            for p, g, m, v, s in zip(params, grads, ms, vs, scratches, strict=True):
                np.multiply(m, BETA_1, out=m)
                np.multiply(g, 1 - BETA_1, out=s)
                np.add(m, s, out=m)
                np.multiply(v, BETA_2, out=v)
                np.multiply(g, g, out=s)
                np.multiply(s, 1 - BETA_2, out=s)
                np.add(v, s, out=v)
                np.sqrt(v, out=s)
                np.divide(s, root, out=s)
                np.add(s, EPSILON, out=s)
                np.divide(m, s, out=s)
                np.multiply(s, rate, out=s)
                np.subtract(p, s, out=p)

        return Contender(repeated(step), params)

    return Peer(np.__version__, bind, lambda _: None)


def numba() -> Peer:
    """Return Adam as a loop that numba compiles, parallel if there is more than one thread."""
    library = importlib.import_module("numba")
    prange = library.prange
    b1, b2, epsilon = np.float32(BETA_1), np.float32(BETA_2), np.float32(EPSILON)
    c1, c2 = np.float32(1 - BETA_1), np.float32(1 - BETA_2)

    def loop(p: Array, g: Array, m: Array, v: Array, rate: np.float32, root: np.float32) -> None:
        for i in prange(p.size):
            m[i] = b1 * m[i] + c1 * g[i]
            v[i] = b2 * v[i] + c2 * g[i] * g[i]
            p[i] -= rate * m[i] / (np.sqrt(v[i]) / root + epsilon)

    options = {"error_model": "numpy"}  # a check of every divisor would cost the vectors
    serial = library.njit(loop, **options)
    parallel = library.njit(loop, parallel=True, **options)
    kernel = serial

    def bind(grads: Gradients) -> Contender:
        params = ones_like(grads)
        streams = [
            [array.reshape(-1) for array in arrays]
            for arrays in (params, grads, zeros_like(grads), zeros_like(grads))
        ]
        count = 0

        def step() -> None:
            nonlocal count
            count += 1
            rate = np.float32(LEARNING_RATE / (1 - BETA_1**count))
            root = np.float32(math.sqrt(1 - BETA_2**count))
            for p, g, m, v in zip(*streams, strict=True):
                kernel(p, g, m, v, rate, root)

        return Contender(repeated(step), params)

    def set_num_threads(threads: int) -> None:
        nonlocal kernel
        kernel = parallel if threads > 1 else serial
        library.set_num_threads(min(threads, library.config.NUMBA_NUM_THREADS))

    return Peer(library.__version__, bind, set_num_threads)


def compiler_version() -> str:
    """Return the first line that the system's C++ compiler says about itself."""
    said = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0]


def touch_library() -> Path:
    """Return touch.cpp compiled for this machine, from the temporary directory if it is there."""
    source = Path(__file__).with_name("touch.cpp")
    key = source.read_bytes() + f"{compiler_version()} {cpu_model()}".encode()
    name = f"instep-touch-{hashlib.sha256(key).hexdigest()[:16]}.so"
    library = Path(tempfile.gettempdir(), name)
    if library.exists() and library.stat().st_uid == os.getuid():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as directory:
        fresh = Path(directory, name)
        flags = ["-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run([COMPILER, *flags, str(source), "-o", str(fresh)], check=True)
        return fresh.replace(library)


def touch(function_name: str) -> Peer:
    """Return the limit of the machine: a function of touch.cpp."""
    function = getattr(ctypes.CDLL(str(touch_library())), function_name)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    function.argtypes = [pointer, pointer, pointer, pointer, pointer, size, ctypes.c_int, size]
    function.restype = None
    threads = 1

    def bind(grads: Gradients) -> Contender:
        params, ms, vs = grads.touched
        tables = [
            np.array([array.ctypes.data for array in arrays], np.uintp)
            for arrays in (params, grads, ms, vs)
        ]
        tables.append(np.array([g.size for g in grads], np.uintp))
        pointers = [table.ctypes.data for table in tables]

        def run(repeats: int) -> None:
            function(*pointers, len(grads), threads, repeats)

        return Contender(run, [], memory=(grads.touched, tables))

    def set_num_threads(count: int) -> None:
        nonlocal threads
        threads = count

    return Peer(compiler_version(), bind, set_num_threads)


PEERS: dict[str, Callable[[], Peer]] = {
    "instep": instep,
    "torch-fused": functools.partial(torch, "fused"),
    "torch-foreach": functools.partial(torch, "foreach"),
    "numpy": numpy,
    "numba": numba,
    "touch": functools.partial(touch, "touch"),
    "touch-plain": functools.partial(touch, "touch_plain"),
}
RATIOS = {  # of the fastest of some to another
    "torch fused / instep": (("torch-fused",), "instep"),
    "limit / instep": (("touch", "touch-plain"), "instep"),
}


def open_peers(names: Sequence[str], console: Console) -> dict[str, Peer]:
    """Return the peers of these names, less those absent here, which are noted."""
    peers = {}
    for name in names:
        try:
            peers[name] = PEERS[name]()
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            console.print(f"{name} is skipped: {error}", style="yellow", markup=False)
    return peers


# Measuring


@dataclass(frozen=True)
class Result:
    """What one workload took with one number of threads."""

    workload: str
    arrays: int
    parameters: int
    threads: int
    repeats: dict[str, int]
    microseconds: dict[str, list[float]]  # one step, by contender and round

    def ratios(self, names: Sequence[str], below: str) -> list[float]:
        """Return the times of the fastest of `names` over those of `below`, round by round."""
        above = [self.microseconds[name] for name in names if name in self.microseconds]
        if not above or below not in self.microseconds:
            return []
        fastest = min(above, key=np.median)
        return [a / b for a, b in zip(fastest, self.microseconds[below], strict=True)]


def check_first_step(contender: Contender, grads: Gradients) -> None:
    """Make the first step and raise unless it was Adam's."""
    contender.run(1)
    for p, g in zip(contender.params, grads, strict=False):
        sample = g.reshape(-1)[:PAGE]
        expected = 1 - LEARNING_RATE * sample / (np.abs(sample) + EPSILON)
        np.testing.assert_allclose(p.reshape(-1)[:PAGE], expected, rtol=0, atol=1e-6)


def measure(
    peers: dict[str, Peer],
    contenders: dict[str, Contender],
    threads: int,
    budget: tuple[float, int],
) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Time the contenders in turns; return the steps per timing and the microseconds per step."""

    def turn(name: str, count: int) -> float:
        # Every time anew: contenders that share an OpenMP runtime change each other's number.
        peers[name].set_num_threads(threads)
        if threads > 1:  # the threads of the one before may still spin where this one's go
            time.sleep(SETTLE_S)
        run = contenders[name].run
        if count > 1:  # short steps feel cold caches and sleeping threads
            run(1)
        begin = time.perf_counter_ns()
        run(count)
        return (time.perf_counter_ns() - begin) / count / 1000

    names = list(contenders)
    repeats = {}
    for name in names:
        estimate = min(turn(name, 1) for _ in range(3))
        repeats[name] = max(1, round(BATCH_US / estimate))

    times: dict[str, list[float]] = {name: [] for name in names}
    seconds, min_rounds = budget
    begin = time.perf_counter()
    rounds = 0
    while rounds < min_rounds or time.perf_counter() - begin < seconds:
        first = rounds % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(turn(name, repeats[name]))
        rounds += 1
    return repeats, times


def measure_workload(
    name: str, peers: dict[str, Peer], threads: Sequence[int], budget: tuple[float, int]
) -> list[Result]:
    """Measure one workload with each number of threads."""
    rng = np.random.default_rng(0)
    shapes = WORKLOADS[name]
    grads = Gradients(0.01 * rng.standard_normal(shape, np.float32) for shape in shapes)
    contenders = {peer: peers[peer].bind(grads) for peer in peers}
    for contender in contenders.values():
        check_first_step(contender, grads)

    results = []
    for count in threads:
        repeats, times = measure(peers, contenders, count, budget)
        parameters = sum(g.size for g in grads)
        results.append(Result(name, len(grads), parameters, count, repeats, times))
    del contenders, contender
    gc.collect()  # cycles in optimizers would keep this workload's arrays beside the next one's
    return results


# Reporting


def cpu_model() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def processors() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(peers: dict[str, Peer]) -> dict[str, Any]:
    """Describe where and with what was measured."""
    return {
        "cpu": cpu_model(),
        "processors": processors(),
        "load": os.getloadavg(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: peer.version for name, peer in peers.items()},
    }


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles."""
    low, middle, high = np.percentile(samples, (25, 50, 75))
    return float(low), float(middle), float(high)


def cell(samples: Sequence[float], digits: int | None = None) -> str:
    """Return the median and, in parentheses, the interquartile range as a share of it."""
    if not samples:
        return "-"
    low, middle, high = quartiles(samples)
    if digits is None:
        digits = max(0, 2 - math.floor(math.log10(middle)))
    return f"{middle:,.{digits}f} ({(high - low) / middle:.0%})"


def table(results: Sequence[Result], names: Sequence[str], threads: int) -> Table:
    """Return the table for one number of threads."""
    title = (
        f"One Adam step in float32, threads: {threads}. Microseconds: median (interquartile range)"
    )
    out = Table("workload", "arrays", "parameters", title=title)
    for heading in (*names, *RATIOS):
        out.add_column(heading, justify="right")
    for result in results:
        out.add_row(
            result.workload,
            f"{result.arrays:,}",
            f"{result.parameters:,}",
            *(cell(result.microseconds[name]) for name in names),
            *(cell(result.ratios(*pair), 2) for pair in RATIOS.values()),
        )
    return out


def entries(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return everything measured, ready for JSON."""
    out = []
    for result in results:
        quantiles = {name: quartiles(times) for name, times in result.microseconds.items()}
        ratios = {
            title: quartiles(r) for title, pair in RATIOS.items() if (r := result.ratios(*pair))
        }
        out.append(asdict(result) | {"quartiles": quantiles, "ratio_quartiles": ratios})
    return out


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure one Adam step beside other libraries.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a rough look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples here")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    console = Console(width=None if sys.stdout.isatty() else 200)
    peers = open_peers(options.peers, console)
    described = machine(peers)
    budget = QUICK if options.quick else THOROUGH
    results: list[Result] = []
    for name in options.workloads:
        print(f"measuring {name}", file=sys.stderr)
        results += measure_workload(name, peers, options.threads, budget)
    for threads in options.threads:
        shown = [result for result in results if result.threads == threads]
        console.print(table(shown, list(peers), threads))
    if options.json:
        everything = {"machine": described, "results": entries(results)}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
