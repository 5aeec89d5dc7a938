"""Parameters as arrays and as containers of arrays: what is bound, and what a step does to it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from optimizers import a_tree, each_configuration

import instep


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


def test_keys_that_repr_does_not_tell_apart() -> None:
    class Key(str):
        def __repr__(self) -> str:
            return "key"

    with pytest.raises(ValueError, match=r"params\[key\]: expected keys that repr tells apart"):
        instep.SGD({Key("a"): np.ones(2), Key("b"): np.ones(2)}, learning_rate=0.1)


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


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_is_an_array() -> None:
    for rule in ("Adafactor", "SM3", "Muon"):
        params: list[Any] = [np.asmatrix(np.ones((2, 3))), np.ones((2, 3))]
        for param in params:
            getattr(instep, rule)(param).step(np.ones((2, 3)))
        np.testing.assert_array_equal(params[0], params[1])


class Layer(NamedTuple):
    w: Any
    b: Any


def test_structures_come_back_as_they_were() -> None:
    """Named tuples as such, and arrays of no dimension as arrays."""
    params = {"first": Layer(np.ones(2), np.array(1.0)), "rest": [Layer(np.ones(1), np.ones(3))]}
    grads = {"first": Layer(np.ones(2), 1.0), "rest": [Layer(np.ones(1), np.ones(3))]}
    opt = instep.ScheduleFreeSGD(params, use_ema=True)
    opt.step(grads)
    for back in (opt.params, opt.averages, opt.eval_params(), opt.state):
        assert type(back["first"]) is type(back["rest"][0]) is Layer
    for back in (opt.params, opt.averages, opt.eval_params()):
        assert isinstance(back["first"].b, np.ndarray)
        assert back["first"].b.shape == ()
    assert isinstance(opt.state["first"].b["z"], np.ndarray)
    grouped = instep.Adam({"layer": instep.Group(Layer(np.ones(2), np.ones(1)), l2=0.1)})
    assert type(grouped.params["layer"]) is Layer
