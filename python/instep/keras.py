"""Keras's optimizers with instep's steps, on the PyTorch and JAX backends.

``instep.keras.Adam(learning_rate=0.001)`` is a `keras.optimizers.Adam` in all but its update: with
PyTorch it is made on the memory of the variables; with JAX in a callback, for which arrays are
copied out of the compiled step and back. Arrays are float32 or float64, on the CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

import instep
from instep import kernels

if TYPE_CHECKING:
    from instep._optimizer import Optimizer as Engine


class _Adapter:
    """Makes the updates of one of Keras's optimizers."""

    _rule: ClassVar[type[Engine]]
    _lists: ClassVar[Mapping[str, str]]
    """Under which attribute Keras has the variables of each slot, in the order of the slots."""
    _signs: ClassVar[Mapping[str, int]] = {}
    """Of slots that Keras has with the other sign."""

    @cached_property
    def _kernel(self) -> Any:
        return kernels.of(self._rule)

    @cached_property
    def _shared(self) -> list[str]:
        """The names of the hyperparameters that Keras's class has, too."""
        known, taken = self._rule._own(), inspect.signature(self._kernel).parameters
        return [name for name in taken if name in known and hasattr(self, name)]

    @cached_property
    def _arrays(self) -> dict[int, tuple[Any, int, Any]]:
        """The tensors of variables, by their id, with their addresses and arrays."""
        return {}

    def _numbers(self) -> dict[str, Any]:
        """Return the hyperparameters of an update."""
        return {name: getattr(self, name) for name in self._shared}

    def _states(self, variable: Any) -> list[Any]:
        """Return the variables of a variable's state, None where it has none."""
        model: Any = self
        index = model._get_variable_index(variable)
        lists = (getattr(self, attribute, None) for attribute in self._lists.values())
        return [each[index] if each else None for each in lists]

    def _update(self, p: Any, g: Any, state: Sequence[Any], rate: float, step: int) -> None:
        """Update arrays in place."""
        flipped = [a for a, slot in zip(state, self._lists, strict=True) if slot in self._signs]
        for array in flipped:
            if array is not None:
                np.negative(array, out=array)
        self._kernel(
            p, g, *state, step=step, learning_rate=rate, convention="keras", **self._numbers()
        )
        for array in flipped:
            if array is not None:
                np.negative(array, out=array)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """Update variables with their gradients; Keras calls it."""
        backend = keras.backend.backend()
        if backend == "torch":
            self._step_in_place(grads, trainable_variables, learning_rate)
        elif backend == "jax":
            self._step_in_callback(grads, trainable_variables, learning_rate)
        else:
            raise ValueError(
                f"KERAS_BACKEND: expected 'torch' or 'jax' for instep.keras, got {backend!r}; use "
                f"keras.optimizers.{type(self).__name__} with it"
            )

    def _step_in_place(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        import torch

        model: Any = self
        rate, step, array_of = float(learning_rate), int(model.iterations) + 1, self._array_of
        for g, variable in zip(grads, variables, strict=True):
            state = [array_of(each) for each in self._states(variable)]
            self._update(array_of(variable), g.detach().numpy(), state, rate, step)
        # Autograd has not seen that the memory was written.
        torch.autograd.graph.increment_version([each._value for each in variables])

    def _array_of(self, variable: Any) -> Any:
        """Return the memory of a variable on PyTorch as an array, which takes longer to make."""
        if variable is None:
            return None
        tensor = variable._value
        seen = self._arrays.get(id(variable))
        if seen is None or seen[0] is not tensor or seen[1] != tensor.data_ptr():
            array = variable.value.detach().numpy()
            self._arrays[id(variable)] = seen = tensor, tensor.data_ptr(), array
        return seen[2]

    def _step_in_callback(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        import jax

        model: Any = self
        states = [self._states(variable) for variable in variables]
        written = [
            [variable, *(each for each in state if each is not None)]
            for variable, state in zip(variables, states, strict=True)
        ]
        shapes = [
            [jax.ShapeDtypeStruct(each.shape, each.value.dtype) for each in group]
            for group in written
        ]

        def stepped(rate: Any, count: Any, gradients: Any, arrays: Any) -> Any:
            new = [[np.array(each) for each in group] for group in arrays]
            for g, group, state in zip(gradients, new, states, strict=True):
                rest = iter(group[1:])
                given = [None if each is None else next(rest) for each in state]
                self._update(group[0], np.asarray(g), given, float(rate), int(count) + 1)
            return new

        results = jax.pure_callback(
            stepped,
            shapes,
            keras.ops.convert_to_tensor(learning_rate),
            keras.ops.convert_to_tensor(model.iterations),
            list(grads),
            [[each.value for each in group] for group in written],
        )
        for group, values in zip(written, results, strict=True):
            for each, value in zip(group, values, strict=True):
                each.assign(value)


_registered = keras.saving.register_keras_serializable("instep")
_MOMENTS = {"m": "_momentums", "v": "_velocities"}


@_registered
class SGD(_Adapter, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with instep's updates."""

    _rule = instep.SGD
    _lists = {"momentum": "momentums"}
    _signs = {"momentum": -1}


@_registered
class Adagrad(_Adapter, keras.optimizers.Adagrad):
    """`keras.optimizers.Adagrad` with instep's updates."""

    _rule = instep.Adagrad
    _lists = {"accumulator": "_accumulators"}


@_registered
class RMSprop(_Adapter, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop` with instep's updates."""

    _rule = instep.RMSprop
    _lists = {
        "mean_square": "_velocities",
        "mean_gradient": "_average_gradients",
        "momentum": "_momentums",
    }


@_registered
class Adadelta(_Adapter, keras.optimizers.Adadelta):
    """`keras.optimizers.Adadelta` with instep's updates."""

    _rule = instep.Adadelta
    _lists = {"mean_square": "_accumulated_grads", "mean_square_update": "_accumulated_delta_vars"}


@_registered
class Adam(_Adapter, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with instep's updates."""

    _rule = instep.Adam
    _lists = {**_MOMENTS, "v_max": "_velocity_hats"}


@_registered
class AdamW(_Adapter, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with instep's updates."""

    _rule = instep.Adam  # Keras has done the decay before
    _lists = {**_MOMENTS, "v_max": "_velocity_hats"}


@_registered
class Adamax(_Adapter, keras.optimizers.Adamax):
    """`keras.optimizers.Adamax` with instep's updates."""

    _rule = instep.Adamax
    _lists = {"m": "_m", "u": "_u"}


@_registered
class Lion(_Adapter, keras.optimizers.Lion):
    """`keras.optimizers.Lion` with instep's updates."""

    _rule = instep.Lion
    _lists = {"m": "_momentums"}


@_registered
class Nadam(_Adapter, keras.optimizers.Nadam):
    """`keras.optimizers.Nadam` with instep's updates."""

    _rule = instep.Nadam
    _lists = {**_MOMENTS, "u_product": "_u_products"}

    @property
    def _u_products(self) -> list[Any]:
        """For each variable the product that all of them share."""
        return [self._u_product] * len(self._momentums)

    def _update(self, p: Any, g: Any, state: Sequence[Any], rate: float, step: int) -> None:
        """Update arrays in place but for the product, which others still need."""
        *moments, product = state
        super()._update(p, g, [*moments, product.astype(np.float64)], rate, step)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """Update variables, and then the product."""
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        step = keras.ops.cast(self.iterations + 1, self._u_product.dtype)
        self._u_product.assign(
            self._u_product * self.beta_1 * (1 - 0.5 * keras.ops.power(0.96, step))
        )


@_registered
class Ftrl(_Adapter, keras.optimizers.Ftrl):
    """`keras.optimizers.Ftrl` with instep's updates."""

    _rule = instep.Ftrl
    _lists = {"accumulator": "_accumulators", "linear": "_linears"}


@_registered
class Lamb(_Adapter, keras.optimizers.Lamb):
    """`keras.optimizers.Lamb` with instep's updates."""

    _rule = instep.Lamb
    _lists = _MOMENTS


@_registered
class ScheduleFreeAdamW(_Adapter, keras.optimizers.ScheduleFreeAdamW):
    """`keras.optimizers.ScheduleFreeAdamW` with instep's updates."""

    _rule = instep.ScheduleFreeAdamW
    _lists = {"z": "_momentums", "v": "_velocities"}

    def _numbers(self) -> dict[str, Any]:
        # Keras's weights follow from the step, and need no state of their own.
        unused = {name: np.zeros(()) for name in ("learning_rate_max", "weight_sum")}
        return {**super()._numbers(), **unused}


@_registered
class Adafactor(_Adapter, keras.optimizers.Adafactor):
    """`keras.optimizers.Adafactor` with instep's updates, which leave a matrix's velocity alone."""

    _rule = instep.Adafactor
    _lists = {"r": "_r", "c": "_c", "v": "_v"}

    def _states(self, variable: Any) -> list[Any]:
        r, c, v = super()._states(variable)
        return [r, c, None] if len(variable.shape) > 1 else [None, None, v]


@_registered
class Muon(_Adapter, keras.optimizers.Muon):
    """`keras.optimizers.Muon` with instep's updates."""

    _rule = instep.Muon
    _lists = {"momentum": "momentums", "v": "adam_velocities"}

    def _numbers(self) -> dict[str, Any]:
        decayed = {"weight_decay": 0.0, "adam_weight_decay": 0.0}  # by Keras, before
        coefficients = (self.muon_a, self.muon_b, self.muon_c)
        return {**super()._numbers(), **decayed, "ns_coefficients": coefficients}

    def _update(self, p: Any, g: Any, state: Sequence[Any], rate: float, step: int) -> None:
        """Update arrays in place, by Adam where Keras does."""
        m, v = state
        if v is not None and p.ndim == 2:  # no matrix to instep, then
            p, g, m, v = p[None], g[None], m[None], v[None]
        super()._update(p, g, [m, v], rate, step)
