"""On GPUs, torch solves the systems of many voxels at once."""

from convexadam.kernels.joint_fusion.reference import compute_joint_weights

__all__ = ["compute_joint_weights"]
