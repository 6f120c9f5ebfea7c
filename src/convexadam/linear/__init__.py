"""Linear pre-alignment: a rigid, similarity or affine transform estimated before the deformable stages."""

from convexadam.linear.alignment import LinearAlignment, LinearFit

__all__ = ["LinearAlignment", "LinearFit"]
