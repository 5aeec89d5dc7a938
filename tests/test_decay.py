"""Weight decay that does not hang on the learning rate, and trust ratios that some arrays lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep

DECOUPLED = ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Lion", "Adafactor"]


def example(seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((7, 5)), rng.standard_normal((7, 5))


@pytest.mark.parametrize("rule", DECOUPLED)
def test_it_is_as_strong_whatever_the_rate(rule: str) -> None:
    p, g = example()
    before = p.copy()
    make = getattr(untyped, rule)
    opt = make(p, learning_rate=0.0, weight_decay=0.25, independent_weight_decay=True)
    opt.step(g)
    # Nothing but the decay is left; Adafactor's rate has a part that is no learning rate.
    np.testing.assert_allclose(p, 0.75 * before, rtol=1e-15)


@pytest.mark.parametrize("rule", DECOUPLED)
def test_it_is_the_other_one_over_the_rate(rule: str) -> None:
    (p, g), q = example(1), example(1)[0]
    make = getattr(untyped, rule)
    opt = make(p, learning_rate=0.5, weight_decay=0.125, independent_weight_decay=True)
    other = make(q, learning_rate=0.5, weight_decay=0.25)
    for _ in range(3):
        opt.step(g)
        other.step(g)
    assert np.array_equal(p, q)


def test_a_schedule_of_its_own() -> None:
    p = np.ones(3)
    opt = instep.SGD(
        p, learning_rate=0.0, weight_decay=lambda k: 0.5**k / 2, independent_weight_decay=True
    )
    expected = np.ones(3)
    for k in range(4):
        opt.step(np.zeros(3))
        expected -= 0.5**k / 2 * expected
        assert np.array_equal(p, expected)


def test_groups_and_assignments() -> None:
    a, b = np.ones(2), np.ones(2)
    opt = instep.AdamW(
        [a, instep.Group(b, independent_weight_decay=True)], learning_rate=0.0, weight_decay=0.5
    )
    opt.step([np.zeros(2), np.zeros(2)])
    assert (a[0], b[0]) == (1.0, 0.5)
    opt.independent_weight_decay = True
    opt.groups[1]["independent_weight_decay"] = False
    opt.step([np.zeros(2), np.zeros(2)])
    assert (a[0], b[0]) == (0.5, 0.5)


def test_it_goes_on_after_loading(tmp_path: Path) -> None:
    p, g = example(2)
    opt = instep.Adam(p, weight_decay=0.1, independent_weight_decay=True)
    opt.step(g)
    opt.save(tmp_path / "state.npz")
    q = np.zeros_like(p)
    other = instep.Adam(q)
    other.load(tmp_path / "state.npz")
    assert other.independent_weight_decay is True
    opt.step(g)
    other.step(g)
    assert np.array_equal(p, q)


def test_states_of_earlier_releases_have_the_defaults() -> None:
    opt = instep.Lamb(np.ones(2), trust_ratio=False)
    state = opt.state_dict()
    for name in ("independent_weight_decay", "trust_ratio"):
        del state["hyperparameters"][name]
    opt.load_state_dict(state)
    assert opt.trust_ratio is True
    assert opt.independent_weight_decay is False


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("Lamb", {}, "part of its formula"),
        ("NovoGrad", {}, "part of its formula"),
        ("Muon", {}, "part of its formula"),
        ("Adam", {"convention": "torch"}, "coupled: l2"),
    ],
)
def test_where_there_is_no_such_decay(rule: str, options: dict[str, Any], message: str) -> None:
    make = getattr(untyped, rule)
    with pytest.raises(ValueError, match=rf"independent_weight_decay: expected False.*{message}"):
        make(independent_weight_decay=True, **options)
    with pytest.raises(ValueError, match=r"independent_weight_decay"):
        make([instep.Group(np.ones((2, 2)), independent_weight_decay=True)], **options)


def test_frameworks_do_not_have_it() -> None:
    opt = instep.AdamW(
        np.ones(2), weight_decay=0.1, independent_weight_decay=True, convention="torch"
    )
    with pytest.raises(ValueError, match=r"independent_weight_decay: .*PyTorch"):
        instep.interop.to_torch(opt)
    kerasian = instep.AdamW(np.ones(2), independent_weight_decay=True, convention="keras")
    with pytest.raises(ValueError, match=r"independent_weight_decay: .*Keras"):
        instep.interop.to_keras(kerasian)


@pytest.mark.parametrize("rule", ["Lars", "Lamb"])
def test_trust_ratios_of_matrices_alone(rule: str) -> None:
    rng = np.random.default_rng(3)
    params = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    grads = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    alone = {name: p.copy() for name, p in params.items()}
    make = getattr(untyped, rule)
    vectors = instep.Group(lambda path, array: array.ndim < 2, trust_ratio=False)
    opt = make(params, groups=[vectors], learning_rate=0.1)
    with_ratio = make(alone["w"], learning_rate=0.1)
    without = make(alone["b"], learning_rate=0.1, trust_ratio=False)
    for _ in range(3):
        opt.step(grads)
        with_ratio.step(grads["w"])
        without.step(grads["b"])
    assert all(np.array_equal(params[name], alone[name]) for name in params)
    if rule == "Lars":
        p = rng.standard_normal(3)
        expected = p - 0.1 * grads["b"]
        make(p, learning_rate=0.1, trust_ratio=False).step(grads["b"])
        np.testing.assert_allclose(p, expected, rtol=1e-15)
