"""A call that fails leaves no trace, wherever among valid calls it comes and whatever is wrong."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model import Hyper, Leaf, Model, adam, freeze, sgd, snapshot
from numpy.lib.stride_tricks import as_strided
from references import REFERENCES
from test_bad_input import BAD_GRADIENTS, BAD_PARAMETERS, SHAPE, misaligned

import instep
from instep import _binding

# Called with arguments that a type checker would refuse.
untyped: Any = instep

Action = Callable[[], object]


class OwnError(Exception):
    """What a user's own code may raise."""


# --- any order of valid and broken calls --------------------------------------------------------

MODELS = {"SGD": sgd, "Adam": adam}
HYPER = {field.name for field in fields(Hyper)}
# Numbers that each rule has, or has a word for; of the rest its defaults do.
OWN: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Lars": {"momentum": 0.9},
}
DTYPES = [np.float32, np.float64]
LAYOUTS: list[Callable[[Any], Any]] = [
    np.array,
    lambda a: np.array(a, order="F"),
    lambda a: np.repeat(a[None], 2, 0).T[..., 0].T,
    lambda a: a[::-1].copy()[::-1] if a.ndim else a,
]
SHAPES: list[tuple[int, ...]] = [(), (5,), (0,), (3, 1, 2)]
TREES = ["list", "dict", "deep"]
BAD_VALUES: dict[str, list[Any]] = {
    "learning_rate": [np.nan, -1.0, np.inf, "0.1", [0.1], 10**400],
    "l2": [np.nan, -0.1, "x", 1j],
    "clipnorm": [0.0, -1.0, np.nan, "x"],
    "maximize": [1, "yes"],
    "loss_scale_factor": [0.0, -1.0, np.inf],
    "ema_momentum": [1.5, np.nan],
    "ema_overwrite_frequency": [0, 1.5],
    "gradient_accumulation_steps": [0, 2.0, 2**63],
    "use_ema": [1, "x"],
    "skip_nonfinite": [0, "x"],
}
GOOD_VALUES: dict[str, list[Any]] = {
    "learning_rate": [0.1, 0.03],
    "l2": [0.0, 0.05],
    "maximize": [True, False],
    "loss_scale_factor": [1.0, 0.3, 4.0],
    "ema_momentum": [0.5, 0.9],
    "ema_overwrite_frequency": [None, 1, 2],
    "gradient_accumulation_steps": [1, 2, 3],
    "use_ema": [True, False],
    "skip_nonfinite": [True, False],
    "clipnorm": [None, 0.8],
    "clipvalue": [None, 0.7],
    "global_clipnorm": [None, 1.3],
}
OWN_VALUES: dict[str, dict[str, list[Any]]] = {
    "SGD": {"momentum": [0.9, 0.5], "weight_decay": [0.0, 0.1]},
    "Adam": {"amsgrad": [True, False], "beta_1": [0.9, 0.5], "weight_decay": [0.0, 0.1]},
    "RMSprop": {"momentum": [0.0, 0.5], "centered": [True, False]},
    "SM3": {"momentum": [0.0, 0.5]},
    "Adafactor": {"momentum": [0.0, 0.5]},
}


def halving(update: int) -> float:
    return 0.2 * 0.5**update


def nest(kind: str, leaves: list[Any]) -> Any:
    """Put leaves into a structure that is walked in their order."""
    if kind == "dict":
        return {str(k): leaf for k, leaf in enumerate(leaves)}
    if kind == "deep":
        return {"x": [leaves[0], tuple(leaves[1:])], "y": {}}
    return list(leaves)


def leaves_of(kind: str, tree: Any) -> list[Any]:
    if kind == "dict":
        return [tree[key] for key in sorted(tree)]
    return [tree["x"][0], *tree["x"][1]] if kind == "deep" else list(tree)


def failing(error: BaseException, items: list[Any]) -> Iterator[Any]:
    yield from items
    raise error


