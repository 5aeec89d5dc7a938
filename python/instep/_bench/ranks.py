"""A step that ranks share, beside one process and PyTorch's ZeroRedundancyOptimizer.

Run as a module under `mpiexec`, this is what each rank measures.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import instep
from instep._bench import machine
from instep._bench.text import duration

ARRAYS, SHAPE = 25, (1024, 1024)
QUICK_ARRAYS = 3
ALONE, SHARDED, TORCH = "one process", "instep.sharded", "torch ZeroRedundancyOptimizer"
SHARED = "instep.sharded, shared"
Step = Callable[[], object]


def run(ranks: int, *, quick: bool, json_path: Path | None) -> int:
    """Measure on so many ranks, print a table, write a file; return the exit status."""
    mpiexec = shutil.which("mpiexec") or Path(sys.executable).with_name("mpiexec")
    arrays = QUICK_ARRAYS if quick else ARRAYS
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "samples.json"
        options = os.environ.get("INSTEP_MPIEXEC_OPTIONS", "").split()
        command = [str(mpiexec), "-n", str(ranks), *options, sys.executable, "-m", "mpi4py"]
        command += ["-m", "instep._bench.ranks", str(arrays), "3" if quick else "20", str(output)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        status = subprocess.run(command, env=environment, check=False).returncode
        if status:
            return status
        found = json.loads(output.read_text())
    size = arrays * SHAPE[0] * SHAPE[1]
    table = Table(title=f"Adam on {size:,} parameters, float32, {ranks} ranks of one thread")
    table.add_column("")
    table.add_column("a step", justify="right")
    table.add_column(f"times {ALONE}", justify="right")
    table.add_column("memory beside parameters, gradients and state", justify="right")
    alone = float(np.median(found["microseconds"][ALONE]))
    for name, times in found["microseconds"].items():
        median = float(np.median(times))
        beside = found["beside"].get(name)
        shown = "" if beside is None else f"{max(beside) / 2**20:.0f} MiB"
        table.add_row(name, duration(median), f"{median / alone:.2f}x", shown)
    described = machine.describe({})
    console = Console(width=120)
    console.print(table)
    console.print(f"{machine.name(described)}; {found['mpi']}; medians")
    for note in found["notes"]:
        Console(stderr=True).print(note)
    if json_path:
        json_path.write_text(json.dumps({"machine": described, "ranks": ranks, **found}))
    return 0


def _resident(name: str = "VmRSS") -> int:
    """Return the memory that is resident, or was at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _measure(arrays: int, rounds: int, output: Path) -> None:
    from mpi4py import MPI

    from instep.sharded import Sharded

    comm = MPI.COMM_WORLD
    rank, size = comm.Get_rank(), comm.Get_size()
    rng = np.random.default_rng(rank)
    params = [np.ones(SHAPE, np.float32) for _ in range(arrays)]
    grads = [rng.standard_normal(SHAPE, dtype=np.float32) for _ in params]
    notes: list[str] = []

    def wait() -> None:
        """Wait for all ranks, and leave the processor to those that work."""
        request = comm.Ibarrier()
        while not request.Test():
            time.sleep(0.001)

    before = _resident()
    sharded = Sharded(instep.Adam, params, comm=comm)
    for _ in range(2):
        sharded.step(grads)
    arrays_of_state = [each for slots in sharded.state for each in slots.values()]
    state = sum(each.nbytes for each in arrays_of_state if isinstance(each, np.ndarray))
    beside = {SHARDED: comm.allgather(_resident("VmHWM") - before - state)}
    shared = Sharded(instep.Adam, params, comm=comm, shared=True)
    common = shared.grads
    for room, grad in zip(common, grads, strict=True):
        room[...] = grad
    steps: dict[str, Step] = {
        SHARDED: lambda: sharded.step(grads),
        SHARED: lambda: shared.step(common),
    }
    if rank == 0:
        own = instep.Adam([param.copy() for param in params])
        steps[ALONE] = lambda: own.step(grads)
    try:
        steps[TORCH] = _torch(params, grads, rank, size, output)
    except ImportError as error:
        notes.append(f"{TORCH} is left out: {error}")
    times: dict[str, list[float]] = {ALONE: [], SHARDED: [], SHARED: []}
    for _ in range(rounds):
        for name in (ALONE, *(name for name in steps if name != ALONE)):
            wait()
            if name not in steps:
                continue
            if name != ALONE:
                comm.Barrier()
            start = time.perf_counter_ns()
            steps[name]()
            if name != ALONE:
                comm.Barrier()
            times.setdefault(name, []).append((time.perf_counter_ns() - start) / 1e3)
    if rank == 0:
        version = MPI.Get_library_version().split("\n")[0].strip("\0")
        found = {"microseconds": times, "beside": beside, "notes": notes, "mpi": version}
        output.write_text(json.dumps(found))


def _torch(params: list[Any], grads: list[Any], rank: int, size: int, output: Path) -> Step:
    """Return a step of PyTorch's optimizer, after the same sum of gradients, over gloo."""
    torch: Any = import_module("torch")
    distributed: Any = import_module("torch.distributed")
    optim: Any = import_module("torch.distributed.optim")
    torch.set_num_threads(1)
    store = output.with_suffix(".store")
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=size)
    own = [torch.nn.Parameter(torch.from_numpy(param.copy())) for param in params]
    opt = optim.ZeroRedundancyOptimizer(own, torch.optim.Adam, lr=1e-3, fused=True)

    def step() -> None:
        flat = torch.cat([torch.from_numpy(grad).reshape(-1) for grad in grads])
        distributed.all_reduce(flat)
        flat /= size
        begin = 0
        for param in own:
            param.grad = flat[begin : begin + param.numel()].view_as(param)
            begin += param.numel()
        opt.step()

    step()
    return step


if __name__ == "__main__":
    _measure(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
