"""What a feature extractor is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from convexadam._typing import Channels, Volume
from convexadam.errors import ConfigError
from convexadam.geometry import Image


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


def check_no_class(features: object, name: str) -> None:
    """Raise `ConfigError` for a class: it can be called, but makes an extractor instead of features."""
    if isinstance(features, type):
        raise ConfigError(
            f"{name} takes an extractor, but the class {features.__name__} came; make one: {features.__name__}(...)"
        )


def reach_of(features: Features) -> int:
    """How many voxels from the edge of the field of view a description is guesswork; 0 where that is not known."""
    return features.reach if isinstance(features, LocalFeatures) else 0
