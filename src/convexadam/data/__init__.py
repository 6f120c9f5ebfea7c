"""Procedural phantoms with exact ground truth, of any size."""

from convexadam.data.phantom import PhantomPair, phantom_pair

__all__ = ["PhantomPair", "phantom_pair"]
