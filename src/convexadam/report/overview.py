"""A registration as notebooks show it: slices before and after with contours of the fixed image, and figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from convexadam.geometry import Image, Transform
from convexadam.report.views import FIXED_COLOUR
from convexadam.viz.canvas import LEVELS
from convexadam.viz.html import make_block, make_pictures, make_table
from convexadam.viz.images import LONGEST
from convexadam.viz.pictures import draw_outlines, fit_size, group_levels, resize
from convexadam.viz.slices import Window, apply_window, choose_window, list_sections


@torch.no_grad()
def make_overview(title: str, transform: Transform, fixed: Image, moving: Image, rows: Mapping[str, str]) -> str:
    """Return HTML of a registration.

    Parameters
    ----------
    title
        What it is.
    transform
        Fixed to moving space.
    fixed, moving
        The images; the middle slices of the first channel are shown.
    rows
        Names and values of a table.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Affine, Grid, Image
    >>> from convexadam.report.overview import make_overview
    >>> image = Image(torch.rand(1, 16, 16, 16), Grid((16, 16, 16)))
    >>> "<img" in make_overview("A pair", Affine(), image, image, {"grade": "ok"})
    True
    """
    windows = choose_window(fixed), choose_window(moving)
    before: list[tuple[str, np.ndarray]] = []
    after: list[tuple[str, np.ndarray]] = []
    for section in list_sections(fixed.grid):
        pixels = section.sample(fixed)
        size = fit_size(pixels.shape, section.aspect, LONGEST)
        contours = draw_outlines(group_levels(resize(apply_window(pixels, windows[0]), size), LEVELS), FIXED_COLOUR)
        for pictures, sampled in ((before, section.sample(moving)), (after, section.sample(moving, transform))):
            caption = f"{'before' if pictures is before else 'after'}, {section.plane}"
            pictures.append((caption, _draw(sampled, windows[1], size, contours)))
    note = "<div>moving image with contours of the fixed image</div>"
    return make_block(title, make_pictures(before), make_pictures(after), note, make_table(rows))


def _draw(pixels: np.ndarray, window: Window, size: tuple[int, int], contours: np.ndarray) -> np.ndarray:
    """Return RGB of a slice under contours."""
    grey = np.round(255 * np.clip(resize(apply_window(pixels, window), size), 0, 1)).astype(np.uint8)
    return np.where(contours[..., 3:] > 0, contours[..., :3], grey[..., None])
