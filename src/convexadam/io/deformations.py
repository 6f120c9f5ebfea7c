"""Deformation fields of SPM and NiftyReg: NIfTI of the shape of ITK's fields, but with other contents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from convexadam._typing import Field
from convexadam.errors import FileError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.io.coordinates import field_from_coordinates, field_to_coordinates, to_field, vectors_to_tensor
from convexadam.io.nifti import INTENT_VECTOR, read_nifti_grid, read_nifti_values, save_nifti
from convexadam.io.nifti_file import load_nifti
from convexadam.io.reading import StrPath, check_file
from convexadam.io.transform_format import DetectionResult, FileHeader, NiftiHeader, Unusable

SPM_NAME, NIFTYREG_NAME = "Mapping", "NREG_TRANS"
"""Names of the intents."""

_POSITIONS, _DISPLACEMENTS = 0, 1
_OTHER_TRANSFORMS = {
    2: "a grid of cubic control points",
    3: "a field of velocities (as positions)",
    4: "a field of velocities (as displacements)",
    5: "a grid of velocities",
    6: "a grid of linear control points",
}
"""What files of NiftyReg hold, by the first parameter of their intent, beside positions (0) and displacements (1)."""

_CONVERT_NIFTYREG = "convert it with reg_transform -ref FIXED -def IN OUT"

_PLAUSIBLE_STRAIN, _CERTAIN = 1.0, 0.25
"""A map is plausible if it scales by less than 1.8 along all axes, and certain if its strain is a quarter of the other.

Of a rigid map the other strain is at least 1.4: it doubles an axis three times, or flattens one.
"""

_MOST_LINES = 32
"""Lines of voxels along each axis, about, whose mean tells the slope."""

_SMALLEST_SCALE = 1e-3
"""A map that shrinks a direction to less counts as this much."""


def write_deformation(transform: Transform, path: StrPath, *, fixed: Grid | None, name: str) -> None:
    """Write the positions ``T(x)`` in mm RAS+ at the voxels of the fixed grid, as SPM and NiftyReg read them.

    NIfTI of shape ``(i, j, k, 1, 3)``, float32, intent 1007, whose ``name`` tells the program.

    Raises
    ------
    ConfigError
        If there is no fixed grid.
    FileError
        If the file cannot be written.
    """
    field = to_field(transform, fixed)
    positions = field_to_coordinates(field, np.eye(4)).detach().cpu().float()
    array = positions.permute(1, 2, 3, 0)[:, :, :, None].numpy()
    save_nifti(array, field.grid, path, intent=INTENT_VECTOR, intent_name=name)


def read_spm(path: StrPath, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a deformation of SPM (``y_*.nii``, ``iy_*.nii``): positions in mm RAS+ at the voxels of the fixed grid.

    Raises
    ------
    FileError
        If the file is damaged, has another shape, holds NaN, or its vectors cannot be positions.
    """
    with check_file(path, "a deformation of SPM") as source:
        return _read_field(source, "positions", device)


