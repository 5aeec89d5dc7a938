"""What fewer bits cost: losses of three real tasks with each way of keeping parameters and state.

``python bench/formats.py`` prints a table and draws docs/formats.png; it needs matplotlib,
scikit-learn and ml_dtypes. Where PyTorch is installed, its fused Adam on the same 16-bit parameters
stands beside.
"""

from __future__ import annotations

import argparse
import collections
import functools
import pydoc_data.topics
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import instep

BFLOAT16 = ml_dtypes.bfloat16
SEEDS = 3
Params = dict[str, Any]
Task = Callable[[np.random.Generator], tuple[Params, Callable[[Params], tuple[float, Params]]]]

# The dtype of parameters and gradients, and options: what float32 is compared with.
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "float32": (np.float32, {}),
    "float32, state bfloat16": (np.float32, {"state_dtype": "bfloat16"}),
    "float32, state float8": (np.float32, {"state_dtype": "float8"}),
    "bfloat16, remainder": (BFLOAT16, {}),
    "bfloat16, remainder, state bfloat16": (BFLOAT16, {"state_dtype": "bfloat16"}),
    "bfloat16, stochastic": (BFLOAT16, {"rounding": "stochastic"}),
    "bfloat16, stochastic, state bfloat16": (
        BFLOAT16,
        {"rounding": "stochastic", "state_dtype": "bfloat16"},
    ),
    "bfloat16, stochastic, state float8": (
        BFLOAT16,
        {"rounding": "stochastic", "state_dtype": "float8"},
    ),
    "bfloat16, nearest": (BFLOAT16, {"rounding": "nearest"}),
    "float16, remainder": (np.float16, {}),
    "float16, stochastic": (np.float16, {"rounding": "stochastic"}),
    "float16, nearest": (np.float16, {"rounding": "nearest"}),
}


def softmax_loss(scores: Any, labels: Any) -> tuple[float, Any]:
    """Return the mean cross-entropy and its gradient."""
    scores = scores - scores.max(1, keepdims=True)
    shares = np.exp(scores)
    shares /= shares.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(-np.log(shares[rows, labels] + 1e-30).mean())
    shares[rows, labels] -= 1
    return loss, shares / len(labels)


def summed(rows: Any, values: Any, count: int) -> Any:
    """Return, for each of so many rows, the sum of the values that belong to it."""
    from scipy.sparse import csr_matrix

    places = (np.ones(len(rows), np.float32), (rows, np.arange(len(rows))))
    return csr_matrix(places, shape=(count, len(rows))) @ values


def digits(rng: np.random.Generator) -> Any:
    """Handwritten digits, by a network of two layers."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32) / 16
    params = {
        "w1": rng.standard_normal((64, 64)) / 8,
        "b1": np.zeros(64),
        "w2": rng.standard_normal((64, 10)) / 8,
        "b2": np.zeros(10),
    }

    def step(p: Params) -> tuple[float, Params]:
        batch = rng.integers(0, len(labels), 128)
        x = images[batch]
        hidden = np.maximum(x @ p["w1"] + p["b1"], 0)
        loss, d_scores = softmax_loss(hidden @ p["w2"] + p["b2"], labels[batch])
        d_hidden = (d_scores @ p["w2"].T) * (hidden > 0)
        return loss, {
            "w1": x.T @ d_hidden,
            "b1": d_hidden.sum(0),
            "w2": hidden.T @ d_scores,
            "b2": d_scores.sum(0),
        }

    return params, step


TEXT = "\n".join(pydoc_data.topics.topics.values())


@functools.cache
def letters() -> tuple[list[str], Any]:
    alphabet = sorted(set(TEXT))
    return alphabet, np.searchsorted(alphabet, list(TEXT))


def characters(rng: np.random.Generator) -> Any:
    """The next character of Python's documentation, by a recurrent network."""
    alphabet, text = letters()
    size, hidden, length = len(alphabet), 64, 16
    params = {
        "embedding": rng.standard_normal((size, hidden)) * 0.1,
        "w": np.linalg.qr(rng.standard_normal((hidden, hidden)))[0],
        "b": np.zeros(hidden),
        "out": rng.standard_normal((hidden, size)) / 8,
        "b_out": np.zeros(size),
    }

    def step(p: Params) -> tuple[float, Params]:
        starts = rng.integers(0, len(text) - length - 1, 64)
        window = text[starts[:, None] + np.arange(length + 1)]
        states = [np.zeros((64, hidden), np.float32)]
        for t in range(length):
            states.append(np.tanh(p["embedding"][window[:, t]] + states[-1] @ p["w"] + p["b"]))
        after = np.concatenate(states[1:])
        loss, d_scores = softmax_loss(after @ p["out"] + p["b_out"], window[:, 1:].T.ravel())
        grads = {name: np.zeros(value.shape, np.float32) for name, value in p.items()}
        grads["out"], grads["b_out"] = after.T @ d_scores, d_scores.sum(0)
        d_states = (d_scores @ p["out"].T).reshape(length, 64, hidden)
        d_next = np.zeros((64, hidden), np.float32)
        for t in reversed(range(length)):
            d_next = (d_next + d_states[t]) * (1 - states[t + 1] ** 2)
            grads["embedding"] += summed(window[:, t], d_next, size)
            grads["w"] += states[t].T @ d_next
            grads["b"] += d_next.sum(0)
            d_next = d_next @ p["w"].T
        return loss, grads

    return params, step


