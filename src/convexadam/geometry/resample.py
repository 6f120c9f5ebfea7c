"""Resampling of images on other grids."""

from __future__ import annotations

import math
import numbers
from typing import get_args

import numpy as np
import torch

from convexadam._checks import check_choice, is_finite, show
from convexadam._typing import Field, Float, Shaped, Tensor, Triple
from convexadam.errors import ConfigError, InputError
from convexadam.geometry.conversion import GridLike, ImageLike, to_grid, to_image
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.sampling import Mode, make_sampler
from convexadam.geometry.tensors import all_finite, check_allocation, check_values, to_finest_float, working_dtype
from convexadam.kernels import compiled_for_float32
from convexadam.kernels._device import send
from convexadam.kernels._precision import full_precision
from convexadam.kernels.coverage import cover
from convexadam.kernels.interpolate import interpolate
from convexadam.kernels.smooth import along_axes, smoothing_matrix
from convexadam.kernels.warp import inside

_ROUNDING = 1e-3
"""Tolerance at the edge of the field of view, in voxels: positions are rounded."""

_MIN_SIGMA = 0.2
"""Standard deviation in voxels up to which a Gaussian is skipped: its neighbours' weights are below 4e-6."""

_CHUNK_VOXELS = 2**22
"""Positions per chunk, which bounds the memory besides the result; a quarter of it in cubic and label mode."""

_WHOLE_FLOAT32 = 2**24
"""The largest integer up to which float32 represents all integers."""


def resample(
    image: ImageLike,
    reference: GridLike,
    *,
    mode: Mode | None = None,
    fill_value: float | None = None,
    antialias: bool = False,
    disp_mm: Float[Tensor, "3 a b d"] | None = None,
) -> Image:
    """Resample an image at the voxels of another grid, or at positions displaced from them.

    Parameters
    ----------
    image
        In any form that `convexadam.as_image` takes. Channels are resampled independently.
    reference
        The grid of the result, or an image on it.
    mode
        - ``"linear"``: trilinear.
        - ``"cubic"``: interpolating cubic B-spline with mirror boundaries (``order=3, mode="mirror"`` in scipy).
          Sharper than linear, with overshoots at edges.
        - ``"nearest"``: the value of the nearest voxel.
        - ``"label"``: of the eight surrounding voxels, the value with the largest sum of trilinear weights. Surfaces
          are smoother than with ``"nearest"``; structures thinner than two voxels may disappear.

        The last two return values of the image only. ``None`` is ``"label"`` for integer types and ``"linear"`` for
        floating-point types.
    fill_value
        Value outside the field of view of the image, which ends half a voxel beyond the outer voxel centres; between
        the centres and this edge the edge values are repeated. The type of the image must hold it. ``None`` is 0 in
        label mode and for integer types in nearest mode, and the smallest value of the image otherwise.
    antialias
        Smooth first along axes on which ``reference`` is coarser (linear mode only).
    disp_mm
        ``[3, i, j, k]`` on ``reference``, in mm RAS+: the image is sampled at ``x + disp_mm(x)``.

    Returns
    -------
    An image on ``reference``, of the same type. In linear and cubic mode integers are rounded and clamped to the range
    of their type; above 2^53 they lose digits.

    Raises
    ------
    ConfigError
        If there is no such mode, or the type of the image does not hold ``fill_value``.
    InputError
        If the image holds NaN or Inf and the mode is cubic, which would spread it over the image.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.geometry import resample
    >>> image = Image(torch.rand(1, 16, 16, 16), Grid((16, 16, 16)))
    >>> resample(image, image.grid.with_spacing((2.0, 2.0, 4.0))).grid.shape
    (8, 8, 4)
    """
    image, reference = to_image(image, "image"), to_grid(reference, "reference")
    _check_arguments(image, reference, disp_mm)
    mode = ("label" if image.is_label else "linear") if mode is None else mode
    check_choice(mode, "mode", get_args(Mode))
    if fill_value is not None:
        _check_fill_value(fill_value, image.data.dtype)
    if disp_mm is None and reference.is_close(image.grid):
        return Image(image.data, reference)
    if fill_value is None:
        zero = mode == "label" or (mode == "nearest" and image.is_label)
        value: float | Tensor = 0.0 if zero else _find_minimum(image.data)
    else:
        value = float(fill_value) if image.data.is_floating_point() else fill_value
    if mode in ("nearest", "label"):
        data = resample_tensor(image.data, image.grid, reference, mode=mode, fill_value=value, disp_mm=disp_mm)
        return Image(data, reference)
    source = _to_interpolation_dtype(image.data, value)
    if mode == "cubic" and not all_finite(source):
        raise InputError("image must be finite for mode='cubic', got NaN or Inf, which would spread; use mode='linear'")
    if antialias:
        source = _smooth_before_downsampling(source, image.grid, reference)
    result = resample_tensor(source, image.grid, reference, mode=mode, fill_value=value, disp_mm=disp_mm)
    return Image(_cast_to(result, image.data.dtype), reference)


