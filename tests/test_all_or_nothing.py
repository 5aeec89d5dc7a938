"""A call that fails leaves no trace, whatever is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bad_arrays import BAD_GRADIENTS, BAD_PARAMETERS, misaligned
from model import freeze, seen, snapshot
from numpy.lib.stride_tricks import as_strided
from operations import SHAPE, arrays, operations, trained
from optimizers import halving
from references import REFERENCES

import instep
from instep import _binding, _slots
from instep._kinds import Rate, Scheduled

# Called with arguments that a type checker would refuse.
untyped: Any = instep


# --- every entry, every kind of bad argument ----------------------------------------------------

RULES = sorted(REFERENCES)
each_rule = pytest.mark.parametrize("name", RULES)


def refused(word: str, call: Callable[..., object], *arguments: Any, **keywords: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(word)):
        call(*arguments, **keywords)


SCHEDULED = ("learning_rate", "weight_decay", "momentum", "ema_momentum")

# None is the default, "x" and -1 may be valid; a schedule is for few of them.
NO_VALUES = [object(), b"0.1", 1j, [], {}, np.ones(2), float("nan"), np.datetime64("nat")]


@each_rule
def test_every_hyperparameter_refuses_what_is_none_of_its_values(name: str) -> None:
    make = getattr(untyped, name)
    opt = trained(name)
    before = snapshot(opt)
    for key in opt.config.keys() - {"convention"}:
        takes_schedule = isinstance(make._hyperparameters()[key].kind, (Rate, Scheduled))
        assert not takes_schedule or key in SCHEDULED
        extra = [] if takes_schedule else [halving]
        none = [bad for bad in NO_VALUES if key != "watch" or not isinstance(bad, list)]
        for bad in (*none, *extra):
            refused(key, make, **{key: bad})
            refused(key, make, arrays(), **{key: bad})
            refused(key, setattr, opt, key, bad)
            grouped = [np.ones(2), instep.Group(np.ones(2), **{key: bad})]
            refused("params[1]", make, grouped)
        if isinstance(opt.config[key], float):
            limits = make._hyperparameters()[key].kind.limits
            infinite = () if limits and limits[1] == np.inf else (np.inf, 10**400)
            for bad in (*infinite, -np.inf, True, "0.5"):
                refused(key, setattr, opt, key, bad)
    assert snapshot(opt) == before


@each_rule
def test_every_rule_refuses_every_bad_array(name: str) -> None:
    opt = trained(name)
    before = snapshot(opt)
    for spoil, _ in BAD_GRADIENTS.values():
        grads = arrays()
        grads[1] = spoil(grads[1])
        refused("params[1]", opt.step, grads)
        pairs = list(zip(grads, opt.params, strict=True))
        refused("params[1]", opt.apply_gradients, pairs)
    for array in opt.state[1].values():
        if isinstance(array, np.ndarray) and array.shape == SHAPE:
            refused("params[1]", opt.step, [None, array, None])
    for spoil_parameter, _ in BAD_PARAMETERS.values():
        params = arrays()
        params[1] = spoil_parameter()
        refused("params[1]", opt.build, params)
        refused("params[1]", getattr(untyped, name), params)
    assert snapshot(opt) == before


def test_a_group_takes_nothing_but_what_groups_may_have() -> None:
    for bad in ("use_ema", "loss_scale_factor", "global_clipnorm", "nonsense", "convention"):
        refused(bad, untyped.SGD, untyped.Group(np.ones(2), **{bad: 1}))
    with pytest.raises(TypeError, match="params"):
        untyped.Group()
    for inside in (None, 1.0, "x", [instep.Group(None)]):
        refused("params[0]", untyped.SGD, [untyped.Group(inside)])


BAD_STATES: dict[str, Callable[[Any], Any]] = {
    "shape": lambda a: np.zeros([n + 1 for n in a.shape] or [1], a.dtype),
    "dtype": lambda a: a.astype(np.longdouble),
    "complex": lambda a: a.astype(complex),
    "byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "alignment": lambda a: misaligned(a.shape, a.dtype),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "masked": np.ma.masked_array,
    "list": lambda a: a.tolist(),
    "object": lambda a: object(),
    "string": lambda a: "state",
}
# Alignment and memory do not matter to what is copied.
TOLD_IN_STATE = {"shape", "dtype", "complex", "byte order", "masked", "list", "object", "string"}


def test_kernels_refuse_every_bad_array_by_name() -> None:
    for name, reference in REFERENCES.items():
        kernel = getattr(instep.kernels, untyped_name(name))
        shape = (4, 4)
        p, g = np.ones(shape), np.ones(shape)
        configuration = max(
            reference.configurations, key=lambda c: len(reference.initial_state(c, p))
        )
        state = reference.initial_state(configuration, p)
        known = [p, g, *state.values()]
        keywords = reference.keywords(configuration, step=1)
        names = ["param", "grad", *state]
        before = freeze(known)
        for k, argument in enumerate(names):
            bad = {kind: spoil(known[k]) for kind, spoil in BAD_STATES.items()}
            if argument == "grad":
                del bad["read-only"]
            elif known[k].ndim:
                bad["zero strides"] = as_strided(np.zeros(1), known[k].shape, (0,) * known[k].ndim)
            for other, array in zip(names, known, strict=True):
                if other != argument and array.shape == known[k].shape:
                    bad[other] = array
            for kind, array in bad.items():
                given = [*known]
                given[k] = array
                with pytest.raises((TypeError, ValueError)) as caught:
                    kernel(*given, **keywords)
                # Of two shapes that differ, it may be the other one that is wrong.
                told = {argument, kind} == {"param", "shape"}
                told |= any(each in str(caught.value) for each in (argument, kind))
                assert told, (name, argument, kind, str(caught.value))
                assert freeze(known) == before, (name, argument, kind)
        steps: list[Any] = [0, -1, 1.5, "1", 2**63, True]
        for wrong in steps:
            refused("step", kernel, *known, **{**keywords, "step": wrong})
        for wrong in NO_VALUES:
            refused("learning_rate", kernel, *known, **{**keywords, "learning_rate": wrong})
        with pytest.raises(TypeError):
            kernel(*known, np.ones(shape), np.ones(shape), np.ones(shape), **keywords)
        with pytest.raises(TypeError, match="nonsense"):
            kernel(*known, **keywords, nonsense=1)
        assert freeze(known) == before


def untyped_name(name: str) -> str:
    """The name of a class's kernel function."""
    names = {kernel.replace("_", ""): kernel for kernel in instep.kernels.__all__}
    return names["adam" if name == "AdamW" else name.lower()]


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", None, True, np.nan, 10**30, 1025, [2], 2j])
def test_a_number_of_threads_that_is_none(bad: Any) -> None:
    before = instep.get_num_threads()
    refused("n: ", untyped.set_num_threads, bad)
    assert instep.get_num_threads() == before


