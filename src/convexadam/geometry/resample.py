"""Images read on other grids."""

from __future__ import annotations

import math
import numbers
from typing import get_args

import numpy as np
import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Triple
from convexadam.errors import ConfigError, InputError
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.sampling import Mode, reader
from convexadam.geometry.tensors import all_finite, as_finest, computing_float
from convexadam.kernels import compiled_for_float32
from convexadam.kernels._precision import full_precision
from convexadam.kernels.interpolate import interpolated
from convexadam.kernels.smooth import along_axes, smoothing_matrix
from convexadam.kernels.warp import inside

_ROUNDING = 1e-3
"""Positions this close, in voxels, to the edge of the field of view are within it."""

_NARROW = 0.2
"""Standard deviation in voxels up to which a Gaussian changes nothing worth the time."""

_CHUNK_VOXELS = 2**22
"""Positions in flight at a time, so that resampling never needs much memory beside its result; a quarter of them in
modes that hold more numbers for each."""

_WHOLE_FLOAT32 = 2**24
"""Up to here float32 holds every whole number."""


def resample(
    image: Image,
    onto: Grid,
    *,
    mode: Mode | None = None,
    background: float | None = None,
    antialias: bool = False,
    disp_mm: Float[Tensor, "3 a b d"] | None = None,
) -> Image:
    """Read an image at the voxels of another grid, or at positions displaced from them.

    Parameters
    ----------
    image
        What to read, ``[c, i, j, k]``; every channel on its own.
    onto
        The grid of the result.
    mode
        - ``"linear"``: trilinear.
        - ``"cubic"``: the cubic B-spline through all voxels, which goes on as its mirror image beyond the outer centres
          (``order=3, mode="mirror"`` in scipy.ndimage). Sharper than linear; overshoots beside edges.
        - ``"nearest"``: the value of the nearest voxel.
        - ``"label"``: of the eight voxels around, the value whose linear weights sum up to the most. Surfaces come out
          smoother than with ``"nearest"``, and what is thinner than two voxels may get lost.

        The last two never invent a value, whatever the type of the labels. ``None`` takes ``"label"`` for
        whole-number types and ``"linear"`` for floating-point ones.
    background
        Value outside the image's field of view (which ends half a voxel beyond the outer centres; in between, the edge
        values hold), one that the image's type holds. ``None`` takes 0 in label mode and for whole-number types in
        nearest mode, and the image's smallest value otherwise.
    antialias
        Smooth first along the axes on which ``onto`` is coarser (linear mode only).
    disp_mm
        ``[3, i, j, k]`` on ``onto``, in mm RAS+: reads at ``x + disp_mm(x)``.

    Returns
    -------
    An image on ``onto``, of the same type. Whole numbers read linearly or cubically are rounded, and cut off where
    their type ends; above 2^53 they lose digits.

    Raises
    ------
    ConfigError
        If there is no such mode, or the image's type does not hold the background.
    InputError
        If an image read cubically holds NaN or Inf, which would spread over all of it.
    """
    mode = mode or ("label" if image.is_label else "linear")
    if mode not in get_args(Mode):
        raise ConfigError(f"mode is 'linear', 'cubic', 'nearest' or 'label', but {mode!r} came")
    if background is not None:
        _check_background(background, image.data.dtype)
    if disp_mm is None and onto.same_as(image.grid):
        return Image(image.data, onto)
    if background is None:
        zero = mode == "label" or (mode == "nearest" and image.is_label)
        background = 0.0 if zero else float(image.data.detach().min())
    if mode in ("nearest", "label"):
        data = read_tensor(image.data, image.grid, onto, mode=mode, background=background, disp_mm=disp_mm)
        return Image(data, onto)
    source = _in_floating_point(image.data, background)
    if mode == "cubic" and not all_finite(source):
        raise InputError("the image holds NaN or Inf, which cubic interpolation would spread; use mode='linear'")
    if antialias:
        source = _antialiased(source, image.grid, onto)
    result = read_tensor(source, image.grid, onto, mode=mode, background=background, disp_mm=disp_mm)
    return Image(_in_type(result, image.data.dtype), onto)


