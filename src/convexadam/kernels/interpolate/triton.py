"""Linear interpolation on a GPU: that of torch.

Products with small matrices run close to the speed of a copy there, and only twice for a registration.
"""

from convexadam.kernels.interpolate.reference import interpolated

__all__ = ["interpolated"]
