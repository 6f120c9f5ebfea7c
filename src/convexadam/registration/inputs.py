"""What a registration is given, checked once."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch

from convexadam._typing import Channels, Triple
from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.features import (
    Extractor,
    FeatureInput,
    PairFeatures,
    extract_pair_features,
    uses_labels,
)
from convexadam.features.protocol import extract_unknown
from convexadam.geometry import Affine, Image, Transform
from convexadam.geometry.grid import sides_mm
from convexadam.geometry.tensors import all_finite, check_values, parse_device
from convexadam.io import as_image, read_transform
from convexadam.io.convert import parse_on_grid_of
from convexadam.kernels._device import read_numbers
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.landmarks import Landmarks
from convexadam.registration.memo import Memo

_MAX_LABEL = 2**53
"""Larger whole numbers are not exact in float64."""

_MAX_FEATURE = 1e12
"""Larger values, squared and summed over all voxels, overflow float32."""

_FEW_VALUES = 256
"""Those of eight bits."""

_MAX_ANISOTROPY = 1000

_SMALL_PERCENT = 5.0
"""Share of an image below which its mask is doubtful: a brain takes 15 to 30 % of its field of view, a lesion 2 %."""

ImagePair: TypeAlias = tuple[Image | None, Image | None]
"""Something optional that belongs to the fixed and to the moving image."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class RegistrationInputs:
    """Both images and what belongs to them, checked; for the meaning see `register`.

    ``search_start`` is a transform at which the search begins, ``initial`` that by which the moving image is resampled.
    ``memo`` has what depends on the fixed image and the settings alone, if other moving images follow.
    """

    fixed: Image
    moving: Image
    masks: ImagePair = (None, None)
    segmentations: ImagePair = (None, None)
    volume_preserving_mask: Image | None = None
    sliding_regions: Image | None = None
    landmarks: Landmarks | None = None
    initial: Transform | None = None
    search_start: Transform | None = None
    memo: Memo | None = None


def parse_images(
    fixed: Any,
    moving: Any,
    device: torch.device | str | None = None,
    *,
    fixed_affine: Any = None,
    moving_affine: Any = None,
) -> tuple[Image, Image]:
    """Return images that can be registered, from any form that `as_image` takes; on the device of the fixed one."""
    images = {"fixed": _parse_image(fixed, fixed_affine, device)}
    images["moving"] = _parse_image(moving, moving_affine, images["fixed"].data.device)
    _check_images(images)
    return images["fixed"], images["moving"]


def parse_fixed_image(value: Any, affine: Any = None, device: torch.device | str | None = None) -> Image:
    """Return a fixed image that can be registered; see `parse_images`."""
    image = _parse_image(value, affine, device)
    _check_images({"fixed": image})
    return image


def _check_images(images: Mapping[str, Image]) -> None:
    for name, image in images.items():
        check_values(image.data, f"the {name} image")
        _check_shape_of_voxels(image, name)
    floating = {name: image for name, image in images.items() if image.data.is_floating_point()}
    if floating:
        ends = {name: torch.aminmax(image.data.detach()) for name, image in floating.items()}
        found = read_numbers({f"{name} {end}": v for name in ends for end, v in zip("<>", ends[name], strict=True)})
        for name, image in floating.items():
            _check_values_of_image(image.data, name, found[f"{name} <"], found[f"{name} >"])


def _check_values_of_image(data: Channels, name: str, low: float, high: float) -> None:
    """Raise if values are not finite, and warn if float32 distinguishes few of them."""
    if not math.isfinite(low) or not math.isfinite(high):  # both are NaN if any value is
        raise InputError(
            f"the {name} image must be finite, got {int((~data.isfinite()).sum())} NaN or Inf in {data.numel()} "
            "values; replace them, for example by the background value"
        )
    if data.dtype != torch.float32:
        return
    distinct = (high - low) / float(np.spacing(np.float32(max(high, -low))))
    if 0 < distinct < _FEW_VALUES:
        warnings.warn(
            f"the {name} image has values from {low:.9g} to {high:.9g}, of which float32 distinguishes {distinct:.0f}; "
            "if it had more contrast, subtract an offset before its conversion to float32, or pass float64",
            stacklevel=5,
        )


