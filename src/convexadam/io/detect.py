"""What kind of transform a file holds, by its content."""

from __future__ import annotations

import gzip
import mmap
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from convexadam.errors import FileError
from convexadam.io.fsl import INTENT_FSL_FIELD, text_matrix
from convexadam.io.itk_transforms import ITK_TEXT, MATLAB_ORDER
from convexadam.io.nifti import INTENT_DISPLACEMENT, INTENT_VECTOR, load_nifti
from convexadam.io.reading import is_zip

_Found: TypeAlias = Literal["itk", "nifti", "learn2reg", "torch", "fsl", "x5"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ITK_MATLAB = re.compile(rb"\w+_(?:double|float)_\d+_\d+\0|fixed\0")
_HEAD = 512


@dataclass(frozen=True)
class Detected:
    """The format that a file has, or why that cannot be known.

    Attributes
    ----------
    format
        Name of the format, or ``None``.
    reason
        Why not, and what to pass; follows the name of the file.
    is_nifti
        Whether the file is NIfTI at all.
    """

    format: _Found | None
    reason: str = ""
    is_nifti: bool = False


def detected(source: Path, *, named: bool = False) -> Detected:
    """Look into a file; to be called within `reading`. Where the format is ``named``, only NIfTI is told apart."""
    head = _head(source)
    if is_nifti(head):
        return Detected(None, is_nifti=True) if named else _kind_of_nifti(source)
    if named:
        return Detected(None)
    if head.startswith(_HDF5):
        return _kind_of_hdf5(source)
    if head.startswith(ITK_TEXT) or _is_itk_matlab(head):
        return Detected("itk")
    if is_zip(source):
        return _kind_of_zip(source)
    if text_matrix(source) is not None:
        reason = (
            "holds 4 x 4 numbers, but does not say in which frame and direction; pass format='fsl' with fixed= and "
            "moving= for a matrix of FLIRT, or wrap what is mm RAS+ from fixed to moving in Affine(numpy.loadtxt(...))"
        )
    else:
        reason = (
            "is no transform that is known: needed is NIfTI, a transform file of ITK, .npz of Learn2Reg, a sampling "
            "grid of torch or X5; convert it with the program that made it"
        )
    return Detected(None, reason)


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins so is NIfTI, version 1 or 2."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _head(source: Path) -> bytes:
    with source.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(source) as archive:
            return archive.read(_HEAD)
    return head


def _is_itk_matlab(head: bytes) -> bool:
    """Whether it begins like MATLAB version 4, of either byte order, with a name as ITK gives them."""
    return head[:4] in MATLAB_ORDER and _ITK_MATLAB.match(head[20:]) is not None


def _kind_of_zip(source: Path) -> Detected:
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return Detected("torch")
    if all(name.endswith(".npy") for name in names):
        return Detected("learn2reg")
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
    nifti = load_nifti(source)
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
    if len(shape) == 4 and shape[3] == 3:
        return Detected(
            None,
            f"has shape {shape} and intent {intent}: it may be of FSL (mm), Learn2Reg or VoxelMorph (voxels); pass "
            "format='learn2reg' with fixed=, or format='fsl' with moving=",
        )
    return Detected(None, f"is NIfTI of shape {shape} and intent {intent}, and no displacement field; see read_image")