@pytest.mark.parametrize("bad", [None, 1, "x", [], object(), {}, {"state": 1}, np.ones(3)])
def test_interop_refuses_what_is_no_state(bad: Any) -> None:
    for framework in ("torch", "keras", "optax", "tfjs"):
        opt = trained("Adam", convention=framework, learning_rate=0.1)
        before = snapshot(opt)
        with pytest.raises((TypeError, ValueError)):
            getattr(untyped.interop, f"from_{framework}")(opt, bad)
        assert snapshot(opt) == before
        with pytest.raises((TypeError, ValueError)):
            getattr(untyped.interop, f"from_{framework}")(bad, {})


# --- numbers and arrays of a saved state that only show when all else is checked ----------------


@pytest.mark.parametrize(
    "bad", [10**400, True, -1.0, np.ones(1), 1j, "1"], ids=lambda x: repr(x)[:9]
)
def test_a_norm_that_is_none(bad: Any) -> None:
    opt = instep.Adam(np.ones(3), global_clipnorm=1.0)
    opt.step(np.ones(3))
    saved = opt.state_dict()
    opt.step(np.ones(3))
    before = snapshot(opt)
    saved["grad_norm"] = bad
    refused("grad_norm", opt.load_state_dict, saved)
    assert snapshot(opt) == before


def test_a_state_dict_with_unknown_keys() -> None:
    opt = instep.Adam(np.ones(3))
    before = snapshot(opt)
    for part in ("arrays", "hyperparameters"):
        saved = opt.state_dict()
        saved[part][1] = 1
        refused(part, opt.load_state_dict, saved)
    for key in ("format", "rule", "convention"):
        saved = {**opt.state_dict(), key: np.ones(2)}
        refused(key, opt.load_state_dict, saved)
    assert snapshot(opt) == before


def test_a_state_dict_with_bad_arrays() -> None:
    opt = trained("Nadam")
    before = snapshot(opt)
    other_size = np.float32 if opt.params[1].dtype == np.float64 else np.float64
    for path, entries in opt.state_dict()["arrays"].items():
        for key in entries.keys() - {"group", "step", "in_window"}:
            array = entries[key]
            bad = [spoil(array) for kind, spoil in BAD_STATES.items() if kind in TOLD_IN_STATE]
            for each in [*bad, array.astype(other_size), array.astype(int)]:
                saved = opt.state_dict()
                saved["arrays"][path][key] = each
                refused(f"[{path!r}][{key!r}]", opt.load_state_dict, saved)
    assert snapshot(opt) == before


