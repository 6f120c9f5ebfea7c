"""Between voxels and the nodes of a pooled grid: node ``n`` lies at voxel ``s n + (s - 1) / 2``."""

from convexadam.kernels.resize.reference import interpolation_matrix, nodes_to_voxels, pool, voxels_to_nodes

__all__ = ["interpolation_matrix", "nodes_to_voxels", "pool", "voxels_to_nodes"]
