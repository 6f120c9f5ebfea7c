"""``convexadam template``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from convexadam.cli.common import Header, OptionalFile, say
from convexadam.cli.workers import StudyOptions
from convexadam.io import read_scans
from convexadam.template import TemplateRound, build_template


@dataclass(frozen=True, kw_only=True)
class Template(StudyOptions):
    """Build the template of a group: its mean shape and average intensities; the same command continues.

    DIR holds template.nii.gz, deviation.nii.gz, convergence.csv, and a folder for each scan with the transform from the
    template, the logarithm of its Jacobian determinant and warped labels.

    Attributes
    ----------
    scans
        Pattern of images such as 'scans/*.nii.gz', or a list: .csv, .tsv or .json with image and, optionally, id,
        labels and weight.
    output_dir
        Folder for the results; created if it does not exist.
    linear_rounds
        Affine rounds before the deformable ones.
    rounds
        Largest number of deformable rounds.
    tolerance_percent
        They end when one changes the intensities by less than this.
    start
        Image to begin with. Default: the average of the scans, aligned by their centres of mass.
    spacing_mm
        Voxel size of the template. Default: the median of the scans.
    symmetric
        Make the template symmetric between left and right.
    sharpening
        Amount of unsharp masking of the averages.
    quiet
        Print nothing.
    """

    scans: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SCANS")]
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    linear_rounds: int = 2
    rounds: int = 4
    tolerance_percent: float = 0.5
    start: OptionalFile = None
    spacing_mm: tuple[float, float, float] | None = None
    symmetric: bool = False
    sharpening: float = 0.0
    header: Header = None
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        with self.open_executor() as executor:
            found = build_template(
                read_scans(self.scans),
                output_dir=self.output_dir,
                config=self.make_config(),
                linear_rounds=self.linear_rounds,
                rounds=self.rounds,
                tolerance_percent=self.tolerance_percent,
                spacing_mm=self.spacing_mm,
                start=self.start,
                symmetric=self.symmetric,
                sharpening=self.sharpening,
                executor=executor,
                on_round=None if self.quiet else _print_round,
            )
        for name in found.failed:
            say(f"convexadam: warning: scan {name} could not be registered and does not contribute")
        if not self.quiet:
            say(
                f"template of {len(found.scans)} scans, {found.bias_mm:.3f} mm from their mean shape; "
                f"{self.output_dir / 'template.nii.gz'}"
            )


def _print_round(one: TemplateRound) -> None:
    kind = "affine" if one.linear else "deformable"
    say(f"round {one.number} ({kind}): intensities changed by {one.change_percent:.2f} %")
