"""Numbers and names as the tables and the picture print them."""

from __future__ import annotations

from instep._bench.case import Case


def duration(microseconds: float) -> str:
    """Return a time in the unit that suits it, with three digits."""
    for limit, unit in ((1e3, "us"), (1e6, "ms")):
        if microseconds < 0.9995 * limit:
            return f"{significant(microseconds / limit * 1e3)} {unit}"
    return f"{significant(microseconds / 1e6)} s"


def significant(number: float) -> str:
    """Return a number with three digits, or all those before the point."""
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:,.{decimals}f}"


def caches(case: Case) -> str:
    """Return in which state the caches are."""
    return "cold" if case.cold else "warm"
