"""An interrupt at any moment leaves each operation wholly done or not done at all."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from model import freeze, seen, snapshot

import instep

untyped: Any = instep

HERE = str(Path(instep.__file__).parent)
# Where operations take effect: there each instruction counts, elsewhere each line.
COMMITS = {"__set__", "__setattr__", "_assign", "apply_gradients", "build", "load_state_dict"}


def interrupted(operate: Callable[[], object], at: int) -> bool:
    """Run with a KeyboardInterrupt at the at-th event in instep's own code; whether there was one.

    The events are calls, lines and returns, and in `COMMITS` single instructions: between any two
    stores, and on both sides of every call of a C function.
    """
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        frame.f_trace_opcodes = frame.f_code.co_name in COMMITS
        count += 1
        if count == at:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operate()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count >= at


def arrays() -> list[Any]:
    return [np.array([[1.0, 2.0]]), np.array(3.0, np.float32)]


def trained(rule: str = "Adam", **options: Any) -> Any:
    opt = getattr(untyped, rule)(arrays(), learning_rate=0.1, **options)
    opt.step(arrays())
    return opt


def saved(**options: Any) -> Any:
    opt = trained(**options)
    opt.step(arrays())
    return opt.state_dict()


Operation = Callable[[Any, list[Any]], object]


@dataclass
class Case:
    """An operation on an optimizer, and what it leaves of the arrays that it is called with."""

    make: Callable[[], Any]
    operate: Operation


def step(opt: Any, _: list[Any]) -> None:
    opt.step(arrays())


def apply(opt: Any, variables: list[Any]) -> None:
    opt.apply_gradients(list(zip(arrays(), opt.params or variables, strict=True)))


def assign(name: str, value: Any) -> Callable[[Any, list[Any]], None]:
    return lambda opt, _: setattr(opt, name, value)


def load(saved_state: Any) -> Callable[[Any, list[Any]], None]:
    return lambda opt, _: opt.load_state_dict(saved_state)


WHOLE: dict[str, Any] = {
    "use_ema": True,
    "ema_overwrite_frequency": 1,
    "global_clipnorm": 1.0,
    "skip_nonfinite": True,
}
CASES: dict[str, Case] = {
    "step": Case(trained, step),
    "step with a schedule": Case(
        lambda: instep.SGD(arrays(), learning_rate=instep.schedules.CosineDecay(0.1, 9)), step
    ),
    "step of Adafactor": Case(lambda: trained("Adafactor", **WHOLE), step),
    "step of SM3": Case(lambda: trained("SM3", **WHOLE), step),
    "step of Muon": Case(lambda: trained("Muon", **WHOLE), step),
    "first step of schedule-free": Case(lambda: instep.ScheduleFreeSGD(arrays()), step),
    "apply_gradients": Case(trained, apply),
    "apply_gradients in another order": Case(
        trained,
        lambda opt, _: opt.apply_gradients(list(zip(arrays(), opt.params, strict=True))[1:]),
    ),
    "first apply_gradients": Case(lambda: instep.SGD(learning_rate=0.1, momentum=0.5), apply),
    "first apply_gradients that skips": Case(
        lambda: instep.SGD(skip_nonfinite=True),
        lambda opt, variables: opt.apply_gradients(
            [(np.full((1, 2), np.nan), variables[0]), (None, variables[1])]
        ),
    ),
    "first build": Case(lambda: instep.SGD(momentum=0.5), lambda opt, new: opt.build(new)),
    "build": Case(trained, lambda opt, new: opt.build(new)),
    "build with groups": Case(
        trained, lambda opt, new: opt.build([new[0], untyped.Group(new[1], amsgrad=True)])
    ),
    "a number": Case(trained, assign("learning_rate", 0.5)),
    "an option": Case(trained, assign("global_clipnorm", 0.5)),
    "another slot": Case(trained, assign("amsgrad", True)),
    "averages": Case(trained, assign("use_ema", True)),
    "a group's number": Case(
        lambda: instep.SGD(arrays(), groups=[instep.Group("0")]),
        lambda opt, _: opt.groups[1].__setitem__("momentum", 0.5),
    ),
    "no decay": Case(trained, lambda opt, _: opt.exclude_from_weight_decay(var_names=["0"])),
    "freeze": Case(trained, lambda opt, _: opt.freeze("0")),
    "updated": Case(trained, lambda opt, _: opt.updated(opt.params, arrays())),
    "updates": Case(trained, lambda opt, _: opt.updates(arrays())),
    "flush": Case(
        lambda: trained("Adam", gradient_accumulation_steps=2), lambda opt, _: opt.flush()
    ),
    "load_state_dict": Case(trained, load(saved(beta_1=0.5))),
    "load_state_dict with other slots": Case(trained, load(saved(amsgrad=True, use_ema=True))),
}


@pytest.mark.parametrize("what", CASES)
def test_an_operation_is_done_or_not(what: str) -> None:
    case = CASES[what]

    def after(*operations: Operation) -> object:
        opt, variables = case.make(), arrays()
        for each in operations:
            each(opt, variables)
        return seen(opt), freeze(variables)

    then: list[Operation] = (
        [step, case.operate] if case.make().params is not None else [case.operate]
    )
    # What does not show yet, does later.
    going_on: dict[str, tuple[list[Operation], object]] = {
        repr(after()): (then, after(*then)),
        repr(after(case.operate)): ([step], after(case.operate, step)),
    }
    at = 0
    half_done: list[int] = []
    while True:
        at += 1
        opt, variables = case.make(), arrays()
        if not interrupted(lambda o=opt, v=variables: case.operate(o, v), at):  # type: ignore[misc]
            break
        operations, expected = going_on.get(repr((seen(opt), freeze(variables))), ([], None))
        for each in operations:
            each(opt, variables)
        if (seen(opt), freeze(variables)) != expected:
            half_done.append(at)
    assert not half_done, f"half done by {len(half_done)} of {at - 1} events, {half_done[:9]}"


COPIES: dict[str, Callable[[Any], object]] = {
    "pickle": pickle.dumps,
    "unpickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "deepcopy": copy.deepcopy,
    "state_dict": lambda opt: opt.state_dict(),
    "state": lambda opt: opt.state,
    "averages": lambda opt: opt.averages,
    "eval_params": lambda opt: opt.eval_params(),
}


@pytest.mark.parametrize("what", COPIES)
@pytest.mark.parametrize("steps", [0, 1])
def test_what_only_reads_changes_nothing(what: str, steps: int) -> None:
    opt = instep.ScheduleFreeSGD(arrays(), use_ema=True)
    for _ in range(steps):
        opt.step(arrays())
    before = snapshot(opt)
    at = 1
    while interrupted(lambda: COPIES[what](opt), at):
        assert snapshot(opt) == before
        at += 3
    assert at > 1


def test_an_interrupted_constructor_leaves_the_arrays_alone() -> None:
    params = arrays()
    before = freeze(params)
    at = 1
    while interrupted(lambda: instep.ScheduleFreeAdamW(params, use_ema=True), at):
        at += 5
    assert freeze(params) == before
    instep.ScheduleFreeAdamW(params, use_ema=True).step(arrays())


# Each signal is sent when the one before has been caught, so that none comes outside of `try`; the
# same training without signals then tells what every array must hold.
TRAINING = """
import os, random, signal, sys, threading, time
import numpy as np
import instep

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

