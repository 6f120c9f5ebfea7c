"""The command line: ``convexadam register | warp | evaluate | demo``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from convexadam import __version__
from convexadam.errors import ConfigError, ConvexAdamError, FileError
from convexadam.io import (
    check_learn2reg_name,
    read_image,
    read_itk_field,
    read_landmarks,
    write_image,
    write_itk_field,
    write_learn2reg,
)
from convexadam.metrics import evaluate_transform
from convexadam.registration import RegistrationConfig, RegistrationResult, preset, register
from convexadam.registration.register import Progress


@dataclass(frozen=True, kw_only=True)
class _Register:
    """Register MOVING to FIXED; write moved.nii.gz, transform.nii.gz and report.json into a folder.

    transform.nii.gz is the displacement field as ITK, ANTs and Slicer read it: 5-D, intent 1007, LPS mm, fixed to
    moving.

    Attributes
    ----------
    fixed
        NIfTI volume that stays.
    moving
        NIfTI volume that is brought onto it; any grid, spacing and orientation.
    output_dir
        Folder for the results; made where it does not exist.
    preset
        Named settings to start from.
    config
        TOML file of settings to start from, instead of a preset.
    set
        Change a setting or exchange a component, in TOML; may come several times, before all other options act:
        ``--set discrete.spacing=5 --set 'grid={type="GivenGrid"}'``.
    fixed_mask
        NIfTI; above 0 where the fixed image has evidence.
    moving_mask
        NIfTI; above 0 where the moving image has evidence.
    device
        Where to compute, such as cpu or cuda:0.
    learn2reg
        Also write the field in voxels (X,Y,Z,3) to this .nii.gz or .npz file.
    quiet
        No progress, no summary.
    """

    fixed: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIXED")]
    moving: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MOVING")]
    output_dir: Path
    preset: Literal["default", "published"] = "default"
    config: Path | None = None
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    device: str = "cpu"
    learn2reg: Path | None = None
    quiet: bool = False

    def run(self) -> None:
        names = [item.name for item in dataclasses.fields(RegistrationConfig)]
        parts: dict[str, Any] = {name: getattr(self, name, None) for name in names}  # no option: no component
        _check_folder(self.output_dir)
        if self.learn2reg is not None:
            _check_learn2reg(self.learn2reg, self.output_dir)
        with _progress(self.quiet) as progress:
            result = register(
                self.fixed,
                self.moving,
                RegistrationConfig(**parts),
                fixed_mask=self.fixed_mask,
                moving_mask=self.moving_mask,
                device=self.device,
                progress=progress,
            )
        written = _write_result(result, self.output_dir)
        if self.learn2reg is not None:
            write_learn2reg(result.transform, self.learn2reg)
            written.append(self.learn2reg)
        if not self.quiet:
            found = result.diagnostics
            _say(
                f"moved up to {found['displacement_max_mm']:.1f} mm, {found['folded_percent']:.4f} % folded, "
                f"{sum(result.seconds.values()):.1f} s; wrote {', '.join(map(str, written))}"
            )


@dataclass(frozen=True, kw_only=True)
class _Warp:
    """Bring IMAGE (a volume, labels or a mask of moving space) onto the fixed grid with a TRANSFORM.

    Attributes
    ----------
    transform
        Displacement field that ``convexadam register`` wrote.
    image
        NIfTI volume in moving space, on any grid.
    output
        NIfTI file to write.
    mode
        How values are read; without it, whole-number files are taken as labels (nearest) and never mixed.
    background
        Value outside the image; without it 0 for labels, the smallest value otherwise.
    """

    transform: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRANSFORM")]
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    mode: Literal["linear", "cubic", "nearest", "label"] | None = None
    background: float | None = None

    def run(self) -> None:
        moved = read_itk_field(self.transform).warp(read_image(self.image), mode=self.mode, background=self.background)
        write_image(moved, self.output)


@dataclass(frozen=True, kw_only=True)
class _Evaluate:
    """Measure a TRANSFORM with labels or landmarks; print one JSON object.

    Attributes
    ----------
    transform
        Displacement field that ``convexadam register`` wrote.
    fixed_labels
        NIfTI label map of the fixed image.
    moving_labels
        NIfTI label map of the moving image, on any grid.
    labels
        Score only these labels; without it all that both maps have.
    fixed_landmarks
        CSV of voxel indices i,j,k in the fixed image.
    moving_landmarks
        CSV of voxel indices i,j,k in the moving image, row by row the same places.
    moving
        The moving image, whose grid the moving landmarks refer to; without it, the fixed grid.
    mask
        NIfTI on the fixed grid; regularity is measured within it as well.
    surface
        Whether to measure surface distances (slow).
    """

    transform: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRANSFORM")]
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    labels: tuple[int, ...] = ()
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None
    moving: Path | None = None
    mask: Path | None = None
    surface: bool = True

    def run(self) -> None:
        transform = read_itk_field(self.transform)
        moving_grid = transform.grid if self.moving is None else read_image(self.moving).grid
        scores = evaluate_transform(
            transform,
            fixed_labels=_optional(read_image, self.fixed_labels),
            moving_labels=_optional(read_image, self.moving_labels),
            labels=self.labels or None,
            fixed_landmarks_mm=_optional(lambda path: transform.grid.to_mm(read_landmarks(path)), self.fixed_landmarks),
            moving_landmarks_mm=_optional(lambda path: moving_grid.to_mm(read_landmarks(path)), self.moving_landmarks),
            mask=_optional(read_image, self.mask),
            surface=self.surface,
        )
        sys.stdout.write(json.dumps(_without_nan(scores), indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class _Demo:
    """Register an embedded pair with known truth; print a table and, last, one line of JSON.

    Attributes
    ----------
    output_dir
        Folder for moved.nii.gz, transform.nii.gz, report.json and figure.png.
    preset
        Named settings.
    device
        Where to compute, such as cpu or cuda:0.
    quiet
        No progress.
    """

    output_dir: Path = Path("demo")
    preset: Literal["default", "published"] = "default"
    device: str = "cpu"
    quiet: bool = False

    def run(self) -> None:
        from convexadam.data import phantom_pair

        _check_folder(self.output_dir)
        pair = phantom_pair(contrasts=("ct", "t1"), device=self.device)
        with _progress(self.quiet) as progress:
            result = register(pair.fixed, pair.moving, preset(self.preset), progress=progress)
        scores = evaluate_transform(
            result.transform,
            fixed_labels=pair.fixed_labels,
            moving_labels=pair.moving_labels,
            fixed_landmarks_mm=pair.fixed_landmarks_mm,
            moving_landmarks_mm=pair.moving_landmarks_mm,
            surface=False,
        )
        written = _write_result(result, self.output_dir)
        write_image(pair.fixed, self.output_dir / "fixed.nii.gz")
        write_image(pair.moving, self.output_dir / "moving.nii.gz")
        summary = {
            "dice_before": round(scores["dice_before"], 4),
            "dice_after": round(scores["dice"], 4),
            "tre_before_mm": round(scores["tre_before_mm"], 3),
            "tre_after_mm": round(scores["tre_mm"], 3),
            "folding_percent": round(scores["folded_percent"], 5),
            "seconds": round(sum(result.seconds.values()), 2),
        }
        _print_table(summary)
        written += _figure(result, self.output_dir / "figure.png")
        _say(f"wrote {', '.join(map(str, written))}")
        sys.stdout.write(json.dumps(summary) + "\n")


def _register_command(settings: RegistrationConfig) -> type[_Register]:
    """Make the register command with one option for each field of the given settings."""
    components = [
        (item.name, type(value), dataclasses.field(default=value))
        for item in dataclasses.fields(settings)
        if (value := getattr(settings, item.name)) is not None
    ]
    command = dataclasses.make_dataclass("_Register", components, bases=(_Register,), frozen=True, kw_only=True)
    command.__doc__ = _Register.__doc__
    return command


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


def _check_folder(folder: Path) -> None:
    """Raise unless the folder is there or can be made; said before the work, not after it."""
    existing = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise FileError(f"cannot make the output folder {folder}: {existing} is a file; choose another --output-dir")


def _check_learn2reg(path: Path, output_dir: Path) -> None:
    """Raise unless the field can be written there, once the output folder is made."""
    check_learn2reg_name(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file in it")
    folder, made = path.resolve().parent, output_dir.resolve()
    if not folder.is_dir() and folder not in (made, *made.parents):
        raise FileError(f"cannot write {path}: {path.parent} is not a folder; create it first, or choose another")


def _write_result(result: RegistrationResult, folder: Path) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot make the output folder {folder}: {error.strerror}; choose another --output-dir"
        ) from error
    write_image(result.moved, folder / "moved.nii.gz")
    write_itk_field(result.transform, folder / "transform.nii.gz")
    result.save_report(folder / "report.json")
    return [folder / name for name in ("moved.nii.gz", "transform.nii.gz", "report.json")]


def _figure(result: RegistrationResult, path: Path) -> list[Path]:
    from convexadam.errors import MissingExtraError
    from convexadam.viz import registration_figure

    try:
        registration_figure(result.fixed, result.moving, result.moved, result.transform.disp_mm, path=path)
    except MissingExtraError as error:
        _say(f"no figure: {error}")
        return []
    return [path]


def _print_table(summary: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "before", "after")
    table.add_row("Dice", f"{summary['dice_before']:.3f}", f"{summary['dice_after']:.3f}")
    table.add_row("TRE (mm)", f"{summary['tre_before_mm']:.2f}", f"{summary['tre_after_mm']:.2f}")
    table.add_row("folded (%)", "", f"{summary['folding_percent']:.4f}")
    table.add_row("seconds", "", f"{summary['seconds']:.1f}")
    Console().print(table)


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress | None]:
    """Show a bar on the terminal; nothing where there is none."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("start", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)


def _without_nan(value: Any) -> Any:
    """Turn NaN, which JSON does not have, into null."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _optional(read: Callable[[Path], Any], path: Path | None) -> Any:
    return None if path is None else read(path)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 if it did its work, 1 if it could not, 2 if it was called wrongly."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        sys.stdout.write(f"convexadam {__version__}\n")
        return 0
    try:
        is_register = arguments[:1] == ["register"]
        commands: dict[str, Any] = {
            "register": _register_command(_starting_settings(arguments) if is_register else preset()),
            "warp": _Warp,
            "evaluate": _Evaluate,
            "demo": _Demo,
        }
        command = tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="convexadam",
            description="Deformable registration of 3-D medical images.",
            args=arguments,
            config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
        )
        command.run()
    except ConvexAdamError as error:
        _say(f"convexadam: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
