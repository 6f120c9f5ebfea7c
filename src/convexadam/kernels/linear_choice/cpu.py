"""The choice of linear transforms on the CPU, where torch takes less time than the search beside it."""

from convexadam.kernels.linear_choice.reference import apply_update, compute_mean, keep_better

__all__ = ["apply_update", "compute_mean", "keep_better"]
