"""Linear registration: a rigid, similarity or affine transform, alone or before the deformable stages."""

from convexadam.linear.alignment import LinearAlignment, LinearFit
from convexadam.kernels.trimmed_fit import Model

__all__ = ["LinearAlignment", "LinearFit", "Model"]
