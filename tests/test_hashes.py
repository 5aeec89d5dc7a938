"""The same bits in every release: what some steps lead to, as hashes in tests/hashes.

Run as a script, this writes the file of this machine's architecture anew.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from references import REFERENCES
from workloads import OPTIONS

import instep
from instep._core import window_share

FILE = Path(__file__).parent / "hashes" / f"{platform.machine()}.json"

# Not those with real powers, which are the C library's, and products of NumPy's.
EXCEPTED = {"ASGD", "Muon", "Nadam", "ScheduleFreeAdamW", "ScheduleFreeSGD"}
STEPS = 20
SHAPES = [(), (1,), (7, 9), (33, 31), (17000,)]


def configurations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rule's, and every option with every rule."""
    for rule, reference in REFERENCES.items():
        for configuration in [*reference.configurations, *OPTIONS]:
            if rule not in EXCEPTED and "learning_rate_power" not in configuration:
                yield rule, {**configuration}


def numbers(*seed: int, shape: tuple[int, ...], dtype: str) -> Any:
    """Numbers from -1 to 1 without a random generator, whose stream may change."""
    count = int(np.prod(shape))
    text = b"".join(
        hashlib.sha256(repr((*seed, block)).encode()).digest() for block in range(count // 8 + 1)
    )
    whole = np.frombuffer(text, "<i4")[:count]
    return (whole / 2.0**31).astype(dtype).reshape(shape)


def final_state(rule: str, configuration: Mapping[str, Any], dtype: str) -> str:
    """Hash what parameters and state are after some steps."""
    params = [numbers(0, k, shape=shape, dtype=dtype) for k, shape in enumerate(SHAPES)]
    grads = [
        [numbers(step, k, shape=shape, dtype=dtype) for k, shape in enumerate(SHAPES)]
        for step in range(1, 4)
    ]
    opt = getattr(instep, rule)(params, **configuration)
    for step in range(STEPS):
        opt.step(grads[step % len(grads)])
    state = opt.state_dict()
    content = [*params]
    for path in sorted(state["arrays"]):
        entry = state["arrays"][path]
        if "accumulator_of_gradients" in entry:  # the first releases kept plain sums
            entry["accumulator_of_gradients"] /= window_share(opt.gradient_accumulation_steps)
        content += [entry[name] for name in sorted(entry) if isinstance(entry[name], np.ndarray)]
    little = [array.astype(array.dtype.newbyteorder("<")) for array in content]
    return hashlib.sha256(b"".join(array.tobytes() for array in little)).hexdigest()


def hashes() -> dict[str, str]:
    return {
        f"{rule} {configuration} {dtype}": final_state(rule, configuration, dtype)
        for rule, configuration in configurations()
        for dtype in ("float32", "float64")
    }


@pytest.mark.skipif(not FILE.exists(), reason=f"there are no hashes of {FILE.stem} yet")
def test_final_states_are_those_of_every_release() -> None:
    """A rule that is new has its hashes from its first release on."""
    expected, found = json.loads(FILE.read_text()), hashes()
    assert {case: found[case] for case in expected} == expected


def test_all_architectures_have_the_same() -> None:
    contents = {file.read_text() for file in FILE.parent.glob("*.json")}
    assert len(contents) == 1


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(hashes(), indent=1) + "\n")
