"""MIND-SSC descriptors: self-similarity of a volume around each voxel."""

from convexadam.kernels.mind_ssc.reference import PAIRS, mind_ssc

__all__ = ["PAIRS", "mind_ssc"]
