"""Transform files of ITK (``.h5``, ``.tfm``, ``.txt``, ``.mat``), read and written with SimpleITK."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._atomic import atomic_path
from convexadam.errors import ConfigError, FileError
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Transform, compose
from convexadam.geometry.tensors import to_device
from convexadam.io.hdf5 import check_hdf5, check_parameters
from convexadam.io.headers import HDF5_SIGNATURE, hdf5_contains
from convexadam.io.itk import LPS, flip_lps, grid_from_itk, image_to_itk, import_simpleitk
from convexadam.io.itk_text import format_affine, parse_affine
from convexadam.io.reading import StrPath
from convexadam.io.transform_format import FileHeader

ITK_SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".mat")
"""Endings of the names of ITK's transform files; ``.mat`` files hold affine transforms only."""

ITK_TEXT = b"#Insight Transform File"
"""First bytes of text files."""

MATLAB_ORDER = {b"\0\0\0\0": "<", b"\0\0\x03\xe8": ">", b"\n\0\0\0": "<", b"\0\0\x03\xf2": ">"}
"""First bytes of files of MATLAB version 4, float64 or float32, and their byte order."""

_LARGEST_TEXT = 10_000
"""Bytes that the text of one matrix does not exceed."""

_MATLAB_HEADER = 20
_MATLAB_FIELD = re.compile(rb"\w*(?:DisplacementField|BSpline|VelocityField)\w*_(?:double|float)_\d+_\d+\0")
_MATLAB_NAME = re.compile(rb"\w+_(?:double|float)_\d+_\d+\0|fixed\0")


@check_arguments
def write_itk_transform(transform: Transform, path: StrPath) -> None:
    """Write a transform file for ITK, ANTs and Slicer: affine parts as matrices, fields as float64 vectors.

    A chain becomes an ITK composite, whose parts are listed from last to first. Outside its grid a field of ITK is 0,
    while `DisplacementField` repeats its edge values.

    Parameters
    ----------
    transform
        From fixed to moving space.
    path
        ``*.h5``, ``*.tfm`` or ``*.txt``; ``*.mat`` for an affine transform. An existing file is replaced after the new
        one is complete.

    Raises
    ------
    FileError
        If the name has another ending, or the file cannot be written.
    GeometryError
        If the axes of a field's grid are not orthogonal: ITK has no such grids.
    MissingExtraError
        If SimpleITK is not installed, which all but one matrix as text needs.

    Examples
    --------
    >>> import numpy as np
    >>> import SimpleITK as sitk
    >>> from convexadam import Affine
    >>> from convexadam.io import write_itk_transform
    >>> shift = np.eye(4)
    >>> shift[0, 3] = 10  # to the right
    >>> write_itk_transform(Affine(shift), "shift.tfm")
    >>> sitk.ReadTransform("shift.tfm").TransformPoint((0.0, 0.0, 0.0))  # LPS
    (-10.0, 0.0, 0.0)
    """
    ending = Path(path).suffix
    if ending not in ITK_SUFFIXES:
        raise FileError(
            f"the name of a transform file of ITK must end in {', '.join(ITK_SUFFIXES)}, got {path}; change the ending"
        )
    if ending == ".mat" and not isinstance(transform, Affine):
        raise FileError(
            f"the transform in a .mat file of ITK must be an Affine, got {type(transform).__name__} for {path}; "
            "call it *.h5"
        )
    if ending in (".tfm", ".txt") and isinstance(transform, Affine):
        with atomic_path(path) as temporary:
            temporary.write_text(format_affine(transform), encoding="ascii")
        return
    sitk = import_simpleitk("writing a transform file of ITK")
    made = _to_itk(sitk, transform)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteTransform(made, str(temporary))
        except RuntimeError as error:
            raise FileError(
                f"cannot write {path}: {_format_reason(error)}; check permissions and free space"
            ) from error


def read_itk_transform(source: Path, fixed: Grid | None = None, device: torch.device | str | None = None) -> Transform:
    """Read a transform file of ITK. Call it within `check_file`.

    Parameters
    ----------
    source
        A file of ITK, ANTs or Slicer.
    fixed
        The grid on which splines and other parametric deformations become a field; other transforms do not use it.
    device
        Where vectors go; ``None`` is the CPU.

    Raises
    ------
    FileError
        If SimpleITK cannot read it, or it is not three-dimensional.
    ConfigError
        If the file holds a parametric deformation and ``fixed`` is ``None``.
    MissingExtraError
        If SimpleITK is not installed.
    """
    _check_complete(source)
    if detected := _read_affine_text(source):
        return detected
    sitk = import_simpleitk("reading a transform file of ITK")
    try:
        found = sitk.ReadTransform(str(source))
    except RuntimeError as error:
        raise FileError(
            f"cannot read a transform of ITK from {source}: {_format_reason(error)}; check whether it is damaged"
        ) from error
    return _from_itk(sitk, found, fixed, device or "cpu")


def _read_affine_text(source: Path) -> Affine | None:
    if source.stat().st_size > _LARGEST_TEXT:
        return None
    content = source.read_bytes()
    return parse_affine(content.decode("ascii")) if content.startswith(ITK_TEXT) and content.isascii() else None


def detect_itk_transform(header: FileHeader) -> bool:
    """Whether a file is a transform file of ITK: text, MATLAB version 4 or HDF5."""
    matlab = header.head[:4] in MATLAB_ORDER and _MATLAB_NAME.match(header.head[_MATLAB_HEADER:]) is not None
    return header.head.startswith(ITK_TEXT) or matlab or hdf5_contains(header, b"ITKVersion")


