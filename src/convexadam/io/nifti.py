"""NIfTI images. The only module that knows nibabel's readers, scale factors and header codes."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from convexadam.errors import FileError, GeometryError, InputError
from convexadam.geometry import Grid, Image
from convexadam.io.atomic import atomic_path
from convexadam.io.reading import reading

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Pair

StrPath: TypeAlias = str | os.PathLike[str]

INTENT_VECTOR = 1007
INTENT_DISPLACEMENT = 1006
_SCANNER = 1  # header code: coordinates of the scanner, the one that every reader accepts
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: unknown, metre, millimetre, micrometre


def read_image(path: StrPath, *, device: torch.device | str | None = None) -> Image:
    """Read a three-dimensional NIfTI image.

    Parameters
    ----------
    path
        A ``.nii``, ``.nii.gz`` or ``.hdr``/``.img`` file, of either byte order.
    device
        Where the values go; ``None`` is the CPU.

    Returns
    -------
    Image ``[1, i, j, k]``. Whole numbers without a scale factor keep a whole-number type (unsigned ones of two bytes
    and more become the next larger signed one); scaled values become float32. NaN is allowed. Trailing axes of length
    1 are dropped, and headers in metres or micrometres are converted to mm.

    Raises
    ------
    FileError
        If the file is missing, empty, damaged or no NIfTI image, if it has two or more than three axes, or if its
        values are complex or colours, or its affine is unusable.
    """
    with reading(path, "a NIfTI image") as source:
        return image_from_nifti(load_nifti(source), device=device)


def write_image(image: Image, path: StrPath) -> None:
    """Write an image as NIfTI, whole or not at all.

    float16 and bfloat16 become float32, truth values uint8, and int64 becomes int32 where the values fit, since other
    programs read no such types. qform and sform are both set; a sheared grid, which no qform can hold, has an sform
    alone.

    Parameters
    ----------
    image
        One channel, on any device.
    path
        Ends in ``.nii`` or ``.nii.gz``; its folder exists. An old file of that name is replaced.

    Raises
    ------
    FileError
        If the name ends otherwise, the folder is missing or the file cannot be written.
    InputError
        If the image has several channels.
    """
    if image.data.shape[0] != 1:
        raise InputError(f"a file holds one channel, but the image has {image.data.shape[0]}; write them one by one")
    save_nifti(storable(image.data[0]), image.grid, path)


def load_nifti(path: StrPath) -> Nifti1Pair:
    """Open a NIfTI file; values are not read yet. To be called within `reading`."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    _check_archive(path)
    try:
        opened = nibabel.load(path)
    except (ImageFileError, HeaderDataError) as error:
        raise FileError(f"{path} is not a NIfTI image ({error}); convert it to .nii.gz first") from error
    return checked_nifti(opened)


def checked_nifti(opened: Any) -> Nifti1Pair:
    """Return a nibabel image if it is NIfTI; other formats say too little about where their voxels are."""
    from nibabel.nifti1 import Nifti1Pair

    if not isinstance(opened, Nifti1Pair):
        raise InputError(f"it is a {type(opened).__name__} of nibabel, but a NIfTI image is needed; convert it first")
    return opened


def image_from_nifti(nifti: Nifti1Pair, *, device: torch.device | str | None = None) -> Image:
    """Make an image of an opened NIfTI image, by the rules of `read_image`."""
    _check_axes(nifti)
    return Image.from_array(nifti_values(nifti), nifti_affine(nifti), device=device)


def nifti_values(nifti: Nifti1Pair) -> np.ndarray:
    """Values of an opened NIfTI image: as stored, or float32 where the header has a scale factor."""
    stored: Any = nifti.dataobj
    kind = np.dtype(stored.dtype)
    if kind.kind not in "biuf":
        what = "complex numbers" if kind.kind == "c" else "colours" if kind.names else f"values of type {kind}"
        raise InputError(f"it holds {what}, but real numbers are needed; extract a channel or the magnitude first")
    if getattr(stored, "slope", 1) == 1 and getattr(stored, "inter", 0) == 0:
        return np.asarray(stored)
    return np.asarray(stored, dtype=np.float32)


def nifti_affine(nifti: Nifti1Pair) -> np.ndarray:
    """4x4 affine of an opened NIfTI image, voxel indices to mm RAS+."""
    if nifti.affine is None:
        raise GeometryError("it has no affine; give it one")
    header: Any = nifti.header
    unit = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return np.diag([unit, unit, unit, 1.0]) @ np.asarray(nifti.affine, dtype=np.float64)


def save_nifti(array: np.ndarray, grid: Grid, path: StrPath, *, intent: int = 0) -> None:
    """Write an array whose first three axes are those of a grid; its type is kept."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    if not str(path).endswith((".nii", ".nii.gz")):
        raise FileError(f"a NIfTI file is called *.nii or *.nii.gz, but the name is {path}; change its ending")
    make: Any = nibabel.Nifti1Image  # not annotated
    try:
        nifti: Any = make(array, grid.affine, dtype=array.dtype)
    except HeaderDataError as error:
        raise FileError(f"cannot write {path} as NIfTI: {error}") from error
    nifti.set_sform(grid.affine, code=_SCANNER)
    nifti.set_qform(grid.affine, code=_SCANNER if has_right_angles(grid) else 0, strip_shears=True)
    nifti.header.set_xyzt_units("mm")
    nifti.header["intent_code"] = intent
    with atomic_path(path) as temporary:
        nibabel.save(nifti, temporary)


def has_right_angles(grid: Grid) -> bool:
    """Whether the axes of a grid are at right angles, as qforms and ITK need it."""
    directions = grid.affine[:3, :3] / np.asarray(grid.spacing_mm)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() < 1e-4)


def _check_archive(path: StrPath) -> None:
    """Read a .gz file to its end: nibabel stops before the checksum, and would take a damaged one for an image."""
    if str(path).endswith(".gz"):
        with gzip.open(path) as archive:
            while archive.read(2**22):
                pass


def _check_axes(nifti: Nifti1Pair) -> None:
    shape = nifti.shape
    if len(shape) < 3:
        raise InputError(f"it has {len(shape)} axes {shape}, but a volume has three; add an axis of one voxel")
    if any(n != 1 for n in shape[3:]):
        header: Any = nifti.header
        if int(header["intent_code"]) in (INTENT_VECTOR, INTENT_DISPLACEMENT):
            raise InputError(f"it is a field of vectors, shape {shape}, and no image; see read_itk_field")
        raise InputError(f"it has shape {shape}, but one volume (i, j, k) is needed; extract a frame or channel first")


def storable(data: torch.Tensor) -> np.ndarray:
    """Values in a type that other programs read."""
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
