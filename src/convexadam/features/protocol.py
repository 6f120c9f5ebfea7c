"""What a feature extractor is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, final, runtime_checkable

import torch

from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.errors import ConfigError
from convexadam.geometry import Image
from convexadam.kernels.resize import pool


@runtime_checkable
class Features(Protocol):
    """Anything that turns an image into a feature map: a component of this package, or a function of yours.

    It is called once for the fixed and once for the moving image, both already on the working grid.
    """

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Describe each voxel.

        Parameters
        ----------
        image
            ``[c, i, j, k]``, finite.
        weight
            Evidence of each voxel, ``[i, j, k]`` (0 outside the mask or field of view); only for statistics, such
            as a mean, that should leave those voxels out.

        Returns
        -------
        ``[f, i, j, k]``, float32 on the image's device, ``f`` the same for both images.
        """
        ...


@runtime_checkable
class LocalFeatures(Features, Protocol):
    """Features that say how far a description looks."""

    @property
    def reach(self) -> int:
        """Voxels around each voxel that its description depends on."""
        ...


@runtime_checkable
class PooledFeatures(Features, Protocol):
    """Features that can be averaged over blocks as they arise, so that a whole map never exists."""

    def pooled(
        self, image: Image, spacings: tuple[Triple, ...], /, *, weight: Volume | None = None
    ) -> tuple[Pooled, ...]:
        """Describe an image and average over blocks, as calling and `convexadam.kernels.resize.pool` would.

        One map ``[f, i // si, j // sj, k // sk]`` for each of ``spacings``, which are in voxels.
        """
        ...


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """An image, already on the working grid, with all that is known of its voxels.

    Attributes
    ----------
    image
        ``[c, i, j, k]``, finite.
    weight
        Evidence of each voxel, ``[i, j, k]``; ``None`` for 1 everywhere.
    labels
        What each voxel shows, where that came: one channel of whole numbers, or a probability of each class as a
        channel in floating point.
    """

    image: Image
    weight: Volume | None = None
    labels: Image | None = None


@runtime_checkable
class PairFeatures(Protocol):
    """Features that describe both images together, since what is in one decides how the other is described."""

    @property
    def uses_labels(self) -> bool:
        """Whether both scans need labels."""
        ...

    def pooled_pair(self, fixed: Scan, moving: Scan, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Describe both images, averaged over blocks: two maps ``[f, i // si, j // sj, k // sk]`` for each spacing."""
        ...


Pair: TypeAlias = tuple[Pooled, Pooled]
"""Feature maps of the fixed and of the moving image, with as many channels."""

Extractor: TypeAlias = Features | PairFeatures
"""What `RegistrationConfig` and `Concat` take."""


def pooled_pair(features: Extractor, fixed: Scan, moving: Scan, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
    """Feature maps of both images averaged over blocks of ``spacings`` voxels, by whatever way there is.

    Raises
    ------
    ConfigError
        If the extractor returns no tensor ``[f, i, j, k]`` on the image's voxels and device.
    InputError
        If the labels are not what the extractor needs.
    """
    if isinstance(features, PairFeatures):
        return features.pooled_pair(fixed, moving, spacings)
    here, there = (pooled_features(features, s.image, spacings, weight=s.weight) for s in (fixed, moving))
    return tuple(zip(here, there, strict=True))


def pooled_features(
    features: Features, image: Image, spacings: tuple[Triple, ...], *, weight: Volume | None = None
) -> tuple[Pooled, ...]:
    """Feature maps of an image averaged over blocks of ``spacings`` voxels, by whatever way there is.

    Raises
    ------
    ConfigError
        If the extractor returns no tensor ``[f, i, j, k]`` on the image's voxels and device.
    """
    if isinstance(features, PooledFeatures):
        return features.pooled(image, spacings, weight=weight)
    whole = features(image, weight=weight)
    if not isinstance(whole, torch.Tensor) or whole.ndim != 4 or whole.shape[1:] != image.data.shape[1:]:
        came = tuple(whole.shape) if isinstance(whole, torch.Tensor) else type(whole).__name__
        raise ConfigError(
            f"features are a tensor [f, i, j, k] with {image.grid.shape} voxels, but {came} came from {features!r}"
        )
    if whole.shape[0] == 0:
        raise ConfigError(f"features have at least one channel, but none came from {features!r}")
    if whole.device != image.data.device:
        raise ConfigError(
            f"the images are on {image.data.device}, but features on {whole.device} came from {features!r}; "
            "return them on the image's device"
        )
    return tuple(pool(whole.float(), spacing, weight=weight) for spacing in spacings)


def is_extractor(value: object) -> bool:
    """Whether something can describe images, as far as one can tell without one."""
    return isinstance(value, PairFeatures) or callable(value)


def check_no_class(features: object, name: str) -> None:
    """Raise `ConfigError` for a class: it can be called, but makes an extractor instead of features."""
    if isinstance(features, type):
        raise ConfigError(
            f"{name} takes an extractor, but the class {features.__name__} came; make one: {features.__name__}(...)"
        )


def uses_labels(features: Extractor) -> bool:
    """Whether features look at labels of both images."""
    return isinstance(features, PairFeatures) and features.uses_labels


def reach_of(features: Extractor) -> int:
    """How many voxels from the edge of the field of view a description is guesswork; 0 where that is not known."""
    return features.reach if isinstance(features, LocalFeatures) else 0
