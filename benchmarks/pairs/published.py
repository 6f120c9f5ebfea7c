"""Worker: one registration with the published package (PyPI ``convexAdam``), in an environment of its own.

Its field is ``(i, j, k, 3)`` in voxels along the axes of the array, fixed to moving, as the judge takes it: for
``moving[x + t] = fixed[x]`` with t = (3, -2, 1) on 60 x 54 x 48 voxels it finds (2.90, -1.92, 0.96).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import torch
from convexAdam.convex_adam_MIND import convex_adam_pt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness


def displacement(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Run the package with its defaults, on the CPU in float32 (its default, float16, is for GPUs)."""
    found: np.ndarray = convex_adam_pt(fixed, moving, dtype=torch.float32, device=torch.device("cpu"))
    return found


def main() -> None:
    """Register the arrays of the job; leaves a field in voxels and what was measured."""
    job = harness.read_job()
    small = np.random.default_rng(0).random((24, 24, 24), dtype=np.float32)
    displacement(small, small)  # what the first call loads is not counted
    fixed, moving = np.load(job["fixed"]), np.load(job["moving"])
    if fixed.shape != moving.shape or not np.allclose(job["fixed_affine"], job["moving_affine"], atol=1e-4):
        raise ValueError("the package knows no affines: both images have to be on one grid")
    found, measured = harness.timed(lambda: displacement(fixed, moving))
    nibabel.save(nibabel.Nifti1Image(found.astype(np.float32), np.array(job["fixed_affine"])), job["field"])
    measured["version"] = harness.installed_version("convexAdam")
    Path(job["measured"]).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
