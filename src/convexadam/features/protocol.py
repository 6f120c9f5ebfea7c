"""Protocols of feature extractors, and the functions through which the rest of the library calls them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias, TypeVar, final, runtime_checkable

import torch

from convexadam._arguments import check_arguments, find_obstacle
from convexadam._checks import check_flag, show
from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.errors import ConfigError, ConvexAdamError, is_about_memory
from convexadam.features.working_memory import full_memory_bytes, pooled_memory_bytes
from convexadam.geometry import Image
from convexadam.kernels.resize import pool

T = TypeVar("T")


@runtime_checkable
class Features(Protocol):
    """A feature extractor of single images: a component of this package, or any function with this signature.

    It is called once for the fixed and once for the moving image, both on the working grid.
    """

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Extract a feature vector at each voxel.

        Parameters
        ----------
        image
            ``[c, i, j, k]``, finite.
        weight
            Weight of each voxel, ``[i, j, k]``, not negative, 0 outside the mask or the field of view; ``None``
            weights all voxels equally. It applies to image statistics only, such as a mean.

        Returns
        -------
        ``[f, i, j, k]``, float32 on the device of the image; ``f`` must be equal for both images.
        """
        ...


@runtime_checkable
class LocalFeatures(Features, Protocol):
    """Features with a known receptive field."""

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels of the working grid at which a voxel influences a feature vector."""
        ...


@runtime_checkable
class PooledFeatures(Features, Protocol):
    """Features that can be averaged over blocks during extraction, so that no full-resolution map is stored."""

    def extract_pooled(
        self, image: Image, spacings: tuple[Triple, ...], /, *, weight: Volume | None = None
    ) -> tuple[Pooled, ...]:
        """Extract features averaged over blocks: equal to a call followed by `convexadam.kernels.resize.pool`.

        Parameters
        ----------
        image, weight
            As in `Features`; ``weight`` also weights the averages.
        spacings
            Block sizes along (i, j, k), in voxels.

        Returns
        -------
        One map ``[f, i // si, j // sj, k // sk]`` for each of ``spacings``.
        """
        ...


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureInput:
    """An image on the working grid with its voxel weights and its segmentation.

    Attributes
    ----------
    image
        ``[c, i, j, k]``, finite.
    weight
        Weight of each voxel, ``[i, j, k]``, not negative; ``None`` for 1 everywhere.
    segmentation
        ``None``, or one channel of integer labels, or one floating-point channel of probabilities for each class.
    known
        Features of this image that were extracted before: extractor, spacing, and map.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.features import FeatureInput
    >>> FeatureInput(image=Image(torch.rand(1, 8, 8, 8), Grid((8, 8, 8)))).segmentation is None
    True
    """

    image: Image
    weight: Volume | None = None
    segmentation: Image | None = None
    known: tuple[tuple[Extractor, Triple, Pooled], ...] = ()


@runtime_checkable
class PairFeatures(Protocol):
    """Features extracted from both images jointly, where the features of one image depend on the other image."""

    @property
    def uses_labels(self) -> bool:
        """Whether both inputs must have a segmentation."""
        ...

    def extract_pair(self, fixed: FeatureInput, moving: FeatureInput, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Extract the features of both images, averaged over blocks of ``spacings`` voxels along (i, j, k).

        Returns
        -------
        Two maps ``[f, i // si, j // sj, k // sk]`` for each of ``spacings``.
        """
        ...


@runtime_checkable
class HasChannels(Protocol):
    """Features whose number of channels is known before extraction."""

    def count_channels(self, image_channels: int) -> int | None:
        """Return the number of feature channels of an image with ``image_channels`` channels.

        ``None`` if it depends on the data, such as the labels that occur in a segmentation.
        """
        ...


@runtime_checkable
class EstimatesMemory(Protocol):
    """Features whose working memory is known before extraction."""

    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the peak working memory of extraction beyond images and results, in bytes.

        Per voxel of the working grid, for one image; ``channels`` is the number of feature channels. The memory of a
        network is not included.
        """
        ...


@runtime_checkable
class HoldsSegmentations(Protocol):
    """Features that keep segmentations on the working grid throughout the registration."""

    def segmentation_bytes_per_voxel(self, channels: int) -> float:
        """Return the memory of the segmentations of both images together, in bytes per voxel of the working grid.

        ``channels`` is the number of feature channels.
        """
        ...


@runtime_checkable
class MapLayout(Protocol):
    """Features that specify how their maps are stored."""

    @property
    def channels_last(self) -> bool:
        """Whether the channels of averages over blocks are the fastest axis in memory: the CPU kernels need no copy."""
        ...

    @property
    def joins_maps(self) -> bool:
        """Whether the maps are copies of those of several extractors, both of which exist at the same time."""
        ...


Pair: TypeAlias = tuple[Pooled, Pooled]
"""Feature maps of the fixed and of the moving image, with the same number of channels."""

Extractor: TypeAlias = Features | PairFeatures
"""Type of a feature extractor in `RegistrationConfig` and `Concat`."""


@check_arguments
def extract_pair_features(
    features: Extractor, fixed: FeatureInput, moving: FeatureInput, spacings: tuple[Triple, ...]
) -> tuple[Pair, ...]:
    """Extract the features of both images, averaged over blocks of ``spacings`` voxels.

    Raises
    ------
    ConfigError
        If the extractor does not return a tensor ``[f, i, j, k]`` on the image's voxels and device.
    InputError
        If the extractor cannot use the segmentations.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image, MindSSC
    >>> from convexadam.features import FeatureInput, extract_pair_features
    >>> image = Image(torch.rand(1, 16, 16, 16), Grid((16, 16, 16)))
    >>> [(fixed, moving)] = extract_pair_features(
    ...     MindSSC(), FeatureInput(image=image), FeatureInput(image=image), ((2, 2, 2),)
    ... )
    >>> tuple(fixed.shape)
    (12, 8, 8, 8)
    """
    if isinstance(features, PairFeatures):
        return run_extractor(features, partial(features.extract_pair, fixed, moving, spacings))
    fixed_maps, moving_maps = (extract_unknown(features, source, spacings) for source in (fixed, moving))
    return tuple(zip(fixed_maps, moving_maps, strict=True))


def extract_unknown(features: Features, source: FeatureInput, spacings: tuple[Triple, ...]) -> list[Pooled]:
    """Return the features of an image as `extract_features` does, but extract only those that are not known."""
    maps = {spacing: known for extractor, spacing, known in source.known if extractor == features}
    missing = tuple(spacing for spacing in spacings if spacing not in maps)
    maps |= zip(missing, extract_features(features, source.image, missing, weight=source.weight), strict=True)
    return [maps[spacing] for spacing in spacings]


@check_arguments
def extract_features(
    features: Features, image: Image, spacings: tuple[Triple, ...], *, weight: Volume | None = None
) -> tuple[Pooled, ...]:
    """Extract the features of an image, averaged over blocks of ``spacings`` voxels.

    Raises
    ------
    ConfigError
        If the extractor does not return a tensor ``[f, i, j, k]`` on the image's voxels and device.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image, MindSSC
    >>> from convexadam.features import extract_features
    >>> image = Image(torch.rand(1, 16, 16, 16), Grid((16, 16, 16)))
    >>> [tuple(maps.shape) for maps in extract_features(MindSSC(), image, ((1, 1, 1), (4, 4, 4)))]
    [(12, 16, 16, 16), (12, 4, 4, 4)]
    """
    check_extractor(features, "features", pairs=False)
    if not spacings:
        return ()
    if isinstance(features, PooledFeatures):
        return run_extractor(features, partial(features.extract_pooled, image, spacings, weight=weight))
    maps = run_extractor(features, partial(features, image, weight=weight))
    obstacle = find_obstacle(maps) if isinstance(maps, torch.Tensor) else ""
    if obstacle or not isinstance(maps, torch.Tensor) or maps.ndim != 4 or maps.shape[1:] != image.data.shape[1:]:
        shape = tuple(maps.shape) if isinstance(maps, torch.Tensor) and not obstacle else type(maps).__name__
        got = f"one that {obstacle}" if obstacle else shape
        raise ConfigError(
            f"features must be a tensor [f, i, j, k] with {image.grid.shape} voxels, got {got}; change what "
            f"{features!r} returns"
        )
    if maps.shape[0] == 0:
        raise ConfigError(f"features must have at least one channel, got none; change what {features!r} returns")
    if maps.device != image.data.device:
        raise ConfigError(
            f"features must be on the device of the image, {image.data.device}, got {maps.device}; change what "
            f"{features!r} returns"
        )
    return tuple(pool(maps.float(), spacing, weight=weight) for spacing in spacings)


def run_extractor(features: Extractor, extract: Callable[[], T]) -> T:
    """Run the extraction; an error of an extractor from outside the library becomes a `ConfigError` that names it."""
    try:
        return extract()
    except Exception as error:
        own = str(getattr(features, "__module__", "")).startswith("convexadam.")
        if own or isinstance(error, ConvexAdamError) or is_about_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"features must accept (image, *, weight=None) and return a tensor [f, i, j, k], got the error {reason} "
            f"from {show(features)}; correct the function"
        ) from error


def check_extractor(value: object, name: str, *, pairs: bool = True) -> None:
    """Raise `ConfigError` unless ``value`` can be called as `Features`, or is one of `PairFeatures` if allowed.

    Examples
    --------
    >>> from convexadam.features import check_extractor
    >>> check_extractor(3, "features")
    Traceback (most recent call last):
    convexadam.errors.ConfigError: ...
    """
    check_flag(pairs, "pairs")
    if isinstance(value, type):
        raise ConfigError(f"{name} must be an instance, got the class {value.__name__}; write {value.__name__}(...)")
    if pairs and isinstance(value, PairFeatures):
        return
    if not callable(value) or not _fits_signature(value):
        raise ConfigError(
            f"{name} must be a component or a function (image, *, weight=None), got {show(value)}; accept the image "
            "and the keyword weight, which is None or the weight of each voxel"
        )


def _fits_signature(function: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some compiled callables have no signature
        return True
    try:
        signature.bind(None, weight=None)
    except TypeError:
        return False
    return True


def uses_labels(features: Extractor) -> bool:
    """Whether an extractor needs a segmentation of both images.

    Examples
    --------
    >>> from convexadam.features import LabelFeatures, MindSSC, uses_labels
    >>> uses_labels(MindSSC()), uses_labels(LabelFeatures())
    (False, True)
    """
    return isinstance(features, PairFeatures) and features.uses_labels


def receptive_radius(features: Extractor) -> int:
    """Distance in voxels from the edge of the field of view within which features are unreliable; 0 if unknown.

    Examples
    --------
    >>> from convexadam.features import MindSSC, receptive_radius
    >>> receptive_radius(MindSSC(radius=1, dilation=2)) < receptive_radius(MindSSC(radius=2, dilation=3))
    True
    """
    return features.receptive_radius if isinstance(features, LocalFeatures) else 0


def count_channels(features: Extractor, image_channels: int) -> int | None:
    """Return the number of feature channels of an image with ``image_channels`` channels; ``None`` if unknown.

    Examples
    --------
    >>> from convexadam.features import MindSSC, count_channels
    >>> count_channels(MindSSC(), 1)
    12
    """
    return features.count_channels(image_channels) if isinstance(features, HasChannels) else None


def memory_bytes_per_voxel(features: Extractor, channels: int) -> float:
    """Return the peak working memory of extraction in bytes per voxel, see `EstimatesMemory`.

    If the extractor does not implement that protocol it counts as one that stores full-resolution maps, unless it pools
    during extraction.

    Examples
    --------
    >>> from convexadam.features import MindSSC, memory_bytes_per_voxel
    >>> memory_bytes_per_voxel(MindSSC(), 12) > 0
    True
    """
    if isinstance(features, EstimatesMemory):
        return features.memory_bytes_per_voxel(channels)
    pools = isinstance(features, (PooledFeatures, PairFeatures))
    return pooled_memory_bytes() if pools else full_memory_bytes(channels)


def segmentation_bytes_per_voxel(features: Extractor, channels: int) -> float:
    """Return the memory of both segmentations in bytes per voxel, see `HoldsSegmentations`.

    If the extractor does not implement that protocol its segmentations count as label maps of one byte per voxel.

    Examples
    --------
    >>> from convexadam.features import MindSSC, segmentation_bytes_per_voxel
    >>> segmentation_bytes_per_voxel(MindSSC(), 12)
    0.0
    """
    if isinstance(features, HoldsSegmentations):
        return features.segmentation_bytes_per_voxel(channels)
    return 2.0 * uses_labels(features)
