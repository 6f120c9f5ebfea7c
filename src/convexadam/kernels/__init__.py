"""Numerical operations: tensors in, tensors out, in voxels; one folder for each operation.

A folder's ``__init__`` is the operation's contract and picks what runs; ``reference.py`` is its torch implementation,
on any device and in any precision; ``cpu.py`` (numba) and ``triton.py`` are compiled, for float32.
"""

from convexadam.kernels._backend import (
    Backend,
    backend_for,
    checked_backend,
    compiled_for_float32,
    requested_backend,
    use_backend,
)

__all__ = ["Backend", "backend_for", "checked_backend", "compiled_for_float32", "requested_backend", "use_backend"]
