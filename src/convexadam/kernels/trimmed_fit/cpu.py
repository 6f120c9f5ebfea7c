"""Trimmed fits on the CPU: numpy sorts and solves in compiled code."""

from convexadam.kernels.trimmed_fit.reference import fit_displacements

__all__ = ["fit_displacements"]
