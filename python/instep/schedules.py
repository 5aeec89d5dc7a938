"""Learning rates that change: callables from the 0-based index of the update to a float.

>>> import numpy as np, instep
>>> from instep import schedules
>>> rate = schedules.WarmupCosineDecay(0.0, 1e-3, warmup_steps=100, decay_steps=10_000)
>>> optimizer = instep.AdamW([np.zeros(3)], learning_rate=rate)

They hold no state (`ReduceLROnPlateau` excepted) and are computed in double precision from the
step alone: ``rate(step)`` can be asked for any step, in any order. Their arguments can be read but
not changed; equal arguments make equal schedules, which hash, copy and pickle (those that are made
of other callables, as far as these do). Arguments that make no sense raise a TypeError or
ValueError that names them, and so does a step that is not a finite number of at least 0. Between
whole steps their formulas hold, too.

All of keras.optimizers.schedules, torch.optim.lr_scheduler and optax.schedules is here, with the
values that it has there, step by step. (optax's constant_schedule is a number, torch's LambdaLR a
function; TensorFlow.js has no schedules.)

============================= ====================================================================
`ExponentialDecay`            keras ExponentialDecay, optax exponential_decay; torch ExponentialLR
                              with ``decay_steps=1``
`PolynomialDecay`             keras PolynomialDecay, optax polynomial_schedule and linear_schedule;
                              torch PolynomialLR with ``end_learning_rate=0``
`InverseTimeDecay`            keras InverseTimeDecay
`PiecewiseConstantDecay`      keras PiecewiseConstantDecay
`PiecewiseInterpolate`        optax piecewise_interpolate_schedule and piecewise_constant_schedule
`CosineDecay`                 keras CosineDecay, optax cosine_decay_schedule
`CosineDecayRestarts`         keras CosineDecayRestarts
`StepDecay`                   torch StepLR
`MultiStepDecay`              torch MultiStepLR
`CosineAnnealing`             torch CosineAnnealingLR
`CosineAnnealingWarmRestarts` torch CosineAnnealingWarmRestarts
`sgdr_schedule`               optax sgdr_schedule
`Cyclic`                      torch CyclicLR
`OneCycle`                    torch OneCycleLR
`CosineOneCycle`              optax cosine_onecycle_schedule
`LinearOneCycle`              optax linear_onecycle_schedule
`LinearWarmup`                torch LinearLR
`ConstantWarmup`              torch ConstantLR
`WarmupConstant`              optax warmup_constant_schedule
`WarmupCosineDecay`           optax warmup_cosine_decay_schedule
`WarmupExponentialDecay`      optax warmup_exponential_decay_schedule
`WarmupStableDecay`           warm-up, stable, decay ("WSD")
`Noam`                        the Transformer's
`InverseSqrtDecay`            the Transformer's and T5's
`Multiplicative`              torch MultiplicativeLR
`ChainedScheduler`            torch ChainedScheduler; torch LambdaLR, of a single function
`join_schedules`              optax join_schedules, torch SequentialLR
`ReduceLROnPlateau`           torch ReduceLROnPlateau
============================= ====================================================================
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from typing import Annotated, Any, Literal, SupportsFloat, SupportsIndex, get_type_hints

import numpy as np

from instep._kinds import (
    Called,
    Choice,
    Each,
    Flag,
    Increasing,
    Kind,
    Metric,
    Number,
    Optional,
    Schedule,
    Step,
    WholeNumber,
    shown,
)

__all__ = [
    "ChainedScheduler",
    "ConstantWarmup",
    "CosineAnnealing",
    "CosineAnnealingWarmRestarts",
    "CosineDecay",
    "CosineDecayRestarts",
    "CosineOneCycle",
    "Cyclic",
    "ExponentialDecay",
    "InverseSqrtDecay",
    "InverseTimeDecay",
    "LinearOneCycle",
    "LinearWarmup",
    "MultiStepDecay",
    "Multiplicative",
    "Noam",
    "OneCycle",
    "PiecewiseConstantDecay",
    "PiecewiseInterpolate",
    "PolynomialDecay",
    "ReduceLROnPlateau",
    "StepDecay",
    "WarmupConstant",
    "WarmupCosineDecay",
    "WarmupExponentialDecay",
    "WarmupStableDecay",
    "join_schedules",
    "sgdr_schedule",
]

# Arguments ----------------------------------------------------------------------------------------

_Rate = Annotated[float, Number(at_least=0)]
_NonNegative = Annotated[float, Number(at_least=0)]
_Positive = Annotated[float, Number(above=0)]
_Fraction = Annotated[float, Number(at_least=0, at_most=1)]
_Steps = Annotated[int, WholeNumber(at_least=1)]
_FACTOR = Number(at_least=0)
_Index = Annotated[int, WholeNumber(at_least=0, at_most=None)]
_Switch = Annotated[bool, Flag()]
_Indices = Annotated[Sequence[int], Increasing()]
_Numbers = Annotated[Sequence[float], Each(Number(at_least=0))]
_Parts = Annotated[Sequence[Schedule], Each(Called())]


def _kinds(owner: type) -> dict[str, Kind[Any]]:
    """Return what each annotated attribute of a class takes."""
    hints = get_type_hints(owner, include_extras=True)
    return {
        name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")
    }


class _Schedule:
    """A dataclass of checked arguments that can be asked for the rate of a step."""

    # Further steps would not fit a float.
    _LAST_STEP = 2**1000
    _STEP: Kind[float] = Step()

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            object.__setattr__(self, name, kind.check(name, getattr(self, name)))
        self._check_together()

    def _check_together(self) -> None:
        """Raise a ValueError for arguments that contradict each other."""

    def __call__(self, step: SupportsIndex | SupportsFloat) -> float:
        """Return the learning rate of the update with this index, counted from 0."""
        index = step if type(step) is int and step >= 0 else self._STEP.check("step", step)
        return self._rate(min(index, self._LAST_STEP))

    def _rate(self, step: float) -> float:
        raise NotImplementedError


# Formulas -----------------------------------------------------------------------------------------


def _mix(start: float, end: float, progress: float) -> float:
    """Return the start at progress 0, the end at 1, and in between what lies there."""
    return start * (1 - progress) + end * progress


def _half_cosine(progress: float) -> float:
    """Return what falls from 1 at progress 0 to 0 at 1 along half a period of a cosine."""
    return (1 + math.cos(math.pi * progress)) / 2


def _scaled(rate: float, factor: float, exponent: float) -> float:
    """Return ``rate * factor**exponent``, infinite where that overflows."""
    if rate == 0:
        return 0.0
    try:
        return rate * float(factor**exponent)
    except OverflowError:
        return math.inf


def _exponential(
    rate: float, steps: int, factor: float, step: float, *, staircase: bool, limit: float | None
) -> float:
    """Return a rate with a factor for every so many steps, up or down to a limit."""
    rate = _scaled(rate, factor, step // steps if staircase else step / steps)
    if limit is None:
        return rate
    return max(rate, limit) if factor < 1 else min(rate, limit)


# Schedules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExponentialDecay(_Schedule):
    """A factor for every `decay_steps` steps, continuously or at once.

    ``initial_learning_rate * decay_rate**((step - transition_begin) / decay_steps)``, and the
    initial rate until `transition_begin`; then the limit `end_value`. Values of keras's
    ExponentialDecay and optax's exponential_decay; torch's ExponentialLR is
    ``ExponentialDecay(lr, 1, gamma)``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    decay_rate : float
        Above 0. (Of 0, keras makes 0 and optax no decay at all.) A rate that grows without an
        `end_value` becomes infinite in the end.
    staircase : bool
        Round the exponent down to a whole number.
    transition_begin : int
        The step from which on the rate decays.
    end_value : float, optional
        The smallest rate where `decay_rate` is below 1, else the largest; it holds for the initial
        rate, too.
    """

    initial_learning_rate: _Rate
    decay_steps: _Steps
    decay_rate: _Positive
    staircase: _Switch = False
    transition_begin: _Index = 0
    end_value: Annotated[float | None, Optional(Number(at_least=0))] = None

    def _rate(self, step: float) -> float:
        return _exponential(
            self.initial_learning_rate,
            self.decay_steps,
            self.decay_rate,
            max(step - self.transition_begin, 0),
            staircase=self.staircase,
            limit=self.end_value,
        )


@dataclass(frozen=True)
class PolynomialDecay(_Schedule):
    """From one rate to another along a polynomial, a straight line by default.

    ``(initial_learning_rate - end_learning_rate) * (1 - s / decay_steps)**power +
    end_learning_rate`` with ``s = step - transition_begin`` between 0 and `decay_steps`. Values of
    keras's PolynomialDecay and optax's polynomial_schedule; optax's linear_schedule is
    ``PolynomialDecay(init_value, transition_steps, end_value)``, torch's PolynomialLR
    ``PolynomialDecay(lr, total_iters, 0.0, power)``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    end_learning_rate : float
        Not 0 by default, but 0.0001, as in keras.
    power : float
        At least 0.
    cycle : bool
        After `decay_steps` go on with the smallest multiple of `decay_steps` that is not below the
        step in its place: the rate reaches its end at each multiple and rises again after it, lower
        each time.
    transition_begin : int
        The step from which on the rate decays.
    """

    initial_learning_rate: _Rate
    decay_steps: _Steps
    end_learning_rate: _Rate = 0.0001
    power: _NonNegative = 1.0
    cycle: _Switch = False
    transition_begin: _Index = 0

    def _rate(self, step: float) -> float:
        step = max(step - self.transition_begin, 0)
        steps: float = self.decay_steps
        if self.cycle:
            steps *= max(-(-step // steps), 1)
        remaining = (1 - min(step / steps, 1.0)) ** self.power
        return _mix(self.end_learning_rate, self.initial_learning_rate, remaining)


@dataclass(frozen=True)
class InverseTimeDecay(_Schedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``: keras's InverseTimeDecay.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    decay_rate : float
        At least 0.
    staircase : bool
        Round ``step / decay_steps`` down to a whole number.
    """

    initial_learning_rate: _Rate
    decay_steps: _Steps
    decay_rate: _NonNegative
    staircase: _Switch = False

    def _rate(self, step: float) -> float:
        times = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * times)


