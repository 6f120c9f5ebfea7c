"""Accuracy, regularity, time and memory on image pairs with ground truth, beside the published package and others.

Every registration runs in a process of its own, and one and the same code (``convexadam.metrics``) judges every tool's
field. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convexadam
from convexadam.geometry import Grid, Image
from convexadam.io import read_image, read_landmarks, read_learn2reg
from convexadam.metrics import evaluate_transform, tre
from convexadam.registration.presets import PRESETS

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import harness  # noqa: E402 - these folders are no packages
from peers import PEERS, PUBLISHED, Tool, peer_tool  # noqa: E402

METRICS = (
    "dice", "dice30", "hd95_mm", "tre_mm", "tre30_mm", "tre_outside_mm", "dice_before", "tre_before_mm", "sdlogj",
    "folded_percent",
)  # fmt: skip
COLUMNS = ("pair", "tool", "version", *METRICS, "seconds", "runs", "peak_mb", "threads", "environment", "error")
KEY = ("pair", "tool")
AIR_HU = -1000.0
HIGHER_IS_BETTER = {"dice": True, "tre_mm": False}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a field is judged by: arguments of `evaluate_transform`, and landmarks outside the organ of interest."""

    grid: Grid
    scored: Mapping[str, Any]
    outside: tuple[torch.Tensor, torch.Tensor] | None


def find_pairs(data: Path) -> dict[str, Path]:
    """Every folder in ``data`` (or ``data`` itself) with a fixed and a moving image, by name."""
    folders = [data, *sorted(path for path in data.iterdir() if path.is_dir())]
    return {f.resolve().name: f for f in folders if all((f / f"{n}.nii.gz").is_file() for n in ("fixed", "moving"))}


def read_volume(path: Path) -> Image:
    """Read an image as float32; what lies below -1000, in CT a mark for "outside the scanner", becomes -1000 (air).

    The only rule about the content of images, and the same for every tool. No other modality has such values.
    """
    image = read_image(path)
    return Image(image.data.float().clamp(min=AIR_HU), image.grid)


def read_truth(folder: Path, fixed: Grid, moving: Grid) -> Truth:
    """Whatever ground truth the folder holds: label maps, which labels count, landmarks, landmarks outside."""
    scored: dict[str, Any] = {}
    labels = [folder / f"{side}_label.nii.gz" for side in ("fixed", "moving")]
    if all(path.is_file() for path in labels):
        scored["fixed_labels"], scored["moving_labels"] = (read_image(path) for path in labels)
        if (chosen := folder / "eval_labels.txt").is_file():
            scored["labels"] = [int(word) for word in chosen.read_text(encoding="utf-8").replace(",", " ").split()]
    if (inside := _landmarks_mm(folder, "landmarks", fixed, moving)) is not None:
        scored["fixed_landmarks_mm"], scored["moving_landmarks_mm"] = inside
    return Truth(grid=fixed, scored=scored, outside=_landmarks_mm(folder, "landmarks_outside", fixed, moving))


def _landmarks_mm(folder: Path, name: str, fixed: Grid, moving: Grid) -> tuple[torch.Tensor, torch.Tensor] | None:
    paths = [folder / f"{side}_{name}.csv" for side in ("fixed", "moving")]
    if not all(path.is_file() for path in paths):
        return None
    return fixed.to_mm(read_landmarks(paths[0])), moving.to_mm(read_landmarks(paths[1]))


def judge(path: Path, truth: Truth) -> dict[str, float]:
    """Measure a field (voxels of the fixed grid, fixed to moving); the same for every tool."""
    transform = read_learn2reg(path, truth.grid)
    found: dict[str, Any] = dict(evaluate_transform(transform, **truth.scored))
    if truth.outside is not None:
        found["tre_outside_mm"] = float(tre(*truth.outside, transform).mean())
    return {name: found[name] for name in METRICS if name in found}


def our_tools(presets: Iterable[str]) -> list[Tool]:
    """Return this library, once for each preset."""
    command = (sys.executable, str(HERE / "ours.py"))
    return [
        Tool(name=our_name(p), version=convexadam.__version__, command=command, options={"preset": p}) for p in presets
    ]


def our_name(preset: str) -> str:
    """Name of this library in the results."""
    return f"convexadam-torch {preset}"


