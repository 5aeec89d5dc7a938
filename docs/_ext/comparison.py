"""The comparison of rules that tools/compare_rules.py has measured, as tables and pictures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

import pictures
from instep._rule import FAMILIES

NEAR_BEST = 1.5
"""How many times the best rate's loss a rate may have to be counted as working."""


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes
    ----------
    about
        On what, and how.
    families
        The rules' runs, by family.
    """

    about: dict[str, Any]
    families: dict[str, list[dict[str, Any]]]

    @property
    def setting(self) -> str:
        """What was measured, in words."""
        about = self.about
        seen, chosen, tested = about["images"]
        return (
            f"instep {about['instep']} with NumPy {about['numpy']} on {about['machine']}; "
            f"scikit-learn's handwritten digits, a 64-128-10 network with ReLU, batches of "
            f"{about['batch']}, {about['epochs']} epochs, no decay, no schedule. Rules train on "
            f"{seen:,} images. The learning rate is the one, of those half a decade apart, with "
            f"the least mean loss on {chosen} other images over {about['swept_seeds']} seeds. "
            f"Everything shown is of {about['shown_seeds']} further seeds, accuracies on "
            f"{tested} images that nothing was chosen by."
        )

    def tables(self) -> Iterator[tuple[str, list[list[str]]]]:
        """Yield a table for each family."""
        head = ["rule", "learning rate", "rates that work", "last loss", "test accuracy"]
        for family, runs in self.families.items():
            yield family, [head, *map(_row, runs)]

    def pictures(self, folder: Path) -> Iterator[tuple[str, list[pictures.Picture]]]:
        """Yield pictures for each family: each rule's losses before those of the others."""
        for k, (family, runs) in enumerate(self.families.items()):
            of_family = [
                _draw(runs, place, folder / f"losses-{k}-{place}.svg") for place in range(len(runs))
            ]
            yield family, of_family


def read(file: Path) -> Comparison:
    """Return what stands in a file."""
    document = json.loads(file.read_text(encoding="utf-8"))
    runs = document.pop("runs")
    families = {name: [run for run in runs if run["family"] == name] for name in FAMILIES}
    return Comparison(document, families)


def _row(run: dict[str, Any]) -> list[str]:
    accuracies = run["accuracies"]
    last = statistics.fmean(losses[-1] for losses in run["losses"])
    best = min(loss for _, loss in run["sweep"] if loss is not None)
    working = [rate for rate, loss in run["sweep"] if loss is not None and loss <= NEAR_BEST * best]
    return [
        run["label"],
        f"{run['rate']:.2g}",
        f"{min(working):.2g} to {max(working):.2g}",
        f"{last:.2g}",
        f"{statistics.fmean(accuracies):.1%} ({min(accuracies):.1%} to {max(accuracies):.1%})",
    ]


def _draw(runs: list[dict[str, Any]], place: int, file: Path) -> pictures.Picture:
    run = runs[place]
    by_epoch = list(zip(*run["losses"], strict=True))
    epochs = range(1, len(by_epoch) + 1)
    with rc_context(pictures.STYLE):
        figure = Figure(figsize=(2.9, 2.2), layout="constrained")
        ax = figure.add_subplot()
        for other in runs:
            means = [statistics.fmean(losses) for losses in zip(*other["losses"], strict=True)]
            is_this = other is run
            color = pictures.BLUE if is_this else pictures.FAINT
            ax.plot(epochs, means, color=color, linewidth=1.6 if is_this else 1, zorder=2 + is_this)
        least, most = ([function(losses) for losses in by_epoch] for function in (min, max))
        ax.fill_between(epochs, least, most, color=pictures.BLUE, alpha=0.25, linewidth=0)
        ax.set(title=f"{run['label']}, {run['rate']:.2g}", yscale="log", xlabel="epoch")
        ax.set(ylabel="training loss", ylim=(1e-4, 4))
        pictures.save(figure, file)
    return pictures.Picture(file, f"Training loss of {run['label']} over the epochs")
