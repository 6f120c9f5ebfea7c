"""``convexadam invert | compose | convert``: transforms in, transforms out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from convexadam.cli.common import Output, TransformFile, grid_of, optional, say
from convexadam.cli.transform_files import load_transform, load_transform_with, save_transform, save_transform_as
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Transform, compose
from convexadam.io import TransformFormat


@dataclass(frozen=True, kw_only=True)
class Invert:
    """Write the inverse of a TRANSFORM, from moving to fixed space; say how closely it was solved.

    Attributes
    ----------
    transform
        File of a transform from fixed to moving space.
    output
        File to write, in the format of its name.
    onto
        Image on whose grid the inverse is wanted, best the moving one; without it, the transform's own grid.
    """

    transform: TransformFile
    output: Output
    onto: Path | None = None

    def run(self) -> None:
        """Do the work."""
        transform, onto = load_transform(self.transform), optional(grid_of, self.onto)
        inverse = inverse_of(transform, onto)
        save_transform(inverse, self.output, onto)
        parts = inverse.transforms if isinstance(inverse, Composite) else (inverse,)
        left_mm = [part.residual_mm for part in parts if isinstance(part, DisplacementField)]
        exact = "exact" if not left_mm else f"off by at most {max(mm or 0.0 for mm in left_mm):.3g} mm"
        say(f"the inverse is {exact}; wrote {self.output}")


@dataclass(frozen=True, kw_only=True)
class Compose:
    """Chain transforms, in the order in which a point of fixed space meets them, and write them as one.

    Attributes
    ----------
    first
        File of the transform that begins in fixed space.
    second
        File of the transform that goes on from there.
    rest
        Files of further ones; the last ends in moving space.
    output
        File to write, in the format of its name: one that holds matrices or chains (.tfm, .h5) keeps them, any other
        gets a field.
    onto
        Image on whose grid a field is wanted, best the fixed one; without it, the grid of the first transform.
    """

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST")]
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND")]
    rest: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[THIRD ...]")] = ()
    output: Path
    onto: Path | None = None

    def run(self) -> None:
        """Do the work."""
        onto = optional(grid_of, self.onto)
        chain = compose(*(load_transform(path) for path in (self.first, self.second, *self.rest)))
        save_transform(chain, self.output, onto)


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write the transform in file IN as file OUT in the format of another program; it still maps the same points.

    itk: ITK, ANTs and Slicer (.nii.gz field in mm LPS, .h5, .tfm, .txt, .mat); nifti: field in mm RAS+, intent 1006;
    learn2reg: field in voxels (.npz, .nii.gz); learn2reg-2021: the same at half resolution (.npz); torch: sampling grid
    for grid_sample (.pt); fsl: FLIRT (.mat) and FNIRT (.nii.gz); x5: X5 (.x5).

    Attributes
    ----------
    source
        File to read.
    target
        File to write.
    to
        Format to write; without it, the usual one for the name.
    from_
        Format to read; without it, what the file itself says.
    fixed
        The fixed image, for formats that do not say where their voxels are, or to bring the field onto its grid.
    moving
        The moving image, for formats that are in its voxels (torch, fsl, learn2reg).
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    to: TransformFormat | None = None
    from_: Annotated[TransformFormat | None, tyro.conf.arg(name="from")] = None
    fixed: Path | None = None
    moving: Path | None = None

    def run(self) -> None:
        """Do the work."""
        fixed, moving = optional(grid_of, self.fixed), optional(grid_of, self.moving)
        transform = load_transform_with(self.source, self.from_, fixed, moving)
        save_transform_as(transform, self.target, self.to, fixed, moving)


def inverse_of(transform: Transform, onto: Grid | None) -> Transform:
    """Return the inverse, solved at the voxels of a grid of moving space; ``None`` takes those of the transform's own.

    A chain that begins with a field is made one field first: its parts do not know the grid that is wanted.
    """
    if isinstance(transform, Affine) or (own := transform.fixed_grid) is None:
        return transform.inverse()
    return transform.resample_onto(own).inverse(onto)
