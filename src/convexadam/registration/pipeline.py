"""A registration step by step: initialise, resample to the working grid, search, refine, finish.

`register` runs these steps once; self-configuration and benchmarks run them too, and keep what settings share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from convexadam._typing import AxisWeights, Field, Tensor, Volume
from convexadam.continuous import Snapshot
from convexadam.errors import GeometryError, InputError
from convexadam.features import receptive_radius
from convexadam.geometry import Affine, DisplacementField, Grid, Image, Transform, compose
from convexadam.geometry.grid import sides_mm
from convexadam.geometry.resample import resample, transform_vectors
from convexadam.geometry.tensors import to_float32
from convexadam.geometry.to_grid import (
    fill_outside_mask,
    resample_labels_to_grid,
    resample_to_grid,
    select_mask_mode,
    weight_on_grid,
)
from convexadam.geometry.unfold import MIN_DETERMINANT, UnfoldResult, unfold
from convexadam.kernels._device import read_numbers
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.kernels.field_summary import summarise_field
from convexadam.kernels.resize import control_points_to_voxels, scale_to_voxels
from convexadam.kernels.warp_ssd import overlap_weight, prepare_ssd
from convexadam.linear import LinearFit
from convexadam.registration.checks import Checks
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.inputs import ImagePair, RegistrationInputs
from convexadam.registration.memo import reuse
from convexadam.registration.pair import WorkingPair, axis_weights

_BACKWARD = "backward "
"""Before the names of numbers of the backward field."""

_WHOLE = 0.999
"""Interpolated coverage of a voxel below which its neighbourhood is partly outside the moving image."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Initialisation:
    """Start of the deformable stages, result of the linear alignment if it ran, and masks, given or estimated."""

    start: Transform
    linear: LinearFit | None
    masks: ImagePair


def initialise(inputs: RegistrationInputs, config: RegistrationConfig) -> Initialisation:
    """Estimate the masks that are not given, and align linearly."""
    fixed_mask, moving_mask = inputs.masks
    if config.foreground is not None:
        estimate = config.foreground
        if fixed_mask is None:
            fixed_mask = reuse(inputs.memo, "fixed mask", lambda: estimate(inputs.fixed))
        moving_mask = estimate(inputs.moving) if moving_mask is None else moving_mask
    masks, initial = (fixed_mask, moving_mask), inputs.initial
    if config.linear is None or not (initial is None or isinstance(initial, Affine)):
        return Initialisation(start=Affine() if initial is None else initial, linear=None, masks=masks)
    fit = config.linear(
        inputs.fixed,
        inputs.moving,
        fixed_mask=fixed_mask,
        moving_mask=moving_mask,
        initial=initial,
        refine=config.is_linear,
        restrict_deformation=_linear_weights(inputs, config),
    )
    return Initialisation(start=fit.transform, linear=fit, masks=masks)


def _linear_weights(inputs: RegistrationInputs, config: RegistrationConfig) -> AxisWeights:
    """Return the weights of motion of the linear alignment; one slice may move to any place in a volume."""
    if inputs.fixed.grid.dims == 2 and inputs.moving.grid.dims == 3:
        return config.restrict_deformation
    return axis_weights(config, inputs.fixed.grid.canonical())


