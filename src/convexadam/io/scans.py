"""Lists of scans: the images of a group, or atlases with labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from convexadam._arguments import check_arguments
from convexadam._checks import check_flag
from convexadam.errors import FileError, InputError
from convexadam.io.ids import check_ids, check_only_images, match_files, name_files
from convexadam.io.reading import StrPath, check_file
from convexadam.io.tables import read_rows

_COLUMNS = ("id", "image", "labels", "weight")


@final
@dataclass(frozen=True, kw_only=True)
class ScanFiles:
    """An image of a group, or an atlas.

    Attributes
    ----------
    id
        Unique name, which is that of a folder of results as well.
    image
        Its file.
    labels
        Its label map, on the same grid; ``None`` if there is none.
    weight
        Weight in averages of intensities, above 0.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.io import ScanFiles
    >>> ScanFiles(id="a", image=Path("a.nii.gz"), labels=Path("a_labels.nii.gz")).weight
    1.0
    """

    id: str
    image: Path
    labels: Path | None = None
    weight: float = 1.0


@check_arguments
def read_scans(source: StrPath | Sequence[StrPath], *, need_labels: bool = False) -> tuple[ScanFiles, ...]:
    """Return the scans of a list, or those whose names match a pattern.

    Parameters
    ----------
    source
        ``*.csv``, ``*.tsv`` or ``*.json`` with columns ``image`` and, optionally, ``id``, ``labels`` and ``weight``,
        whose paths are relative to it; or a pattern of image files, such as ``"scans/*.nii.gz"``, or several.
    need_labels
        Whether each scan must have labels.

    Raises
    ------
    FileError
        If the list cannot be read, or no file has such a name.
    ConfigError
        If ``need_labels`` is not a truth value.
    InputError
        If columns are unknown or missing, files do not exist, or ids are not unique. The message lists all rows that
        cannot be used. Also if some files of a pattern are label maps or masks by their names.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.io import read_scans
    >>> for name in ("a", "b"):
    ...     Path(f"{name}.nii.gz").touch()
    >>> [scan.id for scan in read_scans("*.nii.gz")]
    ['a', 'b']
    """
    check_flag(need_labels, "need_labels")
    names = [os.fspath(one) for one in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    if len(names) != 1 or Path(names[0]).suffix not in (".csv", ".tsv", ".json"):
        return _find_scans(names, need_labels=need_labels)
    name = names[0]
    with check_file(name, "a list of scans") as path:
        rows = read_rows(path, '[{"image": "a.nii.gz", "labels": "a_labels.nii.gz"}]')
    problems, scans = list[str](), list[ScanFiles]()
    for number, row in enumerate(rows, start=1):
        found = _find_problems(row, path.parent)
        if need_labels and "labels" not in row:
            found.append("no labels")
        problems += [f"row {number}: {problem}" for problem in found]
        if not found:
            scans.append(_make_scan(row, path.parent))
    if problems or not scans:
        raise InputError(f"{path} must list scans that can be used, got {'; '.join(problems) or 'none'}; correct it")
    return _name(scans)


def _find_scans(patterns: Sequence[str], *, need_labels: bool) -> tuple[ScanFiles, ...]:
    """Return the scans whose names match patterns."""
    given = " ".join(patterns)
    if folders := [name for name in patterns if Path(name).is_dir()]:
        raise InputError(
            f"scans must be a list or patterns of files, got the folder {folders[0]}; write '{folders[0]}/*.nii.gz'"
        )
    if need_labels:
        raise InputError(
            f"scans must be a list with a column labels, got the pattern {given}; write a .csv file with the columns "
            "image and labels"
        )
    paths = match_files(patterns)
    if not paths:
        raise FileError(f"{given or 'scans'} must name image files, got none; check the pattern")
    check_only_images(paths, given)
    return _name([ScanFiles(id="", image=path) for path in paths])


def _find_problems(row: Mapping[Any, Any], folder: Path) -> list[str]:
    found = [
        "more cells than columns" if key is None else f"unknown column {key}" for key in row if key not in _COLUMNS
    ]
    if "image" not in row:
        found.append("no image")
    for column in ("image", "labels"):
        if column in row and not (folder / str(row[column])).exists():
            found.append(f"there is no file {folder / str(row[column])}")
    try:
        if not 0 < float(row.get("weight", 1)) < float("inf"):
            found.append(f"weight must be above 0, got {row['weight']}")
    except ValueError:
        found.append(f"weight must be a number, got {row['weight']}")
    return found


def _make_scan(row: Mapping[str, Any], folder: Path) -> ScanFiles:
    image = folder / str(row["image"])
    labels = folder / str(row["labels"]) if "labels" in row else None
    return ScanFiles(id=str(row.get("id", "")), image=image, labels=labels, weight=float(row.get("weight", 1)))


def _name(scans: Sequence[ScanFiles]) -> tuple[ScanFiles, ...]:
    """Name scans that have no id after their images."""
    names = name_files([scan.image for scan in scans if not scan.id])
    named = tuple(scan if scan.id else replace(scan, id=names[scan.image]) for scan in scans)
    check_ids([scan.id for scan in named])
    return named
