"""Pictures of slices as they are embedded in a page: compressed, with data URIs, and as SVG paths."""

from __future__ import annotations

import base64
import io

import numpy as np

from convexadam.errors import MissingExtraError

_QUALITY = 80
"""Of WebP: 8 kB for a slice of a head."""

LARGEST_CHANGE = 4.0
"""Volume change at the ends of the colours of the Jacobian determinant: a quarter, and four times."""

_FOLD = np.array([0, 0, 0])
"""Colour of folds, which the map does not have."""


def check_extra() -> None:
    """Raise unless the packages of the extra ``report`` are installed, before any work.

    Raises
    ------
    MissingExtraError
        If matplotlib or Pillow, which comes with it, is missing.
    """
    try:
        import matplotlib  # noqa: F401 - whether it is there
        import PIL  # noqa: F401
    except ImportError as error:
        hint = 'pip install "convexadam-torch[report]"'
        raise MissingExtraError(f"{error.name} must be installed for pages, got no such package; {hint}") from error


def fit_size(shape: tuple[int, int], aspect: float, longest: int) -> tuple[int, int]:
    """Return width and height of a picture whose pixels have an aspect (height to width), with one longest side."""
    rows, columns = shape[0] * aspect, float(shape[1])
    scale = longest / max(rows, columns)
    return max(1, round(columns * scale)), max(1, round(rows * scale))


def resize(picture: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """Resize a picture of numbers to width and height: bicubic, or nearest neighbour."""
    from PIL import Image

    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    values = np.ascontiguousarray(picture, dtype=np.int32 if nearest else np.float32)
    return np.asarray(Image.fromarray(values).resize(size, method))


def resize_colours(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize RGB by nearest neighbour, so that no colour is mixed that the map does not have."""
    return np.stack([resize(picture[..., c], size, nearest=True) for c in range(3)], axis=-1).astype(np.uint8)


def encode_picture(picture: np.ndarray) -> str:
    """Return a data URI: WebP of shades of grey in [0, 1] or of 8-bit RGB; PNG with transparency of 8-bit RGBA."""
    from PIL import Image

    if picture.dtype != np.uint8:
        picture = np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    if picture.ndim == 3 and picture.shape[2] == 4:
        Image.fromarray(picture).quantize(16).save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        Image.fromarray(picture).convert("RGB").save(buffer, format="WEBP", quality=_QUALITY, method=2)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def colour_jacobian(determinants: np.ndarray) -> np.ndarray:
    """Return RGB of a map that diverges at 1 on a logarithmic scale: purple shrinks, orange grows; folds are black."""
    from matplotlib import colormaps

    exponents = np.log2(np.maximum(determinants, 1e-6)) / np.log2(LARGEST_CHANGE)
    colours = colormaps["PuOr_r"](np.clip(0.5 + exponents / 2, 0, 1))[..., :3]
    shades: np.ndarray = np.round(255 * colours).astype(np.uint8)
    shades[determinants <= 0] = _FOLD
    return shades


def colour_share(values: np.ndarray) -> np.ndarray:
    """Return RGB of values in [0, 1], from black over violet to light yellow."""
    from matplotlib import colormaps

    return np.asarray(np.round(255 * colormaps["inferno"](np.clip(values, 0, 1))[..., :3]), dtype=np.uint8)


def draw_outlines(regions: np.ndarray, colour: tuple[int, int, int], width: int = 1) -> np.ndarray:
    """Return RGBA with the boundaries between the regions of a picture of whole numbers."""
    edge = np.zeros(regions.shape, bool)
    for step in range(1, width + 1):
        edge[:, :-step] |= regions[:, step:] != regions[:, :-step]
        edge[:-step] |= regions[step:] != regions[:-step]
    picture = np.zeros((*regions.shape, 4), np.uint8)
    picture[edge] = (*colour, 255)
    return picture


def group_levels(picture: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Return how many of the levels each pixel exceeds, whose outlines are iso-contours."""
    return np.asarray(np.sum([picture > level for level in levels], axis=0), dtype=np.int32)


def draw_lines(x: np.ndarray, y: np.ndarray, positions: tuple[range, range]) -> str:
    """Return the path data of SVG of rows and columns of points."""
    lines = [(x[row], y[row]) for row in positions[0]] + [(x[:, column], y[:, column]) for column in positions[1]]
    return " ".join("M" + " ".join(f"{a:.0f},{b:.0f}" for a, b in zip(*line, strict=True)) for line in lines)


def draw_grid(x: np.ndarray, y: np.ndarray, size: tuple[int, int], step: int) -> np.ndarray:
    """Return a picture of every ``step``-th row and column of points, whose positions are given in pixels."""
    from PIL import Image, ImageDraw

    finer = 3  # smooths the lines, which have one pixel
    canvas = Image.new("L", (finer * size[0], finer * size[1]), 255)
    pen = ImageDraw.Draw(canvas)
    rows = [(x[row], y[row]) for row in range(0, x.shape[0], step)]
    for line in rows + [(x[:, column], y[:, column]) for column in range(0, x.shape[1], step)]:
        pen.line([(finer * float(a), finer * float(b)) for a, b in zip(*line, strict=True)], fill=0, width=finer)
    return np.asarray(canvas.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255
