"""Flower's strategies with instep's rules, beside Flower's own, in a federation in one process."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import repository

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

import instep
import instep.flower

task_identity = pytest.importorskip("flwr.supercore.task_identity")
# Messages say who sends them, as in a process that Flower has started.
task_identity.TaskIdentity.run_id = task_identity.TaskIdentity.task_id = 1
task_identity.TaskIdentity.node_id = 1
logging.getLogger("flwr").setLevel(logging.ERROR)

PAIRS: dict[str, dict[str, Any]] = {
    "FedAdam": {"eta": 0.05, "beta_1": 0.8},
    "FedYogi": {"eta": 0.05},
    "FedAdagrad": {"eta": 0.05},
    "FedAvgM": {"server_learning_rate": 0.7, "server_momentum": 0.6},
}


class Federation:
    """Clients that pull weights towards points of their own; what Flower calls a grid."""

    def __init__(self, dtype: Any = np.float64) -> None:
        self.targets = {k: np.random.default_rng(k).standard_normal((3, 4)) for k in range(1, 4)}
        self.dtype = dtype

    def get_node_ids(self) -> Iterable[int]:
        return list(self.targets)

    def send_and_receive(self, messages: Iterable[Any], **_: Any) -> list[Any]:
        replies = []
        for message in messages:
            target = self.targets[message.metadata.dst_node_id]
            arrays = message.content["arrays"]
            w = arrays["w"].numpy()
            new = {"w": Array((w + 0.3 * (target - w)).astype(self.dtype))}
            if "seen" in arrays:
                new["seen"] = Array(arrays["seen"].numpy() + 7)
            records = {
                "arrays": ArrayRecord(new),
                "metrics": MetricRecord({"num-examples": message.metadata.dst_node_id}),
            }
            replies.append(Message(RecordDict(records), reply_to=message))
        return replies


def trained(strategy: Any, dtype: Any = np.float64, rounds: int = 5, **others: Any) -> Any:
    start = ArrayRecord({"w": Array(np.ones((3, 4), dtype)), **others})
    return strategy.start(Federation(dtype), start, num_rounds=rounds).arrays


def quiet(cls: Any, **options: Any) -> Any:
    return cls(fraction_evaluate=0.0, **options)


@pytest.mark.parametrize("name", PAIRS)
def test_numbers_are_flowers(name: str) -> None:
    options = PAIRS[name]
    more = {"as_flower": True} if name == "FedAdam" else {}
    theirs = trained(quiet(getattr(flower, name), **options))
    ours = trained(quiet(getattr(instep.flower, name), **options, **more))
    np.testing.assert_allclose(ours["w"].numpy(), theirs["w"].numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", PAIRS)
def test_float32_stays_and_integers_pass(name: str) -> None:
    strategy = quiet(getattr(instep.flower, name), **PAIRS[name])
    arrays = trained(strategy, np.float32, seen=Array(np.array([3], np.int64)))
    assert arrays["w"].numpy().dtype == np.float32
    assert arrays["seen"].numpy().tolist() == [3 + 5 * 7]
    assert arrays["seen"].numpy().dtype == np.int64


def test_the_first_correction_is_that_of_one_update() -> None:
    """Adam's first step is as long as its rate, but for tau; Flower's is not."""
    strategy = quiet(instep.flower.FedAdam, eta=0.05, tau=1e-12)
    moved = trained(strategy, rounds=1)["w"].numpy() - 1
    np.testing.assert_allclose(np.abs(moved), 0.05, rtol=1e-6)


def test_any_rule_whose_state_goes_on_in_a_new_strategy(tmp_path: Any) -> None:
    whole, first, second = (
        quiet(instep.flower.FedOpt, optimizer=instep.Adam(learning_rate=0.01)) for _ in range(3)
    )
    expected = trained(whole, rounds=4)["w"].numpy()
    between = trained(first, rounds=2)
    first.optimizer.save(tmp_path / "server.npz")
    second.optimizer.build({"w": between["w"].numpy().copy()})
    second.optimizer.load(tmp_path / "server.npz")
    after = second.start(Federation(), between, num_rounds=2).arrays
    assert np.array_equal(after["w"].numpy(), expected)
    assert second.optimizer.iterations == 4


@pytest.mark.parametrize("optimizer", [instep.Adam, None, instep.Adam(np.ones(2))])
def test_what_is_no_optimizer(optimizer: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="optimizer"):
        instep.flower.FedOpt(optimizer=optimizer)


def test_clients_with_other_arrays_are_an_error() -> None:
    strategy = quiet(instep.flower.FedAdagrad)
    with pytest.raises(Exception, match="names and shapes"):
        trained(strategy, extra=Array(np.ones(2)))


def test_the_page_on_it() -> None:
    page = repository.file("docs/adapters.md")
    section = page.read_text(encoding="utf-8").partition("## Flower\n")[2]
    exec(section.partition("```python\n")[2].partition("```")[0], {"instep": instep})


class Calls:
    """What Flower calls a grid, where clients are calls in this process."""

    def __init__(self, client_app: Any, clients: int) -> None:
        self.client_app, self.clients = client_app, clients

    def get_node_ids(self) -> Iterable[int]:
        return range(1, self.clients + 1)

    def send_and_receive(self, messages: Iterable[Any], **_: Any) -> list[Any]:
        return [self.client_app(each, self.context(each)) for each in messages]

    def context(self, message: Any) -> Any:
        client = message.metadata.dst_node_id
        return Context(
            run_id=1,
            node_id=client,
            node_config={"partition-id": client - 1},
            state=RecordDict(),
            run_config={},
        )


def check_federation_output(output: str) -> None:
    """Any rule on the server learns faster than averages do."""
    heading, *lines = (line.split("\t") for line in output.splitlines())
    assert heading == ["round", "averages", "momentum", "Yogi", "AdaBelief"]
    assert [int(line[0]) for line in lines] == list(range(1, 21))
    averages, *rules = np.array([line[1:] for line in lines], float).T
    assert averages[0] < 0.75
    assert 0.8 < averages[-1] < 0.87
    assert all(accuracies[-1] > averages[-1] + 0.02 for accuracies in rules)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module of the example, whose clients are in this process and read data once."""
    datasets = pytest.importorskip("sklearn.datasets")
    monkeypatch.setattr(datasets, "load_digits", functools.cache(datasets.load_digits))
    monkeypatch.syspath_prepend(str(repository.file("examples/federation.py").parent))
    monkeypatch.delitem(sys.modules, "federation", raising=False)
    return import_module("federation")


def test_a_federation(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example.server_app(Calls(example.client_app, example.CLIENTS), None)
    check_federation_output(capsys.readouterr().out)


def test_each_client_has_few_kinds_of_digits(example: Any) -> None:
    labels = [example.of_client(client)[1] for client in range(example.CLIENTS)]
    assert sum(map(len, labels)) == len(example.digits()[1])
    assert all(len(set(each)) <= 4 for each in labels)
    assert {*np.concatenate(labels)} == set(range(10))


def test_a_federation_in_processes_of_ray() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("ray")
    script = str(repository.file("examples/federation.py"))
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    check_federation_output(done.stdout)
