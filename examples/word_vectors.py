"""Word vectors of hashed letters, as fastText has them: dense gradients beside those of rows.

Skip-gram with negative samples (Mikolov et al. 2013, Bojanowski et al. 2017) on a real text, the
Python language's reference that comes with Python. A word is the mean of the rows that its runs of
three to five letters hash to, in a table of 2**18 rows, of which a step touches a few thousand.

``python examples/word_vectors.py [--epochs N] [--words N] [--plot FILE.png]`` trains three times
from the same numbers: with dense gradients, with rows that mean exactly the same, and with lazy
ones.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import instep

Floats: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]

BUCKETS, LENGTH, WINDOW, NEGATIVES, BATCH = 2**18, 32, 3, 5, 256
WAYS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "rows, exact": {"sparse": "exact"},
    "rows, lazy": {"sparse": "lazy"},
}


@dataclass(frozen=True)
class Text:
    """A text as numbers.

    Attributes
    ----------
    words
        The words that occur at least twice, the most frequent first.
    tokens
        The number of each word in the order of the text.
    letters
        For each word the rows of its runs of letters, padded with the first one's.
    weights
        For each of those 1 over how many there are; 0 where it is padding.
    """

    words: list[str]
    tokens: Ids
    letters: Ids
    weights: Floats


def read(most: int) -> Text:
    """Return so many words of Python's reference."""
    from pydoc_data.topics import topics

    found = re.findall(r"[a-z]+", " ".join(topics[name] for name in sorted(topics)).lower())[:most]
    words = [word for word, count in Counter(found).most_common() if count > 1]
    numbers = {word: k for k, word in enumerate(words)}
    runs = [
        [
            zlib.crc32(padded[k : k + n].encode()) % BUCKETS
            for n in (3, 4, 5)
            for k in range(max(len(padded) - n + 1, 0))
        ]
        for padded in (f"<{word}>" for word in words)
    ]
    longest = max(map(len, runs))
    letters = np.array([run + run[:1] * (longest - len(run)) for run in runs])
    weights = np.array(
        [[1 / len(run)] * len(run) + [0.0] * (longest - len(run)) for run in runs], np.float32
    )
    return Text(words, np.array([numbers[w] for w in found if w in numbers]), letters, weights)


def pairs(text: Text, rng: np.random.Generator) -> Iterator[tuple[Ids, Ids]]:
    """Yield batches of words and, for each, a neighbour and words that are none."""
    distance = rng.integers(1, WINDOW + 1, text.tokens.size)
    places = rng.permutation(text.tokens.size - WINDOW)
    frequency = np.bincount(text.tokens) ** 0.75
    chances = np.cumsum(frequency / frequency.sum())
    for start in range(0, places.size - BATCH + 1, BATCH):
        at = places[start : start + BATCH]
        others = np.searchsorted(chances, rng.random((BATCH, NEGATIVES)))
        neighbours = text.tokens[at + distance[at]]
        yield text.tokens[at], np.minimum(np.c_[neighbours, others], len(text.words) - 1)


def gradients(
    params: dict[str, Floats], text: Text, words: Ids, targets: Ids
) -> tuple[float, dict[str, instep.Rows]]:
    """Return the loss of a batch and its gradient: that of the rows which take part."""
    letters, weights = text.letters[words], text.weights[words][..., None]
    vectors = np.sum(params["letters"][letters] * weights, axis=1)
    outputs = params["outputs"][targets]
    scores = np.einsum("bl,btl->bt", vectors, outputs)
    signs = np.ones(scores.shape, np.float32)
    signs[:, 1:] = -1
    chances = 1 / (1 + np.exp(signs * scores))
    loss = float(np.mean(np.sum(np.logaddexp(0, -signs * scores), axis=1)))
    slopes = -signs * chances / len(words)
    of_vectors = np.einsum("bt,btl->bl", slopes, outputs)
    return loss, {
        "letters": instep.Rows(letters, of_vectors[:, None] * weights),
        "outputs": instep.Rows(targets, slopes[..., None] * vectors[:, None]),
    }


def train(text: Text, way: dict[str, Any] | None, epochs: int) -> tuple[list[float], float, float]:
    """Return the loss of each batch, and the seconds of an epoch and of its steps alone."""
    rng = np.random.default_rng(0)
    params = {
        "letters": rng.standard_normal((BUCKETS, LENGTH), dtype=np.float32) * np.float32(0.1),
        "outputs": np.zeros((len(text.words), LENGTH), np.float32),
    }
    opt = instep.Adam(params, learning_rate=0.01, **(way or {}))
    losses, stepping, begin = list[float](), 0.0, time.perf_counter()
    batches = epochs * ((text.tokens.size - WINDOW) // BATCH)
    for _ in range(epochs):
        for words, targets in pairs(text, rng):
            if sys.stderr.isatty() and len(losses) % 20 == 0:
                done = 40 * len(losses) // batches
                print(f"\r[{'=' * done:40}]", end="\r", file=sys.stderr, flush=True)
            # Rows that are about to be read get what they have missed; lazy ones miss nothing.
            opt.settle({"letters": text.letters[words], "outputs": targets})
            loss, rows = gradients(params, text, words, targets)
            losses.append(loss)
            grads = rows if way else {n: r.dense(params[n].shape) for n, r in rows.items()}
            start = time.perf_counter()
            opt.step(grads)
            stepping += time.perf_counter() - start
    opt.settle()
    return losses, (time.perf_counter() - begin) / epochs, stepping / epochs


def main() -> None:
    """Train in each way; print losses and times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--words", type=int, default=70_000)
    parser.add_argument("--plot")
    arguments = parser.parse_args()
    text = read(arguments.words)
    print(f"{text.tokens.size:,} tokens, {len(text.words):,} words")
    print("gradients", "loss", "s an epoch", "of that, steps", sep="\t")
    curves: dict[str, list[float]] = {}
    for name, way in WAYS.items():
        losses, epoch, steps = train(text, way, arguments.epochs)
        curves[name] = losses
        print(name, f"{np.mean(losses[-100:]):.6f}", f"{epoch:.2f}", f"{steps:.2f}", sep="\t")
    print("dense and exact losses are", end=" ")
    print("the same" if curves["dense"] == curves["rows, exact"] else "different")
    if arguments.plot:
        draw(curves, arguments.plot)


def draw(curves: dict[str, list[float]], path: str) -> None:
    """Draw the losses, each the mean of a hundred batches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, style in zip(curves, ("-", "--", ":"), strict=True):
        many = len(curves[name]) // 20 * 20
        axes.plot(np.mean(np.reshape(curves[name][:many], (-1, 20)), axis=1), style, label=name)
    axes.set(xlabel="20 batches", ylabel="loss")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
