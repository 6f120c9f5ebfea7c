"""Between voxels and the nodes of a pooled grid: node ``n`` lies at voxel ``s n + (s - 1) / 2``."""

from convexadam.kernels.resize.reference import (
    in_nodes,
    in_voxels,
    interpolation_matrix,
    nodes_to_nodes,
    nodes_to_voxels,
    pool,
    voxels_to_nodes,
)

__all__ = [
    "in_nodes",
    "in_voxels",
    "interpolation_matrix",
    "nodes_to_nodes",
    "nodes_to_voxels",
    "pool",
    "voxels_to_nodes",
]
