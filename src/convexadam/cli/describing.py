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

from convexadam.cli.common import Header, read_grid, read_optional
from convexadam.cli.evaluating import replace_nan
from convexadam.cli.format_names import FormatName, check_format_name
from convexadam.cli.transform_files import load_transform_with, name_read_options
from convexadam.errors import FileError
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Transform
from convexadam.geometry.matrices import decompose_matrix
from convexadam.io import get_format, read_image
from convexadam.io.detect import Detection, detect_format
from convexadam.io.nifti import read_nifti_grid, read_nifti_values
from convexadam.io.nifti_file import load_nifti
from convexadam.io.reading import check_file
from convexadam.metrics import evaluate_transform


@dataclass(frozen=True, kw_only=True)
class Info:
    """Print whether FILE is an image or a transform, its grid and its values. The content decides, not the name.

    Attributes
    ----------
    file
        An image (NIfTI, MetaImage, NRRD, DICOM), or a transform in any format that ``convexadam convert`` reads.
    json
        Print one JSON object instead of lines.
    from_
        Read FILE as a transform of this format.
    fixed
        The fixed image, for transforms without a grid.
    moving
        The moving image, for transforms in its coordinates.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    json: bool = False
    from_: Annotated[FormatName, tyro.conf.arg(name="from")] = None
    fixed: Path | None = None
    moving: Path | None = None
    header: Header = None

    def run(self) -> None:
        """Run the command."""
        check_format_name(self.from_, "--from")
        facts = self._collect_facts()
        if self.json:
            text = json.dumps(replace_nan({"file": str(self.file), **facts}), indent=2)
        else:
            text = "\n".join([f"{self.file}: {facts['kind']}", *(f"  {line}" for line in _format_facts(facts))])
        sys.stdout.write(text + "\n")

    def _collect_facts(self) -> dict[str, Any]:
        if self.from_ is not None:
            return self._summarise_file(self.from_)
        if self.file.is_dir():
            return _summarise_itk_image(self.file)
        fixed = read_optional(read_grid, self.fixed)
        with check_file(self.file, "an image or a transform") as source:
            detection = detect_format(source, fixed=fixed)
            if detection.is_image:
                nifti = detection.header.nifti is not None
                return _summarise_nifti_image(source, detection) if nifti else _summarise_itk_image(source)
            if detection.format is None:
                raise FileError(f"cannot read {source}: {name_read_options(detection.problem)}")
        return self._summarise_file(detection.format.name)

    def _summarise_file(self, name: str) -> dict[str, Any]:
        fixed, moving = read_optional(read_grid, self.fixed), read_optional(read_grid, self.moving)
        transform = load_transform_with(self.file, name, fixed, moving)
        convention = get_format(name).convention
        return {"kind": "transform", "format": name, "convention": convention, **_summarise_transform(transform)}


def _summarise_itk_image(path: Path) -> dict[str, Any]:
    """Summarise an image file that SimpleITK reads, or a folder with a series."""
    image = read_image(path, channels=True)
    return _summarise_values(image.numpy(), image.grid, image.data.shape[0], str(image.data.dtype))


def _summarise_nifti_image(source: Path, detection: Detection) -> dict[str, Any]:
    """Summarise a NIfTI image, with frames along any number of axes; a note says that it may be a field."""
    nifti = load_nifti(source)
    header: Any = nifti.header
    grid, stored = read_nifti_grid(nifti), header.get_data_dtype().newbyteorder("=")
    facts = _summarise_values(read_nifti_values(nifti), grid, math.prod(nifti.shape[3:]), str(stored))
    ambiguous = nifti.shape[3:] == (3,)
    return {**facts, "note": name_read_options(detection.problem)} if ambiguous else facts


def _summarise_values(values: np.ndarray, grid: Grid, channels: int, stored: str) -> dict[str, Any]:
    """Summarise the values of an image: channels or frames, stored type, range and values that are not finite."""
    finite = values[np.isfinite(values)]
    return {
        "kind": "image",
        "grid": grid.summary(),
        "channels": channels,
        "type": stored.removeprefix("torch."),
        "minimum": finite.min().item() if finite.size else None,
        "maximum": finite.max().item() if finite.size else None,
        "not_finite": values.size - finite.size,
    }


def _summarise_transform(transform: Transform) -> dict[str, Any]:
    if isinstance(transform, Composite):
        return {"type": "chain", "parts": [_summarise_transform(part) for part in transform.transforms]}
    if isinstance(transform, Affine):
        return {"type": "affine", **decompose_matrix(transform.matrix)}
    if not isinstance(transform, DisplacementField):  # the class of another package
        if transform.fixed_grid is None:
            return {"type": type(transform).__name__}
        transform = transform.to_displacement_field(transform.fixed_grid)
    scores = evaluate_transform(transform)
    wanted = ("displacement_max_mm", "folded_percent", "jacobian_min", "jacobian_max")
    return {
        "type": "displacement field",
        "grid": transform.grid.summary(),
        **{name: value for name, value in scores.items() if name in wanted},
    }


def _format_facts(facts: dict[str, Any]) -> list[str]:
    """Format the facts as lines of text."""
    if facts["kind"] == "image":
        bad = f", and {facts['not_finite']} NaN or Inf" if facts["not_finite"] else ""
        channels = f"{facts['channels']} channel" + "s" * (facts["channels"] != 1)
        span = (
            f"{_format_number(facts['minimum'])} to {_format_number(facts['maximum'])}"
            if facts["minimum"] is not None
            else "none"
        )
        note = [_format_line("note", facts["note"])] if "note" in facts else []
        return [
            *_format_grid(facts["grid"]),
            _format_line("values", f"{facts['type']}, {channels}, {span}{bad}"),
            *note,
        ]
    lines = [_format_line("format", f"{facts['format']} ({facts['convention']}), from fixed to moving space")]
    parts = facts.get("parts", [facts])
    for number, part in enumerate(parts, start=1):
        lines += [_format_line("part", f"{number} of {len(parts)}")] * (len(parts) > 1)
        lines += _format_transform(part)
    return lines


def _format_transform(facts: dict[str, Any]) -> list[str]:
    lines = [_format_line("type", facts["type"])]
    if facts["type"] == "affine":
        scales = f"{_format_numbers(facts['scales'])} (volumes {_format_number(facts['determinant'])})"
        return [
            *lines,
            *_format_matrix("matrix", facts["matrix"]),
            _format_line("rotation", f"{_format_number(facts['rotation_degrees'])} degrees"),
            _format_line("scales", scales),
            _format_line("shift", f"{_format_numbers(facts['translation_mm'])} mm along R, A, S"),
        ]
    if "grid" not in facts:
        return lines
    return [
        *lines,
        *_format_grid(facts["grid"]),
        _format_line("longest", f"{_format_number(facts['displacement_max_mm'])} mm"),
        _format_line("folded", f"{facts['folded_percent']:.4f} % of the voxels"),
        _format_line("Jacobian", f"{_format_number(facts['jacobian_min'])} to {_format_number(facts['jacobian_max'])}"),
    ]


def _format_grid(grid: dict[str, Any]) -> list[str]:
    return [
        _format_line(
            "voxels", f"{_format_numbers(grid['shape'], ' x ')} of {_format_numbers(grid['spacing_mm'], ' x ')} mm"
        ),
        _format_line("axes", f"{grid['orientation']} (directions of i, j and k)"),
        *_format_matrix("affine", grid["affine"]),
    ]


def _format_matrix(name: str, matrix: list[list[float]]) -> list[str]:
    rows = ["".join(f"{_format_number(value):>13}" for value in row) for row in matrix[:3]]
    return [_format_line(name if row == 0 else "", text) for row, text in enumerate(rows)]


def _format_line(name: str, text: str) -> str:
    return f"{name:<10}{text}"


def _format_numbers(values: list[float], between: str = ", ") -> str:
    return between.join(map(_format_number, values))


def _format_number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{round(value, 9) + 0.0:.6g}"  # without -0 and rounding noise