@dataclass(frozen=True)
class PiecewiseConstantDecay(_Schedule):
    """Constant between boundaries: keras's PiecewiseConstantDecay.

    ``values[0]`` while ``step <= boundaries[0]``, ``values[k]`` while ``boundaries[k - 1] < step <=
    boundaries[k]``, and ``values[-1]`` after the last boundary. At a boundary itself the old value
    still holds, unlike in `MultiStepDecay`. A step below 0 is taken, too, as in keras's own tests.

    Parameters
    ----------
    boundaries : sequence of int
        Steps in increasing order.
    values : sequence of float
        One more than boundaries.
    """

    boundaries: _Indices
    values: _Numbers

    _STEP = Number()

    def _check_together(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"values: expected one more than the {len(self.boundaries)} boundaries, got "
                f"{len(self.values)}"
            )

    def _rate(self, step: float) -> float:
        return self.values[bisect_left(self.boundaries, step)]


@dataclass(frozen=True)
class PiecewiseInterpolate(_Schedule):
    """From one boundary's rate to the next one's: optax's piecewise_interpolate_schedule.

    The rate of a boundary is `init_value` times all scales up to its own. From step 0, at
    `init_value`, to the first boundary, and from each boundary to the next, the rate moves in a
    straight line or along half a cosine; after the last it stays. With "constant" it stays between
    boundaries, too, and jumps on them: optax's piecewise_constant_schedule.

    Parameters
    ----------
    interpolate_type : {"linear", "cosine", "constant"}
    init_value : float
    boundaries : sequence of int
        Steps in increasing order; one that comes twice counts twice.
    scales : sequence of float
        One for each boundary, at least 0. optax has both in a dict: its ``{4: 0.1, 8: 0.5}`` is
        ``[4, 8], [0.1, 0.5]`` here.
    """

    interpolate_type: Annotated[
        Literal["linear", "cosine", "constant"], Choice("linear", "cosine", "constant")
    ]
    init_value: _Rate
    boundaries: _Indices
    scales: _Numbers

    def _check_together(self) -> None:
        if len(self.scales) != len(self.boundaries):
            raise ValueError(
                f"scales: expected one for each of the {len(self.boundaries)} boundaries, got "
                f"{len(self.scales)}"
            )
        if not all(map(math.isfinite, self._rates())):
            raise ValueError(f"scales: expected finite rates, got {self._rates()}")

    def _rates(self) -> list[float]:
        return list(accumulate(self.scales, mul, initial=self.init_value))

    def _rate(self, step: float) -> float:
        passed, rates = bisect_right(self.boundaries, step), self._rates()
        if passed == len(self.boundaries) or self.interpolate_type == "constant":
            return rates[passed]
        start = self.boundaries[passed - 1] if passed else 0
        progress = (step - start) / min(self.boundaries[passed] - start, self._LAST_STEP)
        if self.interpolate_type == "cosine":
            progress = 1 - _half_cosine(progress)
        return _mix(rates[passed], rates[passed + 1], progress)