def run_pair(
    name: str, folder: Path, tools: Sequence[Tool], threads: int | None, repeat: int
) -> Iterator[dict[str, str]]:
    """One row for each tool, in their order; a tool that fails gets a row with its error."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for tool in tools:
            harness.progress(f"{name}: {tool.name}")
            row = {"pair": name, "tool": tool.name, "version": tool.version}
            try:
                if tool.error:
                    raise RuntimeError(tool.error)
                job, truth = prepared(folder, work)
                row |= measured_row(tool, {**job, "repeat": repeat}, truth, work, threads)
                harness.progress(f"  {row['seconds']} s, {row['peak_mb'] or '?'} MB")
            except (RuntimeError, convexadam.ConvexAdamError) as error:
                row["error"] = " ".join(str(error).replace(f"{folder}{os.sep}", "").split())
                harness.progress(f"  failed: {row['error']}")
            yield {column: row.get(column, "") for column in COLUMNS}


def prepared(folder: Path, work: Path) -> tuple[dict[str, Any], Truth]:
    """Write the arrays that every tool is given to ``work``; what to tell the workers, and the ground truth."""
    job: dict[str, Any] = {}
    images = {side: read_volume(folder / f"{side}.nii.gz") for side in ("fixed", "moving")}
    for side, image in images.items():
        np.save(work / f"{side}.npy", image.numpy())
        job |= {side: str(work / f"{side}.npy"), f"{side}_affine": image.grid.affine.tolist()}
    return job, read_truth(folder, images["fixed"].grid, images["moving"].grid)


def measured_row(tool: Tool, job: Mapping[str, Any], truth: Truth, work: Path, threads: int | None) -> dict[str, str]:
    """Register in a process of its own, then judge the field that it left."""
    outputs = {"field": str(work / "field.nii.gz"), "measured": str(work / "measured.json")}
    for path in outputs.values():
        Path(path).unlink(missing_ok=True)
    library = str(Path(convexadam.__file__).resolve().parents[1])
    search = os.pathsep.join([library, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": search, **harness.thread_environment(threads)}
    measured = harness.run_worker(tool.command, {**job, **tool.options, **outputs}, work, env)
    about = measured["environment"]
    row = {name: _text(value) for name, value in judge(Path(outputs["field"]), truth).items()}
    row["version"], row["threads"] = measured["version"], about["threads"]
    row["seconds"] = f"{measured['seconds']:.2f}"
    row["runs"] = str(measured["runs"])
    row["peak_mb"] = "" if measured["peak_mb"] is None else f"{measured['peak_mb']:.0f}"
    versions = [f"Python {about['python']}", *(f"torch {about[name]}" for name in ("torch",) if name in about)]
    row["environment"] = "; ".join([f"{about['cpu']}, {about['cores']} cores", *versions])
    return row


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5g}"


def print_pair(name: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print what the tools reached on one pair, side by side."""
    shown = [column for column in COLUMNS[2:] if column != "environment" and any(row[column] for row in rows)]
    cells = [(column, *(row[column] or "-" for row in rows)) for column in shown]
    harness.print_table(name, ["", *(row["tool"] for row in rows)], cells)


def verdicts(rows: Iterable[Mapping[str, str]], presets: Sequence[str]) -> list[tuple[str, ...]]:
    """Each preset against the published package: relative difference of Dice or TRE, and folding."""
    by_key = {(row["pair"], row["tool"]): row for row in rows}
    found = []
    for pair in sorted({pair for pair, _ in by_key}):
        for preset in presets:
            ours, peer = by_key.get((pair, our_name(preset))), by_key.get((pair, PUBLISHED))
            if ours is not None and peer is not None:
                found += [_verdict(ours, peer, m) for m in HIGHER_IS_BETTER if ours[m] and peer[m]]
    return found


def _verdict(ours: Mapping[str, str], peer: Mapping[str, str], measure: str) -> tuple[str, ...]:
    value, reference = float(ours[measure]), float(peer[measure])
    percent = 100 * (value / reference - 1) if reference else 0.0
    word = "equal" if abs(percent) < 0.05 else "better" if (percent > 0) == HIGHER_IS_BETTER[measure] else "worse"
    folding = ours["folded_percent"], peer["folded_percent"]
    return ours["pair"], ours["tool"], measure, ours[measure], peer[measure], f"{percent:+.1f} %", word, *folding


def print_verdicts(rows: Iterable[Mapping[str, str]], presets: Sequence[str]) -> None:
    """Print the comparison with the published package, where there is one."""
    lines = verdicts(rows, presets)
    if lines:
        columns = ["pair", "tool", "measure", "value", "published", "difference", "", "folded %", "published folded %"]
        harness.print_table(f"Against {PUBLISHED}", columns, lines)


def parsed(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Path]]:
    """Options, and the chosen pairs; what cannot be used ends the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of folders with fixed.nii.gz, moving.nii.gz")
    parser.add_argument("--pairs", nargs="+", metavar="NAME", help="names of folders (default: all)")
    parser.add_argument("--presets", nargs="*", default=["default", "published"], choices=PRESETS, metavar="PRESET")
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--peer-venv", type=Path, default=Path(".venv-peers"), metavar="DIR", help="their environments")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results" / "pairs.csv", metavar="CSV")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each tool (default: its own choice)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="registrations of which the median counts")
    options = parser.parse_args(arguments)
    if not options.data.is_dir():
        parser.error(f"{options.data} is not a folder")
    if options.threads is not None and options.threads < 1:
        parser.error("--threads is at least 1")
    if options.repeat < 1:
        parser.error("--repeat is at least 1")
    if not options.presets and not options.peers:
        parser.error("nothing to run: name a preset or a peer")
    pairs = find_pairs(options.data)
    names = options.pairs or list(pairs)
    if not pairs or (unknown := [name for name in names if name not in pairs]):
        what = f"no pair {', '.join(unknown)}" if pairs else "no folder with fixed.nii.gz and moving.nii.gz"
        parser.error(f"{options.data} has {what}; it has: {', '.join(pairs) or 'nothing'}")
    try:
        harness.read_rows(options.output, COLUMNS)
    except ValueError as error:
        parser.error(str(error))
    return options, {name: pairs[name] for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a tool failed on a pair."""
    options, pairs = parsed(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    harness.progress(", ".join(f"{name} {value}" for name, value in harness.environment().items()))
    chosen = [name for name in PEERS if name in options.peers]  # in an order of their own
    tools = our_tools(options.presets) + [peer_tool(PEERS[name], options.peer_venv) for name in chosen]
    failed, rows = 0, []
    for name, folder in pairs.items():
        for row in run_pair(name, folder, tools, options.threads, options.repeat):
            failed += bool(row["error"])
            rows = harness.merged_rows(harness.read_rows(options.output, COLUMNS), [row], KEY)
            harness.write_rows(options.output, COLUMNS, rows)
        mine = [row for row in rows if row["pair"] == name]
        print_pair(name, sorted(mine, key=lambda row: row["tool"] in {peer.name for peer in PEERS.values()}))
    print_verdicts([row for row in rows if row["pair"] in pairs], options.presets)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
