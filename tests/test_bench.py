"""The benchmark: what it prints and keeps, whom it compares with; not how fast anything is."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import REFERENCES, VECTOR_REFERENCES, Reference

import instep
from instep import _core
from instep._bench import machine, measure, samples
from instep._bench.case import DTYPES, RULES, Array, Case, Rule
from instep._bench.cold import OtherMemory
from instep._bench.limit import LIMITS
from instep._bench.peers import ADAPTERS, IN_PLACE_OF, PEERS
from instep._bench.peers.base import Contender, Peer
from instep._bench.peers.instep import Instep
from instep._bench.peers.numpy import NumPy
from instep._bench.workloads import MODELS, Workload, of_size, sweep
from instep._cli import main

STEPS = 3
# Peers run in processes of their own: their thread pools and settings would meet other tests.
STEP = """
import sys
import numpy as np
from instep._bench.case import DTYPES, RULES, Case
from instep._bench.peers import ADAPTERS, PEERS
from instep._bench.workloads import Workload

name, path, steps = sys.argv[1:]
try:
    peer = {**PEERS, **ADAPTERS}[name]()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(77)
params = {}
for rule in RULES.values():
    for dtype in DTYPES:
        for threads in (1, 2):
            case = Case(Workload("small", ((3, 100), (7,), ())), rule, dtype, threads)
            if peer.has(case):
                peer.set_num_threads(threads)
                contender = peer.bind(case, case.gradients())
                for _ in range(int(steps)):
                    if contender.refill:
                        contender.refill()
                    contender.run(1)
                for k, p in enumerate(contender.params()):
                    assert p.dtype == DTYPES[dtype][0]
                    params[f"{rule.name} {dtype} {threads} {k}"] = p
