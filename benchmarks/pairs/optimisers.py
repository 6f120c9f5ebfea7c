"""The continuous stage alone with different optimisers, from the same start.

The start is the result of a search at two spacings. Spacing, similarity (squared differences of MIND)
and parametrisation are the same; the settings of each optimiser (steps, regulariser, smoothing) are the same for all
pairs. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam import ConvexSearch, IsotropicGrid, RegistrationConfig
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
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.io import write_learn2reg
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.registration.inputs import RegistrationInputs
from convexadam.registration.pipeline import (
    Initialisation,
    initialise,
    make_transform,
    resample_to_working_grid,
    search,
)

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
    update_smoothing=BoxSmoothing(),
    optimiser=Adam(),
    parametrisation=Compositional(total_smoothing=GaussianSmoothing(sigma=0.6)),
)
LEVENBERG_MARQUARDT = Refinement(
    levels=(Level(spacing=2, iterations=20),),
    regularisers=(),
    update_smoothing=GaussianSmoothing(sigma=1.0),
    optimiser=LevenbergMarquardt(),
    parametrisation=Compositional(total_smoothing=GaussianSmoothing(sigma=0.7)),
)
STAGES: Mapping[str, Refinement] = {
    "Adam": ADAM,
    "Adam, tolerance": dataclasses.replace(ADAM, tolerance=TOLERANCE),
    "Levenberg-Marquardt": LEVENBERG_MARQUARDT,
    "Levenberg-Marquardt, tolerance": dataclasses.replace(LEVENBERG_MARQUARDT, tolerance=TOLERANCE),
}


@dataclass(frozen=True, kw_only=True)
class Start:
    """A registration before its continuous stage: features and displacements on the control points of that stage."""

    inputs: RegistrationInputs
    config: RegistrationConfig
    initialisation: Initialisation
    grid: Grid
    features: FeatureLevel
    fields: ForwardBackward

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the inputs of the stage, and return the part of a job that describes them."""
        arrays = {
            "fixed": self.features.fixed,
            "moving": self.features.moving,
            "fixed_weight": self.features.fixed_weight,
            "moving_weight": self.features.moving_weight,
            "start": self.fields.forward,
        }
        files = {name: str(folder / f"{name}.npy") for name, values in arrays.items() if values is not None}
        for name, path in files.items():
            np.save(path, arrays[name].numpy())
        return {"arrays": files, "spacing": self.features.spacing, "shape": self.grid.shape}

    def transform(self, displacement: torch.Tensor) -> DisplacementField:
        """Return the transform on the fixed grid of displacements on the control points, as `register` does."""
        fields = ForwardBackward(forward=displacement, spacing=self.features.spacing)
        return make_transform(self.inputs, self.initialisation, self.config, self.grid, fields)[0]


@torch.no_grad()
def prepare_start(fixed: Image, moving: Image, config: RegistrationConfig) -> Start:
    """Align and search as `register` does with these settings."""
    inputs = RegistrationInputs(fixed=fixed, moving=moving)
    initialisation = initialise(inputs, config)
    pair = resample_to_working_grid(inputs, initialisation, config)
    fields, _ = search(pair, pair.extract()[0])
    assert fields is not None  # the images have contrast
    features = pair.extract_refinement(0)
    return Start(
        inputs=inputs,
        config=config,
        initialisation=initialisation,
        grid=pair.grid,
        features=features,
        fields=fields.resample(features.spacing, pair.grid.shape),
    )


def make_config() -> RegistrationConfig:
    """Return the settings of the start, with one of the continuous stages."""
    searches = (ConvexSearch(spacing=4, radius=5, window="ball"), ConvexSearch(spacing=2, radius=3, window="ball"))
    return RegistrationConfig(grid=IsotropicGrid(max_anisotropy=2.0), discrete=searches, continuous=ADAM)


def run_pair(
    name: str, folder: Path, stages: Mapping[str, Refinement], threads: int | None, repeat: int
) -> Iterator[dict[str, str]]:
    """Yield a row for the start and one for each optimiser; if one fails, its row has the error."""
    fixed, moving = read_images(folder)
    truth, config = read_truth(folder, fixed.grid, moving.grid), make_config()
    runs.harness.progress(f"{name}: search")
    start = prepare_start(fixed, moving, config)

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        stage_job = start.write(work)

        def evaluate(displacement: torch.Tensor) -> dict[str, str]:
            write_learn2reg(start.transform(displacement), work / "field.nii.gz")
            return runs.format_scores(work / "field.nii.gz", truth)

        def measure(stage: Refinement) -> dict[str, str]:
            settings = dataclasses.replace(config, continuous=stage).to_toml()
            job = {**stage_job, "config": settings, "repeat": repeat}
            measured = runs.run_worker(WORKER, job, work / "displacement.npy", work, threads)
            row = runs.format_measurements(measured) | evaluate(torch.from_numpy(np.load(work / "displacement.npy")))
            return row | {"iterations": str(measured["iterations"]), "seconds": f"{measured['seconds']:.3f}"}

        yield {"pair": name, "optimiser": START, "iterations": "0"} | evaluate(start.fields.forward)
        for optimiser, stage in stages.items():
            row = {"pair": name, "optimiser": optimiser}
            yield row | runs.attempt(f"{name}: {optimiser}", folder, lambda stage=stage: measure(stage))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if an optimiser failed on a pair."""
    parser = runs.make_parser(__doc__, "optimisers.csv")
    parser.set_defaults(repeat=3)
    options = parser.parse_args(arguments)
    pairs = runs.select_pairs(parser, options, COLUMNS)
    runs.set_up(options.threads)
    failed = False
    for name, folder in pairs.items():
        rows = []
        for row in run_pair(name, folder, STAGES, options.threads, options.repeat):
            rows.append(row)
            runs.save_row(options.output, COLUMNS, KEY, row)
        failed |= any("error" in row for row in rows)
        runs.print_rows(name, COLUMNS[1:], rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
