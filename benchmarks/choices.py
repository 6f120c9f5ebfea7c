"""Components that no preset uses, each beside what the preset ``default`` has in its place.

A component keeps its place in the library only with a case in which it is the best choice: ``docs/how-to-choose.md``
names these, and ``results/choices.csv`` has the figures. The cases are phantoms with known truth; ``--data`` adds the
pair on which automatic masks help. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "pairs")]

import harness  # noqa: E402 - these folders are no packages
import truth  # noqa: E402

from convexadam import Intensity, MindSSC, RegistrationConfig, preset, register  # noqa: E402
from convexadam.continuous import (  # noqa: E402
    Compositional,
    Diffusion,
    Level,
    Lncc,
    Refinement,
    StationaryVelocity,
)
from convexadam.data import phantom_pair  # noqa: E402
from convexadam.metrics import evaluate_transform  # noqa: E402
from convexadam.registration import AutoForeground  # noqa: E402

COLUMNS = ("case", "component", "tre_mm", "dice", "sdlogj", "folded_percent", "inverse_error_mm", "seconds")
KEY = ("case", "component")
SHAPE = (80, 68, 60)
SEEDS = (1, 4)
AUTOMATIC_MASK_PAIR = "liver_mr_eth_18"


def parametrisations() -> dict[str, RegistrationConfig]:
    """Return the default settings with each parametrisation that hardly folds."""
    kinds = {"Compositional": Compositional(), "StationaryVelocity": StationaryVelocity()}
    return {name: _replace_refinement(parametrisation=kind) for name, kind in kinds.items()}


def similarities() -> dict[str, RegistrationConfig]:
    """Return the default settings with each similarity for two contrasts."""
    return {
        "Ssd of MindSSC": preset("default"),
        "Ssd of MindSSC, radius 2": dataclasses.replace(preset("default"), continuous_features=MindSSC(radius=2)),
    } | {
        f"Lncc of Intensity, weight {weight}": dataclasses.replace(
            _replace_refinement(similarity=Lncc(), regularisers=(Diffusion(weight=weight),)),
            continuous_features=Intensity(),
        )
        for weight in (0.002, 0.02)
    }


def _replace_refinement(**changes: Any) -> RegistrationConfig:
    refinement = Refinement(
        levels=(Level(spacing=2, iterations=50),),
        regularisers=(Diffusion(weight=0.2),),
        parametrisation=Compositional(),
    )
    return dataclasses.replace(preset("default"), continuous=dataclasses.replace(refinement, **changes))


def measure(pairs: Sequence[Any], config: RegistrationConfig) -> dict[str, str]:
    """Register pairs, and return the means of their figures as text."""
    total: dict[str, float] = {}
    for pair in pairs:
        result = register(pair.fixed, pair.moving, config)
        points = pair.fixed_landmarks_mm
        error = result.transform.inverse(pair.moving)(result.transform(points)) - points
        scores = evaluate_transform(
            result.transform,
            fixed_labels=pair.fixed_labels,
            moving_labels=pair.moving_labels,
            fixed_landmarks_mm=points,
            moving_landmarks_mm=pair.moving_landmarks_mm,
            surface=False,
        )
        scores |= {
            "inverse_error_mm": float(error.norm(dim=1).mean()),
            "seconds": sum(result.timings.values()),
        }
        for name in COLUMNS[2:]:
            total[name] = total.get(name, 0.0) + float(scores[name])
    return {name: f"{value / len(pairs):.4g}" for name, value in total.items()}


def run_phantoms() -> Iterator[dict[str, str]]:
    """Measure parametrisations and similarities on phantoms."""
    for displacement_mm in (15, 40):
        pairs = [phantom_pair(SHAPE, displacement_mm=displacement_mm, seed=seed) for seed in SEEDS]
        for name, config in parametrisations().items():
            yield {"case": f"CT and CT, {displacement_mm} mm", "component": name} | measure(pairs, config)
    for noise in (1, 6):
        pairs = [phantom_pair(SHAPE, contrasts=("ct", "t1"), displacement_mm=15, seed=s, noise=noise) for s in SEEDS]
        for name, config in similarities().items():
            yield {"case": f"CT and T1, noise {noise}", "component": name} | measure(pairs, config)


def run_pair(folder: Path) -> Iterator[dict[str, str]]:
    """Measure automatic masks on a pair with landmarks."""
    fixed, moving = truth.read_images(folder)
    known = truth.read_truth(folder, fixed.grid, moving.grid)
    for name, foreground in (("no mask", None), ("AutoForeground", AutoForeground())):
        result = register(fixed, moving, dataclasses.replace(preset("default"), foreground=foreground))
        scores = evaluate_transform(result.transform, **known.arguments)
        row = {column: f"{scores[column]:.4g}" for column in COLUMNS if column in scores}
        yield {"case": folder.name, "component": name, "seconds": f"{sum(result.timings.values()):.3g}"} | row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the pairs of benchmarks/pairs")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "choices.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    rows = harness.read_rows(options.output, COLUMNS)
    cases = [run_phantoms()]
    if options.data is not None:
        cases.append(run_pair(options.data / AUTOMATIC_MASK_PAIR))
    for row in (row for case in cases for row in case):
        harness.progress(", ".join(row.values()))
        rows = harness.merged_rows(rows, [{column: row.get(column, "") for column in COLUMNS}], KEY)
        harness.write_rows(options.output, COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
