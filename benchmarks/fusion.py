"""Label fusion of registered atlases within a block of a brain: Dice overlap and CPU time, beside ANTs.

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
from convexadam import Grid, Image, read_image  # noqa: E402
from convexadam.cohort import register_cohort  # noqa: E402
from convexadam.io import PairFiles  # noqa: E402
from convexadam.segmentation import (  # noqa: E402
    JointFusion,
    LabelFusion,
    LocalVote,
    MajorityVote,
    NonLocalVote,
    fuse_labels,
)

METHODS: dict[str, LabelFusion] = {
    "majority": MajorityVote(),
    "local": LocalVote(),
    "joint": JointFusion(),
    "nonlocal": NonLocalVote(),
}
PEERS = ("ants",)
COLUMNS = ("method", "atlases", "block", "labels", "dice", "cpu_seconds", "version", "environment")
KEY = ("method", "atlases", "block")

_MARGIN = 6
"""Voxels at the border of the block that do not count: patches there are cut."""

_FEWEST_VOXELS = 100
"""Of a label within the block; the overlap of smaller parts is chance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A part of the target, and of the atlases that were registered to it."""

    target: np.ndarray
    truth: np.ndarray
    images: list[np.ndarray]
    labels: list[np.ndarray]

    def score(self, labels: np.ndarray) -> tuple[int, float]:
        """Return the number of labels that count, and their mean Dice overlap."""
        inner = (slice(_MARGIN, -_MARGIN),) * 3
        found, truth = labels[inner], self.truth[inner]
        names, counts = np.unique(truth, return_counts=True)
        names = names[(names > 0) & (counts > _FEWEST_VOXELS)]
        values = [2 * ((found == n) & (truth == n)).sum() / ((found == n).sum() + (truth == n).sum()) for n in names]
        return len(names), float(np.mean(values))


def read_block(options: argparse.Namespace) -> Block:
    """Register the atlases to the target, unless an earlier run has, and return the block in the middle."""
    target, *others = [options.target, *(name for name in list_scans(options.data) if name != options.target)]
    image, labels = (options.data / f"{target}_{kind}.nii.gz" for kind in ("image", "label"))
    pairs = [
        PairFiles(
            id=f"{name}_to_{target}",
            fixed=image,
            moving=options.data / f"{name}_image.nii.gz",
            moving_labels=options.data / f"{name}_label.nii.gz",
        )
        for name in others[: options.atlases]
    ]
    outcomes = register_cohort(pairs, output_dir=options.registrations, outputs=("moved", "labels"))
    folders = {outcome.id: outcome.folder for outcome in outcomes}
    fixed = read_image(image).numpy()
    middle = [(ends[0] + ends[-1]) // 2 for ends in map(np.unique, np.nonzero(fixed > 0))]
    half = options.block // 2
    box = tuple(slice(max(n - half, 0), n + half) for n in middle)

    def cut(path: Path) -> np.ndarray:
        return np.ascontiguousarray(read_image(path).numpy()[box])

    return Block(
        target=np.ascontiguousarray(fixed[box]),
        truth=cut(labels),
        images=[cut(folders[pair.id] / "moved.nii.gz") for pair in pairs],
        labels=[cut(folders[pair.id] / "moved_labels.nii.gz") for pair in pairs],
    )


def list_scans(folder: Path) -> list[str]:
    """Return the names of the scans of a folder that have labels."""
    return sorted(path.name.removesuffix("_label.nii.gz") for path in folder.glob("*_label.nii.gz"))


def run_method(method: LabelFusion, block: Block) -> tuple[np.ndarray, float]:
    """Return the fused labels, and the CPU seconds of the second of two calls: the first loads or compiles kernels."""
    grid = Grid(tuple(map(int, block.target.shape)))  # type: ignore[arg-type]  # three numbers
    target, *images = (Image(torch.from_numpy(values).float()[None], grid) for values in (block.target, *block.images))
    labels = [Image(torch.from_numpy(values.astype(np.int32))[None], grid) for values in block.labels]
    seconds = 0.0
    for _ in range(2):
        start = time.process_time()
        fused = fuse_labels(target, images, labels, method=method)
        seconds = time.process_time() - start
    return fused.labels.data[0].numpy(), seconds


def run_ants(block: Block, options: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Return what `run_method` does, of ANTs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {part: str(folder / f"{part}.npz") for part in ("block", "labels")}
        job["measured"] = str(folder / "measured.json")
        np.savez_compressed(
            job["block"], target=block.target, images=np.stack(block.images), labels=np.stack(block.labels)
        )
        command = [str(options.peers), str(HERE / "fusion_worker.py")]
        measured = harness.run_worker(command, job, folder, {**os.environ, **harness.thread_environment(1)})
        with np.load(job["labels"]) as archive:
            return archive["labels"], float(measured["seconds"])


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if an option is invalid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with NAME_image.nii.gz and NAME_label.nii.gz")
    parser.add_argument("--registrations", type=Path, required=True, metavar="DIR", help="cohort; kept between runs")
    parser.add_argument("--target", metavar="NAME", help="scan that is segmented; the first one by default")
    parser.add_argument("--atlases", type=int, default=12, metavar="N", help="the first N others")
    parser.add_argument("--block", type=int, default=60, metavar="VOXELS", help="edge of the block")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter with antspyx")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "fusion.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    scans = list_scans(options.data)
    if options.block <= 2 * _MARGIN or options.atlases < 1 or len(scans) < 2:
        parser.error(f"--block must be above {2 * _MARGIN}, --atlases at least 1, and --data have two scans")
    options.target = options.target or scans[0]
    if options.target not in scans:
        parser.error(f"--target must be one of {', '.join(scans)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuse with each method, and write each row when it is there."""
    options = parse_options(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of registrations
    block = read_block(options)
    rows = harness.read_rows(options.output, COLUMNS)
    for name in [*options.methods, *(PEERS if options.peers else ())]:
        labels, seconds = run_ants(block, options) if name in PEERS else run_method(METHODS[name], block)
        count, dice = block.score(labels)
        row = {
            "method": name,
            "atlases": str(len(block.images)),
            "block": str(options.block),
            "labels": str(count),
            "dice": f"{dice:.4f}",
            "cpu_seconds": f"{seconds:.1f}",
            "version": convexadam.__version__,
            "environment": f"{harness.cpu_model()}, 1 thread; torch {torch.__version__}",
        }
        rows = harness.merged_rows(rows, [row], KEY)
        harness.write_rows(options.output, COLUMNS, rows)
    harness.print_table("fusion", COLUMNS[:-2], [[row[c] for c in COLUMNS[:-2]] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
