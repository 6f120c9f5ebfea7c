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
from worker import Volume


def tool(fixed: Volume, moving: Volume) -> tuple[Callable[[], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Run the package with its defaults, on the CPU in float32 (its default, float16, is for GPUs)."""
    if fixed.data.shape != moving.data.shape or not np.allclose(fixed.affine, moving.affine, atol=1e-4):
        raise ValueError(
            "both images must have the same grid for the published package, which ignores affines, got two grids"
        )

    def register() -> np.ndarray:
        field: np.ndarray = convex_adam_pt(fixed.data, moving.data, dtype=torch.float32, device=torch.device("cpu"))
        return field

    return register, lambda result: result


if __name__ == "__main__":
    worker.main(tool, "convexAdam")
