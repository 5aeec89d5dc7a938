"""Gradients of some rows: what they mean, to every rule and option, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model import snapshot
from references import REFERENCES

import instep
from instep import Rows

# Called with arguments that a type checker would refuse.
untyped: Any = instep

ELEMENTWISE = sorted(
    {name for name, reference in REFERENCES.items() if reference.elementwise} - {"Adafactor", "SM3"}
)
WHOLE = sorted(set(REFERENCES) - set(ELEMENTWISE))

OPTIONS: list[dict[str, Any]] = [
    {},
    {"l2": 0.01, "maximize": True, "clipvalue": 0.5},
    {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    {"loss_scale_factor": 4.0, "clipnorm": 0.5, "skip_nonfinite": True},
    {"gradient_accumulation_steps": 3, "global_clipnorm": 0.5},
    {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.75},
]


def random_rows(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = "f4", most: int = 12
) -> Rows:
    """Rows with repeated ids, sometimes none, one or all of them."""
    count = rng.choice([0, 1, 2, most, most, most])
    ids = rng.integers(0, shape[0], count)
    if rng.random() < 0.1:
        ids = rng.permutation(shape[0])
    return Rows(ids, rng.standard_normal((len(ids), *shape[1:])).astype(dtype))


def options_of(name: str, options: dict[str, Any]) -> dict[str, Any]:
    if name in ("Lamb", "Lars", "NovoGrad") or "weight_decay" in options:
        return options
    return {**options, "weight_decay": 0.1} if options.get("l2") else options


def same(a: instep.Optimizer, b: instep.Optimizer) -> bool:
    a.settle()
    b.settle()
    one, other = snapshot(a), snapshot(b)
    return str(one) == str(other)


def bits(opt: instep.Optimizer) -> list[bytes]:
    """All numbers of an optimizer."""
    opt.settle()
    found = [p.tobytes() for p in opt.params]
    for state in opt.state:
        found += [np.asarray(value).tobytes() for _, value in sorted(state.items())]
    return found + [p.tobytes() for p in opt.averages or []]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_exact_is_the_dense_step(name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    shapes = [(40, 7), (9,), (5, 2, 3)]
    dtype = rng.choice(["f4", "f8"])
    params = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    twins = [p.copy() for p in params]
    make, options = getattr(untyped, name), options_of(name, options)
    opt = make(params, sparse="exact", **options)
    twin = make(twins, **options)
    for k in range(14):
        given: list[Any] = [random_rows(rng, shape, dtype) for shape in shapes]
        if k == 5:
            given[0] = rng.standard_normal(shapes[0])
        if k in (3, 8, 9):
            given[k % 3] = None
        dense = [
            each.dense(shape, dtype) if isinstance(each, Rows) else each
            for each, shape in zip(given, shapes, strict=True)
        ]
        opt.step(given)
        twin.step(dense)
        if k in (6, 13):
            assert bits(opt) == bits(twin), k
            assert opt.grad_norm == twin.grad_norm


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_lazy_leaves_other_rows_alone(name: str, options: dict[str, Any]) -> None:
    """Each row that is named goes through what it would alone; averages move in all of them."""
    rng = np.random.default_rng(2)
    shape = (17, 5)
    p = rng.standard_normal(shape)
    make, options = getattr(untyped, name), options_of(name, options)
    window = options.get("gradient_accumulation_steps", 1)
    if options.get("use_ema"):
        options = {**options, "ema_overwrite_frequency": None}
    opt = make(p, **options)
    twin = make(p.copy(), **options)
    for _ in range(4):
        touched = np.zeros(shape[0], bool)
        for _ in range(window):
            rows = random_rows(rng, shape, "f8", 6)
            touched[rows.ids] = True
            before = [twin.params.copy(), *(v.copy() for v in arrays_of(twin))]
            opt.step(rows)
            twin.step(rows.dense(shape))
        # The dense step, but where no row is named.
        for now, old in zip([twin.params, *arrays_of(twin)], before, strict=True):
            now[~touched] = old[~touched]
        if options.get("use_ema"):
            expected = opt.averages.copy()
            twin.averages[...] = expected
        assert bits_of_one(opt) == bits_of_one(twin)


def arrays_of(opt: Any) -> list[Any]:
    return [v for _, v in sorted(opt.state.items()) if isinstance(v, np.ndarray) and v.ndim == 2]


def bits_of_one(opt: Any) -> list[bytes]:
    opt.settle()
    return [opt.params.tobytes(), *(each.tobytes() for each in arrays_of(opt))]