def _parse_image(value: Any, affine: Any, device: torch.device | str | None) -> Image:
    return as_image(value, affine, device=None if device is None else parse_device(device))


def _check_shape_of_voxels(image: Image, name: str) -> None:
    """Raise unless an image can be resampled to voxels that are nearly cubic."""
    sides = sides_mm(image.grid)
    ratio = max(sides) / min(sides)
    if ratio > _MAX_ANISOTROPY:
        raise GeometryError(
            f"voxels of the {name} image must be at most {_MAX_ANISOTROPY} times longer than wide, got {ratio:.3g} "
            f"(spacing {image.grid.spacing_mm} mm); correct the header, or pass an affine"
        )


def parse_mask(value: Any, image: Image, name: str, *, belongs_to: str | None = None) -> Image | None:
    """Return a mask as weights, 0 or 1 (uint8) or in [0, 1] (float32); an array takes the grid of its image.

    Whole numbers and truth values are 1 where they are above 0; floating-point numbers are weights.
    """
    if value is None:
        return None
    mask = parse_on_grid_of(image, value, name, belongs_to or name.removesuffix("_mask"))
    if mask.data.is_floating_point() and not all_finite(mask.data):
        raise InputError(f"{name} must be finite, got NaN or Inf; set them to 0 to exclude them")
    low, high = float(mask.data.min()), float(mask.data.max())
    if not high > 0:
        raise InputError(f"{name} must have a value above 0, got an empty mask; omit it to use the whole image")
    if mask.is_label:
        mask = Image((mask.data > 0).to(torch.uint8), mask.grid)
    elif low < 0 or high > 1:
        raise InputError(
            f"{name} must hold weights in [0, 1] if it is floating-point, got values from {low:g} to {high:g}; "
            "pass mask > 0, or divide by the largest weight"
        )
    else:
        mask = Image(mask.data.float(), mask.grid)
    if belongs_to is None:
        _warn_if_small(mask, image, name)
    return mask


def _warn_if_small(mask: Image, image: Image, name: str) -> None:
    """Warn if a mask leaves so little that it is likely to show what should be left out."""
    volumes = [math.prod(part.grid.spacing_mm) for part in (mask, image)]
    percent = 100 * float((mask.data > 0).sum()) * volumes[0] / (volumes[1] * image.grid.n_voxels)
    if percent < _SMALL_PERCENT:
        warnings.warn(
            f"{name} covers {percent:.2g} % of the {name.removesuffix('_mask')} image, and the rest is ignored; if it "
            "shows what to leave out, such as a lesion, pass its complement",
            stacklevel=4,
        )


def parse_volume_preserving_mask(value: Any, fixed: Image, config: RegistrationConfig) -> Image | None:
    """Return a mask as weights in [0, 1] (float32), if a regulariser of the settings uses it."""
    if value is None:
        return None
    if config.continuous is None or not config.continuous.preserves_volume:
        raise ConfigError(
            "volume_preserving_mask must be used by a regulariser, got none that does; add VolumePreserving() to "
            "continuous.regularisers"
        )
    mask = parse_mask(value, fixed, "volume_preserving_mask", belongs_to="fixed")
    assert mask is not None  # there is a value
    return Image(mask.data.float(), mask.grid)


def parse_sliding_regions(value: Any, fixed: Image, config: RegistrationConfig) -> Image | None:
    """Return regions as labels, if a smoothing of the settings uses them."""
    if value is None:
        return None
    refine = config.continuous
    if refine is None or not any(refine.needs_guide(number) for number in range(len(refine.levels))):
        raise ConfigError(
            "sliding_regions must be used by an edge-preserving smoothing, got none that does; set "
            "total_smoothing=BilateralSmoothing() in continuous.parametrisation (Compositional or StationaryVelocity)"
        )
    labels = parse_on_grid_of(fixed, value, "sliding_regions", "fixed")
    if not labels.is_label:
        raise InputError(f"sliding_regions must be whole numbers, got {labels.data.dtype}; round them")
    return labels


