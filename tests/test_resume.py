"""Training that stops at any call and goes on elsewhere is training that never stopped."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model import snapshot
from references import REFERENCES

import instep
from instep._conventions import CONVENTIONS

pytestmark = pytest.mark.usefixtures("without_fsync")

Make = Callable[[Any], Any]
"""What makes an optimizer of this kind for parameters."""
Way = Callable[[Any, Make], Any]
"""How training goes on: from an optimizer and its maker to another one with arrays of its own."""

CALLS = 6
SHAPES: Mapping[str, tuple[int, ...]] = {"b": (5,), "a": (3, 4), "d": (), "c": (2, 3)}


def arrays(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def matrices(dtype: Any = np.float64) -> dict[str, Any]:
    return {name: array for name, array in arrays(dtype).items() if array.ndim == 2}


def gradients(params: Mapping[str, Any], call: int) -> dict[str, Any]:
    """Gradients of a call: some missing, some of the other dtype, some not finite."""
    rng = np.random.default_rng([7, call])
    names = sorted(params)
    grads: dict[str, Any] = {}
    for k, name in enumerate(names):
        g = np.asarray(rng.normal(size=params[name].shape))
        grads[name] = g.astype(np.float32) if (k + call) % 3 == 0 else g
    if call % 4 < 2:
        grads[names[call % len(names)]] = None
    return grads


def copies(params: Any) -> dict[str, Any]:
    """Copies in another order of the dict."""
    return {name: params[name].copy(order="K") for name in reversed(params)}


def loaded(opt: Any, make: Make) -> Any:
    other = make(copies(opt.params))
    other.load_state_dict(opt.state_dict())
    return other


def loaded_after_steps(opt: Any, make: Make) -> Any:
    """Into an optimizer that has a past of its own."""
    other = make(copies(opt.params))
    for call in range(3):
        other.step(gradients(opt.params, 20 + call))
    other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    other.build(copies(opt.params))
    return other


def pickled(opt: Any, make: Make) -> Any:
    return pickle.loads(pickle.dumps(opt))


def deep_copied(opt: Any, make: Make) -> Any:
    return copy.deepcopy(opt)


def rebuilt(opt: Any, make: Make) -> Any:
    other = copy.deepcopy(opt)
    other.build(copies(opt.params))
    return pickled(other, make)


def saved(opt: Any, make: Make) -> Any:
    """In a file, with the parameters, into arrays that hold other numbers."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint"
        opt.save(file)
        other = make({name: np.full_like(array, 7) for name, array in copies(opt.params).items()})
        other.load(file)
    return other


def saved_without_parameters(opt: Any, make: Make) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint"
        opt.save(file, params=False)
        other = make(copies(opt.params))
        other.load(file)
    return other


WAYS: list[Way] = [
    loaded,
    loaded_after_steps,
    pickled,
    deep_copied,
    rebuilt,
    saved,
    saved_without_parameters,
]


def assert_resumes(make: Make, params: Any, *, skips: bool = False) -> Any:
    """At each of the calls, go on in every way for two more, and compare with what stayed."""
    stayed = make(params)
    resumed: list[list[Any]] = []
    now = snapshot(stayed)
    for call in range(CALLS + 2):
        if call < CALLS:
            resumed.append([way(stayed, make) for way in WAYS])
            for way, other in zip(WAYS, resumed[-1], strict=True):
                assert snapshot(other) == now, (way, call)
        grads = gradients(params, call)
        if skips and call % 3 == 1:
            next(g for g in grads.values() if g is not None).flat[0] = np.inf
        stayed.step(grads)
        now = snapshot(stayed)
        for others in resumed[max(call - 2, 0) : call + 1]:
            for way, other in zip(WAYS, others, strict=True):
                other.step(grads)
                assert snapshot(other) == now, (way, call)
    return stayed


@pytest.mark.parametrize("rule", REFERENCES)
def test_every_rule_resumes(rule: str) -> None:
    for number, configuration in enumerate(REFERENCES[rule].configurations):
        keywords = {
            name: value
            for name, value in configuration.items()
            if name in getattr(instep, rule)().config
        }
        params = arrays([np.float32, np.float64][number % 2])
        opt = assert_resumes(lambda p, k=keywords: getattr(instep, rule)(p, **k), params)  # type: ignore[misc]
        assert opt.iterations == CALLS + 2


FRAMEWORKS = [
    (rule, convention)
    for rule in REFERENCES
    for convention in CONVENTIONS[rule]
    if convention != "paper"
]


@pytest.mark.parametrize(("rule", "convention"), FRAMEWORKS)
def test_every_convention_resumes(rule: str, convention: str) -> None:
    def make(params: Any) -> Any:
        # A schedule, as one convention asks it for the next rate, too.
        return getattr(instep, rule)(
            params,
            learning_rate=halving,
            gradient_accumulation_steps=2,
            use_ema=True,
            ema_overwrite_frequency=2,
            convention=convention,
        )

    assert_resumes(make, (matrices if (rule, convention) == ("Muon", "torch") else arrays)())


def halving(update: int) -> float:
    return 0.2 * 0.5**update


