"""Worker: registrations with greedy (PyPI ``picsl-greedy``), in an environment of its own.

Deformable stage alone, from the identity, with the metric and the iterations of the job: for example ``NCC 2x2x2`` or,
across contrasts, ``NMI``, and ``100x50x10`` on three levels. All else is its default.

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
from picsl_greedy import Greedy3D

sys.path.append(str(Path(__file__).resolve().parent))

import worker
from worker import Volume, harness


def tool(fixed: Volume, moving: Volume) -> tuple[Callable[[], Any], Callable[[Any], np.ndarray]]:
    """Run the tool with the options of its command line, without files."""
    images = {"fixed": worker.make_simpleitk_image(fixed), "moving": worker.make_simpleitk_image(moving)}
    job = harness.read_job()
    settings = f"-m {job['metric']} -n {job['iterations']} -threads {harness.itk_threads()}"
    command = f"-d 3 {settings} -i fixed moving -o warp"

    def register() -> Any:
        greedy = Greedy3D()
        greedy.execute(command, **images, warp=None)
        return greedy["warp"]

    return register, lambda result: worker.convert_simpleitk_field(result, fixed.affine)


if __name__ == "__main__":
    worker.main(tool, "picsl-greedy")
