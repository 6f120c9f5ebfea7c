"""`register`: from two images to a transform."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from convexadam._arguments import run_untraced
from convexadam.continuous import Snapshot
from convexadam.errors import ConfigError, OutOfMemoryError, is_about_memory
from convexadam.geometry import Affine, DisplacementField, Image, Transform
from convexadam.kernels import backend_for, override_backend
from convexadam.kernels._precision import full_precision
from convexadam.kernels._waiting import wait_passively
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.registration.checks import Checks
from convexadam.registration.clock import Clock, NoClock
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.inputs import (
    RegistrationInputs,
    parse_images,
    parse_initial,
    parse_mask,
    parse_segmentations,
    parse_sliding_regions,
    parse_volume_preserving_mask,
)
from convexadam.registration.landmarks import parse_landmarks
from convexadam.registration.linear_result import measure_linear
from convexadam.registration.memo import Memo
from convexadam.registration.memory import release_memory
from convexadam.registration.pair import NotReplayableError, WorkingPair
from convexadam.registration.pipeline import (
    Initialisation,
    finish,
    initialise,
    measure_similarity,
    refine,
    resample_to_working_grid,
    search,
)
from convexadam.registration.presets import parse_config
from convexadam.registration.progress import Progress, open_progress
from convexadam.registration.recordings import DeformableResult, Recordings
from convexadam.registration.result import RegistrationResult
from convexadam.registration.work import check_work

_NO_MEMORY_FOR_IMAGES = "has too little memory to hold the images; crop or coarsen them, or use another device"


@run_untraced
def register(
    fixed: Any,
    moving: Any,
    config: RegistrationConfig | str | None = None,
    *,
    fixed_affine: Any = None,
    moving_affine: Any = None,
    fixed_mask: Any = None,
    moving_mask: Any = None,
    volume_preserving_mask: Any = None,
    sliding_regions: Any = None,
    fixed_segmentation: Any = None,
    moving_segmentation: Any = None,
    initial_transform: Any = None,
    fixed_landmarks: Any = None,
    moving_landmarks: Any = None,
    landmark_weights: Any = None,
    device: torch.device | str | None = None,
    progress: Progress | bool | None = None,
) -> RegistrationResult:
    """Estimate the transform that maps each point of the fixed image to the same anatomy in the moving image.

    Parameters
    ----------
    fixed, moving
        3-D volumes, in any form that `as_image` takes: a path, a torch tensor or numpy array ``[i, j, k]``, an object
        of nibabel, SimpleITK, MONAI or TorchIO, or an `Image`. For several channels use `as_image` with
        ``channels=True``. Grids, spacings and orientations may differ.
    config
        Settings, or the name of a preset, as in ``register(fixed, moving, "best")``; ``None`` is ``"default"``.
    fixed_affine, moving_affine
        4x4, voxel indices to mm RAS+, for tensors and arrays; ``None`` means 1 mm voxels along R, A, S.
    fixed_mask, moving_mask
        Region to compare: above 0 inside (whole numbers, truth values), or weights in [0, 1] (floating-point
        numbers). Same forms as the images. An array without an affine lies on its image's grid; other masks may lie on
        any grid. Intensities outside are ignored: features near the edge of a mask see its edge values replicated, as
        at the edge of the field of view.
    volume_preserving_mask
        Where volume is preserved, such as tumours: a mask like ``fixed_mask``, of the fixed image. It replaces the
        ``region`` of `VolumePreserving`.
    sliding_regions
        Label map of the fixed image whose boundaries a `BilateralSmoothing` preserves, instead of its intensities.
    fixed_segmentation, moving_segmentation
        For features that compare them (`LabelFeatures`, `ProbabilityFeatures`): a label map, or probabilities with
        one channel for each class. Same forms as the images; an array without an affine lies on its image's grid,
        others may lie on any grid. Labels are never interpolated; 0 is the background, also outside.
    initial_transform
        Start, from fixed to moving space: an `Affine`, a 4x4 matrix (mm RAS+), any other transform, or a file of one.
        The linear alignment refines an affine start, and is skipped for any other.
    fixed_landmarks, moving_landmarks
        Corresponding points ``(n, 3)`` in mm RAS+, row by row (see `LandmarkTerm`): tensors or arrays, or files as
        Learn2Reg has them, with voxel indices of their own image. Pairs with a fixed point outside the fixed image are
        ignored; ``diagnostics`` counts them.
    landmark_weights
        ``(n,)``, at least 0: relative weight of each pair; ``None`` for 1.
    device
        Where to compute; ``None`` for the device of the fixed image (arrays and files: the CPU).
    progress
        A function ``(stage, fraction)``, called at the beginning of each stage and at the end; ``True`` shows a bar,
        ``False`` nothing, and ``None`` a bar if this is a terminal or a notebook.

    Returns
    -------
    `RegistrationResult` with the transform: a displacement field on the grid of the fixed image, or an `Affine` if the
    linear alignment is the only stage.

    Raises
    ------
    InputError, GeometryError, FileError
        If an image or mask cannot be used: NaN, empty, not 3-D, singular affine, unreadable, no overlap; or if
        landmarks are not pairs of finite points, or none lies within the fixed image.
    ConfigError
        If ``config`` is neither a `RegistrationConfig` nor a preset, the device cannot be used, an affine is given for
        something that has its own, the features do not fit the image, landmarks, segmentations,
        ``volume_preserving_mask`` or ``sliding_regions`` are not used by the settings, or segmentations are missing.
    OutOfMemoryError
        If the device has too little memory.

    Warns
    -----
    UserWarning
        If the linear alignment is the only stage, and found nothing better than the initial transform.

    Examples
    --------
    >>> import torch
    >>> from convexadam import RegistrationConfig, register
    >>> volume = torch.rand(24, 20, 16, generator=torch.Generator().manual_seed(0))
    >>> result = register(volume, volume)
    >>> bool(result.transform.disp_mm.abs().max() < 0.1)
    True
    """
    settings = parse_config(config)
    with open_progress(progress) as report:
        return register_with_memo(
            fixed,
            moving,
            settings,
            fixed_affine=fixed_affine,
            moving_affine=moving_affine,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            volume_preserving_mask=volume_preserving_mask,
            sliding_regions=sliding_regions,
            fixed_segmentation=fixed_segmentation,
            moving_segmentation=moving_segmentation,
            initial_transform=initial_transform,
            fixed_landmarks=fixed_landmarks,
            moving_landmarks=moving_landmarks,
            landmark_weights=landmark_weights,
            device=device,
            progress=report,
        )


@torch.inference_mode(False)  # the refinement differentiates, whatever the caller has switched off
@torch.no_grad()
@full_precision
@wait_passively
def register_with_memo(
    fixed: Any,
    moving: Any,
    config: RegistrationConfig,
    *,
    memo: Memo | None = None,
    recordings: Recordings | None = None,
    fixed_affine: Any = None,
    moving_affine: Any = None,
    fixed_mask: Any = None,
    moving_mask: Any = None,
    volume_preserving_mask: Any = None,
    sliding_regions: Any = None,
    fixed_segmentation: Any = None,
    moving_segmentation: Any = None,
    initial_transform: Any = None,
    search_start: Transform | None = None,
    fixed_landmarks: Any = None,
    moving_landmarks: Any = None,
    landmark_weights: Any = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> RegistrationResult:
    """Do what `register` does, with what is kept from pair to pair.

    ``memo`` keeps what depends on the fixed image alone, ``recordings`` what a GPU launches; ``None`` keeps nothing.
    ``search_start`` is described by `PreparedImage.register`.
    """
    place = device if isinstance(device, (str, torch.device)) else "the device"
    with _translate_memory_errors(f"{place} {_NO_MEMORY_FOR_IMAGES}"):
        images = parse_images(fixed, moving, device, fixed_affine=fixed_affine, moving_affine=moving_affine)
        fixed_image, moving_image = images
        grids = fixed_image.grid, moving_image.grid
        inputs = RegistrationInputs(
            fixed=fixed_image,
            moving=moving_image,
            masks=(
                parse_mask(fixed_mask, fixed_image, "fixed_mask"),
                parse_mask(moving_mask, moving_image, "moving_mask"),
            ),
            segmentations=parse_segmentations((fixed_segmentation, moving_segmentation), images, config),
            volume_preserving_mask=parse_volume_preserving_mask(volume_preserving_mask, fixed_image, config),
            sliding_regions=parse_sliding_regions(sliding_regions, fixed_image, config),
            landmarks=parse_landmarks(fixed_landmarks, moving_landmarks, landmark_weights, grids),
            initial=parse_initial(initial_transform, fixed_image, moving_image),
            search_start=search_start,
            memo=memo,
        )
    if inputs.landmarks is not None and config.landmarks is None:
        raise ConfigError("config.landmarks must be a LandmarkTerm if landmarks are given, got None")
    check_work(fixed_image, config)
    clock = Clock(progress, fixed_image.data.device)
    with _translate_memory_errors(_memory_advice(fixed_image)), override_backend(config.backend):
        with clock.stage("linear"):
            initialisation = initialise(inputs, config)
        start, fit = initialisation.start, initialisation.linear
        transform: DisplacementField | Affine
        if config.is_linear and fit is not None and isinstance(start, Affine):
            inverse: Transform | None = start.inverse() if config.symmetric else None
            with clock.stage("finish"):
                transform, diagnostics = start, measure_linear(inputs, initialisation.masks, fit)
        else:
            transform, inverse, diagnostics = _register_deformably(inputs, initialisation, config, clock, recordings)
        used_backend = backend_for(torch.empty(0, dtype=torch.float32, device=fixed_image.data.device))
    return RegistrationResult(
        linear=initialisation.linear,
        transform=transform,
        estimated_inverse=inverse,
        fixed=fixed_image,
        moving=moving_image,
        config=config,
        timings=clock.timings(),
        diagnostics=diagnostics,
        backend=used_backend,
        moving_type=form_of(moving),
    )


def form_of(image: Any) -> type:
    """Return ``moving_type`` of the `RegistrationResult` for a moving image."""
    return Image if isinstance(image, (str, os.PathLike)) else type(image)


def _register_deformably(
    inputs: RegistrationInputs,
    initialisation: Initialisation,
    config: RegistrationConfig,
    clock: Clock | NoClock,
    recordings: Recordings | None,
) -> tuple[DisplacementField, Transform | None, dict[str, float]]:
    """Return the transform, its inverse if the last level estimated one, and diagnostics."""

    def resample() -> WorkingPair:
        with clock.stage("resample"):
            return resample_to_working_grid(inputs, initialisation, config, Checks(at_once=False))

    if recordings is None or not inputs.fixed.data.is_cuda:
        found = _compare(resample, clock)
    else:
        pair = resample()
        with clock.stage("continuous"):
            found = recordings.compare(pair, lambda pair: _compare(lambda: pair, NoClock()))
    with clock.stage("finish"):
        release_memory()
        try:
            result = finish(inputs, initialisation, config, found.grid, found.fields, found.similarity, found.checks)
        except NotReplayableError:
            return _register_deformably(inputs, initialisation, config, NoClock(), None)
    if not result[2]["overlap_percent"]:
        warnings.warn(
            "masks and fields of view leave no control point that lies wholly in both images (overlap 0 %), so that "
            "the last stage compared nothing; use larger or closed masks, or a finer spacing",
            stacklevel=3,
        )
    return result


def _compare(resample: Callable[[], WorkingPair], clock: Clock | NoClock) -> DeformableResult:
    """Return what the deformable stages find for a pair, of which nothing else is left in memory."""
    pair, levels, fine = _extract(resample, clock)
    grid, checks = pair.grid, pair.checks
    level, fields = _search_and_refine(pair, levels, fine, clock)
    similarity = measure_similarity(level, fields.forward)
    return DeformableResult(grid=grid, fields=fields, similarity=similarity, checks=checks)


def _extract(
    resample: Callable[[], WorkingPair], clock: Clock | NoClock
) -> tuple[WorkingPair, Iterator[FeatureLevel], FeatureLevel | None]:
    """Return the pair, without its images if nothing is extracted from them later, and what `WorkingPair.extract` does.

    ``None`` stands for a level of the refinement that is to be extracted when it begins.
    """
    pair = resample()
    config = pair.config
    with clock.stage("features"):
        levels, fine = pair.extract()
        if fine is not None and config.continuous is not None and len(config.continuous.levels) == 1:
            pair = pair.release_images()  # nothing else is extracted
    return pair, levels, fine


def _search_and_refine(
    pair: WorkingPair, levels: Iterator[FeatureLevel], fine: FeatureLevel | None, clock: Clock | NoClock
) -> tuple[FeatureLevel, ForwardBackward]:
    """Return the last level, and the displacements on its control points."""
    with clock.stage("discrete"):
        fields, level = search(pair, levels)
        del levels
    with clock.stage("continuous"):
        if fields is None:
            warnings.warn(
                "an image has no contrast within its field of view and mask, or no more than one control point, so "
                "that nothing was compared and nothing moves beyond the initial transform; check the values of both "
                "images there, or set a finer spacing",
                stacklevel=6,
            )
            return level, ForwardBackward(forward=level.zero_displacement(), spacing=level.spacing)
        if pair.config.continuous is not None:
            del level
            kept: list[Snapshot] = []

            def extract(number: int) -> FeatureLevel:
                kept.clear()
                release_memory()  # of the level before
                return fine if fine is not None and number == 0 else pair.extract_refinement(number)

            current, steps = -1, refine(pair, fields, extract)
            del fields
            for snapshot in steps:
                kept[:] = [snapshot] if snapshot.level == current else []  # the start of a level is no result
                current = snapshot.level
                del snapshot
            level, fields = kept[0].features, kept[0].fields
    return level, fields


@contextmanager
def _translate_memory_errors(advice: str) -> Iterator[None]:
    """Raise `OutOfMemoryError` with advice if a device reports that its memory is exhausted."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_about_memory(error):
            raise OutOfMemoryError(advice) from error
        raise


def _memory_advice(fixed: Image) -> str:
    return (
        f"{fixed.data.device} has too little memory to register {fixed.grid.shape} voxels with these settings; raise "
        "grid.spacing_mm or lower grid.max_voxels (IsotropicGrid), raise discrete.spacing, or use another device"
    )
