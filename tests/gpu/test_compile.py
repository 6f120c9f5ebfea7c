"""What kernels need on GPUs that are not there: registers, shared memory, and variants to compile."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import DEVICE, PretendedGpu

from convexadam import preset, register

pytestmark = pytest.mark.long

MAX_SHARED = 4096
MAX_REGISTERS = {"cuda": 128, "hip": 192}
MORE_REGISTERS = {"invert._invert_points": 1.5}
"""As a factor: the state of a point that is solved stays in registers."""

MORE_SHARED = {"mutual_information._add_joint": 2}
"""As a factor: the weights of samples in all bins of both images are multiplied from there."""

MAX_VARIANTS = {"published": 28, "accurate": 47, "rigid": 30}
"""Of three sizes that differ in what divides them; each takes one or two seconds at the first call.

None is due to a size: the kernels of the smoothing and the gradient are compiled for several filters and terms.
"""


def _record_signatures(gpu: PretendedGpu, name: str) -> list[Any]:
    gpu.record.start()
    for size in ((32, 48, 64), (36, 34, 38), (25, 27, 31)):
        fixed, moving = (torch.rand(size, generator=torch.Generator().manual_seed(s)).to(DEVICE) for s in range(2))
        register(fixed, moving, preset(name)).transform.inverse()
    return sorted(gpu.record.signatures, key=str)


def _compile(signatures: list[Any], target: str, folder: Path) -> list[dict[str, Any]]:
    (folder / "signatures.pkl").write_bytes(pickle.dumps(signatures))
    script = Path(__file__).with_name("compile_kernels.py")
    command = [sys.executable, str(script), str(folder / "signatures.pkl"), target]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("published", "cuda:80"),
        ("published", "cuda:100"),
        ("published", "hip:gfx942"),
        ("accurate", "cuda:90"),
        ("rigid", "cuda:80"),
        ("rigid", "hip:gfx942"),
    ],
)
def test_kernels_fit_the_device(counted: PretendedGpu, name: str, target: str, tmp_path: Path) -> None:
    rows = _compile(_record_signatures(counted, name), target, tmp_path)
    sys.stdout.write(f"compiled by triton {rows[0]['triton']}\n")  # shown by -rA, and where the test fails
    assert len(rows) >= 15  # the kernels of all stages
    assert len(rows) <= MAX_VARIANTS[name], sorted(row["kernel"] for row in rows)
    for row in rows:
        assert row["spills"] == 0, row
        assert row["shared"] <= MAX_SHARED * MORE_SHARED.get(row["kernel"], 1), row
        allowed = MAX_REGISTERS[target.split(":", maxsplit=1)[0]] * MORE_REGISTERS.get(row["kernel"], 1)
        assert row["registers"] <= allowed, row