class Training(RuleBasedStateMachine):
    """An optimizer, a twin that gets the valid calls alone, and where there is one the model."""

    opt: Any = None

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        draw = data.draw
        self.name = draw(st.sampled_from(["SGD", "Adam"]) | st.sampled_from(sorted(REFERENCES)))
        self.kind = draw(st.sampled_from(TREES))
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        exact = self.name in MODELS and draw(st.booleans())
        shapes = draw(st.lists(st.sampled_from(SHAPES), max_size=3))
        shapes.insert(draw(st.integers(0, len(shapes))), SHAPE)
        self.place = shapes.index(SHAPE)
        params = []
        for shape in shapes:
            dtype = np.float64 if exact else draw(st.sampled_from(DTYPES))
            values = np.asarray(self.rng.uniform(-1.0, 1.0, shape), dtype)
            params.append(draw(st.sampled_from(LAYOUTS))(values))
        rates: list[Any] = [0.1, halving]
        options: dict[str, Any] = {
            "learning_rate": draw(st.sampled_from(rates)),
            **OWN.get(self.name, {}),
            **draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        name: st.sampled_from(GOOD_VALUES[name])
                        for name in (
                            "l2",
                            "maximize",
                            "skip_nonfinite",
                            "use_ema",
                            "ema_overwrite_frequency",
                            "gradient_accumulation_steps",
                        )
                    },
                )
            ),
        }
        overrides: list[dict[str, Any]] = draw(
            st.lists(
                st.sampled_from([{}, {"l2": 0.02}, {"maximize": True, "clipnorm": 0.5}]),
                min_size=len(shapes),
                max_size=len(shapes),
            )
        )

        def make(leaves: list[Any]) -> Any:
            grouped = [
                instep.Group(leaf, **override) if override else leaf
                for leaf, override in zip(leaves, overrides, strict=True)
            ]
            return getattr(untyped, self.name)(nest(self.kind, grouped), **options)

        self.overrides = overrides
        self.opt, self.twin = make(params), make(copy.deepcopy(params))
        self.model: Model | None = None
        if exact:
            ours = {name: value for name, value in options.items() if name in HYPER}
            rest = {name: value for name, value in options.items() if name not in HYPER}
            hyper = Hyper(**ours)
            self.model = Model(
                MODELS[self.name],
                [
                    Leaf(np.array(p), replace(hyper, **override), np.array(p))
                    for p, override in zip(params, overrides, strict=True)
                ],
                **rest,
            )
        self.saved: list[tuple[Any, Any, Model | None]] = []

    def params(self) -> list[Any]:
        return leaves_of(self.kind, self.opt.params)

    def gradients(self, draw: Any) -> list[Any]:
        kinds = ["same", "same", "other", "strided", "none"]
        grads: list[Any] = []
        for param in self.params():
            kind = draw(st.sampled_from(kinds))
            g = np.asarray(self.rng.uniform(-2.0, 2.0, param.shape), param.dtype)
            if kind == "other" and self.model is None:
                g = g.astype(DTYPES[param.dtype == np.float32])
            if kind == "strided":
                g = np.array(g, order="F")
                g.flags.writeable = False
            grads.append(None if kind == "none" else g)
        return grads

    # Valid calls

    @rule(data=st.data(), bad=st.booleans(), pairs=st.booleans())
    def step(self, data: st.DataObject, bad: bool, pairs: bool) -> None:
        grads = self.gradients(data.draw)
        given = [k for k, g in enumerate(grads) if g is not None and g.size]
        if bad and given and self.opt.skip_nonfinite:
            k = data.draw(st.sampled_from(given))
            grads[k] = np.array(grads[k])
            grads[k].flat[-1] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        for opt in (self.opt, self.twin):
            if pairs:
                order = data.draw(st.permutations(range(len(grads))))
                params = leaves_of(self.kind, opt.params)
                opt.apply_gradients((grads[k], params[k][...]) for k in order)
            else:
                opt.step(nest(self.kind, grads))
        if self.model:
            self.model.step(grads)

    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        values = {**GOOD_VALUES, **OWN_VALUES.get(self.name, {})}
        if callable(self.opt.learning_rate):
            del values["learning_rate"]
        name = data.draw(st.sampled_from(sorted(values)))
        value = data.draw(st.sampled_from(values[name]))
        clippings = ("clipvalue", "clipnorm", "global_clipnorm")
        try:
            setattr(self.twin, name, value)
        except ValueError:
            # A second clipping, in the middle of a window, or not in this rule.
            self.refused(lambda: setattr(self.opt, name, value), name.split("_")[0], "clip")
            return
        setattr(self.opt, name, value)
        if not self.model:
            return
        model = self.model
        if name in HYPER:
            for leaf, override in zip(model.leaves, self.overrides, strict=True):
                if name not in override and not (name in clippings and "clipnorm" in override):
                    leaf.hyper = replace(leaf.hyper, **{name: value})
                if name == "amsgrad" and not value:
                    leaf.slots.pop("v_max", None)
            return
        if name == "use_ema" and value and not model.use_ema:
            for leaf in model.leaves:
                leaf.average = leaf.param
        if name == "gradient_accumulation_steps":
            model.calls = model.calls % model.gradient_accumulation_steps
        setattr(model, name, value)

    @rule()
    def build(self) -> None:
        """Hand over to arrays of the same values elsewhere."""
        before = snapshot(self.opt)
        for opt in (self.opt, self.twin):
            new = [np.array(p) for p in leaves_of(self.kind, opt.params)]
            opt.build(nest(self.kind, new))
        assert snapshot(self.opt) == before

    @rule()
    def save(self) -> None:
        saved = (self.opt.state_dict(), self.twin.state_dict(), copy.deepcopy(self.model))
        self.saved = [*self.saved[-2:], saved]

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        mine, twins, model = data.draw(st.sampled_from(self.saved))
        self.opt.load_state_dict(mine)
        self.twin.load_state_dict(twins)
        if not self.model or not model:
            return
        now, self.model = self.model.leaves, copy.deepcopy(model)
        for leaf, here in zip(self.model.leaves, now, strict=True):
            leaf.param = here.param
            if not self.model.iterations:
                leaf.average = here.param

    @rule(clone=st.sampled_from([copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))]))
    def go_on_with_a_copy(self, clone: Callable[[Any], Any]) -> None:
        left = self.opt
        before = snapshot(left)
        self.opt = clone(left)
        assert snapshot(self.opt) == snapshot(left) == before

    # Broken calls

    def refused(self, call: Action, *words: str) -> None:
        before = snapshot(self.opt)
        params = self.params()
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert any(word in str(caught.value) for word in words), str(caught.value)
        assert snapshot(self.opt) == before
        assert all(p is q for p, q in zip(self.params(), params, strict=True))

    def broken_gradients(self, draw: Any, leaf: Any) -> list[Any]:
        grads = self.gradients(draw)
        grads[self.place] = leaf
        return grads

    @rule(data=st.data(), pairs=st.booleans())
    def refuse_gradient(self, data: st.DataObject, pairs: bool) -> None:
        param = self.params()[self.place]
        state = leaves_of(self.kind, self.opt.state)[self.place].values()
        own = [a for a in state if isinstance(a, np.ndarray) and a.shape == SHAPE]
        g = np.ones(SHAPE, param.dtype)
        bad = [spoil(g) for spoil, _ in BAD_GRADIENTS.values()]
        leaf = data.draw(st.sampled_from([*bad, param, param[::-1], *own]))
        grads = self.broken_gradients(data.draw, leaf)
        path = {"list": f"[{self.place}]", "dict": f"['{self.place}']"}.get(
            self.kind, f"['x'][1][{self.place - 1}]" if self.place else "['x'][0]"
        )
        if pairs:
            self.refused(lambda: self.opt.apply_gradients(zip(grads, self.params())), path)  # noqa: B905
        else:
            self.refused(lambda: self.opt.step(nest(self.kind, grads)), path)

    @rule(data=st.data())
    def refuse_structure(self, data: st.DataObject) -> None:
        grads = self.gradients(data.draw)
        bad: list[Any] = [
            grads[:-1],
            [*grads, np.ones(1)],
            {"z": grads},
            None,
            1.0,
            "x",
            iter(grads),
            [[grads]],
        ]
        if self.kind != "list":
            bad += [grads, {**nest(self.kind, grads), "z": None}]
        tree = data.draw(st.sampled_from(bad))
        self.refused(lambda: self.opt.step(tree), "params")

    @rule(data=st.data())
    def refuse_pairs(self, data: st.DataObject) -> None:
        params = self.params()
        pairs = list(zip(self.gradients(data.draw), params, strict=True))
        repeated = [*pairs, pairs[self.place]]
        unknown = [*pairs, (np.ones(SHAPE), np.ones(SHAPE))]
        bad: list[Any] = [repeated, unknown, [*pairs, 1], None, [(1, 2, 3)], [pairs[0][1:]]]
        given = data.draw(st.sampled_from(bad))
        self.refused(lambda: self.opt.apply_gradients(given), "grads_and_vars")

    @rule(data=st.data(), error=st.sampled_from([MemoryError, OwnError, KeyboardInterrupt]))
    def gradients_that_raise(self, data: st.DataObject, error: type[BaseException]) -> None:
        pairs = list(zip(self.gradients(data.draw), self.params(), strict=True))
        before = snapshot(self.opt)
        with pytest.raises(error):
            self.opt.apply_gradients(failing(error(), pairs))
        assert snapshot(self.opt) == before

    @rule(data=st.data())
    def schedule_that_fails(self, data: st.DataObject) -> None:
        """A number or schedule gives way to a broken schedule for one call, and comes back."""
        answers: list[Any] = [np.nan, -1.0, np.inf, "0.1", None, [0.1], MemoryError(), OwnError()]
        answer = data.draw(st.sampled_from(answers))

        def schedule(update: int) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        rate = self.opt.learning_rate
        grads = nest(self.kind, self.gradients(data.draw))
        last = self.opt.state_dict()["window"] + 1 == self.opt.gradient_accumulation_steps
        self.opt.learning_rate = schedule
        before = snapshot(self.opt)
        if last:
            with pytest.raises((TypeError, ValueError, MemoryError, OwnError)):
                self.opt.step(grads)
        assert snapshot(self.opt) == before
        self.opt.learning_rate = rate

    @rule(data=st.data())
    def refuse_value(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(BAD_VALUES)))
        value = data.draw(st.sampled_from(BAD_VALUES[name]))
        self.refused(lambda: setattr(self.opt, name, value), name)

    @rule(data=st.data())
    def refuse_build(self, data: st.DataObject) -> None:
        new: list[Any] = [np.array(p) for p in self.params()]
        kind = data.draw(st.sampled_from([*BAD_PARAMETERS, "shape", "dtype", "fewer", "group"]))
        if kind == "fewer":
            del new[-1]
        elif kind == "group":
            new[0] = instep.Group(new[0], use_ema=True)
        elif kind == "shape":
            new[self.place] = np.zeros((3, 2))
        elif kind == "dtype":
            new[self.place] = new[self.place].astype(DTYPES[new[self.place].dtype == np.float32])
        else:
            new[self.place] = BAD_PARAMETERS[kind][0]()
        if self.kind == "deep" and not new:
            return
        self.refused(lambda: self.opt.build(nest(self.kind, new)), "params")

    @rule(data=st.data())
    def refuse_state(self, data: st.DataObject) -> None:
        saved = self.opt.state_dict()
        where = data.draw(st.sampled_from(["top", "arrays", "hyperparameters"]))
        entries = saved
        if where == "arrays":
            entries = saved["arrays"][data.draw(st.sampled_from(sorted(saved["arrays"])))]
        elif where == "hyperparameters":
            entries = saved[where]
        keys = sorted(entries.keys() - {"ema_overwrite_frequency", "grad_norm", "adjust_lr_fn"})
        key = data.draw(st.sampled_from(keys))
        nothing = [] if where == "hyperparameters" else [None]  # there it is a value of some
        bad: list[Any] = [object(), "x", np.nan, np.zeros(9), 10**400, *nothing]
        entries[key] = data.draw(st.sampled_from(bad))
        self.refused(lambda: self.opt.load_state_dict(saved), "state", key)

    @rule(data=st.data(), change=st.sampled_from(["read-only", "replaced"]))
    def refuse_changed_parameter(self, data: st.DataObject, change: str) -> None:
        """An array that is not what was bound is refused until it is put back."""
        tree, param = self.opt.params, self.params()[self.place]
        grads = nest(self.kind, self.gradients(data.draw))
        if change == "replaced" and (self.kind == "deep" or any(self.overrides)):
            return  # in a tuple, and in a copy without groups, there is nothing to replace
        before = snapshot(self.opt)
        holder, key = tree, str(self.place) if self.kind == "dict" else self.place
        if change == "read-only":
            param.flags.writeable = False
        else:
            holder[key] = np.array(param)
        try:
            with pytest.raises((TypeError, ValueError, RuntimeError), match="params"):
                self.opt.step(grads)
        finally:
            param.flags.writeable = True
            if change == "replaced":
                holder[key] = param
        assert snapshot(self.opt) == before

    # After each call

    @invariant()
    def agree(self) -> None:
        if self.opt is None:
            return
        assert snapshot(self.opt) == snapshot(self.twin)
        if not self.model:
            return
        assert self.opt.iterations == self.model.iterations
        assert self.opt.skipped_steps == self.model.skipped_steps
        states = leaves_of(self.kind, self.opt.state)
        pairs = []
        for leaf, param, state in zip(self.model.leaves, self.params(), states, strict=True):
            pairs += [
                (param, leaf.param),
                *((state[name], leaf.slots[name]) for name in leaf.slots),
            ]
            assert state["step"] == leaf.count
        if self.model.use_ema:
            averages = leaves_of(self.kind, self.opt.averages)
            for leaf, average in zip(self.model.leaves, averages, strict=True):
                pairs.append((average, leaf.average if self.model.iterations else leaf.param))
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-8)