def resample_to_working_grid(
    inputs: RegistrationInputs,
    initialisation: Initialisation,
    config: RegistrationConfig,
    checks: Checks | None = None,
) -> WorkingPair:
    """Resample the images, and all that belongs to them, to the working grid; ``None`` checks features at once."""
    grid, start = config.grid(inputs.fixed.grid), initialisation.start
    fixed_mask, moving_mask = initialisation.masks
    margin = max(map(receptive_radius, config.extractors))
    # features near the edge of a mask must not depend on what lies outside
    reach_mm = margin * max(sides_mm(grid))

    def resample_fixed() -> tuple[Image, Volume | None]:
        fixed = fill_outside_mask(inputs.fixed, fixed_mask, reach_mm)
        return resample_to_grid(fixed, grid), weight_on_grid(fixed, fixed_mask, grid, margin)

    fixed, fixed_weight = reuse(inputs.memo, "fixed on the working grid", resample_fixed)
    moving = fill_outside_mask(inputs.moving, moving_mask, reach_mm)
    warped, warped_weight = _warp_moving(moving, moving_mask, start, grid, margin)
    landmarks = None
    if inputs.landmarks is not None and config.landmarks is not None:
        grids = inputs.fixed.grid, inputs.moving.grid
        landmarks = inputs.landmarks.to_working_grid(config.landmarks, grid, start, grids)
    segmentations = inputs.segmentations
    if segmentations[0] is not None and segmentations[1] is not None:
        segmentations = resample_labels_to_grid(segmentations[0], grid), _warp_labels(segmentations[1], start, grid)
    return WorkingPair(
        config=config,
        images=(fixed, warped),
        weights=(fixed_weight, warped_weight),
        segmentations=segmentations,
        landmarks=landmarks,
        volume_preserving_mask=_resample_mask(inputs.volume_preserving_mask, grid),
        sliding_regions=_resample_mask(inputs.sliding_regions, grid),
        memo=inputs.memo,
        checks=checks or Checks(),
        search_start=_sample_search_start(inputs, initialisation, config, grid),
    )


def _sample_search_start(
    inputs: RegistrationInputs, initialisation: Initialisation, config: RegistrationConfig, grid: Grid
) -> ForwardBackward | None:
    """Return the displacement at which the search begins, beyond the linear start, on its control points."""
    if inputs.search_start is None:
        return None
    spacing = next((search.control_grid(grid.shape, grid.spacing_mm)[0] for search in config.searches), (1, 1, 1))
    points = grid.pool(spacing)
    beyond = compose(initialisation.start.inverse(), inputs.search_start).to_displacement_field(points)
    return ForwardBackward(forward=transform_vectors(np.linalg.inv(points.affine), beyond.disp_mm), spacing=spacing)


def search(pair: WorkingPair, levels: Iterator[FeatureLevel]) -> tuple[ForwardBackward | None, FeatureLevel]:
    """Run all searches, each around the result of the one before, the first one around `WorkingPair.search_start`.

    Parameters
    ----------
    pair
        The images.
    levels
        Features of each search, as `WorkingPair.extract` returns them; of any stage if there is no search. Whether they
        have contrast and overlap is asked unless that waits (`WorkingPair.checks`).

    Returns
    -------
    Displacements on the control points of the last level, or ``None`` if an image has no contrast; and that level.

    Raises
    ------
    InputError
        If an image has no weight anywhere, or the weights of both overlap nowhere, neither before nor after the search.
    """
    level, decides = next(levels), not pair.checks.recording
    if decides and not level.range.weighted:
        raise InputError(
            "the images must overlap within the field of view of the fixed image and the masks, got no voxel in both; "
            "check affines and masks, or pass an initial_transform"
        )
    if decides and not level.range.contrast:
        return None, level
    fields, grid = pair.search_start, pair.grid
    for number, search in enumerate(pair.config.searches):
        if number:
            level = next(levels)
        start = None if fields is None else fields.resample(level.spacing, grid.shape)
        fields = search.search_features(level, search.control_grid(grid.shape, grid.spacing_mm)[1], start=start)
    if decides and not level.range.overlap and not (fields is not None and _overlap(level, fields.forward)):
        raise InputError(
            "the masks must overlap within the reach of the search, got no overlap; check masks and affines, or pass "
            "an initial_transform"
        )
    return fields or ForwardBackward(forward=level.zero_displacement(), spacing=level.spacing), level


def refine(
    pair: WorkingPair,
    start: ForwardBackward,
    extract: Callable[[int], FeatureLevel] | None = None,
    *,
    iterations: tuple[int, ...] = (),
) -> Iterator[Snapshot]:
    """Refine coarse to fine; see `Refinement.refine`, whose snapshots these are.

    ``extract`` returns the features of a level, by its number; ``None`` takes `WorkingPair.extract_refinement`.
    """
    config = pair.config
    if config.continuous is None:
        return iter(())
    return config.continuous.refine(
        extract or pair.extract_refinement,
        start,
        pair.grid.shape,
        symmetric=config.symmetric,
        soft_mask=pair.volume_preserving_mask,
        iterations=iterations,
    )


