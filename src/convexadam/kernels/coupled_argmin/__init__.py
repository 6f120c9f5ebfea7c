"""The cheapest displacement of each cell, with or without a pull towards a given field."""

from convexadam.kernels.coupled_argmin.reference import coupled_argmin

__all__ = ["coupled_argmin"]
