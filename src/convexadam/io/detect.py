"""What a file holds, by its content: which kind of transform, or an image."""

from __future__ import annotations

import gzip
import mmap
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from convexadam.errors import FileError
from convexadam.geometry import Grid
from convexadam.io.fsl import INTENT_FSL_FIELD, INTENTS_OF_COEFFICIENTS, text_matrix
from convexadam.io.images import reader_of_itk
from convexadam.io.itk_transforms import ITK_TEXT, MATLAB_ORDER
from convexadam.io.learn2reg import archive_is_of_2021
from convexadam.io.nifti import INTENT_DISPLACEMENT, INTENT_VECTOR, open_nifti
from convexadam.io.reading import is_zip

TransformFormat: TypeAlias = Literal["itk", "nifti", "learn2reg", "learn2reg-2021", "torch", "fsl", "x5"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ITK_MATLAB = re.compile(rb"\w+_(?:double|float)_\d+_\d+\0|fixed\0")
_IMAGE_OF_PAIR = re.compile(r"\.img(\.gz)?$")
_HEAD = 512


@dataclass(frozen=True)
class Detected:
    """The format of the transform in a file, or why there is none or it cannot be known.

    Attributes
    ----------
    format
        Name of the format, or ``None``.
    reason
        Why not, and what to pass; follows the name of the file.
    is_nifti
        Whether the file is NIfTI at all.
    is_image
        Whether it is an image, or may be one: where there is no format.
    """

    format: TransformFormat | None
    reason: str = ""
    is_nifti: bool = False
    is_image: bool = False


def detected(source: Path, *, fixed: Grid | None = None, named: bool = False) -> Detected:
    """Look into a file; to be called within `reading`.

    The ``fixed`` grid tells archives of Learn2Reg apart, which are of today without it. Where the format is ``named``,
    only NIfTI is told apart.
    """
    head = _head(source)
    if named:
        return Detected(None, is_nifti=is_nifti(head))
    if is_nifti(head):
        return _kind_of_nifti(source)
    if head.startswith(_HDF5):
        return _kind_of_hdf5(source)
    if head.startswith(ITK_TEXT) or _is_itk_matlab(head):
        return Detected("itk")
    if is_zip(source):
        return _kind_of_zip(source, fixed)
    return _kind_of_other(source)


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins so is NIfTI, version 1 or 2."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _head(source: Path) -> bytes:
    header = source.with_name(_IMAGE_OF_PAIR.sub(r".hdr\1", source.name))  # of .img, whose values have no head
    source = header if header.is_file() else source
    with source.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(source) as archive:
            return archive.read(_HEAD)
    return head


def _is_itk_matlab(head: bytes) -> bool:
    """Whether it begins like MATLAB version 4, of either byte order, with a name as ITK gives them."""
    return head[:4] in MATLAB_ORDER and _ITK_MATLAB.match(head[20:]) is not None


def _kind_of_zip(source: Path, fixed: Grid | None) -> Detected:
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return Detected("torch")
    if all(name.endswith(".npy") for name in names):
        return Detected("learn2reg-2021" if fixed is not None and archive_is_of_2021(source, fixed) else "learn2reg")
    return Detected(None, "is a zip archive, but neither of numpy nor of torch; unpack it first")


def _kind_of_hdf5(source: Path) -> Detected:
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"ITKVersion") >= 0:
            return Detected("itk")
        if content.find(b"TransformGroup") >= 0 and content.find(b"X5") >= 0:
            return Detected("x5")
    return Detected(None, "is HDF5, but holds no transform of ITK or X5; convert it with the program that made it")


def _kind_of_nifti(source: Path) -> Detected:
    if not source.name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")):
        raise FileError(f"{source} is NIfTI by its content, but not by its name; call it *.nii or *.nii.gz")
    nifti = open_nifti(source)
    header: Any = nifti.header
    shape, intent = nifti.shape, int(header["intent_code"])
    if len(shape) == 5 and shape[3:] == (1, 3):
        if intent == INTENT_VECTOR:
            return Detected("itk", is_nifti=True)
        if intent == INTENT_DISPLACEMENT:
            return Detected("nifti", is_nifti=True)
        return Detected(
            None,
            f"is a field with intent {intent}, so that the frame of its vectors is not known; pass format='itk' "
            "only after setting the intent to 1007 (mm LPS), or format='nifti' after setting it to 1006 (mm RAS+)",
        )
    if intent == INTENT_FSL_FIELD:
        return Detected("fsl", is_nifti=True)
    if intent in INTENTS_OF_COEFFICIENTS:
        reason = f"holds spline coefficients of FSL (intent {intent}); make a field of it with fnirtfileutils --out"
        return Detected(None, reason, is_nifti=True)
    if len(shape) == 4 and shape[3] == 3:
        reason = (
            f"has shape {shape} and intent {intent}: it may be an image of 3 channels, or a displacement field of FSL "
            "(mm), Learn2Reg or VoxelMorph (voxels); where it is a field, pass format='learn2reg' with fixed=, or "
            "format='fsl' with moving="
        )
    else:
        reason = f"is NIfTI of shape {shape} and intent {intent}, and no displacement field; see read_image"
    return Detected(None, reason, is_nifti=True, is_image=True)


def _kind_of_other(source: Path) -> Detected:
    if reader_of_itk(source) is not None:
        reason = (
            "is an image, and no transform that is read; write the field as NIfTI or .h5 with the program that made it"
        )
        return Detected(None, reason, is_image=True)
    if text_matrix(source) is not None:
        reason = (
            "holds 4 x 4 numbers, but does not say in which frame and direction; pass format='fsl' with fixed= and "
            "moving= for a matrix of FLIRT, or wrap what is mm RAS+ from fixed to moving in Affine(numpy.loadtxt(...))"
        )
    else:
        reason = (
            "is no image and no transform that is known: needed is NIfTI, a transform file of ITK, .npz of Learn2Reg, "
            "a sampling grid of torch or X5; convert it with the program that made it"
        )
    return Detected(None, reason)
