"""Cohorts: two processes at once beside one after the other, prepared fixed images, and ten thousand pairs.

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import harness
import torch

import convexadam
from convexadam.data import phantom_pair
from convexadam.io import write_image

HERE = Path(__file__).resolve().parent
COLUMNS = ("measurement", "variant", "value", "unit", "runs", "version", "environment")
KEY = ("measurement", "variant")
MEASUREMENTS = ("threads", "prepared", "scale")

Row = dict[str, str]


class Worker:
    """A process of ``cohort_worker.py`` that runs tasks as it is told."""

    def __init__(self, folder: Path, *options: str) -> None:
        library = str(Path(convexadam.__file__).resolve().parents[1])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([library, str(HERE.parent / "tests")])}
        for name in (*harness.thread_environment(1), "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            environment.pop(name, None)  # what a user has who sets nothing
        command = [sys.executable, str(HERE / "cohort_worker.py"), str(folder), *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.finish()  # what is compiled and loaded once

    def start(self, count: int) -> None:
        """Begin ``count`` repetitions of the task."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, float]:
        """Wait for the end of the repetitions, and return what was measured."""
        assert self._process.stdout is not None
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure_threads(folder: Path, repeat: int) -> Iterator[tuple[str, float, str]]:
    """Compare two processes with all cores each, at once and one after the other, with threads that spin and not."""
    for variant, options in (("threads that wait passively", ()), ("threads that spin", ("--spin",))):
        workers = [Worker(folder, "register", *options) for _ in range(2)]
        walls, cpus = list[float](), list[float]()
        for _ in range(repeat):
            workers[0].start(2)
            alone = workers[0].finish()
            for worker in workers:
                worker.start(1)
            both = [worker.finish() for worker in workers]
            walls.append(max(found["end"] for found in both) - min(found["start"] for found in both))
            walls[-1] /= alone["end"] - alone["start"]
            cpus.append(sum(found["cpu"] for found in both) / alone["cpu"])
        for worker in workers:
            worker.close()
        yield f"two at once / one after the other, {variant}: time", statistics.median(walls), "ratio"
        yield f"two at once / one after the other, {variant}: CPU", statistics.median(cpus), "ratio"


def measure_prepared(folder: Path, repeat: int) -> Iterator[tuple[str, float, str]]:
    """Compare registrations of files to a prepared fixed image with those to one that is not."""
    workers = {name: Worker(folder, name) for name in ("files", "prepared")}
    found: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(repeat):
        for name, worker in workers.items():
            worker.start(1)
            found[name].append(worker.finish()["cpu"])
    for worker in workers.values():
        worker.close()
    for name, values in found.items():
        yield name, statistics.median(values), "s CPU"
    yield "saved", 100 * (1 - statistics.median(found["prepared"]) / statistics.median(found["files"])), "%"


def measure_scale(folder: Path, count: int) -> Iterator[tuple[str, float, str]]:
    """Measure what pairs cost beside their registration: new ones, and those that are kept."""
    worker = Worker(folder, "scale", str(count))
    for name in ("new", "kept"):
        worker.start(1)
        yield f"{name}, {count} pairs", 1e3 * worker.finish()["cpu"] / count, "ms CPU a pair"
    worker.close()
    worker = Worker(folder, "scale", str(count), "--memory")
    worker.start(1)
    yield f"kept, {count} pairs, memory", worker.finish()["memory"] / count, "bytes a pair"
    worker.close()


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of all measurements."""
    environment = harness.environment()
    machine = f"{environment['cpu']}, {environment['cores']} cores; torch {torch.__version__}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pair = phantom_pair((options.edge,) * 3, displacement_mm=8.0)
        for name in ("fixed", "moving"):
            write_image(getattr(pair, name), folder / f"{name}.nii.gz")
        for name in options.measurements:
            harness.progress(name)
            found = {
                "threads": lambda: measure_threads(folder, options.repeat),
                "prepared": lambda: measure_prepared(folder, options.repeat),
                "scale": lambda: measure_scale(folder, options.pairs),
            }[name]()
            for variant, value, unit in found:
                harness.progress(f"  {variant}: {value:.3g} {unit}")
                row: dict[str, Any] = {"measurement": name, "variant": variant, "value": f"{value:.4g}", "unit": unit}
                row |= {"runs": str(options.repeat), "version": convexadam.__version__, "environment": machine}
                yield row


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if an option is invalid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", nargs="+", default=list(MEASUREMENTS), choices=MEASUREMENTS)
    parser.add_argument("--edge", type=int, default=160, metavar="N", help="images of N^3 voxels")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of which the median counts")
    parser.add_argument("--pairs", type=int, default=10_000, metavar="N", help="pairs of the measurement scale")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "cohort.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    if options.edge < 16 or options.repeat < 1 or options.pairs < 1:
        parser.error("--edge must be at least 16, --repeat and --pairs at least 1")
    try:
        harness.read_rows(options.output, COLUMNS)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse_options(arguments)
    rows = harness.read_rows(options.output, COLUMNS)
    for row in measure(options):
        rows = harness.merged_rows(rows, [row], KEY)
        harness.write_rows(options.output, COLUMNS, rows)
    shown = ("measurement", "variant", "value", "unit")
    harness.print_table("cohort", shown, [[row[name] for name in shown] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
