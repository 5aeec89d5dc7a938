"""Structures, binding, attributes, saved state, copies, kernels, threads and processes."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from model import freeze, snapshot

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep

DEFAULTS: dict[str, dict[str, float]] = {
    "SGD": {"learning_rate": 0.01, "momentum": 0, "dampening": 0, "nesterov": False},
    "Adagrad": {
        "learning_rate": 0.01,
        "initial_accumulator_value": 0,
        "learning_rate_decay": 0,
        "epsilon": 1e-10,
    },
    "RMSprop": {
        "learning_rate": 0.001,
        "rho": 0.9,
        "momentum": 0,
        "centered": False,
        "epsilon": 1e-7,
    },
    "Adadelta": {"learning_rate": 1.0, "rho": 0.95, "epsilon": 1e-6},
    "Adam": {
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "amsgrad": False,
    },
    "AdamW": {
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "amsgrad": False,
        "weight_decay": 0.01,
    },
}
RULES = sorted(DEFAULTS)

CONFIGURATIONS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("SGD", {}, []),
    ("SGD", {"momentum": 0.9}, ["momentum"]),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}, ["momentum"]),
    ("SGD", {"momentum": 0.9, "nesterov": True}, ["momentum"]),
    ("Adagrad", {}, ["accumulator"]),
    ("Adagrad", {"learning_rate_decay": 0.5}, ["accumulator"]),
    ("RMSprop", {}, ["mean_square"]),
    ("RMSprop", {"momentum": 0.5}, ["mean_square", "momentum"]),
    ("RMSprop", {"centered": True}, ["mean_square", "mean_gradient"]),
    (
        "RMSprop",
        {"centered": True, "momentum": 0.5},
        ["mean_square", "mean_gradient", "momentum"],
    ),
    ("Adadelta", {}, ["mean_square", "mean_square_update"]),
    ("Adam", {}, ["m", "v"]),
    ("Adam", {"amsgrad": True}, ["m", "v", "v_max"]),
    ("AdamW", {}, ["m", "v"]),
    ("AdamW", {"amsgrad": True}, ["m", "v", "v_max"]),
]
each_configuration = pytest.mark.parametrize(
    ("rule", "options", "slots"),
    CONFIGURATIONS,
    ids=[f"{rule}-{'-'.join(options) or 'plain'}" for rule, options, _ in CONFIGURATIONS],
)


def decaying(update: int) -> float:
    return 0.1 / (update + 1)


def growing(update: int) -> float:
    return float(update)


def a_tree(dtype: npt.DTypeLike = np.float64, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def array(*shape: int) -> Any:
        return np.asarray(rng.normal(size=shape), dtype)

    return {"decoder": array(3), "encoder": [array(2, 3), array(), (array(4), array(0))]}


def train(opt: Any, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        opt.step(a_tree(seed=int(rng.integers(1000))))


# A mid-window optimizer with everything on, so that a copy that forgets something shows.
def a_rich_optimizer(tree: dict[str, Any], steps: int = 5) -> Any:
    grouped = {
        "decoder": instep.Group(tree["decoder"], learning_rate=0.3, beta_1=0.5),
        "encoder": tree["encoder"],
    }
    opt = instep.Adam(
        grouped,
        learning_rate=0.1,
        amsgrad=True,
        weight_decay=0.1,
        global_clipnorm=2.0,
        skip_nonfinite=True,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=2,
        gradient_accumulation_steps=2,
    )
    train(opt, steps, 1)
    bad = a_tree()
    bad["decoder"][0] = np.nan
    opt.step(bad)
    return opt


# --- structures ---------------------------------------------------------------------------------


def test_a_bare_array() -> None:
    p = np.ones((2, 3))
    opt = instep.SGD(p, learning_rate=0.5, momentum=0.5)
    assert opt.step(np.ones((2, 3))) is None  # type: ignore[func-returns-value]
    assert p.tolist() == [[0.5] * 3] * 2
    assert opt.params is p
    assert opt.state["momentum"].tolist() == [[1.0] * 3] * 2


def test_nested_containers_and_empty_ones() -> None:
    a, b, c = np.zeros(1), np.zeros(2), np.zeros(3)
    params: Any = {"x": [a, {"deep": (b,)}], "empty": [], "y": c, "none": {}}
    opt = instep.SGD(params, learning_rate=1.0)
    opt.step({"x": [np.ones(1), {"deep": (np.ones(2),)}], "empty": [], "y": np.ones(3), "none": {}})
    assert a.tolist() + b.tolist() + c.tolist() == [-1.0] * 6


def test_list_and_tuple_are_interchangeable() -> None:
    a, b = np.zeros(1), np.zeros(1)
    opt = instep.SGD((a, [b]), learning_rate=1.0)
    opt.step([np.array([1.0]), (np.array([2.0]),)])
    assert [a[0], b[0]] == [-1.0, -2.0]


def test_order_of_dict_keys_is_irrelevant() -> None:
    params = {"b": np.zeros(2), "a": np.zeros(2), "c": np.zeros(2)}
    opt = instep.Adam(params, learning_rate=1.0)
    grads = {"c": np.full(2, 3.0), "a": np.full(2, 1.0), "b": np.full(2, 2.0)}
    opt.step(grads)
    for name, g in grads.items():
        np.testing.assert_allclose(opt.state[name]["m"], 0.1 * g)


def test_other_kinds_of_keys_and_dicts() -> None:
    params: Any = OrderedDict([(10, np.zeros(1)), (2, np.zeros(1))])
    opt = instep.SGD(params, learning_rate=1.0)
    opt.step({2: np.array([2.0]), 10: np.array([10.0])})
    assert (params[2][0], params[10][0]) == (-2.0, -10.0)
    with pytest.raises((TypeError, ValueError)) as caught:
        opt.step({2: np.array([2.0]), 10: np.zeros(5)})
    assert "params[10]" in str(caught.value)


def test_identity_shape_dtype_and_containers_are_kept() -> None:
    for dtype in (np.float32, np.float64):
        tree = a_tree(dtype)
        leaves = [tree["decoder"], *tree["encoder"][:2], *tree["encoder"][2]]
        layout = [(p.shape, p.dtype, p.ctypes.data) for p in leaves]
        opt = instep.Adam(tree)
        opt.step(a_tree(dtype, 1))
        assert [(p.shape, p.dtype, p.ctypes.data) for p in leaves] == layout
        bound = [opt.params["decoder"], *opt.params["encoder"][:2], *opt.params["encoder"][2]]
        assert all(p is q for p, q in zip(bound, leaves, strict=True))


@pytest.mark.parametrize("g", [np.float64(2.0), np.float32(2.0), 2.0, np.array(2.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_dimensional_parameter(g: Any, dtype: npt.DTypeLike) -> None:
    p = np.array(1.0, dtype)
    opt = instep.SGD({"w": p}, learning_rate=0.25, momentum=0.5)
    opt.step({"w": g})
    assert p == 0.5
    assert p.shape == ()
    assert opt.state["w"]["momentum"].shape == ()
    opt.step({"w": g})
    assert p == -0.25


def test_float_gradient_counts_for_skipping_and_norm() -> None:
    params = [np.array(0.0), np.zeros(1)]
    opt = instep.SGD(params, learning_rate=1.0, global_clipnorm=5.0, skip_nonfinite=True)
    opt.step([float("nan"), np.zeros(1)])
    assert opt.skipped_steps == 1
    opt.step([3.0, np.array([4.0])])
    assert opt.grad_norm == pytest.approx(5.0)


@each_configuration
def test_empty_arrays(rule: str, options: dict[str, Any], slots: list[str]) -> None:
    params = [np.zeros(0), np.zeros((3, 0)), np.zeros(2)]
    opt = getattr(instep, rule)(params, use_ema=True, global_clipnorm=1.0, **options)
    opt.step([np.zeros(0), np.zeros((3, 0)), np.ones(2)])
    assert opt.averages[1].shape == (3, 0)
    assert [opt.state[1][slot].shape for slot in slots] == [(3, 0)] * len(slots)
    assert np.all(params[2] < 0.0)


def test_memory_mapped_parameters(tmp_path: Path) -> None:
    p: Any = np.memmap(tmp_path / "weights", np.float32, "w+", shape=(5,))
    instep.SGD(p, learning_rate=1.0).step(np.ones(5, np.float32))
    p.flush()
    assert np.fromfile(tmp_path / "weights", np.float32).tolist() == [-1.0] * 5


# --- apply_gradients ----------------------------------------------------------------------------


def test_apply_gradients_binds_at_the_first_call() -> None:
    a, b = np.zeros(1), np.zeros(2)
    opt = instep.SGD(learning_rate=1.0)
    opt.apply_gradients(zip([np.ones(1), np.ones(2)], [a, b], strict=True))
    assert a.tolist() + b.tolist() == [-1.0] * 3
    assert opt.params[0] is a
    assert opt.params[1] is b
    opt.step([np.ones(1), None])
    assert a.tolist() + b.tolist() == [-2.0, -1.0, -1.0]


def test_apply_gradients_in_any_order_and_with_arrays_left_out() -> None:
    a, b, c = np.zeros(1), np.zeros(1), np.zeros(1)
    opt = instep.Adam(learning_rate=1.0)
    g = np.ones(1)
    opt.apply_gradients([(g, a), (g, b), (None, c)])
    opt.apply_gradients([(2 * g, b), (g, a)])
    opt.apply_gradients([(g, c)])
    opt.apply_gradients([])
    assert [state["step"] for state in opt.state] == [2, 2, 1]
    np.testing.assert_allclose(opt.state[1]["m"], [0.29])
    assert opt.iterations == 4


def test_apply_gradients_knows_fresh_views() -> None:
    store = np.zeros((4, 6))
    opt = instep.SGD(learning_rate=1.0)
    g = np.ones((4, 3))
    opt.apply_gradients([(g, store[:, :3]), (2 * g, store[:, 3:])])
    opt.apply_gradients([(2 * g, store[:, 3:]), (g, store[:, :3])])
    assert store.tolist() == [[-2.0] * 3 + [-4.0] * 3] * 4


def test_apply_gradients_on_a_nested_structure() -> None:
    tree = a_tree()
    opt = instep.SGD(tree, learning_rate=1.0)
    before = tree["encoder"][2][0].copy()
    opt.apply_gradients([(np.ones(4), tree["encoder"][2][0]), (1.5, tree["encoder"][1])])
    assert tree["encoder"][2][0].tolist() == (before - 1.0).tolist()


def test_apply_gradients_matches_two_empty_arrays() -> None:
    params = [np.zeros(0), np.zeros((2, 0)), np.zeros(1)]
    opt = instep.SGD(params, learning_rate=1.0)
    opt.apply_gradients([(np.ones(1), params[2]), (np.zeros(0), params[0])])
    assert params[2][0] == -1.0


@pytest.mark.parametrize(
    "pairs",
    [
        lambda a, b: [(np.ones(4), a), (np.ones(4), np.zeros(4))],
        lambda a, b: [(np.ones(4), a), (np.ones(4), a)],
        lambda a, b: [(np.ones(4), b), (np.ones(4), a), (np.ones(4), b[:])],
        lambda a, b: [(np.ones(4), b), (np.ones(2), a[:2])],
        lambda a, b: [(np.ones(4), b), (np.ones(2), a[::2])],
        lambda a, b: [(np.ones(4), b), (np.ones((2, 2)), a.reshape(2, 2))],
        lambda a, b: [(np.ones(4), b), (np.ones(4), a[::-1])],
        lambda a, b: [(np.ones(4), b), (None, np.zeros(4))],
        lambda a, b: [(np.ones(4), b), (None, b)],
    ],
    ids=[
        "unknown",
        "repeated",
        "repeated-view",
        "part",
        "every-other",
        "reshaped",
        "reversed",
        "unknown-none",
        "repeated-none",
    ],
)
def test_apply_gradients_refuses_unknown_and_repeated_arrays(
    pairs: Callable[[Any, Any], list[tuple[Any, Any]]],
) -> None:
    a, b = np.zeros(4), np.zeros(4)
    opt = instep.Adam([a, b])
    opt.step([np.ones(4), np.ones(4)])
    before = snapshot(opt)
    with pytest.raises(ValueError):  # noqa: PT011
        opt.apply_gradients(pairs(a, b))
    assert snapshot(opt) == before


def test_apply_gradients_refuses_repetition_at_the_first_call_too() -> None:
    a = np.zeros(4)
    opt = instep.Adam()
    with pytest.raises(ValueError, match="sum"):
        opt.apply_gradients([(np.ones(4), a), (np.ones(4), a)])
    assert a.tolist() == [0.0] * 4
    opt.apply_gradients([(np.ones(4), a)])
    assert opt.iterations == 1


# --- build and the unbound optimizer ------------------------------------------------------------


def test_build_binds() -> None:
    p = np.zeros(3)
    opt = instep.SGD(learning_rate=1.0)
    opt.build([p])
    opt.step([np.ones(3)])
    assert p.tolist() == [-1.0] * 3


def test_unbound_optimizer_refuses_what_needs_arrays() -> None:
    opt: Any = instep.Adam(use_ema=True)
    saved = instep.Adam(np.zeros(1), use_ema=True).state_dict()
    calls: list[Callable[[], object]] = [
        lambda: opt.step(np.zeros(1)),
        lambda: opt.state,
        lambda: opt.averages,
        opt.state_dict,
        lambda: opt.load_state_dict(saved),
    ]
    for call in calls:
        with pytest.raises(RuntimeError):
            call()


def test_unbound_optimizer_answers_the_rest() -> None:
    opt = instep.Adam(learning_rate=decaying)
    assert (opt.iterations, opt.skipped_steps, opt.grad_norm) == (0, 0, None)
    assert opt.learning_rate is decaying
    assert opt.current_learning_rate == 0.1
    assert opt.config["beta_1"] == 0.9
    assert opt.groups[0]["learning_rate"] is decaying
    assert "Adam" in repr(opt)
    opt.beta_1 = 0.5
    assert opt.beta_1 == 0.5
    with pytest.raises(ValueError, match="beta_1"):
        opt.beta_1 = 1.5
    copied = pickle.loads(pickle.dumps(copy.deepcopy(opt)))
    p = np.zeros(1)
    copied.build(p)
    copied.step(np.ones(1))
    np.testing.assert_allclose(p, [-0.1], rtol=1e-6)


def test_failed_binding_leaves_the_optimizer_unbound() -> None:
    opt = untyped.SGD(learning_rate=1.0)
    with pytest.raises((TypeError, ValueError)):
        opt.build([np.zeros(3), np.zeros(3, int)])
    with pytest.raises(RuntimeError):
        opt.step([np.zeros(3), np.zeros(3)])


def test_rebinding_keeps_the_state() -> None:
    first, expected = a_tree(), a_tree()
    opt, reference = a_rich_optimizer(first), a_rich_optimizer(expected)
    second = copy.deepcopy(first)
    left = freeze(first)
    opt.build(second)
    assert opt.params["encoder"][0] is second["encoder"][0]
    assert snapshot(opt) == snapshot(reference)
    for o in (opt, reference):
        train(o, 4, 2)
    assert snapshot(opt) == snapshot(reference)
    assert freeze(first) == left
    assert freeze(second) != left


def test_rebinding_may_swap_containers_and_layout() -> None:
    first = [np.ones((2, 3)), np.ones(4)]
    opt = instep.Adam(first)
    opt.step([np.ones((2, 3)), np.ones(4)])
    room = np.ones((4, 6))
    opt.build((room[::2, ::2], np.ones(4)))
    opt.step([np.ones((2, 3)), np.ones(4)])
    assert opt.state[0]["step"] == 2
    assert np.count_nonzero(room != 1.0) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["encoder"].pop(),
        lambda tree: tree["encoder"].append(np.zeros(1)),
        lambda tree: tree.pop("decoder"),
        lambda tree: tree.update(decoders=tree.pop("decoder")),
        lambda tree: tree.update(decoder=np.zeros(4)),
        lambda tree: tree.update(decoder=np.zeros((1, 3))),
        lambda tree: tree.update(decoder=np.zeros(3, np.float32)),
        lambda tree: tree.update(decoder=[np.zeros(3)]),
    ],
    ids=["shorter", "longer", "fewer-keys", "other-key", "shape", "ndim", "dtype", "deeper"],
)
def test_rebinding_to_anything_unequal_is_refused(change: Callable[[Any], object]) -> None:
    opt = a_rich_optimizer(a_tree())
    before = snapshot(opt)
    bound = opt.params["encoder"][0]
    other = a_tree(seed=5)
    change(other)
    kept = freeze(other)
    with pytest.raises(ValueError):  # noqa: PT011
        opt.build(other)
    assert snapshot(opt) == before
    assert opt.params["encoder"][0] is bound
    assert freeze(other) == kept
    train(opt, 2, 3)
    assert freeze(other) == kept


# --- state and averages -------------------------------------------------------------------------


@each_configuration
def test_state_holds_the_slots_the_configuration_needs(
    rule: str, options: dict[str, Any], slots: list[str]
) -> None:
    params: Any = {"x": [np.zeros((2, 3), np.float32)], "y": np.zeros(4)}
    opt = getattr(instep, rule)(params, **options)
    for _ in range(2):
        assert set(opt.state) == {"x", "y"}
        for state, p in [(opt.state["x"][0], params["x"][0]), (opt.state["y"], params["y"])]:
            assert [name for name in state if name != "step"] == slots
            assert [state[name].shape for name in slots] == [p.shape] * len(slots)
            assert [state[name].dtype for name in slots] == [p.dtype] * len(slots)
        opt.step({"x": [np.ones((2, 3))], "y": np.ones(4)})


def test_accumulator_starts_at_its_initial_value() -> None:
    opt = instep.Adagrad(np.zeros(3), initial_accumulator_value=0.5)
    assert opt.state["accumulator"].tolist() == [0.5] * 3


def test_state_is_live() -> None:
    opt = instep.Adam({"w": np.zeros(3)}, beta_1=0.5)
    m = opt.state["w"]["m"]
    opt.step({"w": np.full(3, 2.0)})
    assert m.tolist() == [1.0] * 3
    m[...] = 4.0
    opt.step({"w": np.zeros(3)})
    assert m.tolist() == [2.0] * 3
    assert np.shares_memory(opt.state["w"]["m"], m)


def test_averages_have_the_structure_of_the_parameters() -> None:
    tree = a_tree()
    opt = instep.SGD(tree, learning_rate=0.5, use_ema=True)
    for steps in (0, 1):
        train(opt, steps, 0)
        assert freeze(opt.averages) == freeze(tree)
    tree["decoder"][...] = 0.0
    assert opt.averages["decoder"].any()


# --- attributes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_defaults(rule: str) -> None:
    for opt in (
        getattr(instep, rule)(np.zeros(1)),
        getattr(instep, rule)(np.zeros(1), **dict.fromkeys(DEFAULTS[rule])),
    ):
        for name, value in DEFAULTS[rule].items():
            assert getattr(opt, name) == value, name
            assert opt.config[name] == value, name
        assert opt.config["convention"] == opt.convention == "paper"
        for name in ("l2", "clipvalue", "clipnorm", "global_clipnorm", "maximize", "use_ema"):
            assert not getattr(opt, name), name
            assert not opt.config[name], name
        for name in ("skip_nonfinite", "ema_overwrite_frequency"):
            assert not getattr(opt, name), name
        assert {"ema_momentum", "loss_scale_factor", "gradient_accumulation_steps"} <= set(
            opt.config
        )


def test_config_is_what_is_in_force_and_no_handle() -> None:
    opt = instep.Adam(np.zeros(1), learning_rate=decaying, clipnorm=2.0)
    opt.beta_1 = 0.25
    config = opt.config
    assert (config["learning_rate"], config["beta_1"], config["clipnorm"]) == (decaying, 0.25, 2.0)
    config["beta_1"] = 0.75
    assert opt.beta_1 == 0.25


@pytest.mark.parametrize(
    ("rule", "options", "name", "value"),
    [
        ("SGD", {}, "learning_rate", 0.5),
        ("SGD", {}, "learning_rate", np.float32(0.5)),
        ("SGD", {"momentum": 0.9}, "momentum", 0.5),
        ("SGD", {"momentum": 0.9}, "dampening", 0.5),
        ("SGD", {"momentum": 0.9}, "nesterov", True),
        ("Adagrad", {}, "learning_rate_decay", 0.5),
        ("Adagrad", {}, "epsilon", 0.5),
        ("RMSprop", {}, "rho", 0.5),
        ("RMSprop", {}, "epsilon", 0.5),
        ("RMSprop", {"momentum": 0.9}, "momentum", 0.5),
        ("Adadelta", {}, "rho", 0.5),
        ("Adadelta", {}, "epsilon", 0.5),
        ("Adam", {}, "beta_1", 0.5),
        ("Adam", {}, "beta_2", 0.5),
        ("Adam", {}, "epsilon", 0.5),
        ("AdamW", {}, "weight_decay", 0.5),
        ("SGD", {}, "l2", 0.5),
        ("SGD", {}, "weight_decay", 0.5),
        ("SGD", {}, "clipvalue", 0.5),
        ("SGD", {}, "clipnorm", 0.5),
        ("SGD", {}, "global_clipnorm", 0.5),
        ("SGD", {}, "maximize", True),
        ("SGD", {}, "loss_scale_factor", 2.0),
        ("SGD", {"use_ema": True, "ema_overwrite_frequency": 1}, "ema_momentum", 0.5),
        ("SGD", {"use_ema": True, "ema_momentum": 0.5}, "ema_overwrite_frequency", 1),
    ],
)
def test_assigned_hyperparameters_act_like_constructed_ones(
    rule: str, options: dict[str, Any], name: str, value: Any
) -> None:
    p, q, unchanged = np.full((3, 2), 4.0)
    make = getattr(instep, rule)
    assigned, constructed = make(p, **options), make(q, **{**options, name: value})
    default = make(unchanged, **options)
    setattr(assigned, name, value)
    assert getattr(assigned, name) == value
    assert assigned.config[name] == value
    for opt in (assigned, constructed, default):
        for size in (1.0, 0.5, 4.0):
            opt.step(np.array([size, -2.0]))
    assert p.tobytes() == q.tobytes()
    assert p.tobytes() != unchanged.tobytes()


BAD_HYPERPARAMETERS: list[tuple[str, str, Any]] = [
    *[(rule, "learning_rate", bad) for rule in RULES for bad in (-1e-3, np.nan, np.inf, -np.inf)],
    *[(rule, name, bad) for rule in ("Adam", "AdamW") for name in ("beta_1", "beta_2")
      for bad in (-0.1, 1.0, 1.5, np.nan)],
    *[(rule, "epsilon", bad) for rule in RULES if rule != "SGD" for bad in (-1e-9, np.nan, np.inf)],
    *[("SGD", name, bad) for name in ("momentum", "dampening") for bad in (np.nan, np.inf)],
    ("SGD", "momentum", -0.1),
    ("RMSprop", "momentum", -0.1),
    *[(rule, "rho", bad) for rule in ("RMSprop", "Adadelta") for bad in (-0.1, 1.1, np.nan)],
    *[("Adagrad", name, bad) for name in ("initial_accumulator_value", "learning_rate_decay")
      for bad in (-0.1, np.nan, np.inf)],
    *[("Adam", name, bad) for name in ("l2", "weight_decay", "clipvalue", "clipnorm",
      "global_clipnorm") for bad in (-0.1, np.nan)],
    *[("Adam", "loss_scale_factor", bad) for bad in (0.0, np.nan, np.inf)],
    *[("Adam", "ema_momentum", bad) for bad in (-0.1, 1.1, np.nan)],
    *[("Adam", "ema_overwrite_frequency", bad) for bad in (0, -1, 1.5)],
    *[("Adam", "gradient_accumulation_steps", bad) for bad in (0, -1, 1.5)],
    *[(rule, "learning_rate", bad) for rule in RULES for bad in ("0.1", [0.1], 1j)],
    ("Adam", "beta_1", "0.9"),
    ("Adam", "clipnorm", "1"),
    ("SGD", "momentum", 1j),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "name", "bad"), BAD_HYPERPARAMETERS)
def test_bad_hyperparameters_are_refused_by_name(rule: str, name: str, bad: Any) -> None:
    make = getattr(instep, rule)
    base: dict[str, Any] = {"use_ema": True} if name.startswith("ema") else {}
    with pytest.raises((TypeError, ValueError), match=name):
        make(np.zeros(1), **base, **{name: bad})
    with pytest.raises((TypeError, ValueError), match=name):
        make(**base, **{name: bad})
    opt = make(np.zeros(1), **base)
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError), match=name):
        setattr(opt, name, bad)
    assert snapshot(opt) == before


@pytest.mark.parametrize("number", [1e-3, 1, np.float32(0.1), np.float64(0.1)])
def test_a_number_in_place_of_parameters_gets_a_hint(number: float) -> None:
    for rule in RULES:
        with pytest.raises((TypeError, ValueError), match=r"did you mean learning_rate="):
            getattr(untyped, rule)(number)


def test_only_parameters_are_positional() -> None:
    with pytest.raises(TypeError):
        untyped.Adam(np.zeros(1), 1e-3)
    with pytest.raises(TypeError, match="learning_rat"):
        untyped.Adam(np.zeros(1), learning_rat=1e-3)


@pytest.mark.parametrize("convention", ["caffe", "Paper", "", "jax"])
def test_unknown_convention(convention: str) -> None:
    with pytest.raises(ValueError, match="paper"):
        instep.Adam(np.zeros(1), convention=convention)


@pytest.mark.parametrize("state_dtype", ["float32", np.float64, "bfloat16"])
def test_state_dtype_is_not_offered_yet(state_dtype: Any) -> None:
    with pytest.raises(ValueError, match="state_dtype"):
        untyped.Adam(np.zeros(1), state_dtype=state_dtype)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_momentum_without_dampening(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nesterov"):
        instep.SGD(np.zeros(1), nesterov=True, **options)
    opt = instep.SGD(np.zeros(1), **options)
    with pytest.raises(ValueError, match="nesterov"):
        opt.nesterov = True
    assert opt.nesterov is False
    valid = instep.SGD(np.zeros(1), momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="nesterov"):
        valid.momentum = 0.0
    with pytest.raises(ValueError, match="nesterov"):
        valid.dampening = 0.5
    assert (valid.momentum, valid.dampening) == (0.9, 0.0)


@pytest.mark.parametrize("first", ["clipvalue", "clipnorm", "global_clipnorm"])
@pytest.mark.parametrize("second", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_at_most_one_kind_of_clipping(first: str, second: str) -> None:
    opt = instep.Adam(np.zeros(1))
    setattr(opt, first, 1.0)
    if first == second:
        setattr(opt, second, 2.0)
        assert getattr(opt, first) == 2.0
        return
    with pytest.raises(ValueError, match="clip"):
        untyped.Adam(np.zeros(1), **{first: 1.0, second: 1.0})
    with pytest.raises(ValueError, match="clip"):
        setattr(opt, second, 1.0)
    assert getattr(opt, second) is None
    setattr(opt, first, None)
    setattr(opt, second, 1.0)
    assert getattr(opt, second) == 1.0


def test_repr_is_one_informative_line() -> None:
    tree = [np.zeros((2, 3)), np.zeros(5)]
    for opt in (instep.Adam(tree, learning_rate=0.125), instep.Adam(learning_rate=0.125)):
        text = repr(opt)
        assert text.isprintable()
        for word in ("Adam", "learning_rate", "0.125", "beta_1", "0.9"):
            assert word in text, text
    text = repr(instep.Adam(tree))
    assert "2 arrays" in text
    assert "11 parameters" in text


# --- saved state --------------------------------------------------------------------------------


def walk(tree: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from walk(value, *path, key)
        else:
            yield *path, key


def holder(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path[:-1]:
        tree = tree[key]
    return tree


def replace_everywhere(tree: dict[str, Any], old: object, new: object) -> bool:
    found = [path for path in walk(tree) if freeze(holder(tree, path)[path[-1]]) == repr(old)]
    for path in found:
        holder(tree, path)[path[-1]] = new
    return bool(found)


def test_state_dict_is_plain_and_a_copy() -> None:
    opt = a_rich_optimizer(a_tree())
    saved = opt.state_dict()
    for path in walk(saved):
        value = holder(saved, path)[path[-1]]
        assert type(value) in (int, float, bool, str, np.ndarray), path
    assert any("['encoder'][2][0]" in key for path in walk(saved) for key in path)
    kept = copy.deepcopy(saved)
    train(opt, 3, 7)
    assert freeze(saved) == freeze(kept)
    before = snapshot(opt)
    for path in walk(saved):
        value = holder(saved, path)[path[-1]]
        if isinstance(value, np.ndarray):
            value[...] = 99.0
    assert snapshot(opt) == before


@pytest.mark.parametrize("steps", [0, 1, 4, 5])
def test_loaded_state_continues_bit_for_bit(steps: int) -> None:
    tree = a_tree()
    opt = a_rich_optimizer(tree, steps)
    opt.learning_rate = 0.025
    opt.beta_2 = 0.5
    opt.loss_scale_factor = 8.0
    other = a_rich_optimizer(copy.deepcopy(tree), 0)
    other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    other.build(copy.deepcopy(tree))
    assert freeze(other.state_dict()) == freeze(opt.state_dict())
    train(opt, 5, 8)
    train(other, 5, 8)
    assert snapshot(other) == snapshot(opt)
    assert (other.iterations, other.skipped_steps) == ((steps + 5) // 2, 1)


@each_configuration
def test_every_configuration_survives_loading(
    rule: str, options: dict[str, Any], slots: list[str]
) -> None:
    p, q = np.ones((2, 5))
    g = np.arange(5.0)
    opt, other = getattr(instep, rule)(p, **options), getattr(instep, rule)(q, **options)
    opt.step(g)
    q[...] = p
    other.load_state_dict(opt.state_dict())
    opt.step(-g)
    other.step(-g)
    assert p.tobytes() == q.tobytes()
    for slot in slots:
        assert opt.state[slot].tobytes() == other.state[slot].tobytes()


def test_loading_does_not_alias_the_dict() -> None:
    opt, other = instep.Adam(np.zeros(3)), instep.Adam(np.zeros(3))
    opt.step(np.ones(3))
    saved = opt.state_dict()
    kept = freeze(saved)
    other.load_state_dict(saved)
    other.step(np.ones(3))
    assert freeze(saved) == kept


def test_loading_keeps_state_views_and_parameters() -> None:
    p = np.zeros(3)
    opt, other = instep.Adam(p), instep.Adam(np.zeros(3))
    other.step(np.full(3, 10.0))
    opt.load_state_dict(other.state_dict())
    assert p.tolist() == [0.0] * 3
    np.testing.assert_allclose(opt.state["m"], 1.0)


def test_a_schedule_stays_the_one_of_the_constructor() -> None:
    opt = instep.SGD(np.zeros(1), learning_rate=decaying)
    for _ in range(3):
        opt.step(np.ones(1))
    other = instep.SGD(np.zeros(1), learning_rate=growing)
    other.load_state_dict(opt.state_dict())
    assert other.learning_rate is growing
    assert other.current_learning_rate == 3.0


def bound(make: Any, params: Any = None, **options: Any) -> Any:
    return make([np.zeros(3), np.zeros((2, 2))] if params is None else params, **options)


@pytest.mark.parametrize(
    "source",
    [
        lambda: bound(instep.SGD, momentum=0.9),
        lambda: bound(instep.AdamW),
        lambda: bound(instep.Adam, learning_rate=decaying),
        lambda: bound(instep.Adam, [np.zeros(3)]),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros((2, 2)), np.zeros(1)]),
        lambda: bound(instep.Adam, [np.zeros(3), [np.zeros((2, 2))]]),
        lambda: bound(instep.Adam, {"a": np.zeros(3), "b": np.zeros((2, 2))}),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros((2, 3))]),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros(4)]),
        lambda: bound(instep.Adam, [np.zeros(3), np.zeros((2, 2), np.float32)]),
    ],
    ids=[
        "other-rule",
        "other-rule-with-equal-slots",
        "schedule-against-number",
        "fewer",
        "more",
        "deeper",
        "dict",
        "shape",
        "ndim",
        "dtype",
    ],
)
def test_state_of_another_optimizer_is_refused(source: Callable[[], Any]) -> None:
    opt = bound(instep.Adam)
    opt.step([np.ones(3), np.ones((2, 2))])
    before = snapshot(opt)
    with pytest.raises(ValueError):  # noqa: PT011
        opt.load_state_dict(source().state_dict())
    assert snapshot(opt) == before


def test_number_against_schedule_is_refused() -> None:
    opt = bound(instep.Adam, learning_rate=decaying)
    with pytest.raises(ValueError, match=r"learning_rate|schedule"):
        opt.load_state_dict(bound(instep.Adam).state_dict())


def test_another_convention_is_refused() -> None:
    opt = a_rich_optimizer(a_tree())
    before = snapshot(opt)
    saved = opt.state_dict()
    assert replace_everywhere(saved, "paper", "keras")
    with pytest.raises(ValueError, match="convention"):
        opt.load_state_dict(saved)
    assert snapshot(opt) == before


def test_loading_checks_every_entry_before_it_changes_any() -> None:
    target = a_rich_optimizer(a_tree(seed=3), 2)
    before = snapshot(target)
    source = a_rich_optimizer(a_tree())
    for path in walk(source.state_dict()):
        value = holder(source.state_dict(), path)[path[-1]]
        # None, or leaving it out, turns such an option off.
        optional = path[-1] in ("global_clipnorm", "ema_overwrite_frequency", "grad_norm")
        damages: list[Any] = [object(), "nonsense", *([] if optional else [None])]
        if isinstance(value, np.ndarray):
            damages += [value.astype(complex), value.astype(np.float16), value[None], 1.0]
        for damage in damages:
            saved = source.state_dict()
            holder(saved, path)[path[-1]] = damage
            with pytest.raises((TypeError, ValueError)):
                target.load_state_dict(saved)
            assert snapshot(target) == before, (path, damage)
        if optional:
            continue
        saved = source.state_dict()
        del holder(saved, path)[path[-1]]
        with pytest.raises((TypeError, ValueError)):
            target.load_state_dict(saved)
        assert snapshot(target) == before, path
    target.load_state_dict(source.state_dict())
    assert snapshot(target) != before


def test_loading_checks_the_ranges_of_numbers() -> None:
    opt = bound(instep.Adam, learning_rate=0.125)
    before = snapshot(opt)
    for bad in (-1.0, np.nan, np.inf):
        saved = opt.state_dict()
        assert replace_everywhere(saved, 0.125, bad)
        with pytest.raises(ValueError, match="learning_rate"):
            opt.load_state_dict(saved)
        assert snapshot(opt) == before


@pytest.mark.parametrize("nonsense", [{}, None, [], "x", 3, {"nonsense": 1}])
def test_loading_nonsense_is_refused(nonsense: Any) -> None:
    opt = bound(instep.Adam)
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError)):
        opt.load_state_dict(nonsense)
    assert snapshot(opt) == before


# --- pickle and deepcopy ------------------------------------------------------------------------


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("clone", [pickled, copy.deepcopy])
@pytest.mark.parametrize("steps", [0, 1, 4, 5])
def test_a_copy_trains_on_bit_for_bit(clone: Callable[[Any], Any], steps: int) -> None:
    tree = a_tree()
    opt = a_rich_optimizer(tree, steps)
    other = clone(opt)
    assert type(other) is type(opt)
    assert snapshot(other) == snapshot(opt)
    before = snapshot(opt)
    train(other, 5, 9)
    assert snapshot(opt) == before
    assert snapshot(other) != before
    train(opt, 5, 9)
    assert snapshot(other) == snapshot(opt)
    assert [group["learning_rate"] for group in other.groups] == [0.1, 0.3]


@pytest.mark.parametrize("clone", [pickled, copy.deepcopy])
def test_arrays_copied_along_stay_the_bound_ones(clone: Callable[[Any], Any]) -> None:
    tree = a_tree()
    params, opt = clone((tree, instep.SGD(tree, learning_rate=1.0)))
    assert opt.params["encoder"][2][0] is params["encoder"][2][0]
    before = freeze(params)
    train(opt, 1, 0)
    assert freeze(params) != before
    assert freeze(tree) == before
    params["decoder"] = params["decoder"] * 2.0
    with pytest.raises((TypeError, ValueError, RuntimeError), match="decoder"):
        train(opt, 1, 0)


@pytest.mark.parametrize("clone", [pickled, copy.deepcopy])
def test_a_copy_keeps_its_schedule_and_its_memory(clone: Callable[[Any], Any]) -> None:
    opt = instep.Adam([np.zeros((3, 4)).T], learning_rate=decaying)
    opt.step([np.ones((4, 3))])
    other = clone(opt)
    assert other.learning_rate is decaying
    assert other.current_learning_rate == 0.05
    other.apply_gradients([(np.ones((4, 3)), other.params[0])])
    assert other.iterations == 2


# --- kernels ------------------------------------------------------------------------------------

# Slots and keywords; amsgrad and centered are told by the arrays that are given.
KERNELS: dict[str, tuple[list[str], list[str]]] = {
    "SGD": (["momentum"], ["momentum", "dampening", "nesterov", "step"]),
    "Adagrad": (["accumulator"], ["learning_rate_decay", "epsilon", "step"]),
    "RMSprop": (["mean_square", "mean_gradient", "momentum"], ["rho", "momentum", "epsilon"]),
    "Adadelta": (["mean_square", "mean_square_update"], ["rho", "epsilon"]),
    "Adam": (["m", "v", "v_max"], ["beta_1", "beta_2", "epsilon", "step"]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rule", "options", "slots"),
    [configuration for configuration in CONFIGURATIONS if configuration[0] in KERNELS],
)
def test_kernels_compute_the_digits_of_the_classes(
    rule: str, options: dict[str, Any], slots: list[str], dtype: npt.DTypeLike
) -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(size=(7, 9)).astype(dtype)
    room = np.zeros((14, 18), dtype)
    q = room[::2, ::2]
    q[...] = p
    opt = getattr(instep, rule)(p, learning_rate=0.1, **options)
    all_slots, keywords = KERNELS[rule]
    state = [np.zeros((7, 9), dtype) if slot in slots else None for slot in all_slots]
    kernel = getattr(instep.kernels, rule.lower())
    for t in range(1, 5):
        g = rng.normal(size=(7, 9)).astype(dtype)
        opt.step(g)
        given = {**DEFAULTS[rule], **options, "step": t}
        numbers = {name: given[name] for name in keywords}
        assert kernel(q, g, *state, learning_rate=0.1, **numbers) is None
    assert q.tobytes() == p.tobytes()
    assert np.count_nonzero(room) == q.size
    for name, slot in zip(all_slots, state, strict=True):
        if slot is not None:
            assert slot.tobytes() == opt.state[name].tobytes(), name


def test_kernel_of_the_example_in_the_documentation() -> None:
    param, m, v = np.zeros((3, 5))
    instep.kernels.adam(
        param,
        np.ones(5),
        m,
        v,
        step=1,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
    )
    np.testing.assert_allclose(param, -1e-3, rtol=1e-7)
    np.testing.assert_allclose(m, 0.1)
    np.testing.assert_allclose(v, 0.001)


def read_only(a: Any) -> Any:
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(param=read_only(np.zeros(6))),
        lambda a: a.update(param=np.zeros(6, int)),
        lambda a: a.update(param=np.zeros(6, np.float16)),
        lambda a: a.update(param=np.zeros(6, ">f8")),
        lambda a: a.update(param=np.ma.masked_array(np.zeros(6))),
        lambda a: a.update(param=[0.0] * 6),
        lambda a: a.update(param=None),
        lambda a: a.update(grad=np.zeros(6, int)),
        lambda a: a.update(grad=np.zeros(6, ">f8")),
        lambda a: a.update(grad=np.zeros((1, 6))),
        lambda a: a.update(grad=np.zeros(1)),
        lambda a: a.update(grad=1.0),
        lambda a: a.update(grad=a["param"]),
        lambda a: a.update(grad=a["m"]),
        lambda a: a.update(m=read_only(np.zeros(6))),
        lambda a: a.update(m=np.zeros(5)),
        lambda a: a.update(m=np.zeros(6, int)),
        lambda a: a.update(m=a["param"]),
        lambda a: a.update(m=a["v"]),
        lambda a: a.update(m=None),
        lambda a: a.update(learning_rate=-1.0),
        lambda a: a.update(learning_rate=np.nan),
        lambda a: a.update(beta_1=1.0),
        lambda a: a.update(epsilon=-1.0),
        lambda a: a.update(step=0),
        lambda a: a.update(step=-1),
        lambda a: a.update(step=1.5),
    ],
)
def test_kernels_check_like_the_classes(change: Callable[[dict[str, Any]], object]) -> None:
    arguments: dict[str, Any] = {
        "param": np.ones(6),
        "grad": np.ones(6),
        "m": np.ones(6),
        "v": np.ones(6),
        "step": 1,
        "learning_rate": 1e-3,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
    }
    change(arguments)
    before = freeze(arguments)
    arrays = [arguments.pop(name) for name in ("param", "grad", "m", "v")]
    with pytest.raises((TypeError, ValueError)):
        instep.kernels.adam(*arrays, **arguments)
    assert freeze(dict(zip(("param", "grad", "m", "v"), arrays, strict=True)) | arguments) == before


# --- threads and instruction sets ---------------------------------------------------------------


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = instep.get_num_threads()
    yield
    instep.set_num_threads(before)


@pytest.mark.usefixtures("restored_threads")
def test_number_of_threads() -> None:
    for n in (1, 2, 5):
        instep.set_num_threads(n)
        assert instep.get_num_threads() == n
    for bad in (0, -1, 1.5, "2", None):
        with pytest.raises((TypeError, ValueError)):
            untyped.set_num_threads(bad)
    assert instep.get_num_threads() == 5


@pytest.mark.usefixtures("restored_threads")
def test_threadpoolctl_sees_and_limits_the_pool() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    assert "openmp" in [pool["user_api"] for pool in threadpoolctl.threadpool_info()]
    instep.set_num_threads(2)
    with threadpoolctl.threadpool_limits(1):
        assert instep.get_num_threads() == 1
    assert instep.get_num_threads() == 2


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    removed = ("INSTEP_NUM_THREADS", "OMP_NUM_THREADS", "INSTEP_ISA")
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"INSTEP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"INSTEP_NUM_THREADS": "3", "OMP_NUM_THREADS": "4"}, 3),
    ],
)
def test_number_of_threads_from_the_environment(variables: dict[str, str], expected: int) -> None:
    done = python("import instep; print(instep.get_num_threads())", **variables)
    assert done.stdout.split() == [str(expected)], done.stderr


def test_a_limit_that_is_there_before_the_first_call_holds() -> None:
    pytest.importorskip("threadpoolctl")
    done = python(
        "import instep\n"
        "from threadpoolctl import threadpool_limits\n"
        "with threadpool_limits(1, user_api='openmp'):\n"
        "    print(instep.get_num_threads())\n",
        OMP_NUM_THREADS="3",
    )
    with_openmp = instep._core.build_info()["threading"] != "none"
    assert done.stdout.split() == ["1"] or not with_openmp, done.stderr


def test_a_number_of_threads_that_is_set_under_a_limit() -> None:
    pytest.importorskip("threadpoolctl")
    done = python(
        "import instep\n"
        "from threadpoolctl import threadpool_limits\n"
        "def limited():\n"
        "    with threadpool_limits(1, user_api='openmp'):\n"
        "        print(instep.get_num_threads())\n"
        "with threadpool_limits(1, user_api='openmp'):\n"
        "    instep.set_num_threads(2)\n"
        "limited()\n"
        "print(instep.get_num_threads())\n",
        OMP_NUM_THREADS="3",
    )
    with_openmp = instep._core.build_info()["threading"] != "none"
    assert done.stdout.split() == ["1", "2"] or not with_openmp, done.stderr


def test_hyperparameters_that_change_while_the_first_step_binds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another thread may do it."""
    from instep._binding import Binding

    opt, param, new = instep.SGD(learning_rate=0.1), np.zeros(2), Binding.new

    def change(*arguments: Any) -> Binding:
        binding = new(*arguments)
        if opt.learning_rate != 0.5:
            opt.learning_rate = 0.5
        return binding

    monkeypatch.setattr(Binding, "new", change)
    opt.apply_gradients([(np.ones(2), param)])
    assert param.tolist() == [-0.5, -0.5]


