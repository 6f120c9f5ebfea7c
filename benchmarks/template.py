"""Templates of a group: overlap of labels, sharpness, distance from the mean shape and CPU time, beside ANTs.

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import itertools
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
from convexadam import Image, read_image, read_transform  # noqa: E402
from convexadam.geometry import Transform  # noqa: E402
from convexadam.io import ScanFiles  # noqa: E402
from convexadam.metrics import dice  # noqa: E402
from convexadam.template import build_template  # noqa: E402
from convexadam.template.average import scale_intensity  # noqa: E402
from convexadam.template.shape import ShapeAverage  # noqa: E402

TOOLS = ("convexadam", "convexadam, reversed", "ants")
COLUMNS = ("data", "tool", "scans", "dice", "dice_sd", "sharpness", "bias_mm", "seconds", "cpu_seconds", "version",
           "environment")  # fmt: skip
KEY = ("data", "tool", "scans")

_FOREGROUND = 0.1
"""Intensity, of 1 in bright tissue, from which voxels of a template count."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """A template, with the labels of each scan on it and the transforms to the scans."""

    template: Image
    labels: list[Image]
    transforms: list[Transform]
    seconds: float
    cpu_seconds: float

    def describe(self) -> dict[str, str]:
        """Return the columns of a row that depend on the result."""
        overlaps = [float(np.mean([*dice(a, b).values()])) for a, b in itertools.combinations(self.labels, 2)]
        values = scale_intensity(self.template)
        inside = values.data[0] > _FOREGROUND
        axes = [n for n, size in enumerate(values.grid.shape) if size > 1]
        spacings = [values.grid.spacing_mm[n] for n in axes]
        slopes = torch.gradient(values.data[0].double(), spacing=spacings, dim=axes)
        shape = ShapeAverage(values.grid, inside.float())
        for transform in self.transforms:
            shape.add(transform)
        update = shape.find_update()
        return {
            "scans": str(len(self.labels)),
            "dice": f"{np.mean(overlaps):.4f}",
            "dice_sd": f"{np.std(overlaps):.4f}",
            "sharpness": f"{float(torch.stack([*slopes]).norm(dim=0)[inside].mean()):.4f}",
            "bias_mm": f"{update.mean_mm + update.linear_mm:.4f}",
            "seconds": f"{self.seconds:.1f}",
            "cpu_seconds": f"{self.cpu_seconds:.1f}",
        }


def list_scans(folder: Path, names: Sequence[str] | None) -> list[ScanFiles]:
    """Return the scans of a folder that have labels: all, or those that are named."""
    known = sorted(path.name.removesuffix("_label.nii.gz") for path in folder.glob("*_label.nii.gz"))
    return [
        ScanFiles(id=name, image=folder / f"{name}_image.nii.gz", labels=folder / f"{name}_label.nii.gz")
        for name in (names or known)
    ]


def run_convexadam(scans: Sequence[ScanFiles], options: argparse.Namespace) -> Built:
    """Build the template in this process."""
    with tempfile.TemporaryDirectory() as name:
        start, cpu_start = time.perf_counter(), time.process_time()
        built = build_template(
            scans,
            output_dir=name,
            config=options.preset,
            linear_rounds=options.linear_rounds,
            on_round=lambda one: harness.progress(f"{one} {time.process_time() - cpu_start:.1f} s"),
        )
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        places = [Path(name) / "scans" / scan.id for scan in scans]
        return Built(
            template=built.image,
            labels=[read_image(place / "labels.nii.gz") for place in places],
            transforms=[read_transform(place / "transform.nii.gz") for place in places],
            seconds=seconds,
            cpu_seconds=cpu_seconds,
        )


def run_ants(scans: Sequence[ScanFiles], options: argparse.Namespace) -> Built:
    """Return what `run_convexadam` does, of ANTs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {
            "images": [str(scan.image) for scan in scans],
            "labels": [str(scan.labels) for scan in scans],
            "folder": str(folder),
            "measured": str(folder / "measured.json"),
        }
        command = [str(options.peers), str(HERE / "template_worker.py")]
        start = time.perf_counter()
        measured = harness.run_worker(command, job, folder, {**os.environ, **harness.thread_environment(1)})
        seconds = time.perf_counter() - start
        labels = [read_image(folder / f"labels_{number}.nii.gz") for number in range(len(scans))]
        return Built(
            template=read_image(folder / "template.nii.gz"),
            labels=[Image(image.data.round().int(), image.grid) for image in labels],
            transforms=[read_transform(folder / f"field_{number}.nii.gz") for number in range(len(scans))],
            seconds=seconds,
            cpu_seconds=float(measured["seconds"]),
        )


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if an option is invalid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with NAME_image.nii.gz and NAME_label.nii.gz")
    parser.add_argument("--scans", nargs="+", metavar="NAME", help="of the folder; all by default")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=[TOOLS[0]])
    parser.add_argument("--preset", default="default", help="of the deformable rounds")
    parser.add_argument("--linear-rounds", type=int, default=2, metavar="N")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter with antspyx")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "template.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    if "ants" in options.tools and options.peers is None:
        parser.error("--peers must be given for ants")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the template with each tool, and write each row when it is there."""
    options = parse_options(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of registrations
    scans = list_scans(options.data, options.scans)
    for name in options.tools:
        group = scans[::-1] if name.endswith("reversed") else scans
        built = run_ants(group, options) if name == "ants" else run_convexadam(group, options)
        row = {
            "data": options.data.name,
            "tool": name,
            **built.describe(),
            "version": convexadam.__version__,
            "environment": f"{harness.cpu_model()}, 1 thread; torch {torch.__version__}",
        }
        rows = harness.merged_rows(harness.read_rows(options.output, COLUMNS), [row], KEY)
        harness.write_rows(options.output, COLUMNS, rows)
    rows = harness.read_rows(options.output, COLUMNS)
    harness.print_table("template", COLUMNS[:-2], [[row[c] for c in COLUMNS[:-2]] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
