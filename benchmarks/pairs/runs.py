"""What the benchmarks of pairs share: options, workers, rows of results."""

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
from truth import Truth, find_pairs, judge, read_images, read_truth  # noqa: E402

OUR_WORKER = (sys.executable, str(HERE / "ours.py"))


def parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """Return the options that all of them have; ``output`` is the name of the file of results."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="folder of folders with fixed.nii.gz, moving.nii.gz")
    found.add_argument("--pairs", "--only", nargs="+", metavar="NAME", help="names of folders (default: all)")
    found.add_argument("--output", type=Path, default=HERE.parent / "results" / output, metavar="CSV")
    found.add_argument("--threads", type=int, metavar="N", help="threads of each tool (default: its own choice)")
    found.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="runs of which the median counts (%(default)s)"
    )
    return found


def chosen_pairs(
    parser: argparse.ArgumentParser, options: argparse.Namespace, columns: Sequence[str]
) -> dict[str, Path]:
    """Return the chosen pairs; what cannot be used ends the program with status 2."""
    if not options.data.is_dir():
        parser.error(f"{options.data} is not a folder")
    if options.threads is not None and options.threads < 1:
        parser.error("--threads is at least 1")
    if options.repeat < 1:
        parser.error("--repeat is at least 1")
    pairs = find_pairs(options.data)
    names = options.pairs or list(pairs)
    if not pairs or (unknown := [name for name in names if name not in pairs]):
        what = f"no pair {', '.join(unknown)}" if pairs else "no folder with fixed.nii.gz and moving.nii.gz"
        parser.error(f"{options.data} has {what}; it has: {', '.join(pairs) or 'nothing'}")
    try:
        harness.read_rows(options.output, columns)
    except ValueError as error:
        parser.error(str(error))
    return {name: pairs[name] for name in names}


def begin(threads: int | None) -> None:
    """Hold this process to a number of threads, and say where it runs."""
    if threads is not None:
        torch.set_num_threads(threads)
    harness.progress(", ".join(f"{name} {value}" for name, value in harness.environment().items()))


def saved(output: Path, columns: Sequence[str], key: Sequence[str], row: Mapping[str, str]) -> list[harness.Row]:
    """Put a row into a file of results, in place of that of the same key; all rows of the file."""
    new = {column: row.get(column, "") for column in columns}
    rows = harness.merged_rows(harness.read_rows(output, columns), [new], key)
    harness.write_rows(output, columns, rows)
    return rows


def tabulated(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Print those columns that hold anything; each row of results is one of the table."""
    shown = [column for column in columns if column != "environment" and any(row.get(column) for row in rows)]
    harness.print_table(title, shown, [[row.get(column) or "-" for column in shown] for row in rows])


def run_pair(
    name: str, folder: Path, tools: Sequence[Tool], threads: int | None, repeat: int
) -> Iterator[dict[str, str]]:
    """One row for each tool, in their order; a tool that fails gets a row with its error."""

    def measured(tool: Tool, work: Path) -> dict[str, str]:
        if tool.error:
            raise RuntimeError(tool.error)
        job, truth = prepared(folder, work)
        return measured_row(tool, {**job, "repeat": repeat}, truth, work, threads)

    with tempfile.TemporaryDirectory() as temporary:
        for tool in tools:
            row = {"pair": name, "tool": tool.name, "version": tool.version}
            yield row | attempted(f"{name}: {tool.name}", folder, lambda tool=tool: measured(tool, Path(temporary)))


def attempted(what: str, folder: Path, measure: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Measure, and say so; where that fails, the ``error`` without the name of the folder."""
    harness.progress(what)
    try:
        row = measure()
    except (RuntimeError, convexadam.ConvexAdamError) as error:
        row = {"error": " ".join(str(error).replace(f"{folder}{os.sep}", "").split())}
        harness.progress(f"  failed: {row['error']}")
    else:
        harness.progress(f"  {row['seconds']} s, {row['peak_mb'] or '?'} MB")
    return row


def prepared(folder: Path, work: Path) -> tuple[dict[str, Any], Truth]:
    """Write the arrays that every tool is given to ``work``; what to tell the workers, and the ground truth."""
    job: dict[str, Any] = {}
    fixed, moving = read_images(folder)
    for side, image in (("fixed", fixed), ("moving", moving)):
        np.save(work / f"{side}.npy", image.numpy())
        job |= {side: str(work / f"{side}.npy"), f"{side}_affine": image.grid.affine.tolist()}
    return job, read_truth(folder, fixed.grid, moving.grid)


def measured_row(tool: Tool, job: Mapping[str, Any], truth: Truth, work: Path, threads: int | None) -> dict[str, str]:
    """Register in a process of its own, then judge the field that it left."""
    field = work / "field.nii.gz"
    measured = worked(tool.command, {**job, **tool.options}, field, work, threads)
    return cells(measured) | {"version": measured["version"]} | scores(field, truth)


def worked(
    command: Sequence[str], job: Mapping[str, Any], field: Path, work: Path, threads: int | None
) -> dict[str, Any]:
    """Run a worker with this library, which leaves a field; what it measured."""
    outputs = {"field": str(field), "measured": str(work / "measured.json")}
    for path in outputs.values():
        Path(path).unlink(missing_ok=True)
    library = str(Path(convexadam.__file__).resolve().parents[1])
    search = os.pathsep.join([library, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": search, **harness.thread_environment(threads)}
    return harness.run_worker(command, {**job, **outputs}, work, env)


def cells(measured: Mapping[str, Any]) -> dict[str, str]:
    """Seconds, memory and environment as text."""
    about = measured["environment"]
    versions = [f"Python {about['python']}", *(f"torch {about[name]}" for name in ("torch",) if name in about)]
    return {
        "threads": about["threads"],
        "seconds": f"{measured['seconds']:.2f}",
        "runs": str(measured["runs"]),
        "peak_mb": "" if measured["peak_mb"] is None else f"{measured['peak_mb']:.0f}",
        "environment": "; ".join([f"{about['cpu']}, {about['cores']} cores", *versions]),
    }


def scores(field: Path, truth: Truth) -> dict[str, str]:
    """Metrics of a field as text."""
    found = judge(field, truth)
    return {name: "" if np.isnan(value) else f"{value:.5g}" for name, value in found.items()}
