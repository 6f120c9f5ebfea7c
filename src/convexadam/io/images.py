"""Image files: NIfTI, and through SimpleITK MetaImage, NRRD and DICOM."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from convexadam.errors import FileError, InputError
from convexadam.geometry import Image
from convexadam.io.dicom import read_dicom_series
from convexadam.io.itk import read_with_itk, write_with_itk
from convexadam.io.nifti import StrPath, image_from_nifti, load_nifti, nifti_array, save_nifti
from convexadam.io.reading import reading

_META_IMAGE = re.compile(rb"^(ObjectType|NDims|Comment|ID)\s*=", re.MULTILINE)
_HEAD = 1024


def read_image(path: StrPath, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Read a three-dimensional image.

    Parameters
    ----------
    path
        NIfTI (``.nii``, ``.nii.gz``, ``.hdr``/``.img``, of either byte order); MetaImage (``.mha``, ``.mhd``), NRRD, a
        volume of DICOM, or a folder with one DICOM series, through SimpleITK. The content decides, not the name.
    channels
        Take several values for each voxel (``(i, j, k, c)`` or ``(i, j, k, 1, c)`` of NIfTI, vectors of the others) as
        channels, for warping. Without it such files are refused.
    device
        Where the values go; ``None`` is the CPU.

    Returns
    -------
    Image ``[c, i, j, k]`` in mm RAS+. Whole numbers without a scale factor keep a whole-number type (unsigned ones of
    two bytes and more become the next larger signed one); scaled values become float32. NaN is allowed. Trailing axes
    of length 1 are dropped, and headers in metres or micrometres are converted to mm.

    Raises
    ------
    FileError
        If the file is missing, empty, damaged or no such image, if it has two or more than three axes, or if its
        values are complex or colours, its affine is unusable, or a folder holds several series or lacks slices.
    MissingExtraError
        If SimpleITK is needed and not installed.
    """
    if Path(path).is_dir():
        return read_dicom_series(Path(path), channels=channels, device=device)
    with reading(path, "a NIfTI image") as source:
        reader = reader_of_itk(source)
        if reader is not None:
            return read_with_itk(source, reader, channels=channels, device=device)
        return image_from_nifti(load_nifti(source), channels=channels, device=device)


def write_image(image: Image, path: StrPath) -> None:
    """Write an image as NIfTI, MetaImage or NRRD, whole or not at all.

    float16 and bfloat16 become float32, truth values uint8, and int64 becomes int32 where the values fit, since other
    programs read no such types. In NIfTI, qform and sform are both set; a sheared grid, which no qform can hold, has an
    sform alone.

    Parameters
    ----------
    image
        On any device. Several channels become ``(i, j, k, c)`` in NIfTI, and vectors elsewhere.
    path
        Ends in ``.nii`` or ``.nii.gz``, or (through SimpleITK) in ``.mha`` or ``.nrrd``; its folder exists. An old file
        of that name is replaced.

    Raises
    ------
    FileError
        If the name ends otherwise, the folder is missing or the file cannot be written.
    GeometryError
        If the grid has no right angles, which MetaImage and NRRD cannot hold here.
    MissingExtraError
        If SimpleITK is needed and not installed.
    """
    if not isinstance(image, Image):
        raise InputError(f"an Image is written, but a {type(image).__name__} came; see as_image")
    name = str(path)
    if name.endswith((".mha", ".nrrd")):
        write_with_itk(image, path)
    elif name.endswith((".nii", ".nii.gz")):
        save_nifti(nifti_array(image.data), image.grid, path)
    else:
        raise FileError(
            f"an image file is called *.nii or *.nii.gz (with SimpleITK also *.mha or *.nrrd), but the name is {path}; "
            "change its ending"
        )


def reader_of_itk(source: Path) -> str | None:
    """Return the name of ITK's reader for a file, by its content; ``None`` leaves it to nibabel."""
    with source.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"NRRD000"):
        return "NrrdImageIO"
    if head[128:132] == b"DICM":
        return "GDCMImageIO"
    if b"NDims" in head and _META_IMAGE.match(head.lstrip()):
        return "MetaImageIO"
    return None
