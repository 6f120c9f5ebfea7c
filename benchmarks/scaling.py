"""Time and memory of a registration as functions of the number of voxels, on phantoms of up to 320^3 voxels.

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np

import convexadam
from convexadam import estimate_memory, preset
from convexadam.geometry import Grid
from convexadam.registration.presets import preset_names

HERE = Path(__file__).resolve().parent
SIZES = (64, 96, 128, 160, 192, 256, 320)
BOX_MM = 320.0
"""Edge of the phantom's box: the same anatomy at every size, with cubic voxels."""

LARGEST_ERROR = 0.15
"""Of `estimate_memory`, as a share of what was measured."""

BYTES_PER_VOXEL = {
    **{"default": 42.0, "published": 37.0, "best": 195.0},
    **{"rigid": 20.0, "similarity": 20.0, "affine": 20.0},
}
"""Most memory beyond the images."""

LEAST_EDGE = 128
"""Size from which errors and bounds are checked: in smaller volumes, memory that does not grow with them dominates."""

COLUMNS = (
    "preset", "edge", "voxels", "working_voxels", "seconds", "runs", "memory_bytes", "bytes_per_voxel",
    "estimated_bytes", "version", "threads", "environment", "error",
)  # fmt: skip
KEY = ("preset", "edge")

Row = dict[str, str]


def measure_size(edge: int, options: argparse.Namespace) -> Iterator[Row]:
    """Make a pair of one size and register it with every preset; yield rows, with the error if one failed."""
    spacing = BOX_MM / edge
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        files = {name: str(work / f"{name}.npy") for name in ("fixed", "moving")}
        job = {**files, "measured": str(work / "measured.json"), "edge": edge, "spacing_mm": spacing}
        harness.progress(f"{edge}^3: phantoms")
        job |= _run_worker({**job, "task": "make"}, work, options.threads)
        for name in options.presets:
            harness.progress(f"{edge}^3: {name}")
            grid = Grid((edge,) * 3, np.array(job["affine"]))
            estimate = estimate_memory(grid.shape, preset(name), spacing_mm=grid.spacing_mm)
            row = {
                "preset": name,
                "edge": f"{edge:03d}",  # rows are sorted as text
                "voxels": str(grid.n_voxels),
                "working_voxels": str(preset(name).grid(grid).n_voxels),
                "estimated_bytes": str(estimate),
                "version": convexadam.__version__,
            }
            try:
                request = {"task": "register", "preset": name, "repeat": options.repeat}
                row |= _format(_run_worker({**job, **request}, work, options.threads), grid.n_voxels)
                harness.progress(f"  {row.get('seconds', '?')} s, {row['bytes_per_voxel'] or '?'} bytes per voxel")
            except RuntimeError as error:
                row["error"] = " ".join(str(error).split())
                harness.progress(f"  failed: {row['error']}")
            yield {column: row.get(column, "") for column in COLUMNS}


