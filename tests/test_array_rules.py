"""Rules that see whole arrays or keep state in parts: what is around them, and in their middle."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from model import snapshot

import instep
from instep import Optimizer
from instep._hyperparameters import Rate
from instep.typing import Convention

RULES = ["Adafactor", "SM3", "Muon"]


class Descent(Optimizer):
    """Gradient descent, as a rule that sees whole arrays."""

    learning_rate: Rate = Rate(default=0.1)

    @classmethod
    def _update(
        cls,
        g: np.ndarray[Any, Any],
        param: np.ndarray[Any, Any],
        state: Mapping[str, Any],
        numbers: dict[str, Any],
        step: int,
        scratch: Any,
    ) -> dict[str, Any]:
        assert step == cls.steps[param.shape] + 1
        g *= numbers["learning_rate"]
        return {}

    steps: dict[tuple[int, ...], int] = {}


SHAPES = [(4, 3), (3,), (), (2, 3, 2), (0, 4)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"l2": 0.1, "maximize": True, "clipvalue": 0.5},
    {"weight_decay": 0.1, "clipnorm": 0.5, "loss_scale_factor": 4.0},
    {"weight_decay": 0.1, "l2": 0.01, "global_clipnorm": 0.7},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2, "weight_decay": 0.1},
    {"gradient_accumulation_steps": 3, "use_ema": True, "global_clipnorm": 0.5},
    {"skip_nonfinite": True, "gradient_accumulation_steps": 2},
    {"learning_rate": instep.schedules.InverseTimeDecay(0.1, 1, 1.0)},
]


def arrays(dtype: str, order: str = "C") -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.array(rng.standard_normal(shape), dtype, order=order) for shape in SHAPES]  # type: ignore[call-overload]


def calls(rng: np.random.Generator, dtype: str) -> list[list[Any]]:
    """Gradients of twelve calls, some missing, one not finite."""
    result: list[list[Any]] = []
    for call in range(12):
        grads: list[Any] = [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]
        if call % 3 == 1:
            grads[call % 5] = None
        if call == 7:
            grads[0][0, 0] = np.inf
        result.append(grads)
    return result


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_everything_around_the_rule_is_the_same(
    options: dict[str, Any], dtype: str, order: str
) -> None:
    mine, theirs = arrays(dtype, order), arrays(dtype, order)
    group = {"learning_rate": 0.2, "maximize": True}
    whole = Descent([*mine[:-1], instep.Group(mine[-1], **group)], **options)
    each = instep.SGD(
        [*theirs[:-1], instep.Group(theirs[-1], **group)], **{"learning_rate": 0.1, **options}
    )
    finite = not options.get("skip_nonfinite", False)
    for grads in calls(np.random.default_rng(1), dtype):
        if finite and grads[0] is not None:
            grads[0] = np.nan_to_num(grads[0], posinf=1.0)
        Descent.steps = {
            p.shape or (1,): s["step"] for p, s in zip(mine, whole.state, strict=True) if p.size
        }
        whole.step(grads)
        each.step(grads)
        for a, b in zip(mine, theirs, strict=True):
            assert a.tobytes() == b.tobytes()
        assert (whole.iterations, whole.skipped_steps) == (each.iterations, each.skipped_steps)
        assert whole.grad_norm == each.grad_norm
        if "use_ema" in options:
            for a, b in zip(whole.averages, each.averages, strict=True):
                assert a.tobytes() == b.tobytes()
    assert each.iterations > 2


def train(opt: Any, count: int, first: int = 0) -> None:
    for call in range(first, first + count):
        rng = np.random.default_rng(call)
        opt.step([rng.standard_normal(p.shape) for p in opt.params])


def params() -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal(shape) for shape in [(5, 4), (3,), (2, 6)]]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_middle_changes_nothing(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = instep.Muon(params(), use_ema=True, gradient_accumulation_steps=2)
    train(opt, 5)
    before = snapshot(opt)
    original: Any = np.einsum
    calls = 0

    def fail(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # after another array
            raise error
        return original(*arguments, **keywords)

    monkeypatch.setattr(np, "einsum", fail)
    with pytest.raises(error):
        train(opt, 1, first=5)
    monkeypatch.undo()
    assert snapshot(opt) == before

    other = instep.Muon(params(), use_ema=True, gradient_accumulation_steps=2)
    train(other, 6)
    train(opt, 1, first=5)
    assert opt.iterations == other.iterations == 3
    for a, b in zip(opt.params, other.params, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_state_goes_over(rule: str) -> None:
    opt = getattr(instep, rule)(params())
    train(opt, 3)
    other = getattr(instep, rule)([p.copy() for p in opt.params])
    other.load_state_dict(opt.state_dict())
    train(opt, 2)
    train(other, 2)
    for a, b in zip(opt.params, other.params, strict=True):
        assert a.tobytes() == b.tobytes()
    new = [p.copy() for p in opt.params]
    opt.build(new)
    train(opt, 1)
    train(other, 1)
    for a, b in zip(new, other.params, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_order_and_dtype_object(rule: str, order: str) -> None:
    """A dtype that has been pickled is not NumPy's own object."""
    expected = np.ones((4, 3))
    plain = getattr(instep, rule)(expected)
    param = pickle.loads(pickle.dumps(np.array(expected, order=order)))  # type: ignore[call-overload]
    opt = pickle.loads(pickle.dumps(getattr(instep, rule)(param)))
    for k in range(3):
        grad = np.random.default_rng(k).standard_normal((4, 3))
        opt.step(grad)
        plain.step(grad)
    np.testing.assert_array_equal(opt.params, expected)