def _to_itk(sitk: Any, transform: Transform) -> Any:
    if isinstance(transform, Affine):
        matrix = LPS @ transform.matrix @ LPS
        made = sitk.AffineTransform(3)
        made.SetMatrix(matrix[:3, :3].ravel().tolist())
        made.SetTranslation(matrix[:3, 3].tolist())
        return made
    if isinstance(transform, DisplacementField):
        vectors = flip_lps(transform.disp_mm.detach().cpu().double())
        return sitk.DisplacementFieldTransform(image_to_itk(vectors, transform.grid))
    if isinstance(transform, Composite):
        chain = sitk.CompositeTransform(3)
        for part in reversed(transform.transforms):  # ITK applies first what was added last
            chain.AddTransform(_to_itk(sitk, part))
        return chain
    raise ConfigError(
        f"a transform for ITK must be an Affine, a DisplacementField or a Composite, got {type(transform).__name__}; "
        "write transform.to_displacement_field(fixed)"
    )


def _from_itk(sitk: Any, found: Any, fixed: Grid | None, device: torch.device | str) -> Transform:
    if found.GetDimension() != 3:
        raise FileError(
            f"a transform of ITK must have 3 dimensions, got {found.GetDimension()}; only 3-D transforms are supported"
        )
    kind = found.GetTransformEnum()
    if kind == sitk.sitkComposite:
        chain = sitk.CompositeTransform(found)
        order = reversed(range(chain.GetNumberOfTransforms()))
        parts = [_from_itk(sitk, chain.GetNthTransform(n), fixed, device) for n in order]
        return compose(*parts) if parts else Affine()
    if kind == sitk.sitkDisplacementField:
        return _field_from_itk(sitk, sitk.DisplacementFieldTransform(found).GetDisplacementField(), device)
    if found.IsLinear():
        origin = np.array(found.TransformPoint((0.0, 0.0, 0.0)))
        columns = [np.array(found.TransformPoint(point)) - origin for point in np.eye(3).tolist()]
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = np.stack(columns, axis=1), origin
        return Affine(LPS @ matrix @ LPS)
    if fixed is None:
        raise ConfigError(
            f"fixed must be a Grid or an Image to sample a {found.GetName()} of ITK, got None; pass fixed="
        )
    sampler = sitk.TransformToDisplacementFieldFilter()
    sampler.SetReferenceImage(image_to_itk(torch.zeros((1, *fixed.shape), dtype=torch.uint8, device="cpu"), fixed))
    sampler.SetOutputPixelType(sitk.sitkVectorFloat64)
    return _field_from_itk(sitk, sampler.Execute(found), device)


def _field_from_itk(sitk: Any, vectors: Any, device: torch.device | str) -> DisplacementField:
    values = torch.from_numpy(np.array(sitk.GetArrayViewFromImage(vectors).T, np.float64, order="C"))
    return DisplacementField(to_device(flip_lps(values), device), grid_from_itk(vectors))


def _check_complete(source: Path) -> None:
    """Refuse truncated text and MATLAB files, which ITK reads with zeros or a truncated number for the rest."""
    with source.open("rb") as file:
        head = file.read(len(ITK_TEXT))
    if head == ITK_TEXT:
        text = source.read_text(encoding="utf-8", errors="replace")
        complete = _is_complete_text(text)
        _check_text_parameters(text, source)
    elif head[:4] in MATLAB_ORDER:
        content = source.read_bytes()
        complete = _is_complete_matlab(content, MATLAB_ORDER[head[:4]])
        if _MATLAB_FIELD.search(content):
            raise FileError(f"{source} must hold matrices, got a field or splines in a .mat file; write it as .h5")
    elif head.startswith(HDF5_SIGNATURE):
        check_hdf5(source)
        return
    else:
        return
    if not complete:
        raise FileError(
            f"{source} must be complete, got a truncated file; copy or write it again (the last line of a text file "
            "ends with a line break)"
        )


def _is_complete_text(text: str) -> bool:
    """Whether the last line is terminated, and each transform except composites has both kinds of parameters."""
    blocks = text.split("\nTransform:")[1:]
    simple = [block for block in blocks if not block.lstrip().startswith("CompositeTransform")]
    whole = all("\nParameters:" in block and "\nFixedParameters:" in block for block in simple)
    return text.endswith("\n") and bool(blocks) and whole


def _check_text_parameters(text: str, source: Path) -> None:
    """Raise unless transforms with a grid have as many parameters as it needs: ITK crashes on others."""
    for block in text.split("\nTransform:")[1:]:
        kind = (block.split() or [""])[0]
        lines = {key: values.split() for key, _, values in (line.partition(":") for line in block.splitlines()[1:])}
        fixed = [_parse_number(word) for word in lines.get("FixedParameters", [])[:3]]
        check_parameters(kind, fixed, len(lines.get("Parameters", [])), source)


def _parse_number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _is_complete_matlab(content: bytes, order: str) -> bool:
    """Whether the file ends with its last matrix, and the matrices are pairs: parameters and fixed parameters."""
    at, number = 0, 0
    while at + _MATLAB_HEADER <= len(content):
        kind, rows, columns, _, letters = struct.unpack_from(f"{order}5i", content, at)
        width = 4 if kind % 100 // 10 == 1 else 8
        at, number = at + _MATLAB_HEADER + letters + rows * columns * width, number + 1
        if min(rows, columns, letters) < 0:
            return False
    return at == len(content) and number % 2 == 0


def _format_reason(error: RuntimeError) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else type(error).__name__