def read_tensor(
    data: Shaped[Tensor, "c i j k"],
    grid: Grid,
    onto: Grid,
    *,
    mode: Mode = "linear",
    background: float | None = None,
    disp_mm: Float[Tensor, "3 a b d"] | None = None,
) -> Shaped[Tensor, "c a b d"]:
    """Values of ``data`` (on ``grid``) at the voxels of ``onto``; without a background, edge values reach outside."""
    parallel = _ticks(grid, onto) if mode == "linear" and disp_mm is None else None
    if parallel is not None:
        with compiled_for_float32(data):
            values = interpolated(data, parallel)
        return values if background is None else _with_background(values, parallel, grid, background)
    result = data.new_empty((data.shape[0], *onto.shape))
    read = reader(data, mode)
    in_flight = _CHUNK_VOXELS if mode in ("linear", "nearest") else _CHUNK_VOXELS // 4
    rows = max(1, in_flight // math.prod(onto.shape[1:]))
    for first in range(0, onto.shape[0], rows):
        last = min(first + rows, onto.shape[0])
        positions = voxel_positions(onto, first, last, grid, disp_mm, data)
        values = read(positions)
        if background is not None:
            values = torch.where(inside(positions, grid.shape), values, values.new_tensor(background))
        result[:, first:last] = values
    return result


def _ticks(grid: Grid, onto: Grid) -> tuple[Tensor, Tensor, Tensor] | None:
    """Voxel indices of ``grid`` along each axis of ``onto``, float64; ``None`` where the axes are not parallel."""
    matrix = grid.voxels_from(onto)
    turned = np.abs(matrix[:3, :3] * np.array(onto.shape)) > _ROUNDING / 10
    if turned[~np.eye(3, dtype=bool)].any():
        return None
    i, j, k = (
        torch.arange(n, dtype=torch.float64, device="cpu") * float(matrix[a, a]) + float(matrix[a, 3])
        for a, n in enumerate(onto.shape)
    )
    return i, j, k


def _with_background(values: Tensor, ticks: tuple[Tensor, Tensor, Tensor], grid: Grid, background: float) -> Tensor:
    """Replace, in place, what lies outside the field of view of ``grid``."""
    for axis, (where, size) in enumerate(zip(ticks, grid.shape, strict=True)):
        outside = ((where < -0.5 - _ROUNDING / 10) | (where > size - 0.5 + _ROUNDING / 10)).nonzero()[:, 0]
        values.index_fill_(axis + 1, outside.to(values.device), background)
    return values


def coverage(grid: Grid, onto: Grid, *, like: Tensor, margin: int = 0) -> Shaped[Tensor, "i j k"]:
    """1 where a voxel of ``onto`` lies in the field of view of ``grid``, else 0; ``[i, j, k]``.

    A ``margin``, in voxels of ``onto``, shrinks the field of view on each side, but by no more than an eighth of it
    on each, so that thin volumes keep most of theirs.
    """
    matrix = grid.voxels_from(onto)
    result = torch.ones((1, 1, 1), dtype=like.dtype, device=like.device)  # as large as it has to be, axis by axis
    for axis, size in enumerate(grid.shape):
        edge = min(margin * float(np.linalg.norm(matrix[axis, :3])), size // 8) - 0.5
        where = torch.full((1, 1, 1), float(matrix[axis, 3]), dtype=torch.float32, device=like.device)
        for along, n in enumerate(onto.shape):
            if abs(matrix[axis, along]) * n > _ROUNDING / 10:  # parallel axes need one line of positions, not a volume
                ticks = torch.arange(n, dtype=torch.float64, device="cpu") * float(matrix[axis, along])
                where = where + ticks.to(like.device, torch.float32).reshape(
                    [-1 if a == along else 1 for a in range(3)]
                )
        result = result * ((where >= edge - _ROUNDING) & (where <= size - 1 - edge + _ROUNDING))
    return result.expand(onto.shape).contiguous()


@full_precision
def linear_part(matrix: np.ndarray, vectors: Tensor) -> Tensor:
    """Apply the 3x3 part of a 4x4 matrix to vectors ``[3, ...]``, in floating point."""
    vectors = vectors.to(computing_float(vectors))
    part = torch.from_numpy(np.array(matrix[:3, :3])).to(vectors.dtype).to(vectors.device)
    return (part @ vectors.reshape(3, -1)).reshape(vectors.shape)


def voxel_positions(onto: Grid, first: int, last: int, source: Grid, disp_mm: Field | None, like: Tensor) -> Field:
    """Voxel indices of ``source`` at the voxels ``first ... last - 1`` (along i) of ``onto``, displaced."""
    dtype = computing_float(like)
    matrix = source.voxels_from(onto)
    shape: Triple = (last - first, onto.shape[1], onto.shape[2])
    offset = torch.from_numpy(matrix[:3, 3] + matrix[:3, 0] * first)
    result = offset.to(dtype).to(like.device).reshape(3, 1, 1, 1).expand(3, *shape).clone()
    for axis in range(3):
        ticks = torch.arange(shape[axis], dtype=dtype, device=like.device)
        ticks = ticks.reshape([-1 if a == axis else 1 for a in range(3)])
        column = torch.from_numpy(matrix[:3, axis].copy()).to(dtype).to(like.device).reshape(3, 1, 1, 1)
        result += column * ticks
    if disp_mm is not None:
        result += linear_part(np.linalg.inv(source.affine), disp_mm[:, first:last].to(like.device, dtype))
    return result


def _in_floating_point(data: Tensor, background: float) -> Tensor:
    """Values to interpolate: float32, or float64 where the data has it, or whole numbers that need it."""
    if data.dtype in (torch.int32, torch.int64) and data.numel():
        low, high = (int(v) for v in torch.aminmax(data))
        if max(-low, high, abs(background)) > _WHOLE_FLOAT32:
            return as_finest(data, data.device)
    return data.to(computing_float(data))


def _in_type(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Interpolated values in the type of the image: whole numbers are rounded, and cut off where the type ends."""
    if values.dtype == dtype:
        return values
    if not dtype.is_floating_point:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        if dtype.itemsize * 8 - 1 > 52:  # the largest number that float64 and int64 share
            high = 2**63 - 2**10
        values = values.round().clamp(low, high)
    return values.to(dtype)


def _antialiased(data: Tensor, grid: Grid, onto: Grid) -> Tensor:
    """Gaussian along each axis that is sampled more coarsely, so that what cannot be shown is averaged out."""
    step = np.abs(grid.voxels_from(onto)[:3, :3]).max(axis=1)
    sigmas = [0.5 * math.sqrt(max(float(ratio) ** 2 - 1, 0.0)) for ratio in step]
    if max(sigmas) <= _NARROW:
        return data
    matrices = []
    for size, sigma in zip(data.shape[1:], sigmas, strict=True):
        half = math.ceil(3 * sigma) if sigma > _NARROW else 0
        weights = np.exp(-0.5 * (np.arange(-half, half + 1) / max(sigma, 1e-6)) ** 2)
        matrices.append(smoothing_matrix([float(w) for w in weights], size, like=data))
    return along_axes(data, (matrices[0], matrices[1], matrices[2]))


def _check_background(background: float, dtype: torch.dtype) -> None:
    """Raise where a tensor would wrap, cut off or overflow the value without a word."""
    if not isinstance(background, numbers.Real):
        raise ConfigError(f"background is a number, but {background!r} came")
    if dtype.is_floating_point:
        largest = torch.finfo(dtype).max
        fits = -largest <= background <= largest or not math.isfinite(background)
        needed = f"a number of at most {largest:g}"
    else:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        fits = math.isfinite(background) and background == int(background) and low <= background <= high
        needed = f"a whole number from {low} to {high}"
    if not fits:
        raise ConfigError(
            f"background is {needed} for an image of type {dtype}, but {background!r} came; convert the image to "
            "another type first"
        )
