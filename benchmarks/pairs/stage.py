"""Worker: the continuous stage alone, in a process of its own. Started by ``optimisers.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness

from convexadam import RegistrationConfig
from convexadam.continuous import Refinement, Snapshot
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.kernels.warp_ssd import to_channels_last


def refine(
    refinement: Refinement, features: FeatureLevel, start: torch.Tensor, shape: tuple[int, int, int]
) -> Snapshot:
    """Run the stage, and return its end."""
    *_, last = refinement.refine(lambda _: features, ForwardBackward(forward=start, spacing=features.spacing), shape)
    return last


@torch.no_grad()
def main() -> None:
    """Refine from the start of the job; write the displacement on the control points, and the measurements."""
    job = harness.read_job()
    refinement = RegistrationConfig.from_toml(job["config"]).continuous
    assert refinement is not None
    small = torch.rand(2, 12, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    refinement(*small)  # the first call, which loads or compiles kernels, does not count
    arrays = {name: torch.from_numpy(np.load(path)) for name, path in job["arrays"].items()}
    start, shape = arrays.pop("start"), tuple(job["shape"])
    # a registration has this order too; without it the similarity would copy both maps
    arrays |= {name: to_channels_last(arrays[name]) for name in ("fixed", "moving")}
    features = FeatureLevel(**arrays, spacing=tuple(job["spacing"]))
    memory = harness.memory_above(lambda: refine(refinement, features, start, shape))
    last, measured = harness.timed(lambda: refine(refinement, features, start, shape), job["repeat"])
    np.save(job["field"], last.fields.forward.numpy())
    measured |= {"peak_mb": None if memory is None else memory / 1e6, "iterations": last.iteration}
    Path(job["measured"]).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
