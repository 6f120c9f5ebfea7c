"""Refinement of a linear transform: the maximum of mutual information, coarse to fine, at sample points."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.geometry import Grid, Image
from convexadam.geometry.grid import sides_mm
from convexadam.geometry.tensors import quantiles
from convexadam.geometry.to_grid import block_average, fill_outside_mask
from convexadam.kernels._device import chunk_size, release_memory, send
from convexadam.kernels.mutual_information import BINS, MARGIN, MutualInformation, mutual_information
from convexadam.kernels.recording import recordable, repeat
from convexadam.kernels.scoring_step import ScoringState, judge_step, propose_step
from convexadam.kernels.smooth import smooth
from convexadam.kernels.trimmed_fit import Model
from convexadam.kernels.warp import sample_linear
from convexadam.linear.restriction import Restriction
from convexadam.linear.samples import draw_points, have_data

_SAMPLES = 100_000, 25_000
"""Points at which the images are compared, at the end and before."""

_ITERATIONS, _TRIAL = 16, 5
"""Largest number of steps on a level, and from each of several starts, after which only the best goes on."""

_BASIN = 4.0
"""Voxels of the level at the corners of the image within which two starts lead to the same maximum."""

_CLOSE = 3e-3, 2e-2
"""Longest displacement by a step, in voxels of the level, at which it has converged, at the end and before."""

_FACTORS, _FALL = (0.25, 4.0), 0.25
"""Range of the factor by which a step is longer than the information says, and its fall after a step that failed."""

_FIRST, _FIRST_FILTERED = 1.0, 0.5
"""That factor at the first step; the samples of filtered images depend on each other, and tell less than they say."""

_QUANTILES = (0.001, 0.999)
"""Range of the intensities that has bins of its own; values beyond share the outer bins."""

_RIDGE = 1e-6
"""Share of the diagonal added to the information: a direction without slope (one slice) is left alone."""

_NO_INFORMATION = 1e-4
"""Information added to all parameters, in nats per squared radius of the points: images have 10 to 1000."""

_REACH = 4
"""Voxels of the level by which values are extended beyond a mask: further than the samples move on a level."""

_INSET = 1.0
"""Distance of the samples from the edge of both images at the start of a level, in voxels of the level: what leaves the
image meets its repeated edge values, which pull the transform to the start."""

_TAPS = (0.25, 0.5, 0.25)
"""Filter of both images on the finest level, if they show one contrast: sampling folds detail that is finer than the
voxels into other detail, which moves with the grid and not with the object."""

_SLAB = 2**18, 2**25
"""Voxels that are filtered at a time on a CPU and on a GPU, which bounds the memory besides the images."""

_SAME_CONTRAST = 0.95
"""Correlation of the filtered images above which they show one contrast. With two, a filter moves edges apart, on all
sides of an object alike: a model with scale follows them, rotations and translations do not."""

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
    best = _choose_start(prepared, [first, *others], images[0].grid, generators)
    best, _ = _maximise(_Objective(prepared, best), best, generators, _ITERATIONS)
    del prepared
    for number in range(level - 1, 0, -1):
        best, _ = _maximise(_Objective(_Level(images, masks, finest_mm, number), best), best, generators, _ITERATIONS)
    objective = _Objective(_Level(images, masks, finest_mm, 0, is_last=True), best)
    filtered = model == "rigid" or objective.correlates(best)
    if filtered:
        best, _ = _maximise(objective, best, generators, _ITERATIONS)
    objective.level.read(images, masks)  # as they are: their voxels are independent samples
    before = objective(objective.place(first)).value
    if filtered:
        after = objective(objective.place(best)).value
    else:
        best, after = _maximise(objective, best, generators, _ITERATIONS)
    *entries, low, high, overlap = torch.cat([best.flatten(), torch.stack([before, after, objective.overlap])]).tolist()
    return RefinedTransform(
        matrix=np.array(entries).reshape(4, 4),
        before=low,
        after=high,
        samples=objective.count_samples(overlap),
        parameters=len(generators),
    )


def _choose_start(
    level: _Level, starts: list[Tensor], grid: Grid, generators: Float[Tensor, "k 4 4"]
) -> Float[Tensor, "4 4"]:
    """Return the start from which a few steps lead to the highest value, after them if there are several."""
    first, *others = starts
    apart = [start for n, start in enumerate(others) if _distance_mm(start, starts[: n + 1], grid) > level.side_mm]
    if not apart:
        return first
    best, best_score, tried = first, first.new_full((), -math.inf), list[Tensor]()
    for start in [*apart, first]:
        if not start.is_cuda and _distance_mm(start, tried, grid) < _BASIN * level.side_mm:
            continue
        objective = _Objective(level, start)
        refined, value = _maximise(objective, start, generators, _TRIAL)
        score = objective.overlap * value
        best = torch.where(score > best_score, refined, best)
        best_score = torch.maximum(score, best_score)
        tried.append(refined)
    return best


def _distance_mm(matrix: Float[Tensor, "4 4"], others: list[Tensor], grid: Grid) -> float:
    """Return the largest distance at the corners of a grid from the closest of other transforms."""
    ends = [(0.0, n - 1.0) for n in grid.shape]
    index = torch.tensor(list(itertools.product(*ends)), dtype=torch.float64, device="cpu")
    corners = send(grid.index_to_world(index), matrix)
    differences = [matrix - other for other in others]
    moved = [corners @ difference[:3, :3].T + difference[:3, 3] for difference in differences]
    return min((float(lengths.norm(dim=1).max()) for lengths in moved), default=math.inf)


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
    ) -> None:
        count, self.close = (_SAMPLES[0], _CLOSE[0]) if is_last else (_SAMPLES[1], _CLOSE[1])
        self.side_mm = finest_mm * 2**number
        grid, like = images[0].grid, images[0].data.new_empty(0, dtype=torch.float64)
        self.points = draw_points(grid, count, like=like)
        identity = torch.eye(4, dtype=like.dtype, device=like.device)
        self.in_fixed = have_data(grid, masks[0], self.points, identity, _INSET * self.side_mm)
        self.moving_grid, self.moving_mask = images[1].grid, masks[1]
        self.read(images, masks, smoothing=is_last)

    def read(self, images: _Pair, masks: _Masks, *, smoothing: bool = False) -> None:
        """Read both images, in place of those that were read before."""
        self.factor = _FIRST_FILTERED if smoothing else _FIRST
        self.channels: list[tuple[Volume, Volume]] = []  # all four need not be in memory at once
        if smoothing:  # the largest level, for the first time
            release_memory()
        coarse = [
            fill_outside_mask(block_average(image, self.side_mm, mask), mask, _REACH * self.side_mm)
            for image, mask in zip(images, masks, strict=True)
        ]
        self.voxels = coarse[0].data[0].numel()
        self.to_index = [send(torch.from_numpy(np.linalg.inv(image.grid.affine)), self.points) for image in coarse]
        bins = (_smooth(_to_bins(image)) if smoothing else _to_bins(image) for image in coarse)
        self.channels = list(zip(*bins, strict=True))


class _Objective:
    """Mutual information of a level as a function of the transform, at the points that a first one maps to data."""

    def __init__(self, level: _Level, matrix: Float[Tensor, "4 4"]) -> None:
        self.level, points = level, level.points
        in_both = level.in_fixed & have_data(
            level.moving_grid, level.moving_mask, points, matrix, _INSET * level.side_mm
        )
        self.overlap, self._used = in_both.double().mean(), None
        if points.is_cuda:  # to know how many there are would be to wait
            self._used, share = in_both, in_both.to(points.dtype) / in_both.sum().clamp_min(1)
            centre = (share * points).sum(1, keepdim=True)
            squared_radius = (share * (points - centre).square()).sum()
        else:
            # without overlap any step is as good
            points = points[:, in_both.nonzero()[:, 0]] if self.overlap > 0 else points[:, :1]
            centre = points.mean(1, keepdim=True)
            squared_radius = 3 * (points - centre).square().mean()
        self.radius = squared_radius.sqrt().clamp_min(level.side_mm)
        self.points = ((points - centre) / self.radius).float().T.contiguous()
        self._to_mm = torch.eye(4, dtype=points.dtype, device=points.device)
        self._to_mm[:3, :3] *= self.radius
        self._to_mm[:3, 3:] = centre

    def count_samples(self, overlap: float) -> int:
        """Return the number of independent samples; see `RefinedTransform`."""
        return max(1, min(round(overlap * self.level.points.shape[1]), round(overlap * self.level.voxels)))

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
    objective: _Objective,
    matrix: Float[Tensor, "4 4"],
    generators: Float[Tensor, "k 4 4"],
    iterations: int,
) -> tuple[Float[Tensor, "4 4"], Float[Tensor, ""]]:
    """Return the matrix of the maximum, and the value there."""
    placement = objective.place(matrix)
    state = ScoringState(placement, objective(placement), matrix.new_full((), objective.level.factor))
    step = matrix.new_empty(0)

    def move() -> None:
        nonlocal step
        step, proposed = propose_step(state, generators, ridge=_RIDGE, least=_NO_INFORMATION)
        judge_step(state, proposed, objective(proposed), step, generators, factors=_FACTORS, fall=_FALL)

    record = recordable(objective.points)
    for _ in repeat(move, range(iterations), record_on=matrix.device if record else None):
        # on a GPU, to know that it has converged would be to wait
        level = objective.level
        if not matrix.is_cuda and step.abs().max() * objective.radius < level.close * level.side_mm:
            break
    return state.placement[1] @ torch.linalg.inv_ex(state.placement[0])[0], state.current.value


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