def make():
    params = [np.ones(200_000, np.float32), np.ones((300, 300))]
    options = dict(use_ema=True, ema_overwrite_frequency=3, global_clipnorm=1.0)
    if accumulates:
        options["gradient_accumulation_steps"] = 2
    return getattr(instep, rule)(params, learning_rate=lambda update: 0.1 / (update + 1), **options)

rule, accumulates, caught = sys.argv[1], sys.argv[2] == "True", 0
rng = np.random.default_rng(0)
grads = [[rng.normal(size=200_000), rng.normal(size=(300, 300))] for _ in range(3)]
calls = lambda opt: opt.state_dict()["window"] + opt.iterations * (1 + accumulates)
opt, ready = make(), threading.Event()

def send():
    while caught < 25:
        ready.wait()
        ready.clear()
        time.sleep(random.random() * 4e-3)
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=send, daemon=True).start()
while caught < 25:
    call = calls(opt)
    try:
        ready.set()
        while True:
            opt.step(grads[call % 3])
            call += 1
    except KeyboardInterrupt:
        caught += 1
alone = make()
for call in range(calls(opt)):
    alone.step(grads[call % 3])
same = [a.tobytes() == b.tobytes() for a, b in zip(opt.params, alone.params)]
same += [a.tobytes() == b.tobytes() for a, b in zip(opt.averages, alone.averages)]
for mine, theirs in zip(opt.state, alone.state):
    same += [np.array_equal(mine[name], theirs[name]) for name in mine]
print(all(same) and opt.grad_norm == alone.grad_norm)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals among threads")
@pytest.mark.parametrize(
    ("rule", "accumulates"), [("Adam", False), ("SGD", True), ("SM3", False), ("Muon", False)]
)
def test_signals_while_large_arrays_train(rule: str, accumulates: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, rule, str(accumulates)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["True"], done.stderr