OPTIONS: list[dict[str, Any]] = [
    {"l2": 0.1, "maximize": True, "clipvalue": 0.5, "gradient_accumulation_steps": 4},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3, "clipnorm": 0.5},
    {"global_clipnorm": 0.5, "skip_nonfinite": True, "gradient_accumulation_steps": 3},
    {"use_ema": True, "gradient_accumulation_steps": 2, "loss_scale_factor": 3.0},
    {"learning_rate": instep.schedules.CosineDecay(0.1, 5), "skip_nonfinite": True},
    {"global_clipnorm": 0.1},  # whose norm becomes infinite
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rule", ["SGD", "Adam", "Nadam", "ScheduleFreeAdamW", "Muon", "Adafactor"])
def test_every_option_resumes(rule: str, options: dict[str, Any]) -> None:
    def make(params: Any) -> Any:
        return getattr(instep, rule)(params, **options)

    opt = assert_resumes(make, arrays(), skips="loss_scale_factor" not in options)
    skips = options.get("skip_nonfinite", False)
    assert opt.skipped_steps == (3 if skips else 0)


def test_groups_resume() -> None:
    def make(params: Any) -> Any:
        return instep.SGD(
            {
                **params,
                "a": instep.Group(params["a"], learning_rate=halving, momentum=0.0),
                "b": instep.Group(params["b"], maximize=True, clipnorm=0.3, weight_decay=0.1),
                "c": instep.Group(params["c"], momentum=0.5, clipnorm=None),
            },
            momentum=0.9,
            clipvalue=0.5,
            use_ema=True,
        )

    opt = assert_resumes(make, arrays())
    assert [group["learning_rate"] for group in opt.groups].count(halving) == 1


@pytest.mark.parametrize("rule", REFERENCES)
def test_hyperparameters_come_along(rule: str) -> None:
    """Whatever numbers the constructor got, those that were saved hold."""
    cls = getattr(instep, rule)
    first = cls(arrays(), learning_rate=0.05, l2=0.01, clipnorm=2.0, use_ema=True)
    for call in range(3):
        first.step(gradients(first.params, call))
    others: dict[str, Any] = {"learning_rate": 0.7, "clipvalue": 0.1, "maximize": True}
    for name, value in cls().config.items():
        if name not in others and type(value) is float and 0 < value < 1:
            others[name] = value / 2
    others.pop("epsilon_root", None)
    second = cls(copies(first.params), gradient_accumulation_steps=2, **others)
    second.step(gradients(first.params, 9))
    second.load_state_dict(first.state_dict())
    second.build(copies(first.params))
    assert second.config == first.config
    for call in range(3, 6):
        for opt in (first, second):
            opt.step(gradients(first.params, call))
        assert snapshot(first) == snapshot(second)


def test_hyperparameters_of_groups_come_along() -> None:
    def make(first: float | None, second: float) -> Any:
        params = arrays()
        params["a"] = instep.Group(params["a"], learning_rate=second, clipnorm=first)
        return instep.SGD(params, learning_rate=0.1)

    for mine, theirs in [(0.2, 0.7), (None, 0.7), (0.2, None)]:
        first, second = make(mine, 0.3), make(theirs, 0.4)
        first.step(gradients(first.params, 3))
        second.load_state_dict(first.state_dict())
        second.build(copies(first.params))
        for opt in (first, second, opt_copy := pickle.loads(pickle.dumps(second))):
            opt.step(gradients(first.params, 7))
        assert snapshot(first) == snapshot(second) == snapshot(opt_copy)
        assert second.groups[1]["clipnorm"] == mine


def test_hyperparameters_assigned_on_the_way_come_along() -> None:
    def make(params: Any) -> Any:
        return instep.RMSprop(params, momentum=0.9)

    for way in WAYS:
        opt = make(arrays())
        opt.step(gradients(opt.params, 0))
        opt.momentum, opt.centered, opt.use_ema, opt.epsilon = 0.0, True, True, 0.5
        other = way(opt, make)
        for call in range(1, 4):
            for each in (opt, other):
                each.step(gradients(opt.params, call))
        assert snapshot(opt) == snapshot(other)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda a: np.ascontiguousarray(a.transpose(1, 2, 0)).transpose(2, 0, 1),
    "swapped": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
    "backwards": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "spread": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "Fortran": np.asfortranarray,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", ["Lamb", "NovoGrad", "Prodigy", "Adafactor", "SGD"])
def test_a_pickle_of_arrays_in_any_layout(rule: str, layout: str) -> None:
    """NumPy brings some of them back in another one, while sums of norms go by the first."""
    rng = np.random.default_rng(0)
    shape = (6, 7, 50)
    param = LAYOUTS[layout](rng.normal(size=shape).astype(np.float32))
    opt = getattr(instep, rule)([param], clipnorm=0.5, use_ema=True, learning_rate=0.1)
    opt.step([rng.normal(size=shape)])
    other = pickle.loads(pickle.dumps(opt))
    for call in range(6):
        if call == 3:
            other = pickle.loads(pickle.dumps(other))
            other.load_state_dict(opt.state_dict())
        grad = rng.normal(size=shape)
        grads = [np.asfortranarray(grad) if call % 2 else grad]
        opt.step(grads)
        other.step(grads)
        for mine, theirs in ((opt.params, other.params), (opt.averages, other.averages)):
            assert mine[0].tobytes() == theirs[0].tobytes()