@pytest.mark.parametrize("rule", ["Rprop", "ASGD", "SGD"])
def test_schedules_are_asked_in_steps_alone(rule: str) -> None:
    asked = []

    def rate(update: int) -> float:
        asked.append(update)
        return 0.25

    opt = getattr(instep, rule)(np.ones(3), learning_rate=rate)
    opt.build(np.ones(3))
    copy.deepcopy(opt)
    pickled = opt.state_dict()
    assert asked == []
    opt.step(np.ones(3))
    opt.load_state_dict(pickled)
    copy.deepcopy(opt).load_state_dict(pickled)
    assert asked == [0]


def test_a_schedule_where_the_first_update_is_not_that_of_an_array() -> None:
    params = [np.ones(2), np.ones(2)]
    opt = instep.Rprop(params, convention="optax", learning_rate=lambda update: 0.5 + update)
    opt.step([np.ones(2), None])
    assert [state["step_size"].tolist() for state in opt.state] == [[0.5, 0.5]] * 2


@pytest.mark.parametrize("rate", [np.array(0.5), np.float32(0.5), np.float64(0.5), 0.5])
def test_a_schedule_that_returns_a_number_of_numpy(rate: Any) -> None:
    param = np.ones(2)
    opt = instep.SGD(param, learning_rate=lambda update: rate)
    opt.step(np.ones(2))
    assert opt.current_learning_rate == 0.5 == param[0]


