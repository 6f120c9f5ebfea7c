"""Pre-alignment: the rigid, similarity or affine transform that lays the moving image onto the fixed one."""

from convexadam.linear.alignment import LinearAlignment, LinearFit

__all__ = ["LinearAlignment", "LinearFit"]
