"""``convexadam invert | compose | convert``: transforms from files to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from convexadam.cli.common import Header, Output, TransformFile, read_grid, read_optional, say
from convexadam.cli.format_names import FormatName, check_format_name, list_formats
from convexadam.cli.transform_files import (
    check_output,
    load_transform,
    load_transform_with,
    save_transform,
    save_transform_as,
)
from convexadam.geometry import Composite, DisplacementField, compose
from convexadam.geometry.composite import invert_transform


@dataclass(frozen=True, kw_only=True)
class Invert:
    """Write the inverse of a TRANSFORM, from moving to fixed space; print the error of the inverse.

    Attributes
    ----------
    transform
        File of a transform from fixed to moving space.
    output
        File to write, in the format of its name.
    reference
        Image whose grid the inverse is computed on, preferably the moving image. Default: the grid of the transform.
    """

    transform: TransformFile
    output: Output
    reference: Path | None = None
    header: Header = None

    def run(self) -> None:
        """Run the command."""
        check_output(self.output)
        transform, reference = load_transform(self.transform), read_optional(read_grid, self.reference)
        inverse = invert_transform(transform, reference)
        save_transform(inverse, self.output, reference)
        parts = inverse.transforms if isinstance(inverse, Composite) else (inverse,)
        errors_mm = [part.inverse_error_mm for part in parts if isinstance(part, DisplacementField)]
        exact = "exact" if not errors_mm else f"off by at most {max(mm or 0.0 for mm in errors_mm):.3g} mm"
        say(f"the inverse is {exact}; wrote {self.output}")


@dataclass(frozen=True, kw_only=True)
class Compose:
    """Chain transforms in the order in which they are applied to a point of fixed space, and write them as one.

    Attributes
    ----------
    first
        File of the transform that is applied first, to points of fixed space.
    second
        File of the transform that is applied next.
    rest
        Files of further transforms; the last one leads to moving space.
    output
        File to write, in the format of its name. Formats with matrices and chains (.tfm, .h5) keep them; others get a
        field.
    reference
        Image whose grid a field is written on, preferably the fixed image. Default: the grid of the first transform.
    """

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST")]
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND")]
    rest: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[THIRD ...]")] = ()
    output: Path
    reference: Path | None = None
    header: Header = None

    def run(self) -> None:
        """Run the command."""
        check_output(self.output)
        reference = read_optional(read_grid, self.reference)
        chain = compose(*(load_transform(path) for path in (self.first, self.second, *self.rest)))
        save_transform(chain, self.output, reference)


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert the transform in file IN to file OUT of another format; both map the same points.

    Attributes
    ----------
    source
        File to read.
    target
        File to write.
    to
        Format to write. Default: that of the name.
    from_
        Format to read. Default: that of the content of the file.
    fixed
        The fixed image, for formats without a grid, or to resample the field to its grid.
    moving
        The moving image, for formats in its coordinates.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    to: Annotated[
        FormatName, tyro.conf.arg(help=f"Format to write. Default: that of the name. Formats: {list_formats()}.")
    ] = None
    from_: Annotated[FormatName, tyro.conf.arg(name="from")] = None
    fixed: Path | None = None
    moving: Path | None = None
    header: Header = None

    def run(self) -> None:
        """Run the command."""
        check_format_name(self.to, "--to")
        check_format_name(self.from_, "--from")
        check_output(self.target, self.to)
        fixed, moving = read_optional(read_grid, self.fixed), read_optional(read_grid, self.moving)
        transform = load_transform_with(self.source, self.from_, fixed, moving)
        save_transform_as(transform, self.target, self.to, fixed, moving)
