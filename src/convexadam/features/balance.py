"""What features of labels have in common: rare ones count more."""

from __future__ import annotations

from convexadam._typing import Float, Tensor
from convexadam.errors import ConfigError
from convexadam.features.protocol import Scan
from convexadam.geometry import Image


def balanced(voxels: Float[Tensor, " n"], balance: float) -> Float[Tensor, " n"]:
    """Factor of each class, ``voxels ** -balance`` over the mean of that; 0 for a class of less than a voxel.

    Those classes have no part in the mean either. Siebert, Hansen and Heinrich (Learn2Reg 2021) have a balance of 0.3.
    """
    there = voxels >= 1
    powers = voxels.clamp_min(1).pow(-balance).where(there, voxels.new_zeros(()))
    return powers * there.sum().clamp_min(1) / powers.sum().clamp_min(1e-30)


def labels_of(scan: Scan, who: str) -> Image:
    """Labels of a scan; raise where there are none, and say how they come."""
    if scan.labels is None:
        raise ConfigError(
            f"{who} compares labels, but none came; give fixed_labels and moving_labels to register (the images "
            "themselves, where they are label maps)"
        )
    return scan.labels
