"""Draw the figures of docs/method.md, of a phantom: ``python docs/method.py [FOLDER]``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))

from gallery import Shape, coronal, make_figure, save, show, show_map  # noqa: E402 - it lies beside this file

from convexadam import Intensity, Refinement  # noqa: E402
from convexadam.continuous import Level  # noqa: E402
from convexadam.data import PhantomPair, phantom_pair  # noqa: E402
from convexadam.discrete import Window, cost_volume, coupled_convex  # noqa: E402
from convexadam.kernels.mind_ssc import mind_ssc  # noqa: E402
from convexadam.kernels.resize import control_points_to_voxels, pool  # noqa: E402

FOLDER = HERE / "images" / "method"
SHAPE = (96, 80, 72)
SPACING, RADIUS = 4, 2
COUPLING = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Stages:
    """What the stages of a registration make of a pair."""

    pair: PhantomPair
    features: tuple[torch.Tensor, torch.Tensor]
    window: Window
    costs: torch.Tensor

    @classmethod
    def of(cls, shape: Shape) -> Stages:
        """Compute the features and the cost volume of CT and T1."""
        pair = phantom_pair(shape, contrasts=("ct", "t1"), displacement_mm=30, seed=2)
        features = tuple(mind_ssc(image.data[0], radius=1, dilation=2) for image in (pair.fixed, pair.moving))
        window = Window((RADIUS,) * 3)
        pooled = [pool(maps, (SPACING,) * 3) for maps in features]
        return cls(pair, features, window, cost_volume(*pooled, window))

    def to_voxels(self, disp: torch.Tensor) -> torch.Tensor:
        """Interpolate a displacement of control points to the voxels, in voxels."""
        return control_points_to_voxels(SPACING * disp, (SPACING,) * 3, self.pair.fixed.grid.shape)

    def error(self, disp_vox: torch.Tensor) -> float:
        """Mean distance to the true displacement within the organs, in voxels."""
        return float((disp_vox - self.pair.disp_vox).norm(dim=0)[self.pair.fixed_labels.data[0] > 0].mean())


def draw_features(stages: Stages) -> Figure:
    """Draw a slice of both images, and of one channel of their features."""
    figure, axes = make_figure(4)
    names = ("CT", "T1")
    images = (stages.pair.fixed, stages.pair.moving)
    for number, (name, image, maps) in enumerate(zip(names, images, stages.features, strict=True)):
        show(axes[number], image, name)
        axes[2 + number].imshow(coronal(maps[0]), cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axes[2 + number].set_title(f"{name}: first channel of MIND", fontsize=9)
    return figure


def draw_costs(stages: Stages) -> Figure:
    """Draw the costs of the displacements of one control point, by intensities and by MIND, and the true one."""
    shape = stages.pair.fixed.grid.shape
    organs = stages.pair.fixed_labels.data[0] == 1  # the liver
    moved = torch.where(organs, stages.pair.disp_vox.norm(dim=0), torch.zeros(()))
    edge = torch.stack(torch.gradient(stages.pair.fixed.data[0])).norm(dim=0)
    place = torch.unravel_index((moved * (edge > edge[organs].quantile(0.9))).argmax(), shape)
    point = tuple(min(int(p) // SPACING, n // SPACING - 1) for p, n in zip(place, shape, strict=True))
    truth = [float(u) / SPACING for u in stages.pair.disp_vox[(slice(None), *place)]]
    levels = [pool(Intensity()(image), (SPACING,) * 3) for image in (stages.pair.fixed, stages.pair.moving)]
    volumes = {"intensities": cost_volume(*levels, stages.window), "MIND": stages.costs}
    figure, axes = make_figure(3)
    show(axes[0], stages.pair.fixed, "the control point")
    i, _, k = (SPACING * (p + 0.5) for p in point)
    axes[0].plot(shape[0] - 1 - i, shape[2] - 1 - k, "+", color="#ffb000", markersize=14, markeredgewidth=2)
    width = 2 * RADIUS + 1
    for axis, (name, costs) in zip(axes[1:], volumes.items(), strict=True):
        of_point = costs[(slice(None), *point)].float().reshape(width, width, width)
        plane = of_point[:, min(max(round(truth[1]) + RADIUS, 0), width - 1)].numpy().T
        shown = axis.imshow(plane, origin="lower", cmap="viridis", aspect="auto")
        axis.plot(truth[0] + RADIUS, truth[2] + RADIUS, "+", color="#ff4000", markersize=14, markeredgewidth=2)
        axis.set_title(f"cost by displacement, {name}", fontsize=9)
        axis.set(xticks=range(width), yticks=range(width))
        axis.set_xticklabels([SPACING * (n - RADIUS) for n in range(width)], fontsize=7)
        axis.set_yticklabels([SPACING * (n - RADIUS) for n in range(width)], fontsize=7)
        figure.colorbar(shown, ax=axis, shrink=0.9)
    return figure


def draw_coupling(stages: Stages) -> Figure:
    """Draw the length of the displacement with more and more coupling."""
    figure, axes = make_figure(5)
    table = torch.as_tensor(stages.window.table, dtype=torch.float32)
    lowest = table[stages.costs.argmin(dim=0)].movedim(-1, 0)
    shown = {"lowest cost": stages.to_voxels(lowest)}
    for steps in (1, 3, 6):
        disp = coupled_convex(stages.costs, stages.window, coupling_weights=COUPLING[:steps], parabolic_fit=True)
        shown[f"{steps} coupling step{'s' if steps > 1 else ''}"] = stages.to_voxels(disp)
    shown["truth"] = stages.pair.disp_vox
    most = float(stages.pair.disp_vox.norm(dim=0).max())
    for axis, (name, disp_vox) in zip(axes, shown.items(), strict=True):
        axis.imshow(coronal(disp_vox.norm(dim=0)), cmap="viridis", vmin=0, vmax=most, aspect="auto")
        title = name if name == "truth" else f"{name}: error {stages.error(disp_vox):.2f}"
        axis.set_title(title, fontsize=9)
    return figure


def draw_refinement(stages: Stages) -> Figure:
    """Draw the distance to the true displacement after the search, and after the refinement."""
    figure, axes = make_figure(4)
    coarse = stages.to_voxels(coupled_convex(stages.costs, stages.window, parabolic_fit=True))
    fine = Refinement(levels=(Level(spacing=2, iterations=80),))(*stages.features, start=coarse)
    show(axes[0], stages.pair.fixed, "fixed", stages.pair.fixed_labels)
    for axis, (name, disp) in zip(
        axes[1:], {"none": torch.zeros_like(fine), "search": coarse, "refinement": fine}.items(), strict=True
    ):
        distance = (disp - stages.pair.disp_vox).norm(dim=0)
        show_map(figure, axis, distance, f"{name}: {stages.error(disp):.2f} voxels", cmap="magma", limits=(0, 4))
    return figure


FIGURES: dict[str, Callable[[Stages], Figure]] = {
    "features": draw_features,
    "costs": draw_costs,
    "coupling": draw_coupling,
    "refinement": draw_refinement,
}


def main(folder: Path = FOLDER) -> None:
    """Draw all figures."""
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages.of(SHAPE)
    for name, draw in FIGURES.items():
        save(draw(stages), folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
