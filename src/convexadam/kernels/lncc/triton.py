"""Local correlation and its gradient on the GPU: a gather, and box filters before and after a pass over the windows."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.triton import excess
from convexadam.kernels.lncc.reference import normalised
from convexadam.kernels.smooth.triton import smooth
from convexadam.kernels.warp.triton import boxes, cell, corners, mixed, nodes_of_box
from convexadam.kernels.warp_ssd.triton import evidence_of, inside

_BOX = (2, 4, 32)
"""Nodes of one program that reads between nodes or beside them."""

_COUNT = 1024
"""Nodes of one program that reads its own alone."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


class Correlation:
    """See `convexadam.kernels.lncc.correlated`."""

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
        self._maps = normalised(fixed, fixed_weight), normalised(moving, moving_weight)
        self._weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
        self._taps, self._floor = (1.0,) * (2 * radius + 1), floor
        self._shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out, None)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        found = out if out is not None and out.is_contiguous() else displacement.new_empty(4, *self._shape)
        value, _ = self._run(displacement, diffusion, found[:3], found[3:])
        return value, found if out is None or found is out else out.copy_(found)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, trace: Float[Tensor, "1 i j k"] | None
    ) -> tuple[Float[Tensor, ""], Field]:
        given = displacement.contiguous()
        gradient = out if out is not None and out.is_contiguous() else torch.empty_like(given)
        nodes, grid, programs = given[0].numel(), boxes(self._shape, _BOX), -(-given[0].numel() // _COUNT)
        slopes, moved, evidence = torch.empty_like(given), torch.empty_like(given[0]), torch.empty_like(given[0])
        products = given.new_empty(6, *self._shape)
        parts = given.new_empty(len(self._maps[0]), programs)
        with torch.cuda.device(given.get_device()):
            for number, (fixed, moving) in enumerate(zip(*self._maps, strict=True)):
                arrays = moving, given, *self._weights, moved, evidence, slopes
                warp_with_slopes[grid](*arrays, *self._shape, *_BOX, **_OPTIONS)
                _multiply[(programs,)](fixed, moved, evidence, products, nodes, _COUNT, **_OPTIONS)
                arrays = evidence, smooth(products, self._taps), products, parts[number]
                _correlate[(programs,)](*arrays, nodes, self._floor, 1 / nodes, _COUNT, **_OPTIONS)
                factors = smooth(products[:3], self._taps)
                first = number == 0
                numbers = 1 / nodes, 2 * diffusion / (3 * nodes)
                arrays = fixed, moved, evidence, factors, slopes, given, gradient, trace
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
    moved,
    evidence,
    slopes,
    n0,
    n1,
    n2,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Warp: values, their evidence and their slopes; all 0 without evidence."""
    i, j, k, node, here = nodes_of_box(n0, n1, n2, box0, box1, box2)
    component = (node * 0 + n0) * n1 * n2  # 64 bits
    p0 = i.to(tl.float32) + tl.load(u + node, mask=here, other=0.0)
    p1 = j.to(tl.float32) + tl.load(u + node + component, mask=here, other=0.0)
    p2 = k.to(tl.float32) + tl.load(u + node + 2 * component, mask=here, other=0.0)
    first, s0, s1, s2, f0, f1, f2 = cell(p0, p1, p2, n0, n1, n2)
    seen = here & inside(p0, n0) & inside(p1, n1) & inside(p2, n2)
    weight = evidence_of(fixed_weight, moving_weight, node, first, s0, s1, s2, f0, f1, f2, seen)
    seen &= weight > 0
    v000, v001, v010, v011, v100, v101, v110, v111 = corners(moving, first, s0, s1, s2, seen)
    m = tl.where(seen, mixed(v000, v001, v010, v011, v100, v101, v110, v111, f0, f1, f2), 0.0)
    # a position clamped to the volume does not move with the displacement
    d0 = _slope(v000, v001, v010, v011, v100, v101, v110, v111, f1, f2)
    d1 = _slope(v000, v001, v100, v101, v010, v011, v110, v111, f0, f2)
    d2 = _slope(v000, v010, v100, v110, v001, v011, v101, v111, f0, f1)
    tl.store(slopes + node, tl.where(seen & (p0 > 0) & (p0 < n0 - 1.0), d0, 0.0), mask=here)
    tl.store(slopes + node + component, tl.where(seen & (p1 > 0) & (p1 < n1 - 1.0), d1, 0.0), mask=here)
    tl.store(slopes + node + 2 * component, tl.where(seen & (p2 > 0) & (p2 < n2 - 1.0), d2, 0.0), mask=here)
    tl.store(moved + node, m, mask=here)
    tl.store(evidence + node, weight, mask=here)


@no_type_check
@triton.jit
def _slope(a00, a01, a10, a11, b00, b01, b10, b11, f1, f2):
    """Difference of the faces ``b`` and ``a`` of a cell at a point of theirs."""
    d0, d1 = b00 - a00 + f2 * ((b01 - a01) - (b00 - a00)), b10 - a10 + f2 * ((b11 - a11) - (b10 - a10))
    return d0 + f1 * (d1 - d0)


@no_type_check
@triton.jit(do_not_specialize=["nodes"])
def _multiply(fixed, moved, evidence, products, nodes, count: tl.constexpr):
    """Write ``w``, ``w f``, ``w f^2``, ``w m``, ``w m^2``, ``w f m``."""
    node = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count)
    here, step = node < nodes, node * 0 + nodes  # 64 bits
    f, m = tl.load(fixed + node, mask=here, other=0.0), tl.load(moved + node, mask=here, other=0.0)
    weight = tl.load(evidence + node, mask=here, other=0.0)
    tl.store(products + node, weight, mask=here)
    tl.store(products + node + step, weight * f, mask=here)
    tl.store(products + node + 2 * step, weight * f * f, mask=here)
    tl.store(products + node + 3 * step, weight * m, mask=here)
    tl.store(products + node + 4 * step, weight * m * m, mask=here)
    tl.store(products + node + 5 * step, weight * f * m, mask=here)


@no_type_check
@triton.jit(do_not_specialize=["nodes"])
def _correlate(evidence, sums, factors, parts, nodes, floor, share, count: tl.constexpr):
    """Correlate each window; box sums of the three factors make the derivative by the moved values.

    That derivative of ``sum w (1 - cc)`` is ``w`` times the box sum of ``B m - A f - C``.
    """
    node = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count)
    here, step = node < nodes, node * 0 + nodes  # 64 bits
    weight = tl.load(evidence + node, mask=here, other=0.0)
    known = weight > 0
    inverse = 1 / tl.where(known, tl.load(sums + node, mask=here, other=1.0), 1.0)
    f = tl.load(sums + node + step, mask=known, other=0.0) * inverse
    ff = tl.load(sums + node + 2 * step, mask=known, other=0.0) * inverse
    m = tl.load(sums + node + 3 * step, mask=known, other=0.0) * inverse
    mm = tl.load(sums + node + 4 * step, mask=known, other=0.0) * inverse
    cov = tl.load(sums + node + 5 * step, mask=known, other=0.0) * inverse - f * m
    vf, vm = tl.maximum(ff - f * f, 0.0) + floor, tl.maximum(mm - m * m, 0.0) + floor
    slope = cov / vm
    of_a = 2 * weight * inverse * slope / vf
    of_b = of_a * slope
    tl.store(factors + node, of_a, mask=here)
    tl.store(factors + node + step, of_b, mask=here)
    tl.store(factors + node + 2 * step, of_b * m - of_a * f, mask=here)
    tl.store(parts + tl.program_id(0), share * tl.sum(weight * (1 - cov * slope / vf), 0))


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _gradient(
    fixed,
    moved,
    evidence,
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
    """Multiply slopes by the derivative; add to what other channels left, unless this is the first."""
    i, j, k, node, here = nodes_of_box(n0, n1, n2, box0, box1, box2)
    component = (node * 0 + n0) * n1 * n2  # 64 bits
    second, third = node + component, node + 2 * component
    weight = share * tl.load(evidence + node, mask=here, other=0.0)
    sum_a = tl.load(sums + node, mask=here, other=0.0)
    sum_b = tl.load(sums + second, mask=here, other=0.0)
    sum_c = tl.load(sums + third, mask=here, other=0.0)
    f, m = tl.load(fixed + node, mask=here, other=0.0), tl.load(moved + node, mask=here, other=0.0)
    change = weight * (sum_b * m - sum_a * f - sum_c)
    d0 = tl.load(slopes + node, mask=here, other=0.0)
    d1 = tl.load(slopes + second, mask=here, other=0.0)
    d2 = tl.load(slopes + third, mask=here, other=0.0)
    if trace is not None:
        _write(trace + node, weight * sum_b * (d0 * d0 + d1 * d1 + d2 * d2) / 3, here, first)
    g0, g1, g2 = change * d0, change * d1, change * d2
    if diffuse:
        u0 = tl.load(u + node, mask=here, other=0.0)
        u1 = tl.load(u + second, mask=here, other=0.0)
        u2 = tl.load(u + third, mask=here, other=0.0)
        g0 += rough * excess(u, u0, node, i, j, k, n0, n1, n2, here)
        g1 += rough * excess(u, u1, second, i, j, k, n0, n1, n2, here)
        g2 += rough * excess(u, u2, third, i, j, k, n0, n1, n2, here)
    _write(gradient + node, g0, here, first)
    _write(gradient + second, g1, here, first)
    _write(gradient + third, g2, here, first)


@no_type_check
@triton.jit
def _write(place, value, here, first: tl.constexpr):
    if not first:
        value += tl.load(place, mask=here, other=0.0)
    tl.store(place, value, mask=here)
