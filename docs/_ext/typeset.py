"""Formulas as LaTeX, from the Python in which documentation and `instep.gallery` have them."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

_GREEK = {"alpha", "beta", "delta", "epsilon", "eta", "gamma", "lambda", "mu", "nu", "rho"}
_NAMES = {"learning_rate": r"\mathrm{lr}", "lr": r"\mathrm{lr}", "lambd": r"\lambda", "step": "t"}
_SUBSCRIPTS = {"inf": r"\infty", "plus": "+", "minus": "-"}
_ACCENTS = {"hat", "bar"}
_COMPARISONS: dict[type, str] = {
    ast.Lt: "<",
    ast.LtE: r"\le",
    ast.Gt: ">",
    ast.GtE: r"\ge",
    ast.Eq: "=",
    ast.NotEq: r"\ne",
}
_ASSIGNMENT = re.compile(r"(?s)\s*([^=<>!]+?)\s+([-+*/]?)=\s+(.+?)\s*")
_LITERAL = re.compile(r"(?m)^::\n\n((?: {4}.+\n?)+)")
_CODE = re.compile(r"``([^`]+)``")
_WORD = re.compile(r"\w{2,}|\w+=\w+")
"""Code that is no formula: a name, or an argument by its name."""
_LONG = 24
"""From how many characters on a formula has lines of its own."""
_SUM, _PRODUCT, _POWER, _ATOM = range(4)
"""How tightly the parts of an expression hold together."""


def is_assignment(source: str) -> bool:
    """Return whether a formula gives something a new value."""
    return _ASSIGNMENT.fullmatch(source) is not None


def latex(source: str, mark: str = "") -> str:
    """Return the LaTeX of an expression or an assignment.

    Parameters
    ----------
    source : str
        Such as ``p -= lr * m / (sqrt(v) + epsilon)``.
    mark : str, optional
        What stands before the arrow of an assignment, such as the ``&`` that aligns.

    Raises
    ------
    ValueError
        If it is none.
    """
    assignment = _ASSIGNMENT.fullmatch(source)
    if assignment is None:
        return _expression(source)[0]
    target, operator, value = assignment.groups()
    name = _expression(target)[0]
    new = _expression(f"{target} {operator} ({value})" if operator else value)[0]
    return rf"{name} {mark}\leftarrow {new}"


def block(sources: Sequence[str]) -> list[str]:
    """Return the lines of reStructuredText that show assignments below each other."""
    rows = " \\\\\n".join(latex(source, "&") for source in sources)
    text = f"\\begin{{aligned}}\n{rows}\n\\end{{aligned}}"
    return ["", ".. math::", "", *(f"   {line}" for line in text.split("\n")), ""]


def documentation(text: str) -> str:
    """Return a docstring in which the formulas above the parameters are typeset.

    Assignments with nothing in between get lines of their own, unless they are short.
    """
    before, heading, after = text.partition("\n\nParameters\n---")
    before = _LITERAL.sub(lambda lines: "\n".join(block(lines[1].splitlines())), before)
    result, *pieces = _CODE.split(before)  # then code and prose in turns
    run: list[str] = []
    for code, prose in zip(pieces[::2], pieces[1::2], strict=True):
        run.append(code)
        are_steps = all(map(is_assignment, run))
        if are_steps and prose.strip() in (";", ","):
            continue
        if are_steps and max(map(len, run)) >= _LONG:
            prose = re.sub(r"\A[;,.:]?\s*", "", prose)
            result = "\n".join([result.rstrip(), *block(run), prose])
        else:
            result += "; ".join(map(_inline, run)) + prose
        run = []
    return f"{result}{heading}{after}"


def _inline(code: str) -> str:
    if _WORD.fullmatch(code):
        return f"``{code}``"
    return f":math:`{latex(code)}`"


def _expression(source: str) -> tuple[str, int]:
    try:
        tree = ast.parse(" ".join(source.split()), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"formula: expected an expression, got {source!r}") from error
    return _of(tree.body)


def _of(node: ast.expr) -> tuple[str, int]:
    """Return the LaTeX of an expression, and how tightly it holds together."""
    match node:
        case ast.Constant(value=value):
            return (r"\ldots" if value is Ellipsis else _number(value)), _ATOM
        case ast.Name(id=name):
            return _name(name), _ATOM
        case ast.Attribute(value=value, attr="T"):
            return f"{_within(value, _ATOM)}^\\top", _POWER
        case ast.Subscript(value=value, slice=index):
            return f"{_of(value)[0]}_{{{_of(index)[0]}}}", _ATOM
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"-{_within(operand, _PRODUCT)}", _SUM
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return rf"\text{{not }} {_within(operand, _PRODUCT)}", _SUM
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return f"{_of(left)[0]} + {_of(right)[0]}", _SUM
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return f"{_of(left)[0]} - {_within(right, _PRODUCT)}", _SUM
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"{_within(left, _ATOM)}^{{{_of(right)[0]}}}", _POWER
        case ast.BinOp():
            above, below = _factors(node)
            if below:
                return rf"\frac{{{_product(above)}}}{{{_product(below)}}}", _PRODUCT
            return _product(above), _PRODUCT
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            sign = _COMPARISONS[type(operator)]
            return f"{_of(left)[0]} {sign} {_of(right)[0]}", _SUM
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _call(name, arguments)
    raise ValueError(f"formula: expected arithmetic, got {ast.unparse(node)!r}")


def _within(node: ast.expr, least: int) -> str:
    """Return the LaTeX of a part, in brackets unless it holds together at least so tightly."""
    text, tightness = _of(node)
    return text if tightness >= least else rf"\left({text}\right)"


def _factors(node: ast.expr) -> tuple[list[ast.expr], list[ast.expr]]:
    """Return what is multiplied, and what that is divided by."""
    match node:
        case ast.BinOp(left=left, op=ast.Mult() | ast.MatMult(), right=right):
            (above, below), (more_above, more_below) = _factors(left), _factors(right)
            return above + more_above, below + more_below
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            (above, below), (more_below, more_above) = _factors(left), _factors(right)
            return above + more_above, below + more_below
    return [node], []


def _product(factors: Sequence[ast.expr]) -> str:
    if len(factors) == 1:
        return _of(factors[0])[0]
    parts = [_within(factor, _PRODUCT) for factor in factors]
    text = parts[0]
    for part in parts[1:]:
        text += rf" \cdot {part}" if part[0].isdigit() else rf" \, {part}"
    return text


def _number(value: object) -> str:
    mantissa, _, exponent = f"{value:g}".partition("e")
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else rf"{mantissa} \cdot {power}"


def _name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    base, *others = name.split("_")
    if len(base) > 1 and base not in _GREEK:
        return rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"
    symbol = rf"\{base}" if base in _GREEK else base
    subscripts = []
    for each in others:
        if each in _ACCENTS:
            symbol = rf"\{each}{{{symbol}}}"
        else:
            is_short = each.isdigit() or len(each) == 1
            subscripts.append(
                _SUBSCRIPTS.get(each) or (each if is_short else rf"\mathrm{{{each}}}")
            )
    return f"{symbol}_{{{','.join(subscripts)}}}" if subscripts else symbol


def _call(name: str, arguments: Sequence[ast.expr]) -> tuple[str, int]:
    parts = [_of(argument)[0] for argument in arguments]
    match name, parts:
        case "sqrt", [x]:
            return rf"\sqrt{{{x}}}", _ATOM
        case "abs", [x]:
            return rf"\left|{x}\right|", _ATOM
        case "norm", [x, *where]:
            return rf"\left\lVert {x} \right\rVert{_over(where)}", _ATOM
        case "where", [condition, x, y]:
            cases = rf"{x} & \text{{if }} {condition} \\ {y} & \text{{else}}"
            return rf"\begin{{cases}} {cases} \end{{cases}}", _SUM
        case "sum" | "mean" | "rms", [x, *where]:
            return rf"\operatorname{{{name}}}{_over(where)}\left({x}\right)", _ATOM
    function = _name(name) if len(name) == 1 else rf"\operatorname{{{name}}}"
    return rf"{function}\left({', '.join(parts)}\right)", _ATOM


def _over(where: Sequence[str]) -> str:
    """Return what says that a sum is over all arrays, where it is."""
    return r"_{\mathrm{all}}" if where else ""
