"""Lists of pairs of images in files."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from convexadam.errors import FileError, InputError, did_you_mean
from convexadam.io.nifti import StrPath
from convexadam.io.reading import reading


@final
@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """Files of a pair of images and of what is known beside them; but for masks, all come in twos or not at all.

    Attributes
    ----------
    name
        Tells pairs apart.
    fixed, moving
        The images.
    fixed_mask, moving_mask
        Where there is evidence.
    fixed_segmentation, moving_segmentation
        Label maps or probabilities that features compare, such as what a network predicts.
    fixed_labels, moving_labels
        Label maps that a transform is judged by.
    fixed_landmarks, moving_landmarks
        Points that a transform is judged by, row by row the same place, in voxel indices of their own image.
    """

    name: str
    fixed: Path
    moving: Path
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    fixed_segmentation: Path | None = None
    moving_segmentation: Path | None = None
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None


_COLUMNS = tuple(item.name for item in dataclasses.fields(PairFiles))

_IN_TWOS = ("segmentation", "labels", "landmarks")


def read_manifest(path: StrPath) -> tuple[PairFiles, ...]:
    """Read a list of pairs.

    Parameters
    ----------
    path
        ``*.json``, a list of objects, or any other name for a table with commas and a header line. Its columns are the
        attributes of `PairFiles`, of which ``fixed`` and ``moving`` have to be there; ``name`` is otherwise the number
        of the row, from 1. Empty cells are as good as none. Files are relative to the folder of the list.

    Raises
    ------
    FileError
        If the list cannot be read, is empty, or files that it names are missing (the message has all of them).
    InputError
        If a column is not known, something comes for one image of a pair alone, or two pairs have one name.
    """
    with reading(path, "a list of pairs") as source:
        text = source.read_text(encoding="utf-8-sig")
        rows = _from_json(text, source) if source.suffix == ".json" else _from_table(text)
        if not rows:
            raise FileError(f"{source} lists no pair; each row names the files of one, fixed and moving at least")
        pairs = tuple(_pair(row, number, source) for number, row in enumerate(rows, start=1))
    _check(pairs, source)
    return pairs


def _from_json(text: str, source: Path) -> Sequence[Mapping[str, Any]]:
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FileError(f'{source} is no list of pairs; it should be like [{{"fixed": "a.nii.gz", "moving": ...}}]')
    return rows


def _from_table(text: str) -> Sequence[Mapping[str, Any]]:
    return [row for row in csv.DictReader(text.splitlines(), skipinitialspace=True) if any(row.values())]


def _pair(row: Mapping[str, Any], number: int, source: Path) -> PairFiles:
    if None in row:
        raise InputError(f"pair {number} has more cells than there are columns")
    values = {key: value for key, value in row.items() if value not in (None, "", [])}
    if unknown := [key for key in values if key not in _COLUMNS]:
        hint = did_you_mean(str(unknown[0]), _COLUMNS)
        raise InputError(f"there is no column {unknown[0]!r}{hint}; known are {', '.join(_COLUMNS)}")
    if missing := [key for key in ("fixed", "moving") if key not in values]:
        raise InputError(f"pair {number} names no {' and no '.join(missing)} image")
    name = str(values.pop("name", number))
    files = {key: source.parent / str(value).strip() for key, value in values.items()}
    for kind in _IN_TWOS:
        if (f"fixed_{kind}" in files) != (f"moving_{kind}" in files):
            raise InputError(f"pair {name} has {kind} of one image alone; name those of both")
    return PairFiles(name=name, **files)


def _check(pairs: Iterable[PairFiles], source: Path) -> None:
    counts = Counter(pair.name for pair in pairs)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"{source} has the name {twice[0]!r} more than once; give each pair its own")
    files = [value for pair in pairs for value in vars(pair).values() if isinstance(value, Path)]
    if gone := [str(file) for file in dict.fromkeys(files) if not file.exists()]:
        raise FileError(f"{source} names files that are not there: {', '.join(gone)}")
