"""Rows beside other libraries' optimizers of tables, which are lazy, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import instep
from instep import Rows

SHAPE = (30, 8)
STEPS = 10


def batches() -> tuple[Any, list[Rows]]:
    """Return a table, and rows with ids that are repeated."""
    rng = np.random.default_rng(11)
    table = rng.standard_normal(SHAPE, dtype=np.float32)
    ids = [rng.integers(0, SHAPE[0], 12) for _ in range(STEPS)]
    return table, [Rows(i, rng.standard_normal((12, SHAPE[1]), dtype=np.float32)) for i in ids]


def train(rule: str, **options: Any) -> Any:
    """Return the table after these steps of instep's."""
    table, gradients = batches()
    opt = getattr(instep, rule)(table, **options)
    for rows in gradients:
        opt.step(rows)
    return table


def test_sparse_adam_of_torch() -> None:
    """PyTorch's SparseAdam counts updates of the array, and leaves other rows alone."""
    torch = pytest.importorskip("torch")
    table, gradients = batches()
    weight = torch.nn.Parameter(torch.tensor(table))
    opt = torch.optim.SparseAdam([weight], lr=0.1)
    for rows in gradients:
        weight.grad = torch.sparse_coo_tensor(
            torch.from_numpy(rows.ids)[None],
            torch.from_numpy(rows.values),
            SHAPE,
            check_invariants=True,
        )
        opt.step()
    ours = train("Adam", learning_rate=0.1, convention="torch")
    # Theirs has epsilon on the uncorrected root.
    np.testing.assert_allclose(ours, weight.detach().numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of FBGEMM's own when it is imported
@pytest.mark.parametrize(
    ("kind", "rule", "options"),
    [
        ("EXACT_ROWWISE_ADAGRAD", "RowwiseAdagrad", {}),
        ("EXACT_ADAGRAD", "Adagrad", {"convention": "torch"}),
    ],
)
def test_fbgemm(kind: str, rule: str, options: dict[str, Any]) -> None:
    pytest.importorskip("fbgemm_gpu")
    import torch

    from instep._bench.rows import fbgemm_bag

    table, gradients = batches()
    bag = fbgemm_bag(table, kind, learning_rate=0.1, epsilon=1e-8)
    for rows in gradients:
        bag(torch.from_numpy(rows.ids), torch.arange(rows.ids.size + 1)).backward(
            torch.from_numpy(rows.values)
        )
    ours = train(rule, learning_rate=0.1, epsilon=1e-8, **options)
    theirs = bag.split_embedding_weights()[0].detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_lazy_adam_of_paddle() -> None:
    """Paddle corrects the averages of sparse gradients as if one update more had been made."""
    paddle = pytest.importorskip("paddle")
    table, gradients = batches()
    layer = paddle.nn.Embedding(*SHAPE, sparse=True)
    layer.weight.set_value(table)
    opt = paddle.optimizer.Adam(0.1, parameters=layer.parameters(), lazy_mode=True)
    for rows in gradients:
        (layer(paddle.to_tensor(rows.ids)) * paddle.to_tensor(rows.values)).sum().backward()
        opt.step()
        opt.clear_grad()
    ours = train("Adam", learning_rate=0.1, convention="torch", first_step=2)
    np.testing.assert_allclose(ours, layer.weight.numpy(), rtol=1e-5, atol=2e-6)
