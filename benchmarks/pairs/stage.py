"""Worker: the continuous stage alone, in a process of its own. Started by ``optimisers.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness

from convexadam import RegistrationConfig
from convexadam.continuous import Refinement, refine
from convexadam.continuous.convergence import Convergence
from convexadam.kernels.warp_ssd import as_compared


def iterations(refinement: Refinement, stage: dict[str, Any]) -> int:
    """How many there are before the stage ends; only it knows, so it runs once more."""
    made: list[Convergence] = []

    def noted(*settings: Any, **options: Any) -> Convergence:
        made.append(Convergence(*settings, **options))
        return made[-1]

    with mock.patch.object(refine, "Convergence", noted):
        refinement.on_nodes(**stage)
    return made[0].count


@torch.no_grad()
def main() -> None:
    """Refine from the start of the job; leaves displacements in nodes and what was measured."""
    job = harness.read_job()
    refinement = RegistrationConfig.from_toml(job["config"]).continuous
    assert refinement is not None
    small = torch.rand(2, 12, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    refinement.on_nodes(*small)  # what the first call loads or compiles is not counted
    stage = {name: torch.from_numpy(np.load(path)) for name, path in job["stage"].items()}
    stage |= {name: as_compared(stage[name]) for name in ("fixed", "moving")}  # as a registration has them
    memory = harness.memory_above(lambda: refinement.on_nodes(**stage))
    found, measured = harness.timed(lambda: refinement.on_nodes(**stage), job["repeat"])
    np.save(job["field"], found.numpy())
    measured |= {"peak_mb": None if memory is None else memory / 1e6, "iterations": iterations(refinement, stage)}
    Path(job["measured"]).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
