"""Output files of a registration, checked before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from convexadam.errors import FileError
from convexadam.geometry import Affine
from convexadam.io import check_learn2reg_name, write_image, write_transform
from convexadam.registration import RegistrationResult

MOVED, REPORT, LABELS = "moved.nii.gz", "report.json", "labels_moved.nii.gz"

TRANSFORM, MATRIX = "transform.nii.gz", "transform.tfm"
"""Name of the transform: of a displacement field, and of a linear one."""


def check_folder(folder: Path) -> None:
    """Raise unless the folder exists or can be created."""
    existing = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise FileError(f"--output-dir must be a folder, got {folder}, where {existing} is a file; choose another")


def check_outputs(results: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise if a result would replace a folder, an input or another result."""
    input_paths, result_paths = {path.resolve() for path in inputs if path is not None}, set[Path]()
    for path in results:
        resolved = path.resolve()
        if path.is_dir():
            raise FileError(f"cannot write {path}: it is a folder; remove it, or choose another --output-dir")
        if resolved in input_paths:
            raise FileError(f"cannot write {path}: it is an input; choose another --output-dir")
        if resolved in result_paths:
            raise FileError(f"cannot write two results to {path}; choose another name for --learn2reg")
        result_paths.add(resolved)


def check_learn2reg_path(path: Path, output_dir: Path) -> None:
    """Raise unless the field can be written after the output folder is created."""
    check_learn2reg_name(path)
    folder, created = path.resolve().parent, output_dir.resolve()
    if not folder.is_dir() and folder not in (created, *created.parents):
        raise FileError(f"cannot write {path}: {path.parent} is not a folder; create it first, or choose another")


def write_result(result: RegistrationResult, folder: Path) -> list[Path]:
    """Write the moved image, the transform and the report; return their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot create the output folder {folder}: {error.strerror}; choose another --output-dir"
        ) from error
    write_image(result.moved, folder / MOVED)
    name = MATRIX if isinstance(result.transform, Affine) else TRANSFORM
    write_transform(result.transform, folder / name)
    result.save_report(folder / REPORT)
    return [folder / written for written in (MOVED, name, REPORT)]
