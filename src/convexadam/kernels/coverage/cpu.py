"""Coverage on the CPU: torch writes each volume once, and axes that are parallel take a line."""

from convexadam.kernels.coverage.reference import cover

__all__ = ["cover"]
