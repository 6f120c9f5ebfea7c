"""Costs of all displacements within a window, and their reverse direction."""

from convexadam.kernels.cost_volume.reference import (
    cost_volume,
    feature_distances,
    fill_without_evidence,
    mean_over_neighbours,
    reverse_cost,
)

__all__ = ["cost_volume", "feature_distances", "fill_without_evidence", "mean_over_neighbours", "reverse_cost"]
