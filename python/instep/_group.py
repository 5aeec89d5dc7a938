"""Groups of parameters with hyperparameters of their own."""

from __future__ import annotations

from typing import Any


class Group:
    """A leaf or sub-tree of the parameters with hyperparameters of its own.

    Inside the structure given to an optimizer it stands for the sub-tree. It shows neither in
    gradients nor in paths, `params` and `state`. Of groups inside each other the inner one wins.

    Parameters
    ----------
    params : ndarray or nesting of list, tuple and dict
        The arrays of the group.
    **options
        The rule's hyperparameters, `learning_rate`, `l2`, `weight_decay`, `clipnorm`,
        `clipvalue`, `maximize`. Anything else is a ValueError when an optimizer is built with it.

    Examples
    --------
    >>> import instep, numpy as np
    >>> w, b = np.ones((3, 2)), np.zeros(2)
    >>> opt = instep.AdamW([w, instep.Group(b, weight_decay=0.0)])
    >>> [group["weight_decay"] for group in opt.groups]
    [0.01, 0.0]
    """

    __slots__ = ("options", "params")

    def __init__(self, params: Any, **options: Any) -> None:
        self.params = params
        self.options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Group({self.params!r}{options})"
