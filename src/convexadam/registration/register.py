"""The pipeline: bring both images to one grid, describe, search, refine, bring the field back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from convexadam.errors import ConfigError, OutOfMemoryError
from convexadam.geometry import Image
from convexadam.kernels import backend_for, requested_backend, use_backend
from convexadam.kernels._precision import full_precision
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.diagnostics import similarity
from convexadam.registration.guide import checked_landmarks
from convexadam.registration.inputs import (
    checked_image,
    checked_initial,
    checked_kept,
    checked_labels,
    checked_mask,
    checked_regions,
)
from convexadam.registration.levels import Described, Subject
from convexadam.registration.memory import give_back_memory
from convexadam.registration.presets import preset
from convexadam.registration.result import RegistrationResult
from convexadam.registration.stages import (
    BothWays,
    Given,
    ended,
    on_working_grid,
    placed,
    refined_throughout,
    searched_throughout,
)

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
        images = fixed_image, moving_image
        given = Given(
            fixed=fixed_image,
            moving=moving_image,
            masks=(checked_mask(fixed_mask, fixed_image, "fixed"), checked_mask(moving_mask, moving_image, "moving")),
            labels=checked_labels((fixed_labels, moving_labels), images, config.compared),
            keep_volume=checked_kept(keep_volume, fixed_image, config.continuous),
            regions=checked_regions(regions, fixed_image, config.continuous),
            landmarks=checked_landmarks(
                fixed_landmarks, moving_landmarks, landmark_weights, (fixed_image.grid, moving_image.grid)
            ),
            initial=checked_initial(initial_transform, fixed_image, moving_image),
        )
    if given.landmarks is not None and config.landmarks is None:
        raise ConfigError("landmarks came, but config.landmarks is None, which refuses them; set it to LandmarkGuide()")
    clock = _Clock(progress, fixed_image.data.device)
    backend = requested_backend() if config.backend == "auto" else config.backend
    with _memory_may_be_short(_memory_advice(fixed_image)), use_backend(backend):
        with clock.stage("linear"):
            begun = placed(given, config)
        with clock.stage("resample"):
            subject = on_working_grid(given, begun, config)
        level, fields = _aligned(subject, clock)
        with clock.stage("finish"):
            diagnostics = similarity(level, fields[0])
            grid, spacing = subject.grid, level.spacing
            del level, subject
            transform, inverse, figures = ended(given, begun, config, grid, spacing, fields)
        ran = backend_for(transform.disp_mm)
    return RegistrationResult(
        linear=begun.linear,
        transform=transform,
        inverse=inverse,
        fixed=fixed_image,
        moving=moving_image,
        config=config,
        seconds=clock.seconds,
        diagnostics=diagnostics | figures,
        backend=ran,
        moving_kind=Image if isinstance(moving, (str, os.PathLike)) else type(moving),
    )


def _aligned(subject: Subject, clock: _Clock) -> tuple[Described, BothWays]:
    """Search and refine: the last level, and displacements in its nodes."""
    with clock.stage("features"):
        coarse, fine = subject.first()
        give_back_memory()
    with clock.stage("discrete"):
        if not coarse:
            assert fine is not None  # one of the two is there
            coarse = [fine]
        level, fields = searched_throughout(subject, coarse)
        coarse.clear()
    with clock.stage("continuous"):
        if fields is not None and subject.config.continuous is not None:
            before = level.spacing
            del level

            def levels(number: int) -> Described:
                return fine if fine is not None and number == 0 else subject.refined(number)

            level, [fields] = refined_throughout(subject, fields, before, levels)
    return level, fields or (level.still(), None)


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
