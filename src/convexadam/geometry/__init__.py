"""Grids, images and transforms in millimetres RAS+."""

from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.resample import resample
from convexadam.geometry.transform import DisplacementField
from convexadam.kernels.jacobian import jacobian_determinant

__all__ = ["DisplacementField", "Grid", "Image", "jacobian_determinant", "resample"]
