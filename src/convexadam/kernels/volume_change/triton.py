"""Penalty of volume changes on the GPU, by the reference: a few dozen elementwise passes."""

from convexadam.kernels.volume_change.reference import volume_change

__all__ = ["volume_change"]
