"""NIfTI images: the only module that knows the readers, scale factors and header codes of nibabel."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from convexadam._atomic import atomic_path
from convexadam.errors import FileError, GeometryError, InputError
from convexadam.geometry import Grid, Image

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Pair

StrPath: TypeAlias = str | os.PathLike[str]

INTENT_VECTOR = 1007
INTENT_DISPLACEMENT = 1006
_SCANNER = 1  # header code: coordinates of the scanner, the one that every reader accepts
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: unknown, metre, millimetre, micrometre


def load_nifti(path: StrPath) -> Nifti1Pair:
    """Open a NIfTI file to read its values; the checksum of a gzip file is verified. Call it within `check_file`."""
    _check_archive(path)
    return open_nifti(path)


def open_nifti(path: StrPath) -> Nifti1Pair:
    """Open a NIfTI file to read its header; the values may be truncated. Call it within `check_file`."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        opened = nibabel.load(path)
    except (ImageFileError, HeaderDataError) as error:
        raise FileError(f"{path} must be a NIfTI image ({error}); convert it to .nii.gz") from error
    return check_nifti(opened)


def check_nifti(opened: Any) -> Nifti1Pair:
    """Return a nibabel image if it is NIfTI. Other formats of nibabel do not define their frame well enough."""
    from nibabel.nifti1 import Nifti1Pair

    if not isinstance(opened, Nifti1Pair):
        raise InputError(f"an image of nibabel must be NIfTI, got {type(opened).__name__}; convert it to NIfTI")
    return opened


def image_from_nifti(nifti: Nifti1Pair, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Convert a nibabel image, by the rules of `read_image`."""
    axis = _channel_axis(nifti, channels)
    values, affine = read_nifti_values(nifti), read_nifti_affine(nifti)
    if axis is None:
        return Image.from_array(values, affine, device=device)
    return image_from_channels(np.moveaxis(values, axis, 0), affine, device=device)


def image_from_channels(channels: np.ndarray, affine: np.ndarray, *, device: torch.device | str | None = None) -> Image:
    """Make an image from volumes ``[c, i, j, k]``; trailing axes of length 1 are dropped."""
    each = [Image.from_array(channel, affine, device=device) for channel in channels]
    return each[0] if len(each) == 1 else Image(torch.cat([image.data for image in each]), each[0].grid)


def read_nifti_values(nifti: Nifti1Pair) -> np.ndarray:
    """Return the values of a nibabel image: as stored, or float32 if the header has a scale factor."""
    stored: Any = nifti.dataobj
    kind = np.dtype(stored.dtype)
    if kind.kind not in "biuf":
        what = "complex numbers" if kind.kind == "c" else "colours" if kind.names else f"values of type {kind}"
        raise InputError(f"values of an image must be real numbers, got {what}; extract a channel or the magnitude")
    if getattr(stored, "slope", 1) == 1 and getattr(stored, "inter", 0) == 0:
        return np.asarray(stored)
    return np.asarray(stored, dtype=np.float32)


def read_nifti_affine(nifti: Nifti1Pair) -> np.ndarray:
    """Return the 4x4 affine of a nibabel image, voxel indices to mm RAS+."""
    if nifti.affine is None:
        raise GeometryError("a NIfTI image must have an affine, got none; set one")
    header: Any = nifti.header
    unit = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return np.diag([unit, unit, unit, 1.0]) @ np.asarray(nifti.affine, dtype=np.float64)


def make_nifti(array: np.ndarray, grid: Grid, *, intent: int = 0, kind: Any = None) -> Any:
    """Make a nibabel image (Nifti1Image, or ``kind``) from an array ``[i, j, k, ...]`` on a grid, of the same type."""
    import nibabel

    make: Any = kind or nibabel.Nifti1Image  # not annotated
    nifti: Any = make(array, grid.affine, dtype=array.dtype)
    nifti.set_sform(grid.affine, code=_SCANNER)
    nifti.set_qform(grid.affine, code=_SCANNER if has_right_angles(grid) else 0, strip_shears=True)
    nifti.header.set_xyzt_units("mm")
    nifti.header["intent_code"] = intent
    return nifti


def save_nifti(array: np.ndarray, grid: Grid, path: StrPath, *, intent: int = 0) -> None:
    """Write an array whose first three axes are those of a grid, with its type."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    if not str(path).endswith((".nii", ".nii.gz")):
        raise FileError(f"the name of a NIfTI file must end in .nii or .nii.gz, got {path}; change the ending")
    try:
        nifti = make_nifti(array, grid, intent=intent)
    except HeaderDataError as error:
        raise FileError(f"cannot write {path} as NIfTI: {error}; convert the image to another type") from error
    with atomic_path(path) as temporary:
        nibabel.save(nifti, temporary)


def has_right_angles(grid: Grid) -> bool:
    """Whether the axes of a grid are orthogonal, as qforms and ITK require."""
    directions = grid.affine[:3, :3] / np.asarray(grid.spacing_mm)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() < 1e-4)


def _check_archive(path: StrPath) -> None:
    """Read a .gz file to its end: nibabel stops before the checksum and would accept a damaged file."""
    if str(path).endswith(".gz"):
        with gzip.open(path) as archive:
            while archive.read(2**22):
                pass


def _channel_axis(nifti: Nifti1Pair, channels: bool) -> int | None:
    """Return the axis of the channels, ``None`` for a single volume."""
    shape = nifti.shape
    if len(shape) < 3:
        raise InputError(f"a volume must have three axes, got shape {shape}; add an axis of one voxel")
    axes = [axis for axis, size in enumerate(shape) if axis >= 3 and size != 1]
    if not axes:
        return None
    if channels and len(axes) == 1:
        return axes[0]
    header: Any = nifti.header
    if int(header["intent_code"]) in (INTENT_VECTOR, INTENT_DISPLACEMENT):
        raise InputError(f"an image must not be a vector field, got one of shape {shape}; read it with read_transform")
    raise InputError(
        f"an image must be one volume (i, j, k), got shape {shape}; extract a frame or channel, or read one axis as "
        "channels with as_image(..., channels=True)"
    )


def to_nifti_array(data: torch.Tensor) -> np.ndarray:
    """Convert values ``[c, i, j, k]`` to an array in the axis order of NIfTI: ``(i, j, k)`` or ``(i, j, k, c)``."""
    values = to_storable(data)
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)


def to_storable(data: torch.Tensor) -> np.ndarray:
    """Convert values to a type that other programs read."""
    data = data.detach().cpu()
    if data.dtype in (torch.float16, torch.bfloat16):
        data = data.float()
    elif data.dtype == torch.bool:
        data = data.to(torch.uint8)
    elif data.dtype == torch.int64:
        fits = torch.iinfo(torch.int32)
        if fits.min <= int(data.min()) and int(data.max()) <= fits.max:
            data = data.to(torch.int32)
    return data.numpy()
