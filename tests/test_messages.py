"""What people who come from elsewhere write, and what they are told."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import instep

untyped: Any = instep


class Network:
    """An object with arrays."""

    def __init__(self) -> None:
        self.w = np.ones(3)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"lr": 0.1}, "learning_rate="),
        ({"betas": (0.9, 0.99)}, "beta_1=, beta_2="),
        ({"eps": 1e-6}, "epsilon="),
        ({"b1": 0.9}, "beta_1="),
        ({"max_norm": 1.0}, "global_clipnorm="),
        ({"learning_rte": 0.1}, "learning_rate="),
        ({"weigth_decay": 0.1}, "weight_decay="),
    ],
)
def test_a_name_from_elsewhere_asks_for_the_one_here(given: dict[str, Any], meant: str) -> None:
    with pytest.raises(TypeError, match=rf"got '{next(iter(given))}'; did you mean {meant}\?$"):
        untyped.Adam(np.ones(3), **given)


def test_a_name_that_a_rule_lacks_is_not_suggested() -> None:
    with pytest.raises(TypeError, match=r"got 'betas'$"):
        untyped.SGD(np.ones(3), betas=(0.9, 0.99))
    with pytest.raises(TypeError, match=r"got 'bogus'$"):
        untyped.SGD(np.ones(3), bogus=1)


def test_a_learning_rate_without_its_name() -> None:
    message = "Adam: expected all but params by name, got 0.001; did you mean learning_rate=0.001?"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        untyped.Adam(np.ones(3), 1e-3)


def test_groups_as_pytorch_has_them() -> None:
    groups: Any
    for groups in ([{"params": np.ones(3), "lr": 0.1}], ({"params": [np.ones(3)], "lr": 0.1},)):
        with pytest.raises(TypeError, match=r"^params\[0\]\['lr'\]: .*instep\.Group\(arrays"):
            instep.Adam(groups)
    arrays = [{"params": np.ones(3)}]  # is a structure like any other
    instep.Adam(arrays).step([{"params": np.ones(3)}])


def test_objects_get_the_advice_of_their_attributes() -> None:
    network: Any = Network()
    for bind in (instep.Adam, instep.Adam().build):
        with pytest.raises(TypeError, match=r"^params: .* Network; did you mean vars\(\.\.\.\)"):
            bind(network)
    instep.Adam(vars(network)).step({"w": np.ones(3)})
    with pytest.raises(TypeError, match=r"object$"):
        untyped.Adam(object())


def test_tied_weights_get_the_advice_of_one_array() -> None:
    w = np.ones((3, 3))
    with pytest.raises(ValueError, match=r"^params\[1\] shares memory with params\[0\]: .* g \+ h"):
        instep.SGD([w, w.T])


@pytest.mark.parametrize("nothing", [[], {}, (), [[], {}], {"a": []}])
def test_no_arrays_are_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match=r"^params: expected at least one array, got none; "):
        instep.Adam(nothing)
    opt = instep.Adam()
    with pytest.raises(ValueError, match=r"^params: expected at least one array"):
        opt.build(nothing)
    opt.build([np.ones(2)])


def test_one_array_is_no_plural() -> None:
    assert repr(instep.Adam(np.ones(1))).endswith(": 1 array, 1 parameter>")
    assert repr(instep.Adam([np.ones(1000), np.ones(500)])).endswith(
        ": 2 arrays, 1,500 parameters>"
    )