def resample_tensor(
    data: Shaped[Tensor, "c i j k"],
    grid: Grid,
    reference: Grid,
    *,
    mode: Mode = "linear",
    fill_value: float | Tensor | None = None,
    disp_mm: Float[Tensor, "3 a b d"] | None = None,
) -> Shaped[Tensor, "c a b d"]:
    """Sample ``data`` on ``grid`` at the voxels of ``reference``; ``fill_value=None`` repeats edge values outside."""
    parallel = _axis_positions(grid, reference) if mode == "linear" and disp_mm is None else None
    if parallel is not None:
        with compiled_for_float32(data):
            values = interpolate(data, parallel)
        return values if fill_value is None else _fill_outside(values, parallel, grid, fill_value)
    result = data.new_empty((data.shape[0], *reference.shape))
    read = make_sampler(data, mode)
    in_flight = _CHUNK_VOXELS if mode in ("linear", "nearest") else _CHUNK_VOXELS // 4
    rows = max(1, in_flight // math.prod(reference.shape[1:]))
    for first in range(0, reference.shape[0], rows):
        last = min(first + rows, reference.shape[0])
        positions = voxel_positions(reference, first, last, grid, disp_mm, data)
        values = read(positions)
        if fill_value is not None:
            values = values.masked_fill(~inside(positions, grid.shape), fill_value)
        result[:, first:last] = values
    return result


def _axis_positions(grid: Grid, reference: Grid) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return voxel indices of ``grid`` along each axis of ``reference``, float64; ``None`` if axes are not parallel."""
    matrix = grid.index_map_from(reference)
    off_axis = np.abs(matrix[:3, :3] * np.array(reference.shape)) > _ROUNDING / 10
    if off_axis[~np.eye(3, dtype=bool)].any():
        return None
    i, j, k = (
        torch.arange(n, dtype=torch.float64, device="cpu") * float(matrix[a, a]) + float(matrix[a, 3])
        for a, n in enumerate(reference.shape)
    )
    return i, j, k


def _find_minimum(data: Tensor) -> float | Tensor:
    """Return the smallest value that is not NaN; of floating-point data on a GPU as a tensor: nothing waits for it."""
    if data.requires_grad and torch.is_grad_enabled():
        return data.min()
    data = data.detach()
    if not data.is_floating_point():
        return float(data.min())
    smallest = data.min() if not data.is_cuda else None
    if smallest is None or bool(smallest.isnan()):  # one such voxel is not all of them
        known = data.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf).min()
        smallest = known.masked_fill(known == math.inf, math.nan)
    return smallest if smallest.is_cuda else float(smallest)


def _fill_outside(
    values: Tensor, ticks: tuple[Tensor, Tensor, Tensor], grid: Grid, fill_value: float | Tensor
) -> Tensor:
    """Replace values outside the field of view of ``grid``, in place."""
    for axis, (index, size) in enumerate(zip(ticks, grid.shape, strict=True)):
        outside = ((index < -0.5 - _ROUNDING / 10) | (index > size - 0.5 + _ROUNDING / 10)).nonzero()[:, 0]
        if not len(outside):
            continue
        outside = send(outside, torch.empty(0, dtype=torch.int64, device=values.device))
        values.index_fill_(axis + 1, outside, fill_value)
    return values


def coverage(grid: Grid, reference: Grid, *, like: Tensor, margin: int = 0) -> Shaped[Tensor, "i j k"]:
    """Return 1 for voxels of ``reference`` within the field of view of ``grid``, else 0; ``[i, j, k]``.

    A ``margin``, in voxels of ``reference``, shrinks the field of view on each side, by at most an eighth of its size,
    so that thin volumes are not emptied.
    """
    matrix = grid.index_map_from(reference)
    edges = [_edge(matrix, axis, size, margin) for axis, size in enumerate(grid.shape)]
    limits = [(edge - _ROUNDING, size - 1 - edge + _ROUNDING) for edge, size in zip(edges, grid.shape, strict=True)]
    with compiled_for_float32(like):
        return cover(matrix[:3].tolist(), limits, reference.shape, like=like)


def covers(grid: Grid, reference: Grid, *, margin: int = 0) -> bool:
    """Whether `coverage` is 1 everywhere; known from the corners, without a volume."""
    matrix = grid.index_map_from(reference)
    for axis, size in enumerate(grid.shape):
        reached = [m * (n - 1) for m, n in zip(matrix[axis, :3], reference.shape, strict=True)]
        low, high = (float(matrix[axis, 3]) + sum(end(0.0, r) for r in reached) for end in (min, max))
        edge = _edge(matrix, axis, size, margin)
        if low < edge - _ROUNDING or high > size - 1 - edge + _ROUNDING:
            return False
    return True


def _edge(matrix: np.ndarray, axis: int, size: int, margin: int) -> float:
    """Return where the field of view of ``size`` voxels begins, without a margin in voxels of the other grid."""
    return min(margin * float(np.linalg.norm(matrix[axis, :3])), size // 8) - 0.5


@full_precision
def transform_vectors(matrix: np.ndarray, vectors: Tensor) -> Tensor:
    """Apply the 3x3 part of a 4x4 matrix to vectors ``[3, ...]``; float32 or float64."""
    vectors = vectors.to(working_dtype(vectors))
    part = send(torch.from_numpy(np.array(matrix[:3, :3])), vectors)
    return (part @ vectors.reshape(3, -1)).reshape(vectors.shape)


def voxel_positions(reference: Grid, first: int, last: int, source: Grid, disp_mm: Field | None, like: Tensor) -> Field:
    """Return voxel indices of ``source`` at the displaced voxels ``first ... last - 1`` (along i) of ``reference``."""
    dtype = working_dtype(like)
    matrix = source.index_map_from(reference)
    shape: Triple = (last - first, reference.shape[1], reference.shape[2])
    # the columns of the matrix, and the position of the first voxel
    columns = np.column_stack([matrix[:3, :3], matrix[:3, 3] + matrix[:3, 0] * first])
    sent = send(torch.from_numpy(columns), torch.empty(0, dtype=dtype, device=like.device))
    result = sent[:, 3].reshape(3, 1, 1, 1).expand(3, *shape).clone()
    for axis in range(3):
        ticks = torch.arange(shape[axis], dtype=dtype, device=like.device)
        ticks = ticks.reshape([-1 if a == axis else 1 for a in range(3)])
        result += sent[:, axis].reshape(3, 1, 1, 1) * ticks
    if disp_mm is not None:
        result += transform_vectors(np.linalg.inv(source.affine), disp_mm[:, first:last].to(like.device, dtype))
    return result


def _to_interpolation_dtype(data: Tensor, fill_value: float | Tensor) -> Tensor:
    """Convert to float32, or to float64 if the data or ``fill_value`` has integers that float32 does not represent."""
    if data.dtype in (torch.int32, torch.int64) and data.numel():
        low, high = (int(v) for v in torch.aminmax(data))
        if max(-low, high, abs(float(fill_value))) > _WHOLE_FLOAT32:
            return to_finest_float(data, data.device)
    return data.to(working_dtype(data))


def _cast_to(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert interpolated values to a type; integers are rounded and clamped to its range."""
    if values.dtype == dtype:
        return values
    if not dtype.is_floating_point:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        if dtype.itemsize * 8 - 1 > 52:  # the largest float64 that int64 holds
            high = 2**63 - 2**10
        values = values.round().clamp(low, high)
    return values.to(dtype)


def _smooth_before_downsampling(data: Tensor, grid: Grid, reference: Grid) -> Tensor:
    """Smooth with a Gaussian along each axis that is sampled more coarsely, against aliasing."""
    step = np.abs(grid.index_map_from(reference)[:3, :3]).max(axis=1)
    sigmas = [0.5 * math.sqrt(max(float(ratio) ** 2 - 1, 0.0)) for ratio in step]
    if max(sigmas) <= _MIN_SIGMA:
        return data
    matrices = []
    for size, sigma in zip(data.shape[1:], sigmas, strict=True):
        half = math.ceil(3 * sigma) if sigma > _MIN_SIGMA else 0
        weights = np.exp(-0.5 * (np.arange(-half, half + 1) / max(sigma, 1e-6)) ** 2)
        matrices.append(smoothing_matrix([float(w) for w in weights], size, like=data))
    return along_axes(data, (matrices[0], matrices[1], matrices[2]))


def _check_arguments(image: Image, reference: Grid, disp_mm: Tensor | None) -> None:
    """Raise unless the grid fits into memory, and the displacements are on it."""
    check_allocation((image.data.shape[0], *reference.shape), "the resampled image")
    if disp_mm is not None and not (isinstance(disp_mm, torch.Tensor) and disp_mm.shape == (3, *reference.shape)):
        raise InputError(
            f"disp_mm must be a tensor of shape {(3, *reference.shape)}, got {show(disp_mm)}; pass one on reference"
        )
    if disp_mm is not None:
        check_values(disp_mm, "disp_mm")


def _check_fill_value(fill_value: float, dtype: torch.dtype) -> None:
    """Raise if a tensor of this type would wrap, truncate or overflow the value silently."""
    if not isinstance(fill_value, numbers.Real) or (isinstance(fill_value, bool) and dtype != torch.bool):
        raise ConfigError(f"fill_value must be a number, got {show(fill_value)}; pass a float or an integer")
    if dtype.is_floating_point:
        largest = torch.finfo(dtype).max
        infinite = isinstance(fill_value, (float, np.floating)) and not math.isfinite(fill_value)
        fits = infinite or -largest <= fill_value <= largest
        requirement = f"a number of at most {largest:g}"
    else:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        fits = (
            (is_finite(fill_value) or isinstance(fill_value, bool))
            and fill_value == int(fill_value)
            and low <= fill_value <= high
        )
        requirement = f"a whole number from {low} to {high}"
    if not fits:
        raise ConfigError(
            f"fill_value must be {requirement} for an image of type {dtype}, got {show(fill_value)}; convert the "
            "image to another type"
        )
