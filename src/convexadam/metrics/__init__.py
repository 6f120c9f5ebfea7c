"""Evaluation of a registration: overlap, surface distance, landmark error and regularity of the field."""

from convexadam.metrics.folding import folded_percent, sdlogj, sdlogj_plain
from convexadam.metrics.landmarks import tre
from convexadam.metrics.overlap import common_labels, dice
from convexadam.metrics.summary import Evaluation, evaluate_transform, tail_mean
from convexadam.metrics.surface import hd95
from convexadam.metrics.surfels import hd95_area_weighted

__all__ = [
    "Evaluation",
    "common_labels",
    "dice",
    "evaluate_transform",
    "folded_percent",
    "hd95",
    "hd95_area_weighted",
    "sdlogj",
    "sdlogj_plain",
    "tail_mean",
    "tre",
]