np.savez(path, **params)
"""


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the output independent of the terminal and settings pytest runs under."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def bench(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[str, str, dict[str, Any]]]]:
    """Yield a function that measures shortly and returns what it printed and what it kept."""
    pytest.importorskip("rich")
    monkeypatch.setattr(measure, "_BATCH_S", 1e-4)

    def run(*arguments: str, status: int = 0) -> tuple[str, str, dict[str, Any]]:
        path = tmp_path / "raw.json"
        command = ["bench", "--seconds", "0.001", "--json", str(path), *arguments]
        assert main(command) == status
        captured = capsys.readouterr()
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return captured.out, captured.err, raw

    gc.freeze()  # its collections need not look at all that the tests hold
    yield run
    gc.unfreeze()


Bench = Callable[..., tuple[str, str, dict[str, Any]]]


def test_the_table_and_the_samples(bench: Bench) -> None:
    before = instep.get_num_threads()
    out, err, raw = bench(
        *("--model", "1k", "mlp", "--sizes", "10", "2^10"),
        *("--peers", "numpy", "--threads", "1", "2"),
    )
    assert instep.get_num_threads() == before
    assert "\x1b" not in out + err
    first, second = out.split("Adam, float32, 2 threads")
    assert "Adam, float32, 1 thread\n" in re.sub(" +\n", "\n", first)
    for table in (first, second):
        assert re.search(r"workload +instep +NumPy +limit", table)
        for name, parameters in (("1k", "1,000"), ("mlp", "101,770"), ("2^10", "1,024")):
            row = rf"^ *{re.escape(name)}(?: +[\d.,]+ (?:us|ms)){{3}} *\n *{parameters} "
            assert re.search(row, table, re.MULTILINE)
        assert re.search(r"^ *10(?: +[\d.]+ us){3}", table, re.MULTILINE)
        assert len(re.findall(r"[\d.]+x ±\d+%", table)) == 4
        assert len(re.findall(r"[\d.]+ GB/s", table)) == 4

    cases = [(each["workload"], each["threads"]) for each in raw["results"]]
    assert cases == [(name, n) for name in ("1k", "mlp", "10", "2^10") for n in (1, 2)]
    for result in raw["results"]:
        assert result["rule"] == "Adam"
        assert result["dtype"] == "float32"
        assert result["bytes_per_step"] == 28 * result["parameters"]
        assert result["steps_per_sample"].keys() == {"instep", "numpy", *LIMITS}
        rounds = result["microseconds_per_step"]
        assert len(rounds) >= 3
        assert all(times.keys() == {"instep", "numpy", *LIMITS} for times in rounds[:3])
        assert all(times.keys() >= measure.ALWAYS.keys() for times in rounds)
        assert all(min(times.values()) > 0 for times in rounds)
    assert raw["results"][2]["arrays"] == 4
    assert raw["machine"]["peers"] == {"numpy": np.__version__}
    assert raw["machine"]["instep"]["version"] == instep.__version__
    assert {"cpu", "caches", "platform", "python", "load", "load_before"} <= raw["machine"].keys()
    assert raw["arguments"]["peers"] == ["numpy"]
    assert raw["notes"] == []


def test_every_rule_and_dtype(bench: Bench) -> None:
    arguments = ["--rules", *RULES, "--dtypes", *DTYPES, "--sizes", "10", "--threads", "1"]
    out, err, raw = bench(*arguments, "--peers", "numpy")
    assert "left out" not in err
    for rule in RULES:
        for dtype in DTYPES:
            assert f"{rule}, {dtype}, 1 thread" in out
    assert len(raw["results"]) == len(RULES) * len(DTYPES)


class Clock:
    """Stands for the module `time`: each look takes a microsecond."""

    now = 0

    def perf_counter_ns(self) -> int:
        self.now += 1000
        return self.now

    def perf_counter(self) -> float:
        return self.perf_counter_ns() / 1e9

    def sleep(self, seconds: float) -> None:
        self.now += round(1e9 * seconds)


def test_cold_steps_follow_the_use_of_other_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, events = Clock(), []

    class Other:
        def use(self) -> None:
            events.append("use")
            clock.sleep(1)

    class Recorded(NumPy):
        def bind(self, case: Case, grads: Any) -> Contender:
            def run(repeats: int) -> None:
                events.append(f"{repeats} step")
                contender.run(repeats)

            contender = super().bind(case, grads)
            return Contender(run, contender.params)

    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "OtherMemory", Other)
    monkeypatch.setitem(PEERS, "other", Recorded)
    arguments = ["--sizes", "10", "--threads", "1", "2", "--peers", "other"]
    out, _, raw = bench("--cold", *arguments)
    assert re.search(r"Adam, float32, 1 thread, cold +\n", out)
    assert re.search(r"Adam, float32, 2 threads, cold +\n", out)
    assert raw["arguments"]["cold"] is True
    for result in raw["results"]:
        assert set(result["steps_per_sample"].values()) == {1}
        rounds = result["microseconds_per_step"]
        assert all(time == 1 for times in rounds for time in times.values())
    assert set(events) == {"use", "1 step"}
    assert events[:2] == ["1 step", "use"]  # the check of the formula comes first
    assert all("use" in pair for pair in pairwise(events))

    _, _, raw = bench(*arguments)
    assert raw["arguments"]["cold"] is False
    assert max(raw["results"][0]["steps_per_sample"].values()) > 1


def test_other_memory_is_larger_than_the_caches() -> None:
    other = OtherMemory()
    assert other.size >= max(96e6, 3 * machine.last_level_bytes())
    other.use()
    shares = other._shares
    assert len(shares) == machine.processors()
    assert sum(share.nbytes for share in shares) >= other.size - 4
    assert all(np.all(share == 2) for share in shares)


def test_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {1: "32K", 2: "512K", 3: "32768K"}
    for processor in range(4):
        for level, size in sizes.items():
            folder = tmp_path / f"cpu{processor}" / "cache" / f"index{level}"
            folder.mkdir(parents=True)
            shared = processor if level < 3 else f"{processor // 2 * 2}-{processor // 2 * 2 + 1}"
            told = {"level": level, "type": "Unified", "size": size, "shared_cpu_list": shared}
            for name, value in told.items():
                (folder / name).write_text(f"{value}\n")
    instructions = tmp_path / "cpu0" / "cache" / "index0"
    instructions.mkdir()
    for name in ("level", "size", "shared_cpu_list"):
        (instructions / name).write_text("1")
    (instructions / "type").write_text("Instruction\n")
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path)
    assert machine.last_level_bytes() == 2 * 32 * 2**20
    assert machine.describe({})["caches"] == {"L1": "32K", "L2": "512K", "L3": "32768K"}
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path / "nowhere")
    assert machine.last_level_bytes() == 0


def test_without_peers(bench: Bench) -> None:
    out, _, raw = bench("--sizes", "10", "--threads", "1", "--peers")
    assert re.search(r"workload +instep +limit", out)
    assert raw["machine"]["peers"] == {}


def reference_of(rule: Rule, ndim: int) -> tuple[Reference, Mapping[str, Any]]:
    """Return what a rule does to an array, with its settings."""
    name = rule.optimizer.__name__
    if name == "Muon" and ndim != 2:
        given = ("learning_rate", "epsilon")
        return REFERENCES["Adam"], {option: rule.config[option] for option in given}
    references = REFERENCES if ndim >= 2 else {**REFERENCES, **VECTOR_REFERENCES}
    return references[name], rule.settings


@pytest.mark.parametrize("name", [*PEERS, *ADAPTERS])
def test_peers_follow_the_formulas(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    done = subprocess.run(
        [sys.executable, "-c", STEP, name, str(path), str(STEPS)], capture_output=True, text=True
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    with np.load(path) as params:
        assert params.files
        for key in params.files:
            rule_name, dtype, threads, k = key.split()
            rule = RULES[rule_name]
            case = Case(Workload("small", ((3, 100), (7,), ())), rule, dtype, int(threads))
            grad = case.gradients()[int(k)].astype(np.float64)
            reference, settings = reference_of(rule, grad.ndim)
            expected: Any = np.ones_like(grad)
            state: Any = reference.initial_state(settings, expected)
            for step in range(1, STEPS + 1):
                quantity, new = reference.step(expected, grad, state, step, settings)
                expected = quantity.value
                state = {slot: each.value for slot, each in new.items()}
            np.testing.assert_allclose(params[key], expected, rtol=0, atol=1e-5, err_msg=key)


def test_adapters(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands beside them, and the table of ratios."""
    assert ADAPTERS.keys() == IN_PLACE_OF.keys()
    assert {name for own in IN_PLACE_OF.values() for name in own} < PEERS.keys()
    for known in (ADAPTERS, IN_PLACE_OF):
        for name in list(known):
            monkeypatch.delitem(known, name)
    monkeypatch.setitem(ADAPTERS, "instep.other", Instep)
    monkeypatch.setitem(IN_PLACE_OF, "instep.other", ("numpy", "absent"))
    monkeypatch.setitem(PEERS, "absent", Absent)
    arguments = ["--sizes", "10", "20", "--threads", "1", "--rules", "Adam", "Lion"]
    out, _, raw = bench("--adapters", *arguments)
    assert raw["arguments"]["peers"] == ["instep.other", "numpy", "absent"]
    assert raw["machine"]["peers"].keys() == {"instep.other", "numpy"}
    ratio = r" +[\d.]+x ±\d+%"
    heading = r"Adam, float32, 1 thread: times an adapter's step\s+10 +20 "
    assert re.search(heading, out)
    assert re.search(rf"numpy / instep.other{ratio}{ratio} ", out)
    assert "Lion, float32, 1 thread: times" not in out  # NumPy has none
    assert "absent /" not in out

    out, _, _ = bench(*arguments, "--peers", "numpy")
    assert "times an adapter's step" not in out
    assert main(["bench", "--rows", "--adapters"]) == 1