def finish(
    inputs: RegistrationInputs,
    initialisation: Initialisation,
    config: RegistrationConfig,
    grid: Grid,
    fields: ForwardBackward,
    measured: Mapping[str, Tensor] | None = None,
    checks: Checks | None = None,
) -> tuple[DisplacementField, Transform | None, dict[str, float]]:
    """Return the transform on the fixed grid, its inverse if the last level estimated one, and diagnostics.

    ``grid`` is the working grid; ``measured`` are diagnostics that the device may still compute, which are read once,
    together with what is to be checked.
    """
    fixed, fold_free = inputs.fixed.grid, _is_fold_free(config)
    disp_mm, backward_mm = _interpolate_forward(inputs, initialisation, config, grid, fields), None
    numbers = {**(measured or {}), **measure_field(DisplacementField.from_finite(disp_mm, fixed))}
    if config.symmetric and fields.backward is not None:
        backward_mm = _upsample(config, fields.backward, fields, grid).to_displacement_field(fixed).disp_mm
        found = measure_field(DisplacementField.from_finite(backward_mm, fixed))
        numbers |= {_BACKWARD + name: value for name, value in found.items()}
    diagnostics = (checks or Checks()).read(numbers)
    names = [name for name in diagnostics if name.startswith(_BACKWARD)]
    backward_found = {name.removeprefix(_BACKWARD): diagnostics.pop(name) for name in names}
    transform, repaired = _unfold(disp_mm, fixed, diagnostics, fold_free=fold_free)
    diagnostics |= repaired
    if inputs.landmarks is not None:
        diagnostics |= inputs.landmarks.summary(transform)
    if backward_mm is None:
        return transform, None, diagnostics
    backward, _ = _unfold(backward_mm, fixed, backward_found, fold_free=fold_free)
    start = initialisation.start
    identity = isinstance(start, Affine) and start.is_identity
    return transform, backward if identity else compose(start.inverse(), backward), diagnostics


def make_transform(
    inputs: RegistrationInputs,
    initialisation: Initialisation,
    config: RegistrationConfig,
    grid: Grid,
    fields: ForwardBackward,
) -> tuple[DisplacementField, dict[str, float]]:
    """Return the transform from fixed to moving on the fixed grid, the start included, and its diagnostics."""
    fixed = inputs.fixed.grid
    disp_mm = _interpolate_forward(inputs, initialisation, config, grid, fields)
    diagnostics = read_numbers(measure_field(DisplacementField.from_finite(disp_mm, fixed)))
    transform, repaired = _unfold(disp_mm, fixed, diagnostics, fold_free=_is_fold_free(config))
    return transform, diagnostics | repaired


def measure_similarity(level: FeatureLevel, displacement: Field) -> dict[str, Tensor]:
    """Mean squared feature difference before and after, summed over channels, and overlap in percent of the volume.

    0-dimensional tensors on the device, which need not have computed them yet.
    """
    term = prepare_ssd(level.fixed, level.moving, fixed_weight=level.fixed_weight, moving_weight=level.moving_weight)
    before, after = (term.value(u) for u in (torch.zeros_like(displacement), displacement))
    overlap = torch.count_nonzero(overlap_weight(displacement, *level.weights))
    return {
        "dissimilarity_before": before,
        "dissimilarity_after": after,
        "overlap_percent": overlap.double() * (100 / math.prod(level.shape)),
    }


def measure_field(transform: DisplacementField) -> dict[str, Tensor]:
    """Folding, volume change and size of a displacement field, over all voxels, as `measure_similarity` returns them.

    (`convexadam.metrics` excludes the outermost voxels, as Learn2Reg does.) No voxel is folded if and only if the
    smallest determinant is above 0.
    """
    to_index = np.linalg.inv(transform.grid.affine)
    found = summarise_field(transform.disp_mm, torch.from_numpy(to_index[:3, :3].copy()))
    return {
        "folded_percent": found.folded_percent,
        "jacobian_min": found.determinant_min,
        "jacobian_max": found.determinant_max,
        "displacement_mean_mm": found.length_mean,
        "displacement_max_mm": found.length_max,
    }


