"""2-D registration of brain slices of different people: Dice overlap and CPU time, beside ANTs and greedy.

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import harness  # noqa: E402 - this folder is no package
import numpy as np  # noqa: E402
import torch  # noqa: E402

import convexadam  # noqa: E402
from convexadam import (  # noqa: E402
    ConvexSearch,
    Image,
    Intensity,
    MindSSC,
    Refinement,
    RegistrationConfig,
    preset,
    read_image,
    register,
)
from convexadam.continuous import (  # noqa: E402
    Compositional,
    GaussianSmoothing,
    GaussNewton,
    JointSsd,
    Level,
    Parametrisation,
    Part,
)

PEERS = ("ants", "greedy")
COLUMNS = (
    "settings",
    "pairs",
    "dice_before",
    "dice",
    "dice_sd",
    "cpu_seconds",
    "folded_percent",
    "version",
    "environment",
)
KEY = ("settings",)


def make_level(spacing: int, iterations: int, update: float, total: float) -> Level:
    """Return a level of the refinement with the smoothing of `preset("best")`."""
    return Level(
        spacing=spacing,
        iterations=iterations,
        update_smoothing=GaussianSmoothing(sigma=update),
        total_smoothing=GaussianSmoothing(sigma=total),
    )


def make_quick(*, descriptors: bool) -> RegistrationConfig:
    """Return settings for aligned slices of one contrast: intensities in the refinement, and in the search or not."""
    parametrisation: Parametrisation = Compositional()
    return RegistrationConfig(
        linear=None,
        discrete=ConvexSearch(spacing=4, radius=4, window="ball"),
        features=MindSSC() if descriptors else Intensity(),
        continuous_features=Intensity(),
        continuous=Refinement(
            levels=(make_level(2, 8, 1.8, 0.5), make_level(1, 4, 1.2, 0.65)),
            similarity=JointSsd(
                parts=(
                    Part(channels=1, weight=0.5),
                    *((Part(channels=1, weight=0.3, radius=2, variance_floor=0.01),) if descriptors else ()),
                )
            ),
            regularisers=(),
            optimiser=GaussNewton(),
            parametrisation=parametrisation,
        ),
    )


SETTINGS = {
    "quick": make_quick(descriptors=False),
    "quick, descriptors": make_quick(descriptors=True),
    "default": preset("default"),
    "best": preset("best"),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two slices with labels."""

    fixed: Image
    moving: Image
    fixed_labels: Image
    moving_labels: Image

    def dice(self, labels: np.ndarray) -> float:
        """Return the mean overlap of the labels of both, given those of the moving image on the fixed grid."""
        fixed, moving = self.fixed_labels.numpy(), self.moving_labels.numpy()
        common = sorted({*np.unique(fixed)} & {*np.unique(moving)} - {0})
        return float(
            np.mean(
                [2 * ((fixed == n) & (labels == n)).sum() / ((fixed == n).sum() + (labels == n).sum()) for n in common]
            )
        )


def read_pairs(folder: Path) -> list[Pair]:
    """Read ``*_image.nii.gz`` with ``*_label.nii.gz`` in the order of their names, each in one pair."""
    names = sorted(folder.glob("*_image.nii.gz"))
    images = [(read_image(name), read_image(str(name).replace("_image", "_label"))) for name in names]
    return [
        Pair(fixed=fixed, fixed_labels=fixed_labels, moving=moving, moving_labels=moving_labels)
        for (fixed, fixed_labels), (moving, moving_labels) in zip(images[::2], images[1::2], strict=False)
    ]


def run_settings(config: RegistrationConfig, pairs: Sequence[Pair]) -> tuple[list[np.ndarray], list[float], float]:
    """Return the warped labels and the CPU seconds of each pair, and the largest percentage of folds."""
    warped, seconds, folded = [], [], 0.0
    register(pairs[0].fixed, pairs[0].moving, config)
    for pair in pairs:
        start = time.process_time()
        result = register(pair.fixed, pair.moving, config)
        seconds.append(time.process_time() - start)
        warped.append(result.transform.warp(pair.moving_labels, pair.fixed, mode="nearest").numpy())
        folded = max(folded, result.diagnostics["folded_percent"])
    return warped, seconds, folded


def run_peer(tool: str, pairs: Sequence[Pair], options: argparse.Namespace) -> tuple[list[np.ndarray], list[float]]:
    """Return what `run_settings` does, of another tool."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"tool": tool, "images": str(folder / "images.npz"), "labels": str(folder / "labels.npz")}
        job["measured"] = str(folder / "measured.json")
        stacks = {
            part: np.stack([getattr(pair, part).numpy()[:, :, 0] for pair in pairs])
            for part in ("fixed", "moving", "moving_labels")
        }
        np.savez_compressed(job["images"], **stacks)
        command = [str(options.peers), str(HERE / "slices_worker.py")]
        measured = harness.run_worker(command, job, folder, {**os.environ, **harness.thread_environment(1)})
        with np.load(job["labels"]) as archive:
            return list(archive["warped"][..., None]), list(measured["seconds"])


def make_row(name: str, pairs: Sequence[Pair], warped: list[np.ndarray], seconds: list[float]) -> harness.Row:
    """Return the row of a tool."""
    before = [pair.dice(pair.moving_labels.numpy()) for pair in pairs]
    after = [pair.dice(labels) for pair, labels in zip(pairs, warped, strict=True)]
    return {
        "settings": name,
        "pairs": str(len(pairs)),
        "dice_before": f"{np.mean(before):.4f}",
        "dice": f"{np.mean(after):.4f}",
        "dice_sd": f"{np.std(after):.4f}",
        "cpu_seconds": f"{np.mean(seconds):.3f}",
        "version": convexadam.__version__,
        "environment": f"{harness.cpu_model()}, 1 thread; torch {torch.__version__}",
    }


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with NAME_image.nii.gz and NAME_label.nii.gz")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter with antspyx and picsl-greedy")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "slices.csv", metavar="CSV")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Register all pairs with each tool, and write each row when it is there."""
    options = parse_options(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of inverses
    pairs = read_pairs(options.data)
    rows = harness.read_rows(options.output, COLUMNS)
    for name in [*options.settings, *(PEERS if options.peers else ())]:
        if name in PEERS:
            row = make_row(name, pairs, *run_peer(name, pairs, options))
        else:
            warped, seconds, folded = run_settings(SETTINGS[name], pairs)
            row = {**make_row(name, pairs, warped, seconds), "folded_percent": f"{folded:.4f}"}
        full = {column: row.get(column, "") for column in COLUMNS}
        rows = harness.merged_rows(rows, [full], KEY)
        harness.write_rows(options.output, COLUMNS, rows)
    harness.print_table("slices", COLUMNS[:-2], [[row[c] for c in COLUMNS[:-2]] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
