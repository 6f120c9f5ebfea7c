"""NIfTI images: the only module that knows the readers, scale factors and header codes of nibabel."""

from __future__ import annotations

import gzip
import warnings
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from convexadam._atomic import atomic_path
from convexadam.errors import FileError, GeometryError, InputError
from convexadam.geometry import Grid, Image
from convexadam.geometry.grid import SPACE_CODES
from convexadam.io.nifti_placement import find_placement, has_orthogonal_axes
from convexadam.io.reading import StrPath

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Pair

INTENT_VECTOR = 1007
INTENT_DISPLACEMENT = 1006
FIELD_INTENTS = INTENT_VECTOR, INTENT_DISPLACEMENT
_WHOLE_FLOAT32 = 2**24
"""The largest integer up to which float32 represents all integers."""
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: unknown, metre, millimetre, micrometre


def check_nifti(opened: Any) -> Nifti1Pair:
    """Return a nibabel image if it is NIfTI. Other formats of nibabel do not define their frame well enough."""
    from nibabel.nifti1 import Nifti1Pair

    if not isinstance(opened, Nifti1Pair):
        raise InputError(f"an image of nibabel must be NIfTI, got {type(opened).__name__}; convert it to NIfTI")
    return opened


def image_from_nifti(nifti: Nifti1Pair, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Convert a nibabel image, by the rules of `read_image`."""
    axis = _channel_axis(nifti, channels)
    values, grid = read_nifti_values(nifti), read_nifti_grid(nifti)
    if values.ndim == 2:
        values = values[..., None]
    channels_first = values[None] if axis is None else np.moveaxis(values, axis, 0)
    return image_from_channels(channels_first, grid, device=device)


def image_from_mgh(mgh: Any, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Convert an MGHImage of nibabel, whose affine is in mm RAS+."""
    axis = find_channel_axis(mgh.shape, channels=channels)
    values = np.asarray(mgh.dataobj)
    i, j, k = mgh.shape[:3]
    grid = Grid((i, j, k), np.asarray(mgh.affine, np.float64))
    return image_from_channels(values[None] if axis is None else np.moveaxis(values, axis, 0), grid, device=device)


def image_from_channels(channels: np.ndarray, grid: Grid, *, device: torch.device | str | None = None) -> Image:
    """Make an image from volumes ``[c, i, j, k]``; trailing axes of length 1 are dropped."""
    each = [Image.from_array(channel, grid.affine, device=device).data for channel in channels]
    return Image(each[0] if len(each) == 1 else torch.cat(each), grid)


def read_nifti_values(nifti: Nifti1Pair) -> np.ndarray:
    """Return the values of a nibabel image: as stored, or floating-point if the header has a scale factor.

    float32, or float64 if whole numbers of the file would not be exact.
    """
    stored: Any = nifti.dataobj
    kind = np.dtype(stored.dtype)
    if kind.kind not in "biuf":
        what = "complex numbers" if kind.kind == "c" else "colours" if kind.names else f"values of type {kind}"
        raise InputError(f"values of an image must be real numbers, got {what}; extract a channel or the magnitude")
    if getattr(stored, "slope", 1) == 1 and getattr(stored, "inter", 0) == 0:
        return np.asarray(stored)
    exact = np.asarray(stored)
    whole = kind.kind in "biu" and float(stored.slope).is_integer() and float(stored.inter).is_integer()
    return exact if whole and exact.size and np.abs(exact).max() > _WHOLE_FLOAT32 else exact.astype(np.float32)


def read_nifti_grid(nifti: Nifti1Pair) -> Grid:
    """Return the grid of a nibabel image, in mm RAS+; see `use_header` for files that have two."""
    if nifti.affine is None:
        raise GeometryError("a NIfTI image must have an affine, got none; set one")
    header: Any = nifti.header
    unit = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    i, j, k = (*nifti.shape, 1, 1)[:3]
    if nifti.get_filename() is None and not nifti.file_map["image"].fileobj:
        affine, code = np.asarray(nifti.affine, np.float64), int(header["sform_code"]) or int(header["qform_code"])
    else:
        placement = find_placement(nifti, unit)
        affine, code = placement.affine, placement.code
    affine = np.diag([unit, unit, unit, 1.0]) @ affine
    return Grid((i, j, k), affine, code if code in SPACE_CODES else 1)


def read_intent_name(header: Any) -> str:
    """Return the name of the intent of a header."""
    return bytes(header["intent_name"].item()).split(b"\0")[0].decode("latin-1").strip()


def make_nifti(array: np.ndarray, grid: Grid, *, intent: int = 0, intent_name: str = "", kind: Any = None) -> Any:
    """Make a nibabel image (Nifti1Image, or ``kind``) from an array ``[i, j, k, ...]`` on a grid, of the same type."""
    import nibabel

    make: Any = kind or nibabel.Nifti1Image  # not annotated
    nifti: Any = make(array, grid.affine, dtype=array.dtype)
    nifti.set_sform(grid.affine, code=grid.space_code)
    nifti.set_qform(grid.affine, code=grid.space_code if has_right_angles(grid) else 0, strip_shears=True)
    nifti.header.set_xyzt_units("mm")
    nifti.header["intent_code"], nifti.header["intent_name"] = intent, intent_name
    return nifti


def save_nifti(array: np.ndarray, grid: Grid, path: StrPath, *, intent: int = 0, intent_name: str = "") -> None:
    """Write an array whose first three axes are those of a grid, with its type."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    if not str(path).endswith((".nii", ".nii.gz")):
        raise FileError(f"the name of a NIfTI file must end in .nii or .nii.gz, got {path}; change the ending")
    try:
        nifti = make_nifti(array, grid, intent=intent, intent_name=intent_name)
    except HeaderDataError as error:
        raise FileError(f"cannot write {path} as NIfTI: {error}; convert the image to another type") from error
    with atomic_path(path) as temporary:
        if array.dtype.kind == "f" and temporary.name.endswith(".gz"):
            with temporary.open("wb") as file, _FloatGzipFile(fileobj=file) as packed:
                nifti.to_stream(packed)
        else:
            nibabel.save(nifti, temporary)


class _FloatGzipFile(gzip.GzipFile):
    """Packs floating-point values in a third of the time, into no more bytes: it looks for runs of equal bytes only.

    Their mantissas are noise, of which nothing longer repeats.
    """

    def __init__(self, *, fileobj: BinaryIO) -> None:
        super().__init__(filename="", mode="wb", compresslevel=1, fileobj=fileobj, mtime=0)  # the same bytes each time
        self.compress = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)


def has_right_angles(grid: Grid) -> bool:
    """Whether the axes of a grid are orthogonal, as qforms and ITK require."""
    return has_orthogonal_axes(grid.affine)


def _channel_axis(nifti: Nifti1Pair, channels: bool) -> int | None:
    """Return the axis of the channels, ``None`` for a single volume."""
    header: Any = nifti.header
    is_field = int(header["intent_code"]) in FIELD_INTENTS
    if len(nifti.shape) == 2 and not is_field:
        return None
    return find_channel_axis(nifti.shape, channels=channels, is_field=is_field)


def find_channel_axis(shape: tuple[int, ...], *, channels: bool, is_field: bool = False) -> int | None:
    """Return the axis of the channels of an array ``(i, j, k, ...)``, ``None`` for a single volume.

    Raises
    ------
    InputError
        If there are several axes of more than one, or one and ``channels`` is false.
    """
    if len(shape) < 3:
        raise InputError(f"an image must have three axes, or two in NIfTI, got shape {shape}; add an axis of one voxel")
    axes = [axis for axis, size in enumerate(shape) if axis >= 3 and size != 1]
    if not axes:
        return None
    if channels and len(axes) == 1:
        return axes[0]
    if is_field:
        raise InputError(f"an image must not be a vector field, got one of shape {shape}; read it with read_transform")
    what = f"a series of {shape[3]} volumes, shape" if axes == [3] else "shape"
    raise InputError(
        f"an image must be one volume (i, j, k), got {what} {shape}; extract a frame or channel "
        "(nibabel.four_to_three, fslroi), or read one axis as channels with as_image(..., channels=True)"
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
        fits, low, high = torch.iinfo(torch.int32), int(data.min()), int(data.max())
        if fits.min <= low and high <= fits.max:
            data = data.to(torch.int32)
        else:
            warnings.warn(
                f"values from {low} to {high} do not fit into 32 bits and are written as int64, which some programs "
                "do not read; renumber the labels for them",
                stacklevel=2,
            )
    return data.numpy()
