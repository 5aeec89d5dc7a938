"""Groups that choose their arrays, that change while training goes on, and frozen arrays."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
from model import snapshot
from optimizers import close

import instep
from instep import schedules

untyped: Any = instep


def network() -> dict[str, Any]:
    return {
        "encoder": [{"w": np.ones((2, 2)), "b": np.ones(2)} for _ in range(2)],
        "head": {"w": np.ones((2, 1)), "scale": np.ones(2)},
    }


def is_vector(path: str, array: Any) -> bool:
    return bool(array.ndim < 2)


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        (is_vector, 3),
        (r"\['b'\]|scale", 3),
        (re.compile("ENCODER", re.I), 4),
        ("['b']", 2),  # no set of characters
        ("[0]['w']", 1),
        ("a", 2),  # not that of "params"
        (re.compile("^params.*w"), 3),
        ("params['encoder'][0]", 2),
        ("params['head']['w']", 1),
        (["head", is_vector], 4),
        ("params", 6),
    ],
)
def test_what_chooses_arrays(where: Any, chosen: int) -> None:
    opt = instep.AdamW(network(), groups=[instep.Group(where, weight_decay=0.5, name="mine")])
    assert len(opt.groups["mine"]["params"]) == chosen
    assert opt.groups["mine"]["weight_decay"] == 0.5
    assert len(opt.groups[0]["params"]) == 6 - chosen


def test_later_groups_win_and_come_in_their_order() -> None:
    params = network()
    params["head"] = instep.Group(params["head"], learning_rate=0.25, name="head")
    opt = instep.AdamW(
        params,
        groups=[
            instep.Group(is_vector, weight_decay=0.0, name="vectors"),
            instep.Group("encoder", learning_rate=0.5, name="encoder"),
            instep.Group(r"\[1\]\['b'\]", learning_rate=0.125, name="last"),
        ],
    )
    found = [(g.name, g["learning_rate"], g["weight_decay"], len(g["params"])) for g in opt.groups]
    assert found == [
        (None, 0.001, 0.01, 0),
        ("head", 0.25, 0.01, 1),
        ("vectors", 0.25, 0.0, 1),
        ("encoder", 0.5, 0.01, 2),
        ("encoder", 0.5, 0.0, 1),
        ("last", 0.125, 0.0, 1),
    ]
    with pytest.raises(KeyError, match="2"):
        opt.groups["encoder"]
    with pytest.raises(KeyError, match="none"):
        opt.groups["none"]


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (instep.Group("head"), TypeError, r"groups: expected a list of instep\.Group, got Group"),
        (3, TypeError, "groups: expected a list"),
        ([{"params": "head"}], TypeError, r"groups\[0\]: expected an instep\.Group, got dict"),
        ([instep.Group("baises")], ValueError, r"groups\[0\]: expected to select some .*'baises'"),
        ([instep.Group("(")], ValueError, r"groups\[0\]: expected a path or a regular expression"),
        ([instep.Group(3)], TypeError, r"groups\[0\]: expected a predicate .*got 3"),
        ([instep.Group(lambda p, a: a)], TypeError, r"groups\[0\]: expected True or False for"),
        ([instep.Group("head", beta_3=1)], ValueError, "expected options among .*'beta_3'"),
        ([instep.Group("head", beta_1=1.5)], ValueError, "beta_1"),
    ],
)
def test_wrong_groups(groups: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        untyped.Adam(network(), groups=groups)
    with pytest.raises(TypeError, match="name: expected a str"):
        untyped.Group("head", name=3)


def test_groups_change_while_training_goes_on() -> None:
    a, b = np.zeros(1), np.zeros(1)
    opt = instep.SGD({"a": a, "b": b}, learning_rate=1.0, groups=[instep.Group("b", name="b")])
    grads = {"a": np.ones(1), "b": np.ones(1)}
    opt.step(grads)
    group = opt.groups["b"]
    group["learning_rate"] = 2.0
    group["momentum"] = 0.5
    opt.step(grads)
    close([a[0], b[0]], [-2.0, -3.0])
    assert (group["learning_rate"], group.current_learning_rate) == (2.0, 2.0)
    opt.learning_rate = 4.0
    assert (opt.groups[0]["learning_rate"], group["learning_rate"]) == (4.0, 2.0)
    opt.groups[0]["learning_rate"] = 8.0
    assert opt.learning_rate == 8.0
    group["learning_rate"] = None  # no more of its own
    group["momentum"] = None
    opt.step(grads)
    close([a[0], b[0]], [-10.0, -11.0])
    before = snapshot(opt)
    for name, value, error in [
        ("learning_rate", -1.0, ValueError),
        ("learning_rate", "x", TypeError),
        ("nesterov", True, ValueError),
        ("nonsense", 1.0, ValueError),
        ("params", [], ValueError),
        ("use_ema", True, ValueError),
    ]:
        for each in opt.groups:
            with pytest.raises(error):
                each[name] = value
        assert snapshot(opt) == before
    with pytest.raises(KeyError):
        group["nonsense"]
    assert "params" in dict(group)
    assert "learning_rate" in repr(opt.groups)


def test_a_factor_on_the_common_rate() -> None:
    a, b, c = np.zeros(1), np.zeros(1), np.zeros(1)
    asked = []

    def schedule(update: int) -> float:
        asked.append(update)
        return 1.0 + update

    opt = instep.SGD(
        [a, instep.Group(b, learning_rate_factor=0.5), instep.Group(c, learning_rate=8.0)],
        learning_rate=schedule,
        learning_rate_factor=2.0,
    )
    grads = [np.ones(1)] * 3
    opt.step(grads)
    assert asked == [0]  # once for all groups
    assert [g.current_learning_rate for g in opt.groups] == [4.0, 1.0, 16.0]
    opt.step(grads)
    close([a[0], b[0], c[0]], [-6.0, -1.5, -32.0])
    opt.learning_rate = 3.0
    opt.groups[1]["learning_rate_factor"] = 0.25
    opt.step(grads)
    close([a[0], b[0], c[0]], [-12.0, -2.25, -48.0])
    opt.learning_rate = 4.0
    opt.step(grads)
    close([a[0], b[0]], [-20.0, -3.25])
    assert opt.current_learning_rate == 8.0


def test_a_factor_reaches_the_rate_of_the_next_update() -> None:
    results = []
    for rate, factor in ((0.5, 1.0), (0.25, 2.0)):
        p = np.ones(2)
        decaying = schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=1.0)
        opt = instep.ScheduleFreeSGD(
            p, learning_rate=decaying, learning_rate_factor=factor, convention="optax"
        )
        for _ in range(3):
            opt.step(np.ones(2))
        results.append(p.tolist())
    assert results[0] == results[1]


@pytest.mark.parametrize("bound", [True, False])
def test_kerass_spelling_of_no_decay(bound: bool) -> None:
    params = network()
    opt = instep.AdamW(params if bound else None, learning_rate=0.1)
    opt.exclude_from_weight_decay(var_list=[params["head"]["w"]], var_names=["'b'", "scale"])
    if not bound:
        opt.build(params)
    excluded = {id(p) for g in opt.groups if g["weight_decay"] == 0 for p in g["params"]}
    weights = [params["encoder"][k]["w"] for k in range(2)]
    assert len(excluded) == 4
    assert not excluded & {id(w) for w in weights}
    opt.exclude_from_weight_decay(var_names=["'b'"])  # they are already
    assert sum(len(g["params"]) for g in opt.groups) == 6
    with pytest.raises(ValueError, match="expected var_list or var_names"):
        opt.exclude_from_weight_decay()
    for given in ({"var_names": "bias"}, {"var_list": params["head"]["w"]}):
        with pytest.raises(TypeError, match=f"{next(iter(given))}: expected a list, got"):
            opt.exclude_from_weight_decay(**given)
    with pytest.raises(ValueError, match="expected to select some array"):
        opt.exclude_from_weight_decay(var_names=["nothing"])


@pytest.mark.parametrize("where", ["params['a']", "'a'", lambda path, _: path == "params['a']"])
def test_frozen_arrays_stay(where: Any, tmp_path: Any) -> None:
    params = {"a": np.zeros(2), "b": np.zeros(2)}
    reference = {"a": np.zeros(2), "b": np.zeros(2)}
    opt = instep.Adam(params, gradient_accumulation_steps=2)
    other = instep.Adam(reference, gradient_accumulation_steps=2)
    grads = {"a": np.ones(2), "b": np.ones(2)}
    for _ in range(3):
        opt.step(grads)
        other.step(grads)
    opt.freeze(where)
    assert opt.frozen == ["params['a']"]
    state = opt.state_dict()["arrays"]["params['a']"]
    assert not state["in_window"]
    kept = params["a"].copy()
    opt.save(tmp_path / "file")
    ignored: Any = "whatever it is"
    opt.step({"a": ignored, "b": np.ones(2)})
    for o in (opt, pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        for _ in range(2):
            o.step({"a": np.full(2, np.nan), "b": np.ones(2)})
        assert o.params["a"].tolist() == kept.tolist()
        assert o.state["a"]["step"] == 1
    opt.load(tmp_path / "file")
    assert opt.frozen == ["params['a']"]
    opt.unfreeze(where)
    assert opt.frozen == []
    opt.step(grads)
    assert opt.state["a"]["step"] == 2
    with pytest.raises(ValueError, match="freeze: expected to select some array"):
        opt.freeze("nothing")
    with pytest.raises(RuntimeError, match="freeze"):
        instep.Adam().freeze("a")


def test_gradients_that_are_left_out() -> None:
    params = network()
    opt = instep.SGD(params, learning_rate=1.0)
    with pytest.raises(ValueError, match='missing="none"'):
        opt.step({"head": {"w": np.ones((2, 1)), "scale": None}})
    opt.step({"head": {"w": np.ones((2, 1))}}, missing="none")
    opt.step({"encoder": [None, {"b": np.ones(2)}], "head": None}, missing="none")
    opt.step(None, missing="none")
    assert not params["head"]["w"].any()
    assert not params["encoder"][1]["b"].any()
    assert params["encoder"][1]["w"].all()
    assert opt.iterations == 3
    before = snapshot(opt)
    for grads, missing, error in [
        ({"haed": None}, "none", ValueError),
        ({"encoder": [None]}, "none", ValueError),
        (None, "error", TypeError),
        (None, "other", ValueError),
        (None, None, ValueError),
    ]:
        with pytest.raises(error):
            untyped.SGD.step(opt, grads, missing=missing)
        assert snapshot(opt) == before


def test_freezing_changes_no_numbers() -> None:
    """Those that were assigned meanwhile stay in force."""
    params = [np.zeros(1), np.zeros(1)]
    opt = instep.SGD(params, learning_rate=1.0)
    opt.learning_rate = 0.25
    opt.freeze(params[1])
    opt.step([np.ones(1), np.ones(1)])
    assert [p[0] for p in params] == [-0.25, 0.0]
    opt.weight_decay = 0.5
    opt.unfreeze(params[1])
    opt.step([np.zeros(1), np.zeros(1)])
    assert params[0][0] == -0.25 + 0.25 * 0.5 * 0.25


def test_options_of_a_group_are_items() -> None:
    opt = instep.SGD(np.ones(2))
    with pytest.raises(AttributeError, match=r"learning_rate: expected .*groups\[0\]\['learning_r"):
        untyped_group(opt).learning_rate = 0.5
    assert opt.learning_rate == 0.01


def untyped_group(opt: instep.Optimizer) -> Any:
    return opt.groups[0]
