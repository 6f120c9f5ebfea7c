"""Worker: registrations with the diffeomorphic demons of SimpleITK, in an environment of its own.

The moving image takes the histogram of the fixed one (1024 levels, 7 points, above the mean). Then 100, 50 and 25
iterations on grids coarser by 4, 2 and 1, each image smoothed by half that many voxels (the finest not at all), the
field by 2 voxels. The next level starts from the field of the one before, read linearly.

Its field, a displacement in mm LPS, is converted to voxels along the axes of the array, fixed to moving: for
``moving[x + t] = fixed[x]`` with t = (3, -2, 1) on 60 x 54 x 48 voxels it finds (3.00, -2.00, 1.00) on cubes of 1 mm
and, turned, mirrored and with permuted axes, on voxels of 1 x 1.4 x 2.1 mm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name

sys.path.append(str(Path(__file__).resolve().parent))

import worker
from worker import Volume

LEVELS = ((4, 100), (2, 50), (1, 25))
FIELD_VOXELS = 2.0


def tool(fixed: Volume, moving: Volume) -> tuple[Callable[[], Any], Callable[[Any], np.ndarray]]:
    """Run all levels."""
    images = [worker.make_simpleitk_image(volume) for volume in (fixed, moving)]
    return lambda: _register(*images), lambda result: worker.convert_simpleitk_field(result, fixed.affine)


def _register(fixed: Any, moving: Any) -> Any:
    moving = sitk.HistogramMatching(
        moving, fixed, numberOfHistogramLevels=1024, numberOfMatchPoints=7, thresholdAtMeanIntensity=True
    )
    field = None
    for shrink, iterations in LEVELS:
        pair = [_shrink(image, shrink) for image in (fixed, moving)]
        if field is not None:
            field = sitk.Resample(field, pair[0], sitk.Transform(), sitk.sitkLinear, 0.0, field.GetPixelID())
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(FIELD_VOXELS)
        field = demons.Execute(*pair) if field is None else demons.Execute(*pair, field)
    return field


def _shrink(image: Any, shrink: int) -> Any:
    if shrink == 1:
        return image
    sigma_mm = [0.5 * shrink * spacing for spacing in image.GetSpacing()]
    return sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, sigma_mm), [shrink] * 3)


if __name__ == "__main__":
    worker.main(tool, "SimpleITK")
