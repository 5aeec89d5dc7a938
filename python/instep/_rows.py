"""Gradients of some rows of an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core, _foreign

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from instep._memory import Array
    from instep.typing import Foreign

MEANINGS = ("lazy", "exact")
"""What they mean for other rows, in the order of the engine."""


class Rows:
    """The gradient of some rows of an array, such as those of an embedding table.

    Rows are the parts along the first axis. In the place of a gradient it means that of the rows
    whose ids there are; where an id is repeated, its values are added up in the order of their
    positions. What it means for other rows, the optimizer's `sparse` says.

    Parameters
    ----------
    ids : array_like of int
        Which rows, in any shape and order: from 0 on.
    values : ndarray
        Their gradients, of the shape ``ids.shape + param.shape[1:]`` and any dtype that gradients
        may have. Nothing is copied as long as rows are contiguous.

    Raises
    ------
    TypeError
        If ids are no integers, or values no array. Ids of rows that there are not are a ValueError
        of the step, before anything changes.

    Examples
    --------
    >>> import instep, numpy as np
    >>> table = np.zeros((1000, 2))
    >>> opt = instep.SGD(table, learning_rate=1.0)
    >>> opt.step(instep.Rows([3, 7, 3], np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])))
    >>> table[[3, 7]]
    array([[-6., -8.],
           [-3., -4.]])
    """

    __slots__ = ("ids", "values")

    def __init__(self, ids: ArrayLike, values: Array | Foreign) -> None:
        found = np.asarray(ids)
        if found.size == 0 and not isinstance(ids, np.ndarray):
            found = found.astype(np.intp)  # an empty list has no dtype
        if found.dtype.kind not in "iu":
            raise TypeError(f"ids: expected integers, got dtype {found.dtype}")
        given: Any = values
        is_other = not isinstance(given, np.ndarray)
        if is_other and not (hasattr(given, "__dlpack__") or hasattr(given, "__array__")):
            raise TypeError(f"values: expected an array, got {type(given).__name__}")
        self.ids: Array = found.astype(found.dtype.newbyteorder("="), copy=False)
        self.values: Array = _foreign.gradient(given, "values") if is_other else given

    @classmethod
    def of(cls, gradient: Any) -> Rows:
        """Return what another library has as such a gradient.

        Parameters
        ----------
        gradient : object
            A sparse matrix of SciPy, whose rows that hold anything become rows here; a sparse COO
            tensor of PyTorch with one sparse dimension; anything with `indices` and `values`, such
            as TensorFlow's IndexedSlices; a pair of ids and values; or Rows.

        Raises
        ------
        TypeError, ValueError
            If it is none of those.
        """
        if isinstance(gradient, Rows):
            return gradient
        if isinstance(gradient, (tuple, list)) and len(gradient) == 2:
            return cls(*gradient)
        if hasattr(gradient, "tocsr"):
            return _of_scipy(gradient)
        if getattr(gradient, "is_sparse", False) and callable(getattr(gradient, "_indices", None)):
            if gradient.sparse_dim() != 1:
                raise ValueError(
                    "gradient: expected a sparse tensor with 1 sparse dimension, its rows, got "
                    f"{gradient.sparse_dim()}; make one of them with .to_dense().to_sparse(1)"
                )
            return cls(gradient._indices()[0], gradient._values())
        if hasattr(gradient, "indices") and hasattr(gradient, "values"):
            ids, values = (
                each() if callable(each) else each for each in (gradient.indices, gradient.values)
            )
            return cls(ids, values)
        raise TypeError(
            "gradient: expected a sparse matrix or tensor, or ids and values, got "
            f"{type(gradient).__name__}"
        )

    def dense(self, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> Array:
        """Return the array that means the same: zero in other rows.

        Parameters
        ----------
        shape : tuple of int
            That of the parameter.
        dtype : dtype, optional
            That of the values by default; 16 bits are added up in float32.

        Raises
        ------
        ValueError
            If there are no such rows.
        """
        ids: Any = self.ids
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < shape[0]:
            raise ValueError(f"ids: expected those of rows from 0 to {shape[0] - 1}")
        wanted = np.dtype(self.values.dtype if dtype is None else dtype)
        array = np.zeros(shape, np.float32 if wanted.itemsize < 4 else wanted)
        np.add.at(array, ids.astype(np.intp), self.values)
        return array.astype(wanted, copy=False)

    def __repr__(self) -> str:
        return f"<Rows: {self.ids.size} ids, values {self.values.shape} {self.values.dtype}>"


def _of_scipy(matrix: Any) -> Rows:
    if matrix.ndim == 1:
        coo = matrix.tocoo()
        return Rows(coo.coords[0], coo.data)
    csr = matrix.tocsr()
    ids = np.flatnonzero(np.diff(csr.indptr))
    return Rows(ids, csr[ids].toarray())


_core.know_rows(Rows)
