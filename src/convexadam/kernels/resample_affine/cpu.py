"""Resampling by a linear map on the CPU, where `convexadam.geometry.resample` knows it and does less."""

from convexadam.kernels.resample_affine.reference import resample_affine

__all__ = ["resample_affine"]
