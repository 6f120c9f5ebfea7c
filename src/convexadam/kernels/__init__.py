"""Numerical operations: tensors in, tensors out, in voxels; one folder for each operation.

A folder's ``__init__`` is the operation's contract, ``reference.py`` its torch implementation, which
runs on any device and in any precision.
"""
