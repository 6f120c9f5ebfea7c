"""Quantiles on the CPU, where `convexadam.Intensity` knows how many voxels count, and sorts them with numpy."""

from convexadam.kernels.intensity_range.reference import map_quantiles

__all__ = ["map_quantiles"]
