"""The choice of linear transforms on the GPU, each by one program: all is small, and the host must not wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Shaped, Tensor, Volume
from convexadam.kernels.linear_choice.reference import MAX_VOLUME_CHANGE

if TYPE_CHECKING:
    from convexadam.kernels.linear_choice import Candidate

_BLOCK = 1024
"""Points at a time."""

_OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}


def compute_mean(values: Volume, weight: Volume) -> Float[Tensor, ""]:
    """See `convexadam.kernels.linear_choice.Candidate`."""
    arrays = values.contiguous(), weight.contiguous()
    mean = torch.empty((), dtype=torch.float64, device=values.device)
    with torch.cuda.device(values.get_device()):
        _compute_mean[(1,)](*arrays, mean, values.numel(), _BLOCK, **_OPTIONS)
    return mean


def apply_update(
    matrix: Float[Tensor, "4 4"],
    active: Shaped[Tensor, ""],
    update: Float[Tensor, "4 4"],
    corners: Float[Tensor, "8 4"],
    *,
    close: float,
) -> None:
    """See the package."""
    with torch.cuda.device(matrix.get_device()):
        _apply_update[(1,)](matrix, active, update.contiguous(), corners, float(close), MAX_VOLUME_CHANGE, **_OPTIONS)


def keep_better(best: Candidate, other: Candidate, *, min_improvement: tuple[float, float], by_mean: bool) -> None:
    """See the package."""
    kept = best.values, best.weight, best.matrix, best.model
    new = other.values, other.weight, other.matrix, other.model
    with torch.cuda.device(best.values.get_device()):
        _keep_better[(1,)](
            *kept, *new, best.values.numel(), *min_improvement, int(by_mean), MAX_VOLUME_CHANGE, _BLOCK, **_OPTIONS
        )


@no_type_check
@triton.jit(do_not_specialize=["points"])
def _compute_mean(values, weight, mean, points, block: tl.constexpr):
    lane = tl.arange(0, block)
    total = tl.zeros((block,), tl.float64)
    for first in range(0, points, block):
        value, share = _load_result(values, weight, first + lane, first + lane < points)
        total += share * (value - 1)
    tl.store(mean, 1 + tl.sum(total, 0))


@no_type_check
@triton.jit(do_not_specialize=["close", "most"])
def _apply_update(matrix, active, update, corners, close, most):
    row, column = tl.arange(0, 4)[:, None], tl.arange(0, 4)[None, :]
    before, change = tl.load(matrix + row * 4 + column), tl.load(update + row * 4 + column)
    fitted = tl.sum(before[:, :, None] * change[None, :, :], 1)
    volume = _determinant(matrix) * _determinant(update)
    was_active = tl.load(active) != 0
    accepted = was_active & (volume > 1.0 / most) & (volume < most)
    corner = tl.arange(0, 8)[:, None]
    places = tl.load(corners + corner * 4 + column)
    motion = change - tl.where(row == column, 1.0, 0.0)
    moved = tl.sum(places[:, None, :] * motion[None, :, :], 2)
    longest = tl.sqrt(tl.max(tl.sum(moved * moved, 1), 0))
    tl.debug_barrier()  # all threads have read what is overwritten
    tl.store(matrix + row * 4 + column, tl.where(accepted, fitted, before))
    tl.store(active, accepted & (longest >= close))


@no_type_check
@triton.jit
def _determinant(matrix):
    """Compute the determinant of the first three rows and columns."""
    a, b, c = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2)
    d, e, f = tl.load(matrix + 4), tl.load(matrix + 5), tl.load(matrix + 6)
    g, h, i = tl.load(matrix + 8), tl.load(matrix + 9), tl.load(matrix + 10)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


@no_type_check
@triton.jit(do_not_specialize=["points", "first_share", "share", "by_mean", "most"])
def _keep_better(
    values,
    weight,
    matrix,
    model,
    new_values,
    new_weight,
    new_matrix,
    new_model,
    points,
    first_share,
    share,
    by_mean,
    most,
    block: tl.constexpr,
):
    """Compare two results, and replace the first one if the second one is better; one program."""
    lane, zero = tl.arange(0, block), tl.zeros((block,), tl.float64)
    common, own, others, mean, other_mean, total, other_total = zero, zero, zero, zero, zero, zero, zero
    for first in range(0, points, block):
        at = first + lane
        v, w = _load_result(values, weight, at, at < points)
        new_v, new_w = _load_result(new_values, new_weight, at, at < points)
        both = tl.minimum(w, new_w)
        common, own, others = common + both, own + both * new_v, others + both * v
        mean, other_mean = mean + new_w * new_v, other_mean + w * v
        total, other_total = total + new_w, other_total + w
    weights, other_weights = tl.sum(total, 0), tl.sum(other_total, 0)
    apart = (tl.sum(common, 0) < tl.maximum(weights, other_weights) / 2) | (by_mean != 0)
    value = tl.where(apart, tl.sum(mean, 0) + 1 - weights, tl.sum(own, 0))
    other_value = tl.where(apart, tl.sum(other_mean, 0) + 1 - other_weights, tl.sum(others, 0))
    required = tl.where(tl.load(model) < 0, first_share, share)
    volume = _determinant(new_matrix)
    usable = (tl.load(new_model) >= 0) & (volume > 1.0 / most) & (volume < most)
    if usable & (value < (1 - required) * other_value):
        tl.debug_barrier()  # others read what is overwritten
        for first in range(0, points, block):
            at = first + lane
            tl.store(values + at, tl.load(new_values + at, mask=at < points), mask=at < points)
            tl.store(weight + at, tl.load(new_weight + at, mask=at < points), mask=at < points)
        cell = tl.arange(0, 16)
        tl.store(matrix + cell, tl.load(new_matrix + cell))
        tl.store(model, tl.load(new_model))


@no_type_check
@triton.jit
def _load_result(values, weight, at, valid):
    value, share = tl.load(values + at, mask=valid, other=0.0), tl.load(weight + at, mask=valid, other=0.0)
    return value.to(tl.float64), share.to(tl.float64)
