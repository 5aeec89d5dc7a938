"""Train a small NumPy network on handwritten digits with each optimizer in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import instep

Array: TypeAlias = NDArray[np.floating[Any]]
Labels: TypeAlias = NDArray[np.int64]
Step: TypeAlias = Callable[[Sequence[Array]], None]

_PIXELS, _HIDDEN, _CLASSES = 64, 128, 10
_BATCH_SIZE = 16
_TURNS, _STEPS_PER_TURN = 60, 10


# The data


class Digits(NamedTuple):
    """Images with pixels from -1 to 1, and their labels."""

    x_train: Array
    y_train: Labels
    x_test: Array
    y_test: Labels


def load() -> Digits:
    """Return scikit-learn's digits, always with the same quarter of them held out."""
    images, labels = load_digits(return_X_y=True)
    x = (images / 8 - 1).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        x, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return Digits(x_train, y_train, x_test, y_test)


# The network


def initial_params(rng: np.random.Generator) -> list[Array]:
    """Return weights after He et al. (2015) and zero biases: ``[w1, b1, w2, b2]``."""

    def weights(rows: int, columns: int) -> Array:
        return rng.normal(0, math.sqrt(2 / rows), (rows, columns)).astype(np.float32)

    return [
        weights(_PIXELS, _HIDDEN),
        np.zeros(_HIDDEN, np.float32),
        weights(_HIDDEN, _CLASSES),
        np.zeros(_CLASSES, np.float32),
    ]


def forward(params: Sequence[Array], x: Array) -> tuple[Array, Array]:
    """Return the hidden layer's activations and the logits."""
    w1, b1, w2, b2 = params
    hidden = np.maximum(x @ w1 + b1, 0)
    return hidden, hidden @ w2 + b2


def loss_and_grads(params: Sequence[Array], x: Array, y: Labels) -> tuple[float, list[Array]]:
    """Return the mean softmax cross entropy and its gradients."""
    hidden, logits = forward(params, x)
    rows = np.arange(len(x))
    logits = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    sums = exponentials.sum(axis=1, keepdims=True)
    loss = np.mean(np.log(sums[:, 0]) - logits[rows, y])

    d_logits = exponentials / sums
    d_logits[rows, y] -= 1
    d_logits /= len(x)
    d_hidden = d_logits @ params[2].T * (hidden > 0)
    grads = [x.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_logits, d_logits.sum(axis=0)]
    return float(loss), grads


def accuracy(params: Sequence[Array], x: Array, y: Labels) -> float:
    """Return the share of images whose largest logit is that of their label."""
    _, logits = forward(params, x)
    return float(np.mean(logits.argmax(axis=1) == y))


# The same rules in plain NumPy, for the comparison of times


def _zeros(params: Sequence[Array]) -> list[Array]:
    return [np.zeros_like(p) for p in params]


