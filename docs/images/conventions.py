"""Draw conventions.png: direction of a transform, and positions of voxels and control points. Takes no arguments."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

FIXED, MOVING, POINT, VALUE = "#1f5fa8", "#b0581a", "#222222", "#2d7f3f"


def draw_grid(axes: Axes, affine: np.ndarray, counts: tuple[int, int], colour: str) -> None:
    """Borders of the voxels of a grid, dots at their centres, and the direction of i and j."""

    def at(*index: float) -> np.ndarray:
        return affine[:, :2] @ index + affine[:, 2]

    wide, high = counts
    for i in np.arange(wide + 1) - 0.5:
        axes.plot(*np.transpose([at(i, -0.5), at(i, high - 0.5)]), color=colour, linewidth=0.6, alpha=0.6)
    for j in np.arange(high + 1) - 0.5:
        axes.plot(*np.transpose([at(-0.5, j), at(wide - 0.5, j)]), color=colour, linewidth=0.6, alpha=0.6)
    centres = np.array([at(i, j) for i in range(wide) for j in range(high)])
    axes.plot(*centres.T, ".", color=colour, markersize=3)
    for name, end in (("i", (1.6, 0)), ("j", (0, 1.6))):
        axes.annotate("", at(*end), at(0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8})
        axes.text(
            *(at(*end) + at(*(0.45 * np.array(end))) - at(0, 0)),
            name,
            color=colour,
            weight="bold",
            ha="center",
            va="center",
        )


def draw_direction(axes: Axes) -> None:
    """Points are mapped from fixed to moving space, values are pulled back."""
    turned = np.array([[3.6, 1.1, 67.0], [-1.1, 3.6, 12.0]])
    draw_grid(axes, np.array([[4.0, 0.0, 4.0], [0.0, 5.0, 6.0]]), (8, 6), FIXED)
    draw_grid(axes, turned, (9, 7), MOVING)
    start, end = np.array([24.0, 26.0]), np.array([87.0, 27.5])
    axes.plot(*start, "o", color=POINT, markersize=7)
    axes.plot(*end, "o", color=POINT, markersize=7)
    forth = {"arrowstyle": "-|>", "color": POINT, "linewidth": 1.6, "connectionstyle": "arc3,rad=-0.25"}
    back = {
        "arrowstyle": "-|>",
        "color": VALUE,
        "linewidth": 1.6,
        "linestyle": "--",
        "connectionstyle": "arc3,rad=-0.3",
    }
    axes.annotate("", end, start, arrowprops={**forth, "shrinkA": 6, "shrinkB": 6})
    axes.annotate("", start, end, arrowprops={**back, "shrinkA": 6, "shrinkB": 6})
    axes.text(*(start + np.array([-1.5, -3.4])), "x", weight="bold", ha="center")
    axes.text(*(end + np.array([5, 1.5])), "T(x)", weight="bold", ha="center")
    axes.text(52, 37.5, "points:  T(x) = x + u(x)\nwarp_points, fixed to moving", ha="center", va="bottom", color=POINT)
    axes.text(
        50, 13.5, "values:  moved(x) = moving(T(x))\nwarp, onto the fixed grid", ha="center", va="top", color=VALUE
    )
    axes.text(18, -1.5, "fixed grid", color=FIXED, weight="bold", ha="center")
    axes.text(
        93,
        -1.5,
        "moving grid: other size,\nspacing and orientation",
        color=MOVING,
        weight="bold",
        ha="center",
        va="center",
    )
    for name, end in (("x: Right", (9, 0)), ("y: Anterior", (0, 9))):
        axes.annotate("", np.array([-12.0, 0]) + end, (-12, 0), arrowprops={"arrowstyle": "-|>", "color": "grey"})
        axes.text(
            *(np.array([-12.0, 0]) + np.array(end) * 1.15),
            name,
            color="grey",
            fontsize=8,
            ha="left" if end[0] else "center",
            va="center" if end[0] else "bottom",
        )
    axes.text(-12, -3.5, "mm RAS+ (z: Superior)", color="grey", fontsize=8, ha="left")
    axes.set(xlim=(-15, 114), ylim=(-6, 47), aspect="equal")
    axes.axis("off")


def draw_positions(axes: Axes) -> None:
    """Voxel centres at whole numbers, the field of view half a voxel wider, control points between them."""
    for voxel in range(6):
        axes.add_patch(plt.Rectangle((voxel - 0.5, 0), 1, 1, fill=False, color=FIXED))
        axes.plot(voxel, 0.5, "o", color=FIXED)
        axes.text(voxel, 1.15, str(voxel), color=FIXED, ha="center")
    for point in range(3):
        axes.add_patch(plt.Rectangle((2 * point - 0.5, -1.15), 2, 0.7, fill=False, color=VALUE, linewidth=1.5))
        axes.plot(2 * point + 0.5, -0.8, "s", color=VALUE)
        axes.text(2 * point + 0.5, -1.6, f"{point} at {2 * point + 0.5}", color=VALUE, ha="center")
    axes.annotate("", (-0.5, 1.85), (5.5, 1.85), arrowprops={"arrowstyle": "<|-|>", "color": POINT})
    axes.text(2.5, 2.0, "field of view of 6 voxels: from -0.5 to 5.5", ha="center")
    axes.text(-0.8, 0.5, "voxels, centres at\nwhole numbers", color=FIXED, ha="right", va="center")
    axes.text(-0.8, -0.8, "control points,\nspacing 2", color=VALUE, ha="right", va="center")
    axes.set(xlim=(-4, 9.5), ylim=(-2, 2.5), aspect="equal")
    axes.axis("off")


def main() -> None:
    """Draw both parts into one picture beside this file."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 7.2), height_ratios=(3, 2), layout="constrained")
    draw_direction(upper)
    draw_positions(lower)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