def _run_worker(job: Mapping[str, Any], work: Path, threads: int | None) -> dict[str, Any]:
    library = str(Path(convexadam.__file__).resolve().parents[1])
    search = os.pathsep.join([library, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": search, **harness.thread_environment(threads)}
    return harness.run_worker((sys.executable, str(HERE / "scaling_worker.py")), job, work, env)


def _format(measured: Mapping[str, Any], voxels: int) -> Row:
    environment, memory = measured["environment"], measured["memory"]
    timed = {"seconds": f"{measured['seconds']:.4g}", "runs": str(measured["runs"])} if measured["runs"] else {}
    return {
        **timed,
        "memory_bytes": "" if memory is None else str(memory),
        "bytes_per_voxel": "" if memory is None else f"{memory / voxels:.1f}",
        "threads": environment["threads"],
        "environment": _summarise(environment),
    }


def _summarise(environment: Mapping[str, str]) -> str:
    cpu, cores, python, torch = (environment[name] for name in ("cpu", "cores", "python", "torch"))
    return f"{cpu}, {cores} cores; Python {python}; torch {torch}"


def fit_line(rows: Sequence[Row]) -> dict[str, float]:
    """Fit a line and a power law to seconds over voxels, for sizes that the working grid does not coarsen.

    Empty for fewer than two sizes.
    """
    points = [(int(row["voxels"]), float(row["seconds"])) for row in rows if _has_native_grid(row)]
    if len(points) < 2:
        return {}
    voxels, seconds = zip(*points, strict=True)
    intercept, slope = harness.straight_line(voxels, seconds)
    return {"intercept": intercept, "slope": slope, "exponent": harness.exponent(voxels, seconds)}


def _has_native_grid(row: Row) -> bool:
    return bool(row["seconds"]) and row["working_voxels"] == row["voxels"]


def keep_seconds(row: Row, rows: Sequence[Row]) -> Row:
    """Return a row with the seconds that are on file, if only its memory was measured, on the same machine."""
    same = (*KEY, "environment")
    timed = [old for old in rows if all(old[name] == row[name] for name in same) and old["seconds"]]
    return row if row["seconds"] or not timed else {**row, "seconds": timed[0]["seconds"], "runs": timed[0]["runs"]}


def find_problems(rows: Sequence[Row]) -> list[str]:
    """Return what exceeds `LARGEST_ERROR` and `BYTES_PER_VOXEL`, in words."""
    found = []
    for row in rows:
        if not row["memory_bytes"] or int(row["edge"]) < LEAST_EDGE:
            continue
        where, bound = f"{row['preset']} at {int(row['edge'])}^3", BYTES_PER_VOXEL.get(row["preset"])
        ratio = int(row["estimated_bytes"]) / int(row["memory_bytes"])
        if abs(ratio - 1) > LARGEST_ERROR:
            found.append(
                f"{where}: estimated / measured memory must be within {LARGEST_ERROR:.0%} of 1, got {ratio:.2f}"
            )
        if bound is not None and float(row["bytes_per_voxel"]) > bound:
            found.append(f"{where}: memory must be at most {bound:g} bytes per voxel, got {row['bytes_per_voxel']}")
    return found


def print_rows(name: str, rows: Sequence[Row]) -> None:
    """Print the results of one preset for all sizes, and the fits."""
    shown = ("edge", "working_voxels", "seconds", "runs", "memory_bytes", "bytes_per_voxel", "estimated_bytes", "error")
    cells = [[row[column] or "-" for column in shown] for row in rows]
    ratios = [f"{int(r['estimated_bytes']) / int(r['memory_bytes']):.2f}" if r["memory_bytes"] else "-" for r in rows]
    columns = [*shown[:-1], "estimated / measured", shown[-1]]
    harness.print_table(name, columns, [[*c[:-1], ratio, c[-1]] for c, ratio in zip(cells, ratios, strict=True)])
    if line := fit_line(rows):
        print(
            f"{name}: seconds = {line['intercept']:.3g} + {1e6 * line['slope']:.3g} per million voxels; "
            f"proportional to voxels to the power {line['exponent']:.3f}"
        )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot seconds and memory over voxels, on logarithmic axes, with the fitted lines and the estimated memory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    time, memory = figure.subplots(1, 2)
    for number, name in enumerate(sorted({row["preset"] for row in rows})):
        mine, style = [row for row in rows if row["preset"] == name], {"color": f"C{number}"}
        if timed := [row for row in mine if row["seconds"]]:
            millions = _millions(timed)
            time.plot(millions, [float(row["seconds"]) for row in timed], "o", label=name, **style)
        if line := fit_line(timed):
            counted = millions[[_has_native_grid(row) for row in timed]]
            along = np.geomspace(counted.min(), counted.max(), 50)
            values = line["intercept"] + 1e6 * line["slope"] * along
            label = f"{line['intercept']:.2g} s + {1e6 * line['slope']:.2g} s per million"
            time.plot(along[values > 0], values[values > 0], label=label, **style)
        if known := [row for row in mine if row["memory_bytes"]]:
            for column, marker, label in (("memory_bytes", "o", name), ("estimated_bytes", "--", None)):
                memory.plot(_millions(known), [int(row[column]) / 1e9 for row in known], marker, label=label, **style)
    for axes, title in ((time, "seconds"), (memory, "memory beyond images, GB; dashed: estimated")):
        axes.set(xscale="log", yscale="log", xlabel="million voxels", title=title)
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _millions(rows: Sequence[Row]) -> np.ndarray:
    return np.array([int(row["voxels"]) for row in rows]) / 1e6


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if an option is invalid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), metavar="N", help="N^3 voxels; none: plot")
    parser.add_argument("--presets", nargs="+", default=list(preset_names()), choices=preset_names(), metavar="PRESET")
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="registrations of which the median counts; 0: memory only"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each process (default: its own choice)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "scaling.csv", metavar="CSV")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "images" / "scaling.png", metavar="PNG")
    options = parser.parse_args(arguments)
    if any(not 16 <= size <= 999 for size in options.sizes):
        parser.error(f"--sizes must be from 16 to 999, got {options.sizes}")
    if options.repeat < 0 or (options.threads is not None and options.threads < 1):
        parser.error(f"--repeat must be at least 0 and --threads 1, got {options.repeat} and {options.threads}")
    try:
        harness.read_rows(options.output, COLUMNS)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if a registration failed, or takes more memory than it may or than was estimated."""
    options = parse_options(arguments)
    failed, rows = False, harness.read_rows(options.output, COLUMNS)
    for size in options.sizes:
        for row in measure_size(size, options):
            failed |= bool(row["error"])
            rows = harness.merged_rows(rows, [keep_seconds(row, rows)], KEY)
            harness.write_rows(options.output, COLUMNS, rows)
    for name in options.presets:
        print_rows(name, [row for row in rows if row["preset"] == name])
    if any(row["seconds"] for row in rows):
        plot(rows, options.plot)
    problems = find_problems([row for row in rows if row["preset"] in options.presets])
    for problem in problems:
        harness.progress(problem)
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
