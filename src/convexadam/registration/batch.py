"""`register_batch`: several pairs of one shape."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convexadam._arguments import run_untraced
from convexadam._checks import show
from convexadam.errors import InputError
from convexadam.geometry import Image
from convexadam.geometry.tensors import parse_device
from convexadam.io import as_image
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.presets import parse_config
from convexadam.registration.recordings import Recordings
from convexadam.registration.register import form_of, register_with_memo
from convexadam.registration.result import RegistrationResult

_LEAST_RECORDED = 4
"""Pairs; with fewer, recording takes longer than it saves."""


@run_untraced
def register_batch(
    fixed_images: Sequence[Any],
    moving_images: Sequence[Any],
    config: RegistrationConfig | str | None = None,
    *,
    device: torch.device | str | None = None,
) -> list[RegistrationResult]:
    """Register several pairs of one shape, each moving image to its fixed image; for a GPU.

    There, features, search and refinement of the second of at least four pairs are recorded as a CUDA graph, which is
    replayed for all that follow: a few dozen launches for each instead of hundreds, which pays where launching takes
    longer than computing. All images are in memory together, and the recording takes as much memory as `register`,
    beside a copy of a pair on the working grid. On a CPU the pairs are registered one by one. The results are those of
    `register`, bit by bit on a CPU.

    Parameters
    ----------
    fixed_images, moving_images
        Volumes of one shape ``[i, j, k]``, as many moving as fixed ones, in any form that `register` takes. Grids may
        differ; pairs whose working grids differ in spacing or orientation from those before are recorded anew.
    config
        Settings, or the name of a preset; ``None`` is ``"default"``. A linear alignment is estimated for each pair, and
        not recorded. Nothing is recorded with a ``tolerance``, ``different_contrasts``, a `WeightedSum`, an estimated
        volume mask, or components from outside the library.
    device
        Where to compute; ``None`` for the device of each fixed image (arrays and files: the CPU).

    Returns
    -------
    One result for each pair, as `register` returns it; ``timings`` on a GPU have features, search and refinement as
    ``"continuous"``.

    Raises
    ------
    InputError
        If there are not as many moving as fixed images, or shapes differ.
    InputError, GeometryError, FileError, ConfigError, OutOfMemoryError
        As `register`.

    Examples
    --------
    >>> import torch
    >>> from convexadam import register_batch
    >>> volumes = torch.rand(3, 16, 14, 12, generator=torch.Generator().manual_seed(0))
    >>> results = register_batch(volumes, volumes.roll(1, 0))
    >>> [tuple(result.transform.disp_mm.shape) for result in results]
    [(3, 16, 14, 12), (3, 16, 14, 12), (3, 16, 14, 12)]
    """
    settings = parse_config(config)
    _check_list(fixed_images, "fixed_images")
    _check_list(moving_images, "moving_images")
    pairs = _parse_pairs(fixed_images, moving_images, device)
    recordings = Recordings() if len(pairs) >= _LEAST_RECORDED else None
    results = [register_with_memo(fixed, moving, settings, recordings=recordings) for fixed, moving in pairs]
    return [replace(r, moving_type=form_of(moving)) for r, moving in zip(results, moving_images, strict=True)]


def _check_list(images: object, name: str) -> None:
    """Raise unless several images are given one by one."""
    if isinstance(images, (str, os.PathLike)) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise InputError(f"{name} must be a list of images, got {show(images)}; pass [image] for one")
    if isinstance(images, (torch.Tensor, np.ndarray)) and not images.ndim:
        raise InputError(f"{name} must be a list of images, got a single number; pass [image] for one")


def _parse_pairs(
    fixed_images: Sequence[Any], moving_images: Sequence[Any], device: torch.device | str | None
) -> list[tuple[Image, Image]]:
    """Return the images of all pairs."""
    if len(fixed_images) != len(moving_images):
        raise InputError(
            f"moving_images must be as many as fixed_images, {len(fixed_images)}, got {len(moving_images)}; pass one "
            "moving image for each fixed image"
        )
    place = None if device is None else parse_device(device)
    fixed = [as_image(image, device=place) for image in fixed_images]
    moving = [as_image(image, device=f.data.device) for image, f in zip(moving_images, fixed, strict=True)]
    shapes = sorted({image.grid.shape for image in (*fixed, *moving)})
    if len(shapes) > 1:
        raise InputError(
            f"images of a batch must have one shape, got {', '.join(map(str, shapes))}; register pairs of other shapes "
            "in another batch, or each with register"
        )
    return list(zip(fixed, moving, strict=True))
