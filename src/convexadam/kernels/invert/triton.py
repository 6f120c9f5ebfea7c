"""Inversion on the GPU, by the reference: few registrations need it, and it takes milliseconds."""

from convexadam.kernels.invert.reference import origins

__all__ = ["origins"]
