"""``convexadam demo``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from convexadam.cli.common import Preset, say
from convexadam.cli.results import FIGURE, check_folder, write_result
from convexadam.data import PhantomPair, phantom_pair
from convexadam.errors import MissingExtraError
from convexadam.io import write_image, write_landmarks
from convexadam.metrics import evaluate_transform
from convexadam.registration import RegistrationResult, register


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Register a synthetic pair with known displacement; print a table and one line of JSON.

    Attributes
    ----------
    output_dir
        Folder for the images, their labels (fixed_labels.nii.gz, moving_labels.nii.gz) and landmarks (fixed.csv,
        moving.csv), and for moved.nii.gz, transform.nii.gz, report.json and figure.png.
    preset
        Preset of the settings.
    device
        Device to compute on, such as cpu or cuda:0.
    quiet
        Print no progress and no messages but errors.
    """

    output_dir: Path = Path("demo")
    preset: Preset = "default"
    device: str = "cpu"
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        check_folder(self.output_dir)
        pair = phantom_pair(contrasts=("ct", "t1"), device=self.device)
        result = register(pair.fixed, pair.moving, self.preset, progress=False if self.quiet else None)
        scores = evaluate_transform(
            result.transform,
            fixed_labels=pair.fixed_labels,
            moving_labels=pair.moving_labels,
            fixed_landmarks_mm=pair.fixed_landmarks_mm,
            moving_landmarks_mm=pair.moving_landmarks_mm,
            surface=False,
        )
        written = [*write_result(result, self.output_dir), *_write_inputs(pair, self.output_dir)]
        summary = {
            "dice_before": round(scores["dice_before"], 4),
            "dice": round(scores["dice"], 4),
            "tre_before_mm": round(scores["tre_before_mm"], 3),
            "tre_mm": round(scores["tre_mm"], 3),
            "folded_percent": round(scores["folded_percent"], 5),
            "seconds": round(sum(result.timings.values()), 2),
        }
        if not self.quiet:
            _print_table(summary)
        written += _write_figure(result, self.output_dir / FIGURE)
        say(f"wrote {', '.join(map(str, written))}")
        sys.stdout.write(json.dumps(summary) + "\n")


def _write_inputs(pair: PhantomPair, folder: Path) -> list[Path]:
    """Write both images, and their labels and landmarks in voxel indices, on which the other commands can be tried."""
    images = {
        "fixed": pair.fixed,
        "moving": pair.moving,
        "fixed_labels": pair.fixed_labels,
        "moving_labels": pair.moving_labels,
    }
    for name, image in images.items():
        write_image(image, folder / f"{name}.nii.gz")
    points_mm = {"fixed": pair.fixed_landmarks_mm, "moving": pair.moving_landmarks_mm}
    for name, points in points_mm.items():
        write_landmarks(images[name].grid.world_to_index(points), folder / f"{name}.csv")
    return [folder / f"{name}.nii.gz" for name in images] + [folder / f"{name}.csv" for name in points_mm]


def _write_figure(result: RegistrationResult, path: Path) -> list[Path]:
    try:
        result.plot(path=path)
    except MissingExtraError as error:
        say(f"convexadam: no figure written: {error}")
        return []
    return [path]


def _print_table(summary: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "before", "after")
    table.add_row("Dice", f"{summary['dice_before']:.3f}", f"{summary['dice']:.3f}")
    table.add_row("TRE (mm)", f"{summary['tre_before_mm']:.2f}", f"{summary['tre_mm']:.2f}")
    table.add_row("folded voxels (%)", "", f"{summary['folded_percent']:.4f}")
    table.add_row("seconds", "", f"{summary['seconds']:.1f}")
    Console(stderr=True).print(table)
