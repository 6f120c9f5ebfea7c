"""Worker: a linear registration with ANTs or greedy, in an environment that has ``antspyx`` and ``picsl-greedy``.

The matrix that it writes is 4x4 in mm RAS+ and maps fixed to moving space.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np


def run_ants(job: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Run ``ants.registration`` of type Rigid or Affine, with its defaults."""
    import ants

    fixed, moving = ants.image_read(job["fixed"]), ants.image_read(job["moving"])
    start = time.perf_counter()
    result = ants.registration(fixed, moving, type_of_transform=job["model"].capitalize())
    seconds = time.perf_counter() - start
    transform = ants.read_transform(result["fwdtransforms"][0])
    parameters, centre = np.array(transform.parameters), np.array(transform.fixed_parameters)
    matrix = np.eye(4)
    matrix[:3, :3] = parameters[:9].reshape(3, 3)
    matrix[:3, 3] = parameters[9:] + centre - matrix[:3, :3] @ centre
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    return lps @ matrix @ lps, seconds


def run_greedy(job: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Run ``greedy -a`` from the identity, with 100, 50 and 10 iterations."""
    from picsl_greedy import Greedy3D

    dof = {"rigid": 6, "affine": 12}[job["model"]]
    metric = "NMI" if job["two_contrasts"] else "NCC 2x2x2"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.mat"
        command = f"-d 3 -threads {harness.itk_threads()} -a -dof {dof} -ia-identity -n 100x50x10 -m {metric} "
        command += f"-i {job['fixed']} {job['moving']} -o {path}"
        start = time.perf_counter()
        Greedy3D().execute(command)
        return np.loadtxt(path), time.perf_counter() - start


def main() -> None:
    """Run the tool of the job."""
    job = harness.read_job()
    matrix, seconds = {"ants": run_ants, "greedy": run_greedy}[job["tool"]](job)
    Path(job["measured"]).write_text(json.dumps({"matrix": matrix.tolist(), "seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
