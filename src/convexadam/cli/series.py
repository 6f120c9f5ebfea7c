"""``convexadam series``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convexadam.cli.common import Header, OptionalFile, Preset, UsageError, say
from convexadam.cli.workers import make_config
from convexadam.io import read_image, write_image
from convexadam.registration import RegistrationConfig
from convexadam.series import Order, register_series


@dataclass(frozen=True, kw_only=True)
class Series:
    """Register the frames of a time series, such as to correct motion; the same command continues.

    DIR holds moved.nii.gz (all frames on the grid of the reference), mean.nii.gz, motion.csv (translation, rotation and
    framewise displacement) and transforms/.

    Attributes
    ----------
    frames
        A 4-D NIfTI file, or one file for each frame, by their names or a pattern.
    output_dir
        Folder for the results; created if it does not exist.
    motion
        rigid, affine, or deformable (the settings of --preset).
    reference
        Number of the frame to register to, from 0; or mean, the average of the frames.
    order
        reference: each frame to the reference. chain: each frame to the one before it.
    cold
        Register each frame that deforms by itself; without it, the search begins at the field of the frame before.
    temporal_sigma
        Standard deviation, in frames, of the smoothing of transforms over time.
    labels
        Labels of the reference, which are written for each frame: labels/.
    config
        TOML file of settings, instead of a preset.
    quiet
        Print nothing.
    """

    frames: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FRAMES")]
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    motion: Literal["rigid", "affine", "deformable"] = "rigid"
    reference: str = "0"
    order: Order = "reference"
    cold: bool = False
    temporal_sigma: float = 0.0
    labels: OptionalFile = None
    preset: Preset = "default"
    config: OptionalFile = None
    header: Header = None
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        if not self.frames:
            raise UsageError("FRAMES must be a file or files, got none; name them")
        if self.reference != "mean" and not self.reference.isdecimal():
            raise UsageError(f"--reference must be the number of a frame or mean, got {self.reference}; change it")
        result = register_series(
            self.frames if len(self.frames) > 1 else self.frames[0],
            output_dir=self.output_dir,
            config=self._make_config(),
            reference="mean" if self.reference == "mean" else int(self.reference),
            order=self.order,
            warm_start=False if self.cold else None,
            temporal_sigma=self.temporal_sigma,
        )
        if self.labels is not None:
            folder = self.output_dir / "labels"
            folder.mkdir(exist_ok=True)
            for number, moved in enumerate(result.warp_labels(read_image(self.labels))):
                write_image(moved, folder / f"{number:04d}.nii.gz")
        if not self.quiet:
            largest = max(result.motion, key=lambda one: one.mean_displacement_mm)
            say(
                f"{len(result.motion)} frames; largest mean displacement "
                f"{largest.mean_displacement_mm:.2f} mm in frame {largest.frame}; {self.output_dir / 'motion.csv'}"
            )

    def _make_config(self) -> RegistrationConfig:
        by_preset = self.config is not None or self.motion == "deformable"
        return make_config(self.preset if by_preset else self.motion, self.config)
