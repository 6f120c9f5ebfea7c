"""Lists of image pairs in CSV, TSV and JSON files."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from convexadam._arguments import check_arguments
from convexadam.errors import FileError, InputError, did_you_mean
from convexadam.io.reading import StrPath, check_file
from convexadam.io.tables import read_rows


@final
@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """Files of one image pair, as paths or text. Segmentations and landmarks are given for both images or for none.

    Attributes
    ----------
    id
        Unique name of the pair.
    fixed, moving
        The images.
    fixed_mask, moving_mask
        Voxels above 0 are used.
    fixed_segmentation, moving_segmentation
        Label maps or probabilities that features are extracted from, such as the predictions of a network.
    fixed_labels, moving_labels
        Reference label maps for the evaluation; of the moving image alone, labels to warp.
    fixed_landmarks, moving_landmarks
        Reference landmarks for the evaluation: corresponding points row by row, in voxel indices of their own image.
    initial_transform
        Transform from fixed to moving space to start from.
    preset
        Name of the settings of this pair; ``None`` for those of all pairs.

    Examples
    --------
    >>> from convexadam.cohort import PairFiles
    >>> pair = PairFiles(id="patient-1", fixed="1_ct.nii.gz", moving="1_mr.nii.gz", preset="best")
    >>> pair.moving.name, pair.moving_mask
    ('1_mr.nii.gz', None)
    """

    id: str
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
    initial_transform: Path | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in _TEXTS and value is not None:
                object.__setattr__(self, name, Path(value))

    @property
    def files(self) -> dict[str, Path]:
        """The files that are given, by attribute."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Path)}


_TEXTS = ("id", "preset")
"""Attributes that are no files."""

_COLUMNS = tuple(item.name for item in dataclasses.fields(PairFiles))

_PAIRED_COLUMNS = ("segmentation", "landmarks")

_SHOWN = 20
"""Problems of a list that a message names."""


@check_arguments
def read_manifest(path: StrPath) -> tuple[PairFiles, ...]:
    """Read a list of image pairs.

    Parameters
    ----------
    path
        ``*.json`` for a list of objects, ``*.tsv`` for a table separated by tabulators; any other name is read as a
        comma-separated table. Tables have a header line. The columns are the attributes of `PairFiles`; ``fixed`` and
        ``moving`` are required. The default of ``id`` is the number of the row, from 1. Empty cells count as missing.
        Paths are relative to the folder of the list.

    Raises
    ------
    FileError
        If the list cannot be read or is empty, or all that is wrong with it are files that do not exist.
    InputError
        If columns are unknown, something is given for only one image of a pair, or pairs have the same id. The message
        lists all rows that cannot be used, each with its number and the reason.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from convexadam.io import read_manifest
    >>> for name in ("a", "b"):
    ...     Path(f"{name}.nii.gz").touch()
    >>> rows = [["id", "fixed", "moving"], ["one", "a.nii.gz", "b.nii.gz"]]
    >>> np.savetxt("pairs.csv", rows, fmt="%s", delimiter=",")
    >>> [(pair.id, pair.fixed.name) for pair in read_manifest("pairs.csv")]
    [('one', 'a.nii.gz')]
    """
    with check_file(path, "a list of pairs") as source:
        rows = read_rows(source, '[{"fixed": "a.nii.gz", "moving": "b.nii.gz"}]')
        if not rows:
            raise FileError(
                f"{source} must list at least one pair, got none; write one row per pair, with columns fixed and moving"
            )
    pairs, problems = list[PairFiles](), list[str]()
    for number, row in enumerate(rows, start=1):
        found = list(_find_problems(row))
        problems += [f"row {number} {problem}" for problem in found]
        if not found:
            pairs.append(_make_pair(row, number, source.parent))
    counts = Counter(pair.id for pair in pairs)
    problems += [
        f"ids must be unique, got {name!r} more than once; change one" for name, count in counts.items() if count > 1
    ]
    gone = [
        f"row {row} must name files that exist, got no file {file}"
        for row, file in _find_missing_files(rows, source.parent)
    ]
    if problems or gone:
        raise (InputError if problems else FileError)(_join_problems(source, problems + gone))
    return tuple(pairs)


def _join_problems(source: Path, problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" * (len(problems) > _SHOWN)
    return f"{source} must list pairs that can be used: {'; '.join(problems[:_SHOWN])}{more}"


def _find_problems(row: Mapping[Any, Any]) -> Iterator[str]:
    """Yield what is wrong with a row, as the end of a sentence about it."""
    if None in row:
        yield "must have as many cells as there are columns, got more; quote cells that hold commas"
    for key in row:
        if key is not None and key not in _COLUMNS:
            hint = did_you_mean(str(key), _COLUMNS)
            yield f"must have columns among {', '.join(_COLUMNS)}, got {key!r}{hint}; rename or remove it"
    if missing := [key for key in ("fixed", "moving") if key not in row]:
        yield f"must name the fixed and the moving image, got no {' and no '.join(missing)} image; add it"
    for kind in _PAIRED_COLUMNS:
        if (f"fixed_{kind}" in row) != (f"moving_{kind}" in row):
            yield f"must have {kind} of both images or of none, got those of one image; add the others"
    if "fixed_labels" in row and "moving_labels" not in row:
        yield "must have moving_labels if it has fixed_labels, got none; add them"


def _make_pair(row: Mapping[Any, Any], number: int, folder: Path) -> PairFiles:
    texts = {key: str(value).strip() for key, value in row.items()}
    files: dict[str, Any] = {key: folder / text for key, text in texts.items() if key not in _TEXTS}
    return PairFiles(id=texts.get("id", str(number)), preset=texts.get("preset"), **files)


def _find_missing_files(rows: Sequence[Mapping[Any, Any]], folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the number of the row and the path of each file that does not exist."""
    known: dict[Path, bool] = {}  # an atlas is named in each row
    for number, row in enumerate(rows, start=1):
        for key, value in row.items():
            if key in _COLUMNS and key not in _TEXTS:
                path = folder / str(value).strip()
                if not known.setdefault(path, path.exists()):
                    yield number, path
