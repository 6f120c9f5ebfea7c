"""Linear registration: the error of a known transform, and the time, beside ANTs and greedy.

The cases are in ``linear_cases.py``. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import harness  # noqa: E402 - this folder is no package
import numpy as np  # noqa: E402
import torch  # noqa: E402
from linear_cases import CASES, Case, Pair, make_pair, make_series  # noqa: E402

import convexadam  # noqa: E402
from convexadam import Affine, Image, preset, register  # noqa: E402
from convexadam.io import write_image  # noqa: E402

PEERS = ("ants", "greedy")
TOOLS = ("convexadam", *PEERS)
MODELS = ("rigid", "affine")
COLUMNS = (
    "case", "model", "before_voxels", *(f"{tool}_voxels" for tool in TOOLS), *(f"{tool}_seconds" for tool in TOOLS),
    "version", "threads", "environment",
)  # fmt: skip
KEY = ("case", "model")
REPEAT = 3
FRAMES = 30


def register_linear(pair: Pair, model: str) -> tuple[np.ndarray, float]:
    """Return the matrix of this library, and the median seconds of a call of `register`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without motion, nothing better is found
        result, measured = harness.timed(lambda: register(pair.fixed, pair.moving, preset(model)), REPEAT)
    assert isinstance(result.transform, Affine)
    return result.transform.matrix, measured["seconds"]


def run_peer(tool: str, pair: Pair, case: Case, model: str, options: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Return the matrix of another tool, and its seconds without reading the images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job: dict[str, Any] = {"tool": tool, "model": model, "two_contrasts": case.has_two_contrasts}
        job["measured"] = str(folder / "measured.json")
        for side in ("fixed", "moving"):
            job[side] = str(folder / f"{side}.nii.gz")
            write_image(getattr(pair, side), job[side])
        command = [str(options.peers), str(HERE / "linear_worker.py")]
        env = {**os.environ, **harness.thread_environment(options.threads)}
        measured = harness.run_worker(command, job, folder, env)
    return np.array(measured["matrix"]), float(measured["seconds"])


def measure(case: Case, model: str, options: argparse.Namespace) -> harness.Row:
    """Register a pair with each tool in turn; the cells of a tool that fails stay empty."""
    pair = make_pair(case, model, options.data)
    row = {"case": case.name, "model": model, "before_voxels": f"{pair.measure(np.eye(4)):.4f}"}
    for tool in TOOLS if options.peers is not None else TOOLS[:1]:
        try:
            if tool == "convexadam":
                matrix, seconds = register_linear(pair, model)
            else:
                matrix, seconds = run_peer(tool, pair, case, model, options)
        except (OSError, RuntimeError) as error:
            harness.progress(f"{tool} failed: {error}")
            continue
        row[f"{tool}_voxels"], row[f"{tool}_seconds"] = f"{pair.measure(matrix):.4f}", f"{seconds:.2f}"
    return row


def measure_series(frames: int) -> list[harness.Row]:
    """Register the frames of a series with the first one; return the mean and the largest error as two rows."""
    found = [(pair.measure(np.eye(4)), *_measure_frame(pair)) for pair in make_series(frames)]
    before, errors, seconds = (np.array(values) for values in zip(*found, strict=True))
    title = f"phantom t2 t2, 4 mm voxels: {frames} frames, up to 2°, 2 mm"
    return [
        {
            "case": f"{title}, {name}",
            "model": "rigid",
            "before_voxels": f"{combine(before):.4f}",
            "convexadam_voxels": f"{combine(errors):.4f}",
            "convexadam_seconds": f"{combine(seconds):.2f}",
        }
        for name, combine in (("mean", np.mean), ("largest", np.max))
    ]


def _measure_frame(pair: Pair) -> tuple[float, float]:
    result, measured = harness.timed(lambda: register(pair.fixed, pair.moving, preset("rigid")))
    assert isinstance(result.transform, Affine)
    return pair.measure(result.transform.matrix), measured["seconds"]


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder with the pairs of benchmarks/pairs; without it, only phantoms"
    )
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter with antspyx and picsl-greedy")
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="only cases whose name contains one of these")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--frames", type=int, default=FRAMES, metavar="N", help="of the series (%(default)s); 0: none")
    parser.add_argument("--threads", type=int, default=harness.cores(), metavar="N")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "linear.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.frames == 1 or options.frames < 0:
        parser.error("threads must be at least 1, and frames 0 or at least 2")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases, and write each row when it is there."""
    options = parse_options(arguments)
    torch.set_num_threads(options.threads)
    rows = harness.read_rows(options.output, COLUMNS)
    common = {
        "version": convexadam.__version__,
        "threads": str(options.threads),
        "environment": f"{harness.cpu_model()}, {harness.cores()} cores; torch {torch.__version__}",
    }
    small = Image.from_array(torch.rand(24, 24, 24, generator=torch.Generator().manual_seed(0)))
    register_linear(Pair(small, small, np.eye(4), np.zeros((1, 3))), "affine")  # loads or compiles the kernels

    def keep(new: Sequence[harness.Row]) -> None:
        nonlocal rows
        full = [{column: {**row, **common}.get(column, "") for column in COLUMNS} for row in new]
        for row in full:
            harness.progress(", ".join(row[column] for column in COLUMNS[:-3]))
        rows = harness.merged_rows(rows, full, KEY)
        harness.write_rows(options.output, COLUMNS, rows)

    chosen = [case for case in CASES if options.data is not None or not case.needs_data]
    if options.cases:
        chosen = [case for case in chosen if any(text in case.name for text in options.cases)]
    for case in chosen:
        for model in (model for model in case.models if model in options.models):
            keep([measure(case, model, options)])
    if options.frames:
        keep(measure_series(options.frames))
    harness.print_table("linear registration", COLUMNS[:-3], [[row[c] for c in COLUMNS[:-3]] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
