"""The pipeline: bring both images to one grid, describe, search, refine, bring the field back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from convexadam._typing import Field, Volume
from convexadam.errors import ConfigError, InputError, OutOfMemoryError
from convexadam.features import reach_of
from convexadam.geometry import Affine, DisplacementField, Image, Transform, compose
from convexadam.geometry.onto_grid import evidence, hidden, labels_on_grid, on_grid
from convexadam.geometry.resample import resample
from convexadam.kernels import backend_for, requested_backend, use_backend
from convexadam.kernels._precision import full_precision
from convexadam.kernels.warp_ssd import evidence_under
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.diagnostics import similarity
from convexadam.registration.finishing import finished
from convexadam.registration.guide import Landmarks, checked_landmarks
from convexadam.registration.inputs import (
    checked_image,
    checked_initial,
    checked_kept,
    checked_labels,
    checked_mask,
    checked_regions,
)
from convexadam.registration.levels import (
    BothWays,
    Described,
    Subject,
    comparable,
    in_mm,
    on_level,
    refined_throughout,
    searched,
)
from convexadam.registration.memory import give_back_memory
from convexadam.registration.prealigned import labels_pulled_onto, prealigned, pulled_onto
from convexadam.registration.presets import preset
from convexadam.registration.result import RegistrationResult

Progress: TypeAlias = Callable[[str, float], None]
"""Called with the name of a stage as it begins and the share of stages done, in [0, 1]."""

_STAGES = ("linear", "resample", "features", "discrete", "continuous", "finish")

_NO_ROOM = "has too little memory to hold the images; crop or coarsen them, or use another device"


@torch.inference_mode(False)  # the refinement differentiates, whatever the caller has switched off
@torch.no_grad()
@full_precision
def register(
    fixed: Any,
    moving: Any,
    config: RegistrationConfig | None = None,
    *,
    fixed_affine: Any = None,
    moving_affine: Any = None,
    fixed_mask: Any = None,
    moving_mask: Any = None,
    keep_volume: Any = None,
    regions: Any = None,
    fixed_labels: Any = None,
    moving_labels: Any = None,
    initial_transform: Any = None,
    fixed_landmarks: Any = None,
    moving_landmarks: Any = None,
    landmark_weights: Any = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> RegistrationResult:
    """Find the transform that maps each point of the fixed image to the same anatomy in the moving image.

    Parameters
    ----------
    fixed, moving
        3-D volumes, in any form that `as_image` takes: a path, a torch tensor or numpy array ``[i, j, k]``, an object
        of nibabel, SimpleITK, MONAI or TorchIO, or an `Image`. Several channels come by way of `as_image`, with
        ``channels=True``. Grids, spacings and orientations may differ; what counts is where voxels lie in mm.
    config
        What to do; ``None`` takes ``preset("default")``.
    fixed_affine, moving_affine
        4x4, voxel indices to mm RAS+, for tensors and arrays; ``None`` means 1 mm voxels along R, A, S.
    fixed_mask, moving_mask
        Where there is evidence: above 0 inside (whole numbers, truth values), or weights in [0, 1] (floating-point
        numbers). Same forms as the images. An array without an affine lies on its image's grid; other masks may lie on
        any grid. What lies outside has no say: descriptions near the mask's edge see its edge values go on, as at the
        edge of the field of view.
    keep_volume
        What must not grow or shrink, such as tumours: a mask like ``fixed_mask``, of the fixed image. It tells
        `VolumePreserving` where, and takes the place of its ``where``.
    regions
        Labels of the fixed image whose boundaries a `BilateralSmoothing` stops at, in place of its intensities.
    fixed_labels, moving_labels
        What features that look at labels compare (see `LabelFeatures` and `ProbabilityFeatures`): a label map, or a
        channel of probabilities for each class. Same forms as the images; an array without an affine lies on its
        image's grid, others may lie on any grid. Whole numbers are never mixed; 0 is the background, and what lies
        outside.
    initial_transform
        Where to begin, from fixed to moving space: an `Affine`, a 4x4 matrix (mm RAS+), any other transform, or a file
        of one. The linear alignment starts from an affine one, and is left out after any other.
    fixed_landmarks, moving_landmarks
        Corresponding points ``(n, 3)`` in mm RAS+ that guide the deformable stages (see `LandmarkGuide`), row by row
        the same place: tensors or arrays, or files as Learn2Reg has them, with voxel indices of their own image. Pairs
        with a fixed point outside the fixed image are left out; ``diagnostics`` counts them.
    landmark_weights
        ``(n,)``, at least 0: how much each pair counts; ``None`` for all alike.
    device
        Where to compute; ``None`` stays where the fixed image is (arrays and files: the CPU).
    progress
        Called at the beginning of each stage and at the end.

    Returns
    -------
    `RegistrationResult` with the transform on the fixed image's grid, exactly.

    Raises
    ------
    InputError, GeometryError, FileError
        If an image or mask cannot be used: NaN, empty, not 3-D, singular affine, unreadable, no overlap; or if the
        landmarks are no pairs of finite points, or none lies within the fixed image.
    ConfigError
        If ``config`` is no `RegistrationConfig`, the device cannot be used, an affine comes with something that has its
        own, the features do not fit the image, landmarks, labels, ``keep_volume`` or ``regions`` come and no setting
        heeds them, or labels are missing that the features compare.
    OutOfMemoryError
        If the device has too little memory.

    Examples
    --------
    >>> import torch
    >>> from convexadam import RegistrationConfig, register
    >>> volume = torch.rand(24, 20, 16, generator=torch.Generator().manual_seed(0))
    >>> result = register(volume, volume)
    >>> bool(result.transform.disp_mm.abs().max() < 0.1)
    True
    """
    config = preset() if config is None else config
    if not isinstance(config, RegistrationConfig):
        raise ConfigError(f"config is a RegistrationConfig, as preset('default') returns one, but {config!r} came")
    with _memory_may_be_short(f"{device or 'the device'} {_NO_ROOM}"):
        fixed_image = checked_image(fixed, fixed_affine, device, "fixed")
        moving_image = checked_image(moving, moving_affine, fixed_image.data.device, "moving")
        masks = (
            checked_mask(fixed_mask, fixed_image, "fixed"),
            checked_mask(moving_mask, moving_image, "moving"),
        )
        extra = (
            checked_kept(keep_volume, fixed_image, config.continuous),
            checked_regions(regions, fixed_image, config.continuous),
        )
        compared = config.features, config.continuous_features
        labels = checked_labels((fixed_labels, moving_labels), (fixed_image, moving_image), compared)
        initial = checked_initial(initial_transform, fixed_image, moving_image)
        grids = fixed_image.grid, moving_image.grid
        landmarks = checked_landmarks(fixed_landmarks, moving_landmarks, landmark_weights, grids)
    if landmarks is not None and config.landmarks is None:
        raise ConfigError("landmarks came, but config.landmarks is None, which refuses them; set it to LandmarkGuide()")
    clock = _Clock(progress, fixed_image.data.device)
    backend = requested_backend() if config.backend == "auto" else config.backend
    with _memory_may_be_short(_memory_advice(fixed_image)), use_backend(backend):
        with clock.stage("linear"):
            if config.foreground is not None:
                masks = (
                    config.foreground(fixed_image) if masks[0] is None else masks[0],
                    config.foreground(moving_image) if masks[1] is None else masks[1],
                )
            start, fit = prealigned(fixed_image, moving_image, masks, config.linear, initial)
        found = _estimated(fixed_image, moving_image, masks, extra, labels, landmarks, start, config, clock)
        transform, inverse, diagnostics = found
        ran = backend_for(transform.disp_mm)
    return RegistrationResult(
        linear=fit,
        transform=transform,
        inverse=inverse,
        fixed=fixed_image,
        moving=moving_image,
        config=config,
        seconds=clock.seconds,
        diagnostics=diagnostics,
        backend=ran,
        moving_kind=Image if isinstance(moving, (str, os.PathLike)) else type(moving),
    )


def _estimated(
    fixed: Image,
    moving: Image,
    masks: tuple[Image | None, Image | None],
    extra: tuple[Image | None, Image | None],
    labels: tuple[Image | None, Image | None],
    landmarks: Landmarks | None,
    start: Transform,
    config: RegistrationConfig,
    clock: _Clock,
) -> tuple[DisplacementField, Transform | None, dict[str, float]]:
    """Run the stages; the transform on the fixed grid, its inverse if asked for, and what is worth knowing."""
    with clock.stage("resample"):
        grid = config.grid(fixed.grid)
        guide = None
        if landmarks is not None and config.landmarks is not None:
            guide = landmarks.on_grid(config.landmarks, grid, start, (fixed.grid, moving.grid))
        margin = max(reach_of(f) for f in (config.features, config.continuous_features) if f is not None)
        reach_mm = margin * max(grid.spacing_mm)
        fixed, moving = hidden(fixed, masks[0], reach_mm), hidden(moving, masks[1], reach_mm)
        pulled, seen = pulled_onto(grid, moving, masks[1], start, margin)
        images, weights = (on_grid(fixed, grid), pulled), (evidence(fixed, masks[0], grid, margin), seen)
        _check_evidence(weights)
        kept, regions = (None if e is None else resample(e, grid, background=0).data[0].float() for e in extra)
        if labels[0] is not None and labels[1] is not None:
            labels = labels_on_grid(labels[0], grid), labels_pulled_onto(grid, labels[1], start)
    subject = Subject(
        config=config, images=images, weights=weights, labels=labels, guide=guide, kept=kept, regions=regions
    )
    del images, weights, labels, pulled, seen
    level, fields = _aligned(subject, clock)
    with clock.stage("finish"):
        diagnostics = similarity(level, fields[0])
        spacing = level.spacing
        del level, subject
        fold_free = config.continuous is not None and config.continuous.parametrisation.fold_free

        def on_fixed(nodes: Field) -> Field:
            return in_mm(config.continuous, nodes, spacing, grid).resample_onto(fixed.grid).disp_mm

        disp_mm = on_fixed(fields[0])
        disp_mm = start.after(fixed.grid, disp_mm, disp_mm)
        transform, figures = finished(disp_mm, fixed.grid, fold_free=fold_free)
        del disp_mm
        if landmarks is not None:
            figures |= landmarks.described(transform)
        inverse: Transform | None = None
        if config.symmetric and fields[1] is None:  # the last levels were one-way
            inverse = transform.inverse(moving)
        elif fields[1] is not None:
            inverse, _ = finished(on_fixed(fields[1]), fixed.grid, fold_free=fold_free)
            if not (isinstance(start, Affine) and start.is_identity):
                inverse = compose(start.inverse(), inverse)
    return transform, inverse, diagnostics | figures


def _aligned(subject: Subject, clock: _Clock) -> tuple[Described, BothWays]:
    """Search and refine: displacements in the nodes of the last level."""
    config, grid = subject.config, subject.grid
    with clock.stage("features"):
        coarse, fine = subject.first()
        level = coarse[0] if coarse else fine
        assert level is not None  # one of the two is there
        contrast = comparable(level)
        give_back_memory()
    fields: BothWays | None = None
    with clock.stage("discrete"):
        for search in config.searches if contrast else ():
            before, level = level.spacing, coarse.pop(0)
            start = None if fields is None else on_level(fields, before, level.spacing, grid.shape)
            fields = searched(search, level, start, grid)
        if contrast and not _met(level, None if fields is None else fields[0]):
            raise InputError(
                "nothing within the fixed mask meets anything within the moving mask, within the reach of the search: "
                "they do not overlap; check the masks and affines, or bring the images closer first"
            )
    fields = fields or (level.still(), None)
    with clock.stage("continuous"):
        if contrast and config.continuous:
            before = level.spacing
            del level
            level, fields = refined_throughout(subject, fields, before, fine)
    return level, fields if config.symmetric else (fields[0], None)


def _met(level: Described, found: Field | None) -> bool:
    """Whether anything with evidence in the fixed image meets any in the moving one, where they lie or as found."""
    return any(bool((evidence_under(u, *level.weights) > 0).any()) for u in (level.still(), found) if u is not None)


def _check_evidence(weights: tuple[Volume | None, Volume | None]) -> None:
    if any(weight is not None and not bool((weight > 0).any()) for weight in weights):
        raise InputError(
            "no voxel has evidence: the images, or what the masks leave of them, do not overlap within the box of the "
            "fixed image; check the affines and masks, or bring the images closer first"
        )


class _Clock:
    """Reports and times the stages; waits for the device only where a stage ends."""

    def __init__(self, progress: Progress | None, device: torch.device) -> None:
        self._progress, self._device = progress, device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(name, _STAGES.index(name) / len(_STAGES))
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = time.perf_counter() - start
        if self._progress is not None and name == _STAGES[-1]:
            self._progress("done", 1.0)


@contextmanager
def _memory_may_be_short(advice: str) -> Iterator[None]:
    """Turn the errors of any device that has too little memory into one with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if _is_about_memory(error):
            raise OutOfMemoryError(advice) from error
        raise


def _is_about_memory(error: Exception) -> bool:
    """Whether an error of torch or Python says that memory is short; each device has its own way to say so."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(w in str(error) for w in words)


def _memory_advice(fixed: Image) -> str:
    return (
        f"{fixed.data.device} has too little memory to register {fixed.grid.shape} voxels with these settings; raise "
        "grid.spacing_mm or lower grid.max_voxels (IsotropicGrid), raise discrete.spacing, or use another device"
    )
