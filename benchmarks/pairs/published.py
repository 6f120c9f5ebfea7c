"""Worker: registrations with the published package (PyPI ``convexAdam``), in an environment of its own.

Its field is ``(i, j, k, 3)`` in voxels along the axes of the array, fixed to moving: for
``moving[x + t] = fixed[x]`` with t = (3, -2, 1) on 60 x 54 x 48 voxels it finds (2.90, -1.92, 0.96).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from convexAdam.convex_adam_MIND import convex_adam_pt

sys.path.append(str(Path(__file__).resolve().parent))

import worker
from worker import Volume, harness

SETTINGS = {
    "default": {},
    # those of its authors for lungs in the challenge Learn2Reg 2021
    "tuned": {
        "mind_r": 1, "mind_d": 2, "grid_sp": 4, "disp_hw": 6, "ic": True,
        "grid_sp_adam": 2, "lambda_weight": 0.65, "selected_niter": 50, "selected_smooth": 3,
    },
}  # fmt: skip


def tool(fixed: Volume, moving: Volume) -> tuple[Callable[[], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Run the package with the settings of the job, on the CPU in float32 (its default, float16, is for GPUs)."""
    if fixed.data.shape != moving.data.shape or not np.allclose(fixed.affine, moving.affine, atol=1e-4):
        raise ValueError(
            "both images must have the same grid for the published package, which ignores affines, got two grids"
        )

    settings = SETTINGS[harness.read_job().get("settings", "default")]

    def register() -> np.ndarray:
        field: np.ndarray = convex_adam_pt(
            fixed.data, moving.data, dtype=torch.float32, device=torch.device("cpu"), **settings
        )
        return field

    return register, lambda result: result


if __name__ == "__main__":
    worker.main(tool, "convexAdam")