@dataclass(frozen=True)
class CosineDecay(_Schedule):
    """Down along half a cosine, after a warm-up if wanted.

    ``peak * ((1 - alpha) * c**exponent + alpha)`` with ``c = (1 + cos(pi * s / decay_steps)) / 2``
    and ``s`` between 0 and `decay_steps`. Without a warm-up ``s = step`` and ``peak =
    initial_learning_rate``. With one the rate first goes from `initial_learning_rate` to
    `warmup_target` in a straight line over `warmup_steps`, then ``s = step - warmup_steps`` and
    ``peak = warmup_target``: it ends at ``warmup_steps + decay_steps``, other than
    `WarmupCosineDecay`. Values of keras's CosineDecay and optax's cosine_decay_schedule.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    alpha : float
        The rate at the end as a fraction of the peak. At least 0.
    exponent : float
        optax's. At least 0.
    warmup_target : float, optional
        None for no warm-up, whatever `warmup_steps` is.
    warmup_steps : int
    """

    initial_learning_rate: _Rate
    decay_steps: _Steps
    alpha: _NonNegative = 0.0
    exponent: _NonNegative = 1.0
    warmup_target: Annotated[float | None, Optional(Number(at_least=0))] = None
    warmup_steps: _Index = 0

    def _rate(self, step: float) -> float:
        peak = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return _mix(peak, self.warmup_target, step / self.warmup_steps)
            step -= self.warmup_steps
            peak = self.warmup_target
        remaining = _half_cosine(min(step / self.decay_steps, 1.0)) ** self.exponent
        return peak * _mix(self.alpha, 1.0, remaining)


@dataclass(frozen=True)
class CosineDecayRestarts(_Schedule):
    """Cosines one after the other: keras's CosineDecayRestarts.

    ``initial_learning_rate * ((1 - alpha) * m_mul**i * (1 + cos(pi * f)) / 2 + alpha)``, where
    ``i`` counts the restarts so far and ``f`` is the fraction of the present period that is over.
    Period ``i`` has ``first_decay_steps * t_mul**i`` steps, not necessarily a whole number.

    A step on which a period ends always restarts. keras finds ``i`` from rounded logarithms, so
    that for some arguments such a step still shows the end of the old period there.

    Parameters
    ----------
    initial_learning_rate : float
    first_decay_steps : int
    t_mul : float
        By how much longer each period is than the one before. From 1 to a million.
    m_mul : float
        By how much higher each period starts than the one before. At least 0.
    alpha : float
        The lowest rate as a fraction of `initial_learning_rate`. From 0 to 1.
    """

    initial_learning_rate: _Rate
    first_decay_steps: _Steps
    t_mul: Annotated[float, Number(at_least=1, at_most=1e6)] = 2.0
    m_mul: _NonNegative = 1.0
    alpha: _Fraction = 0.0

    def _rate(self, step: float) -> float:
        restarts, progress = self._period(step)
        remaining = self.initial_learning_rate * (1 - self.alpha) * _half_cosine(progress)
        return _scaled(remaining, self.m_mul, restarts) + self.initial_learning_rate * self.alpha

    def _period(self, step: float) -> tuple[float, float]:
        """Return the number of restarts so far, and the fraction of the period that is over."""
        if self.t_mul == 1:
            restarts, rest = divmod(step, self.first_decay_steps)
            return restarts, rest / self.first_decay_steps
        growth, exponent = self.t_mul - 1, math.log(self.t_mul)
        periods = step / self.first_decay_steps
        # Rounding must not delay a restart that falls on this step.
        restarts = math.floor(math.log1p(periods * growth) / exponent * (1 + 1e-14))
        before = math.expm1(restarts * exponent) / growth
        progress = (periods - before) / self.t_mul**restarts
        return restarts, min(max(progress, 0.0), 1.0)