@pytest.mark.parametrize("bad", [lambda update: 0.1, 10**5000, "x"], ids=["f", "huge", "x"])
def test_a_state_dict_with_a_bad_learning_rate(bad: Any) -> None:
    opt = instep.SGD(np.ones(2), learning_rate=0.1)
    saved = opt.state_dict()
    saved["hyperparameters"]["learning_rate"] = bad
    with pytest.raises((TypeError, ValueError), match="learning_rate"):
        opt.load_state_dict(saved)
    torch = instep.SGD([np.ones(2)], convention="torch")
    state = instep.interop.to_torch(torch)
    state["param_groups"][0]["lr"] = bad
    with pytest.raises((TypeError, ValueError), match="'lr'"):
        instep.interop.from_torch(torch, state)


def test_a_state_dict_with_decay_that_the_convention_does_not_have() -> None:
    opt = instep.Adam(np.ones(2), convention="torch")
    saved = opt.state_dict()
    saved["hyperparameters"]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match=r"weight_decay: expected l2=0\.1 instead"):
        opt.load_state_dict(saved)


def test_numbers_too_long_to_write() -> None:
    huge = 10**5000
    actions: list[tuple[Callable[[], object], str]] = [
        (lambda: untyped.SGD(np.ones(2), learning_rate=huge), "learning_rate: expected"),
        (lambda: untyped.Adam(beta_1=huge), "beta_1: expected"),
        (lambda: untyped.Adam(gradient_accumulation_steps=huge), "steps: expected"),
        (lambda: untyped.set_num_threads(huge), "n: expected"),
        (lambda: untyped.kernels.adam(*np.ones((4, 2)), step=huge), "step: expected"),
        (lambda: untyped.schedules.CosineDecay(huge, 10), "expected"),
    ]
    for action, message in actions:
        with pytest.raises(ValueError, match=message):
            action()


def test_a_state_dict_that_contradicts_itself() -> None:
    opt = trained("SGD")
    before = snapshot(opt)
    saved = {**opt.state_dict(), "window": 2}
    refused("window", opt.load_state_dict, saved)
    saved = {**opt.state_dict(), "window": 0}
    refused("in_window", opt.load_state_dict, saved)
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps.*window"):
        opt.gradient_accumulation_steps = 3
    assert snapshot(opt) == before
    opt.gradient_accumulation_steps = 2  # which changes nothing


def test_a_state_in_the_memory_of_the_optimizer_is_taken_as_it_was() -> None:
    opt = instep.Adam(np.ones(2))
    opt.step(np.array([1.0, 2.0]))
    m, v = opt.state["m"].copy(), opt.state["v"].copy()
    saved = opt.state_dict()
    saved["arrays"]["params"].update(m=opt.state["v"], v=opt.state["m"])
    opt.load_state_dict(saved)
    assert (opt.state["m"].tolist(), opt.state["v"].tolist()) == (v.tolist(), m.tolist())


# --- memory that runs out ------------------------------------------------------------------------

STATE: list[tuple[Any, str]] = [
    (_slots, "zeros"),
    (_slots, "zeros_like"),
    (_binding, "zeros_like"),
]
ALLOCATIONS = [*STATE, (np, "zeros"), (np, "empty"), (np, "empty_like"), (np, "asarray")]
OPTIONS: dict[str, Any] = {"use_ema": True, "gradient_accumulation_steps": 2}


@pytest.mark.parametrize("what", operations())
def test_memory_that_runs_out_anywhere(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = -1

    def limited(original: Callable[..., Any]) -> Callable[..., Any]:
        def allocate(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise MemoryError
            return original(*arguments, **keywords)

        return allocate

    failures = 0
    while left <= 0:
        make, operate = operations()[what]
        opt, expected = make(), make()
        before = seen(opt)
        failures += 1
        with monkeypatch.context() as patch:
            for module, name in ALLOCATIONS:
                patch.setattr(module, name, limited(getattr(module, name)))
            left = failures
            try:
                operate(opt)
            except MemoryError:
                left = 0
        if left == 0:
            assert seen(opt) == before
            operate(opt)
        operate(expected)
        assert seen(opt) == seen(expected)
        if opt.params is not None:
            opt.step(arrays())
    assert failures > 1 or what in ("build", "state_dict", "step", "Adafactor", "SM3")


def test_memory_that_runs_out_in_a_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    params = arrays()
    before = freeze(params)
    for module, name in STATE:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_: (_ for _ in ()).throw(MemoryError))
            with pytest.raises(MemoryError):
                instep.Nadam(params, **OPTIONS)
        instep.Nadam(params, **OPTIONS)
    assert freeze(params) == before
