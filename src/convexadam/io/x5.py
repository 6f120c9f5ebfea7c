"""X5 files (the draft of BIDS for transforms), read and written with nitransforms."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._atomic import atomic_path
from convexadam.errors import FileError, MissingExtraError
from convexadam.geometry import Affine, DisplacementField, Grid, Transform
from convexadam.io.coordinates import to_field, vectors_to_tensor
from convexadam.io.hdf5 import check_hdf5
from convexadam.io.headers import hdf5_contains
from convexadam.io.reading import StrPath, check_file
from convexadam.io.transform_format import FileHeader


@check_arguments
def write_x5(transform: Transform, path: StrPath, *, fixed: Grid | None = None) -> None:
    """Write an affine transform as an X5 matrix, any other as an X5 field of displacements in mm RAS+, float32.

    Parameters
    ----------
    transform
        From fixed to moving space. A chain becomes a field on the fixed grid.
    path
        ``*.x5``.
    fixed
        The fixed grid; ``None`` takes the grid of the transform. It is optional for a matrix, and stored with it.

    Raises
    ------
    ConfigError
        If ``fixed`` is ``None`` and a chain has no grid.
    FileError
        If the file cannot be written.
    MissingExtraError
        If nitransforms is not installed.

    Examples
    --------
    >>> from convexadam import Affine, read_transform
    >>> from convexadam.io import write_x5
    >>> write_x5(Affine(), "identity.x5")
    >>> read_transform("identity.x5").matrix.diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    x5 = _import_x5("writing X5")
    field = None if isinstance(transform, Affine) else to_field(transform, fixed)
    grid = fixed if field is None else field.grid
    domain = grid and x5.X5Domain(grid=True, size=grid.shape, mapping=grid.affine, coordinates="cartesian")
    kinds = ("space", "space", "space", "vector")
    if field is None:
        assert isinstance(transform, Affine)
        matrix = {"type": "linear", "subtype": "affine", "representation": "matrix", "transform": transform.matrix}
        node = x5.X5Transform(**matrix, dimension_kinds=kinds, domain=domain)
    else:
        vectors = field.disp_mm.detach().cpu().float().movedim(0, -1).numpy()
        dense = {"type": "nonlinear", "subtype": "densefield", "representation": "displacements", "transform": vectors}
        node = x5.X5Transform(**dense, dimension_kinds=kinds, domain=domain)
    with atomic_path(path) as temporary:
        x5.to_filename(temporary, [node])


@check_arguments
def read_x5(path: StrPath, *, device: torch.device | str | None = None) -> Transform:
    """Read an X5 file that holds one affine transform, or one field of displacements.

    Raises
    ------
    FileError
        If it is damaged, is not an X5 file, or holds several transforms or transforms of another kind.
    MissingExtraError
        If nitransforms is not installed.

    Examples
    --------
    >>> from convexadam import Affine
    >>> from convexadam.io import read_x5, write_x5
    >>> write_x5(Affine(), "identity.x5")
    >>> read_x5("identity.x5").matrix.diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    x5 = _import_x5("reading X5")
    with check_file(path, "an X5 file") as source:
        check_hdf5(source)
        try:
            nodes = x5.from_filename(source)
        except (TypeError, KeyError, RuntimeError) as error:
            raise FileError(f"cannot read an X5 file from {source}: {error}; check whether it is damaged") from error
        if len(nodes) != 1:
            raise FileError(
                f"{source} must hold one transform, got {len(nodes)}, whose order X5 does not define; write each alone"
            )
        return _parse_node(nodes[0], str(source), device)


def detect_x5(header: FileHeader) -> bool:
    """Whether a file is X5."""
    return hdf5_contains(header, b"TransformGroup", b"X5")


def _parse_node(node: Any, source: str, device: torch.device | str | None) -> Transform:
    if node.type == "linear" and node.array_length == 1:
        return Affine(np.asarray(node.transform))
    if node.type == "nonlinear" and node.representation == "displacements" and node.domain is not None:
        values, shape = np.asarray(node.transform), tuple(int(n) for n in node.domain.size)
        if len(shape) == 3 and values.shape == (*shape, 3):
            return DisplacementField(vectors_to_tensor(values, device), Grid(shape, node.domain.mapping))
    raise FileError(
        f"{source} must hold one matrix or one field of displacements, got a {node.type} transform ({node.subtype}, "
        f"{node.representation}); convert it with nitransforms"
    )


def _import_x5(purpose: str) -> Any:
    try:
        return importlib.import_module("nitransforms.io.x5")
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs nitransforms, which is not installed: pip install 'convexadam-torch[nitransforms]'"
        ) from error
