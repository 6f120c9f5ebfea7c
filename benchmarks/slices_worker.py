"""Worker: pairs of 2-D images with ANTs or greedy, in an environment that has ``antspyx`` and ``picsl-greedy``.

It writes the labels of each moving image on the grid of the fixed one, by nearest neighbours, and the CPU seconds of
each registration without reading and warping.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np

Plane = np.ndarray
"""``[i, j]``."""

GREEDY = "-m NCC 4x4 -n 100x50x10 -threads 1 -V 0"
"""Of the radii 2 and 4 and of SSD the best, with the default smoothing."""


def run_ants(fixed: Plane, moving: Plane, labels: Plane) -> tuple[Plane, float]:
    """Run ``ants.registration`` of type SyNOnly, whose default metric is mutual information."""
    import ants

    images = [ants.from_numpy(values.astype(np.float32)) for values in (fixed, moving, labels)]
    start = time.process_time()
    result = ants.registration(images[0], images[1], type_of_transform="SyNOnly")
    seconds = time.process_time() - start
    warped = ants.apply_transforms(images[0], images[2], result["fwdtransforms"], interpolator="nearestNeighbor")
    return np.asarray(warped.numpy()), seconds


def run_greedy(fixed: Plane, moving: Plane, labels: Plane) -> tuple[Plane, float]:
    """Run ``greedy -d 2`` with 100, 50 and 10 iterations."""
    import SimpleITK as sitk  # noqa: N813 - as everyone writes it
    from picsl_greedy import Greedy2D

    images = [sitk.GetImageFromArray(values.T.astype(np.float32)) for values in (fixed, moving, labels)]
    tool = Greedy2D()
    start = time.process_time()
    tool.execute(f"-i fixed moving -o warp {GREEDY}", fixed=images[0], moving=images[1], warp=None)
    seconds = time.process_time() - start
    tool.execute("-rf fixed -ri NN -rm labels moved -r warp -threads 1 -V 0", labels=images[2], moved=None)
    return np.asarray(sitk.GetArrayFromImage(tool["moved"]).T), seconds


def main() -> None:
    """Run the tool of the job on all pairs, on the first one twice."""
    job: dict[str, Any] = harness.read_job()
    run: Callable[[Plane, Plane, Plane], tuple[Plane, float]] = {"ants": run_ants, "greedy": run_greedy}[job["tool"]]
    with np.load(job["images"]) as archive:
        pairs = list(zip(archive["fixed"], archive["moving"], archive["moving_labels"], strict=True))
    run(*pairs[0])
    warped, seconds = zip(*(run(*pair) for pair in pairs), strict=True)
    np.savez_compressed(job["labels"], warped=np.stack(warped).round().astype(np.int32))
    Path(job["measured"]).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
