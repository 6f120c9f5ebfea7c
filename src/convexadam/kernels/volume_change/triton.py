"""Cost of volume changes on a GPU: that of torch, a few dozen elementwise passes."""

from convexadam.kernels.volume_change.reference import volume_change

__all__ = ["volume_change"]
