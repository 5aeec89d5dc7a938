"""Hyperparameters: their defaults, their ranges, and what assigning one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model import snapshot
from optimizers import DEFAULTS, RULES, decaying

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep


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
        untyped.Adam(np.zeros(1), convention=convention)


@pytest.mark.parametrize("state_dtype", ["float64", np.float32, "int8", 8])
def test_other_state_dtypes_are_refused(state_dtype: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="state_dtype: expected 'float32' or 'bf"):
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
