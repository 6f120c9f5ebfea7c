"""Grids, images and transforms in millimetres RAS+."""

from convexadam.geometry.affine import Affine
from convexadam.geometry.composite import Composite, compose
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.resample import resample
from convexadam.geometry.transform import DisplacementField, Transform
from convexadam.kernels.jacobian import jacobian_determinant

__all__ = [
    "Affine",
    "Composite",
    "DisplacementField",
    "Grid",
    "Image",
    "Transform",
    "compose",
    "jacobian_determinant",
    "resample",
]
