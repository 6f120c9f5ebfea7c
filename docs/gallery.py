"""Draw the pictures of the gallery of phantoms: ``python docs/gallery.py [FOLDER] [NAME ...]``.

`PICTURES` names them. A test draws each of a small phantom, and compares size and number of panels with the file.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from convexadam import Affine, DisplacementField, Image, RegistrationConfig, compose, preset, register, write_image
from convexadam.data import phantom_pair
from convexadam.features import LabelFeatures
from convexadam.metrics import dice
from convexadam.segmentation import JointFusion, fuse_labels
from convexadam.series import FrameSeries, register_series
from convexadam.template import build_template

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "images" / "gallery"
SHAPE = (96, 80, 72)
OUTLINE = "#ffb000"
MOST_LABELS = 15
DPI = 80
COLOURS = 160
"""A palette keeps the files small."""

Shape = tuple[int, int, int]


def coronal(data: torch.Tensor) -> np.ndarray:
    """Return a coronal slice of [..., i, j, k], the patient's right on the left, the head on top."""
    volume = data.detach().numpy()
    volume = volume[0] if volume.ndim == 4 else volume
    return np.asarray(volume[::-1, int(0.55 * volume.shape[1]), ::-1].T)


def make_figure(panels: int) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with panels in a row."""
    figure = Figure(figsize=(2.75 * panels, 2.5), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def window(values: np.ndarray) -> tuple[float, float]:
    """Return the values of black and white: those of soft tissue, as air would take most of the range of CT."""
    least, most = np.percentile(values, (0.5, 99.5))
    body = values[values > least + (most - least) / 5]
    dark, white = np.percentile(body if body.size else values, (5, 98.5))
    return float(dark - (white - dark) / 4), float(max(white, dark + 1e-6))


def show(axis: Axes, image: Image, title: str, outlines: Image | None = None) -> None:
    """Draw a slice of an image, with the outlines of labels."""
    shown = coronal(image.data.float())
    low, high = window(shown)
    axis.imshow(shown, cmap="gray", vmin=low, vmax=high, aspect="auto")
    axis.set_title(title, fontsize=9)
    if outlines is not None:
        organs = coronal(outlines.data)
        for label in np.unique(organs[organs > 0]):
            axis.contour(organs == label, [0.5], colors=OUTLINE, linewidths=0.7)


def show_labels(axis: Axes, labels: Image, title: str) -> None:
    """Draw a slice of a label map."""
    axis.imshow(
        coronal(labels.data), cmap="nipy_spectral", vmin=0, vmax=MOST_LABELS, aspect="auto", interpolation="nearest"
    )
    axis.set_title(title, fontsize=9)


def show_map(
    figure: Figure,
    axis: Axes,
    values: torch.Tensor,
    title: str,
    *,
    cmap: str = "viridis",
    limits: tuple[float | None, float | None] = (None, None),
) -> None:
    """Draw a slice of numbers with a scale."""
    shown = axis.imshow(coronal(values), cmap=cmap, aspect="auto", vmin=limits[0], vmax=limits[1])
    axis.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axis, shrink=0.9)


def overlap(fixed_labels: Image, moved_labels: Image) -> float:
    """Mean Dice of all organs."""
    return float(np.mean(list(dice(fixed_labels, moved_labels).values())))


def draw_deformable(shape: Shape) -> Figure:
    """Two scans of one contrast: before, after, and the displacement."""
    pair = phantom_pair(shape, contrasts=("t1", "t1"), displacement_mm=25, seed=1)
    result = register(pair.fixed, pair.moving)
    figure, axes = make_figure(4)
    before, after = (
        overlap(pair.fixed_labels, labels) for labels in (pair.moving_labels, result.transform.warp(pair.moving_labels))
    )
    show(axes[0], pair.fixed, "fixed", pair.fixed_labels)
    show(axes[1], pair.moving, f"moving, before: Dice {before:.2f}", pair.fixed_labels)
    show(axes[2], result.moved, f"moving, after: Dice {after:.2f}", pair.fixed_labels)
    show_map(figure, axes[3], result.transform.disp_mm.norm(dim=0), "displacement, mm")
    return figure


def checkerboard(first: Image, second: Image, tiles: int = 6) -> Image:
    """Return an image that changes between two, each with its own window."""
    parts = []
    for image in (first, second):
        low, high = window(image.data.numpy())
        parts.append(((image.data - low) / (high - low)).clip(0, 1))
    squares = [torch.arange(n) * tiles // n for n in first.grid.shape]
    turn = (squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]) % 2 == 0
    return Image(torch.where(turn, *parts), first.grid)


def draw_two_contrasts(shape: Shape) -> Figure:
    """CT and T2-weighted MR: checkerboards before and after."""
    pair = phantom_pair(shape, contrasts=("ct", "t2"), displacement_mm=25, seed=3)
    moved = register(pair.fixed, pair.moving, preset("best")).moved
    figure, axes = make_figure(4)
    show(axes[0], pair.fixed, "fixed: CT")
    show(axes[1], pair.moving, "moving: T2")
    show(axes[2], checkerboard(pair.fixed, pair.moving), "checkerboard, before")
    show(axes[3], checkerboard(pair.fixed, moved), "checkerboard, after")
    return figure


def draw_labels(shape: Shape) -> Figure:
    """Label maps as features: no intensities are compared."""
    pair = phantom_pair(shape, contrasts=("ct", "t2"), displacement_mm=25, seed=3)
    labels = {"fixed_segmentation": pair.fixed_labels, "moving_segmentation": pair.moving_labels}
    result = register(pair.fixed, pair.moving, RegistrationConfig(features=LabelFeatures()), **labels)
    moved = result.transform.warp(pair.moving_labels)
    figure, axes = make_figure(3)
    show_labels(axes[0], pair.fixed_labels, "labels of the fixed image")
    show_labels(
        axes[1], pair.moving_labels, f"of the moving: Dice {overlap(pair.fixed_labels, pair.moving_labels):.2f}"
    )
    show_labels(axes[2], moved, f"after: Dice {overlap(pair.fixed_labels, moved):.2f}")
    return figure


def turn_about_s(degrees: float) -> Affine:
    """Return a rotation about the axis S, with a translation."""
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = (20, 0, 25)
    return Affine(matrix)


def draw_linear(shape: Shape) -> Figure:
    """Undo a rotation of 12 degrees and a translation of 32 mm, between CT and MR."""
    pair = phantom_pair(shape, contrasts=("ct", "t1"), displacement_mm=0, seed=4)
    truth = turn_about_s(12)
    moving = truth.inverse().warp(pair.moving, pair.moving.grid)
    found = register(pair.fixed, moving, preset("rigid")).transform
    corners = pair.fixed_landmarks_mm
    error_mm = (found(corners) - truth(corners)).norm(dim=1).mean()
    figure, axes = make_figure(3)
    show(axes[0], pair.fixed, "fixed: CT", pair.fixed_labels)
    show(axes[1], moving, "moving: MR, another position", pair.fixed_labels)
    show(axes[2], found.warp(moving, pair.fixed.grid), f"rigid: error {error_mm:.2f} mm", pair.fixed_labels)
    return figure


def draw_template(shape: Shape) -> Figure:
    """Build the template of three bodies, and show how they differ at each voxel."""
    with tempfile.TemporaryDirectory() as name:
        scans = [phantom_pair(shape, displacement_mm=25, seed=seed).moving for seed in range(3)]
        for seed, scan in enumerate(scans):
            write_image(scan, Path(name) / f"{seed}.nii.gz")
        template = build_template(f"{name}/*.nii.gz", output_dir=f"{name}/template", linear_rounds=1, rounds=1)
    figure, axes = make_figure(5)
    for axis, seed in zip(axes, range(3), strict=False):
        show(axis, scans[seed], f"scan {seed + 1}")
    show(axes[3], template.image, "template")
    show_map(figure, axes[4], template.deviation.data, "standard deviation", cmap="magma")
    return figure


def draw_atlases(shape: Shape) -> Figure:
    """Three labelled atlases, registered to a target, and their labels fused."""
    target = phantom_pair(shape, displacement_mm=15, seed=0)
    images, labels = [], []
    for seed in range(3):
        atlas = phantom_pair(shape, displacement_mm=15, seed=seed)
        transform = register(target.fixed, atlas.moving).transform
        images.append(transform.warp(atlas.moving))
        labels.append(transform.warp(atlas.moving_labels))
    found = fuse_labels(target.fixed, images, labels, method=JointFusion())
    figure, axes = make_figure(4)
    show(axes[0], target.fixed, "target")
    show_labels(axes[1], labels[1], f"one atlas: Dice {overlap(target.fixed_labels, labels[1]):.2f}")
    show_labels(axes[2], found.labels, f"fused: Dice {overlap(target.fixed_labels, found.labels):.2f}")
    show_map(figure, axes[3], found.confidence.data, "confidence")
    return figure


def draw_series(shape: Shape) -> Figure:
    """Frames of a body that turns and comes back: a line of voxels over time before and after, and the motion."""
    rest = phantom_pair(shape, contrasts=("t1", "t1"), seed=1).fixed
    angles = 5 * np.sin(np.linspace(0, 2 * np.pi, 9))
    frames = [turn_about_s(angle).inverse().warp(rest, rest.grid) for angle in angles]
    result = register_series(FrameSeries(frames=tuple(frames), step_s=2.0))
    figure, axes = make_figure(3)
    i, k = shape[0] // 4, shape[2] // 2  # beside the axis of the rotation
    for axis, series, title in zip(axes, (frames, result.moved.frames), ("before", "after"), strict=False):
        lines = np.stack([frame.data[0, i, :, k].numpy() for frame in series], axis=1)
        axis.imshow(lines, cmap="gray", aspect="auto", interpolation="nearest")
        axis.set_title(f"a line of voxels over time, {title}", fontsize=9)
    axes[2].plot(angles, "o", color="0.6", label="truth")
    axes[2].plot([one.rotation_s_degrees for one in result.motion], label="estimate")
    axes[2].set_title("rotation, degrees", fontsize=9)
    axes[2].set(xticks=range(len(angles)), yticks=range(-5, 6, 5))
    axes[2].legend(fontsize=8)
    return figure


def draw_jacobian(shape: Shape) -> Figure:
    """Local change of volume, against that of the true motion."""
    pair = phantom_pair(shape, contrasts=("ct", "ct"), displacement_mm=25, seed=1)
    found = register(pair.fixed, pair.moving, preset("best")).transform
    truth = DisplacementField.from_voxels(pair.disp_vox, pair.fixed.grid)
    figure, axes = make_figure(3)
    show(axes[0], pair.fixed, "fixed", pair.fixed_labels)
    for axis, transform, title in zip(axes[1:], (found, truth), ("estimate", "truth"), strict=True):
        jacobian = transform.jacobian()
        values = jacobian.data if isinstance(jacobian, Image) else jacobian
        show_map(figure, axis, values.clamp_min(1e-3).log(), f"log Jacobian, {title}", cmap="RdBu", limits=(-0.6, 0.6))
    return figure


def draw_inverse(shape: Shape) -> Figure:
    """Warp the fixed image onto the moving one; what is left of a way there and back."""
    pair = phantom_pair(shape, contrasts=("ct", "t1"), displacement_mm=25, seed=2)
    forward = register(pair.fixed, pair.moving).transform
    inverse = forward.inverse(reference=pair.moving)
    there_and_back = compose(inverse, forward).to_displacement_field(pair.moving.grid)
    figure, axes = make_figure(4)
    show(axes[0], pair.moving, "moving", pair.moving_labels)
    show(axes[1], pair.fixed, "fixed", pair.moving_labels)
    show(axes[2], inverse.warp(pair.fixed), "fixed, by the inverse", pair.moving_labels)
    show_map(figure, axes[3], there_and_back.disp_mm.norm(dim=0), "inverse consistency error, mm", cmap="magma")
    return figure


PICTURES: dict[str, Callable[[Shape], Figure]] = {
    "deformable": draw_deformable,
    "two_contrasts": draw_two_contrasts,
    "labels": draw_labels,
    "linear": draw_linear,
    "template": draw_template,
    "atlases": draw_atlases,
    "series": draw_series,
    "jacobian": draw_jacobian,
    "inverse": draw_inverse,
}
"""Pictures of the gallery by name of their file."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG with a palette, and the number of its panels and scales."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    about = PngInfo()
    about.add_text("Panels", str(len(figure.axes)))
    picture = Pillow.open(buffer).convert("RGB").quantize(COLOURS, method=Pillow.Quantize.MEDIANCUT)
    picture.save(path, optimize=True, pnginfo=about)


def main(folder: Path = FOLDER, *names: str) -> None:
    """Draw all pictures, or the named ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        save(PICTURES[name](SHAPE), folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, *sys.argv[2:])
