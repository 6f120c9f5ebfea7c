"""Worker: makes phantoms for ``scaling.py``, or registers them in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from convexadam import Affine, Image, preset, register
from convexadam.data import phantom_pair
from convexadam.registration.memory import release_memory


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Write a pair of phantoms to the files of the job."""
    pair = phantom_pair((job["edge"],) * 3, spacing_mm=(job["spacing_mm"],) * 3)
    for name, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        np.save(job[name], image.numpy())
    return {"affine": pair.fixed.grid.affine.tolist()}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Measure the seconds of a registration, and its memory beyond the two images."""
    config = preset(job["preset"])
    small = Image.from_array(torch.rand(24, 24, 24, generator=torch.Generator().manual_seed(0)))
    # the first calls, which load or compile kernels, do not count: those of parallel and of other axes
    for degrees in (0, 3):
        register(small, small, config, initial_transform=_rotate(degrees))
    fixed, moving = (Image.from_array(np.load(job[name]), job["affine"]) for name in ("fixed", "moving"))
    release_memory()  # what the small registration has left would be counted as free
    memory = harness.memory_above(lambda: register(fixed, moving, config))
    if not job["repeat"]:
        return {"runs": 0, "environment": harness.environment(), "memory": memory}
    _, measured = harness.timed(lambda: register(fixed, moving, config), job["repeat"])
    return {**measured, "memory": memory}


def _rotate(degrees: float) -> Affine:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return Affine(np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


def main() -> None:
    """Run the task of the job."""
    job = harness.read_job()
    result = {"make": make, "register": measure}[job["task"]](job)
    Path(job["measured"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
