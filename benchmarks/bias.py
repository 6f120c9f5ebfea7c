"""Bias of local motion of a fraction of a voxel: a ball of a fine texture moves, and the rest is at rest.

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import harness  # noqa: E402 - this folder is no package
import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy import ndimage  # noqa: E402

import convexadam  # noqa: E402
from convexadam import Image, RegistrationConfig, preset, register  # noqa: E402

PRESETS = ("default", "best")
SLICES_MM = (1, 5)
MOTIONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
COLUMNS = ("preset", "slice_mm", "motion", "bias", "percent", "p99", "version")
KEY = ("preset", "slice_mm", "motion")
SIZE, MARGIN, TEXTURE, RADIUS, INNER, EDGE = 48, 8, 1.2, 14.0, 8.0, 1.5
"""In mm: of the volume, of the texture around it, its standard deviation, of the ball, of its measured core, and of the
border of the ball."""


def make_pair(motion: float, slice_mm: int) -> tuple[Image, Image, np.ndarray, np.ndarray]:
    """Return both images, the displacement along i in voxels, and where it is measured.

    The fixed image is computed from cubic splines at the displaced positions, without the library. Slices are means of
    planes of 1 mm.
    """
    shape = (SIZE + 2 * MARGIN,) * 3
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), TEXTURE)
    positions = np.indices((SIZE,) * 3).astype(float)
    distance = np.sqrt(((positions - (SIZE - 1) / 2) ** 2).sum(0))
    truth = motion / (1 + np.exp((distance - RADIUS) / EDGE))
    positions[0] += truth
    fixed = ndimage.map_coordinates(texture, positions + MARGIN, order=3)
    moving = texture[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN]
    fixed, moving, truth, distance = (average_planes(x, slice_mm) for x in (fixed, moving, truth, distance))
    affine = torch.diag(torch.tensor([1.0, 1.0, slice_mm, 1.0], dtype=torch.float64))
    images = [Image.from_array((x / texture.std()).astype(np.float32), affine) for x in (fixed, moving)]
    return images[0], images[1], truth, distance < INNER


def average_planes(volume: np.ndarray, count: int) -> np.ndarray:
    """Return the means of consecutive planes; incomplete ones at the end are omitted."""
    whole = volume[..., : volume.shape[2] // count * count]
    mean: np.ndarray = whole.reshape(*whole.shape[:2], -1, count).mean(3)
    return mean


def measure(config: RegistrationConfig, motion: float, slice_mm: int) -> tuple[float, float]:
    """Return the mean error along i and the 99th percentile of the length of errors, in voxels."""
    fixed, moving, truth, inside = make_pair(motion, slice_mm)
    found = register(fixed, moving, replace(config, linear=None)).transform.to_voxels().double().numpy()
    error = found - np.stack([truth, np.zeros_like(truth), np.zeros_like(truth)])
    return float(error[0][inside].mean()), float(np.percentile(np.linalg.norm(error, axis=0)[inside], 99))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=PRESETS, metavar="PRESET", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "bias.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    for name in options.presets:
        for slice_mm in SLICES_MM:
            for motion in MOTIONS:
                bias, p99 = measure(preset(name), motion, slice_mm)
                percent = f"{100 * bias / motion:.1f}" if motion else ""
                values = name, str(slice_mm), f"{motion:g}", f"{bias:.4f}", percent, f"{p99:.3f}"
                row = dict(zip(COLUMNS, (*values, convexadam.__version__), strict=True))
                harness.progress(", ".join(f"{column} {row[column]}" for column in COLUMNS[:-1]))
                rows = harness.merged_rows(harness.read_rows(options.output, COLUMNS), [row], KEY)
                harness.write_rows(options.output, COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