BAD_RATES = [np.nan, -1.0, "0.1", None, 10**400, 10**5000]


@pytest.mark.parametrize("bad", BAD_RATES, ids=range(len(BAD_RATES)))
def test_a_schedule_that_returns_nonsense(bad: Any) -> None:
    param = np.ones(2)
    opt = instep.Rprop(param, learning_rate=lambda update: bad)
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        opt.step(np.ones(2))
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        opt.current_learning_rate  # noqa: B018
    assert param.tolist() == [1.0, 1.0]
    torch = instep.SGD(param, convention="torch", learning_rate=lambda update: bad)
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        instep.interop.to_torch(torch)


@pytest.mark.parametrize("rule", ["SGD", "Adafactor"])
def test_schedules_are_not_compared(rule: str) -> None:
    class Table:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = object.__hash__

        def __call__(self, update: int) -> float:
            return 0.5

    opt = getattr(instep, rule)(np.ones((2, 2)), learning_rate=Table())
    opt.learning_rate = Table()
    opt.step(np.ones((2, 2)))


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle(protocol: int) -> None:
    opt = instep.Adam(np.ones(2))
    opt.step(np.ones(2))
    assert pickle.loads(pickle.dumps(opt, protocol)).state["m"].tolist() == opt.state["m"].tolist()