@dataclass(frozen=True)
class StepDecay(_Schedule):
    """``initial_learning_rate * gamma**(step // step_size)``: torch's StepLR.

    Parameters
    ----------
    initial_learning_rate : float
    step_size : int
    gamma : float
        At least 0.
    """

    initial_learning_rate: _Rate
    step_size: _Steps
    gamma: _NonNegative = 0.1

    def _rate(self, step: float) -> float:
        return _scaled(self.initial_learning_rate, self.gamma, step // self.step_size)


@dataclass(frozen=True)
class MultiStepDecay(_Schedule):
    """``initial_learning_rate * gamma**(number of milestones <= step)``: torch's MultiStepLR.

    At a milestone itself the new rate holds, unlike in `PiecewiseConstantDecay`.

    Parameters
    ----------
    initial_learning_rate : float
    milestones : sequence of int
        Steps in increasing order; one that comes twice counts twice.
    gamma : float
        At least 0.
    """

    initial_learning_rate: _Rate
    milestones: _Indices
    gamma: _NonNegative = 0.1

    def _rate(self, step: float) -> float:
        reached = bisect_right(self.milestones, step)
        return _scaled(self.initial_learning_rate, self.gamma, reached)


@dataclass(frozen=True)
class CosineAnnealing(_Schedule):
    """A cosine without end: torch's CosineAnnealingLR.

    ``eta_min + (initial_learning_rate - eta_min) * (1 + cos(pi * step / t_max)) / 2``. After
    `t_max` the rate rises again, up to `initial_learning_rate` at ``2 * t_max``, and so on.

    Parameters
    ----------
    initial_learning_rate : float
    t_max : int
        Half the period.
    eta_min : float
        The rate at `t_max`; absolute, not a fraction.
    """

    initial_learning_rate: _Rate
    t_max: _Steps
    eta_min: _Rate = 0.0

    def _rate(self, step: float) -> float:
        remaining = _half_cosine(step % (2 * self.t_max) / self.t_max)
        return _mix(self.eta_min, self.initial_learning_rate, remaining)


@dataclass(frozen=True)
class CosineAnnealingWarmRestarts(_Schedule):
    """Cosines one after the other: torch's CosineAnnealingWarmRestarts.

    ``eta_min + (initial_learning_rate - eta_min) * (1 + cos(pi * t / t_i)) / 2``, where ``t``
    counts the steps since the last restart and ``t_i = t_0 * t_mult**restarts``.

    Parameters
    ----------
    initial_learning_rate : float
    t_0 : int
        The number of steps of the first period.
    t_mult : int
        By how much longer each period is than the one before.
    eta_min : float
        The lowest rate; absolute, not a fraction.
    """

    initial_learning_rate: _Rate
    t_0: _Steps
    t_mult: _Steps = 1
    eta_min: _Rate = 0.0

    def _rate(self, step: float) -> float:
        period = self.t_0
        if self.t_mult == 1:
            step %= period
        while step >= period:
            step -= period
            period *= self.t_mult
        remaining = _half_cosine(step / period)
        return _mix(self.eta_min, self.initial_learning_rate, remaining)


@dataclass(frozen=True)
class Cyclic(_Schedule):
    """Up and down in straight lines, again and again: torch's CyclicLR; Smith 2017.

    ``base_learning_rate + (max_learning_rate - base_learning_rate) * f * scale``, where ``f`` rises
    from 0 to 1 over `step_size_up` steps and falls back over `step_size_down`. What torch does to
    the momentum beside it (``cycle_momentum``) is not part of it.

    Parameters
    ----------
    base_learning_rate : float
    max_learning_rate : float
        At least `base_learning_rate`.
    step_size_up : int
    step_size_down : int, optional
        `step_size_up` by default.
    mode : {"triangular", "triangular2", "exp_range"}
        ``scale`` is 1, ``0.5**(cycle - 1)`` with cycles counted from 1, or ``gamma**step``.
    gamma : float
        At least 0.
    scale_fn : callable, optional
        In the place of `mode`: from the cycle or the step to the scale, at least 0.
    scale_mode : {"cycle", "iterations"}
        Which of the two `scale_fn` is given.
    """

    base_learning_rate: _Rate
    max_learning_rate: _Rate
    step_size_up: _Steps = 2000
    step_size_down: Annotated[int | None, Optional(WholeNumber(at_least=1))] = None
    mode: Annotated[
        Literal["triangular", "triangular2", "exp_range"],
        Choice("triangular", "triangular2", "exp_range"),
    ] = "triangular"
    gamma: _NonNegative = 1.0
    scale_fn: Annotated[Callable[[Any], float] | None, Optional(Called())] = None
    scale_mode: Annotated[Literal["cycle", "iterations"], Choice("cycle", "iterations")] = "cycle"

    def _check_together(self) -> None:
        if self.max_learning_rate < self.base_learning_rate:
            raise ValueError(
                f"max_learning_rate: expected at least base_learning_rate "
                f"({self.base_learning_rate}), got {self.max_learning_rate}"
            )

    def _rate(self, step: float) -> float:
        up, down = self.step_size_up, self.step_size_down or self.step_size_up
        cycles, position = divmod(step, up + down)
        height = position / up if position <= up else (up + down - position) / down
        rise = (self.max_learning_rate - self.base_learning_rate) * height
        return self.base_learning_rate + self._scale(rise, int(cycles) + 1, step)

    def _scale(self, rise: float, cycle: int, step: float) -> float:
        if self.scale_fn is not None:
            index = cycle if self.scale_mode == "cycle" else step
            return rise * _FACTOR.check(f"scale_fn({index})", self.scale_fn(index))
        if self.mode == "triangular2":
            return _scaled(rise, 0.5, cycle - 1)
        return _scaled(rise, self.gamma, step) if self.mode == "exp_range" else rise


class _Legs(_Schedule):
    """From corner to corner, each a step and the rate there."""

    def _corners(self) -> list[tuple[float, float]]:
        raise NotImplementedError

    def _check_together(self) -> None:
        rates = [rate for _, rate in self._corners()]
        if not all(map(math.isfinite, rates)):
            raise ValueError(f"div_factor, final_div_factor: expected finite rates, got {rates}")

    def _leg(self, step: float) -> tuple[float, float, float]:
        """Return the rates at both ends of the leg with this step, and how much of it is over."""
        legs = list(pairwise(self._corners()))
        (start, before), (end, after) = next((leg for leg in legs if step <= leg[1][0]), legs[-1])
        return before, after, (step - start) / (end - start) if start != end else 1.0


@dataclass(frozen=True)
class OneCycle(_Legs):
    """Up, and down much further: torch's OneCycleLR.

    The first leg goes from ``max_learning_rate / div_factor`` to `max_learning_rate` and ends at
    step ``pct_start * total_steps - 1``, the second from there to ``max_learning_rate / div_factor
    / final_div_factor`` at step ``total_steps - 1``. With `three_phase` the second leg is as steep
    as the first, back to where that started, and ends at ``2 * pct_start * total_steps - 2``; the
    third goes down from there.

    The last step that has a rate is `total_steps`, one more than the cycle has: there torch goes
    on beyond the end of the last leg, and so does this, but neither below 0 nor above the highest
    rate. Later ones raise a ValueError. A leg of no length, over which torch divides by zero, is
    skipped.

    Parameters
    ----------
    max_learning_rate : float
    total_steps : int
    pct_start : float
        The fraction of the steps that the first leg takes. From 0 to 1.
    anneal_strategy : {"cos", "linear"}
        Half a cosine, or a straight line.
    div_factor, final_div_factor : float
        Above 0.
    three_phase : bool
    """

    max_learning_rate: _Rate
    total_steps: _Steps
    pct_start: _Fraction = 0.3
    anneal_strategy: Annotated[Literal["cos", "linear"], Choice("cos", "linear")] = "cos"
    div_factor: _Positive = 25.0
    final_div_factor: _Positive = 1e4
    three_phase: _Switch = False

    def _corners(self) -> list[tuple[float, float]]:
        start = self.max_learning_rate / self.div_factor
        top = self.pct_start * self.total_steps - 1
        back = [(2 * self.pct_start * self.total_steps - 2, start)] if self.three_phase else []
        end = (self.total_steps - 1, start / self.final_div_factor)
        return [(0, start), (top, self.max_learning_rate), *back, end]

    def _rate(self, step: float) -> float:
        if step > self.total_steps:
            raise ValueError(f"step: expected at most total_steps ({self.total_steps}), got {step}")
        before, after, progress = self._leg(step)
        if self.anneal_strategy == "cos":
            return _mix(after, before, _half_cosine(progress))
        rate = before + (after - before) * progress
        return min(max(rate, 0.0), max(self.max_learning_rate, before, after))


@dataclass(frozen=True)
class CosineOneCycle(_Legs):
    """Up, and down much further, along cosines: optax's cosine_onecycle_schedule.

    From ``peak_value / div_factor`` to `peak_value` at step ``int(pct_start * transition_steps)``,
    from there to ``peak_value / div_factor / final_div_factor`` at `transition_steps`, then
    constant.

    Parameters
    ----------
    transition_steps : int
    peak_value : float
    pct_start : float
        The fraction of the steps that go up. At least 0, below 1.
    div_factor, final_div_factor : float
        Above 0.
    """

    transition_steps: _Steps
    peak_value: _Rate
    pct_start: Annotated[float, Number(at_least=0, below=1)] = 0.3
    div_factor: _Positive = 25.0
    final_div_factor: _Positive = 1e4

    def _corners(self) -> list[tuple[float, float]]:
        start = self.peak_value / self.div_factor
        top = int(self.pct_start * self.transition_steps)
        end = (self.transition_steps, start / self.final_div_factor)
        return [(0, start), (top, self.peak_value), end]

    def _rate(self, step: float) -> float:
        before, after, progress = self._leg(min(step, self.transition_steps))
        return _mix(after, before, _half_cosine(progress))


@dataclass(frozen=True)
class LinearOneCycle(_Legs):
    """Up, down again and further down, in straight lines: optax's linear_onecycle_schedule.

    From ``peak_value / div_factor`` to `peak_value` at step ``int(pct_start * transition_steps)``,
    back at ``int(pct_final * transition_steps)``, down to ``peak_value / div_factor /
    final_div_factor`` at `transition_steps`, then constant. Where two of these steps are the same
    (one transition step, say), the leg between them is skipped; optax gives other values there.

    Parameters
    ----------
    transition_steps : int
    peak_value : float
    pct_start : float
        The fraction of the steps after which the rate is at its peak. At least 0.
    div_factor, final_div_factor : float
        Above 0.
    pct_final : float
        The fraction of the steps after which the rate is back. At least `pct_start`, below 1.
    """

    transition_steps: _Steps
    peak_value: _Rate
    pct_start: Annotated[float, Number(at_least=0, below=1)] = 0.3
    div_factor: _Positive = 25.0
    final_div_factor: _Positive = 1e4
    pct_final: Annotated[float, Number(at_least=0, below=1)] = 0.85

    def _check_together(self) -> None:
        super()._check_together()
        if self.pct_start > self.pct_final:
            raise ValueError(
                f"pct_start: expected at most pct_final ({self.pct_final}), got {self.pct_start}"
            )

    def _corners(self) -> list[tuple[float, float]]:
        start = self.peak_value / self.div_factor
        top, back = (int(pct * self.transition_steps) for pct in (self.pct_start, self.pct_final))
        end = (self.transition_steps, start / self.final_div_factor)
        return [(0, start), (top, self.peak_value), (back, start), end]

    def _rate(self, step: float) -> float:
        return _mix(*self._leg(min(step, self.transition_steps)))


@dataclass(frozen=True)
class LinearWarmup(_Schedule):
    """A factor that changes in a straight line: torch's LinearLR.

    ``learning_rate * (start_factor + (end_factor - start_factor) * min(step / total_iters, 1))``.
    Step 0 already has the start factor, a third by default.

    Parameters
    ----------
    learning_rate : float
    start_factor : float
        From 0 to 1; torch's cannot be 0.
    end_factor : float
        From 0 to 1.
    total_iters : int
    """

    learning_rate: _Rate
    start_factor: _Fraction = 1 / 3
    end_factor: _Fraction = 1.0
    total_iters: _Steps = 5

    def _rate(self, step: float) -> float:
        progress = min(step / self.total_iters, 1.0)
        return self.learning_rate * _mix(self.start_factor, self.end_factor, progress)


@dataclass(frozen=True)
class ConstantWarmup(_Schedule):
    """A factor that holds for the first `total_iters` steps: torch's ConstantLR.

    Parameters
    ----------
    learning_rate : float
    factor : float
        From 0 to 1; torch's cannot be 0.
    total_iters : int
    """

    learning_rate: _Rate
    factor: _Fraction = 1 / 3
    total_iters: _Steps = 5

    def _rate(self, step: float) -> float:
        return self.learning_rate * (self.factor if step < self.total_iters else 1.0)


@dataclass(frozen=True)
class WarmupConstant(_Schedule):
    """Up in a straight line, then constant: optax's warmup_constant_schedule.

    Parameters
    ----------
    init_value, peak_value : float
    warmup_steps : int
        At least 1. (Of 0, optax makes `init_value` for ever.)
    """

    init_value: _Rate
    peak_value: _Rate
    warmup_steps: _Steps

    def _rate(self, step: float) -> float:
        return _mix(self.init_value, self.peak_value, min(step / self.warmup_steps, 1.0))


@dataclass(frozen=True)
class WarmupCosineDecay(_Schedule):
    """Up in a straight line, down along half a cosine: optax's warmup_cosine_decay_schedule.

    From `init_value` to `peak_value` at `warmup_steps`, then ``end_value + (peak_value - end_value)
    * c**exponent`` with ``c = (1 + cos(pi * f)) / 2``, where ``f`` is the fraction of the remaining
    ``decay_steps - warmup_steps`` steps that is over.

    Parameters
    ----------
    init_value, peak_value : float
    warmup_steps : int
    decay_steps : int
        All steps, those of the warm-up included; more than `warmup_steps`.
    end_value : float
        The rate at the end; absolute, not a fraction. With a `peak_value` of 0 it has no effect.
    exponent : float
        At least 0.
    """

    init_value: _Rate
    peak_value: _Rate
    warmup_steps: _Index
    decay_steps: _Steps
    end_value: _Rate = 0.0
    exponent: _NonNegative = 1.0

    def _check_together(self) -> None:
        if self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"decay_steps: expected more than the {self.warmup_steps} warmup_steps that it "
                f"includes, got {self.decay_steps}"
            )

    def _rate(self, step: float) -> float:
        if step < self.warmup_steps:
            return _mix(self.init_value, self.peak_value, step / self.warmup_steps)
        progress = (step - self.warmup_steps) / (self.decay_steps - self.warmup_steps)
        remaining = _half_cosine(min(progress, 1.0)) ** self.exponent
        end_value = self.end_value if self.peak_value else 0.0
        return _mix(end_value, self.peak_value, remaining)


