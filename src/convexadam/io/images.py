"""Image files: NIfTI with nibabel; MetaImage, NRRD and DICOM with SimpleITK."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from convexadam._arguments import check_arguments
from convexadam.errors import FileError
from convexadam.geometry import Image
from convexadam.geometry.conversion import ImageLike, to_image
from convexadam.io.dicom import read_dicom_series
from convexadam.io.itk import read_with_itk, write_with_itk
from convexadam.io.nifti import image_from_mgh, image_from_nifti, save_nifti, to_nifti_array
from convexadam.io.nifti_file import is_mgh, load_mgh, load_nifti, read_head
from convexadam.io.reading import StrPath, check_file, is_folder
from convexadam.io.unsupported import explain_foreign

_META_IMAGE = re.compile(rb"^(ObjectType|NDims|Comment|ID)\s*=", re.MULTILINE)
_HEAD = 1024


@check_arguments
def read_image(path: StrPath, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Read a three-dimensional image.

    Parameters
    ----------
    path
        NIfTI (``.nii``, ``.nii.gz``, ``.hdr``/``.img``, of either byte order); MGH and MGZ of FreeSurfer; MetaImage
        (``.mha``, ``.mhd``), NRRD, a DICOM volume, or a folder with one DICOM series, with SimpleITK. The format is
        detected by the content, also that of a NIfTI file that is packed against its name. See
        ``convexadam.io.use_header`` for NIfTI files whose sform and qform disagree.
    channels
        Read several values per voxel (``(i, j, k, c)`` or ``(i, j, k, 1, c)`` in NIfTI, vectors in the others) as
        channels, for warping. By default such files are refused.
    device
        Where the values go; ``None`` is the CPU.

    Returns
    -------
    Image ``[c, i, j, k]`` in mm RAS+. Integers without a scale factor stay integers (unsigned types of two bytes and
    more become the next larger signed type); scaled values become float32. NaN is allowed. Trailing axes of length 1
    are dropped, and headers in metres or micrometres are converted to mm.

    Raises
    ------
    FileError
        If the file is missing, empty, damaged or of another format; if it does not have three axes; if its values are
        complex or colours; if its affine is unusable; or if a folder holds several series, or a series lacks slices.
    MissingExtraError
        If SimpleITK is needed and not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam import as_image, read_image, write_image
    >>> write_image(as_image(np.ones((8, 7, 6), np.int16), np.diag([2.0, 2.0, 3.0, 1.0])), "scan.nii.gz")
    >>> read_image("scan.nii.gz")
    Image(1 x torch.int16 on cpu, Grid(shape=(8, 7, 6), spacing_mm=(2, 2, 3), orientation='RAS'))
    """
    if is_folder(path):
        return read_dicom_series(Path(path), channels=channels, device=device)
    with check_file(path, "a NIfTI image") as source:
        reader = find_itk_reader(source)
        if reader is not None:
            return read_with_itk(source, reader, channels=channels, device=device)
        head = read_head(source)
        if is_mgh(head):
            return image_from_mgh(load_mgh(source), channels=channels, device=device)
        if (foreign := explain_foreign(head)) is not None:
            raise FileError(f"{source} must be an image, got one that {foreign[0]}; {foreign[1]}")
        return image_from_nifti(load_nifti(source), channels=channels, device=device)


@check_arguments
def write_image(image: ImageLike, path: StrPath) -> None:
    """Write an image as NIfTI, MetaImage or NRRD. An existing file is replaced after the new one is complete.

    float16 and bfloat16 become float32, bool becomes uint8, and int64 becomes int32 if the values fit, since other
    programs do not read these types. NIfTI files have both qform and sform; a sheared grid, which a qform cannot
    represent, has the sform only.

    Parameters
    ----------
    image
        In any form that `as_image` takes, on any device. Several channels become ``(i, j, k, c)`` in NIfTI, and vectors
        elsewhere.
    path
        Ends in ``.nii`` or ``.nii.gz``, or (with SimpleITK) in ``.mha`` or ``.nrrd``. Its folder must exist.

    Raises
    ------
    FileError
        If the name has another ending, the folder does not exist or the file cannot be written.
    GeometryError
        If the file is MetaImage or NRRD and the axes of the grid are not orthogonal.
    MissingExtraError
        If SimpleITK is needed and not installed.

    Examples
    --------
    >>> import nibabel
    >>> import numpy as np
    >>> from convexadam import as_image, write_image
    >>> write_image(as_image(np.ones((8, 7, 6), np.int16), np.diag([2.0, 2.0, 3.0, 1.0])), "scan.nii.gz")
    >>> nibabel.load("scan.nii.gz").affine.diagonal().tolist()
    [2.0, 2.0, 3.0, 1.0]
    """
    check_image_name(path)
    image = to_image(image, "image")
    if str(path).endswith((".mha", ".nrrd")):
        write_with_itk(image, path)
    else:
        save_nifti(to_nifti_array(image.data), image.grid, path)


@check_arguments
def check_image_name(path: StrPath) -> None:
    """Raise `FileError` unless `write_image` can write a file of this name.

    Examples
    --------
    >>> from convexadam.io import check_image_name
    >>> check_image_name("moved.nii.gz")
    >>> check_image_name("moved.jpg")
    Traceback (most recent call last):
    convexadam.errors.FileError: ...
    """
    if not str(path).endswith((".nii", ".nii.gz", ".mha", ".nrrd")):
        raise FileError(
            f"the name of an image file must end in .nii or .nii.gz (or, with SimpleITK, .mha or .nrrd), got {path}; "
            "change the ending"
        )


def find_itk_reader(source: Path) -> str | None:
    """Return the name of ITK's reader for a file, by its content; ``None`` if it is none of ITK's formats here."""
    with source.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"NRRD000"):
        return "NrrdImageIO"
    if head[128:132] == b"DICM":
        return "GDCMImageIO"
    if b"NDims" in head and _META_IMAGE.match(head.lstrip()):
        return "MetaImageIO"
    return None
