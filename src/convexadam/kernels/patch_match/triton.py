"""On GPUs, torch gathers the patches."""

from convexadam.kernels.patch_match.reference import match_patches

__all__ = ["match_patches"]
