"""Costs of all displacements within a window, and their reverse direction."""

from convexadam.kernels.cost_volume.reference import cost_volume, fill_without_evidence, reverse_cost

__all__ = ["cost_volume", "fill_without_evidence", "reverse_cost"]
