"""Linear registration: a rigid, similarity or affine transform, alone or before the deformable stages."""

from convexadam.kernels.trimmed_fit import Model
from convexadam.linear.alignment import LinearAlignment, LinearFit

__all__ = ["LinearAlignment", "LinearFit", "Model"]
