"""Worker: registrations with this library, in a process of its own. Started by ``runs.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness

from convexadam import Image, RegistrationConfig, __version__, register
from convexadam.io import write_learn2reg


def main() -> None:
    """Register the arrays of the job; write a field in voxels, and the measurements."""
    job = harness.read_job()
    config = RegistrationConfig.from_toml(job["config"])
    small = Image.from_array(torch.rand(24, 24, 24, generator=torch.Generator().manual_seed(0)))
    register(small, small, config)  # the first call, which loads or compiles kernels, does not count
    fixed, moving = (Image.from_array(np.load(job[name]), job[f"{name}_affine"]) for name in ("fixed", "moving"))
    result, measured = harness.timed(lambda: register(fixed, moving, config), job["repeat"])
    write_learn2reg(result.transform, job["field"])
    Path(job["measured"]).write_text(json.dumps({**measured, "version": __version__}), encoding="utf-8")


if __name__ == "__main__":
    main()
