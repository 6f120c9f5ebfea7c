"""``convexadam info``."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from convexadam.cli.common import grid_of, optional
from convexadam.cli.evaluating import without_nan
from convexadam.cli.matrices import described_matrix
from convexadam.cli.transform_files import load_transform_with, options_to_read
from convexadam.errors import FileError
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Transform
from convexadam.io import TransformFormat, read_image
from convexadam.io.detect import Detected, detected
from convexadam.io.nifti import load_nifti, nifti_affine, nifti_values
from convexadam.io.reading import reading
from convexadam.metrics import evaluate_transform

_CONVENTIONS: dict[TransformFormat, str] = {
    "itk": "mm LPS, as ITK, ANTs and Slicer have it",
    "nifti": "mm RAS+, NIfTI intent 1006",
    "learn2reg": "voxels",
    "learn2reg-2021": "voxels, at half resolution",
    "torch": "positions for grid_sample, -1 to 1",
    "fsl": "mm in the frames of FSL",
    "x5": "mm RAS+",
}


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say what FILE is, by its content: an image or a transform, where its voxels are, and what it holds.

    Attributes
    ----------
    file
        An image (NIfTI, MetaImage, NRRD, DICOM), or a transform in any format that ``convexadam convert`` reads.
    json
        Print one JSON object instead of lines.
    from_
        Take it as a transform of this format.
    fixed
        The fixed image, for transforms that do not say where their voxels are.
    moving
        The moving image, for transforms that are in its voxels.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    json: bool = False
    from_: Annotated[TransformFormat | None, tyro.conf.arg(name="from")] = None
    fixed: Path | None = None
    moving: Path | None = None

    def run(self) -> None:
        """Do the work."""
        found = self._found()
        if self.json:
            text = json.dumps(without_nan({"file": str(self.file), **found}), indent=2)
        else:
            text = "\n".join([f"{self.file}: {found['kind']}", *(f"  {line}" for line in _lines(found))])
        sys.stdout.write(text + "\n")

    def _found(self) -> dict[str, Any]:
        if self.from_ is not None:
            return self._transform(self.from_)
        if self.file.is_dir():
            return _image_of_itk(self.file)
        fixed = optional(grid_of, self.fixed)
        with reading(self.file, "an image or a transform") as source:
            found = detected(source, fixed=fixed)
            if found.is_image:
                return _image_of_nifti(source, found) if found.is_nifti else _image_of_itk(source)
            if found.format is None:
                raise FileError(f"{source} {options_to_read(found.reason)}")
        return self._transform(found.format)

    def _transform(self, kind: TransformFormat) -> dict[str, Any]:
        fixed, moving = optional(grid_of, self.fixed), optional(grid_of, self.moving)
        transform = load_transform_with(self.file, kind, fixed, moving)
        return {"kind": "transform", "format": kind, "convention": _CONVENTIONS[kind], **_described(transform)}


def _image_of_itk(path: Path) -> dict[str, Any]:
    """Describe an image that is read through SimpleITK, or a folder with one."""
    image = read_image(path, channels=True)
    return _described_image(image.numpy(), image.grid, image.data.shape[0], str(image.data.dtype))


def _image_of_nifti(source: Path, found: Detected) -> dict[str, Any]:
    """Describe a NIfTI image, which may hold frames along several axes, or be a field that does not say so."""
    nifti = load_nifti(source)
    header: Any = nifti.header
    i, j, k = (*nifti.shape, 1, 1)[:3]
    grid, stored = Grid((i, j, k), nifti_affine(nifti)), header.get_data_dtype().newbyteorder("=")
    facts = _described_image(nifti_values(nifti), grid, math.prod(nifti.shape[3:]), str(stored))
    unclear = nifti.shape[3:] == (3,)
    return {**facts, "note": options_to_read(found.reason)} if unclear else facts


def _described_image(values: np.ndarray, grid: Grid, channels: int, stored: str) -> dict[str, Any]:
    """Describe an image of any number of channels or frames, and the type that it is stored in."""
    finite = values[np.isfinite(values)]
    return {
        "kind": "image",
        "grid": grid.described(),
        "channels": channels,
        "type": stored.removeprefix("torch."),
        "minimum": finite.min().item() if finite.size else None,
        "maximum": finite.max().item() if finite.size else None,
        "not_finite": values.size - finite.size,
    }


def _described(transform: Transform) -> dict[str, Any]:
    if isinstance(transform, Composite):
        return {"type": "chain", "parts": [_described(part) for part in transform.transforms]}
    if isinstance(transform, Affine):
        return {"type": "affine", **described_matrix(transform.matrix)}
    assert isinstance(transform, DisplacementField)
    scores = evaluate_transform(transform)
    wanted = ("displacement_max_mm", "folded_percent", "jacobian_min", "jacobian_max")
    return {
        "type": "displacement field",
        "grid": transform.grid.described(),
        **{name: value for name, value in scores.items() if name in wanted},
    }


def _lines(found: dict[str, Any]) -> list[str]:
    """Say the same as the facts, line by line."""
    if found["kind"] == "image":
        bad = f", and {found['not_finite']} NaN or Inf" if found["not_finite"] else ""
        channels = f"{found['channels']} channel" + "s" * (found["channels"] != 1)
        span = f"{_number(found['minimum'])} to {_number(found['maximum'])}" if found["minimum"] is not None else "none"
        note = [_line("note", found["note"])] if "note" in found else []
        return [*_grid_lines(found["grid"]), _line("values", f"{found['type']}, {channels}, {span}{bad}"), *note]
    lines = [_line("format", f"{found['format']} ({found['convention']}), from fixed to moving space")]
    parts = found.get("parts", [found])
    for number, part in enumerate(parts, start=1):
        lines += [_line("part", f"{number} of {len(parts)}")] * (len(parts) > 1)
        lines += _transform_lines(part)
    return lines


def _transform_lines(found: dict[str, Any]) -> list[str]:
    lines = [_line("type", found["type"])]
    if found["type"] == "affine":
        return [
            *lines,
            *_matrix_lines("matrix", found["matrix"]),
            _line("turns", f"{_number(found['rotation_degrees'])} degrees"),
            _line("scales", f"{_numbers(found['scales'])} (volumes {_number(found['determinant'])})"),
            _line("moves", f"{_numbers(found['translation_mm'])} mm along R, A, S"),
        ]
    return [
        *lines,
        *_grid_lines(found["grid"]),
        _line("longest", f"{_number(found['displacement_max_mm'])} mm"),
        _line("folded", f"{found['folded_percent']:.4f} % of the voxels"),
        _line("Jacobian", f"{_number(found['jacobian_min'])} to {_number(found['jacobian_max'])}"),
    ]


def _grid_lines(grid: dict[str, Any]) -> list[str]:
    return [
        _line("voxels", f"{_numbers(grid['shape'], ' x ')} of {_numbers(grid['spacing_mm'], ' x ')} mm"),
        _line("axes", f"{grid['orientation']} (where i, j and k point to)"),
        *_matrix_lines("affine", grid["affine"]),
    ]


def _matrix_lines(name: str, matrix: list[list[float]]) -> list[str]:
    rows = ["".join(f"{_number(value):>13}" for value in row) for row in matrix[:3]]
    return [_line(name if row == 0 else "", text) for row, text in enumerate(rows)]


def _line(name: str, text: str) -> str:
    return f"{name:<10}{text}"


def _numbers(values: list[float], between: str = ", ") -> str:
    return between.join(map(_number, values))


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{round(value, 9) + 0.0:.6g}"  # no -0, no dust
