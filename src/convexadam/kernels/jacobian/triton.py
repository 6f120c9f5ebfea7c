"""Jacobian determinants on the GPU, by the reference: a few elementwise passes, once in a registration."""

from convexadam.kernels.jacobian.reference import jacobian_determinant

__all__ = ["jacobian_determinant"]
