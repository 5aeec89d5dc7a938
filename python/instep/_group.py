"""Groups of parameters with hyperparameters of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instep._kinds import shown

if TYPE_CHECKING:
    from instep._memory import Array

Where = Any
"""What selects arrays: see `selected`."""

_ROOT = "params"
"""What all paths begin with: what is found there alone is found in none of them."""
_PART = re.compile(r"""(\[('[^']*'|"[^"]*"|\d+)\])+""")
"""A part of a path, which means itself."""


class Group:
    """Arrays with hyperparameters of their own.

    Inside the structure given to an optimizer it stands for a leaf or sub-tree, and shows neither
    in gradients nor in paths, `params` and `state`. In an optimizer's `groups=[...]` it says which
    arrays it is for. Of groups inside each other the inner one wins, of those in `groups=` the
    later one.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict; callable, str or re.Pattern
        The arrays of the group. In `groups=`: a predicate ``(path, array) -> bool``, a path of an
        array or sub-tree such as ``params['encoder'][0]``, a part of one in its brackets such as
        ``['encoder']``, or a regular expression searched in what comes after ``params``.
    name : str, optional
        What ``optimizer.groups[name]`` finds it by.
    **options
        The rule's hyperparameters, `learning_rate`, `learning_rate_factor`, `l2`, `weight_decay`,
        `independent_weight_decay`, `clipnorm`, `clipvalue`, `maximize`, `sparse`, `rounding`,
        `state_dtype`. Anything else is a ValueError when an optimizer is built with it.

    Examples
    --------
    >>> import instep, numpy as np
    >>> w, b = np.ones((3, 2)), np.zeros(2)
    >>> opt = instep.AdamW([w, instep.Group(b, weight_decay=0.0)])
    >>> [group["weight_decay"] for group in opt.groups]
    [0.01, 0.0]
    >>> vectors = instep.Group(lambda path, array: array.ndim < 2, weight_decay=0.0, name="vectors")
    >>> opt = instep.AdamW({"w": w, "b": b}, groups=[vectors])
    >>> opt.groups["vectors"]["weight_decay"]
    0.0
    """

    __slots__ = ("name", "options", "params")

    def __init__(self, params: Any, *, name: Any = None, **options: Any) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a str, got {shown(name)}")
        self.params = params
        self.name: str | None = name
        self.options = options

    def __repr__(self) -> str:
        options = {} if self.name is None else {"name": self.name}
        options.update(self.options)
        shown_options = "".join(f", {name}={value!r}" for name, value in options.items())
        return f"Group({self.params!r}{shown_options})"


def selected(
    where: Where, paths: Sequence[str], leaves: Sequence[Array], what: str, *, some: bool = True
) -> list[bool]:
    """Return which arrays are meant.

    Parameters
    ----------
    where
        A predicate ``(path, array) -> bool``; a path of an array or sub-tree, a part of one in its
        brackets, or a regular expression searched in the paths; an array; or several of these.
    paths, leaves
        The arrays that there are.
    what
        What errors call `where`.
    some
        Whether it must be for one array at least.

    Raises
    ------
    TypeError, ValueError
        If it is nothing of that, or for none of them.
    """
    is_meant = _predicate(where, paths, what)
    found = []
    for path, leaf in zip(paths, leaves, strict=True):
        answer = is_meant(path, leaf)
        if not isinstance(answer, (bool, np.bool_)):
            raise TypeError(f"{what}: expected True or False for {path}, got {shown(answer)}")
        found.append(bool(answer))
    if some and not any(found):
        few = ", ".join(paths[:4])
        raise ValueError(
            f"{what}: expected to select some array, got {shown(where)}, which selects none of "
            f"{few}{f' and {len(paths) - 4} more' if len(paths) > 4 else ''}"
        )
    return found


def ignoring(where: Where) -> Callable[[str, Any], bool] | None:
    """Return whether an object in a structure is none of the parameters, by its path and itself.

    Raises
    ------
    TypeError, ValueError
        If `where` is nothing that selects, or its answer is not True or False.
    """
    if where is None:
        return None

    def is_ignored(path: str, leaf: Any) -> bool:
        answer = _predicate(where, [path], "ignore")(path, leaf)
        if not isinstance(answer, (bool, np.bool_)):
            raise TypeError(f"ignore: expected True or False for {path}, got {shown(answer)}")
        return bool(answer)

    return is_ignored


def _predicate(where: Where, paths: Sequence[str], what: str) -> Callable[[str, Any], Any]:
    if isinstance(where, np.ndarray):
        return lambda path, leaf: (
            leaf is where
            or (
                leaf.size > 0
                and leaf.dtype == where.dtype
                and leaf.shape == where.shape
                and leaf.__array_interface__["data"] == where.__array_interface__["data"]
                and leaf.strides == where.strides
            )
        )
    if isinstance(where, str):
        # Brackets of a path would be a set of characters in a regular expression.
        if any(path == where or path.startswith(f"{where}[") for path in paths):
            return lambda path, _: path == where or path.startswith(f"{where}[")
        try:
            where = re.compile(re.escape(where) if _PART.fullmatch(where) else where)
        except re.error as error:
            raise ValueError(
                f"{what}: expected a path or a regular expression, got {where!r} ({error})"
            ) from None
    if isinstance(where, re.Pattern):
        pattern = where
        return lambda path, _: _is_found(pattern, path)
    if callable(where):
        return where  # type: ignore[no-any-return]
    if isinstance(where, Iterable) and not isinstance(where, (bytes, dict)):
        each = [_predicate(item, paths, f"{what}[{k}]") for k, item in enumerate(where)]
        # No generator, which an interruption would leave half-way.
        return lambda path, leaf: any([is_meant(path, leaf) for is_meant in each])  # noqa: C419
    raise TypeError(
        f"{what}: expected a predicate (path, array) -> bool, a path or a regular expression, or "
        f"arrays, got {shown(where)}"
    )


def _is_found(pattern: re.Pattern[str], path: str) -> bool:
    """Return whether a path has a match that ends after the root, if it is not all."""
    # No generator, which an interruption would leave half-way.
    return any([found.end() > len(_ROOT) or path == _ROOT for found in pattern.finditer(path)])  # noqa: C419
