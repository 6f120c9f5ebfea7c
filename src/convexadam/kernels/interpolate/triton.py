"""Linear interpolation on the GPU, by the reference.

Its products with small matrices run at almost the speed of a copy, twice in a registration.
"""

from convexadam.kernels.interpolate.reference import interpolate

__all__ = ["interpolate"]
