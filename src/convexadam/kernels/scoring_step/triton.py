"""A step of Fisher scoring on the GPU, each part by one program: all is small, and the host must not wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Tensor

if TYPE_CHECKING:
    from convexadam.kernels.mutual_information import MutualInformation
    from convexadam.kernels.scoring_step import ScoringState

_SQUARINGS = tl.constexpr(6)  # type: ignore[no-untyped-call]
_TERMS = tl.constexpr(10)  # type: ignore[no-untyped-call]
"""Of the Taylor series of the exponential: of a matrix of norm 1/8 it errs by less than 1e-17."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def propose_step(
    state: ScoringState, generators: Float[Tensor, "k 4 4"], *, ridge: float, least: float
) -> tuple[Float[Tensor, " k"], Float[Tensor, "2 4 4"]]:
    """See the package."""
    step, proposed = generators.new_empty(len(generators)), torch.empty_like(state.placement)
    arrays = state.placement, state.current.gradient, state.current.information, state.factor, generators
    with torch.cuda.device(generators.get_device()):
        _propose[(1,)](*arrays, step, proposed, len(generators), ridge, least, **_OPTIONS)
    return step, proposed


def judge_step(
    state: ScoringState,
    proposed: Float[Tensor, "2 4 4"],
    new: MutualInformation,
    step: Float[Tensor, " k"],
    generators: Float[Tensor, "k 4 4"],
    *,
    factors: tuple[float, float],
    fall: float,
) -> None:
    """See the package."""
    arrays = state.placement, *state.current, state.factor, proposed, *new, step, generators
    with torch.cuda.device(generators.get_device()):
        _judge_value[(1,)](*arrays, len(generators), *factors, fall, **_OPTIONS)


@no_type_check
@triton.jit(do_not_specialize=["count"])
def _propose(placement, gradient, information, factor, generators, step, proposed, count, ridge, least):
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    entries = _load_entries(generators, row, column, count)
    slope = tl.load(gradient + row * 0 + column, mask=column < 12, other=0.0)
    right = tl.sum(entries * slope, 1)[:, None]
    known = tl.load(information + row * 12 + column, mask=(row < 12) & (column < 12), other=0.0)
    left = tl.sum(entries[:, :, None] * known[None, :, :], 1)
    left = tl.sum(left[:, None, :] * entries[None, :, :], 2)
    diagonal = tl.where(row == column, left, 0.0)
    mean = tl.sum(tl.sum(diagonal, 1), 0) / count
    damping = tl.where((row == column) & (row < count), ridge * (diagonal + mean) + least, 0.0)
    left += tl.where((row == column) & (row >= count), 1.0, damping)  # rows that are not there: those of the identity
    for pivot in range(count):  # Gauss and Jordan; a positive definite matrix needs no other order
        across = tl.sum(tl.where(row == pivot, left, 0.0), 0)[None, :]
        down = tl.sum(tl.where(column == pivot, left, 0.0), 1)[:, None]
        value = tl.sum(tl.where(row == pivot, right, 0.0), 0)[None, :]
        share = down / tl.sum(tl.where(row == pivot, down, 0.0), 0)[None, :]
        share = tl.where(row == pivot, 0.0, share)
        left -= share * across
        right -= share * value
    right = tl.load(factor) * right / tl.sum(tl.where(row == column, left, 0.0), 1)[:, None]
    tl.store(step + row, right, mask=row < count)
    _move(placement, proposed, right, generators, row, column, count)


@no_type_check
@triton.jit
def _load_entries(generators, row, column, count):
    """Load the first three rows of each generator, which are its row of the result."""
    return tl.load(generators + row * 16 + column, mask=(row < count) & (column < 12), other=0.0)


@no_type_check
@triton.jit
def _move(placement, proposed, step, generators, row, column, count):
    """Move both images by half the exponential, in opposite directions."""
    half = tl.reshape(tl.sum(step * _load_entries(generators, row, column, count), 0), (4, 4)) * 0.5
    cell = tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    moving = _multiply_by(tl.load(placement + 16 + cell), _exponential(half, cell))
    tl.store(proposed + 16 + cell, moving)
    tl.store(proposed + cell, _multiply_by(tl.load(placement + cell), _exponential(-half, cell)))


@no_type_check
@triton.jit
def _multiply_by(a, b):
    return tl.sum(a[:, :, None] * b[None, :, :], 1)


@no_type_check
@triton.jit
def _exponential(matrix, cell):
    """Compute the exponential of a matrix by scaling and squaring."""
    identity = tl.where(cell % 5 == 0, 1.0, 0.0).to(tl.float64)
    scaled, result = matrix / 2**_SQUARINGS, identity
    for n in range(_TERMS):
        result = identity + _multiply_by(scaled, result) / (_TERMS - n)
    for _ in range(_SQUARINGS):
        result = _multiply_by(result, result)
    return result


@no_type_check
@triton.jit(do_not_specialize=["count"])
def _judge_value(
    placement,
    value,
    gradient,
    information,
    factor,
    proposed,
    new_value,
    new_gradient,
    new_information,
    step,
    generators,
    count,
    lowest,
    highest,
    fall,
):
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    within, whole = column < 12, (row < 12) & (column < 12)
    length = tl.load(step + row, mask=row < count, other=0.0)
    motion = tl.sum(length * _load_entries(generators, row, column, count), 0)
    slope, new_slope = tl.load(gradient + column, mask=within, other=0.0), tl.load(new_gradient + column, mask=within)
    known = tl.load(information + row * 12 + column, mask=whole, other=0.0)
    accept = tl.load(new_value) > tl.load(value)
    change = tl.sum(tl.sum(tl.where(within, motion[None, :] * (slope - new_slope), 0.0), 1), 0)
    expected = tl.sum(tl.sum(motion[:, None] * motion[None, :] * known, 1), 0)
    ratio = tl.where(change > 0, expected / tl.where(change > 0, change, 1.0), highest)
    ratio = tl.minimum(tl.maximum(ratio, lowest), highest)
    tl.store(factor, tl.where(accept, ratio, tl.load(factor) * fall))
    if accept:
        tl.store(value, tl.load(new_value))
        tl.store(gradient + column, new_slope, mask=within)
        tl.store(information + row * 12 + column, tl.load(new_information + row * 12 + column, mask=whole), mask=whole)
        cell = row * 16 + column
        tl.store(placement + cell, tl.load(proposed + cell, mask=row < 2), mask=row < 2)
