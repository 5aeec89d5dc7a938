"""From the graph of a formula to the program that the engine runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from instep import _core
from instep._formulas.algebra import (
    ALL_ELEMENTS,
    ELEMENTS,
    GRADIENT,
    PARAMETER,
    RATE,
    STEP,
    Algebra,
    Node,
    Number,
    Signs,
    Term,
    Value,
    reached,
)

_LAYOUT = _core.program_layout


class Constant(NamedTuple):
    """A number that elements meet: as it is, or as an average's, a decay rate or an exponent."""

    number: Number
    form: str = "number"


Operand: TypeAlias = "str | int | Constant"
"""An array by its name, a result by its number, or a constant."""


class Instruction(NamedTuple):
    """An operation on elements, the number of its result, and what that is made of."""

    operation: str
    result: int
    operands: tuple[Operand, ...]


@dataclass
class Code:
    """Instructions, and where their results go: to an array, or to a temporary by index."""

    instructions: list[Instruction] = field(default_factory=list)
    places: dict[int, str | int] = field(default_factory=dict)


@dataclass
class Program:
    """What the engine is told of a formula.

    Attributes
    ----------
    algebra
        The formula, as it was read.
    positive
        The state that is never negative, and divided by or has its root taken.
    exact
        The state that starts as the parameter, of whose distance from it small differences matter.
    measure, update
        Code before sums are known, which writes no arrays, and after.
    sums
        The numbers that are sums, with the two operands whose products they are of.
    becomes
        What becomes of the numbers that are kept for arrays, in their order.
    """

    algebra: Algebra
    positive: Sequence[str]
    exact: Sequence[str]
    measure: Code
    update: Code
    sums: list[tuple[Number, Operand, Operand]]
    becomes: list[Number]

    def constants(self) -> list[Constant]:
        """Return what elements meet, once each."""
        code = [*self.measure.instructions, *self.update.instructions]
        operands = [each for instruction in code for each in instruction.operands]
        operands += [each for _, a, b in self.sums for each in (a, b)]
        return list(dict.fromkeys(each for each in operands if isinstance(each, Constant)))

    def numbers(self) -> list[Number]:
        """Return all numbers of a step, each before what is made of it."""
        roots = [*(each.number for each in self.constants()), *self.becomes]
        return [each for each in reached(roots, into_sums=False) if isinstance(each, Number)]

    def shared(self) -> set[str]:
        """Return the names that kept numbers hang on, where all arrays have those together."""
        if not all(total.arguments[2] for total, *_ in self.sums) or not self.sums:
            return set()
        parts = reached(self.becomes)
        return {each.arguments[0] for each in parts if each.operation == "input"}

    def encoded(self, rule: str) -> _core.Formula:
        """Return it as the engine takes it, by index instead of name."""
        names, numbers = self.algebra.names, self.numbers()
        literals = [each for each in numbers if each.operation == "literal"]
        inputs = {RATE: 0, STEP: 1, ELEMENTS: 2, ALL_ELEMENTS: 3}
        for first, given in (
            ("hyperparameter", names.hyperparameters),
            ("scalar", names.numbers),
        ):
            inputs.update({name: _LAYOUT[first] + k for k, name in enumerate(given)})
        index = {id(each): _LAYOUT["literal"] + k for k, each in enumerate(literals)}
        index |= {id(each): _LAYOUT["sum"] + k for k, (each, *_) in enumerate(self.sums)}
        operations: list[tuple[str | int, ...]] = []
        for each in numbers:
            if each.operation == "input":
                index[id(each)] = inputs[each.arguments[0]]
            elif id(each) not in index:
                arguments = (index[id(argument)] for argument in each.arguments)
                index[id(each)] = _LAYOUT["result"] + len(operations)
                operations.append((each.operation, *arguments))
        constants, place = self.constants(), _LAYOUT["constant"]
        places: dict[Operand, int] = {PARAMETER: 0, GRADIENT: 1}
        places |= {name: _LAYOUT["slot"] + k for k, name in enumerate(names.state)}
        for constant in constants:
            places[constant] = place
            place += {"number": 1, "average": 3, "decay": 2, "exponent": 2}[constant.form]

        def encoded(code: Code) -> tuple[tuple[str | int, ...], ...]:
            return tuple(
                (
                    each.operation,
                    place_in(code, each.result),
                    *(place_in(code, operand) for operand in each.operands),
                )
                for each in code.instructions
            )

        def place_in(code: Code, operand: Operand) -> int:
            where = code.places[operand] if isinstance(operand, int) else operand
            return _LAYOUT["temporary"] + where if isinstance(where, int) else places[where]

        return _core.Formula(
            rule=rule,
            slots=tuple(names.state),
            positive=tuple(self.positive),
            exact=tuple(self.exact),
            hyperparameters=tuple(names.hyperparameters),
            scalars=tuple(names.numbers),
            literals=tuple(each.arguments[0] for each in literals),
            numbers=tuple(operations),
            constants=tuple((index[id(each.number)], each.form) for each in constants),
            becomes=tuple(index[id(each)] for each in self.becomes),
            measure=encoded(self.measure),
            update=encoded(self.update),
            sums=tuple(
                (place_in(self.measure, a), place_in(self.measure, b), total.arguments[2])
                for total, a, b in self.sums
            ),
        )


