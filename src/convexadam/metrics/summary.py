"""Evaluation of a transform by all metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypedDict

import torch

from convexadam._checks import check_flag, is_finite, show
from convexadam._typing import Points, Tensor
from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry import DisplacementField, Grid, Image, Transform, resample
from convexadam.geometry.conversion import GridLike, ImageLike, to_grid, to_image
from convexadam.geometry.grid import HEADER_ROUNDING
from convexadam.metrics.folding import folded_share, inner_determinant, inner_mask, log_spread, shifted_log_spread
from convexadam.metrics.landmarks import tre
from convexadam.metrics.overlap import common_labels, dice, select_labels
from convexadam.metrics.surface import hd95


class Evaluation(TypedDict, total=False):
    """Result of `evaluate_transform`: numbers that JSON can represent; a key is present if its inputs were given.

    ``*_before``: without the transform, at the positions of the image headers. ``*30``: mean of the worst 30 % of the
    labels or landmarks (at least one).

    Examples
    --------
    >>> import torch
    >>> from convexadam import Affine, Grid, Image
    >>> from convexadam.metrics import evaluate_transform
    >>> labels = Image(torch.ones(1, 8, 8, 8, dtype=torch.uint8), Grid((8, 8, 8)))
    >>> evaluate_transform(Affine(), fixed_labels=labels, moving_labels=labels, surface=False)["dice"]
    1.0
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


def tail_mean(values: Iterable[float], share: float = 0.3, *, highest: bool) -> float:
    """Compute the mean of the largest or smallest ``max(1, ceil(share * n))`` values.

    Parameters
    ----------
    values
        Any number of values; NaN is ignored.
    share
        Fraction of the values to average, above 0 and at most 1.
    highest
        ``True`` for the largest values (of distances), ``False`` for the smallest (of overlaps).

    Returns
    -------
    NaN if there is no value.

    Raises
    ------
    ConfigError
        If ``share`` is not above 0 and at most 1.

    Examples
    --------
    >>> tail_mean([0.9, 0.5, 0.7, 0.8], highest=False)
    0.6
    """
    check_flag(highest, "highest")
    try:
        values = list(values)
        if any(isinstance(value, bool) for value in values):
            raise TypeError("values must be numbers, got a truth value")
        values = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"values must be a list of numbers, got {show(values)}; pass one for each label") from error
    if not is_finite(share) or not 0 < share <= 1:
        raise ConfigError(f"share must be above 0 and at most 1, got {show(share)}; 0.3 averages the worst 30 %")
    ordered = sorted((float(v) for v in values if not math.isnan(v)), reverse=highest)
    return mean_ignoring_nan(ordered[: max(1, math.ceil(share * len(ordered)))])


def evaluate_transform(
    transform: Transform,
    *,
    fixed_labels: ImageLike | None = None,
    moving_labels: ImageLike | None = None,
    labels: Iterable[int] | None = None,
    fixed_landmarks_mm: Points | None = None,
    moving_landmarks_mm: Points | None = None,
    mask: ImageLike | None = None,
    surface: bool = True,
    regularity: bool = True,
    reference: GridLike | None = None,
) -> Evaluation:
    """Evaluate a transform: overlap, surface distance and landmark error after and before, and regularity.

    Parameters
    ----------
    transform
        From fixed to moving space. A displacement field is evaluated on its grid; any other transform on the grid of
        ``fixed_labels`` or ``mask``, on ``reference``, or on its own one (`Transform.fixed_grid`).
    fixed_labels, moving_labels
        Label maps, both or neither, in any form that `convexadam.as_image` takes: the first on the fixed grid, the
        second on any grid in moving space. The second is
        interpolated once, at ``T(x)``, by nearest neighbour; it is background outside its field of view, which ends
        half a voxel beyond the outer voxel centres.
    labels
        Labels to evaluate; ``None`` for all. Only labels that both the fixed and the original moving image have are
        evaluated.
    fixed_landmarks_mm, moving_landmarks_mm
        ``(n, 3)`` in mm RAS+, both or neither; row ``n`` of both is the same anatomical point.
    mask
        Image on the fixed grid; regularity is also evaluated where it is above 0 (``*_mask``).
    surface
        Whether to compute surface distances, which takes most of the time.
    regularity
        Whether to compute folding, volume change and displacement, which needs no truth.
    reference
        Fixed grid of a transform without one, or an image on it.

    Returns
    -------
    See `Evaluation`: lengths in mm, folding in per cent. A label that the warped image lacks has a Dice overlap of 0
    and a surface distance of NaN.

    Raises
    ------
    InputError
        If label maps are not integer-valued or have no label in common, or landmarks are unusable.
    GeometryError
        If the fixed labels or the mask are not on the fixed grid.
    ConfigError
        If only one of two related arguments is given, or the fixed grid is unknown.

    Examples
    --------
    >>> shift = DisplacementField.from_voxels(torch.ones(3, 8, 8, 8), Grid((8, 8, 8)))
    >>> scores = evaluate_transform(shift)
    >>> scores["folded_percent"], round(scores["displacement_max_mm"], 3)
    (0.0, 1.732)
    """
    if not isinstance(transform, Transform):
        raise InputError(f"transform must be a Transform, got {show(transform)}; wrap matrices in Affine(...)")
    fixed_labels, moving_labels, mask = (
        None if image is None else to_image(image, name)
        for name, image in (("fixed_labels", fixed_labels), ("moving_labels", moving_labels), ("mask", mask))
    )
    grid = transform.fixed_grid if reference is None else to_grid(reference, "reference")
    field = _to_field(transform, fixed_labels, mask, grid)
    result = _score_field(field, mask) if regularity else Evaluation()
    if fixed_labels is not None and moving_labels is not None:
        result.update(_score_labels(field, fixed_labels, moving_labels, labels, surface))
    elif fixed_labels is not None or moving_labels is not None:
        given, missing = ("fixed", "moving") if moving_labels is None else ("moving", "fixed")
        raise ConfigError(
            f"{missing}_labels must be given together with {given}_labels, got None; pass both fixed_labels and "
            "moving_labels, or neither"
        )
    if fixed_landmarks_mm is not None and moving_landmarks_mm is not None:
        result.update(_score_landmarks(transform, fixed_landmarks_mm, moving_landmarks_mm))
    elif fixed_landmarks_mm is not None or moving_landmarks_mm is not None:
        given, missing = ("fixed", "moving") if moving_landmarks_mm is None else ("moving", "fixed")
        raise ConfigError(
            f"{missing}_landmarks_mm must be given together with {given}_landmarks_mm, got None; pass both "
            "fixed_landmarks_mm and moving_landmarks_mm, or neither"
        )
    return result