TestTraining = pytest.mark.filterwarnings("ignore::DeprecationWarning")(Training.TestCase)
TestTraining.settings = settings(deadline=None, max_examples=50, stateful_step_count=25)


# --- every entry, every kind of bad argument ----------------------------------------------------

RULES = sorted(REFERENCES)
each_rule = pytest.mark.parametrize("name", RULES)


def arrays(dtype: Any = np.float64) -> list[Any]:
    return [np.ones(4, dtype), np.ones(SHAPE, dtype), np.ones((), dtype)]


def trained(name: str, **options: Any) -> Any:
    """An optimizer with all that there is to be damaged."""
    opt = getattr(untyped, name)(
        arrays(), use_ema=True, gradient_accumulation_steps=2, **OWN.get(name, {}), **options
    )
    for _ in range(3):
        opt.step(arrays())
    return opt


def refused(word: str, call: Callable[..., object], *arguments: Any, **keywords: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(word)):
        call(*arguments, **keywords)


# None is the default, "x" and -1 may be valid; a schedule is for learning rates alone.
NO_VALUES = [object(), b"0.1", 1j, [], {}, np.ones(2), float("nan"), np.datetime64("nat")]


@each_rule
def test_every_hyperparameter_refuses_what_is_none_of_its_values(name: str) -> None:
    make = getattr(untyped, name)
    opt = trained(name)
    before = snapshot(opt)
    for key in opt.config.keys() - {"convention"}:
        extra = [] if key == "learning_rate" else [halving]
        for bad in (*NO_VALUES, *extra):
            refused(key, make, **{key: bad})
            refused(key, make, arrays(), **{key: bad})
            refused(key, setattr, opt, key, bad)
            grouped = [np.ones(2), instep.Group(np.ones(2), **{key: bad})]
            refused("params[1]", make, grouped)
        if isinstance(opt.config[key], float):
            for bad in (np.inf, -np.inf, 10**400, True, "0.5"):
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
    "dtype": lambda a: a.astype(np.float16),
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
    for framework in ("torch", "keras"):
        opt = trained("Adam", convention=framework)
        before = snapshot(opt)
        with pytest.raises((TypeError, ValueError)):
            getattr(untyped.interop, f"from_{framework}")(opt, bad)
        assert snapshot(opt) == before
        with pytest.raises((TypeError, ValueError)):
            getattr(untyped.interop, f"from_{framework}")(bad, {})


