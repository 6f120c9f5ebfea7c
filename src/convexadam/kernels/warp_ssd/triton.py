"""Squared differences and their gradient on the GPU: one gather of eight rows of channels per point."""

from __future__ import annotations

import copy
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._layout import find_memory
from convexadam.kernels.diffusion.triton import negative_laplacian
from convexadam.kernels.warp.triton import find_cell, interpolate_corners, launch_grid, load_corners, points_of_box
from convexadam.kernels.warp_ssd.feature_rows import FeatureMap, FeatureRows, unpack

_BOX = (2, 4, 8)
"""Points per program: they load about 3 x 5 x 9 rows of the moving map, two per point; the other six are cached."""

_LONG_BOX = (2, 4, 32)
"""Points per program of the overlap weight, which loads one value per point."""

_CHANNELS = 16
"""Channels per iteration: in half precision 32 bytes, one memory sector."""

_POINTS_OF_ROWS = 64
"""Points per program that writes rows."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


class WarpSsd:
    """See `convexadam.kernels.warp_ssd.prepare_ssd`.

    Parameters
    ----------
    storage
        Type in which features are stored; ``None`` for float16 on GPUs, where the kernel is limited by memory
        bandwidth, and float32 elsewhere. Half precision has 11 significant bits, for features scaled to at most 1; all
        computations are in float32.
    """

    def __init__(
        self,
        fixed: FeatureMap,
        moving: FeatureMap,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        outlier: float | Float[Tensor, ""] | None = None,
        storage: torch.dtype | None = None,
    ) -> None:
        self._outlier, scale = outlier, None
        if isinstance(fixed, FeatureRows) and isinstance(moving, FeatureRows) and fixed.scale is moving.scale:
            self._features, scale = (fixed.rows, moving.rows), fixed.scale
        else:
            maps = [unpack(fixed), unpack(moving)]
            storage = storage or (torch.float16 if maps[0].is_cuda else torch.float32)
            ends = None if storage == torch.float32 else _Ends(*maps)
            self._features = _to_padded_rows(maps[0], storage, ends), _to_padded_rows(maps[1], storage, ends)
            scale = None if ends is None else ends.scale
        self._weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
        self._scale = scale
        self._shape = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
        self._grid = launch_grid(self._shape, _BOX)
        self._parts = torch.empty(self._grid[::-1], dtype=torch.float32, device=fixed.device)

    def with_outlier(self, outlier: float | Float[Tensor, ""]) -> WarpSsd:
        """See `convexadam.kernels.warp_ssd.SquaredDifferences`."""
        other = copy.copy(self)
        other._outlier, other._parts = outlier, torch.empty_like(self._parts)
        return other

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        gradient = self.gradient(displacement, diffusion=diffusion, out=out)
        return self._parts.sum(), gradient

    def value(self, displacement: Field) -> Float[Tensor, ""]:
        """See `convexadam.kernels.warp_ssd.SquaredDifferences`."""
        return self(displacement)[0]

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out)

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        result = out if out is not None and out.is_contiguous() else displacement.new_empty(4, *self._shape)
        self._run(displacement, diffusion, result[:3], with_trace=True)
        return self._parts.sum(), result if out is None or result is out else out.copy_(result)

    def _run(self, displacement: Field, diffusion: float, out: Field | None, *, with_trace: bool = False) -> Field:
        """Write the gradient and, if ``with_trace``, the curvature, which follows it in memory."""
        field = displacement.contiguous()
        gradient = out if out is not None and out.is_contiguous() else torch.empty_like(field)
        points, channels = field[0].numel(), self._features[0].shape[-1]
        given = self._outlier if isinstance(self._outlier, torch.Tensor) else None
        limit = 0.0 if self._outlier is None or given is not None else 1 / self._outlier
        numbers = 1 / points, 2 * diffusion / (3 * points), limit
        arrays = (*self._features, field, *self._weights, self._scale, given, gradient, self._parts)
        switches, sizes = (
            (diffusion != 0, self._outlier is not None, with_trace),
            (channels, min(channels, _CHANNELS), *_BOX),
        )
        with torch.cuda.device(field.get_device()):
            _gradient[self._grid](*arrays, *self._shape, *numbers, *switches, *sizes, **_OPTIONS)
        return gradient if out is None or gradient is out else out.copy_(gradient)


def overlap_weight(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """See the package."""
    field = displacement.contiguous()
    weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
    result = torch.empty_like(field[0])
    n0, n1, n2 = result.shape
    with torch.cuda.device(field.get_device()):
        _compute_overlap[launch_grid((n0, n1, n2), _LONG_BOX)](
            field, *weights, result, n0, n1, n2, *_LONG_BOX, **_OPTIONS
        )
    return result


def pack_rows(maps: list[Channels]) -> tuple[FeatureRows, FeatureRows]:
    """Do as `convexadam.kernels.warp_ssd.pack_features`."""
    ends = _Ends(*maps)
    fixed, moving = (
        FeatureRows(
            rows=_to_padded_rows(features, torch.float16, ends),
            scale=ends.scale,
            largest=ends.largest,
            channels=len(features),
        )
        for features in (maps.pop(0) for _ in range(2))
    )
    return fixed, moving


class _Ends:
    """The largest absolute values of two maps, and a power of two that is not below, which `_write_rows` finds."""

    def __init__(self, fixed: Channels, moving: Channels) -> None:
        self.of_each = [torch.linalg.vector_norm(features.detach(), torch.inf) for features in (fixed, moving)]
        self.found = torch.empty(2, dtype=torch.float32, device=fixed.device)
        self.scale, self.largest = self.found[0], self.found[1]


def _to_padded_rows(features: Channels, storage: torch.dtype, ends: _Ends | None) -> Float[Tensor, "i j k d"]:
    """Return features with channels last, zero-padded to complete blocks of channels, which add nothing to the loss."""
    count = features.shape[0]
    # a power of two up to one block, then complete blocks; at least four, so that a load is a whole word
    width = max(4, min(triton.next_power_of_2(count), -(-count // _CHANNELS) * _CHANNELS))
    points = features[0].numel()
    source, apart, along = find_memory(features.detach()) or (features.detach().contiguous(), points, 1)
    rows = torch.empty((*features.shape[1:], width), dtype=storage, device=source.device)
    scale = (None, None, None) if ends is None else (*ends.of_each, ends.found)
    with torch.cuda.device(source.get_device()):
        _write_rows[(triton.cdiv(points, _POINTS_OF_ROWS),)](
            source,
            *scale,
            rows,
            points,
            apart,
            along,
            count,
            width,
            triton.next_power_of_2(width),
            _POINTS_OF_ROWS,
            **_OPTIONS,
        )
    return rows


@no_type_check
@triton.jit(do_not_specialize=["points", "apart", "along"])
def _write_rows(
    features,
    fixed_end,
    moving_end,
    found,
    rows,
    points,
    apart,
    along,
    count: tl.constexpr,
    width: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
):
    """Store channels that lie ``apart`` in memory, points ``along`` it, as ``[n, width]``, with zeros for the rest.

    If the largest values are given, features are divided by a power of two that is not below, which is stored too.
    """
    point = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    channel = tl.arange(0, wide)
    at = channel[None, :].to(tl.int64) * apart + point[:, None] * along
    valid = (point < points)[:, None]
    values = tl.load(features + at, mask=valid & (channel < count)[None, :], other=0.0)
    if fixed_end is not None:
        a, b = tl.load(fixed_end), tl.load(moving_end)
        known, larger = (a <= b) | (b < a), tl.where(a <= b, b, a)
        # not so small that its square is no normal number
        bits = tl.where(known, tl.maximum(larger, 1e-18), 1.0).to(tl.int32, bitcast=True)
        power = tl.where((bits & 0x7FFFFF) == 0, bits, (bits & 0x7F800000) + 0x800000).to(tl.float32, bitcast=True)
        values = tl.div_rn(values, power)  # exact
        if tl.program_id(0) == 0:
            tl.store(found, power)
            tl.store(found + 1, tl.where(known, larger, float("nan")))
    tl.store(rows + point[:, None] * width + channel[None, :], values, mask=valid & (channel < width)[None, :])


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _gradient(
    fixed,
    moving,
    u,
    fixed_weight,
    moving_weight,
    scale,
    outlier,
    gradient,
    parts,
    n0,
    n1,
    n2,
    share,
    rough,
    limit,
    diffuse: tl.constexpr,
    has_outlier_limit: tl.constexpr,
    with_trace: tl.constexpr,
    channels: tl.constexpr,
    block: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    component = (point * 0 + n0) * n1 * n2  # 64 bits
    u0 = tl.load(u + point, mask=valid, other=0.0)
    u1 = tl.load(u + point + component, mask=valid, other=0.0)
    u2 = tl.load(u + point + 2 * component, mask=valid, other=0.0)
    p0, p1, p2 = i.to(tl.float32) + u0, j.to(tl.float32) + u1, k.to(tl.float32) + u2
    first, s0, s1, s2, f0, f1, f2 = find_cell(p0, p1, p2, n0, n1, n2)
    in_view = valid & inside(p0, n0) & inside(p1, n1) & inside(p2, n2)
    weight = compute_weight(fixed_weight, moving_weight, point, first, s0, s1, s2, f0, f1, f2, in_view)
    part, g0, g1, g2, h0, h1, h2 = _accumulate_channels(
        fixed, moving, point, first, s0, s1, s2, f0, f1, f2, weight > 0, with_trace, channels, block
    )

    weight *= share
    if scale is not None:
        unit = tl.load(scale)
        unit *= unit
        weight *= unit
    if has_outlier_limit:
        squared = part
        if scale is not None:
            squared *= unit
        if outlier is not None:
            level = tl.load(outlier)
            limit = tl.where(level > 0, 1.0 / tl.where(level > 0, level, 1.0), 0.0)
        share_ = 1.0 / (1.0 + squared * limit)
        part *= share_
        share_ *= share_
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(parts + program, tl.sum(weight * part, 0))
    # the derivative is 0 along axes where the position is clamped to the volume
    weight *= 2
    if has_outlier_limit:
        weight *= share_
    free0, free1, free2 = (p0 > 0) & (p0 < n0 - 1.0), (p1 > 0) & (p1 < n1 - 1.0), (p2 > 0) & (p2 < n2 - 1.0)
    g0 = tl.where(free0, weight * g0, 0.0)
    g1 = tl.where(free1, weight * g1, 0.0)
    g2 = tl.where(free2, weight * g2, 0.0)
    if with_trace:
        squared = tl.where(free0, h0, 0.0) + tl.where(free1, h1, 0.0) + tl.where(free2, h2, 0.0)
        tl.store(gradient + point + 3 * component, weight * squared / 3, mask=valid)
    if diffuse:
        g0 += rough * negative_laplacian(u, u0, point, i, j, k, n0, n1, n2, valid)
        g1 += rough * negative_laplacian(u, u1, point + component, i, j, k, n0, n1, n2, valid)
        g2 += rough * negative_laplacian(u, u2, point + 2 * component, i, j, k, n0, n1, n2, valid)
    tl.store(gradient + point, g0, mask=valid)
    tl.store(gradient + point + component, g1, mask=valid)
    tl.store(gradient + point + 2 * component, g2, mask=valid)


@no_type_check
@triton.jit
def _accumulate_channels(
    fixed,
    moving,
    point,
    first,
    s0,
    s1,
    s2,
    f0,
    f1,
    f2,
    mask,
    with_trace: tl.constexpr,
    channels: tl.constexpr,
    block: tl.constexpr,
):
    """Sum squared differences, half their gradient and, if ``with_trace``, squared slopes over the channels.

    0 outside the mask, where nothing is loaded.
    """
    mask = mask[:, None]
    f0, f1, f2 = f0[:, None], f1[:, None], f2[:, None]
    s0, s1, s2 = s0[:, None] * channels, s1[:, None] * channels, s2[:, None] * channels
    channel = tl.arange(0, block)[None, :]
    fixed_row, low_row = fixed + point[:, None] * channels, moving + first[:, None] * channels
    part = tl.zeros(point.shape, tl.float32)
    g0, g1, g2 = part, part, part
    h0, h1, h2 = part, part, part
    for start in range(0, channels, block):
        low, low1, low2 = _interpolate_face(low_row + (start + channel), s1, s2, f1, f2, mask)
        high, high1, high2 = _interpolate_face(low_row + s0 + (start + channel), s1, s2, f1, f2, mask)
        valid = tl.load(fixed_row + (start + channel), mask=mask, other=0.0).to(tl.float32)
        d0, d1, d2 = high - low, low1 + f0 * (high1 - low1), low2 + f0 * (high2 - low2)
        residual = low + f0 * d0 - valid
        part += tl.sum(residual * residual, 1)
        g0 += tl.sum(residual * d0, 1)
        g1 += tl.sum(residual * d1, 1)
        g2 += tl.sum(residual * d2, 1)
        if with_trace:
            h0 += tl.sum(d0 * d0, 1)
            h1 += tl.sum(d1 * d1, 1)
            h2 += tl.sum(d2 * d2, 1)
    return part, g0, g1, g2, h0, h1, h2


@no_type_check
@triton.jit
def _interpolate_face(row, s1, s2, f1, f2, mask):
    """Interpolate on the near or far face of each cell; return values and derivatives along the last two axes."""
    m00 = tl.load(row, mask=mask, other=0.0).to(tl.float32)
    m01 = tl.load(row + s2, mask=mask, other=0.0).to(tl.float32)
    m10 = tl.load(row + s1, mask=mask, other=0.0).to(tl.float32)
    m11 = tl.load(row + s1 + s2, mask=mask, other=0.0).to(tl.float32)
    d0, d1 = m01 - m00, m11 - m10
    e0, e1 = m00 + f2 * d0, m10 + f2 * d1
    slope = e1 - e0
    return e0 + f1 * slope, slope, d0 + f1 * (d1 - d0)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _compute_overlap(
    u, fixed_weight, moving_weight, out, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr
):
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    component = (point * 0 + n0) * n1 * n2  # 64 bits
    p0 = i.to(tl.float32) + tl.load(u + point, mask=valid, other=0.0)
    p1 = j.to(tl.float32) + tl.load(u + point + component, mask=valid, other=0.0)
    p2 = k.to(tl.float32) + tl.load(u + point + 2 * component, mask=valid, other=0.0)
    first, s0, s1, s2, f0, f1, f2 = find_cell(p0, p1, p2, n0, n1, n2)
    in_view = valid & inside(p0, n0) & inside(p1, n1) & inside(p2, n2)
    weight = compute_weight(fixed_weight, moving_weight, point, first, s0, s1, s2, f0, f1, f2, in_view)
    tl.store(out + point, weight, mask=valid)


@no_type_check
@triton.jit
def inside(position, n):
    """Whether a position along an axis is in the field of view."""
    return (position >= -0.5) & (position <= n - 0.5)


@no_type_check
@triton.jit
def compute_weight(fixed_weight, moving_weight, point, first, s0, s1, s2, f0, f1, f2, in_view):
    """Compute the overlap weight: 0 outside the field of view, and if a corner of the cell has zero weight."""
    weight = in_view.to(tl.float32)
    if fixed_weight is not None:
        weight *= tl.load(fixed_weight + point, mask=in_view, other=0.0)
    if moving_weight is not None:
        w000, w001, w010, w011, w100, w101, w110, w111 = load_corners(moving_weight, first, s0, s1, s2, in_view)
        k000, k001, k010, k011 = _is_positive(w000), _is_positive(w001), _is_positive(w010), _is_positive(w011)
        k100, k101, k110, k111 = _is_positive(w100), _is_positive(w101), _is_positive(w110), _is_positive(w111)
        known = interpolate_corners(k000, k001, k010, k011, k100, k101, k110, k111, f0, f1, f2)
        sampled = interpolate_corners(w000, w001, w010, w011, w100, w101, w110, w111, f0, f1, f2)
        weight *= tl.where(known > 0.999, sampled, 0.0)
    return weight


@no_type_check
@triton.jit
def _is_positive(weight):
    return (weight > 0).to(tl.float32)
