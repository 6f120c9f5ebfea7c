"""Separable smoothing, exact at borders: no energy leaks out of the volume."""

from convexadam.kernels.smooth.reference import along_axes, smoothing_matrix

__all__ = ["along_axes", "smoothing_matrix"]
