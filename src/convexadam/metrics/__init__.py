"""How good a registration is: overlap, surfaces, landmarks and folding."""

from convexadam.metrics.folding import folded_percent, sdlogj, sdlogj_plain
from convexadam.metrics.landmarks import tre
from convexadam.metrics.overlap import common_labels, dice
from convexadam.metrics.summary import Evaluation, evaluate_transform, worst_mean
from convexadam.metrics.surface import hd95
from convexadam.metrics.surfels import hd95_by_area

__all__ = [
    "Evaluation",
    "common_labels",
    "dice",
    "evaluate_transform",
    "folded_percent",
    "hd95",
    "hd95_by_area",
    "sdlogj",
    "sdlogj_plain",
    "tre",
    "worst_mean",
]
