"""Parameters of 16 bits, and state in 16: what is computed stays float32.

Run as a script, this prints hashes of what the instruction set in use makes of them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from references import REFERENCES
from stored import exact, from_bfloat16, with_remainder
from workloads import LAYOUTS, OPTIONS, contiguous, place

import instep
from instep import _core, _formats

ml_dtypes = pytest.importorskip("ml_dtypes")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float16), BFLOAT16]
SIZES = [0, 1, 31, 130, 1025, 2600]
PARAM_LAYOUTS = ["contiguous", "strided", "reversed", "fortran", "fortran gradients"]
# Of these rules, state in 16 bits is refused: see test_refusals.
EXACT = {"ASGD", "Adan", "Ftrl", "Muon", "Prodigy", "ScheduleFreeAdamW", "ScheduleFreeSGD"}


def representable(size: int, step: int, layout: Any, dtype: np.dtype[Any]) -> Any:
    """Return numbers that the format has, in an array of it or of another dtype."""
    rounded = place(size, step, contiguous, dtype.name)
    array = layout((rounded.shape[0], rounded.shape[1]), dtype)
    array[...] = rounded
    return array


def pair(
    rule: str, options: dict[str, Any], layout: str, dtype: np.dtype[Any], **kept: Any
) -> tuple[Any, Any, list[Any], list[Any]]:
    """Train 16-bit parameters and float32 ones with the same gradients; return both."""
    ours, theirs = LAYOUTS[layout]
    params = [representable(size, 0, ours, dtype) for size in SIZES]
    twins = []
    for param in params:
        twin = ours(param.shape, "float32")
        twin[...] = param
        twins.append(twin)
    opt = getattr(instep, rule)(params, **options, **kept)
    twin = getattr(instep, rule)(twins, **options)
    for step in range(1, 5):
        grads = [representable(size, step, theirs, dtype) for size in SIZES]
        for each in (opt, twin):
            each.step(grads)
    return opt, twin, params, twins


def configurations() -> Iterator[tuple[str, dict[str, Any]]]:
    for rule in REFERENCES:
        for options in ({}, *OPTIONS):
            yield rule, dict(options)


def same(a: Any, b: Any) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rule", "options"), list(configurations()))
def test_with_remainder_training_is_that_of_float32(
    rule: str, options: dict[str, Any], dtype: np.dtype[Any]
) -> None:
    """Bit for bit, with state in float32, for every rule, option and layout."""
    for layout in PARAM_LAYOUTS if not options else PARAM_LAYOUTS[:2]:
        opt, twin, params, twins = pair(rule, options, layout, dtype)
        for found, expected in zip(exact(opt, params), twins, strict=True):
            assert same(found, expected), layout
        for param, expected in zip(params, twins, strict=True):
            nearest = expected.astype(dtype).astype(np.float32)
            off = np.abs(param.astype(np.float32) - expected)
            assert (off == np.abs(nearest - expected)).all()  # of two as near, either
        for state, expected in zip(opt.state, twin.state, strict=True):
            for slot in expected:
                assert same(state[slot], expected[slot]), (layout, slot)
        assert opt.grad_norm == twin.grad_norm
        if "use_ema" in options:
            for found, expected in zip(opt.averages, twin.averages, strict=True):
                assert same(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nearest_rounds_each_step(dtype: np.dtype[Any]) -> None:
    param = representable(1000, 0, contiguous, dtype)
    twin = param.astype(np.float32)
    opt = instep.SGD(param, learning_rate=0.1, rounding="nearest")
    assert "remainder" not in opt.state
    assert "master" not in opt.state
    for step in range(1, 5):
        grad = representable(1000, step, contiguous, np.dtype(np.float32))
        opt.step(grad)
        instep.SGD(twin, learning_rate=0.1).step(grad)
        twin = twin.astype(dtype).astype(np.float32)
        assert same(param, twin.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_stochastic_rounding_is_right_on_average(dtype: np.dtype[Any]) -> None:
    """Each number becomes one of its two neighbours, and all together become themselves."""
    rng = np.random.default_rng(3)
    numbers = (rng.standard_normal(100_000) * 10.0 ** rng.uniform(-6, 4, 100_000)).astype("f4")
    param = np.zeros(numbers.size, dtype)
    opt = instep.SGD(param, learning_rate=1.0, rounding="stochastic")
    opt.step(-numbers)
    found = param.astype(np.float64)
    below, above = neighbours(numbers, dtype)
    assert ((found == below) | (found == above)).all()
    share = (numbers - below) / np.where(above > below, above - below, 1)
    went_up = (found > below) & (above > below)
    spread = np.sqrt((share * (1 - share)).sum())
    assert abs(went_up.sum() - share.sum()) < 4 * spread
    for part in np.array_split(np.argsort(share), 10):  # whatever lies between
        expected, deviation = share[part].sum(), np.sqrt((share * (1 - share))[part].sum())
        assert abs(went_up[part].sum() - expected) < 5 * deviation + 1


def neighbours(numbers: Any, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the next numbers of a format below and above; the same twice where it has it."""
    nearest = numbers.astype(dtype)
    value = nearest.astype(np.float64)
    bits = nearest.view(np.int16).astype(np.int32)

    def beside(step: int) -> Any:
        toward = np.where(numbers < 0, -step, step)
        return (bits + toward).astype(np.int16).view(dtype).astype(np.float64)

    below = np.where(value > numbers, beside(-1), value)
    above = np.where(value < numbers, beside(1), value)
    return below, above


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rounding", ["remainder", "stochastic", "nearest"])
def test_what_the_format_has_stays(dtype: np.dtype[Any], rounding: str) -> None:
    """A step that changes nothing changes no bit, of any of the format's numbers."""
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    subnormal = np.abs(every.astype(np.float32)) < np.finfo(np.float32).tiny
    param = np.where(subnormal, np.zeros((), dtype), every)
    with np.errstate(invalid="ignore"):
        expected, numbers = param.copy(), ~np.isnan(param)
    several: list[dict[str, Any]] = [{}, {"use_ema": True}]
    for options in several:
        opt = instep.SGD(param, learning_rate=0.1, rounding=rounding, **options)
        for _ in range(3):
            opt.step(np.zeros(param.size, np.float32))
        assert same(param[numbers], expected[numbers])
        with np.errstate(invalid="ignore"):
            assert np.isnan(param[~numbers]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_somebody_writes_counts(dtype: np.dtype[Any]) -> None:
    """A parameter that was written between steps is not what its remainder says any more."""
    param = representable(300, 0, contiguous, dtype)
    opt = instep.Adam(param, learning_rate=0.1)
    grad = representable(300, 1, contiguous, dtype)
    for _ in range(3):
        opt.step(grad)
    param[...] = 2.0
    opt.step(np.zeros(300, dtype).reshape(param.shape))
    step = np.abs(param.astype(np.float32) - 2)
    assert (step < 0.1).all()


@pytest.mark.parametrize("layout", [contiguous, LAYOUTS["strided"][0]])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_and_infinity_that_somebody_writes(dtype: np.dtype[Any], layout: Any) -> None:
    """Whatever the remainder is: a mask that prunes, weights that are given anew."""
    for value in (0.0, -0.0, np.inf, -np.inf, 1.0):
        param = representable(1000, 0, layout, dtype)
        opt = instep.SGD(param, learning_rate=0.01)
        opt.step(np.random.default_rng(0).standard_normal(param.shape).astype("f4"))
        param[...] = value
        opt.step(np.zeros(param.shape, np.float32))
        assert (param == value).all()
    # What stays in state of other parameters is less than half a distance.
    param = np.zeros(1000, dtype)
    opt = instep.SGD(param, learning_rate=0.01)
    grads = np.linspace(0.1, 1, 1000, dtype=np.float32)
    opt.updates(grads)
    opt.step(np.zeros(1000, np.float32))
    assert (param == 0).all()
    opt.step(grads)
    opt.build(np.zeros(1000, dtype))
    opt.step(np.zeros(1000, np.float32))
    assert not np.any(opt.params)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_averages_that_begin_later(dtype: np.dtype[Any]) -> None:
    """They start from the numbers that parameters stand for."""
    params: list[Any] = []
    averages: list[Any] = []
    grads = [np.linspace(0.1, 1, 300, dtype=np.float32)]
    for each in (dtype, np.dtype(np.float32)):
        param = np.ones(300, each)
        opt = instep.SGD([param], learning_rate=0.001)
        opt.step(grads)
        opt.use_ema = True
        averages.append(opt.averages[0].copy())
        opt.ema_momentum, opt.ema_overwrite_frequency = 0.5, 1
        opt.step(grads)
        params += exact(opt, [param]) if each == dtype else [param]
    assert same(*averages)
    assert same(*params)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinite_and_not_numbers_stay_where_they_are(dtype: np.dtype[Any]) -> None:
    for rounding in ("remainder", "stochastic", "nearest"):
        param = np.ones(600, dtype)
        opt = instep.SGD(param, learning_rate=1.0, rounding=rounding)
        grad = np.zeros(600, np.float32)
        grad[5], grad[6], grad[7] = np.inf, np.nan, -np.inf
        grad[8:9].view(np.uint32)[...] = 0xFFFFFFFF
        opt.step(grad)
        assert param[5] == -np.inf
        assert np.isnan(param[[6, 8]]).all()
        assert param[7] == np.inf
        assert (np.delete(param, [5, 6, 7, 8]) == 1).all()


@pytest.mark.parametrize("rule", sorted(REFERENCES.keys() - EXACT))
def test_state_in_bfloat16(rule: str) -> None:
    """Near that in float32, at half its bytes, for each rule that can."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((40, 50)).astype(np.float32)
    param, twin = start.copy(), start.copy()
    opt = getattr(instep, rule)(param, state_dtype="bfloat16")
    other = getattr(instep, rule)(twin)
    for _ in range(30):
        grad = rng.standard_normal(start.shape).astype(np.float32)
        opt.step(grad)
        other.step(grad)
    for name, slot in other.state.items():
        if isinstance(slot, np.ndarray) and slot.shape == param.shape:
            assert opt.state[name].dtype == BFLOAT16
            found = from_bfloat16(opt.state[name])
            assert np.abs(found - slot).max() <= 0.05 * np.abs(slot).max()
    assert np.linalg.norm(param - twin) <= 0.1 * np.linalg.norm(twin - start)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "float8"])
def test_averages_do_not_freeze(state_dtype: str) -> None:
    """A mean of squares that must shrink ten thousandfold does: rounded to nearest it would not."""
    param = np.zeros((100, 100), np.float32)
    opt = instep.Adam(param, learning_rate=0.0, state_dtype=state_dtype, beta_2=0.999)
    for _ in range(20):
        opt.step(np.full(param.shape, 10.0, np.float32))
    before = values_of(opt, "v").mean()
    for _ in range(9211):  # 0.999 ** 9211 = 1e-4
        opt.step(np.zeros(param.shape, np.float32))
    after = values_of(opt, "v")
    expected = before * 0.999**9211
    assert after.mean() == pytest.approx(expected, rel=0.05)


def values_of(opt: Any, name: str) -> Any:
    """Return a slot's numbers, read by the engine."""
    binding = opt._binding
    how = binding.kept[0][name]
    slot = binding.slots[0][name]
    numbers = np.zeros(slot.size, np.float32)
    beside = binding.slots[0].get(f"{name}_scale")
    _core.decode(slot.reshape(-1), how, beside, numbers)
    return numbers


def results() -> dict[str, str]:
    """Hash what steps of many kinds lead to, whatever the layout."""
    found: dict[str, str] = {}
    kinds: list[dict[str, Any]] = [
        {"rounding": "stochastic", "state_dtype": "bfloat16"},
        {"rounding": "remainder", "state_dtype": "bfloat16", "seed": 7},
        {"rounding": "nearest"},
        {"rounding": "nearest", "state_dtype": "float8"},
    ]
    cases: list[tuple[str, Any]] = [(rule, {}) for rule in REFERENCES if rule not in EXACT]
    cases += [("Adam", options) for options in OPTIONS if "clipnorm" not in options]
    cases += [("Adam", {"weight_decay": 0.1}), ("SGD", {"momentum": 0.9})]
    for (rule, options), kept, dtype in product(cases, kinds, [*DTYPES, np.dtype(np.float32)]):
        in_blocks = kept.get("state_dtype") == "float8"  # of elements as they lie in memory
        if not REFERENCES[rule].elementwise or in_blocks:
            layouts = ["contiguous"]
        elif rule == "Adam" and not {"global_clipnorm"} & options.keys():
            layouts = PARAM_LAYOUTS
        else:
            layouts = ["contiguous", "fortran"] if not options else ["contiguous"]
        for layout in layouts:
            opt, _, params, _ = pair(rule, options, layout, dtype, **kept)
            content = b"".join(param.tobytes() for param in params)
            for state in opt.state:
                content += b"".join(s.tobytes() for k, s in sorted(state.items()) if k != "step")
            name = f"{rule} {options} {kept} {dtype}"
            digest = hashlib.sha256(content).hexdigest()
            assert found.setdefault(name, digest) == digest, (name, layout)
    return found


def test_every_instruction_set_and_layout() -> None:
    expected = results()
    built = _core.build_info()["isa_built"]
    for isa in built[: built.index(_core.build_info()["isa"])]:
        environment = {**os.environ, "INSTEP_ISA": isa}
        run = subprocess.run(
            [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout) == expected


@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize("state_dtype", ["bfloat16", "float8"])
def test_threads(dtype: np.dtype[Any], state_dtype: str) -> None:
    """Arrays that threads share, in one layout that kernels read themselves and in one not."""
    outcomes = []
    for count, layout in product((1, 2, 5), ("contiguous", "strided")):
        before = instep.get_num_threads()
        instep.set_num_threads(count)
        param = representable(200_000, 0, LAYOUTS[layout][0], dtype)
        opt = instep.Adam(param, rounding="stochastic", state_dtype=state_dtype)
        for step in range(1, 4):
            opt.step(representable(200_000, step, contiguous, np.dtype(np.float32)))
        outcomes.append((param.tobytes(), opt.state["m"].tobytes(), opt.state["v"].tobytes()))
        instep.set_num_threads(before)
    assert len(set(outcomes)) == 1


@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize("state_dtype", [None, "bfloat16", "float8"])
@pytest.mark.parametrize("rounding", ["remainder", "stochastic"])
def test_resuming_anywhere(
    dtype: np.dtype[Any], state_dtype: Any, rounding: str, tmp_path: Path
) -> None:
    """From a file, a pickle and a copy, in the middle of a window, as if nothing had been."""
    options: dict[str, Any] = {
        "gradient_accumulation_steps": 2,
        "use_ema": True,
        "state_dtype": state_dtype,
        "rounding": rounding,
        "seed": 5,
    }
    shapes = [(33, 17), (700,), (), (0,)]

    def fresh(order: str = "C") -> Any:
        rng = np.random.default_rng(0)
        return [
            np.asarray(rng.standard_normal(shape).astype("f4").astype(dtype), order=order)  # type: ignore[call-overload]
            for shape in shapes
        ]

    def grads(step: int) -> Any:
        rng = np.random.default_rng([1, step])
        return [np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes]

    opt = instep.Adam(fresh(), **options)
    for step in range(5):
        opt.step(grads(step))
    opt.save(tmp_path / "state.npz")
    others = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    for order in "CF":
        others.append(instep.Adam(fresh(order), **options))
        others[-1].load(tmp_path / "state.npz")
    for step in range(5, 9):
        for each in (opt, *others):
            each.step(grads(step))
    for each in others:
        for a, b in zip((*opt.params, *opt.averages), (*each.params, *each.averages), strict=True):
            assert same(a, b)
        for mine, its in zip(opt.state, each.state, strict=True):
            assert mine.keys() == its.keys()
            assert all(same(mine[name], its[name]) for name in mine)


def test_another_way_of_keeping_is_refused(tmp_path: Path) -> None:
    """Nothing is cast on loading, and nothing is kept otherwise once it is bound."""
    param = np.ones(5, BFLOAT16)
    opt = instep.Adam(param)
    opt.step(np.ones(5, BFLOAT16))
    opt.save(tmp_path / "state.npz")
    others: list[dict[str, Any]] = [{"rounding": "stochastic"}, {"state_dtype": "bfloat16"}]
    for options in others:
        other = instep.Adam(np.ones(5, BFLOAT16), **options)
        with pytest.raises(ValueError, match=next(iter(options))):
            other.load(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="rounding: expected no change once arrays are bound"):
        opt.rounding = "nearest"
    with pytest.raises(ValueError, match="state_dtype: expected no change once arrays are bound"):
        opt.state_dtype = "float8"
    with pytest.raises(ValueError, match=r"kept as here.*construct with"):
        instep.Adam(np.ones(5, np.float32)).load(tmp_path / "state.npz")


@pytest.mark.parametrize("rule", sorted(EXACT))
def test_refusals(rule: str) -> None:
    cls = getattr(instep, rule)
    for state_dtype in ("bfloat16", "float8"):
        with pytest.raises(ValueError, match=f"^state_dtype: expected None or 'float32'.*{rule}"):
            cls(np.ones((3, 3), np.float32), state_dtype=state_dtype)
    cls(np.ones((3, 3), np.float32), state_dtype="float32")
    with pytest.raises(ValueError, match="mean_gradient"):
        instep.RMSprop(np.ones(3), centered=True, state_dtype="bfloat16")


def test_a_group_may_keep_its_state_otherwise() -> None:
    w, b = np.ones((30, 20), np.float32), np.ones(20, np.float32)
    opt = instep.Adam([w, b], groups=[instep.Group(r"\[1\]", state_dtype="bfloat16")])
    opt.step([w.copy(), b.copy()])
    assert opt.state[0]["v"].dtype == np.float32
    assert opt.state[1]["v"].dtype == BFLOAT16


def test_float32_state_of_float64_parameters() -> None:
    rng = np.random.default_rng(0)
    param = rng.standard_normal(500)
    twin = param.copy()
    opt, other = instep.Adam(param, state_dtype="float32"), instep.Adam(twin)
    for _ in range(5):
        grad = rng.standard_normal(500)
        opt.step(grad)
        other.step(grad)
    assert opt.state["v"].dtype == np.float32
    assert np.abs(param - twin).max() < 1e-8


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rounding", ["remainder", "stochastic"])
def test_averages_come_back_from_their_place(dtype: np.dtype[Any], rounding: str) -> None:
    param = representable(300, 0, contiguous, dtype)
    opt = instep.Adam(param, use_ema=True, ema_momentum=0.9, rounding=rounding, learning_rate=0.1)
    for step in range(1, 4):
        opt.step(representable(300, step, contiguous, dtype))
    before = [opt.params.copy(), opt.averages.copy(), *map(np.copy, opt.state.values())]
    with opt.averaged() as params:
        assert np.abs(params.astype(np.float32) - before[1]).max() < 0.02
    after = [opt.params, opt.averages, *opt.state.values()]
    assert all(same(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_rounded_copies(name: str) -> None:
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape).astype("f4") for shape in [(70, 40), (5,), ()]]
    params = [*map(np.asarray, params), np.asfortranarray(rng.standard_normal((9, 7)))]
    for options in ({}, {"state_dtype": "bfloat16"}, {"use_ema": True, "clipnorm": 1.0}):
        opt = instep.Adam(params, copies=name, **options)  # type: ignore[arg-type]
        twins = [np.copy(p, order="K") for p in params]
        other: Any = instep.Adam(twins, **options)
        for each in range(3):
            for copied, param in zip(opt.copies, params, strict=True):
                assert copied.dtype == name
                assert same(copied, param.astype(name)), each
            grads = [np.asarray(rng.standard_normal(p.shape)) for p in params]
            opt.step(grads)
            other.step(grads)
        assert all(same(a, b) for a, b in zip(params, twins, strict=True))
    with pytest.raises(ValueError, match="copies: expected float32 or float64"):
        instep.Adam(np.ones(3, np.float16), copies="bfloat16")
    with pytest.raises(ValueError, match="copies: expected 'bfloat16' or 'float16'"):
        instep.Adam(np.ones(3), copies="float32")  # type: ignore[arg-type]
    assert instep.Adam(np.ones(3)).copies is None


def beside(param: Any) -> dict[str, Any]:
    """Return what a kernel takes beside a parameter before its first update."""
    if param.dtype == np.float16:
        return {"master": param.astype(np.float32)}
    return {"remainder": np.zeros(param.shape, np.uint16)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("given", [*DTYPES, np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize("rule", ["SGD", "Adam", "Lamb", "Adafactor", "Muon"])
def test_kernels_go_on_from_what_rounding_left_out(rule: str, given: Any, dtype: Any) -> None:
    draw = np.random.default_rng(0).standard_normal
    param = draw((20, 30)).astype(dtype)
    bare = param.copy()
    opt = getattr(instep, rule)(param, learning_rate=0.1)
    kernel, rest = getattr(instep.kernels, rule.lower()), beside(bare)
    state: list[Any] = []
    for step in range(1, 5):
        grad = draw((20, 30)).astype(given)
        opt.step(grad)
        slots = {name: each for name, each in opt.state.items() if np.ndim(each)}
        [(name, left_out)] = rest.items()
        assert slots.pop(name) is not None
        state = state or [np.zeros_like(each) for each in slots.values()]
        kernel(bare, grad, *state, step=step, learning_rate=0.1, **rest)
        assert bare.tobytes() == param.tobytes()
        assert left_out.tobytes() == opt.state[name].tobytes()
    for each, slot in zip(state, slots.values(), strict=True):
        assert each.tobytes() == slot.tobytes()


def test_kernels_on_rows_of_sixteen_bits() -> None:
    draw = np.random.default_rng(0).standard_normal
    param = draw((20, 3)).astype(BFLOAT16)
    bare, rest = param.copy(), beside(param)
    opt = instep.Adagrad(param, learning_rate=0.1)
    accumulator = np.zeros((20, 3), np.float32)
    for _ in range(3):
        ids, values = np.array([3, 7, 3]), draw((3, 3)).astype(BFLOAT16)
        opt.step(instep.Rows(ids, values))
        instep.kernels.adagrad(
            bare, values, accumulator, step=1, learning_rate=0.1, rows=ids, **rest
        )
    assert bare.tobytes() == param.tobytes()


@pytest.mark.parametrize("kernel", ["adam", "muon"])
def test_kernels_refuse_sixteen_bits_without(kernel: str) -> None:
    for dtype, wanted, other in zip(
        DTYPES, ("master", "remainder"), ("remainder", "master"), strict=True
    ):
        param = np.ones((3, 4), dtype)
        before = param.copy()
        state = np.zeros((2, 3, 4), np.float32)[: 2 if kernel == "adam" else 1]
        of_both = {**beside(np.ones((3, 4), DTYPES[0])), **beside(np.ones((3, 4), DTYPES[1]))}
        mine = beside(param)
        cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
            (TypeError, f"param: expected dtype float32 or float64.*{wanted}=", {}),
            (TypeError, f"{other}: expected none, as param is a {dtype}", of_both),
            (TypeError, f"{other}: expected none|{wanted}=", {other: of_both[other]}),
            (TypeError, f"{wanted}.*: expected dtype", {wanted: np.zeros((3, 4))}),
            (ValueError, f"{wanted}.*: expected shape", {wanted: mine[wanted][:2]}),
            (ValueError, "out: expected none with 16 bits", {**mine, "out": param.copy()}),
        ]
        for error, message, options in cases:
            with pytest.raises(error, match=message):
                getattr(instep.kernels, kernel)(param, before, *state, step=1, **options)
            assert (param == before).all()
    full = np.ones((3, 4), np.float32)
    with pytest.raises(TypeError, match="master: expected none, as param is a float32"):
        getattr(instep.kernels, kernel)(full, full.copy(), *state, step=1, master=full.copy())


@pytest.mark.parametrize("state_dtype", ["bfloat16", "float8"])
def test_slots_out_of_use_and_in_use_again(state_dtype: str) -> None:
    rng = np.random.default_rng(0)
    opt = instep.Adam(rng.standard_normal(300).astype("f4"), amsgrad=True, state_dtype=state_dtype)
    grads = [rng.standard_normal(300).astype("f4") for _ in range(3)]
    opt.step(grads[0])
    largest = opt.state["v_max"].copy()
    opt.amsgrad = False
    opt.step(grads[1])
    saved = opt.state_dict()
    other = instep.Adam(np.array(opt.params), amsgrad=False, state_dtype=state_dtype)
    other.load_state_dict(saved)
    for each in (opt, other):
        each.amsgrad = True
        assert same(each.state["v_max"], largest)
        each.step(grads[2])
    assert same(opt.params, other.params)


def test_other_frameworks_have_no_place_for_it() -> None:
    for convention in ("torch", "keras"):
        opt: Any = instep.Adam([np.ones(5, BFLOAT16)], convention=convention)
        with pytest.raises(ValueError, match="expected parameters that are whole"):
            getattr(instep.interop, f"to_{convention}")(opt)
    opt = instep.Adam([np.ones(5, np.float32)], convention="keras", state_dtype="bfloat16")
    with pytest.raises(ValueError, match="expected state in float32 or float64"):
        instep.interop.to_keras(opt)


def test_names_of_what_is_kept_are_the_engines() -> None:
    assert {"bfloat16", "float16"} <= {*_core.formats}
    assert {*_formats.COPIES} <= {*_core.formats}


if __name__ == "__main__":
    print(json.dumps(results()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rule", ["Adam", "SGD", "Lion"])
def test_large_arrays_whose_pieces_are_several(rule: str, threads: int) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(3)
    bits = rng.standard_normal(300_007).astype(ml_dtypes.bfloat16)
    params, twins = bits.copy(), bits.astype("f4")
    opt, twin = getattr(instep, rule)(params), getattr(instep, rule)(twins)
    before = instep.get_num_threads()
    instep.set_num_threads(threads)
    try:
        for _ in range(3):
            g = rng.standard_normal(params.size).astype("f4")
            opt.step(g)
            twin.step(g)
    finally:
        instep.set_num_threads(before)
    assert with_remainder(params, opt.state["remainder"]).tobytes() == twins.tobytes()
