"""Arrays that are added, left out or moved in a bound optimizer's structure."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from model import snapshot
from optimizers import close

import instep

untyped: Any = instep


def arrays(*names: str) -> dict[str, Any]:
    return {name: np.full(2, float(k)) for k, name in enumerate(names)}


def ones(params: dict[str, Any]) -> dict[str, Any]:
    return {name: np.ones(2) for name in params}


def test_state_goes_by_path_and_new_arrays_start_new() -> None:
    params = arrays("a", "b")
    opt = instep.Adam(params)
    opt.step(ones(params))
    kept = {name: {k: np.copy(v) for k, v in opt.state[name].items()} for name in params}
    params["c"] = np.zeros(2)
    del params["a"]
    opt.build(params)
    assert opt.iterations == 1
    assert opt.state["b"]["step"] == 1
    assert opt.state["c"]["step"] == 0
    assert opt.state["b"]["m"].tolist() == kept["b"]["m"].tolist()
    assert not opt.state["c"]["m"].any()
    fresh = np.zeros(2)
    alone = instep.Adam(fresh)
    alone.step(np.ones(2))
    opt.step(ones(params))
    assert params["c"].tolist() == fresh.tolist()
    assert opt.state["b"]["step"] == 2


def test_state_goes_with_an_array_whose_place_is_another() -> None:
    a, b = np.zeros(2), np.zeros(2)
    opt = instep.SGD([a, b], momentum=0.5)
    opt.step([np.ones(2), 2 * np.ones(2)])
    opt.build([b])
    assert opt.state[0]["momentum"].tolist() == [2.0, 2.0]
    opt.build([np.zeros(2), b])
    assert [each["momentum"].tolist() for each in opt.state] == [[0.0, 0.0], [2.0, 2.0]]


def test_arrays_of_the_same_structure_take_each_others_places() -> None:
    params = arrays("a", "b")
    opt = instep.SGD(params, momentum=0.5)
    opt.step({"a": np.ones(2), "b": 2 * np.ones(2)})
    opt.build({"a": params["b"], "b": params["a"]})
    assert opt.state["a"]["momentum"].tolist() == [1.0, 1.0]


def test_after_apply_gradients_state_goes_with_the_arrays() -> None:
    a, b, c = np.zeros(2), np.zeros(2), np.zeros(2)
    opt = instep.SGD(momentum=0.5)
    opt.apply_gradients([(np.ones(2), a), (2 * np.ones(2), b)])
    with pytest.raises(ValueError, match="bind again with build"):
        opt.apply_gradients([(np.ones(2), c)])
    for turn in range(2):
        opt.build([c, b, a])
        assert [s["momentum"][0] for s in opt.state] == [0.0, 2.0, 1.0]
        opt.build([b, a])
        assert [s["momentum"][0] for s in opt.state] == [2.0, 1.0]
        if turn == 0:
            opt = pickle.loads(pickle.dumps(opt))
            b, a = opt.params
    opt.build([np.ones(2), np.ones(2)])  # others take their places
    assert [s["momentum"][0] for s in opt.state] == [2.0, 1.0]


@pytest.mark.parametrize("convention", ["paper", "keras", "torch", "optax"])
def test_a_window_and_averages_go_on(convention: str) -> None:
    params = arrays("a", "b")
    opt = untyped.Adam(
        params,
        learning_rate=0.1,
        convention=convention,
        gradient_accumulation_steps=3,
        use_ema=True,
    )
    for _ in range(4):
        opt.step(ones(params))
    alone = untyped.Adam(
        params["b"].copy(),
        learning_rate=0.1,
        convention=convention,
        gradient_accumulation_steps=3,
        use_ema=True,
    )
    state = opt.state_dict()
    del state["arrays"]["params['a']"]
    state["arrays"] = {"params": state["arrays"]["params['b']"]}
    alone.load_state_dict(state)
    params["c"] = np.full(2, 7.0)
    del params["a"]
    opt.build(params)
    assert opt.accumulated_calls == 1
    for _ in range(2):
        opt.step({"b": np.ones(2), "c": None})
        alone.step(np.ones(2))
    assert params["c"].tolist() == [7.0, 7.0]
    assert params["b"].tolist() == alone.params.tolist()
    assert opt.averages["b"].tolist() == alone.averages.tolist()
    close(opt.averages["c"], [7.0, 7.0])


def test_groups_go_on_and_new_arrays_are_chosen_for_theirs() -> None:
    params = {"w": np.ones((2, 2)), "b": np.ones(2)}
    vectors = instep.Group(lambda path, array: array.ndim < 2, weight_decay=0.0, name="vectors")
    opt = instep.AdamW(params, groups=[vectors])
    opt.groups["vectors"]["learning_rate"] = 0.5
    params.update(c=np.ones(3), v=np.ones((3, 3)))
    opt.build(params)
    names = ["w", "b", "c", "v"]
    of = {
        name: k
        for k, group in enumerate(opt.groups)
        for name in names
        if any(p is params[name] for p in group["params"])
    }
    assert of["w"] == of["v"] == 0
    assert of["b"] == of["c"] != 0  # the group as it has become, of which there is one
    assert opt.groups["vectors"]["learning_rate"] == 0.5
    assert [opt.groups[of[n]]["weight_decay"] for n in "wbc"] == [0.01, 0.0, 0.0]
    fresh = instep.AdamW({name: array.copy() for name, array in params.items()}, groups=[vectors])
    fresh.groups["vectors"]["learning_rate"] = 0.5
    fresh.load_state_dict(opt.state_dict())
    del params["b"], params["c"]
    opt.build(params)
    params["c"] = np.ones(3)
    opt.build(params)
    assert len(opt.groups) == 2
    assert [array is params["c"] for array in opt.groups["vectors"]["params"]] == [True]


def test_state_without_rows_does_not_grow() -> None:
    class Whitened(untyped.Optimizer):  # type: ignore[misc]
        state = {"covariance": lambda shape: (shape[0], shape[0])}
        learning_rate: float = 0.1

        def update(self, g: Any, p: Any, state: Any, numbers: Any, step: int) -> Any:
            state["covariance"] = state["covariance"] + g @ g.T
            return numbers["learning_rate"] * g

    opt = Whitened({"w": np.ones((2, 3))})
    opt.step({"w": np.ones((2, 3))})
    with pytest.raises(ValueError, match=r"params\['w'\]: .* 'covariance' of shape \(2, 2\)"):
        opt.build({"w": np.ones((3, 3))}, grow=True)
    assert opt.params["w"].shape == (2, 3)


@pytest.mark.parametrize("dtype", ["float64", "float8"])
def test_state_out_of_use_grows_too(dtype: str) -> None:
    rows = 256
    options: dict[str, Any] = {"beta_2": 0.9, "amsgrad": True}
    if dtype == "float8":
        options["state_dtype"] = dtype
    made = []
    for grows in (False, True):
        p = np.ones((2, rows), np.float32 if dtype == "float8" else np.float64)
        opt = untyped.Adam(p, learning_rate=0.1, **options)
        opt.step(np.full_like(p, 5))
        opt.amsgrad = False
        for _ in range(20):
            opt.step(np.full_like(p, 0.01))
        if grows:
            longer = np.concatenate([p, p[:1]])
            opt.build(longer, grow=True)
        opt.amsgrad = True
        made.append({name: np.asarray(slot) for name, slot in opt.state.items() if np.ndim(slot)})
    for name, slot in made[0].items():
        assert np.array_equal(made[1][name][: len(slot)], slot)
    assert made[1]["v_max"][0, 0] == made[0]["v_max"][0, 0] != 0
    assert made[1]["v_max"][2, 0] == 0


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    params = arrays("a", "b")
    opt = instep.Adam(params)
    opt.step(ones(params))
    before = snapshot(opt)
    other: Any
    for other, message in [
        ({"a": np.zeros(3), "c": np.zeros(2)}, r"params\['a'\]: expected a float64 array of shape"),
        ({"a": np.zeros(2, np.float32)}, r"params\['a'\]: expected a float64"),
        ({"x": np.zeros(2)}, "expected some of what was bound"),
        ({"a": params["a"], "c": params["a"]}, "share"),
        ({}, "expected"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            opt.build(other)
        assert snapshot(opt) == before
    opt.step(ones(params))


def test_a_checkpoint_of_more_or_fewer_arrays(tmp_path: Any) -> None:
    path = tmp_path / "checkpoint"
    params = arrays("a", "b")
    opt = instep.Adam(params, learning_rate=0.5)
    opt.step(ones(params))
    opt.save(path, extra={"epoch": 3, "seen": [1, 2, {"x": None}], "rng": np.arange(3)})

    other = arrays("b", "c")
    new = instep.Adam(other)
    for call in (lambda: new.load(path), lambda: new.load_state_dict(opt.state_dict())):
        with pytest.raises(ValueError, match="expected"):
            call()
    assert new.iterations == 0
    found = new.load(path, partial=True)
    assert (found.left, found.new) == (["params['a']"], ["params['c']"])
    assert (found.extra["epoch"], found.extra["seen"]) == (3, [1, 2, {"x": None}])
    assert found.extra["rng"].tolist() == [0, 1, 2]
    assert new.learning_rate == 0.5
    assert other["b"].tolist() == params["b"].tolist()
    assert other["c"].tolist() == [1.0, 1.0]
    assert [new.state[n]["step"] for n in "bc"] == [1, 0]
    again = new.load_state_dict(opt.state_dict(), partial=True)
    assert again == (["params['a']"], ["params['c']"], None)

    with pytest.raises(ValueError, match="expected some of"):
        instep.Adam(arrays("x")).load(path, partial=True)
    assert opt.load(path)["epoch"] == 3
    opt.save(path)
    assert opt.load(path) is None
    with pytest.raises(TypeError):
        opt.save(path, extra={"bad": object()})
    assert opt.load(path) is None
