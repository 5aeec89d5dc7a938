"""A federation on handwritten digits: clients train, the server steps by a rule of instep's.

Ten clients, each with few kinds of scikit-learn's digits, fit a linear classifier to their own;
Flower simulates them in Ray's processes (``pip install "flwr[simulation]" scikit-learn``). Printed
is the share of other digits that the server's weights tell after each round, where they become the
clients' average, and where the way to that average is the gradient of a step.
"""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import instep
import instep.flower

Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]
Weights: TypeAlias = dict[str, Floats]

CLIENTS, ROUNDS, LOCAL_STEPS = 10, 20, 10

client_app = ClientApp()
server_app = ServerApp()


def digits() -> tuple[Floats, Labels, Floats, Labels]:
    """Return images and labels to train on, and others to test with."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    return x[:1400], y[:1400], x[1400:], y[1400:]


def of_client(client: int) -> tuple[Floats, Labels]:
    """Return a client's own: two of the pieces that the sorted digits are cut into."""
    x, y, _, _ = digits()
    pieces = np.array_split(np.argsort(y, kind="stable"), 2 * CLIENTS)
    first, second = np.random.default_rng(0).permutation(2 * CLIENTS).reshape(CLIENTS, 2)[client]
    own = np.concatenate([pieces[first], pieces[second]])
    return x[own], y[own]


def gradients(weights: Weights, x: Floats, y: Labels) -> Weights:
    """Return the gradients of the mean cross-entropy."""
    scores = x @ weights["w"] + weights["b"]
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(y)), y] -= 1
    chances /= len(y)
    return {"w": x.T @ chances, "b": chances.sum(axis=0)}


def accuracy(weights: Weights) -> float:
    """Return the share of the digits to test with that the weights tell."""
    _, _, x, y = digits()
    return float(np.mean(np.argmax(x @ weights["w"] + weights["b"], axis=1) == y))


def unpacked(record: ArrayRecord) -> Weights:
    """Return new arrays with the numbers of a record of Flower's."""
    return {name: np.array(array.numpy()) for name, array in record.items()}


def packed(weights: Weights) -> ArrayRecord:
    """Return arrays as Flower sends them."""
    return ArrayRecord({name: Array(array) for name, array in weights.items()})


@client_app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Answer with weights that have made some steps on the client's digits."""
    x, y = of_client(int(context.node_config["partition-id"]))
    weights = unpacked(message.content["arrays"])
    opt = instep.SGD(weights, learning_rate=0.5)
    for _ in range(LOCAL_STEPS):
        opt.step(gradients(weights, x, y))
    metrics = MetricRecord({"num-examples": len(x)})
    return Message(RecordDict({"arrays": packed(weights), "metrics": metrics}), reply_to=message)


def strategies() -> dict[str, FedAvg]:
    """Return what the servers do, with all clients in each round."""
    options: dict[str, Any] = {"fraction_evaluate": 0.0, "min_available_nodes": CLIENTS}
    belief = instep.AdaBelief(learning_rate=0.1, epsilon=1e-3)
    return {
        "averages": FedAvg(**options),
        "momentum": instep.flower.FedAvgM(server_momentum=0.9, **options),
        "Yogi": instep.flower.FedYogi(eta=0.1, **options),
        "AdaBelief": instep.flower.FedOpt(optimizer=belief, **options),
    }


@server_app.main()  # type: ignore[untyped-decorator]
def serve(grid: Grid, context: Context) -> None:
    """Train with each strategy, and print the accuracies of each round."""
    start = packed({"w": np.zeros((64, 10), np.float32), "b": np.zeros(10, np.float32)})

    def evaluate(server_round: int, record: ArrayRecord) -> MetricRecord:
        return MetricRecord({"accuracy": accuracy(unpacked(record))})

    found = {
        name: strategy.start(grid, start, num_rounds=ROUNDS, evaluate_fn=evaluate)
        for name, strategy in strategies().items()
    }
    print("round", *found, sep="\t")
    for server_round in range(1, ROUNDS + 1):
        metrics = [each.evaluate_metrics_serverapp[server_round] for each in found.values()]
        print(server_round, *(f"{each['accuracy']:.3f}" for each in metrics), sep="\t")


def main() -> None:
    """Simulate the federation."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(server_app, client_app, num_supernodes=CLIENTS)


if __name__ == "__main__":
    main()
