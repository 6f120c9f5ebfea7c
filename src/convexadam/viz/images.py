"""Images as notebooks show them."""

from __future__ import annotations

import torch

from convexadam.geometry import Grid, Image
from convexadam.geometry.delegates import implement
from convexadam.viz.html import make_block, make_pictures, make_table, or_text
from convexadam.viz.pictures import fit_size, resize
from convexadam.viz.slices import apply_window, choose_window, list_sections

LONGEST = 220
"""Longest side of a picture in a notebook, in pixels."""


@implement("Image._repr_html_")
@or_text
@torch.no_grad()
def make_image_html(image: Image) -> str:
    """Return the middle slices of an image, and what it holds."""
    window, pictures = choose_window(image), []
    for section in list_sections(image.grid):
        pixels = apply_window(section.sample(image, nearest=image.data.dtype == torch.bool), window)
        size = fit_size(pixels.shape, section.aspect, LONGEST)
        pictures.append((f"{section.plane}, {section.position_mm:.0f} mm", resize(pixels, size)))
    rows = {
        "values": f"{describe_values(image)}, shown from {window[0]:.4g} to {window[1]:.4g}",
        **describe_grid(image.grid),
    }
    return make_block("Image", make_pictures(pictures), make_table(rows))


def describe_values(image: Image) -> str:
    """Return channels, type, device and range of an image in words."""
    channels = "" if len(image.data) == 1 else f"{len(image.data)} channels of "
    kind = str(image.data.dtype).removeprefix("torch.")
    low, high = torch.aminmax(image.data.detach().flatten()[:: max(1, image.data.numel() // 10_000_000)])
    return f"{channels}{kind} on {image.data.device}, {low.item():.4g} to {high.item():.4g}"


def describe_grid(grid: Grid) -> dict[str, str]:
    """Return size, voxel size and directions of a grid in words."""
    shape, spacing_mm = "x".join(map(str, grid.shape)), "x".join(f"{s:.3g}" for s in grid.spacing_mm)
    extent_mm = "x".join(f"{n * s:.0f}" for n, s in zip(grid.shape, grid.spacing_mm, strict=True))
    return {"grid": f"{shape} voxels of {spacing_mm} mm, {extent_mm} mm, axes {grid.orientation}"}
