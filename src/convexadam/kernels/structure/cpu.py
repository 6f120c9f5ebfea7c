"""Differences from neighbours on the CPU, where torch takes less time than the search beside it."""

from convexadam.kernels.structure.reference import sum_differences

__all__ = ["sum_differences"]
