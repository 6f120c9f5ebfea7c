"""Transform files of ITK (``.h5``, ``.tfm``, ``.txt``, ``.mat``) through SimpleITK."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._atomic import atomic_path
from convexadam.errors import ConfigError, FileError
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Transform, compose
from convexadam.geometry.tensors import to_device
from convexadam.io.itk import LPS, flipped, grid_from_itk, image_to_itk, simpleitk
from convexadam.io.nifti import StrPath

ITK_ENDINGS = (".h5", ".hdf5", ".tfm", ".txt", ".mat")
"""Names under which ITK writes transforms; the last one holds affine transforms alone."""

ITK_TEXT = b"#Insight Transform File"
"""How text files begin."""

MATLAB_ORDER = {b"\0\0\0\0": "<", b"\0\0\x03\xe8": ">", b"\n\0\0\0": "<", b"\0\0\x03\xf2": ">"}
"""How files of MATLAB version 4 begin, float64 or float32, and the order of their bytes."""

_MATLAB_HEADER = 20


def write_itk_transform(transform: Transform, path: StrPath) -> None:
    """Write a transform as ITK, ANTs and Slicer read it: affine parts as matrices, fields as float64 vectors.

    A chain stays a chain (an ITK composite, whose parts are listed from last to first). Outside its grid a field of ITK
    moves nothing, while `DisplacementField` goes on with its edge values.

    Parameters
    ----------
    transform
        From fixed to moving space.
    path
        ``*.h5``, ``*.tfm`` or ``*.txt``; ``*.mat`` for an affine transform. An old file is replaced, whole or not at
        all.

    Raises
    ------
    FileError
        If the name ends otherwise, or the file cannot be written.
    GeometryError
        If the axes of a field's grid are not at right angles: ITK knows no such grids.
    MissingExtraError
        If SimpleITK is not installed.
    """
    sitk = simpleitk("writing a transform file of ITK")
    ending = Path(path).suffix
    if ending not in ITK_ENDINGS:
        raise FileError(f"a transform file of ITK is called {', '.join(ITK_ENDINGS)}, but the name is {path}")
    if ending == ".mat" and not isinstance(transform, Affine):
        raise FileError(
            f"a .mat file of ITK holds affine transforms alone, but a {type(transform).__name__} came for {path}; "
            "call it .h5"
        )
    made = _as_itk(sitk, transform)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteTransform(made, str(temporary))
        except RuntimeError as error:
            raise FileError(f"cannot write {path}: {_reason(error)}") from error


def read_itk_transform(source: Path, fixed: Grid | None = None, device: torch.device | str | None = None) -> Transform:
    """Read a transform file of ITK. To be called within `reading`.

    Parameters
    ----------
    source
        A file of ITK, ANTs or Slicer, by any name.
    fixed
        Where splines and other parametric deformations are turned into a field; no other transform needs it.
    device
        Where vectors go; ``None`` is the CPU.

    Raises
    ------
    FileError
        If SimpleITK cannot read it, or it is not three-dimensional.
    ConfigError
        If a parametric deformation comes and there is no ``fixed`` grid.
    MissingExtraError
        If SimpleITK is not installed.
    """
    sitk = simpleitk("reading a transform file of ITK")
    _check_complete(source)
    try:
        found = sitk.ReadTransform(str(source))
    except RuntimeError as error:
        raise FileError(f"{source} cannot be read as a transform of ITK ({_reason(error)}); is it damaged?") from error
    return _from_itk(sitk, found, fixed, device or "cpu")


def _as_itk(sitk: Any, transform: Transform) -> Any:
    if isinstance(transform, Affine):
        matrix = LPS @ transform.matrix @ LPS
        made = sitk.AffineTransform(3)
        made.SetMatrix(matrix[:3, :3].ravel().tolist())
        made.SetTranslation(matrix[:3, 3].tolist())
        return made
    if isinstance(transform, DisplacementField):
        vectors = flipped(transform.disp_mm.detach().cpu().double())
        return sitk.DisplacementFieldTransform(image_to_itk(vectors, transform.grid))
    if isinstance(transform, Composite):
        chain = sitk.CompositeTransform(3)
        for part in reversed(transform.transforms):  # ITK applies first what was added last
            chain.AddTransform(_as_itk(sitk, part))
        return chain
    raise ConfigError(f"ITK has no {type(transform).__name__}; write transform.resample_onto(fixed)")


def _from_itk(sitk: Any, found: Any, fixed: Grid | None, device: torch.device | str) -> Transform:
    if found.GetDimension() != 3:
        raise FileError(f"the transform has {found.GetDimension()} dimensions, but three are needed")
    kind = found.GetTransformEnum()
    if kind == sitk.sitkComposite:
        chain = sitk.CompositeTransform(found)
        order = reversed(range(chain.GetNumberOfTransforms()))
        parts = [_from_itk(sitk, chain.GetNthTransform(n), fixed, device) for n in order]
        return compose(*parts) if parts else Affine()
    if kind == sitk.sitkDisplacementField:
        return _field(sitk, sitk.DisplacementFieldTransform(found).GetDisplacementField(), device)
    if found.IsLinear():
        origin = np.array(found.TransformPoint((0.0, 0.0, 0.0)))
        columns = [np.array(found.TransformPoint(point)) - origin for point in np.eye(3).tolist()]
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = np.stack(columns, axis=1), origin
        return Affine(LPS @ matrix @ LPS)
    if fixed is None:
        raise ConfigError(
            f"the transform holds a {found.GetName()}, which becomes a field on the fixed grid; pass fixed="
        )
    sampler = sitk.TransformToDisplacementFieldFilter()
    sampler.SetReferenceImage(image_to_itk(torch.zeros((1, *fixed.shape), dtype=torch.uint8, device="cpu"), fixed))
    sampler.SetOutputPixelType(sitk.sitkVectorFloat64)
    return _field(sitk, sampler.Execute(found), device)


def _field(sitk: Any, vectors: Any, device: torch.device | str) -> DisplacementField:
    values = torch.from_numpy(np.array(sitk.GetArrayViewFromImage(vectors).T, np.float64, order="C"))
    return DisplacementField(to_device(flipped(values), device), grid_from_itk(vectors))


def _check_complete(source: Path) -> None:
    """Refuse text and MATLAB files that are cut short: ITK takes them, with zeros or half a number for the rest."""
    with source.open("rb") as file:
        head = file.read(len(ITK_TEXT))
    if head == ITK_TEXT:
        complete = _is_complete_text(source.read_text(encoding="utf-8", errors="replace"))
    elif head[:4] in MATLAB_ORDER:
        complete = _is_complete_matlab(source.read_bytes(), MATLAB_ORDER[head[:4]])
    else:
        return
    if not complete:
        raise FileError(
            f"{source} is cut short; copy or make it again (the last line of a text file ends with a break)"
        )


def _is_complete_text(text: str) -> bool:
    """Whether the last line has its end, and each transform but a composite both kinds of parameters."""
    blocks = text.split("\nTransform:")[1:]
    simple = [block for block in blocks if not block.lstrip().startswith("CompositeTransform")]
    whole = all("\nParameters:" in block and "\nFixedParameters:" in block for block in simple)
    return text.endswith("\n") and bool(blocks) and whole


def _is_complete_matlab(content: bytes, order: str) -> bool:
    """Whether the file ends where its last matrix ends, and they come in pairs: parameters and fixed ones."""
    at, number = 0, 0
    while at + _MATLAB_HEADER <= len(content):
        kind, rows, columns, _, letters = struct.unpack_from(f"{order}5i", content, at)
        width = 4 if kind % 100 // 10 == 1 else 8
        at, number = at + _MATLAB_HEADER + letters + rows * columns * width, number + 1
        if min(rows, columns, letters) < 0:
            return False
    return at == len(content) and number % 2 == 0


def _reason(error: RuntimeError) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else type(error).__name__