def test_keys_that_repr_does_not_tell_apart() -> None:
    class Key(str):
        def __repr__(self) -> str:
            return "key"

    with pytest.raises(ValueError, match=r"params\[key\]: expected keys that repr tells apart"):
        instep.SGD({Key("a"): np.ones(2), Key("b"): np.ones(2)}, learning_rate=0.1)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_is_an_array() -> None:
    for rule in ("Adafactor", "SM3", "Muon"):
        params: list[Any] = [np.asmatrix(np.ones((2, 3))), np.ones((2, 3))]
        for param in params:
            getattr(instep, rule)(param).step(np.ones((2, 3)))
        np.testing.assert_array_equal(params[0], params[1])


def test_the_module_can_be_loaded_again() -> None:
    """As notebooks do; optimizers from before go on."""
    done = python(
        "import sys, numpy as np\n"
        "for _ in range(3):\n"
        "    import instep\n"
        "    opt = instep.Adam(np.ones(2))\n"
        "    for name in [name for name in sys.modules if name.startswith('instep')]:\n"
        "        del sys.modules[name]\n"
        "    opt.step(np.ones(2))\n"
        "    opt.use_ema = True\n"
        "    opt.load_state_dict(opt.state_dict())\n"
        "    print(opt.iterations)\n"
    )
    assert done.stdout.split() == ["1"] * 3, done.stderr


