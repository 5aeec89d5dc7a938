"""Valid and broken calls in any order: the broken ones leave no trace."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from bad_arrays import BAD_GRADIENTS, BAD_PARAMETERS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model import Hyper, Leaf, Model, adam, sgd, snapshot
from operations import OWN, SHAPE
from optimizers import halving
from references import REFERENCES

import instep

# Called with arguments that a type checker would refuse.
untyped: Any = instep
Action = Callable[[], object]


class OwnError(Exception):
    """What a user's own code may raise."""


MODELS = {"SGD": sgd, "Adam": adam}
HYPER = {field.name for field in fields(Hyper)}
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
        # Of fresh views of arrays without elements, nothing tells which is which.
        several = st.lists(st.sampled_from(SHAPES), max_size=3)
        shapes = draw(several.filter(lambda drawn: drawn.count((0,)) <= 1))
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
        kind = data.draw(st.sampled_from([*BAD_PARAMETERS, "shape", "dtype", "group"]))
        if kind == "group":
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
