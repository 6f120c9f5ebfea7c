"""``convexadam register``."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from convexadam.cli.common import (
    Header,
    OptionalFile,
    OptionalOutput,
    Preset,
    UsageError,
    read_optional,
    say,
)
from convexadam.cli.points import read_points
from convexadam.cli.results import (
    FIGURE,
    check_fixed_image,
    check_folder,
    check_learn2reg_path,
    check_outputs,
    write_result,
)
from convexadam.cli.transform_files import load_transform
from convexadam.errors import ConfigError
from convexadam.geometry import Affine, Transform, compose
from convexadam.io import read_image, write_image, write_learn2reg
from convexadam.linear import LinearAlignment
from convexadam.metrics.summary import to_integer_labels
from convexadam.registration import RegistrationConfig, RegistrationResult, prepare, preset, register
from convexadam.registration.files import MOVED_LABELS, REPORT, name_outputs
from convexadam.registration.inputs import parse_images
from convexadam.registration.summary import describe_alignment
from convexadam.report import QualityMeasures, measure_quality, write_report
from convexadam.report.folder import PAGE, THUMBNAIL
from convexadam.viz.pictures import check_extra

HELP_ALL = "--help-all"

_INPUTS = (
    "fixed",
    "moving",
    "fixed_mask",
    "moving_mask",
    "fixed_landmarks",
    "moving_landmarks",
    "fixed_segmentation",
    "moving_segmentation",
    "initial_transform",
    "warp_labels",
)
"""Options that name files to read."""


@dataclass(frozen=True, kw_only=True)
class Register:
    """Register MOVING to FIXED; write moved.nii.gz, transform.nii.gz and report.json.

    transform.nii.gz maps fixed to moving space, with the linear alignment and the initial transform included. It is a
    displacement field as ITK, ANTs and Slicer read it: 5-D, intent 1007, in mm LPS. With --preset rigid, similarity or
    affine it is a matrix instead, transform.tfm.

    Fields marked {fixed} and other components are set with --set, such as
    --set 'continuous.update_smoothing={type="GaussianSmoothing", sigma=1.5}'.

    Attributes
    ----------
    fixed
        Image: NIfTI, MetaImage, NRRD or DICOM.
    moving
        Image to align with FIXED, on any grid.
    output_dir
        Folder for moved, transform and report.
    smoothness
        Factor of all smoothing: above 1, smoother.
    linear
        Alignment: none, rigid, similarity or affine.
    report
        Also write report.html: pictures and quality.
    figure
        Also write figure.png: slices before and after.
    fixed_mask
        Volume, above 0 where FIXED is to be registered.
    moving_mask
        The same for MOVING.
    warp_labels
        Labels of MOVING to warp to moved_labels.nii.gz.
    config
        TOML file of settings, instead of a preset.
    set
        Change one: discrete.spacing=5 (repeatable).
    initial_transform
        Transform (fixed to moving space) to start from.
    fixed_landmarks
        CSV of voxel indices i,j,k that guide the result.
    moving_landmarks
        The same points in MOVING, row by row.
    fixed_segmentation
        Label map for features that compare labels.
    moving_segmentation
        The same for MOVING.
    device
        Device such as cuda:0.
    check_mirror
        Also register the mirror image, to find exchanged left and right.
    learn2reg
        Also write the field in voxels (.npz, .nii.gz).
    quiet
        Print nothing but errors.
    """

    base: ClassVar[RegistrationConfig]
    """The settings that the options change."""

    arguments: ClassVar[tuple[str, ...]] = ()
    """The options as they were given."""

    fixed: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIXED")]
    moving: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MOVING")]
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    preset: Preset = "default"
    smoothness: Annotated[float, tyro.conf.arg(metavar="FACTOR", help_behavior_hint="")] = 1.0
    linear: Annotated[
        Literal["none", "rigid", "similarity", "affine"] | None,
        tyro.conf.arg(metavar="MODEL", help_behavior_hint=""),
    ] = None
    report: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    figure: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    # what most registrations need comes before this line: the help has the same order
    fixed_mask: OptionalFile = None
    moving_mask: OptionalFile = None
    warp_labels: OptionalFile = None
    config: OptionalFile = None
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TOML", help_behavior_hint="")
    ] = ()
    initial_transform: OptionalFile = None
    fixed_landmarks: OptionalFile = None
    moving_landmarks: OptionalFile = None
    fixed_segmentation: OptionalFile = None
    moving_segmentation: OptionalFile = None
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "cpu"
    check_mirror: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    header: Header = None
    learn2reg: OptionalOutput = None
    quiet: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False

    def run(self) -> None:
        """Run the command."""
        self._check_outputs()
        labels = read_optional(read_image, self.warp_labels)
        if labels is not None:
            to_integer_labels(labels, "--warp-labels")  # raises for intensities
        fixed, moving, initial = self._read_images()
        fixed_points, moving_points = (
            read_points(path, image.grid, "check the file")
            for path, image in ((self.fixed_landmarks, fixed), (self.moving_landmarks, moving))
        )
        result = register(
            fixed,
            moving,
            self._make_config(),
            fixed_mask=self.fixed_mask,
            moving_mask=self.moving_mask,
            fixed_segmentation=self.fixed_segmentation,
            moving_segmentation=self.moving_segmentation,
            initial_transform=initial,
            fixed_landmarks=fixed_points,
            moving_landmarks=moving_points,
            device=self.device,
            progress=False if self.quiet else None,
        )
        extra, gain = self._describe_run(), ""
        if self.check_mirror:
            measures = self._measure_mirror(result, initial)
            extra["quality"], gain = measures.to_dict(), f"gain of the mirror image {measures.mirror_gain:.3g}, "
        written = write_result(result, self.output_dir, extra=extra)
        if labels is not None:
            write_image(result.transform.warp(labels, result.fixed, mode="label"), self.output_dir / MOVED_LABELS)
            written.append(self.output_dir / MOVED_LABELS)
        if self.learn2reg is not None:
            write_learn2reg(result.transform.to_displacement_field(result.fixed), self.learn2reg)
            written.append(self.learn2reg)
        if self.figure:
            result.plot(path=self.output_dir / FIGURE)
            written.append(self.output_dir / FIGURE)
        if self.report:
            written += write_report(self.output_dir)
        if not self.quiet:
            say(f"{gain}{_summarise(result)}; wrote {', '.join(map(str, written))}")

    def _measure_mirror(self, result: RegistrationResult, initial: Transform | None) -> QualityMeasures:
        """Register the mirror image of the moving image as well, and return the quality of the result beside it."""
        prepared = prepare(
            result.fixed, result.config, fixed_mask=self.fixed_mask, fixed_segmentation=self.fixed_segmentation
        )
        mirrored = prepared.register_mirrored(
            result.moving,
            moving_mask=self.moving_mask,
            moving_segmentation=self.moving_segmentation,
            initial_transform=initial,
        )
        masks = {"fixed_mask": self.fixed_mask, "moving_mask": self.moving_mask}
        return measure_quality(result, result.fixed, result.moving, mirrored=mirrored, **masks)

    def _describe_run(self) -> dict[str, Any]:
        """Return what report.json holds besides the result: the command, and where its inputs are."""
        inputs = {name: getattr(self, name) for name in _INPUTS}
        return {
            "command": shlex.join(["convexadam", "register", *self.arguments]),
            "inputs": {name: str(path.absolute()) for name, path in inputs.items() if path is not None},
        }

    def _check_outputs(self) -> None:
        """Raise before the registration, not after it, if the results cannot be written."""
        if self.check_mirror and self.fixed_landmarks is not None:
            raise UsageError("--check-mirror must be omitted with --fixed-landmarks, which guide the result; omit one")
        check_folder(self.output_dir)
        names = [*name_outputs(("moved", "transform"), linear=self.base.is_linear, labels=False), REPORT]
        names += [MOVED_LABELS] * (self.warp_labels is not None)
        results = [self.output_dir / name for name in names]
        if self.learn2reg is not None:
            check_learn2reg_path(self.learn2reg, self.output_dir)
            results.append(self.learn2reg)
        if self.figure or self.report:
            check_extra()
        results += [self.output_dir / FIGURE] * self.figure
        if self.report:
            results += [self.output_dir / name for name in (PAGE, THUMBNAIL)]
        check_outputs(results, [getattr(self, name) for name in _INPUTS])

    def _read_images(self) -> tuple[Any, Any, Transform | None]:
        """Return both images and the initial transform; some of its file formats need the grids of the images."""
        fixed, moving = parse_images(self.fixed, self.moving, self.device)
        if not self.base.is_linear:  # a matrix needs no grid
            check_fixed_image(fixed, self.output_dir)
        if self.initial_transform is None:
            return fixed, moving, None
        path = self.initial_transform
        initial = compose(load_transform(path, fixed=fixed.grid, moving=moving.grid, device=fixed.data.device))
        if self.linear not in (None, "none") and not isinstance(initial, Affine):
            raise ConfigError(
                f"--initial-transform must be an affine transform for --linear {self.linear}, got the deformable "
                f"{path}; omit one of them"
            )
        return fixed, moving, initial

    def _make_config(self) -> RegistrationConfig:
        components = {name: getattr(self, name) for name in _get_components(self.base)}
        linear = self.base.linear
        if self.linear == "none":
            linear = None
        elif self.linear is not None:
            linear = dataclasses.replace(linear or LinearAlignment(), model=self.linear)
        return dataclasses.replace(self.base, **components, linear=linear)


def make_register_command(arguments: Sequence[str], *, all_options: bool = True) -> type[Register]:
    """Return the command with an option for each field of the components that the arguments select.

    Without ``all_options`` it has only the common ones, for a help that fits on one screen.
    """
    base = _read_base_config(arguments)
    components = _get_components(base) if all_options else {}
    help_texts = _read_attributes(RegistrationConfig)
    fields = [
        (name, Annotated[type(value), tyro.conf.arg(help=help_texts[name])], dataclasses.field(default=value))
        for name, value in components.items()
    ]
    if not all_options:
        fields += [
            ("check_mirror", Annotated[bool, tyro.conf.Suppress], dataclasses.field(default=False)),
            ("smoothness", Annotated[float, tyro.conf.Suppress], dataclasses.field(default=1.0)),
            ("header", Annotated[Header, tyro.conf.Suppress], dataclasses.field(default=None)),
        ]
    command = dataclasses.make_dataclass(
        "Register",
        fields,
        bases=(Register,),
        namespace={"base": base, "arguments": tuple(arguments)},
        frozen=True,
        kw_only=True,
    )
    command.__doc__ = Register.__doc__
    return command


def _get_components(config: RegistrationConfig) -> dict[str, Any]:
    """Return the settings by name, except absent ones and the linear alignment, whose name is a common option."""
    return {name: value for name, value in vars(config).items() if value is not None and name != "linear"}


def _read_attributes(cls: type) -> dict[str, str]:
    """Return the text of each attribute in the docstring of a class."""
    section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes\n----------\n")[2]
    entries = re.findall(r"^(\w+)\n((?:    .*\n?)+)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _read_base_config(arguments: Sequence[str]) -> RegistrationConfig:
    """Return the settings of --preset, --smoothness, --config and --set, which decide what other options there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--smoothness")
    parser.add_argument("--config")
    parser.add_argument("--set", action="append", default=[])
    known, _ = parser.parse_known_args(arguments)
    if known.preset and known.config:
        raise UsageError(
            f"settings must come from --preset or --config, got --preset {known.preset} and --config {known.config}; "
            "omit one of them"
        )
    if known.config and known.smoothness:
        raise UsageError(
            f"--smoothness must come without --config, got {known.smoothness}; "
            "scale the smoothing in the file: convexadam config --smoothness writes one"
        )
    if known.config:
        base = RegistrationConfig.load(known.config)
    else:
        base = preset(known.preset or "default", smoothness=_parse_factor(known.smoothness or "1"))
    return base.with_settings(*known.set)


def _parse_factor(text: str) -> float:
    """Return a number; 1 for what is none, which is refused when the command is parsed."""
    try:
        return float(text)
    except ValueError:
        return 1.0


def _summarise(result: RegistrationResult) -> str:
    diagnostics, fit = result.diagnostics, result.linear
    alignment = "no linear alignment"
    if fit is not None:
        alignment = f"linear alignment: {describe_alignment(fit, result.fixed.grid)}"
    return (
        f"{alignment}; maximum displacement {diagnostics['displacement_max_mm']:.1f} mm, "
        f"{diagnostics['folded_percent']:.4f} % folded voxels, {sum(result.timings.values()):.1f} s"
    )
