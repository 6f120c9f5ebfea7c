"""All the numbers about one transform."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypedDict

import torch

from convexadam._typing import Points, Tensor
from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry import DisplacementField, Grid, Image, Transform, resample
from convexadam.metrics.folding import folded_share, inner_determinant, inner_mask, log_spread, shifted_log_spread
from convexadam.metrics.landmarks import tre
from convexadam.metrics.overlap import common_labels, dice
from convexadam.metrics.surface import hd95


class Evaluation(TypedDict, total=False):
    """What `evaluate_transform` found; keys are there only where the inputs allow them. Plain numbers, ready for JSON.

    ``*_before``: with no transform at all, so where the images lie by their headers. ``*30``: mean of the worst 30 per
    cent of the labels or landmarks (at least one).
    """

    dice: float
    dice_before: float
    dice30: float
    dice30_before: float
    dice_per_label: dict[int, float]
    dice_before_per_label: dict[int, float]
    hd95_mm: float
    hd95_before_mm: float
    hd95_per_label_mm: dict[int, float]
    n_labels: int
    tre_mm: float
    tre_before_mm: float
    tre30_mm: float
    tre30_before_mm: float
    n_landmarks: int
    sdlogj: float
    sdlogj_plain: float
    sdlogj_mask: float
    folded_percent: float
    folded_percent_mask: float
    jacobian_min: float
    jacobian_max: float
    displacement_max_mm: float


def worst_mean(values: Iterable[float], share: float = 0.3, *, highest: bool) -> float:
    """Mean of the worst values: the largest ``ceil(share * n)`` of them, or the smallest; at least one.

    Parameters
    ----------
    values
        Any number of them; NaN is left out.
    share
        Which part counts as the worst, above 0 and up to 1.
    highest
        ``True`` where large is bad (distances), ``False`` where small is (overlap).

    Returns
    -------
    NaN where there is no value.

    Raises
    ------
    ConfigError
        If ``share`` is not above 0 and at most 1.

    Examples
    --------
    >>> worst_mean([0.9, 0.5, 0.7, 0.8], highest=False)
    0.6
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share is above 0 and at most 1, but {share!r} came")
    ordered = sorted((float(v) for v in values if not math.isnan(v)), reverse=highest)
    return mean_of_known(ordered[: max(1, math.ceil(share * len(ordered)))])


def evaluate_transform(
    transform: Transform,
    *,
    fixed_labels: Image | None = None,
    moving_labels: Image | None = None,
    labels: Iterable[int] | None = None,
    fixed_landmarks_mm: Points | None = None,
    moving_landmarks_mm: Points | None = None,
    mask: Image | None = None,
    surface: bool = True,
) -> Evaluation:
    """Measure a transform: overlap, surface distance, landmark error and regularity, after and before.

    Parameters
    ----------
    transform
        From fixed to moving space: a field on the fixed grid, or any other on that of the fixed labels or the mask, or
        else on its own (`Transform.fixed_grid`).
    fixed_labels, moving_labels
        Label maps, both or neither: the first on the fixed grid, the second on any grid in moving space. It is
        read once, at ``T(x)``, by nearest neighbour; outside its field of view, which ends half a voxel beyond its
        outer centres, there is background.
    labels
        Score only these; ``None`` takes all. Either way a label is scored where the fixed and the original moving
        image both have it.
    fixed_landmarks_mm, moving_landmarks_mm
        ``(n, 3)`` in mm RAS+, both or neither, row by row the same place.
    mask
        Image on the fixed grid; where it is above 0, regularity is measured once more (``*_mask``).
    surface
        Whether to measure surface distances: the slow part, on the CPU.

    Returns
    -------
    Plain numbers, see `Evaluation`: lengths in mm, folding in per cent; a label that the warp has lost has Dice 0
    and no surface distance.

    Raises
    ------
    InputError
        If labels are no whole numbers or have nothing in common, or landmarks are unusable.
    GeometryError
        If the fixed labels or the mask are not on the fixed grid.
    ConfigError
        If one of two things that go together is missing, or nothing says what the fixed grid is.

    Examples
    --------
    >>> shift = DisplacementField.from_voxels(torch.ones(3, 8, 8, 8), Grid((8, 8, 8)))
    >>> found = evaluate_transform(shift)
    >>> found["folded_percent"], round(found["displacement_max_mm"], 3)
    (0.0, 1.732)
    """
    field = _as_field(transform, fixed_labels, mask, transform.fixed_grid)
    result = _field_scores(field, mask)
    if fixed_labels is not None and moving_labels is not None:
        result.update(_label_scores(field, fixed_labels, moving_labels, labels, surface))
    elif fixed_labels is not None or moving_labels is not None:
        raise ConfigError("labels of one image alone say nothing: pass both fixed_labels and moving_labels, or neither")
    if fixed_landmarks_mm is not None and moving_landmarks_mm is not None:
        result.update(_landmark_scores(transform, fixed_landmarks_mm, moving_landmarks_mm))
    elif fixed_landmarks_mm is not None or moving_landmarks_mm is not None:
        raise ConfigError("landmarks come in pairs: pass both fixed_landmarks_mm and moving_landmarks_mm, or neither")
    return result


