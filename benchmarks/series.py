"""Time series: landmark errors and CPU seconds of frames that start at the frame before, and of frames by themselves.

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import harness  # noqa: E402 - this folder is no package
import numpy as np  # noqa: E402
import torch  # noqa: E402

import convexadam  # noqa: E402
from convexadam import preset  # noqa: E402
from convexadam.data import phantom_pair  # noqa: E402
from convexadam.io import read_landmarks_mm  # noqa: E402
from convexadam.series import FrameSeries, read_series, register_series  # noqa: E402

COLUMNS = ("series", "frame", "before_mm", "cold_mm", "warm_mm", "cold_cpu_seconds", "warm_cpu_seconds", "version",
           "environment")  # fmt: skip
KEY = ("series", "frame")
REPEATS = 3
"""Of which the smallest CPU times count: other work on the machine only adds to them."""

BREATHING_MM = (4.0, 8.0, 12.0, 15.0, 12.0, 8.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A series, with points of frame 0 and the same points in each other frame, by kind."""

    name: str
    frames: FrameSeries
    points_mm: dict[str, list[tuple[torch.Tensor, torch.Tensor]]]


def make_breathing(shape: tuple[int, int, int]) -> Case:
    """Return a phantom that breathes, with exact truth; frame 0 is the undeformed anatomy."""
    pairs = [phantom_pair(shape, contrasts=("t1", "t1"), displacement_mm=length, seed=1) for length in BREATHING_MM]
    points = [(pair.moving_landmarks_mm, pair.fixed_landmarks_mm) for pair in pairs]
    frames = FrameSeries(frames=(pairs[0].moving, *(pair.fixed for pair in pairs)))
    return Case(name="phantom, breathing", frames=frames, points_mm={"": points})


def read_cases(folder: Path) -> Iterator[Case]:
    """Yield the series of a folder: ``series_*/frameN.nii.gz`` with ``frameN_landmarks_KIND.csv``."""
    for place in sorted(folder.glob("series_*")):
        names = sorted(place.glob("frame?.nii.gz"))
        series = read_series(names)
        kinds = sorted(name.stem.removeprefix("frame0_landmarks_") for name in place.glob("frame0_landmarks_*.csv"))
        points = {
            kind: [
                tuple(
                    read_landmarks_mm(place / f"frame{number}_landmarks_{kind}.csv", series.frames[number].grid)
                    for number in (0, frame)
                )
                for frame in range(1, len(names))
            ]
            for kind in kinds
        }
        yield Case(name=place.name.removeprefix("series_"), frames=series, points_mm=points)  # type: ignore[arg-type]


def run(case: Case, *, warm: bool) -> tuple[dict[str, list[float]], list[float]]:
    """Return the mean error of each frame by kind of landmark, and its CPU seconds."""
    marks = list[float]()
    result = register_series(
        case.frames,
        config=preset("default"),
        warm_start=warm,
        on_frame=lambda done, total: marks.append(time.process_time()),
    )
    errors = {
        kind: [
            float((transform.warp_points(here, space="mm") - there).norm(dim=1).mean())
            for transform, (here, there) in zip(result.transforms[1:], pairs, strict=True)
        ]
        for kind, pairs in case.points_mm.items()
    }
    return errors, list(np.diff(marks))


def measure(case: Case) -> list[harness.Row]:
    """Return a row for each frame and kind of landmark."""
    run(case, warm=True)  # loads or compiles the kernels
    runs = [(run(case, warm=False), run(case, warm=True)) for _ in range(REPEATS)]
    (cold, _), (warm, _) = runs[0]  # errors are the same in all
    cold_seconds, warm_seconds = (np.min([one[way][1] for one in runs], axis=0) for way in (0, 1))
    return [
        {
            "series": f"{case.name} {kind}".strip(),
            "frame": str(number + 1),
            "before_mm": f"{float((here - there).norm(dim=1).mean()):.3f}",
            "cold_mm": f"{cold[kind][number]:.3f}",
            "warm_mm": f"{warm[kind][number]:.3f}",
            "cold_cpu_seconds": f"{cold_seconds[number]:.2f}",
            "warm_cpu_seconds": f"{warm_seconds[number]:.2f}",
            "version": convexadam.__version__,
            "environment": f"{harness.cpu_model()}, 1 thread; torch {torch.__version__}",
        }
        for kind, pairs in case.points_mm.items()
        for number, (here, there) in enumerate(pairs)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases, and write the rows of each when they are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with series_*/; without it, only the phantom")
    parser.add_argument("--shape", type=int, nargs=3, default=(80, 68, 60), help="of the phantom, in voxels")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "series.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = harness.read_rows(options.output, COLUMNS)
    i, j, k = options.shape
    for case in [make_breathing((i, j, k)), *(read_cases(options.data) if options.data else ())]:
        rows = harness.merged_rows(rows, measure(case), KEY)
        harness.write_rows(options.output, COLUMNS, rows)
    harness.print_table("series", COLUMNS[:-2], [[row[c] for c in COLUMNS[:-2]] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
