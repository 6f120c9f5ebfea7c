"""Dissimilarity on the CPU, where torch takes less time than the search beside it."""

from convexadam.kernels.dissimilarity.reference import measure_dissimilarity

__all__ = ["measure_dissimilarity"]
