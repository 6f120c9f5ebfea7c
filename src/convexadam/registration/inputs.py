"""What comes in, checked once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from convexadam._typing import Channels, Triple
from convexadam.continuous import Refinement
from convexadam.errors import ConfigError, InputError
from convexadam.features import Extractor, Scan, pooled_pair, uses_labels
from convexadam.geometry import Affine, Image, Transform
from convexadam.geometry.tensors import all_finite
from convexadam.io import as_image, has_affine, read_transform

_LARGEST_LABEL = 2**53
"""Up to here floating-point numbers tell whole numbers apart."""

_LARGEST_FEATURE = 1e12
"""Squared and summed over all voxels, larger ones would leave float32."""


def checked_image(value: Any, affine: Any, device: torch.device | str | None, name: str) -> Image:
    """Turn any accepted form into an image that can be registered, or say why not."""
    try:
        target = None if device is None else torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"the device {str(device)!r} cannot be used ({_first_line(error)}); "
            "name one that torch has here, such as 'cpu'"
        ) from error
    image = as_image(value, affine, device=target)
    if image.data.is_floating_point() and not all_finite(image.data):
        bad = int((~image.data.isfinite()).sum())
        raise InputError(
            f"the {name} image holds {bad} NaN or Inf of {image.data.numel()} values; "
            "replace them (for example by the background value) before registering"
        )
    return image


def checked_mask(value: Any, image: Image, name: str, *, whose: str | None = None) -> Image | None:
    """Turn a mask into weights, 0 or 1 (uint8) or in [0, 1] (float32); an array takes the grid of its image.

    Whole numbers and truth values are 1 inside, which is above 0; floating-point numbers are weights.
    """
    if value is None:
        return None
    mask = _beside(image, value, f"the {name} mask", whose or name)
    if mask.data.is_floating_point() and not all_finite(mask.data):
        raise InputError(f"the {name} mask holds NaN or Inf; it should be above 0 inside and 0 outside")
    low, high = float(mask.data.min()), float(mask.data.max())
    if not high > 0:
        raise InputError(f"the {name} mask is empty: no value is above 0; leave it out to use the whole image")
    if mask.is_label:
        return Image((mask.data > 0).to(torch.uint8), mask.grid)
    if low < 0 or high > 1:
        raise InputError(
            f"the {name} mask is of floating-point numbers, which are weights in [0, 1], but they reach from {low:g} "
            f"to {high:g}; pass mask > 0 for a mask, or divide by the largest weight"
        )
    return Image(mask.data.float(), mask.grid)


def checked_kept(value: Any, fixed: Image, refine: Refinement | None) -> Image | None:
    """Turn a mask of what is to be kept in volume into weights in [0, 1] (float32), if the settings keep volumes."""
    if value is None:
        return None
    if refine is None or not refine.keeps_volume:
        raise ConfigError(
            "keep_volume came, but no setting keeps volumes; add VolumePreserving() to continuous.regularisers"
        )
    mask = checked_mask(value, fixed, "keep_volume", whose="fixed")
    assert mask is not None  # something came
    return Image(mask.data.float(), mask.grid)


def checked_regions(value: Any, fixed: Image, refine: Refinement | None) -> Image | None:
    """Turn regions into labels of whole numbers, if the settings smooth along their boundaries."""
    if value is None:
        return None
    if refine is None or not any(refine.guided(number) for number in range(len(refine.levels))):
        raise ConfigError(
            "regions came, but no setting heeds them; set field_smoothing=BilateralSmoothing() in "
            "continuous.parametrisation (Compositional or StationaryVelocity)"
        )
    labels = _beside(fixed, value, "the mask of regions", "fixed")
    if not labels.is_label:
        raise InputError(f"regions are labels, whole numbers, but {labels.data.dtype} came; round them")
    return labels


def checked_labels(
    values: tuple[Any, Any], images: tuple[Image, Image], compared: Iterable[Extractor]
) -> tuple[Image | None, Image | None]:
    """Turn what features compare beside the images into labels: both or, where nothing looks at them, none.

    One channel of whole numbers, of any type, stays whole; probabilities, of several channels, become float32.
    """
    wanted = any(map(uses_labels, compared))
    if all(value is None for value in values):
        if wanted:
            raise ConfigError(
                "the features compare labels, but none came; give fixed_labels and moving_labels (the images "
                "themselves, where they are label maps)"
            )
        return None, None
    if not wanted:
        raise ConfigError(
            "labels came, but no features compare them; set features to LabelFeatures() or ProbabilityFeatures(), or "
            "to a Concat with one of them"
        )
    if any(value is None for value in values):
        raise ConfigError("labels of one image came alone; give both fixed_labels and moving_labels")
    fixed, moving = (
        _labels_of(image, value, name) for value, image, name in zip(values, images, ("fixed", "moving"), strict=True)
    )
    return fixed, moving


def _labels_of(image: Image, value: Any, name: str) -> Image:
    found = _beside(image, value, f"the map of {name} labels", name, channels=True)
    if found.data.is_floating_point() and not all_finite(found.data):
        raise InputError(f"the {name} labels hold NaN or Inf; replace them, for example by 0, the background")
    if found.data.shape[0] > 1:
        return Image(found.data.float(), found.grid)
    if not found.is_label and bool(((found.data != found.data.round()) | (found.data.abs() > _LARGEST_LABEL)).any()):
        raise InputError(
            f"the {name} labels are one channel of numbers that are not whole; pass whole numbers, or for "
            "probabilities a channel for each class"
        )
    low, high = (int(end) for end in torch.aminmax(found.data))
    types = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return Image(found.data.to(next(t for t in types if _holds(t, low, high))), found.grid)


def _holds(dtype: torch.dtype, low: int, high: int) -> bool:
    return torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max


def _beside(image: Image, value: Any, name: str, whose: str, *, channels: bool = False) -> Image:
    """Return what belongs to an image, as one of one channel if there may not be more; an array takes its grid."""
    is_array = not has_affine(type(value))
    if is_array and isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[0] == 1:
        value = value[0]
    shape = tuple(value.shape[1:] if channels and value.ndim == 4 else value.shape) if is_array else image.grid.shape
    if shape != image.grid.shape:
        raise InputError(
            f"{name} has shape {shape} but the {whose} image {image.grid.shape}; "
            "pass a mask of that shape, or one with its own affine (Image or file)"
        )
    affine = image.grid.affine if is_array else None
    found = as_image(value, affine, channels=channels, device=image.data.device)
    if found.data.shape[0] != 1 and not channels:
        raise InputError(f"a mask has one channel, but {name} has {found.data.shape[0]}")
    return found


def checked_initial(value: Any, fixed: Image, moving: Image) -> Transform | None:
    """Turn an initial transform, a 4x4 matrix or the path of a file into a transform from one image to the other."""
    if value is None or isinstance(value, Transform):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return Affine(value)
    if isinstance(value, (str, os.PathLike)):
        return read_transform(value, fixed=fixed, moving=moving, device=fixed.data.device)
    raise InputError(f"an initial transform is a transform, a 4x4 matrix or a file, but a {type(value).__name__} came")


def checked_features(
    extractor: Extractor, scans: tuple[Scan, Scan], spacings: tuple[Triple, ...]
) -> list[tuple[Channels, Channels]]:
    """Describe both images at each spacing, and make sure that the descriptions can be compared."""
    fixed, moving = zip(*pooled_pair(extractor, *scans, spacings), strict=True)
    if fixed[0].shape[0] != moving[0].shape[0]:
        raise ConfigError(
            f"both images need as many feature channels, but {fixed[0].shape[0]} and {moving[0].shape[0]} came"
        )
    in_memory = (f if f.is_contiguous() else f.movedim(0, -1) for f in (*fixed, *moving))  # quicker in that order
    ends = torch.stack([end for features in in_memory for end in torch.aminmax(features)])
    largest = float(ends.abs().max())
    if not math.isfinite(largest):
        raise ConfigError(f"the features from {extractor!r} hold NaN or Inf")
    if largest > _LARGEST_FEATURE:
        raise ConfigError(
            f"the features from {extractor!r} reach {largest:g}, too large to square; scale them to about 1"
        )
    return list(zip(fixed, moving, strict=True))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