def compiled(algebra: Algebra, positive: Sequence[str], exact: Sequence[str]) -> Program:
    """Return the program of a formula."""
    names, becomes = algebra.names, algebra.becomes
    arrays = {name: becomes[name] for name in becomes if name in (PARAMETER, *names.state)}
    numbers = [each for name in names.numbers if isinstance(each := becomes[name], Number)]
    everything = reached([*arrays.values(), *numbers])
    totals = [each for each in everything if isinstance(each, Number) and each.operation == "sum"]
    writer = _Writer(algebra, [node for each in totals for node in each.arguments[:2]])
    sums: list[tuple[Number, Operand, Operand]] = []
    for each in totals:
        first, second, _ = each.arguments
        one: Operand = Constant(algebra.literal(1.0))
        factors_of = [one if node is None else writer.node(node) for node in (first, second)]
        sums.append((each, factors_of[0], factors_of[1]))
    factors = [each for _, a, b in sums for each in (a, b) if isinstance(each, int)]
    measure = Code(writer.instructions)
    _place(measure, factors)
    writer = _Writer(algebra, list(arrays.values()))
    update = _stored(writer.instructions, {n: writer.value(v) for n, v in arrays.items()})
    _place(update, [])
    return Program(algebra, positive, exact, measure, update, sums, numbers)


