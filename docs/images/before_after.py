"""Draw before_after.png: a CT and an MR scan of the phantom before and after registration. Run it with no arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from convexadam import register
from convexadam.data import PhantomPair, phantom_pair
from convexadam.geometry import DisplacementField, Image
from convexadam.metrics import evaluate_transform
from convexadam.viz.canvas import new_figure
from convexadam.viz.slices import robust_window

OUTLINE = "#ffb000"


def coronal(image: Image, channel: int = 0) -> np.ndarray:
    """Return the middle coronal slice, the patient's right on the left and the head on top."""
    volume = np.asarray(image.canonical().numpy(), dtype=np.float64)
    volume = volume if volume.ndim == 3 else volume[channel]
    return volume[::-1, int(0.55 * volume.shape[1]), ::-1].T


def draw(pair: PhantomPair, moved: Image, transform: DisplacementField, path: Path) -> None:
    """Draw the fixed image, the moving one before and after under the outlines of the fixed organs, and the motion."""
    before, after = (
        evaluate_transform(field, fixed_labels=pair.fixed_labels, moving_labels=pair.moving_labels, surface=False)[
            "dice"
        ]
        for field in (DisplacementField.from_voxels(0 * pair.disp_vox, pair.fixed.grid), transform)
    )
    organs = coronal(pair.fixed_labels)
    panels = {
        "fixed: CT": pair.fixed,
        f"moving: MR, before (Dice {before:.2f})": pair.moving,
        f"moving: MR, after (Dice {after:.2f})": moved,
    }
    figure = new_figure((11, 2.6))
    axes = figure.subplots(1, 4)
    for axis, (title, image) in zip(axes, panels.items(), strict=False):
        low, high = robust_window(np.asarray(image.numpy()))
        axis.imshow(coronal(image), cmap="gray", vmin=low, vmax=high)
        for label in np.unique(organs[organs > 0]):
            axis.contour(organs == label, [0.5], colors=OUTLINE, linewidths=0.8)
        axis.set_title(title, fontsize=9)
    length = Image(transform.disp_mm.norm(dim=0, keepdim=True), transform.grid)
    shown = axes[3].imshow(coronal(length), cmap="viridis")
    figure.colorbar(shown, ax=axes[3], shrink=0.8)
    axes[3].set_title("displacement, mm", fontsize=9)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(path, dpi=80)


def main(path: Path) -> None:
    """Register a CT scan of the phantom to an MR scan, 25 mm apart at most, and draw them."""
    pair = phantom_pair(contrasts=("ct", "t1"), displacement_mm=25)
    result = register(pair.fixed, pair.moving)
    draw(pair, result.moved, result.transform, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
