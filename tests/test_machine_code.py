"""Kernels are vector code of their instruction set, and fuse nothing: seen in the machine code."""

from __future__ import annotations

import itertools
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

from instep import _core

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 machine code"
)

# The letter in the names of each level's widest registers: %xmm0, %ymm0, %zmm0.
WIDTHS = {"baseline": "x", "avx2": "y", "avx512": "z"}
LEVELS: list[str] = _core.build_info()["isa_built"]
# What the engine itself does to arrays without or before a rule is an update without slots.
RULES = [*_core.rules, "rest", "accumulate", "lend", "take"]

# By the argument `plain`: outside of its loops an update compares factors with 1 to choose one of
# them.
CHOICE, FULL, PLAIN = None, "0", "1"
SCALAR = {CHOICE: Counter(ucomisd=2), FULL: Counter[str](), PLAIN: Counter[str]()}
# Added to a set of slots where the divisible one is in parts.
PARTS = 16
# In `square_root_from`, whose residual takes them; each starts from one estimate.
FUSED_PER_ROOT = 7

FUNCTION = re.compile(r"[0-9a-f]+ <(.+)>:")
INSTRUCTION = re.compile(r"\s*[0-9a-f]+:\s+(\S+)\s*(.*)")
ARITHMETIC = re.compile(
    r"v?((?:add|sub|mul|div|sqrt|min|max|rsqrt\w*|cmp\w*|u?comi|fn?m(?:add|sub)\w*)([ps])([sd]))"
)
FUSED = re.compile(r"vfn?m(?:add|sub)\w+")
CALL_THAT_MOVES_MEMORY = re.compile(r".*<_*(?:mem|stack_chk_fail)")
# Ftrl takes other powers than the root from the C library.
CALL_OF_LOOP = re.compile(r".*12update_slots")
CALL_OF_POWER = re.compile(r".*<pow[@>]")
NO_CALL = re.compile(r"(?!)")
# Mangled: update<Rule, T, slots> and its loops update_slots<Rule, T, slots, plain, ...>, measure
# and update_coded_slots<Rule, slots, ...> likewise, sum_of_squares<T>, touch<T, G, arrays>,
# fused_square_roots.
LEVEL = r"_?_ZN6instep\d+(?P<level>[a-z]+\d*)"
UPDATE = re.compile(
    LEVEL
    + r"L?(?:6update|12update_slots)INS0_(?:7float\d\d12_GLOBAL__N_1)?\d+(?P<rule>[A-Za-z]\w*?)E"
    + r"(?P<type>[fd])Lj(?P<slots>\d+)E(?:Lb(?P<plain>[01])E)?\w+"
)
MEASURE = re.compile(
    LEVEL
    + r"L?(?:7measure|13measure_slots)INS0_\d+(?P<rule>[A-Za-z]\w*?)E"
    + r"(?P<type>[fd])Lj(?P<slots>\d+)E(?:Lb(?P<plain>[01])E)?\w+"
)
CODED = re.compile(LEVEL + r"L?18update_coded_slotsINS0_\w+")
SUM = re.compile(LEVEL + r"L?14sum_of_squaresI(?P<type>[fd])EEv\w+")
TOUCH = re.compile(LEVEL + r"L?5touchI(?P<type>[fd])(?P<given>[fd])Li(?P<arrays>\d)EEEv\w+")
ROOTS = re.compile(LEVEL + r"7float3212_GLOBAL__N_1L?18fused_square_rootsE\w+")


class Instruction(NamedTuple):
    mnemonic: str
    operands: str


Functions = dict[str, list[Instruction]]


@pytest.fixture(scope="session")
def functions() -> Functions:
    """Return the extension's instructions by mangled name."""
    objdump = shutil.which("objdump") or shutil.which("llvm-objdump")
    if objdump is None:
        pytest.skip("neither objdump nor llvm-objdump is installed")
    listing = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", _core.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: Functions = {}
    instructions: list[Instruction] = []
    for line in listing.splitlines():
        if match := FUNCTION.fullmatch(line):
            # The compiler's own parts (name.cold, name.part.0) count as the function.
            instructions = found.setdefault(match[1].partition(".")[0], [])
        elif match := INSTRUCTION.fullmatch(line):
            instructions.append(Instruction(match[1], match[2]))
    if not any(UPDATE.fullmatch(name) for name in found):
        pytest.fail(
            f"{_core.__file__} has no symbols of kernels: built without install.strip=false?"
        )
    return found


def of_level(
    functions: Functions, pattern: re.Pattern[str], level: str
) -> Iterator[tuple[re.Match[str], list[Instruction]]]:
    for name, instructions in functions.items():
        if (match := pattern.fullmatch(name)) and match["level"] == level:
            yield match, instructions


def width(instruction: Instruction) -> str:
    return max(re.findall(r"%([xyz])mm", instruction.operands), default="")


