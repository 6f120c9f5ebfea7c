"""Atlases: images with label maps, in files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from convexadam.errors import FileError, InputError
from convexadam.io.reading import StrPath, check_file

_COLUMNS = ("id", "image", "labels")


@final
@dataclass(frozen=True, kw_only=True)
class Atlas:
    """An image and its label map.

    Attributes
    ----------
    id
        Unique name, which is that of a folder of results as well.
    image, labels
        Files on one grid.
    """

    id: str
    image: Path
    labels: Path


def read_atlases(path: StrPath) -> tuple[Atlas, ...]:
    """Read a list of atlases.

    Parameters
    ----------
    path
        ``*.json`` for a list of objects, ``*.tsv`` for a table separated by tabulators; any other name is read as a
        comma-separated table, with a header line. The columns are ``image``, ``labels`` and, optionally, ``id``, whose
        default is the name of the image without its ending. Paths are relative to the folder of the list.

    Raises
    ------
    FileError
        If the list cannot be read, or is empty.
    InputError
        If columns are unknown or missing, files do not exist, or ids are not unique. The message lists all rows that
        cannot be used.
    """
    with check_file(path, "a list of atlases") as source:
        rows = _read_rows(source)
    if not rows:
        raise FileError(f"{source} must list at least one atlas, got none; write a row with image and labels for each")
    problems = [f"row {n}: {problem}" for n, row in enumerate(rows, start=1) for problem in _check(row, source.parent)]
    if not problems:
        atlases = tuple(_make_atlas(row, source.parent) for row in rows)
        counts = Counter(atlas.id for atlas in atlases)
        problems = [f"the id {name!r} occurs {count} times" for name, count in counts.items() if count > 1]
    if problems:
        raise InputError(f"{source} must list atlases that can be used, got {'; '.join(problems)}; correct these rows")
    return atlases


def _read_rows(source: Path) -> Sequence[Mapping[str, Any]]:
    text = source.read_text(encoding="utf-8-sig")
    if source.suffix == ".json":
        rows = json.loads(text)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FileError(f"{source} must be a JSON list of objects, got {type(rows).__name__}; write one per atlas")
    else:
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if source.suffix == ".tsv" else ","))
    return [{key: value for key, value in row.items() if value not in (None, "", [])} for row in rows if row]


def _check(row: Mapping[Any, Any], folder: Path) -> Iterator[str]:
    if unknown := [str(key) for key in row if key not in _COLUMNS]:
        yield f"unknown column {unknown[0]}"
    for column in ("image", "labels"):
        if column not in row:
            yield f"no {column}"
        elif not (folder / str(row[column])).exists():
            yield f"there is no file {folder / str(row[column])}"


def _make_atlas(row: Mapping[str, Any], folder: Path) -> Atlas:
    image = folder / str(row["image"])
    return Atlas(id=str(row.get("id") or image.name.partition(".")[0]), image=image, labels=folder / str(row["labels"]))
