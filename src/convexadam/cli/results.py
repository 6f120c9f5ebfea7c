"""Output files of a registration, checked before it starts."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from convexadam._atomic import check_writable
from convexadam.errors import FileError, GeometryError
from convexadam.geometry import Image
from convexadam.io import check_learn2reg_name
from convexadam.io.nifti import has_right_angles
from convexadam.registration import RegistrationResult
from convexadam.registration.files import REPORT, SAVED, save_result

FIGURE = "figure.png"

_BYTES_PER_VOXEL = 16
"""Of the moved image and the transform, before they are packed."""


def check_folder(folder: Path) -> None:
    """Raise unless the folder exists, or can be created, and files can be written to it."""
    existing = _find_existing(folder)
    if not existing.is_dir():
        raise FileError(f"--output-dir must be a folder, got {folder}, where {existing} is a file; choose another")
    check_writable(existing / (secrets.token_hex(6) if existing != folder else REPORT))


def check_fixed_image(fixed: Image, folder: Path) -> None:
    """Raise unless the transform can be written on the grid of the fixed image; warn if the disk is nearly full."""
    if not has_right_angles(fixed.grid):
        raise GeometryError(
            f"the fixed image must have orthogonal axes (right angles) for a transform file of ITK, got {fixed.grid!r} "
            "with shear; resample it, or call convexadam.register in Python"
        )
    free, needed = shutil.disk_usage(_find_existing(folder)).free, fixed.grid.n_voxels * _BYTES_PER_VOXEL
    if free < needed:
        warnings.warn(
            f"the disk of {folder} has {free / 1e6:.0f} MB free, and the results may take up to {needed / 1e6:.0f} MB; "
            "free space before the registration ends",
            stacklevel=2,
        )


def _find_existing(folder: Path) -> Path:
    return next(part for part in (folder, *folder.absolute().parents) if part.exists())


def check_outputs(results: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise if a result would replace a folder, an input or another result."""
    input_paths, result_paths = {_resolve(path) for path in inputs if path is not None}, set[Path]()
    for path in results:
        resolved = _resolve(path)
        if path.is_dir():
            raise FileError(f"cannot write {path}: it is a folder; remove it, or choose another --output-dir")
        if resolved in input_paths:
            raise FileError(f"cannot write {path}: it is an input; choose another --output-dir")
        if resolved in result_paths:
            raise FileError(f"cannot write two results to {path}; choose another name for --learn2reg")
        result_paths.add(resolved)


def _resolve(path: Path) -> Path:
    return Path(os.path.realpath(path))  # `Path.resolve` raises where links form a loop


def check_learn2reg_path(path: Path, output_dir: Path) -> None:
    """Raise unless the field can be written after the output folder is created."""
    check_learn2reg_name(path)
    folder, created = _resolve(path).parent, _resolve(output_dir)
    if not folder.is_dir() and folder not in (created, *created.parents):
        raise FileError(f"cannot write {path}: {path.parent} is not a folder; create it first, or choose another")


def write_result(result: RegistrationResult, folder: Path, *, extra: Mapping[str, Any] | None = None) -> list[Path]:
    """Write the moved image, the transform and the report, with the keys of ``extra``; return their paths.

    Raises
    ------
    FileError
        If they cannot be written. They are kept in a temporary folder then if possible, which the message names.
    """
    try:
        return save_result(result, folder, SAVED, extra=extra)
    except FileError as error:
        try:
            rescue = Path(tempfile.mkdtemp(prefix="convexadam-"))
            save_result(result, rescue, SAVED, extra=extra)
        except (FileError, OSError):
            raise error from None
        raise FileError(f"{error}; the results must be moved from {rescue}, where they are kept") from error
