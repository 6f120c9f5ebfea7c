"""Squared feature difference under a displacement, and its gradient."""

from convexadam.kernels.warp_ssd.reference import evidence_under, ssd, warp_ssd

__all__ = ["evidence_under", "ssd", "warp_ssd"]
