"""What formulas mean: numbers of a step, and elements of arrays, as a graph without repetitions.

Numbers are computed once a step, in double precision. Elements are those of the arrays; where they
are multiplied with numbers or divided by them, the numbers come together in one factor first, so
that ``lr * m / (1 - beta**step)`` is a single product. All else is done in the order written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from instep._formulas.grammar import FUNCTIONS, OVER_ALL, REDUCTIONS, MeaningError

PARAMETER, GRADIENT, RATE, STEP = "p", "g", "lr", "step"
ELEMENTS, ALL_ELEMENTS = "its elements", "all elements"  # no names that a formula may have
HIGHEST_POWER = 16
DEEPEST = 150
"""How long a chain of operations may be in which each needs the one before."""

_NUMBER_OPERATIONS = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
    "**": "power",
    "<": "less",
    "<=": "less_equal",
    "==": "equal",
    "sqrt": "root",
    "abs": "absolute",
    "sign": "sign",
    "min": "minimum",
    "max": "maximum",
    "where": "where",
}


@dataclass(frozen=True, eq=False)
class Number:
    """A number of the step: what an operation makes of others.

    Attributes
    ----------
    operation
        Its name in the engine; "literal" or "input" where it is none, "sum" of a reduction.
    arguments
        Numbers; a literal's value, an input's name; of a sum two nodes and whether it is over all.
    order
        Greater than those of all arguments.
    """

    operation: str
    arguments: tuple[Any, ...]
    order: int
    depth: int

    @property
    def literal(self) -> float | None:
        """The value, where it is known."""
        return self.arguments[0] if self.operation == "literal" else None


@dataclass(frozen=True, eq=False)
class Node:
    """Elements: what an operation makes of others, or an array (`operation` "array")."""

    operation: str
    arguments: tuple[Any, ...]
    order: int
    depth: int


class Term(NamedTuple):
    """A factor on elements; None for 1."""

    factor: Number | None
    of: Node


Value: TypeAlias = Number | Term


@dataclass
class Names:
    """What the names in a formula are for.

    Attributes
    ----------
    state, numbers
        Arrays and numbers that are kept for each parameter array.
    hyperparameters
        Their ranges by name.
    """

    state: Sequence[str]
    numbers: Sequence[str]
    hyperparameters: Mapping[str, tuple[float, float]]

    def known(self) -> list[str]:
        """Return all of them."""
        return [PARAMETER, GRADIENT, RATE, STEP, *self.state, *self.numbers, *self.hyperparameters]


@dataclass
class Algebra:
    """A `grammar.Meaning` that builds the graph.

    Attributes
    ----------
    names
        What there is.
    becomes
        What names stand for that were assigned to, in that order.
    """

    names: Names
    becomes: dict[str, Value] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _known: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def _make(self, kind: type[Any], operation: str, arguments: tuple[Any, ...]) -> Any:
        key = (kind, operation, *(self._key(each) for each in arguments))
        if key not in self._known:
            depth = 1 + max((_depth(each) for each in arguments), default=0)
            if depth > DEEPEST:
                raise MeaningError(f"expected chains of at most {DEEPEST} operations")
            self._known[key] = kind(operation, arguments, len(self._known), depth)
        return self._known[key]

    @staticmethod
    def _key(argument: Any) -> Any:
        if isinstance(argument, Term):
            return (id(argument.factor), id(argument.of))
        if isinstance(argument, (Number, Node)):
            return id(argument)
        return repr(argument)  # which tells 0.0 from -0.0

    # Names --------------------------------------------------------------------------------------

    def name(self, name: str) -> Value:
        """Return what a name stands for now."""
        self.used.add(name)
        if name in self.becomes:
            return self.becomes[name]
        names = self.names
        if name in (PARAMETER, GRADIENT, *names.state):
            return Term(None, self._make(Node, "array", (name,)))
        if name in (RATE, STEP, *names.numbers, *names.hyperparameters):
            return self._number("input", name)
        raise MeaningError(
            f"{name} is unknown, or used before it is assigned; known are "
            f"{', '.join(dict.fromkeys([*names.known(), *self.becomes]))}"
        )

    def assign(self, name: str, value: Value) -> None:
        """Let a name stand for something else from now on."""
        if name in (RATE, STEP, OVER_ALL, *FUNCTIONS, *self.names.hyperparameters):
            raise MeaningError(f"{name} is given, and can't be assigned to; choose another name")
        if name in self.names.numbers and not isinstance(value, Number):
            raise MeaningError(
                f"{name} is one number for an array, and can't become the elements of one; "
                f"expected sum(...), norm(...), or arithmetic of numbers"
            )
        self.becomes.pop(name, None)
        self.becomes[name] = value

    # Operations ---------------------------------------------------------------------------------

    def literal(self, value: float) -> Number:
        """Return a number that is known."""
        return self._number("literal", value)

    def _number(self, operation: str, *arguments: Any) -> Number:
        if operation not in ("literal", "input", "sum"):
            literals = [each.literal for each in arguments]
            if all(each is not None for each in literals):
                return self.literal(folded(operation, literals))
            simpler = self._simpler(operation, arguments)
            if simpler is not None:
                return simpler
        number: Number = self._make(Number, operation, arguments)
        return number

    def _simpler(self, operation: str, arguments: tuple[Number, ...]) -> Number | None:
        """Return the same number without a needless operation."""
        a, b = (*arguments, arguments[0])[:2]
        if operation == "multiply" and a.literal == 1:
            return b
        if operation in ("multiply", "divide") and b.literal == 1:
            return a
        if operation == "subtract" and a.literal == 1 and b.operation == "power":
            return self._number("complement_of_power", *b.arguments)
        return None

    def operate(self, operator: str, a: Value, b: Value) -> Value:
        """Return what an operator makes of two values."""
        if operator in (">", ">="):
            return self.operate({">": "<", ">=": "<="}[operator], b, a)
        if operator == "!=":
            return self.operate("-", self.literal(1), self.operate("==", a, b))
        if isinstance(a, Number) and isinstance(b, Number):
            return self._number(_NUMBER_OPERATIONS[operator], a, b)
        if operator == "*":
            return self._product(a, b)
        if operator == "/":
            return self._quotient(a, b)
        if operator == "+":
            return self._elements("add", a, b)
        if operator == "-":
            minus = self._product(self.literal(-1), b)
            return self._elements("add", a, minus)
        if operator == "**":
            return self._power(a, b)
        return self._elements(_NUMBER_OPERATIONS[operator], a, b)

    def _elements(self, operation: str, *arguments: Any) -> Term:
        return Term(None, self._make(Node, operation, arguments))

    def _term(self, factor: Number | None, of: Node) -> Term:
        return Term(None if factor is None or factor.literal == 1 else factor, of)

    def _factors(self, operation: str, a: Number | None, b: Number | None) -> Number | None:
        if b is None:
            return a
        one = self.literal(1)
        return self._number(operation, one if a is None else a, b)

    def _product(self, a: Value, b: Value) -> Value:
        if isinstance(a, Number) and isinstance(b, Number):
            return self._number("multiply", a, b)
        if isinstance(a, Number):
            assert isinstance(b, Term)
            return self._term(self._factors("multiply", a, b.factor), b.of)
        if isinstance(b, Number):
            return self._term(self._factors("multiply", a.factor, b), a.of)
        of = self._make(Node, "multiply", (a.of, b.of))
        return self._term(self._factors("multiply", a.factor, b.factor), of)

    def _quotient(self, a: Value, b: Value) -> Value:
        if isinstance(b, Number):
            assert isinstance(a, Term)
            return self._term(self._factors("divide", a.factor, b), a.of)
        if isinstance(a, Number):
            of = self._make(Node, "reciprocal", (b.of,))
            return self._term(self._factors("divide", a, b.factor), of)
        of = self._make(Node, "divide", (a.of, b.of))
        return self._term(self._factors("divide", a.factor, b.factor), of)

    def _power(self, a: Value, b: Value) -> Value:
        exponent = b.literal if isinstance(b, Number) else None
        if exponent in (0.5, -0.5):
            root = self.call("sqrt", [a])
            return root if exponent > 0 else self._quotient(self.literal(1), root)
        if not isinstance(b, Number):
            raise MeaningError("expected an exponent that is one number, got elements of an array")
        is_small = exponent is not None and abs(exponent) <= HIGHEST_POWER
        if exponent is None or not is_small or exponent != round(exponent):
            return self._elements("power", a, b)
        if exponent < 0:
            return self._quotient(self.literal(1), self._power(a, self.literal(-exponent)))
        result: Value | None = None
        square, left = a, int(exponent)
        while left:
            if left & 1:
                result = square if result is None else self._product(result, square)
            left >>= 1
            if left:
                square = self._product(square, square)
        return self.literal(1) if result is None else result

    def call(self, function: str, arguments: list[Value], over_all: bool = False) -> Value:
        """Return what a function makes of values."""
        if function in REDUCTIONS:
            return self._reduction(function, arguments[0], over_all)
        if function in ("min", "max") and len(arguments) > 2:
            first, second, *rest = arguments
            return self.call(function, [self.call(function, [first, second]), *rest])
        operation = _NUMBER_OPERATIONS[function]
        numbers = [each for each in arguments if isinstance(each, Number)]
        if len(numbers) == len(arguments):
            return self._number(operation, *numbers)
        return self._elements(operation, *arguments)

    def _reduction(self, function: str, of: Value, over_all: bool) -> Number:
        if isinstance(of, Number):
            return self._reduction_of_number(function, of, over_all)
        if any(each.operation == "sum" for each in numbers_in(of)):
            raise MeaningError(f"{function}: expected what hangs on no other sum or norm")
        if function in ("norm", "rms"):
            total: Number = self._make(Number, "sum", (of.of, of.of, over_all))
        elif of.of.operation == "multiply":
            total = self._make(Number, "sum", (*of.of.arguments, over_all))
        else:
            total = self._make(Number, "sum", (of.of, None, over_all))
        if function in ("mean", "rms"):
            count = self._number("input", ALL_ELEMENTS if over_all else ELEMENTS)
            total = self._number("divide", total, count)
        factor = of.factor
        if function in ("norm", "rms"):
            total = self._number("root", total)
            factor = None if factor is None else self._number("absolute", factor)
        return total if factor is None else self._number("multiply", factor, total)

    def _reduction_of_number(self, function: str, of: Number, over_all: bool) -> Number:
        count: Number = self._make(Number, "sum", (None, None, over_all))
        size = self._number("absolute", of)
        match function:
            case "sum":
                return self._number("multiply", of, count)
            case "norm":
                return self._number("multiply", size, self._number("root", count))
            case "rms":
                return size
        return of


def folded(operation: str, numbers: Sequence[Any]) -> float:
    """Return what an operation makes of numbers, as the engine does."""
    a, b, c = ([np.float64(each) for each in numbers] + [np.float64(0)] * 2)[:3]
    with np.errstate(all="ignore"):
        results = {
            "add": lambda: a + b,
            "subtract": lambda: a - b,
            "multiply": lambda: a * b,
            "divide": lambda: a / b,
            "maximum": lambda: b if a < b else a,
            "minimum": lambda: b if b < a else a,
            "less": lambda: a < b,
            "less_equal": lambda: a <= b,
            "equal": lambda: a == b,
            "root": lambda: np.sqrt(a),
            "absolute": lambda: abs(a),
            "sign": lambda: np.sign(a),
            "where": lambda: b if a > 0 else c,
            "power": lambda: np.power(a, b),
        }
        return float(results[operation]())


def _depth(argument: Any) -> int:
    if isinstance(argument, Term):
        return max(argument.of.depth, _depth(argument.factor))
    return argument.depth if isinstance(argument, (Number, Node)) else 0


def parts_of(each: Number | Node) -> Iterator[Number | Node]:
    """Yield the numbers and nodes that one is made of."""
    for argument in each.arguments:
        if isinstance(argument, Term):
            if argument.factor is not None:
                yield argument.factor
            yield argument.of
        elif isinstance(argument, (Number, Node)):
            yield argument


def reached(roots: Sequence[Value | Node | None], into_sums: bool = True) -> list[Number | Node]:
    """Return everything that values are made of, each before what is made of it."""
    found: dict[int, Number | Node] = {}
    left: list[Any] = [
        part
        for root in roots
        for part in ((root.factor, root.of) if isinstance(root, Term) else (root,))
        if part is not None
    ]
    while left:
        each = left.pop()
        if id(each) in found:
            continue
        found[id(each)] = each
        if into_sums or each.operation != "sum":
            left += parts_of(each)
    return sorted(found.values(), key=lambda each: each.order)


def numbers_in(value: Value) -> list[Number]:
    """Return the numbers that a value is made of."""
    return [each for each in reached([value]) if isinstance(each, Number)]


class Signs:
    """Which values are never negative, if some arrays are not.

    Parameters
    ----------
    names
        What there is.
    arrays
        Those arrays.
    """

    def __init__(self, names: Names, arrays: set[str]) -> None:
        self._names, self._arrays = names, arrays
        self._intervals: dict[int, tuple[float, float]] = {}
        self._certain: dict[int, bool] = {}

    def interval(self, number: Number) -> tuple[float, float]:
        """Return the least and the greatest value that a number may have."""
        known = self._intervals.get(id(number))
        if known is None:
            known = self._intervals[id(number)] = self._new_interval(number)
        return known

    def _new_interval(self, number: Number) -> tuple[float, float]:
        everything = (-math.inf, math.inf)
        if number.operation == "literal":
            return (number.arguments[0],) * 2
        if number.operation == "input":
            name = number.arguments[0]
            ranges = {RATE: (0.0, math.inf), STEP: (1.0, math.inf)}
            return ranges.get(name, self._names.hyperparameters.get(name, everything))
        if number.operation == "sum":
            is_of_squares = number.arguments[0] is number.arguments[1]  # or how many there are
            return (0.0, math.inf) if is_of_squares else everything
        of = [self.interval(each) for each in number.arguments]
        least = [low for low, _ in of]
        match number.operation:
            case "add":
                return (of[0][0] + of[1][0], of[0][1] + of[1][1])
            case "subtract":
                return (of[0][0] - of[1][1], of[0][1] - of[1][0])
            case "multiply" | "divide" | "minimum" | "power" if min(least) >= 0:
                return (0.0, math.inf)
            case "complement_of_power" if least[0] >= 0 and of[0][1] <= 1 and least[1] >= 0:
                return (0.0, 1.0)
            case "maximum":
                return (max(least), math.inf)
            case "root" | "absolute" | "less" | "less_equal" | "equal":
                return (0.0, math.inf)
            case "where":
                return (min(least[1:]), math.inf)
        return everything

    def certain(self, value: Value | Node | None) -> bool:
        """Return whether no element of a value is ever negative, for all that is known."""
        if value is None:
            return True
        if isinstance(value, Number):
            return self.interval(value)[0] >= 0
        if isinstance(value, Term):
            return self.certain(value.factor) and self.certain(value.of)
        known = self._certain.get(id(value))
        if known is None:
            known = self._certain[id(value)] = self._is_certain(value)
        return known

    def _is_certain(self, node: Node) -> bool:
        arguments = node.arguments
        match node.operation:
            case "array":
                return arguments[0] in self._arrays
            case "multiply" if arguments[0] is arguments[1]:
                return True
            case "root" | "absolute" | "less" | "less_equal" | "equal":
                return True
            case "maximum":
                return any(map(self.certain, arguments))
            case "where":
                return all(map(self.certain, arguments[1:]))
            case "power":
                return self.certain(arguments[0])
            case "add" | "multiply" | "divide" | "reciprocal" | "minimum":
                return all(map(self.certain, arguments))
        return False


def positive_state(algebra: Algebra, starts_negative: set[str]) -> list[str]:
    """Return the state that is never negative, and that is divided by or has its root taken."""
    names, becomes = algebra.names, algebra.becomes
    certain = {*names.state} - starts_negative
    while True:
        signs = Signs(names, certain)
        still = {n for n in certain if n not in becomes or signs.certain(becomes[n])}
        if still == certain:
            break
        certain = still
    divisors: list[Any] = []
    for each in reached(list(becomes.values())):
        if isinstance(each, Node) and each.operation in ("divide", "reciprocal", "root"):
            divisors.append(each.arguments[-1])
    beneath = {
        each.arguments[0]
        for each in reached(divisors)
        if isinstance(each, Node) and each.operation == "array"
    }
    # What state becomes is what is divided by, so that the name itself need not stand there.
    beneath |= {
        name
        for name in certain
        for divisor in reached(divisors)
        if isinstance(new := becomes.get(name), Term) and divisor is new.of
    }
    return [name for name in names.state if name in certain & beneath]
