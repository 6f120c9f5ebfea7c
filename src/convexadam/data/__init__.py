"""Procedural scans with exact ground truth, at any size."""

from convexadam.data.phantom import PhantomPair, phantom_pair

__all__ = ["PhantomPair", "phantom_pair"]
