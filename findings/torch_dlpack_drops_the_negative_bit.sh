#!/usr/bin/env bash
# One would guess that a tensor of PyTorch's that another library, or PyTorch itself, takes through
# DLPack has the same numbers there.
# The imaginary part of a conjugated tensor comes with the opposite sign. PyTorch computes neither
# conjugate nor sign before it must: such a tensor is a view of the old memory with a bit that says
# "negative". numpy() refuses it, and tells of resolve_neg(); DLPack, which knows no such bit, hands
# out the memory without a word, though it refuses tensors with the bit that says "conjugate".
# torch.autograd.grad returns such views for real parameters behind torch.complex.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$work/bin/python" - <<'END'
import numpy as np
import torch

print("torch", torch.__version__, "numpy", np.__version__)
z = torch.tensor([1 + 2j, 3 - 4j])
part = z.conj().imag
print("the tensor         ", part.tolist(), "negative bit:", part.is_neg())

by_torch, by_numpy = torch.from_dlpack(part), np.from_dlpack(part)
print("torch.from_dlpack  ", by_torch.tolist())
print("numpy.from_dlpack  ", by_numpy.tolist())
print("after resolve_neg()", np.from_dlpack(part.resolve_neg()).tolist())
for call in (part.numpy, lambda: torch.from_dlpack(z.conj())):
    try:
        call()
    except (RuntimeError, BufferError) as error:
        print("refused:", str(error).splitlines()[0])
    else:
        raise SystemExit("changed: it is not refused any more")

real, imaginary = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
loss = (torch.complex(real, imaginary).conj() * torch.tensor([1j, 2 + 1j])).real.sum()
_, grad = torch.autograd.grad(loss, (real, imaginary))
print("a gradient         ", grad.tolist(), "negative bit:", grad.is_neg())
print("numpy.from_dlpack  ", np.from_dlpack(grad).tolist())

assert part.tolist() == [-2.0, 4.0] and part.is_neg()
assert by_torch.tolist() == by_numpy.tolist() == [2.0, -4.0]
assert np.from_dlpack(part.resolve_neg()).tolist() == [-2.0, 4.0]
assert grad.is_neg() and np.from_dlpack(grad).tolist() == (-grad).tolist()
END