def faults(
    instructions: Iterable[Instruction],
    level: str,
    types: str,
    scalar: Counter[str],
    may_call: re.Pattern[str] = NO_CALL,
) -> Iterator[str]:
    """Say how often there is arithmetic other than packed, of these types and of full width.

    There has to be some if there are types. Of scalar arithmetic there may be as much as given, so
    that no loop can have any; and no calls but of memory's and of those that are named.
    """
    packed, others, single = 0, Counter[str](), Counter[str]()
    for instruction in instructions:
        match = ARITHMETIC.fullmatch(instruction.mnemonic)
        if match is None:
            calls = instruction.mnemonic.startswith("call")
            known = may_call.match(instruction.operands) or CALL_THAT_MOVES_MEMORY.match(
                instruction.operands
            )
            if calls and not known:
                yield f"call {instruction.operands}"
        elif match[2] == "s":
            single[match[1]] += 1
        elif width(instruction) == WIDTHS[level] and match[3] in types:
            packed += 1
        else:
            others[f"{instruction.mnemonic} %{width(instruction)}mm"] += 1
    if types and not packed:
        yield f"nothing packed in %{WIDTHS[level]}mm"
    if level == "baseline" and types == "d":
        del others["addps %xmm"]  # float16 on its way to float64, two numbers at a time
    for name, count in (others + (single - scalar)).items():
        yield f"{count} {name}"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("level", LEVELS)
def test_updates(functions: Functions, level: str, rule: str) -> None:
    of_engine = {"lend": (("update", False),)}
    slots = _core.rules[rule]["slots"] if rule in _core.rules else of_engine.get(rule, ())
    divisible = _core.rules[rule]["divisible"] if rule in _core.rules else None
    choices = [
        (0, 1 << k) if optional else (1 << k, 1 << k | PARTS) if name == divisible else (1 << k,)
        for k, (name, optional) in enumerate(slots)
    ]
    kernels = {
        (match["type"], int(match["slots"]), match["plain"]): instructions
        for match, instructions in of_level(functions, UPDATE, level)
        if match["rule"].lower() == rule.replace("_", "")
    }
    used = map(sum, itertools.product(*choices))
    assert kernels.keys() == set(itertools.product("fd", used, SCALAR))
    offenders = [
        (dtype, f"slots {slots_in_use:b}", f"plain {plain}", fault)
        for (dtype, slots_in_use, plain), instructions in kernels.items()
        for fault in faults(
            instructions,
            level,
            "" if plain is CHOICE else "s" if dtype == "f" else "d",
            SCALAR[plain],
            CALL_OF_LOOP if plain is CHOICE else CALL_OF_POWER if rule == "ftrl" else NO_CALL,
        )
    ]
    assert not offenders


@pytest.mark.parametrize("level", LEVELS)
def test_sums(functions: Functions, level: str) -> None:
    kernels = {match["type"]: code for match, code in of_level(functions, SUM, level)}
    assert kernels.keys() == {"f", "d"}
    offenders = [
        (dtype, fault)
        for dtype, instructions in kernels.items()
        for fault in faults(instructions, level, "sd" if dtype == "f" else "d", Counter())
    ]
    assert not offenders


@pytest.mark.parametrize("level", LEVELS)
def test_measures(functions: Functions, level: str) -> None:
    """What rules sum up is packed; only the last elements come one by one."""
    kernels = list(of_level(functions, MEASURE, level))
    rules = {match["rule"] for match, _ in kernels}
    assert rules >= {"Adafactor", "Lamb", "Lars", "NovoGrad", "Prodigy"}
    for match, instructions in kernels:
        if match["plain"] is CHOICE or instructions[0].mnemonic == "jmp":  # to the same elsewhere
            continue
        add = "addps" if match["type"] == "f" else "addpd"
        adds = [each for each in instructions if each.mnemonic.endswith(add)]
        assert any(width(each) == WIDTHS[level] for each in adds), match[0]


@pytest.mark.parametrize("level", LEVELS)
def test_touches(functions: Functions, level: str) -> None:
    """The last elements are added one by one, the others two registers of each array at a time."""
    kernels = list(of_level(functions, TOUCH, level))
    assert len(kernels) == 4 * 5
    offenders = []
    for match, instructions in kernels:
        add = "addps" if match["type"] == "f" else "addpd"
        found = sum(
            instruction.mnemonic.endswith(add) and width(instruction) == WIDTHS[level]
            for instruction in instructions
        )
        if found < 2 * int(match["arrays"]):
            offenders.append((match["type"], match["given"], match["arrays"], found))
    assert not offenders


@pytest.mark.parametrize("level", LEVELS)
def test_square_roots(functions: Functions, level: str) -> None:
    kernels = list(of_level(functions, ROOTS, level))
    assert len(kernels) == (level != "baseline")
    offenders = [
        fault
        for _, instructions in kernels
        for fault in faults(instructions, level, "s", Counter())
    ]
    assert not offenders


def test_nothing_is_fused(functions: Functions) -> None:
    """Fused multiply-adds give other bits; in the square roots of float32 they are meant."""
    offenders = []
    for name, instructions in functions.items():
        count = Counter(instruction.mnemonic for instruction in instructions)
        fused = sum(n for mnemonic, n in count.items() if FUSED.fullmatch(mnemonic))
        update = UPDATE.fullmatch(name) or MEASURE.fullmatch(name)
        meant = 0
        coded = CODED.fullmatch(name)
        in_float32 = update and update["type"] == "f"
        is_program = "avx5128ElementsIfE3run" in name
        if (update and in_float32 and update["level"] == "avx512") or (
            (coded and coded["level"] == "avx512") or is_program
        ):
            meant = FUSED_PER_ROOT * count["vrsqrt14ps"]
        if fused != meant and not ROOTS.fullmatch(name):
            offenders.append((name, f"{fused} instead of {meant}"))
    assert not offenders
