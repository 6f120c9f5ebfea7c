"""Local correlation and its gradient on the GPU: a gather, and box filters before and after a pointwise pass."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.triton import negative_laplacian
from convexadam.kernels.lncc.reference import normalise
from convexadam.kernels.smooth.triton import smooth
from convexadam.kernels.warp.triton import find_cell, interpolate_corners, launch_grid, load_corners, points_of_box
from convexadam.kernels.warp_ssd.triton import compute_weight, inside

_BOX = (2, 4, 32)
"""Points per program of kernels that interpolate or load neighbours."""

_COUNT = 1024
"""Points per program of pointwise kernels."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


class Correlation:
    """See `convexadam.kernels.lncc.prepare_lncc`."""

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        radius: int = 2,
        floor: float = 1e-3,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> None:
        self._maps = normalise(fixed, fixed_weight), normalise(moving, moving_weight)
        self._weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
        self._taps, self._floor = (1.0,) * (2 * radius + 1), floor
        self._shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out, None)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        result = out if out is not None and out.is_contiguous() else displacement.new_empty(4, *self._shape)
        value, _ = self._run(displacement, diffusion, result[:3], result[3:])
        return value, result if out is None or result is out else out.copy_(result)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, trace: Float[Tensor, "1 i j k"] | None
    ) -> tuple[Float[Tensor, ""], Field]:
        field = displacement.contiguous()
        gradient = out if out is not None and out.is_contiguous() else torch.empty_like(field)
        points, grid, programs = field[0].numel(), launch_grid(self._shape, _BOX), -(-field[0].numel() // _COUNT)
        slopes, warped, overlap = torch.empty_like(field), torch.empty_like(field[0]), torch.empty_like(field[0])
        products = field.new_empty(6, *self._shape)
        parts = field.new_empty(len(self._maps[0]), programs)
        with torch.cuda.device(field.get_device()):
            for number, (fixed, moving) in enumerate(zip(*self._maps, strict=True)):
                arrays = moving, field, *self._weights, warped, overlap, slopes
                warp_with_slopes[grid](*arrays, *self._shape, *_BOX, **_OPTIONS)
                _multiply[(programs,)](fixed, warped, overlap, products, points, _COUNT, **_OPTIONS)
                arrays = overlap, smooth(products, self._taps), products, parts[number]
                _correlate[(programs,)](*arrays, points, self._floor, 1 / points, _COUNT, **_OPTIONS)
                factors = smooth(products[:3], self._taps)
                first = number == 0
                numbers = 1 / points, 2 * diffusion / (3 * points)
                arrays = fixed, warped, overlap, factors, slopes, field, gradient, trace
                flags = first, first and diffusion != 0
                _gradient[grid](*arrays, *self._shape, *numbers, *flags, *_BOX, **_OPTIONS)
        return parts.sum(), gradient if out is None or gradient is out else out.copy_(gradient)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def warp_with_slopes(
    moving,
    u,
    fixed_weight,
    moving_weight,
    warped,
    overlap,
    slopes,
    n0,
    n1,
    n2,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Warp a map: values, weights and spatial derivatives; all 0 where the weight is 0."""
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    component = (point * 0 + n0) * n1 * n2  # 64 bits
    p0 = i.to(tl.float32) + tl.load(u + point, mask=valid, other=0.0)
    p1 = j.to(tl.float32) + tl.load(u + point + component, mask=valid, other=0.0)
    p2 = k.to(tl.float32) + tl.load(u + point + 2 * component, mask=valid, other=0.0)
    first, s0, s1, s2, f0, f1, f2 = find_cell(p0, p1, p2, n0, n1, n2)
    in_view = valid & inside(p0, n0) & inside(p1, n1) & inside(p2, n2)
    weight = compute_weight(fixed_weight, moving_weight, point, first, s0, s1, s2, f0, f1, f2, in_view)
    in_view &= weight > 0
    v000, v001, v010, v011, v100, v101, v110, v111 = load_corners(moving, first, s0, s1, s2, in_view)
    m = tl.where(in_view, interpolate_corners(v000, v001, v010, v011, v100, v101, v110, v111, f0, f1, f2), 0.0)
    # the derivative is 0 along axes where the position is clamped to the volume
    d0 = _slope(v000, v001, v010, v011, v100, v101, v110, v111, f1, f2)
    d1 = _slope(v000, v001, v100, v101, v010, v011, v110, v111, f0, f2)
    d2 = _slope(v000, v010, v100, v110, v001, v011, v101, v111, f0, f1)
    tl.store(slopes + point, tl.where(in_view & (p0 > 0) & (p0 < n0 - 1.0), d0, 0.0), mask=valid)
    tl.store(slopes + point + component, tl.where(in_view & (p1 > 0) & (p1 < n1 - 1.0), d1, 0.0), mask=valid)
    tl.store(slopes + point + 2 * component, tl.where(in_view & (p2 > 0) & (p2 < n2 - 1.0), d2, 0.0), mask=valid)
    tl.store(warped + point, m, mask=valid)
    tl.store(overlap + point, weight, mask=valid)


@no_type_check
@triton.jit
def _slope(a00, a01, a10, a11, b00, b01, b10, b11, f1, f2):
    """Interpolate the difference of opposite faces ``b`` and ``a`` of a cell."""
    d0, d1 = b00 - a00 + f2 * ((b01 - a01) - (b00 - a00)), b10 - a10 + f2 * ((b11 - a11) - (b10 - a10))
    return d0 + f1 * (d1 - d0)


@no_type_check
@triton.jit(do_not_specialize=["points"])
def _multiply(fixed, warped, overlap, products, points, count: tl.constexpr):
    """Store ``w``, ``w f``, ``w f^2``, ``w m``, ``w m^2`` and ``w f m``."""
    point = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count)
    valid, step = point < points, point * 0 + points  # 64 bits
    f, m = tl.load(fixed + point, mask=valid, other=0.0), tl.load(warped + point, mask=valid, other=0.0)
    weight = tl.load(overlap + point, mask=valid, other=0.0)
    tl.store(products + point, weight, mask=valid)
    tl.store(products + point + step, weight * f, mask=valid)
    tl.store(products + point + 2 * step, weight * f * f, mask=valid)
    tl.store(products + point + 3 * step, weight * m, mask=valid)
    tl.store(products + point + 4 * step, weight * m * m, mask=valid)
    tl.store(products + point + 5 * step, weight * f * m, mask=valid)


@no_type_check
@triton.jit(do_not_specialize=["points"])
def _correlate(overlap, sums, factors, parts, points, floor, share, count: tl.constexpr):
    """Compute the correlation in each window and three factors of the derivative.

    The derivative of ``sum w (1 - cc)`` by the warped value ``m`` is ``w`` times the box sum of ``B m - A f - C``.
    """
    point = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count)
    valid, step = point < points, point * 0 + points  # 64 bits
    weight = tl.load(overlap + point, mask=valid, other=0.0)
    positive = weight > 0
    inverse = 1 / tl.where(positive, tl.load(sums + point, mask=valid, other=1.0), 1.0)
    f = tl.load(sums + point + step, mask=positive, other=0.0) * inverse
    ff = tl.load(sums + point + 2 * step, mask=positive, other=0.0) * inverse
    m = tl.load(sums + point + 3 * step, mask=positive, other=0.0) * inverse
    mm = tl.load(sums + point + 4 * step, mask=positive, other=0.0) * inverse
    cov = tl.load(sums + point + 5 * step, mask=positive, other=0.0) * inverse - f * m
    vf, vm = tl.maximum(ff - f * f, 0.0) + floor, tl.maximum(mm - m * m, 0.0) + floor
    slope = cov / vm
    of_a = 2 * weight * inverse * slope / vf
    of_b = of_a * slope
    tl.store(factors + point, of_a, mask=valid)
    tl.store(factors + point + step, of_b, mask=valid)
    tl.store(factors + point + 2 * step, of_b * m - of_a * f, mask=valid)
    tl.store(parts + tl.program_id(0), share * tl.sum(weight * (1 - cov * slope / vf), 0))


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _gradient(
    fixed,
    warped,
    overlap,
    sums,
    slopes,
    u,
    gradient,
    trace,
    n0,
    n1,
    n2,
    share,
    rough,
    first: tl.constexpr,
    diffuse: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Multiply spatial derivatives by that of the loss; store for the first channel, add for the others."""
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    component = (point * 0 + n0) * n1 * n2  # 64 bits
    second, third = point + component, point + 2 * component
    weight = share * tl.load(overlap + point, mask=valid, other=0.0)
    sum_a = tl.load(sums + point, mask=valid, other=0.0)
    sum_b = tl.load(sums + second, mask=valid, other=0.0)
    sum_c = tl.load(sums + third, mask=valid, other=0.0)
    f, m = tl.load(fixed + point, mask=valid, other=0.0), tl.load(warped + point, mask=valid, other=0.0)
    change = weight * (sum_b * m - sum_a * f - sum_c)
    d0 = tl.load(slopes + point, mask=valid, other=0.0)
    d1 = tl.load(slopes + second, mask=valid, other=0.0)
    d2 = tl.load(slopes + third, mask=valid, other=0.0)
    if trace is not None:
        _store_or_add(trace + point, weight * sum_b * (d0 * d0 + d1 * d1 + d2 * d2) / 3, valid, first)
    g0, g1, g2 = change * d0, change * d1, change * d2
    if diffuse:
        u0 = tl.load(u + point, mask=valid, other=0.0)
        u1 = tl.load(u + second, mask=valid, other=0.0)
        u2 = tl.load(u + third, mask=valid, other=0.0)
        g0 += rough * negative_laplacian(u, u0, point, i, j, k, n0, n1, n2, valid)
        g1 += rough * negative_laplacian(u, u1, second, i, j, k, n0, n1, n2, valid)
        g2 += rough * negative_laplacian(u, u2, third, i, j, k, n0, n1, n2, valid)
    _store_or_add(gradient + point, g0, valid, first)
    _store_or_add(gradient + second, g1, valid, first)
    _store_or_add(gradient + third, g2, valid, first)


@no_type_check
@triton.jit
def _store_or_add(place, value, valid, first: tl.constexpr):
    if not first:
        value += tl.load(place, mask=valid, other=0.0)
    tl.store(place, value, mask=valid)