@pytest.mark.parametrize("bad", ["abc", "0", "-2", "2x", "1025", "99999999999999999999"])
def test_a_bad_number_of_threads_fails_the_import(bad: str) -> None:
    done = python(
        "try:\n    import instep\nexcept ImportError as error:\n    print('refused', error)",
        INSTEP_NUM_THREADS=bad,
    )
    assert done.stdout.startswith(f"refused INSTEP_NUM_THREADS={bad}: expected"), done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity")
def test_default_number_of_threads_respects_affinity() -> None:
    done = python(
        "import os\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "import instep\n"
        "print(instep.get_num_threads())"
    )
    assert done.stdout.split() == ["1"], done.stderr


def test_unknown_instruction_set_fails_the_import() -> None:
    done = python(
        "try:\n    import instep\nexcept ImportError as error:\n    print('refused', error)",
        INSTEP_ISA="z80",
    )
    assert done.stdout.startswith("refused"), done.stderr
    assert "z80" in done.stdout


def test_subnormals_count_as_zero_and_the_mode_is_restored() -> None:
    p = np.array([1e-40, 1.0, -1e-40], np.float32)
    instep.SGD(p, learning_rate=1.0).step(np.array([0.0, 1e-40, 0.0], np.float32))
    assert p.tolist() == [0.0, 1.0, 0.0]
    tiny = np.array([1e-40], np.float32)
    assert (tiny * np.float32(0.5))[0] > 0.0