class _Writer:
    """Writes the instructions that values take, the operations that belong together as one.

    Parameters
    ----------
    algebra
        The formula.
    roots
        All values that will be asked for.
    """

    def __init__(self, algebra: Algebra, roots: Sequence[Value | Node | None]) -> None:
        self.instructions: list[Instruction] = []
        self._algebra = algebra
        self._signs = Signs(algebra.names, {*algebra.names.state})
        self._written: dict[tuple[int, int], Operand] = {}
        self._uses = Counter(
            id(argument.of if isinstance(argument, Term) else argument)
            for each in reached(roots, into_sums=False)
            for argument in each.arguments
            if isinstance(argument, (Term, Node))
        )
        self._uses.update(id(each.of if isinstance(each, Term) else each) for each in roots)

    def value(self, value: Value) -> Operand:
        """Return where a value is found."""
        if isinstance(value, Number):
            return Constant(value)
        factor, of = value
        return self.node(of) if factor is None else self._scaled(factor, of)

    def node(self, node: Node) -> Operand:
        """Return where elements are found."""
        if node.operation == "array":
            name: str = node.arguments[0]
            return name
        return self._once((0, id(node)), lambda: self._new(node))

    def _once(self, key: tuple[int, int], write: Callable[[], Operand]) -> Operand:
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]

    def _write(self, operation: str, *operands: Operand) -> Operand:
        self.instructions.append(Instruction(operation, len(self.instructions), operands))
        return self.instructions[-1].result

    def _constant(self, number: Number | None) -> Constant:
        return Constant(self._algebra.literal(1.0) if number is None else number)

    def _is_part(self, node: Node, operation: str) -> bool:
        """Return whether elements are of that operation, and nobody else's."""
        return node.operation == operation and self._uses[id(node)] == 1

    def _scaled(self, factor: Number, node: Node) -> Operand:
        def write() -> Operand:
            constant = Constant(factor)
            if self._is_part(node, "divide"):
                return self._write("product_over", constant, *map(self.node, node.arguments))
            if self._is_part(node, "reciprocal"):
                return self._write("divide", constant, self.node(node.arguments[0]))
            return self._write("multiply", constant, self.node(node))

        return self._once((id(factor), id(node)), write)

    def _new(self, node: Node) -> Operand:
        arguments = node.arguments
        match node.operation:
            case "add":
                return self._sum(*arguments)
            case "divide" if self._is_part(arguments[0], "multiply"):
                numerator = map(self.node, arguments[0].arguments)
                return self._write("product_over", *numerator, self.node(arguments[1]))
            case "reciprocal":
                return self._write("divide", self._constant(None), self.node(arguments[0]))
            case "power":
                return self._write(
                    "power", self.value(arguments[0]), Constant(arguments[1], "exponent")
                )
            case "multiply" | "divide":
                return self._write(node.operation, *map(self.node, arguments))
        return self._write(node.operation, *map(self.value, arguments))

    def _decay_of(self, value: Value) -> Number | None:
        """Return of which share of state a value is; long sums tell its distance from 1."""
        if isinstance(value, Number) or value.of.operation != "array":
            return None
        is_state = value.of.arguments[0] in self._algebra.names.state
        is_rate = value.factor is not None and value.factor.literal != -1
        return value.factor if is_state and is_rate else None

    def _sum(self, a: Value, b: Value) -> Operand:
        for one, other in ((a, b), (b, a)):
            if (average := self._average(one, other)) is not None:
                return average
        for one, other in ((a, b), (b, a)):
            rate = self._decay_of(one)
            if rate is not None and isinstance(one, Term) and isinstance(other, Term):
                decay = Constant(rate, "decay")
                return self._write("decay_add", self.node(one.of), self.value(other), decay)
        for one, other in ((b, a), (a, b)):
            if (written := self._joined(one, other)) is not None:
                return written
        return self._write("add", self.value(a), self.value(b))

    def _joined(self, one: Value, other: Value) -> Operand | None:
        """Write a sum together with the operation that one of the two is made by."""
        if isinstance(one, Number):
            return None
        factor, of = one
        if self._is_part(of, "root") and isinstance(other, Number) and factor is None:
            inside = of.arguments[0]
            if isinstance(inside, Number):
                return None
            constant = self._constant(inside.factor)
            return self._write("root_add", constant, self.node(inside.of), Constant(other))
        if self._is_part(of, "divide"):
            numerator, denominator = of.arguments
            product: tuple[Operand, Operand]
            if factor is None and self._is_part(numerator, "multiply"):
                first, second = numerator.arguments
                product = (self.node(first), self.node(second))
            else:
                product = (self._constant(factor), self.node(numerator))
            value = self.value(other)
            if (root := self._root(denominator)) is not None:
                return self._write("add_product_over_root", value, *product, *root)
            return self._write("add_product_over", value, *product, self.node(denominator))
        if factor is not None:
            if factor.literal == -1:
                return self._write("subtract", self.value(other), self.node(of))
            return self._write("multiply_add", Constant(factor), self.node(of), self.value(other))
        if self._is_part(of, "multiply"):
            return self._write("multiply_add", *map(self.node, of.arguments), self.value(other))
        return None

    def _root(self, node: Node) -> tuple[Operand, Operand, Operand] | None:
        """Return a, b and c where elements are sqrt(a * b) + c, and nobody else's."""
        if not self._is_part(node, "add"):
            return None
        for root, number in (node.arguments, node.arguments[::-1]):
            if not isinstance(root, Term) or not isinstance(number, Number):
                continue
            inside = root.of.arguments[0]
            is_root = root.factor is None and self._is_part(root.of, "root")
            if is_root and isinstance(inside, Term):
                factor = self._constant(inside.factor)
                return factor, self.node(inside.of), Constant(number)
        return None

    def _average(self, mean: Value, other: Value) -> Operand | None:
        """Write the average of two whose factors are a rate and one less that rate."""
        if isinstance(mean, Number) or isinstance(other, Number):
            return None
        rate, share = mean.factor, other.factor
        if rate is None or share is None:
            return None
        rest = self._without_complement(share, rate)
        if rest is None:
            return None
        factor = None if rest.literal == 1 else rest
        constant, old = Constant(rate, "average"), self.node(mean.of)
        if not self._signs.certain(Term(factor, other.of)):
            new = self.value(Term(factor, other.of))
            return self._write("average", old, new, constant)
        if factor is None and self._is_part(other.of, "multiply"):
            squares = map(self.node, other.of.arguments)
            return self._write("average_of_squares", old, *squares, constant)
        new = self.value(Term(factor, other.of))
        return self._write("average_of_squares", old, new, self._constant(None), constant)

    def _without_complement(self, number: Number, rate: Number) -> Number | None:
        """Return a product without its factor 1 - rate; None where it has none."""
        if number.literal is not None and rate.literal is not None:
            is_complement = abs(number.literal + rate.literal - 1) < 1e-15 and rate.literal >= 0.5
            return self._algebra.literal(1.0) if is_complement else None
        if number.operation == "subtract":
            one, other = number.arguments
            return self._algebra.literal(1.0) if one.literal == 1 and other is rate else None
        if number.operation not in ("multiply", "divide"):
            return None
        first, second = number.arguments
        operator = {"multiply": "*", "divide": "/"}[number.operation]
        rest, found = self._without_complement(first, rate), None
        if rest is not None:
            found = self._algebra.operate(operator, rest, second)
        elif number.operation == "multiply":
            rest = self._without_complement(second, rate)
            found = None if rest is None else self._algebra.operate("*", first, rest)
        return found if isinstance(found, Number) else None


