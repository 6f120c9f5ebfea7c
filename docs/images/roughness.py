"""Draw roughness.png: error against roughness of all tools, from benchmarks/results/pairs.csv. Takes no arguments."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
matplotlib.use("agg")
from generate import OWN, PAIRS, SEPARATE, rows_of  # noqa: E402 - docs is no package
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

DIAL = " smoothness "
PRESETS = {"best": "#c22e2e", "default": "#1f5fa8"}
PEERS = {
    "convexAdam 0.2.0": "o",
    "convexAdam 0.2.0 tuned": "v",
    "greedy NCC": "s",
    "greedy NCC 2x2x2 100x100x50": "D",
    "greedy NCC 4x4x4 100x100x50": "P",
    "ANTs SyNOnly": "^",
    "ANTs SyN CC": "*",
    "FireANTs SyN": "p",
    "FireANTs greedy": "h",
    "SimpleITK demons": "X",
    "niftyreg †": "<",
    "deedsBCV †": ">",
}
WORST = 1.6
"""Errors above so many times the smallest one are not shown: that of a tool that failed would hide the others."""

Point = tuple[float, float]


def read_points() -> dict[str, dict[str, Point]]:
    """Return roughness and error, one minus Dice or TRE in mm, of each tool on each pair."""
    points: dict[str, dict[str, Point]] = defaultdict(dict)
    for row in rows_of("pairs"):
        if row["sdlogj"] and (row["tre_mm"] or row["dice"]):
            points[row["pair"]][row["tool"]] = float(row["sdlogj"]), make_error(row["tre_mm"], row["dice"])
    for pair, (tool, value, roughness) in SEPARATE.items():
        points[pair][tool] = roughness, value if "mm" in PAIRS[pair][1] else 1 - value
    return points


def make_error(tre_mm: str, dice: str) -> float:
    """Return what is better the smaller it is."""
    return float(tre_mm) if tre_mm else 1 - float(dice)


def draw_pair(axes: Axes, pair: str, points: dict[str, Point]) -> None:
    """Draw the peers as grey marks, the presets in colour, and their lines of ``smoothness``."""
    for tool, marker in PEERS.items():
        if tool in points:
            axes.plot(*points[tool], marker, color="#888888", markersize=6)
    for name, colour in PRESETS.items():
        own = {tool: point for tool, point in points.items() if tool.split(DIAL)[0] == OWN + name}
        line = sorted(own.values())
        axes.plot(*zip(*line, strict=True), "-", color=colour, linewidth=1.2)
        for tool, point in own.items():
            axes.plot(*point, "o", color=colour, markersize=3 if DIAL in tool else 7)
    axes.set_title(PAIRS[pair][0], fontsize=9)
    best = min(error for _, error in points.values())
    shown = [point for point in points.values() if point[1] <= WORST * best]
    highest = max(error for _, error in shown)
    margin = 0.08 * (highest - best)
    axes.set_ylim(best - margin, highest + margin)
    axes.set_xlim(0, 1.08 * max(roughness for roughness, _ in shown))
    axes.tick_params(labelsize=7)


def main() -> None:
    """Draw all pairs."""
    points = read_points()
    figure, panels = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
    for axes, pair in zip(panels.flat, PAIRS, strict=True):
        draw_pair(axes, pair, points[pair])
    for axes in panels[1]:
        axes.set_xlabel("SDlogJ", fontsize=8)
    for axes in panels.flat[:5]:
        axes.set_ylabel("TRE, mm", fontsize=8)
    for axes in panels.flat[5:]:
        axes.set_ylabel("1 - Dice", fontsize=8)
    marks = [plt.Line2D([], [], marker="o", color=colour, label=name) for name, colour in PRESETS.items()]
    marks += [plt.Line2D([], [], marker=m, color="#888888", linestyle="", label=tool) for tool, m in PEERS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    figure.savefig(HERE / "roughness.png", dpi=110)


if __name__ == "__main__":
    main()