def test_show_config_and_version(capfd: pytest.CaptureFixture[str]) -> None:
    instep.show_config()
    text = capfd.readouterr().out
    assert instep.__version__ in text
    assert np.__version__ in text
    for word in ("compiler", "instruction", "threads", "numpy"):
        assert word in text.lower()


# --- processes and concurrency ------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_can_step_after_its_parent_did() -> None:
    # The alarm ends a child that hangs, so that it does not outlive the test.
    code = (
        "import os, signal, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import numpy as np, instep\n"
        "instep.set_num_threads(2)\n"
        "p, g = np.zeros(1 << 20), np.ones(1 << 20)\n"
        "opt = instep.SGD(p, learning_rate=1.0)\n"
        "opt.step(g)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(30)\n"
        "    opt.step(g)\n"
        "    other = np.zeros(1 << 20)\n"
        "    instep.Adam(other, learning_rate=1.0).step(g)\n"
        "    os._exit(0 if np.all(p == -2.0) and np.all(other < 0.0) else 1)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "opt.step(g)\n"
        "print(status, np.all(p == -2.0))\n"
    )
    done = python(code)
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_two_threads_on_one_optimizer_corrupt_nothing() -> None:
    g = np.linspace(-1.0, 1.0, 1 << 17)
    p = np.zeros_like(g)
    opt = instep.Adam(p, learning_rate=0.1, global_clipnorm=10.0)
    done = []
    wrong: list[BaseException] = []
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        for _ in range(40):
            try:
                opt.step(g)
            except RuntimeError:
                continue
            except BaseException as error:
                wrong.append(error)
                return
            done.append(1)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert opt.iterations == len(done) > 0
    q = np.zeros_like(g)
    alone = instep.Adam(q, learning_rate=0.1, global_clipnorm=10.0)
    for _ in done:
        alone.step(g)
    assert snapshot(opt) == snapshot(alone)


