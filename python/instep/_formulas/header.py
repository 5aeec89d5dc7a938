"""From a program to the C++ of a built-in rule: a header as in cpp/rules, and its row."""

from __future__ import annotations

import re

from instep._formulas.algebra import PARAMETER, RATE, STEP, Number
from instep._formulas.program import Code, Constant, Operand, Program

_NUMBERS = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "root": "sqrt({})",
    "absolute": "__builtin_fabs({})",
    "sign": "({0} > 0 ? 1 : {0} < 0 ? -1 : {0})",
    "maximum": "({0} < {1} ? {1} : {0})",
    "minimum": "({1} < {0} ? {1} : {0})",
    "less": "double({} < {})",
    "less_equal": "double({} <= {})",
    "equal": "double({} == {})",
    "where": "({} > 0 ? {} : {})",
    "power": "real_power({}, {})",
    "complement_of_power": "complement_of_power({}, now.step)",
}
_ELEMENTS = {
    "copy": "{}",
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "maximum": "max({}, {})",
    "minimum": "select({1} < {0}, {1}, {0})",
    "less": "select({} < {}, V(1), V(0))",
    "less_equal": "select({} <= {}, V(1), V(0))",
    "equal": "select({0} <= {1}, select({1} <= {0}, V(1), V(0)), V(0))",
    "root": "sqrt({})",
    "absolute": "abs({})",
    "sign": "sign({})",
    "where": "select(V(0) < {}, {}, {})",
    "multiply_add": "{} * {} + {}",
    "root_add": "sqrt({} * {}) + {}",
    "product_over": "{} * {} / {}",
    "add_product_over": "{} + {} * {} / {}",
    "add_product_over_root": "{} + {} * {} / (sqrt({} * {}) + {})",
    "average": "{2}({0}, {1})",
    "average_of_squares": "{3}.of_squares({0}, {3}.share({1} * {2}))",
    "decay_add": "{2} * {0} + {1}",
    "power": "real_power({}, {})",
}
_TYPES = {"number": "T", "average": "Average<T>", "decay": "Decay<T>", "exponent": "double"}


_TAKEN = frozenset(
    {
        *("T", "V", "alignas", "alignof", "asm", "auto", "bool", "break", "case", "catch", "char"),
        *("class", "const", "continue", "default", "delete", "do", "double", "else", "enum"),
        *(
            "explicit",
            "export",
            "extern",
            "false",
            "float",
            "for",
            "friend",
            "goto",
            "if",
            "inline",
        ),
        *("int", "long", "mutable", "namespace", "new", "operator", "private", "protected"),
        *("public", "register", "requires", "return", "short", "signed", "sizeof", "static"),
        *("struct", "switch", "template", "this", "throw", "true", "try", "typedef", "typename"),
        *("union", "unsigned", "using", "virtual", "void", "volatile", "while", "xor"),
    }
)


def _identifier(name: str) -> str:
    """Return what an array is called in C++."""
    return f"{name}_" if name in _TAKEN else name


def kernel_name(rule: str) -> str:
    """Return what the kernel of a class is called: qh_adam of QHAdam."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", rule).lower()


def header(rule: str, program: Program) -> str:
    """Return the header.

    Raises
    ------
    ValueError
        If the rule has sums, whose built-in form is to be written by hand.
    """
    if program.sums:
        raise ValueError(f"{rule} has sums: see cpp/rules/lamb.h for how built-in rules have them")
    return "\n".join(_Header(_identifier(rule), program).lines())


def row(rule: str) -> str:
    """Return the row of rules/table.h."""
    return f'row("{kernel_name(rule)}", {_identifier(rule)})'


class _Header:
    def __init__(self, rule: str, program: Program) -> None:
        self._rule, self._program = rule, program
        self._constants = {each: f"constant_{k}" for k, each in enumerate(program.constants(), 1)}

    def lines(self) -> list[str]:
        program, names = self._program, self._program.algebra.names
        slots = ", ".join(
            f'positive("{name}")' if name in program.positive else f'"{name}"'
            for name in names.state
        )

        def quoted(all_names: object) -> str:
            return ", ".join(f'"{name}"' for name in all_names)  # type: ignore[attr-defined]

        lines = [
            "#pragma once",
            '#include "rules/vocabulary.h"',
            "",
            "namespace instep::INSTEP_LEVEL {",
            "",
            "template <class T>",
            f"struct {self._rule} {{",
            f"    static constexpr auto slots = state({slots});",
            f"    static constexpr auto hyperparameters = names({quoted(names.hyperparameters)});",
        ]
        if names.numbers:
            lines.append(f"    static constexpr auto scalars = names({quoted(names.numbers)});")
        lines += ["", *(f"    {_TYPES[c.form]} {name};" for c, name in self._constants.items()), ""]
        lines += [
            f"    explicit {self._rule}([[maybe_unused]] const Numbers<{self._rule}>& now) {{",
            *(f"        {line}" for line in self._numbers()),
            "    }",
            "",
            "    template <Number V>",
            f"    INSTEP_INLINE void operator()({self._arguments()}) const {{",
            *(f"        {line}" for line in self._elements(program.update)),
            "    }",
            "};",
            "",
            "}  // namespace instep::INSTEP_LEVEL",
        ]
        return lines

    def _arguments(self) -> str:
        state = (f", V& {_identifier(name)}" for name in self._program.algebra.names.state)
        return f"V& p, V g{''.join(state)}"

    def _numbers(self) -> list[str]:
        program, lines = self._program, []
        shown: dict[int, str] = {}
        count = 0
        for each in program.numbers():
            if each.operation in ("literal", "input"):
                shown[id(each)] = self._input(each)
                continue
            count += 1
            arguments = [shown[id(argument)] for argument in each.arguments]
            lines.append(f"const double n{count} = {_NUMBERS[each.operation].format(*arguments)};")
            shown[id(each)] = f"n{count}"
        for constant, name in self._constants.items():
            number = shown[id(constant.number)]
            is_average = constant.form == "average"
            lines.append(f"{name} = {f'now.average({number})' if is_average else number};")
        for name, number_of in zip(program.algebra.names.numbers, program.becomes, strict=True):
            lines.append(f'now.scalar("{name}") = {shown[id(number_of)]};')
        return lines

    def _input(self, number: Number) -> str:
        value = number.arguments[0]
        if number.operation == "literal":
            return f"{value!r}"
        if value in self._program.algebra.names.numbers:
            return f'now.scalar("{value}")'
        return {RATE: "now.learning_rate", STEP: "double(now.step)"}.get(value, f'now["{value}"]')

    def _elements(self, code: Code) -> list[str]:
        lines, known = [], {PARAMETER, *map(_identifier, self._program.algebra.names.state)}

        def name_of(operand: Operand) -> str:
            if isinstance(operand, Constant):
                name = self._constants[operand]
                return f"V({name})" if operand.form == "number" else name
            place = code.places[operand] if isinstance(operand, int) else operand
            return _identifier(place) if isinstance(place, str) else f"x{place}"

        for each in code.instructions:
            to = name_of(each.result)
            value = _ELEMENTS[each.operation].format(*map(name_of, each.operands))
            lines.append(f"{'' if to in known else 'V '}{to} = {value};")
            known.add(to)
        return lines
