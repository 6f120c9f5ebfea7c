"""Lists of image pairs in CSV and JSON files."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from convexadam._arguments import check_arguments
from convexadam.errors import FileError, InputError, did_you_mean
from convexadam.io.reading import StrPath, check_file


@final
@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """Files of one image pair. Segmentations, labels and landmarks are given for both images or for none.

    Attributes
    ----------
    name
        Unique name of the pair.
    fixed, moving
        The images.
    fixed_mask, moving_mask
        Voxels above 0 are used.
    fixed_segmentation, moving_segmentation
        Label maps or probabilities that features are extracted from, such as the predictions of a network.
    fixed_labels, moving_labels
        Reference label maps for the evaluation.
    fixed_landmarks, moving_landmarks
        Reference landmarks for the evaluation: corresponding points row by row, in voxel indices of their own image.
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

_PAIRED_COLUMNS = ("segmentation", "labels", "landmarks")


@check_arguments
def read_manifest(path: StrPath) -> tuple[PairFiles, ...]:
    """Read a list of image pairs.

    Parameters
    ----------
    path
        ``*.json`` for a list of objects; any other name is read as a comma-separated table with a header line. The
        columns are the attributes of `PairFiles`; ``fixed`` and ``moving`` are required. The default of ``name`` is the
        number of the row, from 1. Empty cells count as missing. Paths are relative to the folder of the list.

    Raises
    ------
    FileError
        If the list cannot be read or is empty, or files that it names do not exist (the message lists them).
    InputError
        If a column is unknown, something is given for only one image of a pair, or two pairs have the same name.
    """
    with check_file(path, "a list of pairs") as source:
        text = source.read_text(encoding="utf-8-sig")
        rows = _parse_json(text, source) if source.suffix == ".json" else _parse_table(text)
        if not rows:
            raise FileError(
                f"{source} must list at least one pair, got none; write one row per pair, with columns fixed and moving"
            )
        pairs = tuple(_parse_row(row, number, source) for number, row in enumerate(rows, start=1))
    _check_pairs(pairs, source)
    return pairs


def _parse_json(text: str, source: Path) -> Sequence[Mapping[str, Any]]:
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FileError(
            f'{source} must be a JSON list of objects, got {type(rows).__name__}; write [{{"fixed": "a.nii.gz", '
            '"moving": "b.nii.gz"}]'
        )
    return rows


def _parse_table(text: str) -> Sequence[Mapping[str, Any]]:
    return [row for row in csv.DictReader(text.splitlines(), skipinitialspace=True) if any(row.values())]


def _parse_row(row: Mapping[str, Any], number: int, source: Path) -> PairFiles:
    if None in row:
        raise InputError(
            f"row {number} must have as many cells as there are columns, got more; quote cells that hold commas"
        )
    values = {key: value for key, value in row.items() if value not in (None, "", [])}
    if unknown := [key for key in values if key not in _COLUMNS]:
        hint = did_you_mean(str(unknown[0]), _COLUMNS)
        raise InputError(f"columns must be among {', '.join(_COLUMNS)}, got {unknown[0]!r}{hint}; rename or remove it")
    if missing := [key for key in ("fixed", "moving") if key not in values]:
        raise InputError(
            f"row {number} must name the fixed and the moving image, got no {' and no '.join(missing)} image; add it"
        )
    name = str(values.pop("name", number))
    files = {key: source.parent / str(value).strip() for key, value in values.items()}
    for kind in _PAIRED_COLUMNS:
        if (f"fixed_{kind}" in files) != (f"moving_{kind}" in files):
            raise InputError(
                f"{kind} must be given for both images of a pair or for none, got those of one image of pair {name}; "
                "add the others"
            )
    return PairFiles(name=name, **files)


def _check_pairs(pairs: Iterable[PairFiles], source: Path) -> None:
    counts = Counter(pair.name for pair in pairs)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"names of pairs must be unique, got {twice[0]!r} more than once in {source}; rename one")
    files = [value for pair in pairs for value in vars(pair).values() if isinstance(value, Path)]
    if gone := [str(file) for file in dict.fromkeys(files) if not file.exists()]:
        raise FileError(f"files of {source} must exist, got {', '.join(gone)}; check the names")