def _stored(instructions: list[Instruction], results: Mapping[str, Operand]) -> Code:
    """Return code that leaves results in arrays: at once where nobody reads those any more."""
    code = Code(instructions)
    last_read: dict[Operand, int] = {}
    for k, each in enumerate(instructions):
        last_read.update(dict.fromkeys(each.operands, k))
    before: list[Instruction] = []
    after: list[Instruction] = []
    count = len(instructions)
    for name, result in results.items():
        if result == name:
            continue
        is_free = isinstance(result, int) and result not in code.places
        if isinstance(result, int) and is_free and last_read.get(name, -1) <= result:
            code.places[result] = name
            continue
        if isinstance(result, str) and result in results and results[result] != result:
            before.append(Instruction("copy", count, (result,)))
            result, count = count, count + 1
        after.append(Instruction("copy", count, (result,)))
        code.places[count] = name
        count += 1
    code.instructions = [*before, *instructions, *after]
    return code


def _place(code: Code, kept: Sequence[int]) -> None:
    """Find temporaries for all results that have no place yet; those kept are read at the end."""
    last_read = {
        operand: k
        for k, each in enumerate(code.instructions)
        for operand in (each.result, *each.operands)
        if isinstance(operand, int)
    }
    last_read.update(dict.fromkeys(kept, len(code.instructions)))
    free = list(range(_LAYOUT["temporaries"]))[::-1]
    for k, each in enumerate(code.instructions):
        for operand in {o for o in each.operands if isinstance(o, int)}:
            place = code.places[operand]
            if last_read[operand] == k and isinstance(place, int):
                free.append(place)
        if each.result in code.places:
            continue
        if not free:
            raise ValueError(
                f"formula: expected at most {_LAYOUT['temporaries']} results of operations that "
                "are needed at the same time; store some in state, or compute them where they "
                "are needed"
            )
        code.places[each.result] = free.pop()
        if last_read[each.result] == k:
            free.append(int(code.places[each.result]))
