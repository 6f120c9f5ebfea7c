"""Sampling of volumes at arbitrary positions; the only place that knows ``grid_sample``."""

from convexadam.kernels.warp.reference import compose, identity_positions, inside, sample_linear, sample_nearest

__all__ = ["compose", "identity_positions", "inside", "sample_linear", "sample_nearest"]
