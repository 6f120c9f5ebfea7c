"""Numerical operations on tensors, one folder for each operation.

``__init__.py`` of a folder documents the operation and dispatches to an implementation: ``reference.py`` is written in
torch, for any device and precision; ``cpu.py`` (numba) and ``triton.py`` are compiled, for float32.

Fields and maps are sampled at the voxels of an image or at the control points of a coarser grid. Positions are indices
of that grid, and displacements are in its grid units: 1 is the distance of neighbouring voxels or control points.
"""

from convexadam.kernels._backend import (
    Backend,
    backend_for,
    check_backend,
    compiled_for_float32,
    override_backend,
    requested_backend,
    use_backend,
)

__all__ = [
    "Backend",
    "backend_for",
    "check_backend",
    "compiled_for_float32",
    "override_backend",
    "requested_backend",
    "use_backend",
]
