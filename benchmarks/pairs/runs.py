"""Shared by the benchmarks of pairs: options, workers, and rows of results."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convexadam

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import harness  # noqa: E402 - these folders are no packages
from peers import Tool  # noqa: E402
from truth import Truth, evaluate, find_pairs, read_images, read_truth  # noqa: E402

LIBRARY_WORKER = (sys.executable, str(HERE / "library.py"))


def make_parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """Return a parser of the common options; ``output`` is the default file name of the results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of folders with fixed.nii.gz, moving.nii.gz")
    parser.add_argument("--pairs", "--only", nargs="+", metavar="NAME", help="names of folders (default: all)")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results" / output, metavar="CSV")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each tool (default: its own choice)")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="runs of which the median counts (%(default)s)"
    )
    return parser


def select_pairs(
    parser: argparse.ArgumentParser, options: argparse.Namespace, columns: Sequence[str]
) -> dict[str, Path]:
    """Return the folders of the selected pairs; exit with status 2 if an option is invalid."""
    if not options.data.is_dir():
        parser.error(f"--data must be a folder, got {options.data}")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    if options.repeat < 1:
        parser.error(f"--repeat must be at least 1, got {options.repeat}")
    pairs = find_pairs(options.data)
    names = options.pairs or list(pairs)
    unknown = [name for name in names if name not in pairs]
    if not pairs or unknown:
        if not pairs:
            parser.error(
                f"--data must contain a folder with fixed.nii.gz and moving.nii.gz, got none in {options.data}"
            )
        parser.error(f"--pairs must be among {', '.join(pairs)}, got {', '.join(unknown)}")
    try:
        harness.read_rows(options.output, columns)
    except ValueError as error:
        parser.error(str(error))
    return {name: pairs[name] for name in names}


def set_up(threads: int | None) -> None:
    """Limit the threads of this process, and print its environment."""
    if threads is not None:
        torch.set_num_threads(threads)
    harness.progress(", ".join(f"{name} {value}" for name, value in harness.environment().items()))


def save_row(output: Path, columns: Sequence[str], key: Sequence[str], row: Mapping[str, str]) -> list[harness.Row]:
    """Add a row to a file of results, or replace that with the same key; return all rows of the file."""
    new = {column: row.get(column, "") for column in columns}
    rows = harness.merged_rows(harness.read_rows(output, columns), [new], key)
    harness.write_rows(output, columns, rows)
    return rows


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of results as a table, without empty columns."""
    shown = [column for column in columns if column != "environment" and any(row.get(column) for row in rows)]
    harness.print_table(title, shown, [[row.get(column) or "-" for column in shown] for row in rows])


def run_pair(
    name: str, folder: Path, tools: Sequence[Tool], threads: int | None, repeat: int
) -> Iterator[dict[str, str]]:
    """Yield a row for each tool, in their order; if a tool fails, its row has the error."""

    def measure(tool: Tool, work: Path) -> dict[str, str]:
        if tool.error:
            raise RuntimeError(tool.error)
        job, truth = prepare(folder, work)
        return measure_row(tool, {**job, "repeat": repeat}, truth, work, threads)

    with tempfile.TemporaryDirectory() as temporary:
        for tool in tools:
            row = {"pair": name, "tool": tool.name, "version": tool.version}
            yield row | attempt(f"{name}: {tool.name}", folder, lambda tool=tool: measure(tool, Path(temporary)))


def attempt(description: str, folder: Path, measure: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Measure and report progress; if that fails, return the ``error``, without the name of the folder."""
    harness.progress(description)
    try:
        row = measure()
    except (RuntimeError, convexadam.ConvexAdamError) as error:
        row = {"error": " ".join(str(error).replace(f"{folder}{os.sep}", "").split())}
        harness.progress(f"  failed: {row['error']}")
    else:
        harness.progress(f"  {row['seconds']} s, {row['peak_mb'] or '?'} MB")
    return row


def prepare(folder: Path, work: Path) -> tuple[dict[str, Any], Truth]:
    """Write the inputs of all tools to ``work``; return the job that describes them, and the ground truth."""
    job: dict[str, Any] = {}
    fixed, moving = read_images(folder)
    for side, image in (("fixed", fixed), ("moving", moving)):
        np.save(work / f"{side}.npy", image.numpy())
        job |= {side: str(work / f"{side}.npy"), f"{side}_affine": image.grid.affine.tolist()}
    return job, read_truth(folder, fixed.grid, moving.grid)


def measure_row(tool: Tool, job: Mapping[str, Any], truth: Truth, work: Path, threads: int | None) -> dict[str, str]:
    """Register in a process of its own, and evaluate the field that it writes."""
    field = work / "field.nii.gz"
    measured = run_worker(tool.command, {**job, **tool.options}, field, work, threads)
    return format_measurements(measured) | {"version": measured["version"]} | format_scores(field, truth)


def run_worker(
    command: Sequence[str], job: Mapping[str, Any], field: Path, work: Path, threads: int | None
) -> dict[str, Any]:
    """Run a worker with this library, which writes a field; return its measurements."""
    outputs = {"field": str(field), "measured": str(work / "measured.json")}
    for path in outputs.values():
        Path(path).unlink(missing_ok=True)
    library = str(Path(convexadam.__file__).resolve().parents[1])
    search = os.pathsep.join([library, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": search, **harness.thread_environment(threads)}
    return harness.run_worker(command, {**job, **outputs}, work, env)


def format_measurements(measured: Mapping[str, Any]) -> dict[str, str]:
    """Return seconds, memory and environment as text."""
    environment = measured["environment"]
    versions = [
        f"Python {environment['python']}",
        *(f"torch {environment[name]}" for name in ("torch",) if name in environment),
    ]
    return {
        "threads": environment["threads"],
        "seconds": f"{measured['seconds']:.2f}",
        "cpu_seconds": f"{measured['cpu_seconds']:.2f}",
        "runs": str(measured["runs"]),
        "peak_mb": "" if measured["peak_mb"] is None else f"{measured['peak_mb']:.0f}",
        "environment": "; ".join([f"{environment['cpu']}, {environment['cores']} cores", *versions]),
    }


def format_scores(field: Path, truth: Truth) -> dict[str, str]:
    """Return the metrics of a field as text."""
    scores = evaluate(field, truth)
    return {name: "" if np.isnan(value) else f"{value:.5g}" for name, value in scores.items()}
