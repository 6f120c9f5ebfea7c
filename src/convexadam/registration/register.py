"""`register`: from two images to a transform."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

from convexadam.errors import ConfigError, OutOfMemoryError, is_about_memory
from convexadam.geometry import Affine, DisplacementField, Image, Transform
from convexadam.kernels import backend_for, override_backend
from convexadam.kernels._precision import full_precision
from convexadam.kernels._waiting import wait_passively
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
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
from convexadam.registration.pair import WorkingPair
from convexadam.registration.pipeline import (
    Initialisation,
    finish,
    initialise,
    measure_similarity,
    refine,
    resample_to_working_grid,
    sample_search_start,
    search,
)
from convexadam.registration.presets import parse_config
from convexadam.registration.progress import Progress, open_progress
from convexadam.registration.result import RegistrationResult
from convexadam.registration.work import check_work

_STAGES = ("linear", "resample", "features", "discrete", "continuous", "finish")

_NO_MEMORY_FOR_IMAGES = "has too little memory to hold the images; crop or coarsen them, or use another device"


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
        Settings, or the name of a preset, as in ``register(fixed, moving, "accurate")``; ``None`` is ``"default"``.
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
    """Do what `register` does, with a memo of what depends on the fixed image alone; ``None`` keeps nothing.

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
    clock = _Clock(progress, fixed_image.data.device)
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
            transform, inverse, diagnostics = _register_deformably(inputs, initialisation, config, clock)
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
        moving_type=Image if isinstance(moving, (str, os.PathLike)) else type(moving),
    )


def _register_deformably(
    inputs: RegistrationInputs, initialisation: Initialisation, config: RegistrationConfig, clock: _Clock
) -> tuple[DisplacementField, Transform | None, dict[str, float]]:
    """Return the transform, its inverse if the last level estimated one, and diagnostics."""
    pair, levels, fine = _extract(inputs, initialisation, config, clock)
    grid = pair.grid
    start = sample_search_start(inputs, initialisation, grid)
    level, fields = _search_and_refine(pair, levels, fine, start, clock)
    del start
    del pair, levels, fine
    with clock.stage("finish"):
        similarity = measure_similarity(level, fields.forward)
        del level  # before fields at full resolution are made
        release_memory()
        result = finish(inputs, initialisation, config, grid, fields, similarity)
    if not result[2]["overlap_percent"]:
        warnings.warn(
            "masks and fields of view leave no control point that lies wholly in both images (overlap 0 %), so that "
            "the last stage compared nothing; use larger or closed masks, or a finer spacing",
            stacklevel=3,
        )
    return result


def _extract(
    inputs: RegistrationInputs, initialisation: Initialisation, config: RegistrationConfig, clock: _Clock
) -> tuple[WorkingPair, Iterator[FeatureLevel], FeatureLevel | None]:
    """Return the pair, without its images if nothing is extracted from them later, and what `WorkingPair.extract` does.

    ``None`` stands for a level of the refinement that is to be extracted when it begins.
    """
    with clock.stage("resample"):
        pair = resample_to_working_grid(inputs, initialisation, config)
    with clock.stage("features"):
        levels, fine = pair.extract()
        if fine is not None and config.continuous is not None and len(config.continuous.levels) == 1:
            pair = pair.release_images()  # nothing else is extracted
    return pair, levels, fine


def _search_and_refine(
    pair: WorkingPair,
    levels: Iterator[FeatureLevel],
    fine: FeatureLevel | None,
    start: ForwardBackward | None,
    clock: _Clock,
) -> tuple[FeatureLevel, ForwardBackward]:
    """Return the last level, and the displacements on its control points."""
    with clock.stage("discrete"):
        fields, level = search(pair, levels, start)
        del levels
    with clock.stage("continuous"):
        if fields is None:  # no contrast in one of the images
            return level, ForwardBackward(forward=level.zero_displacement(), spacing=level.spacing)
        if pair.config.continuous is not None:
            del level

            def extract(number: int) -> FeatureLevel:
                release_memory()  # of the level before
                return fine if fine is not None and number == 0 else pair.extract_refinement(number)

            for snapshot in refine(pair, fields, extract):
                level, fields = snapshot.features, snapshot.fields
    return level, fields


class _Clock:
    """Report and time the stages; a GPU, which has its own clock, is waited for once, at the end."""

    def __init__(self, progress: Progress | None, device: torch.device) -> None:
        self._progress, self._device = progress, device
        self._marks, self._names = [self._mark()], list[str]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(name, _STAGES.index(name) / len(_STAGES))
        yield
        if self._device.type == "cpu":
            release_memory()
        self._marks.append(self._mark())
        self._names.append(name)
        if self._progress is not None and name == _STAGES[-1]:
            self._progress("done", 1.0)

    def timings(self) -> dict[str, float]:
        """Return the time of each stage that ran, in seconds."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            seconds = [a.elapsed_time(b) / 1e3 for a, b in pairwise(self._marks)]
        else:
            seconds = [b - a for a, b in pairwise(self._marks)]
        return dict(zip(self._names, seconds, strict=True))

    def _mark(self) -> Any:
        """Return the time, or an event that the GPU will reach when all that was launched has run."""
        if self._device.type != "cuda":
            return time.perf_counter()
        with torch.cuda.device(self._device):
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
        return event


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
