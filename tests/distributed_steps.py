"""Steps of two processes in PyTorch's ways to share a model; prints how far they are from its own.

Run as a script, this prints a JSON object: by the way, the largest difference of a parameter.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import instep.torch

PROCESSES = 2


def a_model() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def train(model: Any, optimizer: Any, rank: int, steps: int = 4) -> None:
    for step in range(steps):
        torch.manual_seed(10 * step + rank)
        x = torch.randn(16, 5)
        optimizer.zero_grad()
        ((model(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
        optimizer.step()


def replicated(rule: Any, rank: int) -> list[Any]:
    model = DistributedDataParallel(a_model())
    train(model, rule(model.parameters(), lr=0.01), rank)
    return [p.detach() for p in model.parameters()]


def without_redundancy(rule: Any, rank: int) -> list[Any]:
    model = DistributedDataParallel(a_model())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=rule, lr=0.01)
    train(model, optimizer, rank)
    optimizer.consolidate_state_dict(0)
    if rank == 0:
        assert len(optimizer.state_dict()["state"]) == 4
    return [p.detach() for p in model.parameters()]


def sharded(rule: Any, rank: int) -> list[Any]:
    """Train with weights in shards; the state goes through a checkpoint in mid-run."""
    mesh, model = init_device_mesh("cpu", (PROCESSES,)), a_model()
    for part in (model[0], model):
        fully_shard(part, mesh=mesh)
    optimizer = rule(model.parameters(), lr=0.01)
    train(model, optimizer, rank)
    set_optimizer_state_dict(model, optimizer, get_optimizer_state_dict(model, optimizer))
    train(model, optimizer, rank, 2)
    return [p.full_tensor().detach() for p in model.parameters()]


WAYS = (replicated, without_redundancy, sharded)


def run(rank: int, port: int) -> None:
    """Be one of the processes."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    found = {}
    for way in WAYS:
        both = [way(rule, rank) for rule in (torch.optim.AdamW, instep.torch.AdamW)]
        found[way.__name__] = max((p - q).abs().max().item() for p, q in zip(*both, strict=True))
    if rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    import torch.multiprocessing

    torch.multiprocessing.spawn(run, (free_port(),), nprocs=PROCESSES)
    sys.exit(0)
