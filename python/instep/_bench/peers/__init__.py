"""The peers that instep is compared with: a module for each library, and a line in a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from instep._bench.peers.adapters import KerasAdapter, ScikitLearnAdapter, TorchAdapter
from instep._bench.peers.base import Peer
from instep._bench.peers.bitsandbytes import BitsAndBytes
from instep._bench.peers.deepspeed import DeepSpeed
from instep._bench.peers.keras import Keras
from instep._bench.peers.numba import Numba
from instep._bench.peers.numpy import NumPy
from instep._bench.peers.optax import Optax
from instep._bench.peers.sklearn import ScikitLearn
from instep._bench.peers.thinc import Thinc
from instep._bench.peers.torch import Torch

PEERS: dict[str, Callable[[], Peer]] = {
    "numpy": NumPy,
    "numba": Numba,
    "torch-loop": partial(Torch, "for-loop"),
    "torch-foreach": partial(Torch, "foreach"),
    "torch-fused": partial(Torch, "fused"),
    "deepspeed": DeepSpeed,
    "optax": Optax,
    "keras": Keras,
    "thinc": Thinc,
    "scikit-learn": ScikitLearn,
    "bitsandbytes": BitsAndBytes,
}

ADAPTERS: dict[str, Callable[[], Peer]] = {
    "instep.torch": TorchAdapter,
    "instep.keras": KerasAdapter,
    "instep.sklearn": ScikitLearnAdapter,
}
"""instep in the place of other libraries' own optimizers."""

IN_PLACE_OF = {
    "instep.torch": ("torch-loop", "torch-foreach", "torch-fused"),
    "instep.keras": ("keras",),
    "instep.sklearn": ("scikit-learn",),
}
"""For each adapter the peers that are its library's own optimizers."""
