"""Accuracy, regularity, time and memory on image pairs with ground truth, compared to the published package and others.

Every registration runs in a process of its own, and the fields of all tools are evaluated by the same code
(``convexadam.metrics``). See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import convexadam
from convexadam.registration.presets import preset_names

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import harness  # noqa: E402 - these folders are no packages
import runs  # noqa: E402
import truth  # noqa: E402
from peers import AT_THEIR_BEST, PEERS, PUBLISHED, Tool, make_peer_tool  # noqa: E402

_MEASURES = ("seconds", "cpu_seconds", "runs", "peak_mb", "threads", "environment")
COLUMNS = ("pair", "tool", "version", *truth.METRICS, *_MEASURES, "error")
KEY = ("pair", "tool")
HIGHER_IS_BETTER = {"dice": True, "tre_mm": False}


def make_library_tools(presets: Iterable[str], smoothness: Sequence[float] = (1.0,)) -> list[Tool]:
    """Return this library as a tool, once for each preset and smoothness."""
    return [
        Tool(
            name=library_name(p, factor),
            version=convexadam.__version__,
            command=runs.LIBRARY_WORKER,
            options={"config": convexadam.preset(p, smoothness=factor).to_toml()},
        )
        for p in presets
        for factor in smoothness
    ]


def library_name(preset: str, smoothness: float = 1.0) -> str:
    """Name of this library with a preset in the results."""
    return f"convexadam-torch {preset}" + ("" if smoothness == 1 else f" smoothness {smoothness:g}")


def print_pair(name: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print the results of all tools on one pair, side by side."""
    shown = [column for column in COLUMNS[2:] if column != "environment" and any(row[column] for row in rows)]
    cells = [(column, *(row[column] or "-" for row in rows)) for column in shown]
    harness.print_table(name, ["", *(row["tool"] for row in rows)], cells)


def compare(rows: Iterable[Mapping[str, str]], presets: Sequence[str]) -> list[tuple[str, ...]]:
    """Compare each preset with the published package: relative difference of Dice or TRE, and folding."""
    by_key = {(row["pair"], row["tool"]): row for row in rows}
    found = []
    for pair in sorted({pair for pair, _ in by_key}):
        for preset in presets:
            library, peer = by_key.get((pair, library_name(preset))), by_key.get((pair, PUBLISHED))
            if library is not None and peer is not None:
                found += [_compare_measure(library, peer, m) for m in HIGHER_IS_BETTER if library[m] and peer[m]]
    return found


def _compare_measure(library: Mapping[str, str], peer: Mapping[str, str], measure: str) -> tuple[str, ...]:
    value, reference = float(library[measure]), float(peer[measure])
    percent = 100 * (value / reference - 1) if reference else 0.0
    word = "equal" if abs(percent) < 0.05 else "better" if (percent > 0) == HIGHER_IS_BETTER[measure] else "worse"
    folding = library["folded_percent"], peer["folded_percent"]
    return (
        library["pair"],
        library["tool"],
        measure,
        library[measure],
        peer[measure],
        f"{percent:+.1f} %",
        word,
        *folding,
    )


def print_comparison(rows: Iterable[Mapping[str, str]], presets: Sequence[str]) -> None:
    """Print the comparison with the published package, where there is one."""
    lines = compare(rows, presets)
    if lines:
        columns = ["pair", "tool", "measure", "value", "published", "difference", "", "folded %", "published folded %"]
        harness.print_table(f"Against {PUBLISHED}", columns, lines)


def parse_options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Path]]:
    """Return options and selected pairs; exit with status 2 if an option is invalid."""
    parser = runs.make_parser(__doc__, "pairs.csv")
    parser.add_argument(
        "--presets", nargs="*", default=["default", "published"], choices=preset_names(), metavar="PRESET"
    )
    parser.add_argument(
        "--smoothness", nargs="+", type=float, default=[1.0], metavar="FACTOR", help="of each preset (%(default)s)"
    )
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument(
        "--peers-best",
        action="store_true",
        help=f"others at their most accurate: {', '.join(AT_THEIR_BEST)}",
    )
    parser.add_argument(
        "--peer-venv", type=Path, default=Path(".venv-peers"), metavar="DIR", help="folder of the environments of peers"
    )
    options = parser.parse_args(arguments)
    options.peers += AT_THEIR_BEST if options.peers_best else ()
    if not options.presets and not options.peers:
        parser.error("--presets or --peers must name a tool, got none")
    return options, runs.select_pairs(parser, options, COLUMNS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if a tool failed on a pair."""
    options, pairs = parse_options(arguments)
    runs.set_up(options.threads)
    peers = [make_peer_tool(PEERS[name], options.peer_venv) for name in PEERS if name in options.peers]  # in its order
    tools = make_library_tools(options.presets, options.smoothness) + peers
    failed, rows = 0, []
    for name, folder in pairs.items():
        for row in runs.run_pair(name, folder, tools, options.threads, options.repeat):
            failed += "error" in row
            rows = runs.save_row(options.output, COLUMNS, KEY, row)
        mine = [row for row in rows if row["pair"] == name]
        print_pair(name, sorted(mine, key=lambda row: row["tool"] in {peer.name for peer in PEERS.values()}))
    print_comparison([row for row in rows if row["pair"] in pairs], options.presets)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
