"""Landmark files with all that they hold beside the points: header, names, and whatever else is to be kept."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch

from convexadam._arguments import check_arguments
from convexadam._typing import Points
from convexadam.errors import FileError, InputError

FileSpace: TypeAlias = Literal["mm", "lps_mm"]

SLICER_SUFFIXES = (".fcsv", ".mrk.json", ".json")

_NAMES = (("x", "y", "z"), ("i", "j", "k"), ("r", "a", "s"), ("l", "p", "s"))
_UNIT = re.compile(r"[ _]*[(\[]?(mm|vox|voxel|voxels)?[)\]]?$")
_FCSV_SPACES: dict[str, FileSpace] = {"0": "mm", "ras": "mm", "1": "lps_mm", "lps": "lps_mm"}
_MARKUPS_SPACES: dict[str, FileSpace] = {"ras": "mm", "lps": "lps_mm", "0": "mm", "1": "lps_mm"}


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LandmarkFile:
    """Points of a file, and the rest of it.

    Attributes
    ----------
    points
        ``(n, 3)`` float64 on the CPU, the numbers of the file.
    space
        Their coordinates if the file says so (Slicer's do), else ``None``.
    head
        Lines before the first point, of tables.
    rows, columns
        Cells of tables, and which of them are the coordinates.
    markups
        The content of a ``.mrk.json`` file.

    Examples
    --------
    >>> import torch
    >>> from convexadam.io import LandmarkFile
    >>> table = LandmarkFile(
    ...     points=torch.tensor([[1.0, 2.0, 3.0]]), head=("x,y,z,name",), rows=(("1", "2", "3", "apex"),)
    ... )  # as `read_landmark_file` returns it
    >>> print(table.format(torch.tensor([[4.0, 5.0, 6.5]])), end="")
    x,y,z,name
    4.0,5.0,6.5,apex
    """

    points: Points
    space: FileSpace | None = None
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    columns: tuple[int, int, int] = (0, 1, 2)
    markups: Any = None

    @check_arguments
    def format(self, points: Points) -> str:
        """Return the text of the file with other points, in the same order; the rest is kept.

        Raises
        ------
        InputError
            If their number is another one.
        """
        if len(points) != len(self.points):
            raise InputError(f"points must be {len(self.points)}, as in the file, got {len(points)}; pass all of them")
        numbers = [[repr(float(v)) for v in row] for row in points.tolist()]
        if self.markups is not None:
            document = json.loads(json.dumps(self.markups))
            for point, values in zip(_control_points(document), points.tolist(), strict=True):
                point["position"] = values
            return json.dumps(document, indent=2) + "\n"
        text = io.StringIO()
        text.writelines(f"{line}\n" for line in self.head)
        writer = csv.writer(text, lineterminator="\n")
        for cells, values in zip(self.rows, numbers, strict=True):
            row = list(cells)
            for column, value in zip(self.columns, values, strict=True):
                row[column] = value
            writer.writerow(row)
        return text.getvalue()


def parse_landmark_file(source: Path) -> LandmarkFile:
    """Read a landmark file of any kind: ``.fcsv`` and ``.mrk.json`` of Slicer, else CSV. Call it within `check_file`.

    Raises
    ------
    FileError
        If it holds no landmark, or a line that is not one.
    """
    text = source.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        return _parse_markups(text, source)
    if source.suffix.lower() == ".fcsv" or text.startswith("# Markups fiducial"):
        return _parse_fcsv(text, source)
    return _parse_csv(text, source)


def _parse_csv(text: str, source: Path) -> LandmarkFile:
    lines = text.splitlines()
    head: tuple[str, ...] = ()
    columns = None
    if lines and all(_parse_number(cell) is None for cell in lines[0].split(",")):
        head, columns = (lines[0],), _find_columns(next(csv.reader([lines[0]], skipinitialspace=True), []))
    numbered = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and n > len(head)]
    return _parse_rows(numbered, source, head, columns, None)


def _parse_fcsv(text: str, source: Path) -> LandmarkFile:
    lines = text.splitlines()
    head = tuple(line for line in lines if line.startswith("#"))
    settings = dict(re.findall(r"^#\s*(\w+)\s*=\s*(.*?)\s*$", "\n".join(head), re.MULTILINE))
    named = settings.get("CoordinateSystem", "0").lower()
    if named not in _FCSV_SPACES:
        raise FileError(
            f"cannot read landmarks from {source}: CoordinateSystem must be RAS or LPS, got {named!r}; export them "
            "in one of both"
        )
    columns = _find_columns(settings["columns"].split(",")) if "columns" in settings else (1, 2, 3)
    numbered = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    return _parse_rows(numbered, source, head, columns, _FCSV_SPACES[named])


def _parse_markups(text: str, source: Path) -> LandmarkFile:
    document = json.loads(text)
    points, spaces = [], set()
    for markup in document.get("markups", []):
        named = str(markup.get("coordinateSystem", "LPS")).lower()
        units = markup.get("coordinateUnits", "mm")
        if named not in _MARKUPS_SPACES or (units if isinstance(units, str) else units[0]) != "mm":
            raise FileError(
                f"cannot read landmarks from {source}: they must be in mm RAS or LPS, got {units} {named}; export "
                "them in one of both"
            )
        spaces.add(_MARKUPS_SPACES[named])
    for number, point in enumerate(_control_points(document), start=1):
        position = point.get("position")
        valid = isinstance(position, list) and len(position) == 3 and all(map(_is_finite, position))
        if not valid or position is None:
            raise FileError(
                f"cannot read landmarks from {source}: position of point {number} must be three finite numbers, got "
                f"{position!r}; correct or remove it"
            )
        points.append([float(v) for v in position])
    if len(spaces) != 1 or not points:
        raise FileError(
            f"{source} must hold at least one landmark, all in one coordinate system, got {len(points)} in "
            f"{len(spaces)}; export the markups again"
        )
    return LandmarkFile(points=_to_tensor(points), space=spaces.pop(), markups=document)


def _control_points(document: Any) -> list[dict[str, Any]]:
    """Return the points of all markups that were set; others are only planned."""
    each = [point for markup in document.get("markups") or [] for point in markup.get("controlPoints") or []]
    return [point for point in each if point.get("positionStatus", "defined") == "defined"]


def _parse_rows(
    numbered: Sequence[tuple[int, str]],
    source: Path,
    head: tuple[str, ...],
    columns: tuple[int, int, int] | None,
    space: FileSpace | None,
) -> LandmarkFile:
    rows: list[tuple[str, ...]] = []
    points = []
    for number, line in numbered:
        cells = next(csv.reader([line], skipinitialspace=True))
        columns = columns or _guess_columns(cells)
        values = [] if columns is None or len(cells) <= max(columns) else [_parse_number(cells[c]) for c in columns]
        found = [v for v in values if v is not None and math.isfinite(v)]
        if len(found) != 3 or (rows and len(cells) != len(rows[0])):
            raise FileError(
                f"cannot read landmarks from {source}: line {number} must be three numbers with commas between them, "
                f"got {line.strip()[:60]!r}; correct or remove it (a header names the columns of others: x,y,z,name)"
            )
        rows.append(tuple(cells))
        points.append(found)
    if not rows:
        raise FileError(f"{source} must hold at least one landmark, got none; write three numbers per line, as 1,2,3")
    return LandmarkFile(
        points=_to_tensor(points), space=space, head=head, rows=tuple(rows), columns=columns or (0, 1, 2)
    )


def _find_columns(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the columns of the coordinates by the names of a header."""
    plain = [_UNIT.sub("", name.strip().strip("#\"'").lower()) for name in names]
    for wanted in _NAMES:
        if all(plain.count(name) == 1 for name in wanted):
            return plain.index(wanted[0]), plain.index(wanted[1]), plain.index(wanted[2])
    return None


def _guess_columns(cells: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the columns of the only three numbers of a row."""
    found = [column for column, cell in enumerate(cells) if _parse_number(cell) is not None]
    return (found[0], found[1], found[2]) if len(found) == 3 else None


def _parse_number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _to_tensor(points: list[list[float]]) -> Points:
    return torch.tensor(points, dtype=torch.float64, device="cpu")