# --- numbers and arrays of a saved state that only show when all else is checked -----------------


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


# --- memory that runs out -----------------------------------------------------------------------

STATE: list[tuple[Any, str]] = [(_binding, "zeros"), (_binding, "zeros_like")]
ALLOCATIONS = [*STATE, (np, "zeros"), (np, "empty"), (np, "empty_like"), (np, "asarray")]
OPTIONS: dict[str, Any] = {"use_ema": True, "gradient_accumulation_steps": 2}


def operations() -> dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]:
    """What takes memory: how to make the optimizer, and the operation."""

    def make(name: str = "Adam", **options: Any) -> Any:
        opt = getattr(untyped, name)(arrays(np.float32), **{**OWN.get(name, {}), **options})
        opt.step(arrays())
        return opt

    other = instep.Adam(arrays(np.float32), amsgrad=True, use_ema=True)
    other.step(arrays())
    saved = other.state_dict()
    variables = arrays(np.float32)

    def first(opt: Any) -> None:
        opt.apply_gradients(zip(arrays(), variables, strict=True))

    return {
        "build": (make, lambda opt: opt.build(arrays(np.float32))),
        "first build": (untyped.Adam, lambda opt: opt.build(arrays(np.float32))),
        "first apply_gradients": (untyped.Adam, first),
        "amsgrad": (make, lambda opt: setattr(opt, "amsgrad", True)),
        "use_ema": (make, lambda opt: setattr(opt, "use_ema", True)),
        "window": (make, lambda opt: setattr(opt, "gradient_accumulation_steps", 3)),
        "load_state_dict": (make, lambda opt: opt.load_state_dict(saved)),
        "state_dict": (make, lambda opt: opt.state_dict()),
        "pickle": (make, lambda opt: pickle.loads(pickle.dumps(opt))),
        "deepcopy": (make, copy.deepcopy),
        "step": (make, lambda opt: opt.step(arrays())),
        "Adafactor": (lambda: make("Adafactor"), lambda opt: opt.step(arrays())),
        "SM3": (lambda: make("SM3"), lambda opt: opt.step(arrays())),
        "Muon": (lambda: make("Muon"), lambda opt: opt.step(arrays())),
    }


def seen(opt: Any) -> object:
    """All that a call may not half-do, of an unbound optimizer, too."""
    return freeze(opt.config) if opt.params is None else snapshot(opt)


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
    assert failures > 1 or what in ("build", "state_dict", "step")


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
