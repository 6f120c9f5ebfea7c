"""Worker: registrations with FireANTs (PyPI ``fireants``), in an environment of its own, on the CPU.

The settings of its own scripts for brains, from the identity: local cross-correlation of width 5 on grids coarser by 4,
2 and 1, Adam with a step of 0.5, update smoothed by 1 voxel and field by 0.5. ``greedy``: 200, 100 and 25 iterations.
``syn``: 100, 50 and 50 iterations, decay rates of Adam 0.5 and 0.75. Intensities are scaled to 0 ... 1.

Its field, a displacement in mm LPS, is converted to voxels along the axes of the array, fixed to moving.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from fireants.io import BatchedImages, Image
from fireants.registration.greedy import GreedyRegistration
from fireants.registration.syn import SyNRegistration

sys.path.append(str(Path(__file__).resolve().parent))

import worker
from worker import Volume, harness

COMMON = {"scales": [4, 2, 1], "cc_kernel_size": 5, "optimizer": "adam", "optimizer_lr": 0.5, "smooth_grad_sigma": 1}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "greedy": (GreedyRegistration, {"iterations": [200, 100, 25]}),
    "syn": (
        SyNRegistration,
        {"iterations": [100, 50, 50], "optimizer_params": {"beta1": 0.5, "beta2": 0.75}, "smooth_warp_sigma": 0.5},
    ),
}


def tool(fixed: Volume, moving: Volume) -> tuple[Callable[[], Any], Callable[[Any], np.ndarray]]:
    """Run the tool on tensors of the CPU."""
    images = [BatchedImages([Image(_image(volume), device="cpu")]) for volume in (fixed, moving)]
    model, settings = MODELS[harness.read_job()["model"]]

    def register() -> Any:
        registration = model(fixed_images=images[0], moving_images=images[1], progress_bar=False, **COMMON, **settings)
        registration.optimize()
        return registration

    def to_displacement(registration: Any) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/warp.nii.gz"
            registration.save_as_ants_transforms(path)
            return worker.convert_simpleitk_field(sitk.ReadImage(path), fixed.affine)

    return register, to_displacement


def _image(volume: Volume) -> Any:
    data = volume.data - volume.data.min()
    return worker.make_simpleitk_image(Volume(data / data.max(), volume.affine))


if __name__ == "__main__":
    worker.main(tool, "fireants")