def _as_field(transform: Transform, *places: Image | Grid | None) -> DisplacementField:
    """Return displacements on the first grid that is known; a field is taken as it is."""
    if isinstance(transform, DisplacementField):
        return transform
    known = [place for place in places if place is not None]
    if not known:
        raise ConfigError(
            "a transform is measured on a grid, but this one has none; pass fixed_labels or a mask, or a field: "
            "transform.resample_onto(fixed)"
        )
    return transform.resample_onto(known[0])


def _field_scores(transform: DisplacementField, mask: Image | None) -> Evaluation:
    determinants = inner_determinant(transform.to_voxels())
    result = Evaluation(
        sdlogj=shifted_log_spread(determinants),
        sdlogj_plain=log_spread(determinants),
        folded_percent=100 * folded_share(determinants),
        jacobian_min=float(determinants.min()),
        jacobian_max=float(determinants.max()),
        displacement_max_mm=float(transform.disp_mm.float().square().sum(0).max().sqrt()),
    )
    if mask is not None:
        _check_on_grid(mask, transform.grid, "mask")
        counted = determinants[inner_mask(mask.data[0]).to(determinants.device)]
        result["sdlogj_mask"] = shifted_log_spread(counted)
        result["folded_percent_mask"] = 100 * folded_share(counted)
    return result


def _label_scores(
    transform: DisplacementField, fixed: Image, moving: Image, labels: Iterable[int] | None, surface: bool
) -> Evaluation:
    _check_on_grid(fixed, transform.grid, "fixed label map")
    fixed, moving = whole_numbers(fixed, "fixed"), whole_numbers(moving, "moving")
    scored = common_labels(fixed.data, moving.data)
    if labels is not None:
        scored = sorted({*scored} & {int(label) for label in labels})
    if not scored:
        raise InputError("the fixed and the moving label map have none of the wanted labels in common")
    target, after = fixed.data[0], transform.warp(moving, mode="nearest").data[0]
    before = resample(moving, transform.grid, mode="nearest").data[0]
    overlap, overlap_before = dice(target, after, labels=scored), dice(target, before, labels=scored)
    result = Evaluation(
        n_labels=len(scored),
        dice=mean_of_known(overlap.values()),
        dice_before=mean_of_known(overlap_before.values()),
        dice30=worst_mean(overlap.values(), highest=False),
        dice30_before=worst_mean(overlap_before.values(), highest=False),
        dice_per_label=overlap,
        dice_before_per_label=overlap_before,
    )
    if surface:
        spacing_mm = transform.grid.spacing_mm
        distances = hd95(target, after, spacing_mm=spacing_mm, labels=scored)
        result["hd95_mm"] = mean_of_known(distances.values())
        result["hd95_before_mm"] = mean_of_known(hd95(target, before, spacing_mm=spacing_mm, labels=scored).values())
        result["hd95_per_label_mm"] = distances
    return result


def _landmark_scores(transform: Transform, fixed_mm: Tensor, moving_mm: Tensor) -> Evaluation:
    after, before = tre(fixed_mm, moving_mm, transform), tre(fixed_mm, moving_mm)
    return Evaluation(
        n_landmarks=len(after),
        tre_mm=float(after.mean()),
        tre_before_mm=float(before.mean()),
        tre30_mm=worst_mean(after.tolist(), highest=True),
        tre30_before_mm=worst_mean(before.tolist(), highest=True),
    )


def whole_numbers(image: Image, name: str) -> Image:
    """Return labels by type: files with a scale factor hold them as floating-point numbers.

    Raises
    ------
    InputError
        If there are several channels, or numbers that are not whole.
    """
    if image.data.shape[0] != 1:
        raise InputError(f"a label map has one channel, but the {name} one has {image.data.shape[0]}")
    if image.is_label:
        return image
    rounded = image.data.round()
    if not bool((rounded == image.data).all()):
        raise InputError(f"the {name} label map holds values that are not whole numbers; was it interpolated linearly?")
    return Image(rounded.to(torch.int32), image.grid)


def _check_on_grid(image: Image, grid: Grid, name: str) -> None:
    if not image.grid.same_as(grid):
        raise GeometryError(
            f"the {name} is on {image.grid!r}, but the transform on {grid!r}; "
            "pass transform.resample_onto(image.grid), or resample the image"
        )


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is left."""
    kept = [v for v in values if not math.isnan(v)]
    return math.fsum(kept) / len(kept) if kept else math.nan
