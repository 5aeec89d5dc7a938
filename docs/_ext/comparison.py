"""The comparison of rules that tools/compare_rules.py has measured, as tables and pictures."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

import pictures
from instep._rule import FAMILIES

NEAR_BEST = 1.5
"""How many times the best rate's loss a rate may have to be counted as working."""
WIDE = 9
"""From which factor on a range of rates is called a decade."""
GOOD = 0.95
"""From which accuracy on a rule is counted among those that have learned."""
FIRST = 5
"""How many of a kind are named."""

Run = dict[str, Any]
"""A rule with what was measured of it; see tools/compare_rules.py."""


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
    families: dict[str, list[Run]]

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

    @property
    def findings(self) -> str:
        """What stands out, in words."""
        runs = [run for of_family in self.families.values() for run in of_family]
        good = [run for run in runs if _mean_accuracy(run) >= GOOD]
        others = [f"{run['label']} ({_mean_accuracy(run):.1%})" for run in runs if run not in good]
        means = [_mean_accuracy(run) for run in good]
        spread = max(max(run["accuracies"]) - min(run["accuracies"]) for run in good)
        wide = sorted((run for run in good if _width(run) > WIDE), key=_width, reverse=True)
        narrow = [run for run in good if _width(run) == 1]
        fast = sorted(runs, key=_last_loss)[:FIRST]
        ranges = (f"{run['label']} ({_range(run)})" for run in wide)
        return "\n".join(
            [
                f"- {len(good)} of {len(runs)} end with an accuracy between {min(means):.1%} and "
                f"{max(means):.1%} in the mean, while the seeds of one rule lie up to "
                f"{100 * spread:.1f} points apart. The others: {', '.join(others)}.",
                f"- For {len(narrow)} of those only one of the rates works. A decade or more works "
                f"for {', '.join(ranges)}.",
                f"- The {FIRST} that fit the training images best in the last epoch: "
                f"{', '.join(run['label'] for run in fast)}.",
            ]
        )

    def tables(self) -> Iterator[tuple[str, list[list[str]]]]:
        """Yield a table for each family."""
        head = ["rule", "learning rate", "rates that work", "last loss", "test accuracy", "state"]
        for family, runs in self.families.items():
            yield family, [head, *map(_row, runs)]

    def losses(self, folder: Path) -> Iterator[tuple[str, list[pictures.Picture]]]:
        """Yield pictures for each family: each rule's losses, before those of the others."""
        for k, (family, runs) in enumerate(self.families.items()):
            files = (folder / f"losses-{k}-{place}.svg" for place in range(len(runs)))
            yield family, [_losses(run, runs, file) for run, file in zip(runs, files, strict=True)]

    def rates(self, folder: Path) -> Iterator[tuple[str, list[pictures.Picture]]]:
        """Yield pictures for each family: what each rule makes of rates, before the others."""
        for k, (family, runs) in enumerate(self.families.items()):
            files = (folder / f"rates-{k}-{place}.svg" for place in range(len(runs)))
            yield family, [_rates(run, runs, file) for run, file in zip(runs, files, strict=True)]


def read(file: Path) -> Comparison:
    """Return what stands in a file."""
    document = json.loads(file.read_text(encoding="utf-8"))
    runs = document.pop("runs")
    families = {
        name[0].upper() + name[1:]: [run for run in runs if run["family"] == name]
        for name in FAMILIES
    }
    return Comparison(document, families)


# One rule ---------------------------------------------------------------------------------------


def _row(run: Run) -> list[str]:
    accuracies = run["accuracies"]
    return [
        run["label"],
        f"{run['rate']:.2g}",
        _range(run),
        f"{_last_loss(run):.2g}",
        f"{_mean_accuracy(run):.1%} ({100 * min(accuracies):.1f} to {100 * max(accuracies):.1f})",
        f"{run['state']:.2g}",
    ]


def _mean_accuracy(run: Run) -> float:
    return statistics.fmean(run["accuracies"])


def _last_loss(run: Run) -> float:
    return statistics.fmean(losses[-1] for losses in run["losses"])


def _working(run: Run) -> list[float]:
    """Return the learning rates that are nearly as good as the best."""
    best = min(loss for _, loss in run["sweep"] if loss is not None)
    return [rate for rate, loss in run["sweep"] if loss is not None and loss <= NEAR_BEST * best]


def _width(run: Run) -> float:
    """Return how many times the least the largest rate is that works."""
    return max(_working(run)) / min(_working(run))


def _range(run: Run) -> str:
    least, most = min(_working(run)), max(_working(run))
    return f"{least:.2g}" if least == most else f"{least:.2g} to {most:.2g}"


# Pictures ---------------------------------------------------------------------------------------


@contextmanager
def _axes(file: Path, **settings: Any) -> Iterator[Any]:
    """Yield what to draw on, and write the file."""
    with rc_context(pictures.STYLE):
        figure = Figure(figsize=(2.5, 2))
        ax = figure.add_axes((0.31, 0.21, 0.61, 0.67))
        yield ax
        ax.set(**settings)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        pictures.save(figure, file)


def _line(is_this: bool) -> dict[str, Any]:
    """Return how the line of the picture's own rule looks, or another one's."""
    color, width = (pictures.BLUE, 1.6) if is_this else (pictures.FAINT, 1)
    return {"color": color, "linewidth": width, "zorder": 2 + is_this}


def _losses(run: Run, runs: list[Run], file: Path) -> pictures.Picture:
    by_epoch = list(zip(*run["losses"], strict=True))
    epochs = range(1, len(by_epoch) + 1)
    with _axes(
        file,
        title=f"{run['label']}, {run['rate']:.2g}",
        xlabel="epoch",
        ylabel="training loss",
        yscale="log",
        ylim=(1e-4, 10),
    ) as ax:
        for each in runs:
            means = [statistics.fmean(losses) for losses in zip(*each["losses"], strict=True)]
            ax.plot(epochs, means, **_line(each is run))
        ax.fill_between(
            epochs,
            [min(losses) for losses in by_epoch],
            [max(losses) for losses in by_epoch],
            color=pictures.BLUE,
            alpha=0.25,
            linewidth=0,
        )
    return pictures.Picture(file, f"Training loss of {run['label']} over the epochs")


def _rates(run: Run, runs: list[Run], file: Path) -> pictures.Picture:
    with _axes(
        file,
        title=run["label"],
        xlabel="learning rate over the best",
        ylabel="loss",
        xscale="log",
        yscale="log",
        xlim=(1e-2, 1e2),
        ylim=(0.02, 20),
    ) as ax:
        for each in runs:
            rates, losses = zip(*each["sweep"], strict=True)
            best = each["rate"]
            ends = [math.inf if loss is None else loss for loss in losses]
            marker = "." if each is run else ""
            ax.plot([r / best for r in rates], ends, marker=marker, **_line(each is run))
    return pictures.Picture(file, f"Loss of {run['label']} by learning rate")
