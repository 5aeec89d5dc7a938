"""What is stepped: the parameters of known models, or one array of any size."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


@dataclass(frozen=True)
class Workload:
    """A name, and the shapes of the arrays of parameters."""

    name: str
    shapes: tuple[Shape, ...]

    @property
    def parameters(self) -> int:
        """The number of parameters in all arrays."""
        return sum(map(math.prod, self.shapes))


def _mlp() -> list[Shape]:
    """Return the shapes of a perceptron 784-128-10."""
    return [(784, 128), (128,), (128, 10), (10,)]


def _resnet50() -> list[Shape]:
    """Return the shapes of torchvision's ResNet-50."""

    def conv(out: int, channels: int, size: int) -> list[Shape]:
        return [(out, channels, size, size), (out,), (out,)]

    shapes = conv(64, 3, 7)
    channels = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += conv(planes, channels, 1) + conv(planes, planes, 3)
            shapes += conv(4 * planes, planes, 1)
            if block == 0:
                shapes += conv(4 * planes, channels, 1)
            channels = 4 * planes
    return [*shapes, (1000, channels), (1000,)]


def _gpt2() -> list[Shape]:
    """Return the shapes of GPT-2 124M, whose head shares the token embedding."""
    d = 768
    norm: list[Shape] = [(d,), (d,)]
    attention: list[Shape] = [(d, 3 * d), (3 * d,), (d, d), (d,)]
    feed_forward: list[Shape] = [(d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *12 * (norm + attention + norm + feed_forward), *norm]


_SHAPES: dict[str, Sequence[Shape]] = {
    "1k": [(1000,)],
    "mlp": _mlp(),
    "100x1k": 100 * [(1024,)],
    "1000x64": 1000 * [(64,)],
    "1m": [(2**20,)],
    "resnet50": _resnet50(),
    "gpt2": _gpt2(),
}
MODELS = {name: Workload(name, tuple(shapes)) for name, shapes in _SHAPES.items()}


def of_size(text: str) -> Workload:
    """Return one array with a number of parameters such as 10, 1e6, 2^20 or 64k.

    Raises
    ------
    ValueError
        For anything else.
    """
    written = text.strip().lower().replace("_", "").replace(",", "")
    if power := re.fullmatch(r"(\d{1,4})\^(\d{1,2})", written):
        size: float = int(power[1]) ** int(power[2])
    elif number := re.fullmatch(r"(\d+(?:\.\d*)?(?:e\d{1,2})?)([kmg]?)", written):
        size = float(number[1]) * _SUFFIXES[number[2]]
    else:
        size = 0
    if size < 1 or size != int(size):
        raise ValueError(f"expected a size such as 10, 1e6, 2^20 or 64k, got {text}")
    name = f"{int(size):,}" if written.isdecimal() else text
    return Workload(name, ((int(size),),))


def sweep(per_decade: int) -> list[Workload]:
    """Return single arrays from 10 to 10^8 parameters, so many sizes for each factor of ten."""
    sizes = [round(10 ** (1 + i / per_decade)) for i in range(7 * per_decade + 1)]
    return [Workload(f"{size:,}", ((size,),)) for size in sizes]