@pytest.mark.parametrize("rule", RULES)
def test_overflow_and_underflow_are_not_errors(rule: str) -> None:
    opt = getattr(instep, rule)(np.ones((2, 2)))
    with np.errstate(all="raise"):
        opt.step(np.full((2, 2), 1e-200))
        opt.step(np.full((2, 2), 1e200))


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e22, 1e30])
@pytest.mark.parametrize(
    ("rule", "large"),
    [("Adafactor", "p"), ("ClipUp", "g"), ("Fromage", "pg"), ("Lars", "pg")],
)
def test_norms_of_very_large_and_very_small_arrays(rule: str, large: str, scale: float) -> None:
    """Squares that float32 has no room for are summed all the same."""
    rng = np.random.default_rng(0)
    values, grads = rng.standard_normal((2, 3, 2000)).astype(np.float32)
    if "p" in large:
        values *= np.float32(scale)
    if "g" in large:
        grads *= np.float32(scale)
    single, double = values.copy(), values.astype(np.float64)
    for param in (single, double):
        opt = getattr(instep, rule)(param)
        for sign in (1, -1, 1):
            opt.step(sign * grads.astype(param.dtype))
    update = np.max(abs(double - values))
    assert update > 0
    tolerance = max(1e-3 * update, 1e-6 * np.max(abs(values)))
    np.testing.assert_allclose(single, double, rtol=0, atol=tolerance)


def test_ftrl_rests_at_a_rate_of_zero() -> None:
    param = np.ones(3)
    opt = instep.Ftrl(param, learning_rate=lambda step: 0.1 * (step > 0))
    opt.step(np.ones(3))
    assert (param == 1).all()
    opt.step(np.ones(3))
    assert np.isfinite(param).all()


def test_what_arrays_have_in_common_is_no_option_of_groups() -> None:
    for name in ("learning_rate", "learning_rate_factor", "beta_3", "estim_lr0"):
        with pytest.raises(ValueError, match=f"expected options among .*; got '{name}'"):
            instep.Prodigy([np.ones(2), instep.Group(np.ones(2), **{name: 0.5})])


def test_an_option_of_a_group_is_named_with_the_group() -> None:
    with pytest.raises(ValueError, match=r"group around params\[1\]: learning_rate: expected"):
        instep.SGD([np.ones(2), instep.Group(np.ones(2), learning_rate=-1.0)])


def test_state_that_becomes_useless_goes() -> None:
    opt = instep.SM3(np.ones((3, 2)))
    assert list(opt.state) == ["momentum", "accumulator_0", "accumulator_1", "step"]
    opt.momentum = 0.0
    assert list(opt.state) == ["accumulator_0", "accumulator_1", "step"]


