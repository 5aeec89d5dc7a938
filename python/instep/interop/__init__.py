"""Optimizer state from and to other frameworks: training goes on there, or here.

No framework is imported: plain dicts and lists of ndarrays go in and come out. Parameters are the
caller's to copy; arrays of other layouts, transposed ones say, are not converted.

From and to PyTorch, `torch_opt` being a `torch.optim` optimizer and `arrays` those of `opt`, an
optimizer with ``convention="torch"``, in the order in which `torch_opt` was given its own::

    interop.from_torch(opt, torch_opt.state_dict(), order=arrays)

    d = interop.to_torch(opt, order=arrays)
    for slots in d["state"].values():
        slots.update({name: torch.as_tensor(slot) for name, slot in slots.items()})
    torch_opt.load_state_dict(d)

State in bfloat16 comes and goes like that, too, and what torchao keeps in 8 bits comes. From and to
an 8-bit Adam of bitsandbytes, `bnb_opt`, which has stepped, `opt` being an `AdamW`::

    interop.from_bitsandbytes(opt, bnb_opt.state_dict(), order=arrays)

    d = interop.to_bitsandbytes(opt, bnb_opt.state_dict(), order=arrays)
    bnb_opt.load_state_dict(torch.utils._pytree.tree_map_only(np.ndarray, torch.as_tensor, d))

From and to Keras, `keras_opt` being a `keras.optimizers` optimizer that is built and `opt` one with
``convention="keras"`` and the same hyperparameters::

    variables = [(v.path, np.asarray(v)) for v in keras_opt.variables]
    interop.from_keras(opt, variables, order=arrays)

    for variable, array in zip(keras_opt.variables, interop.to_keras(opt, order=arrays)):
        variable.assign(array)

From what Keras saved::

    with h5py.File("model.weights.h5") as file:  # also in the archive that a .keras file is
        interop.from_keras(opt, file)

From and to Optax, `tx` being the transformation, `state` its state and `opt` an optimizer of the
same rule with ``convention="optax"``, whose arrays have the structure of the parameters::

    interop.from_optax(opt, state)  # or what flax's msgpack_restore makes of its bytes

    state = interop.to_optax(opt, tx.init(params))

From and to TensorFlow.js, `weights` being what `getWeights` gives there, as JSON carries it, `opt`
one with ``convention="tfjs"`` and `arrays` in the order of the variables::

    interop.from_tfjs(opt, weights, order=arrays)

    plain = [{**w, "tensor": w["tensor"].tolist()} for w in interop.to_tfjs(opt, order=arrays)]
    // optimizer.setWeights(plain.map(w => ({...w, tensor: tf.tensor(w.tensor)})))

To a safetensors file, which other programs read, and back (``pip install safetensors``)::

    interop.to_safetensors(opt, "checkpoint.safetensors")
    interop.from_safetensors(opt, "checkpoint.safetensors")

Examples
--------
>>> import numpy as np
>>> import instep
>>> from instep import interop
>>> w, b = np.ones((2, 3)), np.zeros(2)
>>> opt = instep.Adam({"w": w, "b": b}, convention="torch")
>>> opt.step({"w": np.ones((2, 3)), "b": np.ones(2)})
>>> d = interop.to_torch(opt, order=[w, b])
>>> d["param_groups"][0]["betas"], d["param_groups"][0]["params"]
((0.9, 0.999), [0, 1])
>>> d["state"][1]["exp_avg"]
array([0.1, 0.1])
>>> interop.from_torch(opt, d, order=[w, b])
"""

from instep.interop._bitsandbytes import from_bitsandbytes, to_bitsandbytes
from instep.interop._keras import from_keras, to_keras
from instep.interop._optax import from_optax, to_optax
from instep.interop._safetensors import from_safetensors, to_safetensors
from instep.interop._tfjs import from_tfjs, to_tfjs
from instep.interop._torch import from_torch, to_torch

__all__ = [
    "from_bitsandbytes",
    "from_keras",
    "from_optax",
    "from_safetensors",
    "from_tfjs",
    "from_torch",
    "to_bitsandbytes",
    "to_keras",
    "to_optax",
    "to_safetensors",
    "to_tfjs",
    "to_torch",
]
