"""Refinement of a linear transform: the maximum of mutual information, coarse to fine, at sample points."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch

from convexadam._typing import Channels, Float, Points, Shaped, Tensor
from convexadam.geometry import Grid, Image
from convexadam.geometry.grid import sides_mm
from convexadam.geometry.resample import resample
from convexadam.geometry.tensors import quantiles
from convexadam.geometry.to_grid import block_average, fill_outside_mask, select_mask_mode
from convexadam.kernels._device import chunk_size, send
from convexadam.kernels.mutual_information import BINS, MARGIN, MutualInformation, mutual_information
from convexadam.kernels.recording import recordable, repeat
from convexadam.kernels.scoring_step import ScoringState, judge_step, propose_step
from convexadam.kernels.smooth import smooth
from convexadam.kernels.trimmed_fit import Model
from convexadam.kernels.warp import sample_linear, sample_nearest
from convexadam.linear.restriction import Restriction

_SAMPLES = 100_000, 25_000
"""Points at which the images are compared, at the end and before."""

_CELLS = 32
"""Number of parts of the field of view along each axis, by which the points are ordered."""

_ITERATIONS = 16
"""Largest number of steps on a level."""

_CLOSE = 3e-3, 2e-2
"""Longest displacement by a step, in voxels of the level, at which it has converged, at the end and before."""

_FACTORS, _FALL = (0.25, 4.0), 0.25
"""Range of the factor by which a step is longer than the information says, and its fall after a step that failed."""

_QUANTILES = (0.001, 0.999)
"""Range of the intensities that has bins of its own; values beyond share the outer bins."""

_RIDGE = 1e-6
"""Share of the diagonal added to the information: a direction without slope (one slice) is left alone."""

_NO_INFORMATION = 1e-4
"""Information added to all parameters, in nats per squared radius of the points: images have 10 to 1000."""

_REACH = 4
"""Voxels of the level by which values are extended beyond a mask: further than the samples move on a level."""

_INSET, _LARGEST_INSET = 1.0, 1 / 16
"""Distance of the samples from the edge of both images at the start of a level, in voxels of the level, and at most as
a share of the image: what leaves the image meets its repeated edge values, which pull the transform to the start."""

_TAPS = (0.25, 0.5, 0.25)
"""Filter of both images on the finest level, if they show one contrast: sampling folds detail that is finer than the
voxels into other detail, which moves with the grid and not with the object."""

_SLAB = 2**20, 2**25
"""Voxels that are filtered at a time on a CPU and on a GPU, which bounds the memory besides the images."""

_SAME_CONTRAST = 0.95
"""Correlation of the filtered images above which they show one contrast. With two, a filter moves edges apart, on all
sides of an object alike: a model with scale follows them, rotations and translations do not."""

_EDGE = 1e-3
"""Voxels outside the outer voxel centres that are taken for rounding."""

_DEGREES_OF_FREEDOM = ((BINS - 1 - 2 * MARGIN) * 151 / 315 - 1) ** 2
"""Of the joint histogram of unrelated images, each of whose bins has 151 / 315 of a sample's weight, the mean square of
the cubic B-spline: twice the samples times their mutual information (Miller, 1955)."""

_Pair: TypeAlias = tuple[Image, Image]
_Masks: TypeAlias = tuple[Image | None, Image | None]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class RefinedTransform:
    """A refined transform, and the mutual information of the finest level.

    Attributes
    ----------
    matrix
        4x4, mm RAS+, fixed to moving space.
    before, after
        Mutual information in nats with the first start, and with ``matrix``.
    samples
        Number of independent samples: of points in both images and masks, or of voxels there if there are fewer.
    parameters
        Number of parameters of the model.
    """

    matrix: np.ndarray
    before: float
    after: float
    samples: int
    parameters: int

    @property
    def is_significant(self) -> bool:
        """Whether the log-likelihood rises by more than the number of parameters (Akaike, IEEE TAC 1974).

        It has to rise from that of unrelated images at least, whose mutual information few samples overestimate.
        """
        unrelated = _DEGREES_OF_FREEDOM / (2 * self.samples)
        return self.samples * (self.after - max(self.before, unrelated)) > self.parameters


def refine_transform(
    images: _Pair,
    masks: _Masks,
    starts: list[np.ndarray],
    *,
    model: Model,
    coarsest_mm: float,
    restriction: Restriction | None = None,
) -> RefinedTransform:
    """Maximise mutual information over a linear model, from voxels of half ``coarsest_mm`` to those of the images.

    Each step is that of Newton, with the Fisher information of the samples in place of the Hessian (Fisher scoring),
    times the ratio of information to curvature along the step before (Barzilai and Borwein, IMA J. Numer. Anal. 1988);
    across contrasts the information exceeds the curvature. A step that lowers the value is rejected. It moves both
    images by half, in opposite directions, from the same points: measured on the grid of one of them, mutual
    information would prefer transforms that enlarge the other one (by 0.15 % for a brain).

    Parameters
    ----------
    images, masks
        Fixed and moving; see `convexadam.linear.LinearAlignment`.
    starts
        4x4 matrices, mm RAS+, fixed to moving space: the first is what the result is compared with. From the coarsest
        level on only the best is refined.
    model
        What is estimated.
    coarsest_mm
        Voxel size at which ``starts`` were found; the finest level has the smallest spacing of the coarser image.
    restriction
        Axes of the fixed image along which the result may differ from ``starts``; ``None`` for all.
    """
    finest_mm = max(min(sides_mm(image.grid)) for image in images)
    level = max(0, math.floor(math.log2(coarsest_mm / finest_mm) - 0.5))
    like = images[0].data.new_empty(0, dtype=torch.float64)
    generators = send(torch.from_numpy(make_generators(model, restriction)), like)
    first, *others = (send(torch.from_numpy(np.array(start)), like) for start in starts)
    prepared = _Level(images, masks, finest_mm, level)
    best, best_score = first, first.new_full((), -math.inf)
    for start in _drop_similar([first, *others], images[0].grid, prepared.side_mm):
        objective = _Objective(prepared, start)
        refined = _maximise(objective, start, generators)
        score = objective.overlap * objective(objective.place(refined)).value
        best = torch.where(score > best_score, refined, best)
        best_score = torch.maximum(score, best_score)
    del prepared, objective
    for number in range(level - 1, 0, -1):
        best = _maximise(_Objective(_Level(images, masks, finest_mm, number), best), best, generators)
    objective = _Objective(_Level(images, masks, finest_mm, 0, is_last=True, smoothing=True), best)
    filtered = model == "rigid" or objective.correlates(best)
    if filtered:
        best = _maximise(objective, best, generators)
    del objective
    objective = _Objective(_Level(images, masks, finest_mm, 0, is_last=True), best)
    if not filtered:
        best = _maximise(objective, best, generators)
    # of the images as they are, whose voxels are independent samples
    values = [objective(objective.place(matrix)).value for matrix in (first, best)]
    before, after, overlap, *entries = torch.cat([torch.stack([*values, objective.overlap]), best.flatten()]).tolist()
    return RefinedTransform(
        matrix=np.array(entries).reshape(4, 4),
        before=before,
        after=after,
        samples=objective.count_samples(overlap),
        parameters=len(generators),
    )


def _drop_similar(matrices: list[Tensor], grid: Grid, distance_mm: float) -> list[Tensor]:
    """Return the transforms without those that move all corners of a grid like an earlier one, within a distance."""
    ends = [(0.0, n - 1.0) for n in grid.shape]
    index = torch.tensor(list(itertools.product(*ends)), dtype=torch.float64, device="cpu")
    corners = send(grid.index_to_world(index), matrices[0])
    kept: list[Tensor] = []
    for matrix in matrices:
        moved = [corners @ (matrix - other)[:3, :3].T + (matrix - other)[:3, 3] for other in kept]
        if all(float(difference.norm(dim=1).max()) > distance_mm for difference in moved):
            kept.append(matrix)
    return kept


def make_generators(model: Model, restriction: Restriction | None = None) -> np.ndarray:
    """Return the generators of a model, ``[k, 4, 4]``: translations, and rotations, with scale, or all linear maps.

    With a restriction they are those along its axes, and what would move along a forbidden one is omitted: a
    translation, a shear, and a rotation in a plane that it lies in.
    """
    free = range(3) if restriction is None else restriction.free_axes
    unit = np.eye(16).reshape(4, 4, 4, 4)  # unit[a, b] has a single 1, in row a and column b
    found = [unit[a, 3] for a in free]
    if model == "affine":
        found += [unit[a, b] for a in free for b in range(3)]
    else:
        found += [unit[a, b] - unit[b, a] for a, b in ((1, 0), (2, 0), (2, 1)) if a in free and b in free]
    if model == "similarity":
        found.append(np.sum([unit[a, a] for a in free], axis=0))
    generators = np.stack(found)
    if restriction is None or restriction.is_free:
        return generators
    frame = np.eye(4)
    frame[:3, :3] = restriction.directions
    return np.asarray(frame @ generators @ np.linalg.inv(frame))


class _Level:
    """Both images at one voxel size, in bins, and the points of the fixed image at which they are compared."""

    def __init__(
        self,
        images: _Pair,
        masks: _Masks,
        finest_mm: float,
        number: int,
        *,
        is_last: bool = False,
        smoothing: bool = False,
    ) -> None:
        count, close = (by_level[0 if is_last else 1] for by_level in (_SAMPLES, _CLOSE))
        self.side_mm, self.close = finest_mm * 2**number, close
        coarse = [
            fill_outside_mask(block_average(image, self.side_mm, mask), mask, _REACH * self.side_mm)
            for image, mask in zip(images, masks, strict=True)
        ]
        like = images[0].data.new_empty(0, dtype=torch.float64)
        self.points = _draw_points(images[0].grid, round(count), like=like)
        self.in_fixed = _have_data(images[0].grid, masks[0], self.points, _INSET * self.side_mm)
        self.moving_grid, self.moving_mask = images[1].grid, masks[1]
        self.voxels = coarse[0].data[0].numel()
        self.to_index = [send(torch.from_numpy(np.linalg.inv(image.grid.affine)), like) for image in coarse]
        self.channels = list(
            zip(*(_smooth(_to_bins(image)) if smoothing else _to_bins(image) for image in coarse), strict=True)
        )


class _Objective:
    """Mutual information of a level as a function of the transform, at the points that a first one maps to data."""

    def __init__(self, level: _Level, matrix: Float[Tensor, "4 4"]) -> None:
        self.level, points = level, level.points
        moved = points @ matrix[:3, :3].T + matrix[:3, 3]
        inset_mm = _INSET * level.side_mm
        in_both = level.in_fixed & _have_data(level.moving_grid, level.moving_mask, moved, inset_mm)
        self.overlap, self._used = in_both.double().mean(), None
        if points.is_cuda:  # to know how many there are would be to wait
            self._used, share = in_both, in_both.to(points.dtype)[:, None] / in_both.sum().clamp_min(1)
            centre = (share * points).sum(0)
            squared_radius = (share * (points - centre).square()).sum()
        else:
            points = points[in_both] if self.overlap > 0 else points[:1]  # without overlap any step is as good
            centre = points.mean(0)
            squared_radius = (points - centre).square().sum(1).mean()
        self.radius = squared_radius.sqrt().clamp_min(level.side_mm)
        self.points = ((points - centre) / self.radius).float()
        self._to_mm = torch.eye(4, dtype=points.dtype, device=points.device)
        self._to_mm[:3, :3] *= self.radius
        self._to_mm[:3, 3] = centre

    def count_samples(self, overlap: float) -> int:
        """Return the number of independent samples; see `RefinedTransform`."""
        return max(1, min(round(overlap * len(self.level.points)), round(overlap * self.level.voxels)))

    def place(self, matrix: Float[Tensor, "4 4"]) -> Float[Tensor, "2 4 4"]:
        """Return the maps from points to both images, in mm, for a transform."""
        return torch.stack([self._to_mm, matrix @ self._to_mm])

    def correlates(self, matrix: Float[Tensor, "4 4"]) -> bool:
        """Whether the correlation of all channels, with a transform, is that of one contrast."""
        placement = self.place(matrix)
        to_index = [index @ to_mm for index, to_mm in zip(self.level.to_index, placement, strict=True)]
        points = self.points if self._used is None else self.points[self._used]
        least = 1.0
        for pair in self.level.channels:
            values = [
                sample_linear(volume[None], (points @ m[:3, :3].T.float() + m[:3, 3].float()).T[..., None, None])
                for volume, m in zip(pair, to_index, strict=True)
            ]
            fixed, moving = (v.flatten().double() - v.double().mean() for v in values)
            least = min(least, float((fixed @ moving) / (fixed.norm() * moving.norm()).clamp_min(1e-12)))
        return least > _SAME_CONTRAST

    def __call__(self, placement: Float[Tensor, "2 4 4"]) -> MutualInformation:
        """Return the mutual information, the mean of all channels, and its derivatives."""
        fixed_index, moving_index = self.level.to_index
        to_fixed, to_moving = fixed_index @ placement[0], moving_index @ placement[1]
        parts = [
            mutual_information(self.points, fixed, moving, to_fixed[:3], to_moving[:3], self._used)
            for fixed, moving in self.level.channels
        ]
        if len(parts) == 1:
            return parts[0]
        return MutualInformation(*(torch.stack(values).mean(0) for values in zip(*parts, strict=True)))


def _maximise(
    objective: _Objective, matrix: Float[Tensor, "4 4"], generators: Float[Tensor, "k 4 4"]
) -> Float[Tensor, "4 4"]:
    placement = objective.place(matrix)
    state = ScoringState(placement, objective(placement), matrix.new_ones(()))
    step = matrix.new_empty(0)

    def move() -> None:
        nonlocal step
        step, proposed = propose_step(state, generators, ridge=_RIDGE, least=_NO_INFORMATION)
        judge_step(state, proposed, objective(proposed), step, generators, factors=_FACTORS, fall=_FALL)

    record = recordable(objective.points)
    for _ in repeat(move, range(_ITERATIONS), record_on=matrix.device if record else None):
        # on a GPU, to know that it has converged would be to wait
        level = objective.level
        if not matrix.is_cuda and step.abs().max() * objective.radius < level.close * level.side_mm:
            break
    result: Tensor = state.placement[1] @ torch.linalg.inv_ex(state.placement[0])[0]
    return result


def _draw_points(grid: Grid, count: int, like: Tensor) -> Points:
    """Return points in mm, ``(n, 3)`` float64, spread evenly over the field of view.

    They follow an additive recurrence of low discrepancy (Roberts, 2018, after Korobov), off the voxel centres, so that
    interpolation smooths both images alike at any transform. Points that are close to each other follow each other:
    their voxels are in the cache together.
    """
    root = 1.2207440846057596  # of x^4 = x + 1
    steps = torch.tensor([root**-1, root**-2, root**-3], dtype=torch.float64, device="cpu")
    share = (0.5 + torch.arange(1, count + 1, dtype=torch.float64, device="cpu")[:, None] * steps) % 1.0
    cells = (share * _CELLS).floor() @ torch.tensor([_CELLS**2, _CELLS, 1.0], dtype=torch.float64, device="cpu")
    share = share[np.argsort(cells.numpy().astype(np.uint16), kind="stable")]  # which counts integers of 16 bits
    last = torch.tensor(grid.shape, dtype=torch.float64, device="cpu") - 1
    return grid.index_to_world(send(share * last, like))


def _have_data(grid: Grid, mask: Image | None, points: Points, inset_mm: float) -> Shaped[Tensor, " n"]:
    """Return which points lie within the outer voxel centres of a grid, at a distance from them, and in the mask.

    Along an axis with one voxel, those within that voxel.
    """
    index = grid.world_to_index(points)
    insets = [
        min(inset_mm / side, _LARGEST_INSET * (n - 1)) for n, side in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    ends = [
        (-0.5, 0.5) if n == 1 else (inset - _EDGE, n - 1 - inset + _EDGE)
        for n, inset in zip(grid.shape, insets, strict=True)
    ]
    first, last = send(torch.tensor(ends, dtype=index.dtype, device="cpu").T, index)
    inside: Tensor = ((index >= first) & (index <= last)).all(1)
    if mask is None:
        return inside
    weight = sample_nearest(
        resample(mask, grid, mode=select_mask_mode(mask), fill_value=0.0).data, index.T[..., None, None]
    )
    return inside & (weight[0, :, 0, 0] > 0.5)


def _to_bins(image: Image) -> Channels:
    """Return the intensities in bins; values beyond the quantiles are clipped."""
    result = torch.empty_like(image.data)
    for values, bins in zip(image.data, result, strict=True):
        some = values.flatten()[:: max(1, values.numel() // _SAMPLES[0])]
        low, high = quantiles(some, _QUANTILES)
        span = torch.where(high > low, high - low, torch.inf)
        torch.sub(values, low, out=bins)
        bins.div_(span).clamp_(0, 1).mul_(BINS - 1 - 2 * MARGIN).add_(MARGIN)
    return result


def _smooth(bins: Channels) -> Channels:
    """Replace each voxel by the weighted mean with its neighbours, without those beyond the edge; in place."""
    n = bins.shape[1]
    planes = max(1, chunk_size(bins, cpu=_SLAB[0], gpu=_SLAB[1]) // bins[0, 0].numel())
    before = bins[:, :0]
    for first in range(0, n, planes):
        last = min(first + planes, n)
        slab = torch.cat([before, bins[:, first : last + 1]], dim=1)
        skipped, before = before.shape[1], bins[:, last - 1 : last].clone()
        bins[:, first:last] = smooth(slab, _TAPS)[:, skipped : skipped + last - first]
    for axis in range(1, 4):
        if bins.shape[axis] == 1:
            bins.div_(_TAPS[1])
        else:
            for end in (0, -1):
                bins.select(axis, end).div_(_TAPS[0] + _TAPS[1])
    return bins.clamp_(MARGIN, BINS - 1 - MARGIN)