@dataclass(frozen=True)
class WarmupExponentialDecay(_Schedule):
    """Up in a straight line, down exponentially: optax's warmup_exponential_decay_schedule.

    From `init_value` to `peak_value` at `warmup_steps`, then `ExponentialDecay` from there, its
    steps counted from `warmup_steps`.

    Parameters
    ----------
    init_value, peak_value : float
    warmup_steps : int
    transition_steps : int
        Over how many steps the rate is multiplied with `decay_rate`.
    decay_rate : float
        Above 0. A rate that grows without an `end_value` becomes infinite in the end.
    transition_begin : int
        For how many steps the rate stays at its peak.
    staircase : bool
        Multiply at once.
    end_value : float, optional
        The smallest rate after the warm-up where `decay_rate` is below 1, else the largest.
    """

    init_value: _Rate
    peak_value: _Rate
    warmup_steps: _Index
    transition_steps: _Steps
    decay_rate: _Positive
    transition_begin: _Index = 0
    staircase: _Switch = False
    end_value: Annotated[float | None, Optional(Number(at_least=0))] = None

    def _rate(self, step: float) -> float:
        if step < self.warmup_steps:
            return _mix(self.init_value, self.peak_value, step / self.warmup_steps)
        return _exponential(
            self.peak_value,
            self.transition_steps,
            self.decay_rate,
            max(step - self.warmup_steps - self.transition_begin, 0),
            staircase=self.staircase,
            limit=self.end_value,
        )