def numpy_sgd(
    params: Sequence[Array],
    *,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Step:
    """Return a step of gradient descent, with or without momentum."""
    buffers = _zeros(params)

    def step(grads: Sequence[Array]) -> None:
        for p, g, b in zip(params, grads, buffers, strict=True):
            update = g
            if momentum:
                b *= momentum
                b += g
                update = g + momentum * b if nesterov else b
            p -= learning_rate * update

    return step


def numpy_adagrad(params: Sequence[Array], *, learning_rate: float, epsilon: float = 1e-10) -> Step:
    """Return a step of Adagrad."""
    accumulators = _zeros(params)

    def step(grads: Sequence[Array]) -> None:
        for p, g, a in zip(params, grads, accumulators, strict=True):
            a += g * g
            p -= learning_rate * g / (np.sqrt(a) + epsilon)

    return step


def numpy_rmsprop(
    params: Sequence[Array],
    *,
    learning_rate: float,
    rho: float = 0.9,
    momentum: float = 0.0,
    centered: bool = False,
    epsilon: float = 1e-7,
) -> Step:
    """Return a step of RMSprop."""
    squares, means, buffers = _zeros(params), _zeros(params), _zeros(params)

    def step(grads: Sequence[Array]) -> None:
        for p, g, v, a, b in zip(params, grads, squares, means, buffers, strict=True):
            v *= rho
            v += (1 - rho) * g * g
            variance = v
            if centered:
                a *= rho
                a += (1 - rho) * g
                variance = v - a * a
            update = learning_rate * g / np.sqrt(variance + epsilon)
            if momentum:
                b *= momentum
                b += update
                update = b
            p -= update

    return step


def numpy_adadelta(
    params: Sequence[Array],
    *,
    learning_rate: float = 1.0,
    rho: float = 0.95,
    epsilon: float = 1e-6,
) -> Step:
    """Return a step of Adadelta."""
    squares, update_squares = _zeros(params), _zeros(params)

    def step(grads: Sequence[Array]) -> None:
        for p, g, a, d in zip(params, grads, squares, update_squares, strict=True):
            a *= rho
            a += (1 - rho) * g * g
            update = np.sqrt((d + epsilon) / (a + epsilon)) * g
            d *= rho
            d += (1 - rho) * update * update
            p -= learning_rate * update

    return step


def numpy_adam(
    params: Sequence[Array],
    *,
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    amsgrad: bool = False,
    weight_decay: float = 0.0,
) -> Step:
    """Return a step of Adam, AMSGrad or AdamW."""
    ms, vs, maxima = _zeros(params), _zeros(params), _zeros(params)
    t = 0

    def step(grads: Sequence[Array]) -> None:
        nonlocal t
        t += 1
        rate = learning_rate / (1 - beta_1**t)
        root_correction = math.sqrt(1 - beta_2**t)
        for p, g, m, v, v_max in zip(params, grads, ms, vs, maxima, strict=True):
            m *= beta_1
            m += (1 - beta_1) * g
            v *= beta_2
            v += (1 - beta_2) * g * g
            if weight_decay:
                p *= 1 - learning_rate * weight_decay
            second_moment = np.maximum(v_max, v, out=v_max) if amsgrad else v
            p -= rate * m / (np.sqrt(second_moment) / root_correction + epsilon)

    return step


# What is trained


@dataclass(frozen=True)
class Recipe:
    """An optimizer, its rule in NumPy, and settings for both."""

    title: str
    optimizer: Callable[..., instep.Optimizer]
    numpy_rule: Callable[..., Step]
    settings: Mapping[str, Any]


RECIPES = {
    "sgd": Recipe("gradient descent", instep.SGD, numpy_sgd, {"learning_rate": 0.05}),
    "momentum": Recipe("momentum", instep.SGD, numpy_sgd, {"learning_rate": 0.01, "momentum": 0.9}),
    "nesterov": Recipe(
        "Nesterov",
        instep.SGD,
        numpy_sgd,
        {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True},
    ),
    "adagrad": Recipe("Adagrad", instep.Adagrad, numpy_adagrad, {"learning_rate": 0.01}),
    "rmsprop": Recipe("RMSprop", instep.RMSprop, numpy_rmsprop, {"learning_rate": 0.0005}),
    "centered-rmsprop": Recipe(
        "centered RMSprop, momentum",
        instep.RMSprop,
        numpy_rmsprop,
        {"learning_rate": 0.0001, "momentum": 0.9, "centered": True},
    ),
    "adadelta": Recipe("Adadelta", instep.Adadelta, numpy_adadelta, {"learning_rate": 1.0}),
    "adam": Recipe("Adam", instep.Adam, numpy_adam, {"learning_rate": 0.001}),
    "amsgrad": Recipe(
        "AMSGrad", instep.Adam, numpy_adam, {"learning_rate": 0.001, "amsgrad": True}
    ),
    "adamw": Recipe(
        "AdamW", instep.AdamW, numpy_adam, {"learning_rate": 0.001, "weight_decay": 0.1}
    ),
}


class Epoch(NamedTuple):
    """The mean loss of an epoch's batches, and the accuracy on the held-out images after it."""

    loss: float
    accuracy: float


def train(step: Step, params: Sequence[Array], digits: Digits, *, seed: int) -> Iterator[Epoch]:
    """Yield one epoch of training after another, without end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(digits.x_train))
        total = 0.0
        for start in range(0, len(order), _BATCH_SIZE):
            batch = order[start : start + _BATCH_SIZE]
            loss, grads = loss_and_grads(params, digits.x_train[batch], digits.y_train[batch])
            step(grads)
            total += loss * len(batch)
        yield Epoch(total / len(order), accuracy(params, digits.x_test, digits.y_test))


def step_times(
    recipe: Recipe, params: Sequence[Array], grads: Sequence[Array]
) -> tuple[float, float]:
    """Return the median seconds of one step with instep and of the same step in NumPy."""
    settings = recipe.settings
    steps = [
        recipe.optimizer([p.copy() for p in params], **settings).step,
        recipe.numpy_rule([p.copy() for p in params], **settings),
    ]
    times: list[list[float]] = [[], []]
    # In turns, so that a change in the machine's speed meets both alike.
    for _ in range(_TURNS):
        for step, seconds in zip(steps, times, strict=True):
            start = perf_counter()
            for _ in range(_STEPS_PER_TURN):
                step(grads)
            seconds.append((perf_counter() - start) / _STEPS_PER_TURN)
    return median(times[0]), median(times[1])


# The command


def run(names: Sequence[str], *, epochs: int, seed: int, plot: Path | None = None) -> None:
    """Train with the named optimizers, and print their accuracies and step times.

    Parameters
    ----------
    names : sequence of str
        Keys of `RECIPES`.
    epochs : int
        How often each optimizer sees every training image.
    seed : int
        Decides the initial weights and the order of the images.
    plot : Path, optional
        Where to write a PNG of the loss curves.
    """
    console = Console()
    digits = load()
    histories: dict[str, list[Epoch]] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=len(names) * epochs)
        for name in names:
            recipe = RECIPES[name]
            params = initial_params(np.random.default_rng(seed))
            optimizer = recipe.optimizer(params, **recipe.settings)
            histories[name] = history = []
            for epoch in islice(train(optimizer.step, params, digits, seed=seed), epochs):
                history.append(epoch)
                progress.console.print(
                    f"{recipe.title}: epoch {len(history)}/{epochs}, loss {epoch.loss:.4f}, "
                    f"test accuracy {epoch.accuracy:.1%}",
                    highlight=False,
                )
                progress.advance(task)
    console.print(_summary(histories, digits))
    if plot is not None:
        _draw(histories, plot)
        console.print(f"loss curves: {plot}", highlight=False, markup=False, soft_wrap=True)


def _summary(histories: Mapping[str, Sequence[Epoch]], digits: Digits) -> Table:
    params = initial_params(np.random.default_rng(0))
    batch = slice(_BATCH_SIZE)
    _, grads = loss_and_grads(params, digits.x_train[batch], digits.y_train[batch])

    size = sum(p.size for p in params)
    table = Table(caption=f"one step of {len(params)} float32 arrays with {size:,} parameters")
    table.add_column("optimizer")
    for heading in ("test accuracy", "instep", "NumPy", "speedup"):
        table.add_column(heading, justify="right")
    for name, history in histories.items():
        recipe = RECIPES[name]
        fast, plain = step_times(recipe, params, grads)
        table.add_row(
            recipe.title,
            f"{history[-1].accuracy:.1%}",
            f"{fast * 1e6:.1f} us",
            f"{plain * 1e6:.1f} us",
            f"{plain / fast:.1f}x",
        )
    return table


def _draw(histories: Mapping[str, Sequence[Epoch]], path: Path) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for index, (name, history) in enumerate(histories.items()):
        axes.plot(
            range(1, len(history) + 1),
            [epoch.loss for epoch in history],
            color=colormaps["tab10"](index),
            linestyle="-" if index % 2 == 0 else "--",
            marker=".",
            zorder=2 + index % 2,
            label=RECIPES[name].title,
        )
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean training loss")
    axes.set_title("Handwritten digits, a 64-128-10 network")
    axes.grid(which="both", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path)
