"""Tables in text files: lists of images that users write, and measurements that are written for them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convexadam._atomic import atomic_path
from convexadam.errors import FileError


def read_rows(source: Path, example: str) -> Sequence[Mapping[Any, Any]]:
    """Return the rows of a list, without empty cells and empty rows.

    Parameters
    ----------
    source
        ``*.json`` for a list of objects, ``*.tsv`` for a table separated by tabulators; any other name is read as a
        comma-separated table.
    example
        A JSON list of the right form, for the message.

    Raises
    ------
    FileError
        If a JSON file is no list of objects.
    """
    text = source.read_text(encoding="utf-8-sig")
    rows = _parse_json(text, source, example) if source.suffix == ".json" else _parse_table(text, source)
    return [{key: value for key, value in row.items() if value not in (None, "", [])} for row in rows]


def _parse_json(text: str, source: Path, example: str) -> Sequence[Mapping[str, Any]]:
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FileError(f"{source} must be a JSON list of objects, got {type(rows).__name__}; write {example}")
    return rows


def _parse_table(text: str, source: Path) -> Sequence[Mapping[Any, Any]]:
    delimiter = "\t" if source.suffix == ".tsv" else ","
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    return [row for row in reader if any(row.values())]


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a comma-separated table, numbers with six digits; an existing file is replaced when it is complete."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
