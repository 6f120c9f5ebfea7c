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
from settings import make_best
from stubs import STUBS

from convexadam import DisplacementField, Image, RegistrationConfig, preset, register
from convexadam.continuous import (
    Bending,
    BilateralSmoothing,
    Compositional,
    Diffusion,
    Level,
    LevenbergMarquardt,
    Lncc,
    Refinement,
    WeightedSum,
)
from convexadam.features import LabelFeatures

pytestmark = pytest.mark.long

MAX_SHARED = 4096
MAX_REGISTERS = {"cuda": 128, "hip": 192}
MORE_SHARED = {"mutual_information._add_joint": 2, "mutual_information._compare": 2, "scoring_step._propose": 2}
"""As a factor: the weights of samples in all bins of both images are multiplied from there.

The others are one program each, for whose memory no other one waits; triton 3.6 gives them 8 KB, 3.9 half of that.
"""

MORE_REGISTERS = {"trimmed_fit._fit_displacements": 160}
"""Of one program of eight warps, whose registers no other one waits for; triton 3.6 needs more than 3.9."""

MAX_VARIANTS = {"published": 32, "best": 68, "best of different contrasts": 64, "rigid": 34}
"""Of three sizes that differ in what divides them; each takes one or two seconds at the first call.

None is due to a size: the kernels of the smoothing and the gradient are compiled for several filters and terms.
"""

OTHERS = RegistrationConfig(
    linear=None,
    features=LabelFeatures(),
    discrete=None,
    continuous=Refinement(
        levels=(Level(spacing=2, iterations=1),),
        similarity=WeightedSum(terms=(Lncc(),), weights=(1.0,)),
        optimiser=LevenbergMarquardt(),
        parametrisation=Compositional(total_smoothing=BilateralSmoothing()),
        regularisers=(Bending(), Diffusion()),
    ),
)
"""Kernels that none of these presets runs."""


def _record_signatures(gpu: PretendedGpu, config: RegistrationConfig) -> list[Any]:
    gpu.record.start()
    for size in ((32, 48, 64), (36, 34, 38), (25, 27, 31)):
        fixed, moving = (torch.rand(size, generator=torch.Generator().manual_seed(s)).to(DEVICE) for s in range(2))
        labels = [(3 * volume).int() for volume in (fixed, moving)] if config is OTHERS else (None, None)
        result = register(fixed, moving, config, fixed_segmentation=labels[0], moving_segmentation=labels[1])
        result.transform.inverse()
        if config is OTHERS and isinstance(result.transform, DisplacementField):
            result.transform.jacobian()
            result.transform.warp(Image(labels[0][None], result.fixed.grid))
    return sorted(gpu.record.signatures, key=str)


def _compile(signatures: dict[str, list[Any]], folder: Path) -> dict[str, Any]:
    (folder / "signatures.pkl").write_bytes(pickle.dumps(signatures))
    script = Path(__file__).with_name("compile_kernels.py")
    command = [sys.executable, str(script), str(folder / "signatures.pkl")]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def test_kernels_fit_the_devices(counted: PretendedGpu, tmp_path: Path) -> None:
    configs = {
        "published": preset("published"),
        "best": make_best("one"),
        "best of different contrasts": make_best("different"),
        "rigid": preset("rigid"),
        "others": OTHERS,
    }
    signatures = {name: _record_signatures(counted, config) for name, config in configs.items()}
    assert {kernel for launched in signatures.values() for _, kernel, *_ in launched} == set(STUBS)
    found = _compile(signatures, tmp_path)
    sys.stdout.write(f"compiled by triton {found['triton']}\n")  # shown by -rA, and where the test fails
    for name, most in MAX_VARIANTS.items():
        assert 15 <= found["variants"][name] <= most, found["variants"]  # the kernels of all stages
    assert {row["target"] for row in found["rows"]} == {"cuda:80", "cuda:90", "cuda:100", "hip:gfx942"}
    for row in found["rows"]:
        assert row["spills"] == 0, row
        assert row["shared"] <= MAX_SHARED * MORE_SHARED.get(row["kernel"], 1), row
        most = MAX_REGISTERS[row["target"].split(":", maxsplit=1)[0]]
        assert row["registers"] <= max(most, MORE_REGISTERS.get(row["kernel"], 0)), row