@functools.cache
def neighbours() -> tuple[Any, Any, Any, Any]:
    """Return pairs of the 400 commonest words, how often they stand near, and their weights."""
    tokens = re.findall(r"[a-z]+", TEXT.lower())
    known = {word: k for k, (word, _) in enumerate(collections.Counter(tokens).most_common(400))}
    ids = np.array([known.get(word, -1) for word in tokens])
    counts = np.zeros((400, 400))
    for distance in range(1, 6):
        a, b = ids[:-distance], ids[distance:]
        both = (a >= 0) & (b >= 0)
        np.add.at(counts, (a[both], b[both]), 1 / distance)
    rows, columns = np.nonzero(counts)
    values = counts[rows, columns]
    weight = np.minimum(values / 50, 1) ** 0.75
    return rows, columns, np.log(values).astype(np.float32), weight.astype(np.float32)


def words(rng: np.random.Generator) -> Any:
    """Which words of Python's documentation stand near which, by vectors of 24 numbers (GloVe)."""
    rows, columns, target, weight = neighbours()
    params = {
        "word": rng.uniform(-0.02, 0.02, (400, 24)),
        "context": rng.uniform(-0.02, 0.02, (400, 24)),
        "b_word": np.zeros(400),
        "b_context": np.zeros(400),
    }

    def step(p: Params) -> tuple[float, Params]:
        batch = rng.integers(0, len(rows), 2048)
        i, j = rows[batch], columns[batch]
        error = (p["word"][i] * p["context"][j]).sum(1) + p["b_word"][i] + p["b_context"][j]
        error -= target[batch]
        share = weight[batch] * error / len(batch)
        return float((weight[batch] * error**2).mean() / 2), {
            "word": summed(i, share[:, None] * p["context"][j], 400),
            "context": summed(j, share[:, None] * p["word"][i], 400),
            "b_word": summed(i, share, 400),
            "b_context": summed(j, share, 400),
        }

    return params, step


TASKS: dict[str, Any] = {"digits": digits, "characters": characters, "words": words}


def ours(
    dtype: Any, options: dict[str, Any], params: Params
) -> tuple[Params, Callable[[Params], None]]:
    stored = {name: value.astype(np.float32).astype(dtype) for name, value in params.items()}
    opt = instep.Adam(stored, learning_rate=3e-3, **options)
    return stored, lambda grads: opt.step({k: g.astype(dtype) for k, g in grads.items()})


def torchs(dtype: str, params: Params) -> tuple[Params, Callable[[Params], None]]:
    import torch

    its_dtype = getattr(torch, dtype)
    tensors = {k: torch.tensor(v, dtype=torch.float32).to(its_dtype) for k, v in params.items()}
    opt = torch.optim.Adam(list(tensors.values()), lr=3e-3, fused=True)

    class Seen(dict[str, Any]):
        def items(self) -> Any:
            return [(k, t.float().numpy()) for k, t in tensors.items()]

    def step(grads: Params) -> None:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(grads[name]).to(its_dtype)
        opt.step()

    return Seen(), step


def trained(task: Any, make: Callable[[Params], Any], seed: int, steps: int) -> Any:
    """Return the loss of each step. What the network sees are the parameters as they are kept."""
    rng = np.random.default_rng(seed)
    params, gradient = task(rng)
    stored, update = make(params)
    losses = []
    for _ in range(steps):
        loss, grads = gradient({name: np.asarray(v, np.float32) for name, v in stored.items()})
        losses.append(loss)
        with np.errstate(over="ignore", invalid="ignore"):
            update(grads)
    return np.array(losses)


def makers() -> Iterator[tuple[str, Callable[[Params], Any]]]:
    for name, (its_dtype, options) in WAYS.items():
        yield name, functools.partial(ours, its_dtype, options)
    try:
        import torch  # noqa: F401
    except ImportError:
        return
    for dtype in ("bfloat16", "float16"):
        yield f"PyTorch, {dtype}", functools.partial(torchs, dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--picture", default="docs/formats.png")
    arguments = parser.parse_args()
    print(f"| | {' | '.join(TASKS)} |\n| --- |{' --- |' * len(TASKS)}")
    curves: dict[tuple[str, str], Any] = {}
    for name, make in makers():
        cells = []
        for task, of_task in TASKS.items():
            curve = np.array([trained(of_task, make, s, arguments.steps) for s in range(SEEDS)])
            curves[task, name] = curve
            last = curve[:, -arguments.steps // 10 :].mean(1)
            cells.append(f"{last.mean():.4g} ({last.min():.4g} to {last.max():.4g})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    draw(curves, Path(arguments.picture))


def draw(curves: dict[tuple[str, str], Any], path: Path) -> None:
    """Draw the mean loss of each way over the steps; dashes where something is lost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(TASKS), figsize=(14, 4.6), layout="constrained")
    names = list(dict.fromkeys(name for _, name in curves))
    for axis, task in zip(axes, TASKS, strict=True):
        for k, name in enumerate(names):
            mean = curves[task, name].mean(0)
            width = max(1, len(mean) // 60)
            smooth = np.convolve(mean, np.ones(width) / width, "valid")
            lossy = "nearest" in name or "PyTorch" in name
            axis.plot(smooth, "--" if lossy else "-", lw=1.2, color=f"C{k % 10}", label=name)
        axis.set(title=task, xlabel="step", yscale="log")
    axes[0].set_ylabel("training loss, mean of 3 seeds")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
