"""Squared feature difference under a displacement, and its gradient."""

from convexadam.kernels.warp_ssd.reference import ssd, warp_ssd

__all__ = ["ssd", "warp_ssd"]
