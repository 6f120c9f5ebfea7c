"""Worker: registrations with ANTs (PyPI ``antspyx``), in an environment of its own.

``ants.registration`` with the ``type_of_transform`` of the job and its defaults, from the identity. ``SyNOnly``: Mattes
mutual information of 32 bins, 40 and 20 iterations on grids coarser by 4 and 2 and none on the full one.
``antsRegistrationSyN[so]``: cross-correlation of radius 2, 100, 70, 50 and 20 iterations, coarser by 8, 4, 2 and 1.

Its field, a displacement in mm LPS, is converted to voxels along the axes of the array, fixed to moving: for
``moving[x + t] = fixed[x]`` with t = (3, -2, 1) on 60 x 54 x 48 voxels it finds (3.01, -1.95, 1.00) on cubes of 1
mm, and (3.00, -2.00, 1.00) on voxels of 1 x 1.4 x 2.1 mm, turned, mirrored and with permuted axes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ants
import numpy as np

sys.path.append(str(Path(__file__).resolve().parent))

import worker
from worker import Volume, harness


def tool(fixed: Volume, moving: Volume) -> tuple[Callable[[], str], Callable[[str], np.ndarray]]:
    """Run the tool, which writes its field to a file; the time includes that."""
    folder = tempfile.TemporaryDirectory()
    images = {"fixed": worker.make_ants_image(fixed), "moving": worker.make_ants_image(moving)}
    transform = harness.read_job()["transform"]

    def register() -> str:
        result = ants.registration(**images, type_of_transform=transform, outprefix=f"{folder.name}/")
        path: str = result["fwdtransforms"][0]
        return path

    def to_displacement(path: str) -> np.ndarray:
        return worker.convert_lps_to_voxels(ants.image_read(path).numpy(), fixed.affine)

    return register, to_displacement


if __name__ == "__main__":
    worker.main(tool, "antspyx")