def _to_field(transform: Transform, *references: Image | Grid | None) -> DisplacementField:
    """Return a displacement field unchanged, and any other transform as a field on the first grid that is given."""
    if isinstance(transform, DisplacementField):
        return transform
    given = [reference for reference in references if reference is not None]
    if not given:
        raise ConfigError(
            f"transform must have a fixed grid, got {type(transform).__name__} without one; pass reference, "
            "fixed_labels or mask"
        )
    return transform.to_displacement_field(given[0])


def _score_field(transform: DisplacementField, mask: Image | None) -> Evaluation:
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
        inside = determinants[inner_mask(mask.data[0]).to(determinants.device)]
        result["sdlogj_mask"] = shifted_log_spread(inside)
        result["folded_percent_mask"] = 100 * folded_share(inside)
    return result


def _score_labels(
    transform: DisplacementField, fixed: Image, moving: Image, labels: Iterable[int] | None, surface: bool
) -> Evaluation:
    _check_on_grid(fixed, transform.grid, "fixed_labels")
    fixed, moving = to_integer_labels(fixed, "fixed_labels"), to_integer_labels(moving, "moving_labels")
    scored = common_labels(fixed.data, moving.data)
    if labels is not None:
        scored = sorted({*scored} & {*select_labels((), labels)})
    if not scored:
        raise InputError(
            "fixed_labels and moving_labels must have a label in common, got none among the labels to evaluate; check "
            "the label maps and labels"
        )
    target, after = fixed.data[0], transform.warp(moving, mode="nearest").data[0]
    before = resample(moving, transform.grid, mode="nearest").data[0]
    overlap, overlap_before = dice(target, after, labels=scored), dice(target, before, labels=scored)
    result = Evaluation(
        n_labels=len(scored),
        dice=mean_ignoring_nan(overlap.values()),
        dice_before=mean_ignoring_nan(overlap_before.values()),
        dice30=tail_mean(overlap.values(), highest=False),
        dice30_before=tail_mean(overlap_before.values(), highest=False),
        dice_per_label=overlap,
        dice_before_per_label=overlap_before,
    )
    if surface:
        spacing_mm = transform.grid.spacing_mm
        distances = hd95(target, after, spacing_mm=spacing_mm, labels=scored)
        result["hd95_mm"] = mean_ignoring_nan(distances.values())
        result["hd95_before_mm"] = mean_ignoring_nan(
            hd95(target, before, spacing_mm=spacing_mm, labels=scored).values()
        )
        result["hd95_per_label_mm"] = distances
    return result


def _score_landmarks(transform: Transform, fixed_mm: Tensor, moving_mm: Tensor) -> Evaluation:
    after, before = tre(fixed_mm, moving_mm, transform), tre(fixed_mm, moving_mm)
    return Evaluation(
        n_landmarks=len(after),
        tre_mm=float(after.mean()),
        tre_before_mm=float(before.mean()),
        tre30_mm=tail_mean(after.tolist(), highest=True),
        tre30_before_mm=tail_mean(before.tolist(), highest=True),
    )


def to_integer_labels(image: Image, name: str) -> Image:
    """Convert a label map to an integer type: files with a scale factor are read as floating-point numbers.

    Raises
    ------
    InputError
        If there are several channels, values that are not whole numbers, or some that the type cannot tell apart.
    """
    if image.data.shape[0] != 1:
        raise InputError(f"{name} must have one channel, got {image.data.shape[0]}; pass one label map")
    if image.is_label:
        return image
    rounded = image.data.round()
    if not bool((rounded == image.data).all()):
        raise InputError(
            f"{name} must contain whole numbers, got other values; resample label maps by nearest neighbour"
        )
    largest = float(rounded.abs().max())
    if not largest <= (exact := 2 / torch.finfo(rounded.dtype).eps):
        raise InputError(
            f"{name} must hold labels up to {exact:.0f} in {rounded.dtype}, which merges larger ones, got "
            f"{largest:.0f}; store the labels as whole numbers"
        )
    low, high = (int(end) for end in torch.aminmax(rounded))
    small = torch.iinfo(torch.int32).min <= low and high <= torch.iinfo(torch.int32).max
    return Image(rounded.to(torch.int32 if small else torch.int64), image.grid)


def _check_on_grid(image: Image, grid: Grid, name: str) -> None:
    if not image.grid.is_close(grid, tolerance=HEADER_ROUNDING):
        raise GeometryError(
            f"{name} must be on the grid of the transform, {grid!r}, got {image.grid!r}; pass "
            "transform.to_displacement_field(image.grid), or resample the image"
        )


def mean_ignoring_nan(values: Iterable[float]) -> float:
    """Compute the mean of the values other than NaN; NaN if there is none."""
    known = [v for v in values if not math.isnan(v)]
    return math.fsum(known) / len(known) if known else math.nan
