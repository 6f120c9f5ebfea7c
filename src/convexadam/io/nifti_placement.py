"""Where a NIfTI header places its voxels: two forms, which of them is taken, and what is said about it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam._typing import Triple
from convexadam.errors import ConfigError, GeometryError
from convexadam.geometry.grid import HEADER_ROUNDING

HeaderForm: TypeAlias = Literal["sform", "qform"]

_FORM: ContextVar[HeaderForm | None] = ContextVar("header form", default=None)

_AGREEMENT = 0.1
"""Distance of corners, in voxels, up to which nothing is said about forms that differ."""

_RIGHT_ANGLES = 1e-4
"""Largest cosine of the angle between two axes that count as orthogonal."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A 4x4 map from voxel indices to RAS+ in the unit of the header, the name of its form, and its code."""

    affine: np.ndarray
    form: Literal["sform", "qform", "neither form"]
    code: int


@contextmanager
@check_arguments
def use_header(form: HeaderForm | None) -> Iterator[None]:
    """Take the sform or the qform of all NIfTI files that are read within the block; ``None`` is the default rule.

    By default the choice is that of ITK and ANTs, so that transforms apply to the same files there: the form that has
    a code; of two, the sform if its code is 1 and its axes are orthogonal, else the qform; without codes, voxel sizes
    along L, P and S from the origin. A warning names the distance between forms that disagree.

    Raises
    ------
    ConfigError
        If there is no such form.

    Examples
    --------
    >>> with use_header("sform"):
    ...     pass  # read_image("fixed.nii.gz")
    """
    if form is not None and form not in get_args(HeaderForm):
        raise ConfigError(f"form must be 'sform', 'qform' or None, got {show(form)}; choose one of them")
    token = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(token)


def get_header_form() -> HeaderForm | None:
    """Return the form of the block of `use_header` around; ``None`` for the default rule."""
    return _FORM.get()


def find_placement(nifti: Any, unit_mm: float) -> Placement:
    """Return where a nibabel image of NIfTI places its voxels, by the rules of `use_header`.

    ``unit_mm`` is the unit of the header.

    Raises
    ------
    GeometryError
        If the form of `use_header` is not set, or the only one is damaged.
    """
    header = nifti.header
    sform = _read_sform(header) if int(header["sform_code"]) > 0 else None
    qform = _read_qform(header, damaged_is_none=sform is not None) if int(header["qform_code"]) > 0 else None
    shape = _first_three(nifti.shape)
    usual = _choose_like_itk(header, sform, qform, shape)
    form = _FORM.get()
    if form is None:
        taken = usual
    elif form == "qform":
        taken = _read_qform(header)
    else:
        taken = _read_sform(header)
        if not np.any(taken.affine[:3, :3]):
            raise GeometryError("the sform must be set to be taken, got zeros; omit --header sform, or set it")
    _warn(nifti, taken, [other for other in (sform, qform, usual) if other is not None], shape, unit_mm)
    return taken


def has_orthogonal_axes(affine: np.ndarray) -> bool:
    """Whether the axes of a 4x4 affine are orthogonal, as qforms and ITK require."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not lengths.all():
        return False
    directions = affine[:3, :3] / lengths
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() < _RIGHT_ANGLES)


def _choose_like_itk(header: Any, sform: Placement | None, qform: Placement | None, shape: Triple) -> Placement:
    if sform is not None and qform is not None:
        orthogonal = has_orthogonal_axes(sform.affine)
        close = _measure_distance(sform, qform, shape) < HEADER_ROUNDING  # the sform is rounded less
        return sform if orthogonal and (sform.code == 1 or close) else qform
    if sform is not None or qform is not None:
        return sform or qform  # type: ignore[return-value]
    i, j, k = (abs(float(size)) or 1.0 for size in (*header.get_zooms(), 1.0)[:3])
    return Placement(affine=np.diag([-i, -j, k, 1.0]), form="neither form", code=0)


def _warn(nifti: Any, taken: Placement, others: list[Placement], shape: Triple, unit_mm: float) -> None:
    name = nifti.get_filename() or "a NIfTI image"
    choice = "choose with --header sform or qform (in Python: convexadam.io.use_header)"
    if taken.form == "neither form":
        warnings.warn(
            f"{name} does not say where its voxels are (the codes of its sform and qform are 0); its axes were taken "
            f"as L, P and S from the origin, as by ITK and ANTs; {choice}",
            stacklevel=2,
        )
        return
    if damaged := [other.form for other in others if not np.isfinite(other.affine).all()]:
        warnings.warn(
            f"{name} has a damaged {damaged[0]}, with values that are not finite; the {taken.form} was taken; correct "
            "the header",
            stacklevel=2,
        )
        return
    far = max(others, key=lambda other: _measure_distance(taken, other, shape), default=taken)
    if _measure_distance(taken, far, shape) > _AGREEMENT:
        as_itk = "as by" if taken.form == others[-1].form else "unlike"
        distance_mm = unit_mm * np.linalg.norm((taken.affine - far.affine) @ _corners(shape), axis=0).max()
        codes = f"sform code {int(nifti.header['sform_code'])}, qform code {int(nifti.header['qform_code'])}"
        warnings.warn(
            f"{name} places its voxels twice, up to {distance_mm:.3g} mm apart ({codes}); the {taken.form} was taken, "
            f"{as_itk} ITK and ANTs; {choice}",
            stacklevel=2,
        )


def _read_sform(header: Any) -> Placement:
    affine = _complete(np.asarray(header.get_sform(), np.float64), header)
    return Placement(affine=affine, form="sform", code=int(header["sform_code"]))


def _read_qform(header: Any, *, damaged_is_none: bool = False) -> Any:
    try:
        affine = np.asarray(header.get_qform(), np.float64)
    except ValueError as error:
        if damaged_is_none:
            return None
        raise GeometryError(f"the qform must be valid, got a damaged one ({error}); correct the header") from error
    return Placement(affine=_complete(affine, header), form="qform", code=int(header["qform_code"]))


def _complete(affine: np.ndarray, header: Any) -> np.ndarray:
    """Return the affine of a header, for a 2-D image that lacks it with an axis of 1 unit at right angles."""
    if int(header["dim"][0]) != 2 or affine[:3, 2].any():
        return affine
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = np.linalg.norm(normal)
    completed = affine.copy()
    completed[:3, 2] = normal / length if length > 0 else 0.0
    return completed


def _measure_distance(one: Placement, other: Placement, shape: Triple) -> float:
    """Return the largest distance of corresponding corners, in voxels."""
    spacing = np.linalg.norm(one.affine[:3, :3], axis=0).min()
    distance = np.linalg.norm((one.affine - other.affine) @ _corners(shape), axis=0).max()
    if not distance:
        return 0.0
    return float(distance / spacing) if spacing else math.inf


def _corners(shape: Triple) -> np.ndarray:
    corners = np.ones((4, 8))
    corners[:3] = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(shape)[:, None] - 1)
    return corners


def _first_three(shape: tuple[int, ...]) -> Triple:
    i, j, k = (int(n) for n in (*shape, 1, 1, 1)[:3])
    return i, j, k