def test_optimizers_in_several_threads_are_independent() -> None:
    g = np.linspace(-1.0, 1.0, 1 << 16)
    params = [np.zeros_like(g) for _ in range(4)]

    def work(p: npt.NDArray[np.float64]) -> None:
        opt = instep.Adam(p)
        for _ in range(10):
            opt.step(g)

    workers = [threading.Thread(target=work, args=(p,)) for p in params[1:]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    work(params[0])
    assert len({p.tobytes() for p in params}) == 1
    assert params[0].any()


def test_schedule_that_steps_gets_a_runtime_error() -> None:
    p = np.zeros(3)

    def recursive(update: int) -> float:
        if armed:
            opt.step(np.ones(3))
        return 1.0

    armed = False
    opt = instep.SGD(p, learning_rate=recursive, momentum=0.5)
    opt.step(np.ones(3))
    before = snapshot(opt)
    armed = True
    with pytest.raises(RuntimeError):
        opt.step(np.ones(3))
    armed = False
    assert snapshot(opt) == before
    opt.step(np.ones(3))
    assert opt.iterations == 2


def test_schedule_may_survive_its_own_attempt_to_step() -> None:
    p = np.zeros(3)
    refused: list[int] = []

    def recursive(update: int) -> float:
        try:
            opt.step(np.ones(3))
        except RuntimeError:
            refused.append(update)
        return 1.0

    opt = instep.SGD(p, learning_rate=recursive)
    opt.step(np.ones(3))
    assert set(refused) == {0}
    assert p.tolist() == [-1.0] * 3
    assert opt.iterations == 1


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's smaps")
def test_large_state_may_use_huge_pages() -> None:
    def may(array: npt.NDArray[Any]) -> bool:
        middle = array.ctypes.data + array.nbytes // 2
        for mapping in re.split(
            r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()
        ):
            low, high = (int(end, 16) for end in mapping.split(maxsplit=1)[0].split("-"))
            if low <= middle < high:
                return " hg" in mapping
        raise AssertionError("the array is in no mapping")

    param = np.ones(2**23, np.float32)
    opt = instep.Adam(param, use_ema=True)
    for array in (opt.state["m"], opt.state["v"], opt.averages):
        assert may(array) == may(param)


def test_a_kernel_called_in_the_middle_of_a_call_of_its_own() -> None:
    """Its numbers are those of the outer call, whatever ran while its arguments were checked."""
    inner, param, grad = np.ones(3), np.ones(3), np.ones(3)

    class Calling(int):
        def __int__(self) -> int:
            untyped.kernels.sgd(inner, grad, learning_rate=0.25)
            return 1

    untyped.kernels.sgd(param, grad, step=Calling(1), learning_rate=0.5)
    np.testing.assert_array_equal(inner, 0.75)
    np.testing.assert_array_equal(param, 0.5)
