"""The gallery against the paths that packages with these rules took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instep import gallery

FILE = Path(__file__).parent / "trajectories" / "gallery.npz"


@pytest.mark.parametrize("case", np.load(FILE).files)
def test_gallery_is_as_in_packages(case: str) -> None:
    """Each file's path: the parameter before, gradients, and the parameter after each of them."""
    name, _, numbers = case.partition(" ")
    options = dict(pair.split("=") for pair in numbers.split())
    path = np.load(FILE)[case]
    steps = (len(path) - 1) // 2
    param = path[0].copy()
    opt = getattr(gallery, name)(param, **{key: float(text) for key, text in options.items()})
    for g, wanted in zip(path[1 : 1 + steps], path[1 + steps :], strict=True):
        opt.step(g)
        # timm's LaProp keeps numbers of the step in float32.
        np.testing.assert_allclose(param, wanted, rtol=0, atol=1e-7 if name == "LaProp" else 1e-14)
