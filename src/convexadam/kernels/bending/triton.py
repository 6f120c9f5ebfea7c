"""Bending energy on the GPU, in two passes: the Laplacian, and the Laplacian of it (see ``cpu.py``)."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.diffusion.triton import negative_laplacian, program_index
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program: whole warps along the innermost axis, so that loads are coalesced."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def bending(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    n0, n1, n2 = field.shape[1:]
    parts = torch.empty(launch_grid((3 * n0, n1, n2), _BOX)[::-1], dtype=torch.float32, device=field.device)
    gradient = _run(field, weight, add_to, parts)
    return parts.sum() * (weight / (3 * field[0].numel())), gradient


def bending_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
    """See the package."""
    return _run(field, weight, add_to, None)


def _run(field: Field, weight: float, add_to: Field | None, parts: Float[Tensor, "a b c"] | None) -> Field:
    field_ = field.contiguous()
    gradient = add_to if add_to is not None and add_to.is_contiguous() else torch.zeros_like(field_)
    laplacian = torch.empty_like(field_)
    n0, n1, n2 = field_.shape[1:]
    factor = 2 * weight / (3 * field_[0].numel())
    grid = launch_grid((3 * n0, n1, n2), _BOX)
    with torch.cuda.device(field_.get_device()):
        _laplacian[grid](field_, laplacian, parts, n0, n1, n2, *_BOX, **_OPTIONS)
        _add[grid](field_, laplacian, gradient, n0, n1, n2, factor, *_BOX, **_OPTIONS)
    return gradient if add_to is None or add_to is gradient else add_to.add_(gradient)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _laplacian(u, out, parts, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    """Store the negative Laplacian of each component and the sum of squared second differences of each program."""
    plane, j, k, point, valid = points_of_box(3 * n0, n1, n2, box0, box1, box2)
    i = plane % n0
    value = tl.load(u + point, mask=valid, other=0.0)
    tl.store(out + point, negative_laplacian(u, value, point, i, j, k, n0, n1, n2, valid), mask=valid)
    if parts is not None:
        step0, step1 = (point * 0 + n1) * n2, point * 0 + n2
        total = _square_second_difference(u, value, point, step0, valid & (i > 0) & (i < n0 - 1))
        total += _square_second_difference(u, value, point, step1, valid & (j > 0) & (j < n1 - 1))
        total += _square_second_difference(u, value, point, point * 0 + 1, valid & (k > 0) & (k < n2 - 1))
        total += 2 * _square_mixed_difference(u, value, point, step0, step1, valid & (i < n0 - 1) & (j < n1 - 1))
        total += 2 * _square_mixed_difference(
            u, value, point, step0, point * 0 + 1, valid & (i < n0 - 1) & (k < n2 - 1)
        )
        total += 2 * _square_mixed_difference(
            u, value, point, step1, point * 0 + 1, valid & (j < n1 - 1) & (k < n2 - 1)
        )
        tl.store(parts + program_index(), tl.sum(total, 0))


@no_type_check
@triton.jit
def _square_second_difference(u, value, point, step, inside):
    """Square the second difference along an axis."""
    after, before = tl.load(u + point + step, mask=inside, other=0.0), tl.load(u + point - step, mask=inside, other=0.0)
    difference = tl.where(inside, (after - value) + (before - value), 0.0)
    return difference * difference


@no_type_check
@triton.jit
def _square_mixed_difference(u, value, point, step, step2, inside):
    """Square the mixed second difference of two axes."""
    first, second = (
        tl.load(u + point + step, mask=inside, other=0.0),
        tl.load(u + point + step2, mask=inside, other=0.0),
    )
    both = tl.load(u + point + step + step2, mask=inside, other=0.0)
    difference = tl.where(inside, (both - first) - (second - value), 0.0)
    return difference * difference


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _add(u, laplacian, out, n0, n1, n2, factor, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    plane, j, k, point, valid = points_of_box(3 * n0, n1, n2, box0, box1, box2)
    i = plane % n0
    value = tl.load(u + point, mask=valid, other=0.0)
    total = negative_laplacian(
        laplacian, tl.load(laplacian + point, mask=valid, other=0.0), point, i, j, k, n0, n1, n2, valid
    )
    total += _border_correction(u, value, point, (point * 0 + n1) * n2, i, n0, valid)
    total += _border_correction(u, value, point, point * 0 + n2, j, n1, valid)
    total += _border_correction(u, value, point, point * 0 + 1, k, n2, valid)
    tl.store(out + point, tl.load(out + point, mask=valid, other=0.0) + factor * total, mask=valid)


@no_type_check
@triton.jit
def _border_correction(u, value, point, step, index, n, valid):
    """Subtract the first differences at both ends of an axis from the biharmonic operator."""
    not_single = valid & (index < 2 * n - 2)  # more than one point along this axis
    low, high = not_single & (index <= 1), not_single & (index >= n - 2)
    partner = tl.load(u + point + step * (1 - 2 * index), mask=low, other=0.0)
    total = tl.where(low, partner - value, 0.0)
    partner = tl.load(u + point + step * (2 * (n - 1 - index) - 1), mask=high, other=0.0)
    return total + tl.where(high, partner - value, 0.0)