def test_arrays_that_a_convention_does_not_take() -> None:
    with pytest.raises(ValueError, match=r"params\[1\].*matrix.*\(3,\)"):
        instep.Muon([np.ones((2, 2)), np.ones(3)], convention="torch")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([np.zeros(3)], "state: expected the arrays r, c"),
        ([np.zeros(3), np.zeros(2)], "c: expected shape .4,."),
        (
            [np.zeros(3), np.zeros(4, "float32")],
            "c of param: expected the parameter's dtype, got float32",
        ),
        (
            [np.zeros(3), [0.0] * 4],
            "c of param: expected a NumPy array, got an object of type list",
        ),
        ([np.zeros(3), np.broadcast_to(0.0, (4,))], "c of param: .* got a read-only one"),
        (
            [np.zeros(3), np.ma.zeros(4)],
            "c of param: expected a NumPy array, got an object of type MaskedArray",
        ),
    ],
)
def test_kernels_check_their_state(state: list[Any], message: str) -> None:
    param = np.ones((3, 4))
    with pytest.raises((TypeError, ValueError), match=message):
        instep.kernels.adafactor(param, np.ones((3, 4)), *state, step=1)
    assert (param == 1).all()
    shared = np.zeros((3, 4))
    with pytest.raises(ValueError, match="momentum of params shares memory with params"):
        instep.kernels.muon(shared, np.ones((3, 4)), shared, step=1)
    with pytest.raises(ValueError, match="gradient for params shares memory with momentum"):
        instep.kernels.muon(param, shared, shared, step=1)
    for arguments in ({"step": None}, {"learning_rate": None}, {"learning_rate": len}):
        keywords: dict[str, Any] = {"step": 1, **arguments}
        with pytest.raises(TypeError, match=next(iter(arguments))):
            instep.kernels.adafactor(param, shared, np.zeros(3), np.zeros(4), **keywords)
    missing: Any = None
    with pytest.raises(TypeError, match="grad: expected a NumPy array, got NoneType"):
        instep.kernels.adafactor(param, missing, np.zeros(3), np.zeros(4), step=1)
    with pytest.raises(TypeError, match="step: muon needs it"):
        instep.kernels.muon(np.ones(3), np.ones(3), np.zeros(3), np.zeros(3))
    assert (param == 1).all()
    assert (shared == 0).all()


# What arrays have in common, and what is their own


@pytest.mark.parametrize("convention", ["keras", "optax", "tfjs"])
def test_frameworks_with_one_clock(convention: Convention) -> None:
    rng = np.random.default_rng(0)
    late, always = np.ones(3), np.ones(3)
    opt = instep.Adam([late, always], learning_rate=0.1, epsilon=0.0, convention=convention)
    opt.step([None, rng.standard_normal(3)])
    grad = rng.standard_normal(3)
    opt.step([grad, None])
    assert "step" not in opt.state[0]
    expected = np.ones(3)
    instep.kernels.adam(
        expected, grad, np.zeros(3), np.zeros(3), step=2, learning_rate=0.1, epsilon=0.0
    )
    np.testing.assert_allclose(late, expected, rtol=1e-14)


def test_one_clock_moves_numbers_of_arrays_without_gradients() -> None:
    late, always = np.ones(3), np.ones(3)
    opt = instep.Nadam([late, always], convention="keras")
    for grads in ([None, np.ones(3)], [np.ones(3), np.ones(3)]):
        opt.step(grads)
        assert opt.state[0]["u_product"] == opt.state[1]["u_product"] != 1


def test_prodigy_estimates_for_all_arrays_together() -> None:
    rng = np.random.default_rng(0)
    whole = rng.standard_normal(8)
    parts = [whole[:3].copy(), whole[3:].copy()]
    one, two = instep.Prodigy(whole, estim_lr0=0.01), instep.Prodigy(parts, estim_lr0=0.01)
    for _ in range(20):
        one.step(np.sign(whole - 5))
        two.step([np.sign(part - 5) for part in parts])
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12)
    assert two.state[0]["d"] == two.state[1]["d"] > 0.01
    two.step([None, np.ones(5)])
    assert two.state[0]["d"] == two.state[1]["d"]


@pytest.mark.parametrize("rule", ["ScheduleFreeAdamW", "ScheduleFreeSGD", "Prodigy"])
def test_copies_of_parameters_are_of_the_first_update(rule: str) -> None:
    """Weights that are loaded after an optimizer was made count."""
    rng = np.random.default_rng(0)
    loaded = rng.standard_normal((3, 2))
    early, late = np.zeros((3, 2), order="F"), loaded.copy()
    opts = [getattr(instep, rule)(early), getattr(instep, rule)(late)]
    early[...] = loaded
    slot = "p_0" if rule == "Prodigy" else "z"
    assert (opts[0].state[slot] == loaded).all()
    for _ in range(3):
        grad = rng.standard_normal((3, 2))
        for opt in opts:
            opt.step(grad)
        np.testing.assert_array_equal(early, late)
    assert (opts[0].state[slot] == opts[1].state[slot]).all()


def test_schedule_free_average() -> None:
    """x is the mean of all z where weights are equal, and the rate is."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(4)
    opt = instep.ScheduleFreeSGD({"y": y}, learning_rate=0.1)
    z = []
    for _ in range(10):
        opt.step({"y": rng.standard_normal(4)})
        z.append(opt.state["y"]["z"].copy())
    np.testing.assert_allclose(opt.eval_params()["y"], np.mean(z, axis=0), rtol=1e-12)
    with pytest.raises(RuntimeError, match="eval_params"):
        instep.ScheduleFreeSGD().eval_params()
    opt.beta_1 = 0.0
    opt.step({"y": rng.standard_normal(4)})
    with pytest.raises(ValueError, match="beta_1"):
        opt.eval_params()
