"""``convexadam register``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tyro

from convexadam.cli.common import Preset, optional, progress_bar, say
from convexadam.cli.matrices import described_matrix
from convexadam.cli.results import (
    LABELS,
    MOVED,
    REPORT,
    TRANSFORM,
    check_folder,
    check_learn2reg_place,
    check_places,
    write_result,
)
from convexadam.cli.transform_files import load_transform
from convexadam.errors import ConfigError
from convexadam.geometry import Affine, Transform, compose
from convexadam.io import read_image, write_image, write_learn2reg
from convexadam.linear import LinearAlignment
from convexadam.linear.starts import centre_of_box
from convexadam.registration import RegistrationConfig, RegistrationResult, preset, register
from convexadam.registration.inputs import checked_image


@dataclass(frozen=True, kw_only=True)
class Register:
    """Register MOVING to FIXED; write moved.nii.gz, transform.nii.gz and report.json into a folder.

    transform.nii.gz is the displacement field as ITK, ANTs and Slicer read it: 5-D, intent 1007, LPS mm, fixed to
    moving. It holds the linear alignment and the initial transform as well.

    Attributes
    ----------
    fixed
        Volume that stays: NIfTI, MetaImage, NRRD, or DICOM (a file, or a folder with one series).
    moving
        Volume that is brought onto it; any grid, spacing and orientation.
    output_dir
        Folder for the results; made where it does not exist.
    preset
        Named settings to start from.
    config
        TOML file of settings to start from, instead of a preset.
    set
        Change a setting or exchange a component, in TOML; may come several times, before all other options act:
        ``--set discrete.spacing=5 --set 'grid={type="GivenGrid"}'``.
    initial_transform
        File of a transform from fixed to moving space to begin with, instead of the headers alone. The linear
        alignment starts from an affine one, and is left out after any other.
    linear
        Richest model of the alignment before the deformable stages, or none; without it, that of the settings. Its
        other settings: ``--set linear.gain=0.2``.
    fixed_mask
        Volume; above 0 where the fixed image has evidence.
    moving_mask
        Volume; above 0 where the moving image has evidence.
    fixed_landmarks
        Points that guide the registration: three numbers in each line, voxel indices of FIXED counted from 0. How much
        they have to say: ``--landmarks.weight``.
    moving_landmarks
        The same places in MOVING, line by line, in its voxel indices.
    fixed_labels
        Label map of FIXED, or probabilities with a channel for each class, where the settings compare them:
        ``--set 'features={type="LabelFeatures"}'``.
    moving_labels
        The same of MOVING.
    labels
        Label map of the moving image; it is warped along, to labels_moved.nii.gz in the folder.
    device
        Where to compute, such as cpu or cuda:0.
    learn2reg
        Also write the field in voxels (X,Y,Z,3) to this .nii.gz or .npz file.
    quiet
        No progress, no summary.
    """

    start: ClassVar[RegistrationConfig]
    """The settings that the options change."""

    fixed: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIXED")]
    moving: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MOVING")]
    output_dir: Path
    preset: Preset = "default"
    config: Path | None = None
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    initial_transform: Path | None = None
    linear: Annotated[
        Literal["none", "rigid", "similarity", "affine"] | None,
        tyro.conf.arg(metavar="{none,rigid,similarity,affine}"),
    ] = None
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    labels: Path | None = None
    device: str = "cpu"
    learn2reg: Path | None = None
    quiet: bool = False

    def run(self) -> None:
        """Do the work."""
        self._check_places()
        labels = optional(read_image, self.labels)
        fixed, moving, initial = self._images()
        with progress_bar(self.quiet) as progress:
            result = register(
                fixed,
                moving,
                self._settings(),
                fixed_mask=self.fixed_mask,
                moving_mask=self.moving_mask,
                fixed_labels=self.fixed_labels,
                moving_labels=self.moving_labels,
                initial_transform=initial,
                fixed_landmarks=self.fixed_landmarks,
                moving_landmarks=self.moving_landmarks,
                device=self.device,
                progress=progress,
            )
        written = write_result(result, self.output_dir)
        if labels is not None:
            write_image(result.transform.warp(labels, mode="label"), self.output_dir / LABELS)
            written.append(self.output_dir / LABELS)
        if self.learn2reg is not None:
            write_learn2reg(result.transform, self.learn2reg)
            written.append(self.learn2reg)
        if not self.quiet:
            say(f"{_summary(result)}; wrote {', '.join(map(str, written))}")

    def _check_places(self) -> None:
        """Raise where the results cannot go; said before the work, not after it."""
        check_folder(self.output_dir)
        names = [MOVED, TRANSFORM, REPORT] + [LABELS] * (self.labels is not None)
        results = [self.output_dir / name for name in names]
        if self.learn2reg is not None:
            check_learn2reg_place(self.learn2reg, self.output_dir)
            results.append(self.learn2reg)
        pairs = self.fixed_mask, self.moving_mask, self.fixed_landmarks, self.moving_landmarks
        beside = *pairs, self.fixed_labels, self.moving_labels, self.labels
        check_places(results, (self.fixed, self.moving, *beside, self.initial_transform))

    def _images(self) -> tuple[Any, Any, Transform | None]:
        """Return both images in a form that `register` takes, and the initial transform, which may need their grids."""
        if self.initial_transform is None:
            return self.fixed, self.moving, None
        fixed = checked_image(self.fixed, None, self.device, "fixed")
        moving = checked_image(self.moving, None, self.device, "moving")
        path = self.initial_transform
        initial = compose(load_transform(path, fixed=fixed.grid, moving=moving.grid, device=fixed.data.device))
        if self.linear not in (None, "none") and not isinstance(initial, Affine):
            raise ConfigError(f"--linear {self.linear} cannot begin with {path}, which bends; leave one of them out")
        return fixed, moving, initial

    def _settings(self) -> RegistrationConfig:
        components = {name: getattr(self, name) for name in _components(self.start)}
        linear = self.start.linear
        if self.linear is not None:
            aligned = LinearAlignment() if linear is None else linear
            linear = None if self.linear == "none" else dataclasses.replace(aligned, model=self.linear)
        return dataclasses.replace(self.start, **components, linear=linear)


def register_command(arguments: Sequence[str]) -> type[Register]:
    """Make the register command with an option for each setting, of the components that the arguments choose."""
    start = _starting_settings(arguments)
    components = [(name, type(value), dataclasses.field(default=value)) for name, value in _components(start).items()]
    command = dataclasses.make_dataclass(
        "Register", components, bases=(Register,), namespace={"start": start}, frozen=True, kw_only=True
    )
    command.__doc__ = Register.__doc__
    return command


def _components(settings: RegistrationConfig) -> dict[str, Any]:
    """Return the components that are there, but for the linear one, whose name is an option of its own."""
    return {name: value for name, value in vars(settings).items() if value is not None and name != "linear"}


def _starting_settings(arguments: Sequence[str]) -> RegistrationConfig:
    """Read --preset or --config ahead of the rest, since they decide which options there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--config")
    parser.add_argument("--set", action="append", default=[])
    known, _ = parser.parse_known_args(arguments)
    if known.preset and known.config:
        raise ConfigError("--preset and --config both came; give one of them")
    start = RegistrationConfig.load(known.config) if known.config else preset(known.preset or "default")
    return start.with_settings(*known.set)


def _summary(result: RegistrationResult) -> str:
    found = result.diagnostics
    return (
        f"{_linear_summary(result)}; moved up to {found['displacement_max_mm']:.1f} mm, "
        f"{found['folded_percent']:.4f} % folded, {sum(result.seconds.values()):.1f} s"
    )


def _linear_summary(result: RegistrationResult) -> str:
    fit = result.linear
    if fit is None:
        return "no linear alignment"
    if fit.model is None:
        return "linear alignment: nothing better than the start"
    matrix, centre = fit.transform.matrix, centre_of_box(result.fixed.grid)
    moved = np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre)
    turned = described_matrix(matrix)["rotation_degrees"]
    return (
        f"linear alignment: {fit.model}, turns {turned:.1f} degrees "
        f"and moves the centre {moved:.1f} mm, feature difference {fit.difference_before:.3f} -> "
        f"{fit.difference_after:.3f}, fit to {fit.residual_mm:.2f} mm"
    )
