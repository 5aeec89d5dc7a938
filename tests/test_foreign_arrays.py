"""Arrays of other libraries, and leaves that are no parameters."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from model import freeze, snapshot

import instep

untyped: Any = instep


class Tensor:
    """What shares its memory, as PyTorch's tensors on the CPU do."""

    def __init__(self, data: Any) -> None:
        self.data = np.asarray(data)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.data

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()


class Copied(Tensor):
    """What NumPy can only have copies of."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.data.copy()


class OnDevice(Tensor):
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("can't convert device memory")

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("not on the CPU")


class LendsOnly(Tensor):
    """What gives its memory, and would have to copy for `__array__`."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("a copy")


def test_gradients_are_lent_not_copied() -> None:
    p = np.zeros(3)
    instep.SGD(p, learning_rate=1.0).step(LendsOnly(np.ones(3)))
    assert p.tolist() == [-1.0] * 3


def test_gradients_that_are_tensors() -> None:
    p, q = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    opt, reference = instep.Adam({"w": p}), instep.Adam({"w": q})
    for grad in (np.full((2, 3), 0.5, np.float32), np.ones((3, 2)).T, np.ones((2, 3), np.float16)):
        opt.step({"w": Tensor(grad)})
        reference.step({"w": grad})
        opt.apply_gradients([(Tensor(grad), p)])
        reference.apply_gradients([(grad, q)])
    opt.step({"w": Copied(np.ones((2, 3)))})
    reference.step({"w": np.ones((2, 3))})
    assert p.tolist() == q.tolist()
    before = snapshot(opt)
    for bad, message in [
        (Tensor(np.ones(2)), r"gradient for params\['w'\]: expected shape"),
        (Tensor(np.ones((2, 3), int)), r"gradient for params\['w'\]: expected"),
        (Tensor(p), r"gradient for params\['w'\].*share"),
        (
            OnDevice(np.ones((2, 3))),
            r"gradient for params\['w'\]: expected an array in memory.*cpu",
        ),
        (np.ma.masked_array(np.ones((2, 3))), r"params\['w'\]"),
        (np.int64(3), r"params\['w'\]"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            opt.step({"w": bad})
        assert snapshot(opt) == before


def test_parameters_that_are_tensors() -> None:
    a, b = Tensor(np.ones(3)), Tensor(np.ones((2, 2), np.float32))
    params: Any = {"a": a, "b": [b]}
    opt = instep.SGD(params, learning_rate=1.0, momentum=0.5)
    grads = {"a": np.ones(3), "b": [Tensor(np.ones((2, 2), np.float32))]}
    opt.step(grads)
    assert a.data.tolist() == [0.0] * 3
    assert not b.data.any()
    assert opt.params is params
    assert opt.groups[0]["params"] == [a, b]
    opt.apply_gradients([(np.ones((2, 2)), b), (np.ones(3), a)])
    assert a.data.tolist() == [-1.5] * 3
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert other.params["a"] is not a
        other.step(grads)
        assert other.params["a"].data.tolist() == [-3.25] * 3
    found = opt.updates(grads)
    assert isinstance(found["a"], np.ndarray)
    assert a.data.tolist() == [-1.5] * 3
    a.data = np.ones(3)
    before = snapshot(opt)
    with pytest.raises(ValueError, match=r"params\['a'\]: expected the array as it was bound"):
        opt.step(grads)
    assert snapshot(opt) == before
    opt.build(params)
    opt.step(grads)
    new = opt.updated(params, grads)
    assert isinstance(new["a"], np.ndarray)


def test_what_cannot_be_updated_in_place() -> None:
    immutable = Tensor(np.ones(3))
    immutable.data.flags.writeable = False
    for bad, message in [
        (
            immutable,
            r"params: expected an array to update in place, got an immutable.*numpy\.array",
        ),
        (Copied(np.ones(3)), r"params: expected an array whose memory NumPy shares.*copies"),
        (OnDevice(np.ones(3)), r"params: expected an array in memory that NumPy can read.*cpu"),
        (Tensor(np.ones(3, int)), r"params: expected"),
    ]:
        with pytest.raises(TypeError, match=message):
            untyped.Adam(bad)
    shared = Tensor(np.ones(3))
    with pytest.raises(ValueError, match=r"share|sum"):
        untyped.Adam([shared, shared])


def test_tensors_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    weight = torch.ones(3, 2, requires_grad=True)
    opt = instep.Adam([weight])
    expected = np.ones((3, 2), np.float32)
    reference = instep.Adam([expected])
    for k in range(3):
        (weight * float(k)).sum().backward()
        opt.step([weight.grad])
        reference.step([weight.grad.numpy()])
        assert weight.detach().numpy().tolist() == expected.tolist()
    opt.apply_gradients([(weight.grad, weight)])


def test_bfloat16_tensors_of_pytorch() -> None:
    """NumPy lacks the dtype: their memory is seen through ml_dtypes, parameters and gradients."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    weight = torch.ones(300, 2, dtype=torch.bfloat16, requires_grad=True)
    master = np.ones((300, 2), np.float32)
    opt, with_master = instep.Adam([weight]), instep.Adam([master])
    for k in range(1, 4):
        (weight * float(k)).sum().backward()
        opt.step([weight.grad])
        with_master.step([weight.grad])
        nearest = torch.tensor(master).to(torch.bfloat16)
        assert torch.equal(weight.detach(), nearest)
    jnp = pytest.importorskip("jax.numpy")
    with_master.step([jnp.ones((300, 2), jnp.bfloat16)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_whose_memory_has_the_other_sign(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    tensor = torch._neg_view(torch.ones(2, dtype=getattr(torch, dtype)))
    params = np.zeros(2, np.float32)
    opt = instep.SGD([params], learning_rate=1.0)
    opt.step([tensor])
    opt.step([instep.Rows([0], tensor[:1])])
    assert params.tolist() == [2.0, 1.0]
    with pytest.raises(TypeError, match=r"params\[0\]: expected .* train its resolve_neg\(\)"):
        instep.SGD([tensor])


def test_arrays_of_jax() -> None:
    jnp = pytest.importorskip("jax.numpy")
    p, q = np.ones(3, np.float32), np.ones(3, np.float32)
    opt, reference = instep.Adam(p), instep.Adam(q)
    opt.step(jnp.full(3, 0.5))
    reference.step(np.full(3, 0.5, np.float32))
    assert p.tolist() == q.tolist()
    with pytest.raises(TypeError, match="immutable"):
        untyped.Adam(jnp.ones(3))


@pytest.mark.parametrize(
    "where", [lambda path, leaf: not hasattr(leaf, "shape"), r"'(count|name|none)'\]"]
)
def test_leaves_that_are_no_parameters(where: Any) -> None:
    params: Any = {"w": np.ones(2), "norm": [{"count": 3, "scale": np.ones(2)}], "none": None}
    with pytest.raises(TypeError):
        untyped.Adam(params)
    opt = instep.SGD(params, learning_rate=1.0, momentum=0.5, ignore=where)
    params["norm"][0]["count"] += 1
    ignored: Any = "x"
    opt.step({"w": np.ones(2), "norm": [{"count": ignored, "scale": np.ones(2)}], "none": None})
    opt.step({"w": np.ones(2), "norm": [{"scale": np.ones(2)}]})
    assert params["w"].tolist() == [-1.5, -1.5]
    assert params["norm"][0]["count"] == 4
    assert opt.state["norm"][0]["scale"]["momentum"].tolist() == [1.5, 1.5]
    assert opt.params is params
    if isinstance(where, str):
        opt = pickle.loads(pickle.dumps(opt))
        params = opt.params
    kept = freeze(params["w"])
    new = opt.updated(params, {"w": np.ones(2), "norm": [{"scale": None}]})
    assert freeze(params["w"]) == kept
    assert new["norm"][0]["count"] == 3 + isinstance(where, str) or new["none"] is None
    opt.build(new)
    opt.step({"w": np.ones(2), "norm": [{"scale": None}]})
    with pytest.raises(TypeError, match="ignore"):
        untyped.SGD(params, ignore=3)
    with pytest.raises(TypeError, match=r"ignore: expected True or False for params\['"):
        untyped.SGD(params, ignore=lambda path, leaf: 1)
