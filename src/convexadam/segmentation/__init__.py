"""Segmentation by several atlases: fusion of the labels of images that were registered to a target."""

from convexadam.segmentation.fusion import Fusion, LabelFusion, fuse_labels
from convexadam.segmentation.methods import JointFusion, LocalVote, MajorityVote, NonLocalVote
from convexadam.segmentation.segment import Segmentation, segment, segment_left_out

__all__ = [
    "Fusion",
    "JointFusion",
    "LabelFusion",
    "LocalVote",
    "MajorityVote",
    "NonLocalVote",
    "Segmentation",
    "fuse_labels",
    "segment",
    "segment_left_out",
]
