"""Jacobian determinants on a GPU: those of torch.

They run once for a registration, in slabs, as a handful of elementwise passes.
"""

from convexadam.kernels.jacobian.reference import jacobian_determinant

__all__ = ["jacobian_determinant"]
