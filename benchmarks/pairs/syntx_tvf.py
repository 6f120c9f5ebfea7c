"""Worker: registrations with syntx (PyPI ``syntx``), in an environment of its own, on the CPU.

``syntx.auto_reg`` without its linear stages: the time-varying velocity field that it chooses by itself, with the
similarity that it chooses for the pair.

Its field, a displacement in mm LPS, is converted to voxels along the axes of the array, fixed to moving.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ants
import numpy as np
import syntx

sys.path.append(str(Path(__file__).resolve().parent))

import worker
from worker import Volume


def tool(fixed: Volume, moving: Volume) -> tuple[Callable[[], Any], Callable[[Any], np.ndarray]]:
    """Run the tool; its transforms are composed to one field afterwards."""
    images = {"fixed": worker.make_ants_image(fixed), "moving": worker.make_ants_image(moving)}

    def register() -> Any:
        result = syntx.auto_reg(
            **images, type_of_transform="TVF", robust_affine=False, affine_iterations=[0, 0, 0], device="cpu"
        )
        return result["fwdtransforms"]

    def to_displacement(transforms: Any) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            path = ants.apply_transforms(**images, transformlist=transforms, compose=f"{folder}/")
            return worker.convert_lps_to_voxels(ants.image_read(path).numpy(), fixed.affine)

    return register, to_displacement


if __name__ == "__main__":
    worker.main(tool, "syntx")
