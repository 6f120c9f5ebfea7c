"""Class weights and input checks shared by the features of segmentations."""

from __future__ import annotations

from convexadam._typing import Float, Tensor
from convexadam.errors import ConfigError
from convexadam.features.protocol import FeatureInput
from convexadam.geometry import Image


def compute_class_factors(voxels: Float[Tensor, " n"], class_balance: float) -> Float[Tensor, " n"]:
    """Compute the factor of each class, ``n ** -class_balance`` over the mean of that over all classes.

    Parameters
    ----------
    voxels
        ``n``, number of voxels of each class; a class of less than one voxel gets 0 and does not enter the mean.
    class_balance
        Not negative. Siebert, Hansen and Heinrich (Learn2Reg 2021) use 0.3.
    """
    present = voxels >= 1
    powers = voxels.clamp_min(1).pow(-class_balance).where(present, voxels.new_zeros(()))
    return powers * present.sum().clamp_min(1) / powers.sum().clamp_min(1e-30)


def get_segmentation(side: FeatureInput, extractor: str) -> Image:
    """Return the segmentation of an input; raise `ConfigError` if it has none."""
    if side.segmentation is None:
        raise ConfigError(
            f"fixed_segmentation and moving_segmentation must be given for {extractor}, got none; pass both to "
            "register (label maps may be passed as images as well)"
        )
    return side.segmentation
