"""The continuous stage alone with one optimiser and another, from one start.

The start is what the search of the preset ``"accurate"`` finds. Spacing, similarity (squared differences of MIND) and
parametrisation are the same; what suits an optimiser (steps, regulariser, smoothing) is one setting for all pairs. See
``benchmarks/README.md``.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from convexadam import RegistrationConfig, preset
from convexadam._typing import Field
from convexadam.continuous import (
    Adam,
    BoxSmoothing,
    Compositional,
    Diffusion,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Refinement,
)
from convexadam.features import MindSSC
from convexadam.geometry import Grid, Image, Transform
from convexadam.io import write_learn2reg
from convexadam.registration.finishing import finished
from convexadam.registration.levels import Described
from convexadam.registration.stages import Given, in_mm, on_level, on_working_grid, placed, searched_throughout

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import runs  # noqa: E402 - these folders are no packages
from truth import read_images, read_truth  # noqa: E402

COLUMNS = (
    "pair", "optimiser", "iterations", "seconds", "runs", "peak_mb", "tre_mm", "tre_outside_mm", "dice", "sdlogj",
    "threads", "environment", "error",
)  # fmt: skip
KEY = ("pair", "optimiser")
WORKER = (sys.executable, str(HERE / "stage.py"))
START = "none: the start"
TOLERANCE = 0.002
ADAM = Refinement(
    levels=(Level(spacing=2, iterations=50),),
    regularisers=(Diffusion(weight=0.2),),
    smoothing=BoxSmoothing(),
    optimiser=Adam(),
    parametrisation=Compositional(field_smoothing=GaussianSmoothing(sigma=0.6)),
)
LEVENBERG_MARQUARDT = Refinement(
    levels=(Level(spacing=2, iterations=20),),
    regularisers=(),
    smoothing=GaussianSmoothing(sigma=1.0),
    optimiser=LevenbergMarquardt(),
    parametrisation=Compositional(field_smoothing=GaussianSmoothing(sigma=0.7)),
)
STAGES: Mapping[str, Refinement] = {
    "Adam": ADAM,
    "Adam, tolerance": dataclasses.replace(ADAM, tolerance=TOLERANCE),
    "Levenberg-Marquardt": LEVENBERG_MARQUARDT,
    "Levenberg-Marquardt, tolerance": dataclasses.replace(LEVENBERG_MARQUARDT, tolerance=TOLERANCE),
}


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A registration up to the continuous stage: linear start, working grid, images on the nodes, field in nodes."""

    linear: Transform
    grid: Grid
    level: Described
    start: Field

    def arrays(self, folder: Path) -> dict[str, str]:
        """Write what the stage is given; the files by the names of its arguments."""
        (fixed, moving), (here, there) = self.level.features, self.level.weights
        given = {"fixed": fixed, "moving": moving, "start": self.start, "fixed_weight": here, "moving_weight": there}
        files = {name: str(folder / f"{name}.npy") for name, value in given.items() if value is not None}
        for name, path in files.items():
            np.save(path, given[name].numpy())
        return files

    def transform(self, nodes: Field, fixed: Grid) -> Transform:
        """Return the transform on the fixed grid of displacements in nodes, as a registration ends."""
        disp_mm = in_mm(ADAM, nodes, self.level.spacing, self.grid).resample_onto(fixed).disp_mm
        return finished(self.linear.after(fixed, disp_mm, disp_mm), fixed, fold_free=True)[0]


@torch.no_grad()
def begun(fixed: Image, moving: Image, config: RegistrationConfig) -> Begun:
    """Align and search as a registration with these settings does."""
    given = Given(fixed=fixed, moving=moving)
    linear = placed(given, config)
    subject = on_working_grid(given, linear, config)
    found, fields = searched_throughout(subject, subject.first()[0])
    assert fields is not None  # the images have contrast
    level = subject.refined(0)
    start, _ = on_level(fields, found.spacing, level.spacing, subject.grid.shape)
    return Begun(linear=linear.start, grid=subject.grid, level=level, start=start)


def settings() -> RegistrationConfig:
    """Return the preset, with a stage to be compared in place of its own."""
    config = dataclasses.replace(preset("accurate"), features=MindSSC(), continuous_features=None)
    return dataclasses.replace(config, continuous=ADAM, symmetric=False)


def run_pair(
    name: str, folder: Path, stages: Mapping[str, Refinement], threads: int | None, repeat: int
) -> Iterator[dict[str, str]]:
    """One row for the start, and one for each optimiser; one that fails gets a row with its error."""
    fixed, moving = read_images(folder)
    truth, config = read_truth(folder, fixed.grid, moving.grid), settings()
    runs.harness.progress(f"{name}: search")
    begin = begun(fixed, moving, config)

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        files = begin.arrays(work)

        def judged(nodes: Field) -> dict[str, str]:
            write_learn2reg(begin.transform(nodes, fixed.grid), work / "field.nii.gz")
            return runs.scores(work / "field.nii.gz", truth)

        def measured(stage: Refinement) -> dict[str, str]:
            job = {"config": dataclasses.replace(config, continuous=stage).to_toml(), "stage": files, "repeat": repeat}
            found = runs.worked(WORKER, job, work / "nodes.npy", work, threads)
            row = runs.cells(found) | judged(torch.from_numpy(np.load(work / "nodes.npy")))
            return row | {"iterations": str(found["iterations"]), "seconds": f"{found['seconds']:.3f}"}

        yield {"pair": name, "optimiser": START, "iterations": "0"} | judged(begin.start)
        for optimiser, stage in stages.items():
            row = {"pair": name, "optimiser": optimiser}
            yield row | runs.attempted(f"{name}: {optimiser}", folder, lambda stage=stage: measured(stage))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if an optimiser failed on a pair."""
    parser = runs.parser(__doc__, "optimisers.csv")
    parser.set_defaults(repeat=3)
    options = parser.parse_args(arguments)
    pairs = runs.chosen_pairs(parser, options, COLUMNS)
    runs.begin(options.threads)
    failed = False
    for name, folder in pairs.items():
        rows = []
        for row in run_pair(name, folder, STAGES, options.threads, options.repeat):
            rows.append(row)
            runs.saved(options.output, COLUMNS, KEY, row)
        failed |= any("error" in row for row in rows)
        runs.tabulated(name, COLUMNS[1:], rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
