"""On GPUs, torch counts the votes."""

from convexadam.kernels.label_vote.reference import cast_votes

__all__ = ["cast_votes"]
