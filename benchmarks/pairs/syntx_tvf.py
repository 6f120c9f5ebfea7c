"""Worker: registrations with syntx (PyPI ``syntx``), in an environment of its own, on the CPU.

``syntx.auto_reg`` without its linear stages: the time-varying velocity field that it chooses by itself, with the
similarity that it chooses for the pair. It imports ``antstorch``, which PyPI does not have, for surfaces and for the
denoising of images: an empty module stands in for it, and without it syntx leaves the images as they are.

Its field, a displacement in mm LPS, is converted to voxels along the axes of the array, fixed to moving.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

sys.modules.setdefault("antstorch", ModuleType("antstorch"))

import ants  # noqa: E402 - after the module that stands in
import numpy as np  # noqa: E402
import syntx  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent))

import worker  # noqa: E402
from worker import Volume  # noqa: E402


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