@dataclass(frozen=True)
class InverseSqrtDecay(_Schedule):
    """A warm-up, then a decay with the inverse square root of the step.

    From `initial_learning_rate` at step 0 to `learning_rate` at step `warmup_steps` in a straight
    line, then ``learning_rate * sqrt(warmup_steps / step)``, without end.

    - Vaswani et al. 2017 (the Transformer) have ``learning_rate = (d_model * warmup_steps)**-0.5``
      and count updates from 1: the rate of their first update is this schedule's of step 1.
      `Noam` counts as they do.
    - Raffel et al. 2020 (T5) keep the rate constant instead of warming up: ``learning_rate =
      initial_learning_rate = warmup_steps**-0.5``.

    Parameters
    ----------
    learning_rate : float
        The peak, reached at step `warmup_steps`.
    warmup_steps : int
        At least 1.
    initial_learning_rate : float
        With 0, the first update leaves the parameters alone.
    """

    learning_rate: _Rate
    warmup_steps: _Steps
    initial_learning_rate: _Rate = 0.0

    def _rate(self, step: float) -> float:
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            return _mix(self.initial_learning_rate, self.learning_rate, progress)
        return self.learning_rate * math.sqrt(self.warmup_steps / step)


@dataclass(frozen=True)
class Noam(_Schedule):
    """The Transformer's: a warm-up, then a decay with the inverse square root of the step.

    ``factor * d_model**-0.5 * min(n**-0.5, n * warmup_steps**-1.5)`` with ``n = step + 1``, as
    Vaswani et al. 2017 (section 5.3) count updates from 1. The peak comes at ``n = warmup_steps``.

    Parameters
    ----------
    d_model : int
        The width of the model.
    warmup_steps : int
    factor : float
        The paper has none.
    """

    d_model: _Steps
    warmup_steps: _Steps = 4000
    factor: _NonNegative = 1.0

    def _rate(self, step: float) -> float:
        number = step + 1
        shape = min(number**-0.5, number * self.warmup_steps**-1.5)
        return float(self.factor * self.d_model**-0.5 * shape)


@dataclass(frozen=True)
class WarmupStableDecay(_Schedule):
    """Warm-up, stable, decay ("WSD", "trapezoidal"): Hu et al. 2024, Hägele et al. 2024.

    From `initial_learning_rate` to `learning_rate` in a straight line over `warmup_steps`, constant
    for `stable_steps`, down to `end_learning_rate` over `decay_steps`, then constant. The decay is
    ``end_learning_rate + (learning_rate - end_learning_rate) * w`` with ``f`` the fraction of it
    that is over and ``w`` as in `anneal_strategy`.

    Parameters
    ----------
    learning_rate : float
    warmup_steps, stable_steps : int
    decay_steps : int
        At least 1.
    initial_learning_rate, end_learning_rate : float
    anneal_strategy : {"linear", "cos", "1-sqrt"}
        ``w = 1 - f``, ``(1 + cos(pi * f)) / 2``, or ``1 - sqrt(f)``.
    """

    learning_rate: _Rate
    warmup_steps: _Index
    stable_steps: _Index
    decay_steps: _Steps
    initial_learning_rate: _Rate = 0.0
    end_learning_rate: _Rate = 0.0
    anneal_strategy: Annotated[
        Literal["linear", "cos", "1-sqrt"], Choice("linear", "cos", "1-sqrt")
    ] = "linear"

    def _rate(self, step: float) -> float:
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            return _mix(self.initial_learning_rate, self.learning_rate, progress)
        step = max(step - self.warmup_steps - self.stable_steps, 0)
        progress = min(step / self.decay_steps, 1.0)
        if self.anneal_strategy == "cos":
            progress = 1 - _half_cosine(progress)
        elif self.anneal_strategy == "1-sqrt":
            progress = math.sqrt(progress)
        return _mix(self.learning_rate, self.end_learning_rate, progress)