def parse_segmentations(values: tuple[Any, Any], images: tuple[Image, Image], config: RegistrationConfig) -> ImagePair:
    """Return what features compare beside the images: both segmentations, or neither if no features use them.

    One channel of whole numbers, of any type, stays whole; probabilities, of several channels, become float32.
    """
    used = any(map(uses_labels, config.extractors))
    given = [value is not None for value in values]
    if not used and any(given):
        raise ConfigError(
            "fixed_segmentation and moving_segmentation must be used by the features, got features that use none; set "
            "features to LabelFeatures() or ProbabilityFeatures(), or to a Concat with one of them"
        )
    if not used:
        return None, None
    if not all(given):
        number = "none" if not any(given) else "one of them"
        raise ConfigError(
            f"fixed_segmentation and moving_segmentation must both be given for these features, got {number}; pass "
            "both (the images themselves, if they are label maps)"
        )
    fixed, moving = (
        _parse_segmentation(image, value, f"{name}_segmentation")
        for value, image, name in zip(values, images, ("fixed", "moving"), strict=True)
    )
    return fixed, moving


def parse_initial(value: Any, fixed: Image, moving: Image) -> Transform | None:
    """Return an initial transform, a 4x4 matrix or the path of a file as a transform from fixed to moving."""
    if value is None or isinstance(value, Transform):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return Affine(value)
    if isinstance(value, (str, os.PathLike)):
        return read_transform(value, fixed=fixed, moving=moving, device=fixed.data.device)
    raise InputError(
        f"initial_transform must be a transform, a 4x4 matrix or the path of a file, got a {type(value).__name__}"
    )


def extract_pair(
    extractor: Extractor,
    images: tuple[FeatureInput, FeatureInput],
    spacings: tuple[Triple, ...],
    memo: Memo | None = None,
) -> list[tuple[Channels, Channels]]:
    """Extract features of both images at each spacing, with as many channels for both.

    ``memo`` keeps those of the fixed image, unless features are extracted from both images together.
    """
    if memo is None or isinstance(extractor, PairFeatures):
        pairs = list(extract_pair_features(extractor, *images, spacings))
    else:
        fixed, moving = images
        maps = memo.get(
            ("features", id(extractor), spacings),
            lambda: extract_unknown(extractor, fixed, spacings),
        )
        others = extract_unknown(extractor, moving, spacings)
        pairs = list(zip(maps, others, strict=True))
    counts = [len(features) for features in pairs[0]]
    if counts[0] != counts[1]:
        raise ConfigError(
            f"features must have as many channels for both images, got {counts[0]} and {counts[1]} from {extractor!r}"
        )
    return pairs


def check_features(extractor: Extractor, largest: float) -> None:
    """Raise unless features can be compared, given their largest absolute value."""
    if not math.isfinite(largest):
        raise ConfigError(f"features must be finite, got NaN or Inf from {extractor!r}")
    if largest > _MAX_FEATURE:
        raise ConfigError(
            f"features must be small enough to square, got up to {largest:g} from {extractor!r}; scale them to about 1"
        )


def _parse_segmentation(image: Image, value: Any, name: str) -> Image:
    found = parse_on_grid_of(image, value, name, name.removesuffix("_segmentation"), channels=True)
    if found.data.is_floating_point() and not all_finite(found.data):
        raise InputError(f"{name} must be finite, got NaN or Inf; replace them, for example by 0, the background")
    if found.data.shape[0] > 1:
        return Image(found.data.float(), found.grid)
    if not found.is_label and bool(((found.data != found.data.round()) | (found.data.abs() > _MAX_LABEL)).any()):
        raise InputError(
            f"{name} must hold whole numbers if it has one channel, got fractions; pass probabilities with one channel "
            "for each class"
        )
    low, high = (int(end) for end in torch.aminmax(found.data))
    types = (torch.uint8, torch.int16, torch.int32, torch.int64)
    smallest = next(t for t in types if torch.iinfo(t).min <= low and high <= torch.iinfo(t).max)
    return Image(found.data.to(smallest), found.grid)
