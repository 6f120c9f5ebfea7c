"""The folder that a registration writes to, checked before the work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from convexadam.errors import FileError
from convexadam.io import check_learn2reg_name, write_image, write_itk_field
from convexadam.registration import RegistrationResult

MOVED, TRANSFORM, REPORT, LABELS = "moved.nii.gz", "transform.nii.gz", "report.json", "labels_moved.nii.gz"


def check_folder(folder: Path) -> None:
    """Raise unless the folder is there or can be made."""
    existing = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise FileError(f"cannot make the output folder {folder}: {existing} is a file; choose another --output-dir")


def check_places(results: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise if a result would lie where a folder, another result or an input is."""
    given, taken = {path.resolve() for path in inputs if path is not None}, set[Path]()
    for path in results:
        place = path.resolve()
        if path.is_dir():
            raise FileError(f"{path} is a folder, where a result is to be written; remove it, or choose another place")
        if place in given:
            raise FileError(f"{path} is an input, and a result would replace it; choose another place for the results")
        if place in taken:
            raise FileError(f"two results would be written to {path}; give --learn2reg another name")
        taken.add(place)


def check_learn2reg_place(path: Path, output_dir: Path) -> None:
    """Raise unless the field can be written there, once the output folder is made."""
    check_learn2reg_name(path)
    folder, made = path.resolve().parent, output_dir.resolve()
    if not folder.is_dir() and folder not in (made, *made.parents):
        raise FileError(f"cannot write {path}: {path.parent} is not a folder; create it first, or choose another")


def write_result(result: RegistrationResult, folder: Path) -> list[Path]:
    """Write the moved image, the transform and the report; their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot make the output folder {folder}: {error.strerror}; choose another --output-dir"
        ) from error
    write_image(result.moved, folder / MOVED)
    write_itk_field(result.transform, folder / TRANSFORM)
    result.save_report(folder / REPORT)
    return [folder / name for name in (MOVED, TRANSFORM, REPORT)]
