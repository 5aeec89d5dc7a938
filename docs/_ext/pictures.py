"""Pictures that are drawn when the pages are built, by the library that they are about."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from instep import Optimizer, schedules
from instep._formulas.report import _bowl, _valley

STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",  # the reader's own letters, which need no bytes
    "svg.hashsalt": "instep",
}
BLUE, RED, FAINT = "#0072b2", "#d55e00", "0.82"


class Picture(NamedTuple):
    """A file, and what it shows in words."""

    file: Path
    shows: str


def save(figure: Figure, file: Path) -> None:
    """Write a picture, always the same for the same figure."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, transparent=True, metadata={"Date": None})


# Rules ------------------------------------------------------------------------------------------

STEPS = 300
FACTORS = tuple(10 ** (k / 2) for k in range(-8, 9))
"""What the default learning rate is multiplied with in search of the best."""
_LANDSCAPES = {
    "valley": ("Rosenbrock's valley", _valley, (-1.6, 1.0), (1, 1), (-2, 2), (-1, 3)),
    "bowl": ("a long bowl", _bowl, (-2.5, 0.8), (0, 0), (-3, 3), (-1.2, 1.2)),
}


def _walk(rule: type[Optimizer], landscape: str, rate: float) -> Any:
    """Return the points of a path, as far as it stays in the picture."""
    _, function, start, _, xs, ys = _LANDSCAPES[landscape]
    point = np.array([start])  # a matrix, for the rules that want one
    optimizer = rule(point, learning_rate=rate)
    points = [point[0].copy()]
    for _ in range(STEPS):
        optimizer.step(np.array([function(*point[0])[1:]]))
        x, y = point[0]
        if not (xs[0] <= x <= xs[1] and ys[0] <= y <= ys[1]):  # or not a number
            break
        points.append(point[0].copy())
    return np.transpose(points)


def paths(rule: type[Optimizer], folder: Path) -> list[Picture]:
    """Draw a rule's path on two functions, each with the learning rate that keeps it lowest."""
    return [_path(rule, name, folder / f"{rule.__name__}-{name}.svg") for name in _LANDSCAPES]


def _path(rule: type[Optimizer], name: str, file: Path) -> Picture:
    title, function, start, end, xs, ys = _LANDSCAPES[name]
    default: Any = rule._hyperparameters()["learning_rate"].default
    walks = {}
    for rate in (default * factor for factor in FACTORS):
        walk = _walk(rule, name, rate)
        height = np.mean(np.log1p(function(*walk)[0])) if walk.shape[1] > STEPS else math.inf
        walks[height, rate] = walk
    (_, rate), walk = min(walks.items())
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.8))
        ax = figure.add_axes((0.11, 0.09, 0.85, 0.81))
        x, y = np.meshgrid(np.linspace(*xs, 60), np.linspace(*ys, 60))
        ax.contour(x, y, np.log1p(function(x, y)[0]), 10, colors=FAINT, linewidths=0.8)
        ax.plot(*walk, color=BLUE, linewidth=1.2)
        ax.plot(*walk[:, ::20], color=BLUE, linestyle="", marker=".", markersize=5)
        ax.plot(*start, color="black", marker="+", markersize=10)
        ax.plot(*end, color=RED, marker="*", markersize=10)
        ax.set(title=f"{title}, learning rate {rate:.2g}", xlim=xs, ylim=ys)
        save(figure, file)
    return Picture(
        file,
        f"{rule.__name__} on {title}: {STEPS} steps with a learning rate of {rate:.2g} "
        f"end at a value of {function(*walk[:, -1])[0]:.2g}",
    )


# Schedules --------------------------------------------------------------------------------------

_SOURCES = """
ExponentialDecay(0.1, decay_steps=40, decay_rate=0.5)
PolynomialDecay(0.1, decay_steps=80, end_learning_rate=0.01, power=2.0)
InverseTimeDecay(0.1, decay_steps=20, decay_rate=1.0)
PiecewiseConstantDecay([30, 60], [0.1, 0.05, 0.01])
PiecewiseInterpolate("cosine", 0.1, [30, 60], [0.5, 0.2])
CosineDecay(0.0, decay_steps=80, alpha=0.1, warmup_target=0.1, warmup_steps=20)
CosineDecayRestarts(0.1, 20, t_mul=2.0, m_mul=0.7)
StepDecay(0.1, step_size=30, gamma=0.5)
MultiStepDecay(0.1, milestones=[50, 80], gamma=0.3)
CosineAnnealing(0.1, t_max=60)
CosineAnnealingWarmRestarts(0.1, 15, t_mult=2)
Cyclic(0.01, 0.1, step_size_up=12, mode="triangular2")
OneCycle(0.1, total_steps=101)
CosineOneCycle(transition_steps=100, peak_value=0.1)
LinearOneCycle(transition_steps=100, peak_value=0.1)
LinearWarmup(0.1, total_iters=40)
ConstantWarmup(0.1, total_iters=40)
WarmupConstant(0.0, 0.1, warmup_steps=40)
WarmupCosineDecay(0.0, 0.1, warmup_steps=20, decay_steps=100)
WarmupExponentialDecay(0.0, 0.1, warmup_steps=20, transition_steps=30, decay_rate=0.5)
InverseSqrtDecay(0.1, warmup_steps=20)
Noam(d_model=512, warmup_steps=20)
WarmupStableDecay(0.1, warmup_steps=10, stable_steps=60, decay_steps=30)
Multiplicative(0.1, lambda step: 0.97)
ChainedScheduler(0.1, [LinearWarmup(1.0, total_iters=20), StepDecay(1.0, 40, 0.5)])
join_schedules([LinearWarmup(0.1, total_iters=20), CosineDecay(0.1, 80)], [20])
sgdr_schedule([dict(init_value=0, peak_value=x, warmup_steps=9, decay_steps=50) for x in (1, 0.5)])
ReduceLROnPlateau(0.1, factor=0.5, patience=5)
"""
EXAMPLES = {line.partition("(")[0]: line for line in _SOURCES.split("\n") if line}
"""A schedule of each kind, as one would write it."""


def schedule(name: str, folder: Path) -> Picture:
    """Draw a schedule: its rate over a hundred updates."""
    rate: Any = eval(EXAMPLES[name], {**vars(schedules)})
    index = np.arange(101)
    with rc_context(STYLE):
        figure = Figure(figsize=(4.4, 1.9), layout="constrained")
        ax = figure.add_subplot()
        if isinstance(rate, schedules.ReduceLROnPlateau):
            rates = _on_a_plateau(rate, ax, len(index))
        else:
            rates = [rate(int(each)) for each in index]
        ax.plot(index, rates, color=BLUE)
        ax.set(xlabel="update", ylabel="learning rate", ylim=(0, None))
        save(figure, file := folder / f"{name}.svg")
    return Picture(file, f"The learning rate of {name} over 100 updates")


def _on_a_plateau(rate: schedules.ReduceLROnPlateau, ax: Axes, count: int) -> list[float]:
    """Return the rates where a loss falls for a while and stays, which is drawn, too."""
    losses = np.maximum(1 - np.arange(count) / 40, 0.2)
    rates = []
    for loss in losses:
        rates.append(rate.learning_rate)
        rate.update(loss)
    beside = ax.twinx()
    beside.plot(losses, color=RED, linestyle="--")
    beside.set(ylabel="loss (dashed)", ylim=(0, None))
    return rates
