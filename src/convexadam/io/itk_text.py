"""Text files of ITK that hold one matrix, read and written without SimpleITK."""

from __future__ import annotations

import re

import numpy as np

from convexadam.geometry import Affine
from convexadam.io.itk import LPS

_HEADER = "#Insight Transform File V1.0"

_MATRIX = re.compile(
    re.escape(_HEADER)
    + r"\s*#Transform 0\s*Transform: (?:AffineTransform|MatrixOffsetTransformBase)_(?:double|float)_3_3\s*"
    r"Parameters:((?:\s+[-+.\deE]+){12})\s*FixedParameters:((?:\s+[-+.\deE]+){3})\s*"
)


def format_affine(transform: Affine) -> str:
    """Return the text of an affine transform with its centre at the origin, in mm LPS; numbers are exact."""
    matrix = LPS @ transform.matrix @ LPS
    parameters = " ".join(map(repr, [*matrix[:3, :3].ravel().tolist(), *matrix[:3, 3].tolist()]))
    return (
        f"{_HEADER}\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: {parameters}\n"
        "FixedParameters: 0 0 0\n"
    )


def parse_affine(text: str) -> Affine | None:
    """Read the text of one affine transform; ``None`` if it holds something else, which SimpleITK may know."""
    found = _MATRIX.fullmatch(text)
    if found is None:
        return None
    try:
        values, centre = (np.array([float(word) for word in group.split()]) for group in found.groups())
    except ValueError:
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = values[:9].reshape(3, 3)
    matrix[:3, 3] = values[9:] + centre - matrix[:3, :3] @ centre
    return Affine(LPS @ matrix @ LPS)