# Made of other callables --------------------------------------------------------------------------


@dataclass(frozen=True)
class Multiplicative(_Schedule):
    """A factor for every step, which a function gives: torch's MultiplicativeLR.

    ``learning_rate * factor(1) * factor(2) * ... * factor(step)``. Asked for one step after the
    other it calls the function once for each; asked for an earlier one, it begins again. Between
    steps the rate is that of the step before.

    Parameters
    ----------
    learning_rate : float
        The rate of step 0.
    factor : callable
        From the step, 1 or more, to a number of at least 0: torch's ``lr_lambda``. Always the same
        for the same step.
    """

    learning_rate: _Rate
    factor: Annotated[Callable[[int], float], Called()]
    _so_far: tuple[int, float] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._go_to(0, self.learning_rate)

    def _go_to(self, step: int, rate: float) -> None:
        object.__setattr__(self, "_so_far", (step, rate))

    def _rate(self, step: float) -> float:
        done, rate = self._so_far
        if step < done:
            done, rate = 0, self.learning_rate
        for k in range(done + 1, int(step) + 1):
            rate *= _FACTOR.check(f"factor({k})", self.factor(k))
        self._go_to(int(step), rate)
        return rate


class _Compound(_Schedule):
    """A schedule that is made of others, and remembers what they remember."""

    schedules: _Parts

    def _ask(self, k: int, step: float) -> float:
        schedule: Callable[[Any], float] = self.schedules[k]
        return float(schedule(step))

    def _with_memory(self) -> dict[str, Any]:
        return {
            str(k): each for k, each in enumerate(self.schedules) if hasattr(each, "state_dict")
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those schedules that have one, by their positions."""
        return {k: each.state_dict() for k, each in self._with_memory().items()}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        schedules = self._with_memory()
        if not isinstance(d, Mapping) or d.keys() != schedules.keys():
            raise ValueError(f"state: expected those of schedules {sorted(schedules)}, got {d!r}")
        before = self.state_dict()
        try:
            for k, schedule in schedules.items():
                schedule.load_state_dict(d[k])
        except BaseException:
            for k, schedule in schedules.items():
                schedule.load_state_dict(before[k])
            raise


@dataclass(frozen=True)
class ChainedScheduler(_Compound):
    """The product of several schedules: torch's ChainedScheduler.

    ``learning_rate * schedules[0](step) * schedules[1](step) * ...``: each has a rate of 1 of its
    own. torch's LambdaLR is this with a single function.

    torch's schedulers change the rate one after the other. This is a product, too, where each
    multiplies: ConstantLR, LinearLR, ExponentialLR, StepLR, MultiStepLR, PolynomialLR,
    MultiplicativeLR, and CosineAnnealingLR until its ``T_max`` with an ``eta_min`` of 0. Those that
    set the rate (LambdaLR, CyclicLR, OneCycleLR) forget there what the ones before them did.

    Parameters
    ----------
    learning_rate : float
    schedules : sequence of callables
        From the step to a factor of at least 0.

    Examples
    --------
    >>> from instep.schedules import ChainedScheduler, ConstantWarmup, ExponentialDecay
    >>> warmup = ConstantWarmup(1.0, factor=0.5, total_iters=2)
    >>> rate = ChainedScheduler(0.4, [warmup, ExponentialDecay(1.0, 1, 0.5)])
    >>> rate(0), rate(1), rate(2)
    (0.2, 0.1, 0.1)
    """

    learning_rate: _Rate
    schedules: _Parts

    def _rate(self, step: float) -> float:
        rate = self.learning_rate
        for k in range(len(self.schedules)):
            rate *= self._ask(k, step)
        return rate


@dataclass(frozen=True)
class _JoinedSchedules(_Compound):
    """What `join_schedules` returns."""

    schedules: _Parts
    boundaries: _Indices

    def _check_together(self) -> None:
        if len(self.schedules) != len(self.boundaries) + 1:
            raise ValueError(
                f"schedules: expected one more than the {len(self.boundaries)} boundaries, got "
                f"{len(self.schedules)}"
            )

    def _rate(self, step: float) -> float:
        passed = bisect_right(self.boundaries, step)
        return self._ask(passed, step - (self.boundaries[passed - 1] if passed else 0))

    def __repr__(self) -> str:
        return f"join_schedules({list(self.schedules)!r}, {list(self.boundaries)!r})"


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Follow one schedule after the other, as optax's join_schedules and torch's SequentialLR do.

    Parameters
    ----------
    schedules : sequence of callables
    boundaries : sequence of int
        Steps in increasing order, one less than schedules. From ``boundaries[k]`` on
        ``schedules[k + 1]`` is asked, for ``step - boundaries[k]``.

    Returns
    -------
    schedule
        It compares, copies and pickles if those that it is made of do.

    Examples
    --------
    >>> from instep.schedules import CosineDecay, LinearWarmup, join_schedules
    >>> rate = join_schedules([LinearWarmup(0.1, total_iters=10), CosineDecay(0.1, 90)], [10])
    >>> rate(10), rate(100)
    (0.1, 0.0)
    """
    return _JoinedSchedules(schedules, boundaries)


class _Cycle(Kind[WarmupCosineDecay]):
    """The arguments of a warm-up and cosine."""

    def check(self, name: str, value: Any) -> WarmupCosineDecay:
        """Return the schedule; see `Kind.check`."""
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{name}: expected a dict of WarmupCosineDecay's arguments, got {shown(value)}"
            )
        try:
            return WarmupCosineDecay(**value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None


_CYCLES = Each(_Cycle())


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Follow one warm-up and cosine after the other: optax's sgdr_schedule; Loshchilov 2017.

    Parameters
    ----------
    cosine_kwargs : iterable of dicts
        The arguments of each cycle's `WarmupCosineDecay`. The next one begins after its
        ``decay_steps``.

    Returns
    -------
    schedule
        That of `join_schedules`.

    Examples
    --------
    >>> from instep.schedules import sgdr_schedule
    >>> cycle = {"init_value": 0.0, "warmup_steps": 10, "decay_steps": 100}
    >>> rate = sgdr_schedule([{**cycle, "peak_value": 0.1}, {**cycle, "peak_value": 0.05}])
    >>> rate(10), rate(110)
    (0.1, 0.05)
    """
    cycles = _CYCLES.check("cosine_kwargs", cosine_kwargs)
    if not cycles:
        raise ValueError("cosine_kwargs: expected at least one cycle, got none")
    *boundaries, _ = accumulate(cycle.decay_steps for cycle in cycles)
    return join_schedules(cycles, boundaries)


# Plateaus -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Progress:
    """Where a `ReduceLROnPlateau` is."""

    learning_rate: _Rate
    best: Annotated[float, Metric()]
    num_bad_epochs: _Index = 0
    cooldown_counter: _Index = 0


@dataclass(frozen=True, eq=False)
class ReduceLROnPlateau(_Schedule):
    """A learning rate that is reduced when a metric no longer improves: torch's ReduceLROnPlateau.

    Unlike the other schedules it has a state, which `update` moves; the step makes no difference.

    Parameters
    ----------
    initial_learning_rate : float
    mode : {"min", "max"}
        Whether a smaller or a larger metric is better.
    factor : float
        What the rate is multiplied with. At least 0, below 1.
    patience : int
        After how many updates in a row without improvement the next such one reduces the rate.
        (keras counts that one in: its ``patience`` is larger by one.)
    threshold : float
        How much better than the best a metric must be. With `threshold_mode` "abs" this is keras's
        ``min_delta``.
    threshold_mode : {"rel", "abs"}
        "rel": better is ``metric < best * (1 - threshold)``, or ``metric > best * (1 + threshold)``
        for mode "max". "abs": ``metric < best - threshold``, ``metric > best + threshold``.
    cooldown : int
        For how many updates after a reduction none count as without improvement.
    min_learning_rate : float
        torch's and keras's ``min_lr``: no reduction goes below it.
    epsilon : float
        torch's ``eps``: a reduction by no more than this is not made.

    Examples
    --------
    >>> import numpy as np, instep
    >>> from instep import schedules
    >>> plateau = schedules.ReduceLROnPlateau(0.1, factor=0.5, patience=0)
    >>> optimizer = instep.SGD([np.zeros(3)], learning_rate=plateau)
    >>> for loss in 3.0, 2.0, 2.0:
    ...     plateau.update(loss)
    >>> optimizer.current_learning_rate
    0.05
    """

    initial_learning_rate: _Rate
    mode: Annotated[Literal["min", "max"], Choice("min", "max")] = "min"
    factor: Annotated[float, Number(at_least=0, below=1)] = 0.1
    patience: _Index = 10
    threshold: _NonNegative = 1e-4
    threshold_mode: Annotated[Literal["rel", "abs"], Choice("rel", "abs")] = "rel"
    cooldown: _Index = 0
    min_learning_rate: _Rate = 0.0
    epsilon: _NonNegative = 1e-8
    _progress: _Progress = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        worst = math.inf if self.mode == "min" else -math.inf
        self._go_to(_Progress(self.initial_learning_rate, worst))

    def _go_to(self, progress: _Progress) -> None:
        object.__setattr__(self, "_progress", progress)

    @property
    def learning_rate(self) -> float:
        """The rate at present."""
        return self._progress.learning_rate

    @property
    def best(self) -> float:
        """The best metric so far; infinite before the first."""
        return self._progress.best

    def _rate(self, step: float) -> float:
        return self.learning_rate

    def update(self, metric: SupportsFloat) -> None:
        """Take a new value of the metric into account, usually once after each epoch.

        Parameters
        ----------
        metric : float
            NaN is no improvement.

        Raises
        ------
        TypeError
            If the metric is not a number. Nothing has changed then.
        """
        if isinstance(metric, (bool, np.bool_)) or not isinstance(metric, SupportsFloat):
            raise TypeError(f"metric: expected a number, got {shown(metric)}")
        value = float(metric)
        now = self._progress
        rate, best = now.learning_rate, now.best
        bad_epochs, cooldown = now.num_bad_epochs + 1, now.cooldown_counter
        if self._is_better(value, best):
            best, bad_epochs = value, 0
        if cooldown:
            cooldown, bad_epochs = cooldown - 1, 0
        if bad_epochs > self.patience:
            cooldown, bad_epochs = self.cooldown, 0
            reduced = max(rate * self.factor, self.min_learning_rate)
            if rate - reduced > self.epsilon:
                rate = reduced
        self._go_to(_Progress(rate, best, bad_epochs, cooldown))

    def _is_better(self, metric: float, best: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            limit = best * (1 + sign * self.threshold)
        else:
            limit = best + sign * self.threshold
        return metric > limit if self.mode == "max" else metric < limit

    def state_dict(self) -> dict[str, Any]:
        """Return the state as a plain dict; the arguments but for the mode are not part of it."""
        return {"mode": self.mode, **dataclasses.asdict(self._progress)}

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises
        ------
        TypeError, ValueError
            If it is of another mode, lacks anything, or has anything else. Nothing has changed
            then.
        """
        kinds = {"mode": Choice(self.mode), **_kinds(_Progress)}
        if not isinstance(d, Mapping):
            raise TypeError(f"state: expected a dict, got {d!r}")
        if set(d) != set(kinds):
            raise ValueError(f"state: expected the keys {sorted(kinds)}, got {list(d)}")
        state = {name: kind.check(f"state[{name!r}]", d[name]) for name, kind in kinds.items()}
        del state["mode"]
        self._go_to(_Progress(**state))

    def __repr__(self) -> str:
        shown = [field.name for field in dataclasses.fields(self) if field.repr]
        arguments = [f"{name}={getattr(self, name)!r}" for name in shown]
        return f"<ReduceLROnPlateau({', '.join(arguments)}) at {self.learning_rate!r}>"
