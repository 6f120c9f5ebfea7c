"""Diffusion energy on the GPU, in one pass over memory, and the Laplacian for other kernels."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program: whole warps along the innermost axis, so that loads are coalesced."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def diffusion(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    n0, n1, n2 = field.shape[1:]
    parts = torch.empty(launch_grid((3 * n0, n1, n2), _BOX)[::-1], dtype=torch.float32, device=field.device)
    gradient = _run(field, weight, add_to, parts)
    return parts.sum() * (weight / (3 * field[0].numel())), gradient


def diffusion_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
    """See the package."""
    return _run(field, weight, add_to, None)


def _run(field: Field, weight: float, add_to: Field | None, parts: Float[Tensor, "a b c"] | None) -> Field:
    source = field.contiguous()
    gradient = add_to if add_to is not None and add_to.is_contiguous() else torch.zeros_like(source)
    n0, n1, n2 = source.shape[1:]
    factor = 2 * weight / (3 * source[0].numel())
    with torch.cuda.device(source.get_device()):
        _add_gradient[launch_grid((3 * n0, n1, n2), _BOX)](
            source, gradient, parts, n0, n1, n2, factor, *_BOX, **_OPTIONS
        )
    return gradient if add_to is None or add_to is gradient else add_to.add_(gradient)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _add_gradient(u, out, parts, n0, n1, n2, factor, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    """Add the gradient of all components, and sum the squared differences of each program."""
    plane, j, k, point, valid = points_of_box(3 * n0, n1, n2, box0, box1, box2)
    i = plane % n0
    value = tl.load(u + point, mask=valid, other=0.0)
    before = tl.load(out + point, mask=valid, other=0.0)
    tl.store(out + point, before + factor * negative_laplacian(u, value, point, i, j, k, n0, n1, n2, valid), mask=valid)
    if parts is not None:
        row = (point * 0 + n1) * n2
        along_i = tl.load(u + point + tl.where(i < n0 - 1, row, 0), mask=valid, other=0.0) - value
        along_j = tl.load(u + point + tl.where(j < n1 - 1, n2, 0), mask=valid, other=0.0) - value
        along_k = tl.load(u + point + tl.where(k < n2 - 1, 1, 0), mask=valid, other=0.0) - value
        total = tl.sum(along_i * along_i + along_j * along_j + along_k * along_k, 0)
        tl.store(parts + program_index(), total)


@no_type_check
@triton.jit
def program_index():
    """Return the linear index of this program."""
    return (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)


@no_type_check
@triton.jit
def negative_laplacian(u, value, at, i, j, k, n0, n1, n2, valid):
    """Compute the negative Laplacian, with zero flux through the border."""
    row = (at * 0 + n1) * n2
    total = value - tl.load(u + at - tl.where(i > 0, row, 0), mask=valid, other=0.0)
    total += value - tl.load(u + at + tl.where(i < n0 - 1, row, 0), mask=valid, other=0.0)
    total += value - tl.load(u + at - tl.where(j > 0, n2, 0), mask=valid, other=0.0)
    total += value - tl.load(u + at + tl.where(j < n1 - 1, n2, 0), mask=valid, other=0.0)
    total += value - tl.load(u + at - tl.where(k > 0, 1, 0), mask=valid, other=0.0)
    total += value - tl.load(u + at + tl.where(k < n2 - 1, 1, 0), mask=valid, other=0.0)
    return total
