"""Label fusion of registered atlases, of a whole brain or a block of it: Dice overlap and CPU time, beside ANTs.

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
COLUMNS = ("target", "preset", "method", "atlases", "block", "labels", "dice", "cpu_seconds", "peak_mb",
           "registration_cpu_seconds", "version", "environment")  # fmt: skip
KEY = ("target", "preset", "method", "atlases", "block")

_MARGIN = 6
"""Voxels at the border of the block that do not count: patches there are cut."""

_FEWEST_VOXELS = 100
"""Of a label within the block; the overlap of smaller parts is chance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A target or a part of it, and of the atlases that were registered to it."""

    target: np.ndarray
    truth: np.ndarray
    images: list[np.ndarray]
    labels: list[np.ndarray]
    whole: bool
    registration_seconds: float | None

    def score(self, labels: np.ndarray) -> tuple[int, float]:
        """Return the number of labels that count, and their mean Dice overlap."""
        inner = (slice(None),) * 3 if self.whole else (slice(_MARGIN, -_MARGIN),) * 3
        found, truth = labels[inner], self.truth[inner]
        names, counts = np.unique(truth, return_counts=True)
        names = names[(names > 0) & (counts > (0 if self.whole else _FEWEST_VOXELS))]
        values = [2 * ((found == n) & (truth == n)).sum() / ((found == n).sum() + (truth == n).sum()) for n in names]
        return len(names), float(np.mean(values))


def read_block(target: str, options: argparse.Namespace) -> Block:
    """Register the atlases to a target, unless an earlier run has, and return the block in its middle."""
    image, labels = (options.data / f"{target}_{kind}.nii.gz" for kind in ("image", "label"))
    pairs = [
        PairFiles(
            id=f"{name}_to_{target}",
            fixed=image,
            moving=options.data / f"{name}_image.nii.gz",
            moving_labels=options.data / f"{name}_label.nii.gz",
        )
        for name in list_scans(options.data)
        if name not in (target, *options.held_out)
    ][: options.atlases]
    folder = options.registrations / options.preset / target
    start = time.process_time()
    outcomes = [*register_cohort(pairs, options.preset, output_dir=folder, outputs=("moved", "labels"))]
    seconds = time.process_time() - start
    fixed = read_image(image).numpy()
    box: tuple[slice, ...] = (slice(None),) * 3
    if options.block:
        middle = [(ends[0] + ends[-1]) // 2 for ends in map(np.unique, np.nonzero(fixed > 0))]
        half = options.block // 2
        box = tuple(slice(max(n - half, 0), n + half) for n in middle)

    def cut(path: Path) -> np.ndarray:
        return np.ascontiguousarray(read_image(path).numpy()[box])

    return Block(
        target=np.ascontiguousarray(fixed[box]),
        truth=cut(labels),
        images=[cut(outcome.folder / "moved.nii.gz") for outcome in outcomes],
        labels=[cut(outcome.folder / "moved_labels.nii.gz") for outcome in outcomes],
        whole=not options.block,
        registration_seconds=seconds if all(outcome.status == "done" for outcome in outcomes) else None,
    )


def list_scans(folder: Path) -> list[str]:
    """Return the names of the scans of a folder that have labels."""
    return sorted(path.name.removesuffix("_label.nii.gz") for path in folder.glob("*_label.nii.gz"))


def run_method(method: LabelFusion, block: Block) -> tuple[np.ndarray, float]:
    """Return the fused labels and the CPU seconds; kernels are compiled before, by a fusion of a small part."""
    _fuse(method, block, tuple(slice(n // 2 - 8, n // 2 + 8) for n in block.target.shape))
    start = time.process_time()
    labels = _fuse(method, block, (slice(None),) * 3)
    return labels, time.process_time() - start


def _fuse(method: LabelFusion, block: Block, box: tuple[slice, ...]) -> np.ndarray:
    target, *images = (torch.from_numpy(values[box]).float()[None] for values in (block.target, *block.images))
    i, j, k = target.shape[1:]
    grid = Grid((i, j, k))
    labels = [Image(torch.from_numpy(values[box].astype(np.int16))[None], grid) for values in block.labels]
    fused = fuse_labels(Image(target, grid), [Image(image, grid) for image in images], labels, method=method)
    return np.asarray(fused.labels.data[0].numpy())


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
    parser.add_argument("--registrations", type=Path, required=True, metavar="DIR", help="cohorts; kept between runs")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="scans that are segmented; the first by default")
    parser.add_argument("--held-out", nargs="+", metavar="NAME", default=[], help="scans that are never atlases")
    parser.add_argument("--atlases", type=int, metavar="N", help="the first N others; all by default")
    parser.add_argument("--preset", default="best", help="of the registrations")
    parser.add_argument("--block", type=int, default=0, metavar="VOXELS", help="edge of the block; 0 for all")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=[*METHODS])
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter with antspyx")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "fusion.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    scans = list_scans(options.data)
    if len(scans) < 2 or 0 < options.block <= 2 * _MARGIN or (options.atlases or 1) < 1:
        parser.error(f"--data must have two scans, --block be 0 or above {2 * _MARGIN}, and --atlases at least 1")
    options.targets = options.targets or scans[:1]
    if unknown := {*options.targets, *options.held_out} - {*scans}:
        parser.error(f"--targets and --held-out must be among {', '.join(scans)}, got {', '.join(unknown)}")
    return options


def make_row(target: str, name: str, block: Block, options: argparse.Namespace) -> harness.Row:
    """Fuse with one method; the peak of memory is that of the process, with registrations unless all were kept."""
    labels, seconds = run_ants(block, options) if name in PEERS else run_method(METHODS[name], block)
    count, dice = block.score(labels)
    peak, registration = harness.peak_mb(), block.registration_seconds
    return {
        "target": target,
        "preset": options.preset,
        "method": name,
        "atlases": str(len(block.images)),
        "block": str(options.block or ""),
        "labels": str(count),
        "dice": f"{dice:.4f}",
        "cpu_seconds": f"{seconds:.1f}",
        "peak_mb": "" if peak is None or name in PEERS or registration is not None else f"{peak:.0f}",
        "registration_cpu_seconds": "" if registration is None else f"{registration:.0f}",
        "version": convexadam.__version__,
        "environment": f"{harness.cpu_model()}, 1 thread; torch {torch.__version__}",
    }


def keep_measured(row: harness.Row, rows: Sequence[harness.Row]) -> harness.Row:
    """Fill what only another run can measure, of the same registrations, from its rows."""
    same = [old for old in rows if all(old[name] == row[name] for name in ("target", "preset", "atlases"))]
    for name in ("registration_cpu_seconds", "peak_mb"):
        alike = [old for old in same if name == "registration_cpu_seconds" or old["method"] == row["method"]]
        row[name] = row[name] or next((old[name] for old in alike if old[name]), "")
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuse with each method, and write each row when it is there."""
    options = parse_options(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of registrations
    for target in options.targets:
        block = read_block(target, options)
        for name in [*options.methods, *(PEERS if options.peers else ())]:
            row = make_row(target, name, block, options)
            rows = harness.read_rows(options.output, COLUMNS)
            rows = harness.merged_rows(rows, [keep_measured(row, rows)], KEY)
            harness.write_rows(options.output, COLUMNS, rows)
            harness.progress(f"{target} {name}: Dice {row['dice']}, {row['cpu_seconds']} s")
    rows = harness.read_rows(options.output, COLUMNS)
    harness.print_table("fusion", COLUMNS[:-2], [[row[c] for c in COLUMNS[:-2]] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
