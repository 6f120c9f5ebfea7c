"""Inverse on a GPU: that of torch.

Few registrations ask for it, and there it takes milliseconds.
"""

from convexadam.kernels.invert.reference import origins

__all__ = ["origins"]
