"""Stand-in for ``convexadam.io.read_transform`` and ``write_transform``: fields in NIfTI and ``.npz`` only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import torch

from convexadam.errors import ConfigError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.io import read_itk_field, read_learn2reg, write_itk_field, write_learn2reg

TransformFormat: TypeAlias = Literal["itk", "nifti", "learn2reg", "learn2reg-2021", "torch", "fsl", "x5"]


def read_transform(
    path: Path,
    *,
    format: TransformFormat | None = None,  # noqa: A002
    fixed: Grid | None = None,
    moving: Grid | None = None,
    device: torch.device | str | None = None,
) -> Transform:
    """Read a field of ITK, or of Learn2Reg."""
    if format == "learn2reg" or path.suffix == ".npz":
        if fixed is None:
            raise ConfigError("the format 'learn2reg' does not say where the fixed voxels are; pass fixed=")
        return read_learn2reg(path, fixed, device=device)
    return read_itk_field(path, device=device)


def write_transform(
    transform: Transform,
    path: Path,
    *,
    format: TransformFormat | None = None,  # noqa: A002
    fixed: Grid | None = None,
    moving: Grid | None = None,
) -> None:
    """Write a field of ITK, or of Learn2Reg."""
    onto = transform.fixed_grid if fixed is None else fixed
    if onto is None:
        raise ConfigError("a field holds a vector for each voxel of the fixed grid; pass fixed=")
    field: DisplacementField = transform.resample_onto(onto)
    if format == "learn2reg" or path.suffix == ".npz":
        write_learn2reg(field, path)
    else:
        write_itk_field(field, path)
