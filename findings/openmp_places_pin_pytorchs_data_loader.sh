#!/usr/bin/env bash
# One would guess that OMP_PROC_BIND=true, which is to keep the threads of PyTorch's operations near
# the memory that they have used before, concerns those threads alone, and that the processes of a
# DataLoader are spread over the processors as they are without it.
# OpenMP's runtime binds the thread that loads it, the program's own, to the first of its places, a
# single processor, by the time that `import torch` returns. Children inherit that: all processes of
# the DataLoader share that processor, and PyTorch suggests one of them at most, as it asks for the
# thread's affinity. Its operations still have a thread for each processor.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$(nproc)" -lt 2 ]; then
    echo "needs two processors"
    exit 0
fi

"${PYTHON:-python3}" -m venv "$work"
"$work/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat >"$work/affinity.py" <<'END'
import os
import sys
import warnings

before = len(os.sched_getaffinity(0))
import torch
from torch.utils.data import DataLoader, Dataset


class Processors(Dataset):
    """Items that tell on how many processors they are made."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return len(os.sched_getaffinity(0))


warnings.simplefilter("ignore")  # of more processes than are suggested
after = len(os.sched_getaffinity(0))
workers = {int(each) for each in DataLoader(Processors(), num_workers=2)}
print(
    f"torch {torch.__version__}, OMP_PROC_BIND={os.environ.get('OMP_PROC_BIND', '')}: before the "
    f"import {before} processors, after it {after}, in DataLoader's processes {workers}, threads of "
    f"operations {torch.get_num_threads()}"
)
assert torch.get_num_threads() > 1
assert (after, workers) == ((1, {1}) if "OMP_PROC_BIND" in os.environ else (before, {before}))
END
env -u OMP_PROC_BIND "$work/bin/python" "$work/affinity.py"
OMP_PROC_BIND=true "$work/bin/python" "$work/affinity.py"