def test_arrays_written_in_a_step() -> None:
    expected = {"SGD": 1, "Momentum": 2, "RMSprop": 2, "Adadelta": 3, "Adam": 3, "AdamW": 3}
    assert {
        name: Case(MODELS["1k"], RULES[name], "mixed", 1).written for name in expected
    } == expected


class Absent(NumPy):
    """A library that is not installed."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'other'", name="other")


class Failing(NumPy):
    """A library that cannot be loaded."""

    def __init__(self) -> None:
        raise OSError("no such library")


class Wrong(NumPy):
    """A library with another formula."""

    def bind(self, case: Case, grads: Any) -> Contender:
        return super().bind(case, [-g for g in grads])


class WrongToo(Instep):
    """A library with another formula of a rule that NumPy does not have."""

    def bind(self, case: Case, grads: Any) -> Contender:
        return super().bind(case, [-g for g in grads])


class Interrupted(NumPy):
    """A library that is waited for in vain."""

    def bind(self, case: Case, grads: Any) -> Contender:
        contender = super().bind(case, grads)
        calls = 0

        def run(repeats: int) -> None:
            nonlocal calls
            calls += 1
            if calls > 9:
                raise KeyboardInterrupt
            contender.run(repeats)

        return Contender(run, contender.params)


class Large(NumPy):
    """A library that needs more memory than others."""

    temporaries = 20


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Absent, "not installed: other"),
        (Failing, "other is left out: no such library"),
        (Wrong, "10: other is left out: its first step is off by 2.0e-03"),
    ],
)
def test_what_is_left_out_is_said(
    peer: type[Peer], reason: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PEERS, "other", peer)
    out, err, raw = bench("--sizes", "10", "--threads", "1", "--peers", "numpy", "other")
    assert reason in err.splitlines()
    assert raw["notes"] == [reason]
    assert "NumPy" in out
    assert all("other" not in times for times in raw["results"][0]["microseconds_per_step"])


def test_a_formula_that_numpy_lacks_is_checked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Lion" not in NumPy.rules
    monkeypatch.setitem(PEERS, "right", Instep)
    monkeypatch.setitem(PEERS, "wrong", WrongToo)
    arguments = ["--rules", "Lion", "--sizes", "10", "--threads", "1"]
    _, _, raw = bench(*arguments, "--peers", "right", "wrong")
    assert raw["notes"] == ["10: wrong is left out: its first step is off by 2.0e-04"]
    assert "right" in raw["results"][0]["microseconds_per_step"][0]


@pytest.mark.parametrize("cold", [False, True])
def test_gradients_that_a_step_uses_up_are_refilled(
    cold: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, steps = True, 0

    class Consuming(NumPy):
        def bind(self, case: Case, grads: Any) -> Contender:
            contender = super().bind(case, grads)

            def run(repeats: int) -> None:
                nonlocal fresh, steps
                assert repeats == 1
                assert fresh
                fresh = False
                steps += 1
                contender.run(1)

            def refill() -> None:
                nonlocal fresh
                fresh = True

            return Contender(run, contender.params, refill)

    monkeypatch.setitem(PEERS, "other", Consuming)
    arguments = ["--sizes", "10", "--threads", "1", "--peers", "other", *cold * ["--cold"]]
    _, _, raw = bench(*arguments)
    assert raw["notes"] == []
    assert raw["results"][0]["steps_per_sample"]["other"] == 1
    assert steps >= sum("other" in times for times in raw["results"][0]["microseconds_per_step"])


def test_an_interruption_reports_what_there_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PEERS, "other", Interrupted)
    before = instep.get_num_threads()
    out, err, raw = bench(
        *("--sizes", "10", "20", "--threads", "1", "--peers", "other"), status=130
    )
    assert instep.get_num_threads() == before
    assert "interrupted" in err
    [result] = raw["results"]
    assert result["workload"] == "10"
    assert result["microseconds_per_step"]
    assert re.search(r"^ *10 +[\d.]+ us", out, re.MULTILINE)


def test_what_does_not_fit_in_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "other", NumPy)
    monkeypatch.setitem(PEERS, "large", Large)
    monkeypatch.setattr(machine, "available_bytes", lambda: 128_000)
    _, err, raw = bench(
        *("--sizes", "1000", "1e5", "--threads", "1", "--peers", "numpy", "other", "large")
    )
    # The two peers that fit were measured one after the other, each beside instep.
    [result] = raw["results"]
    rounds = result["microseconds_per_step"]
    assert all(times.keys() >= measure.ALWAYS.keys() for times in rounds)
    peers = [name for times in rounds for name in times if name in {"numpy", "other"}]
    assert peers == sorted(peers)
    assert set(peers) == {"numpy", "other"}
    assert "1,000: large is left out: together they need 0.0 GB" in err
    assert "1e5 is left out: it needs 0.0 GB" in err


def test_a_terminal_gets_a_progress_bar(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, err, _ = bench("--sizes", "10", "--threads", "1", "--peers", "numpy")
    assert "loading numpy" in err
    assert "10, Adam, float32, threads: 1" in err


def test_a_picture(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "sizes.png"
    _, err, raw = bench(
        *("--plot", str(path), "--sizes", "10", "1000", "--model", "mlp"),
        *("--rules", "Adam", "SGD", "--threads", "1", "2", "--peers", "numpy"),
    )
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert f"picture: {path}" in err
    assert len(raw["results"]) == 3 * 2 * 2


def test_limits_share_their_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[tuple[Any, ...]] = []
    monkeypatch.setattr(_core, "touch", lambda *given: touched.append(given))
    case = Case(MODELS["mlp"], RULES["Adam"], "mixed", 1)
    grads = case.gradients()
    contenders = [limit.bind(case, grads) for limit in LIMITS.values()]
    for contender in contenders:
        contender.run(5)
    _, written, repeats, prefetch = zip(*touched, strict=True)
    assert set(repeats) == {5}
    assert len(set(prefetch)) == len(LIMITS) > 1
    assert all(streams is written[0] for streams in written)
    assert [len(arrays) for arrays in written[0]] == [3] * 4


def test_samples_are_read_as_they_were_written(bench: Bench) -> None:
    arguments = ["--model", "mlp", "--sizes", "10", "--threads", "1", "2", "--peers", "numpy"]
    for cold in ([], ["--cold"]):
        _, _, raw = bench(*arguments, *cold)
        again = samples.raw(
            samples.results(raw), **{key: raw[key] for key in ("machine", "arguments", "notes")}
        )
        assert again == raw
        assert all(each.case.cold is bool(cold) for each in samples.results(raw))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["1k", "mlp", "100x1k", "1m", "gpt2"]),
        (["--quick"], ["1k", "mlp", "100x1k", "1m"]),
        (["--quick", "--model", "gpt2", "--sizes", "64k"], ["gpt2", "64k"]),
        (["--quick", "--plot", "x.png"], [f"{10**k:,}" for k in range(1, 9)]),
        (["--plot", "x.png", "--sizes", "10", "10", "20"], ["10", "20"]),
    ],
)
def test_what_is_measured(
    arguments: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    from instep._bench import command

    asked: list[Case] = []

    def run(cases: list[Case], *_: Any, **__: Any) -> int:
        asked.extend(cases)
        return 0

    monkeypatch.setattr(command, "run", run)
    assert main(["bench", *arguments]) == 0
    assert list(dict.fromkeys(case.workload.name for case in asked)) == names
    assert {case.rule.name for case in asked} == {"Adam"}
    assert {case.dtype for case in asked} == {"float32"}
    assert {case.threads for case in asked} == {1, machine.processors()}


def test_models() -> None:
    sizes = {name: (len(model.shapes), model.parameters) for name, model in MODELS.items()}
    assert sizes == {
        "1k": (1, 1000),
        "mlp": (4, 101_770),
        "100x1k": (100, 102_400),
        "1000x64": (1000, 64_000),
        "1m": (1, 2**20),
        "resnet50": (161, 25_557_032),
        "gpt2": (148, 124_439_808),
    }
    assert [each.parameters for each in sweep(2)][:3] == [10, 32, 100]
    assert sweep(1)[-1].parameters == 10**8


@pytest.mark.parametrize(
    ("text", "name", "size"),
    [
        ("10", "10", 10),
        ("1e6", "1e6", 10**6),
        ("2^20", "2^20", 2**20),
        ("64k", "64k", 64_000),
        ("1.5M", "1.5M", 1_500_000),
        ("10_000", "10,000", 10_000),
        ("1,000", "1,000", 1000),
        ("1g", "1g", 10**9),
    ],
)
def test_sizes(text: str, name: str, size: int) -> None:
    assert of_size(text) == Workload(name, ((size,),))


@given(st.integers(1, 10**12))
def test_any_size(size: int) -> None:
    assert of_size(str(size)).parameters == of_size(f"{size:,}").parameters == size


@given(st.text())
def test_a_size_is_positive_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert of_size(text).parameters >= 1


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("--model", "gpt3", "resnet50"),
        ("--peers", "jax", "optax"),
        ("--rules", "adam", "AdamW"),
        ("--dtypes", "float16", "mixed"),
    ],
)
def test_unknown_names_list_the_known(
    option: str, value: str, known: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["bench", option, value])
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert option in message
    assert value in message
    assert known in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--sizes", text) for text in ("0", "-1", "1.5", "1e-3", "ten", "nan", "inf", "")),
        *(("--threads", text) for text in ("0", "1025", "two")),
        *(("--seconds", text) for text in ("0", "-1", "nan", "inf", "soon")),
        ("--json", "nowhere/raw.json"),
        ("--plot", "x.svg"),
        ("--plot", "nowhere/x.png"),
    ],
)
def test_bad_values_are_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["bench", f"{option}={value}"])
    assert error.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("blocked", "arguments", "needs"),
    [
        (["rich"], [], "rich"),
        (["rich", "matplotlib"], ["--plot", "x.png"], "rich and matplotlib"),
    ],
)
def test_a_missing_extra_is_named(
    blocked: list[str],
    arguments: list[str],
    needs: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in blocked:
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["bench", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f'instep bench needs {needs}: pip install "instep[bench]"\n'


def test_gradients_differ_from_zero() -> None:
    case = Case(MODELS["mlp"], RULES["Adam"], "mixed", 1)
    grads: list[Array] = case.gradients()
    assert [g.shape for g in grads] == list(MODELS["mlp"].shapes)
    assert {g.dtype for g in grads} == {np.dtype(np.float64)}
    assert all(np.all((np.abs(g) >= 0.005) & (np.abs(g) <= 0.015)) for g in grads)


def test_a_folder_without_room_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError("No space left on device")

    monkeypatch.setattr("instep._bench.offload.run", full)
    assert main(["bench", "--offload", str(tmp_path)]) == 1
    assert "--offload: expected a folder with room" in capsys.readouterr().err
