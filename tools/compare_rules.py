"""Measure how every rule trains a small network on handwritten digits, its learning rate swept.

``python tools/compare_rules.py`` writes docs/guide/which_rule.json, which the page beside it shows.
The network and the data are those of ``python -m instep demo``.
"""

from __future__ import annotations

import json
import math
import statistics
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import instep
from instep import _demo
from instep._bench import machine

FILE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "which_rule.json"
EPOCHS = 20
SWEPT_SEEDS, SHOWN_SEEDS = range(3), range(3, 8)
"""Learning rates are chosen with some seeds, and shown with others."""
VALIDATION = 270
"""How many of the training images choose the learning rate."""
NEAR, FAR = 4, 10
"""How many half decades around its default a rate is looked for, at first and at most."""
VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "SGD": [
        ("SGD", {}),
        ("SGD with momentum 0.9", {"momentum": 0.9}),
        ("SGD with Nesterov 0.9", {"momentum": 0.9, "nesterov": True}),
    ],
    "RMSprop": [("RMSprop", {}), ("RMSprop with momentum 0.9", {"momentum": 0.9})],
    "Adam": [("Adam", {}), ("Adam with AMSGrad", {"amsgrad": True})],
}
"""Rules that are measured with other hyperparameters than their defaults, too."""


class Run(NamedTuple):
    """One training: each epoch's mean loss, and what came of it on images not trained with."""

    losses: list[float]
    validation: float
    accuracy: float


def state_of(rule: type[instep.Optimizer], settings: dict[str, Any]) -> float:
    """Return how many times a weight matrix's bytes a rule keeps for it."""
    matrix: Any = _demo.initial_params(np.random.default_rng(0))[0]
    optimizer = rule(matrix, **settings)
    optimizer.step(np.ones_like(matrix))
    slots = (slot for slot in optimizer.state.values() if isinstance(slot, np.ndarray))
    return float(sum(slot.nbytes for slot in slots) / matrix.nbytes)


def divided(digits: _demo.Digits) -> tuple[_demo.Digits, _demo.Digits]:
    """Return the digits without, and with only the images that choose the learning rate."""
    x, y = digits.x_train, digits.y_train
    rest = digits._replace(x_train=x[VALIDATION:], y_train=y[VALIDATION:])
    return rest, digits._replace(x_train=x[:VALIDATION], y_train=y[:VALIDATION])


def trained(
    rule: type[instep.Optimizer],
    settings: dict[str, Any],
    rate: float,
    seed: int,
    digits: tuple[_demo.Digits, _demo.Digits],
) -> Run:
    """Train once; without losses where these go beyond all bounds."""
    seen, held_out = digits
    params: Any = _demo.initial_params(np.random.default_rng(seed))
    optimizer = rule(params, learning_rate=rate, **settings)
    losses = []
    with np.errstate(all="ignore"):  # of rates that are too large
        for epoch in islice(_demo.train(optimizer.step, params, seen, seed=seed), EPOCHS):
            if not epoch.loss < 1e3:
                return Run([], math.inf, 0.0)
            losses.append(epoch.loss)
        if isinstance(optimizer, (instep.ScheduleFreeAdamW, instep.ScheduleFreeSGD)):
            params = optimizer.eval_params()
        validation, _ = _demo.loss_and_grads(params, held_out.x_train, held_out.y_train)
        accuracy = _demo.accuracy(params, seen.x_test, seen.y_test)
    return Run(losses, validation if math.isfinite(validation) else math.inf, accuracy)


def compared(
    rule: type[instep.Optimizer],
    label: str,
    settings: dict[str, Any],
    digits: tuple[_demo.Digits, _demo.Digits],
) -> dict[str, Any]:
    """Sweep a rule's learning rate; return that, and runs with the best."""
    default: Any = rule._hyperparameters()["learning_rate"].default

    def swept(exponent: int) -> float:
        rate = default * 10 ** (exponent / 2)
        runs = (trained(rule, settings, rate, seed, digits) for seed in SWEPT_SEEDS)
        return statistics.fmean(run.validation for run in runs)

    losses = {exponent: swept(exponent) for exponent in range(-NEAR, NEAR + 1)}
    while True:
        best = min(losses, key=lambda exponent: losses[exponent])
        beyond = [k for k in (best - 1, best + 1) if k not in losses and abs(k) <= FAR]
        if not beyond:
            break
        losses.update((exponent, swept(exponent)) for exponent in beyond)
    rate = default * 10 ** (best / 2)
    runs = [trained(rule, settings, rate, seed, digits) for seed in SHOWN_SEEDS]
    return {
        "label": label,
        "family": rule._family,
        "state": rounded(state_of(rule, settings)),
        "rate": rounded(rate),
        "sweep": [
            [rounded(default * 10 ** (exponent / 2)), rounded(losses[exponent])]
            for exponent in sorted(losses)
        ],
        "losses": [[rounded(loss) for loss in run.losses] for run in runs],
        "accuracies": [rounded(run.accuracy) for run in runs],
    }


def rounded(number: float) -> float | None:
    """Return a number with four digits; None for what is infinite, which JSON lacks."""
    return float(f"{number:.4g}") if math.isfinite(number) else None


def main() -> None:
    """Measure, and write the file."""
    digits = divided(_demo.load())
    runs = []
    for name in instep._RULES:
        for label, settings in VARIANTS.get(name, [(name, {})]):
            runs.append(compared(getattr(instep, name), label, settings, digits))
            print(label, runs[-1]["rate"], runs[-1]["accuracies"], flush=True)
    document = {
        "machine": machine.name(machine.describe({})),
        "instep": instep.__version__,
        "numpy": np.__version__,
        "epochs": EPOCHS,
        "batch": _demo._BATCH_SIZE,
        "images": [len(digits[0].x_train), VALIDATION, len(digits[0].x_test)],
        "swept_seeds": len(SWEPT_SEEDS),
        "shown_seeds": len(SHOWN_SEEDS),
        "runs": runs,
    }
    FILE.write_text(f"{json.dumps(document)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