def read_niftyreg(path: StrPath, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a dense transform of NiftyReg: positions or displacements in mm RAS+ at the voxels of the fixed grid.

    Raises
    ------
    FileError
        If the file is damaged, or holds control points or velocities, or its vectors contradict its header.
    """
    with check_file(path, "a transform of NiftyReg") as source:
        header: Any = load_nifti(source).header
        kind = int(header["intent_p1"])
        if kind not in (_POSITIONS, _DISPLACEMENTS):
            what = _OTHER_TRANSFORMS.get(kind, f"type {kind}")
            raise FileError(
                f"cannot read {source}: it must hold positions or displacements of NiftyReg, got {what}; "
                f"{_CONVERT_NIFTYREG}"
            )
        return _read_field(source, "positions" if kind == _POSITIONS else "displacements", device)


def detect_spm(header: FileHeader) -> bool:
    """Whether a file is a deformation of SPM, by the name of its intent."""
    return header.nifti is not None and has_field_shape(header.nifti) and header.nifti.name == SPM_NAME


def detect_niftyreg(header: FileHeader) -> DetectionResult:
    """Whether a file is a dense transform of NiftyReg, by the name of its intent; others are `Unusable`."""
    if header.nifti is None or header.nifti.name != NIFTYREG_NAME:
        return False
    kind = header.nifti.parameters[0]
    if kind in (_POSITIONS, _DISPLACEMENTS) and has_field_shape(header.nifti):
        return True
    what = _OTHER_TRANSFORMS.get(int(kind), f"a transform of type {kind:g}")
    return Unusable(problem=f"holds {what} of NiftyReg", advice=_CONVERT_NIFTYREG)


def has_field_shape(nifti: NiftiHeader) -> bool:
    """Whether a file has the shape of a field in mm: ``(i, j, k, 1, 3)``."""
    return len(nifti.shape) == 5 and nifti.shape[3:] == (1, 3)


def guess_content(vectors: Field, grid: Grid, *, lps: bool) -> Literal["positions", "displacements"] | None:
    """Tell absolute positions from displacements: that of which the mean map is closer to a rigid one.

    The mean slopes of the vectors along the axes are the linear part of the map, or what is added to the identity. Of
    both the sum of the squared logarithms of the singular values is compared, which is 0 for a rigid map: where one is
    rigid the other one flattens or doubles an axis.

    Parameters
    ----------
    vectors
        ``[3, i, j, k]`` in mm, as in the file.
    grid
        The grid of the file.
    lps
        Whether displacements would be in mm LPS; positions are in mm RAS+.

    Returns
    -------
    ``None`` if both or neither are plausible, and for a single voxel: the header decides.
    """
    axes = [axis for axis, size in enumerate(grid.shape) if size > 1]
    if not axes:
        return None
    slopes = np.stack([_fit_slope(vectors, axis) for axis in axes], axis=1)
    identity = grid.affine[:3, axes] * (np.array([[-1.0], [-1.0], [1.0]]) if lps else 1.0)
    spacing = np.array(grid.spacing_mm)[axes]
    as_positions, as_displacements = (_measure_strain(m / spacing) for m in (slopes, identity + slopes))
    if min(as_positions, as_displacements) < _PLAUSIBLE_STRAIN:
        if as_positions < _CERTAIN * as_displacements:
            return "positions"
        if as_displacements < _CERTAIN * as_positions:
            return "displacements"
    return None


def _read_field(source: Path, content: str, device: torch.device | str | None) -> DisplacementField:
    nifti = load_nifti(source)
    if len(nifti.shape) != 5 or nifti.shape[3:] != (1, 3):
        raise FileError(f"cannot read {source}: its shape must be (i, j, k, 1, 3), got {nifti.shape}; name its format")
    vectors, grid = vectors_to_tensor(read_nifti_values(nifti)[:, :, :, 0], device), read_nifti_grid(nifti)
    found = guess_content(vectors, grid, lps=False)
    if found not in (content, None):
        raise FileError(f"cannot read {source}: its vectors must be {content}, got {found}; name its format")
    if content == "displacements":
        return DisplacementField(vectors, grid)
    return field_from_coordinates(vectors, grid, np.eye(4))


def _fit_slope(vectors: Field, axis: int) -> np.ndarray:
    """Return the slope of the means of planes along an axis, mm per voxel."""
    others = tuple(a + 1 for a in range(3) if a != axis)
    part = tuple(slice(None, None, max(1, n // _MOST_LINES) if a in others else 1) for a, n in enumerate(vectors.shape))
    means = vectors.detach()[part].mean(dim=others, dtype=torch.float64).cpu().numpy()
    index = np.arange(means.shape[1]) - (means.shape[1] - 1) / 2
    return np.asarray(means @ index / (index @ index))


def _measure_strain(matrix: np.ndarray) -> float:
    if not np.isfinite(matrix).all():
        return float("inf")
    return float((np.log(np.maximum(np.linalg.svd(matrix, compute_uv=False), _SMALLEST_SCALE)) ** 2).sum())