def _warp_moving(
    moving: Image, mask: Image | None, start: Transform, grid: Grid, margin: int
) -> tuple[Image, Volume | None]:
    """Return the moving image through a transform on a grid of fixed space, with the weight of each voxel."""
    if isinstance(start, Affine):
        seen = Grid(grid.shape, start.matrix @ grid.affine)
        return Image(resample_to_grid(moving, seen).data, grid), weight_on_grid(moving, mask, seen, margin)
    image = Image(to_float32(moving.data), moving.grid)  # float64 would leave all that follows to the reference
    ones = Image(torch.ones_like(image.data[:1]), image.grid)
    disp_mm = start.to_displacement_field(grid).disp_mm
    weight = resample(ones, grid, mode="linear", fill_value=0.0, disp_mm=disp_mm).data[0]
    if mask is not None:
        weight = weight * resample(mask, grid, mode=select_mask_mode(mask), fill_value=0.0, disp_mm=disp_mm).data[0]
    return resample(image, grid, mode="linear", disp_mm=disp_mm), torch.where(
        weight > _WHOLE, weight, torch.zeros_like(weight)
    )


def _warp_labels(labels: Image, start: Transform, grid: Grid) -> Image:
    """Return a segmentation of the moving image through a transform; whole numbers stay whole."""
    if isinstance(start, Affine):
        return Image(resample_labels_to_grid(labels, Grid(grid.shape, start.matrix @ grid.affine)).data, grid)
    return start.warp(labels, grid, mode="label" if labels.is_label else "linear")


def _resample_mask(mask: Image | None, grid: Grid) -> Volume | None:
    return None if mask is None else resample(mask, grid, fill_value=0).data[0].float()


def _overlap(level: FeatureLevel, displacement: Field) -> bool:
    """Whether any point has weight in both images."""
    return bool((overlap_weight(displacement, *level.weights) > 0).any())


def _upsample(
    config: RegistrationConfig, displacement: Field, fields: ForwardBackward, grid: Grid
) -> DisplacementField:
    """Return displacements in control points as a field in mm on the working grid."""
    disp_mm = transform_vectors(
        grid.affine, scale_to_voxels(displacement, fields.spacing)
    )  # while there are few points
    if config.continuous is not None:
        return DisplacementField.from_finite(config.continuous.upsample(disp_mm, fields.spacing, grid.shape), grid)
    return DisplacementField.from_finite(control_points_to_voxels(disp_mm, fields.spacing, grid.shape), grid)


def _interpolate_forward(
    inputs: RegistrationInputs,
    initialisation: Initialisation,
    config: RegistrationConfig,
    grid: Grid,
    fields: ForwardBackward,
) -> Field:
    """Return displacements in mm from fixed to moving on the fixed grid, the start included."""
    fixed = inputs.fixed.grid
    disp_mm = _upsample(config, fields.forward, fields, grid).to_displacement_field(fixed).disp_mm
    return initialisation.start.displacement_on(fixed, disp_mm, disp_mm)


def _is_fold_free(config: RegistrationConfig) -> bool:
    return config.continuous is not None and config.continuous.parametrisation.fold_free


def _unfold(
    disp_mm: Field, grid: Grid, found: Mapping[str, float], *, fold_free: bool
) -> tuple[DisplacementField, dict[str, float]]:
    """Make a transform, with folds repaired in place if it has to be free of them.

    Returns
    -------
    The transform, and which diagnostics differ from those ``found`` before.
    """
    transform, repair, diagnostics = DisplacementField.from_finite(disp_mm, grid), UnfoldResult(), dict[str, float]()
    if not math.isfinite(found["displacement_mean_mm"]):
        raise GeometryError("displacements must be finite, got NaN or Inf; check the scale of features and weights")
    if fold_free and found["jacobian_min"] <= MIN_DETERMINANT:
        repair = unfold(disp_mm, grid)
        transform = DisplacementField(disp_mm, grid)
        diagnostics = read_numbers(measure_field(transform))
    return transform, diagnostics | {
        "repaired_voxels": repair.changed_voxels,
        "repaired_largest_mm": repair.max_change_mm,
    }
