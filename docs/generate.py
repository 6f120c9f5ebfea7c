"""Write the generated tables of README.md and docs/*.md, and docs/reference/*.md.

``python docs/generate.py``, or ``--check`` to compare only.

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. What is written there comes from the code
(settings, presets, formats) or from ``benchmarks/results`` (figures), so that no page repeats either by hand.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

MARKED = re.compile(r"(?P<begin><!-- generated: (?P<name>[^>]+?) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)

EXPORTS = {
    "registration": "RegistrationConfig IsotropicGrid AutoForeground LandmarkTerm",
    "linear": "LinearAlignment",
    "discrete": "ConvexSearch",
    "features": "MindSSC Intensity LabelFeatures ProbabilityFeatures NNUNetFeatures TorchScriptFeatures Precomputed "
    "Concat",
    "continuous": "Refinement Level DifferentContrasts Ssd Lncc JointSsd Part WeightedSum Diffusion Bending "
    "VolumePreserving Adam LevenbergMarquardt GaussNewton Compositional StationaryVelocity BoxSmoothing "
    "GaussianSmoothing KovesiSmoothing BilateralSmoothing AdaptiveSmoothing",
}
COMPONENTS = {name: f"convexadam.{module}" for module, names in EXPORTS.items() for name in names.split()}
"""Components with settings, and the module that exports them."""

PAIRS = {
    "lung_ct_elastix": ("lung CT", "TRE, mm"),
    "liver_mr_eth_18": ("liver MR 18", "TRE, mm"),
    "liver_mr_eth_19": ("liver MR 19", "TRE, mm"),
    "brain_mr_openms07_T1_T2_syn": ("brain, T1 and T2", "TRE, mm"),
    "brain_mr_openms26_T1_FLAIR_syn": ("brain, T1 and FLAIR", "TRE, mm"),
    "brain_t1_vxm": ("T1 brains (vxm)", "Dice"),
    "brain_t1_malf_1000_1001": ("T1 brains (malf 1000)", "Dice"),
    "brain_t1_malf_1003_1010": ("T1 brains (malf 1003)", "Dice"),
}
"""Folders of the benchmark: their names in the tables, and the measure of the pair."""

SEPARATE = {
    "lung_ct_elastix": ("niftyreg †", 1.371, 0.044),
    "liver_mr_eth_18": ("deedsBCV †", 2.811, 0.046),
    "liver_mr_eth_19": ("deedsBCV †", 1.311, 0.024),
    "brain_mr_openms07_T1_T2_syn": ("deedsBCV †", 0.850, 0.041),
    "brain_mr_openms26_T1_FLAIR_syn": ("niftyreg †", 1.219, 0.048),
    "brain_t1_vxm": ("niftyreg †", 0.756, 0.079),
}
"""Tool, TRE or Dice, and SDlogJ of single runs outside the benchmark, where they beat every other tool in it.

The benchmark does not run these tools, so that no result file holds the figures. They are shown, and marked, because
the comparison would look better than it is without them.
"""

OWN, PUBLISHED = "convexadam-torch ", "convexAdam 0.2.0"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *(list(row) for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of results."""
    with (RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def slices() -> str:
    """Return the overlap and the time of 2-D registrations."""
    names = {"ants": "ANTs, SyNOnly", "greedy": "greedy, NCC"}
    rows = sorted(rows_of("slices"), key=lambda row: -float(row["dice"]))
    shown = ([names.get(r["settings"], r["settings"]), r["dice"], r["cpu_seconds"]] for r in rows)
    before = rows[0]["dice_before"]
    return table(["settings", f"Dice (before: {before})", "CPU seconds"], shown)


def bias() -> str:
    """Return bias and 99th percentile of the error of local motion, in voxels."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows_of("bias"):
        cell = f"{float(row['bias']):+.3f}, {row['p99']}"
        rows.setdefault((row["preset"], row["slice_mm"]), {})[row["motion"]] = cell
    motions = sorted({motion for cells in rows.values() for motion in cells}, key=float)
    lines = ([f"`{name}`", f"{mm} mm", *(cells[m] for m in motions)] for (name, mm), cells in rows.items())
    return table(("preset", "slices", *motions), lines)


FUSIONS = {
    "joint": "`JointFusion()`",
    "nonlocal": "`NonLocalVote()`",
    "local": "`LocalVote()`",
    "majority": "`MajorityVote()`",
    "ants": "ANTs, joint label fusion",
}


def fusions() -> str:
    """Return the overlap and the time of label fusions; of methods that fused all whole brains, also the mean."""
    rows = sorted(rows_of("fusion"), key=lambda r: (r["block"], r["target"], r["preset"], -float(r["dice"])))
    whole = {
        name: [float(r["dice"]) for r in rows if not r["block"] and r["method"] == name]
        for name in ("joint", "majority")
    }
    means = [
        [f"mean of the {len(dice)} whole brains", "`best`", "15", FUSIONS[name], f"{fmean(dice):.4f}", "", ""]
        for name, dice in whole.items()
    ]
    shown = [
        [
            f"{r['target']}, {'block of ' + r['block'] + ' voxels' if r['block'] else 'whole brain'}",
            f"`{r['preset']}`",
            r["atlases"],
            FUSIONS[r["method"]],
            r["dice"],
            r["cpu_seconds"],
            r["registration_cpu_seconds"],
        ]
        for r in rows
    ]
    heads = ("target", "preset", "atlases", "fusion", "Dice", "CPU seconds", "of the registrations")
    return table(heads, [*means, *shown])


def templates() -> str:
    """Return overlap, sharpness, bias and time of templates."""
    names = {"ants": "ANTs, `build_template`", "convexadam": "convexadam"}
    data = {"study_brains_t1": "brains", "slices_oasis_2d": "2-D slices"}
    rows = sorted(rows_of("template"), key=lambda r: (r["data"], -int(r["scans"]), r["tool"] == "ants", r["tool"]))
    shown = (
        [
            f"{r['scans']} {data[r['data']]}",
            names.get(r["tool"], r["tool"]),
            *(r[column] for column in ("dice", "sharpness", "bias_mm", "cpu_seconds")),
        ]
        for r in rows
    )
    return table(("scans", "tool", "Dice", "sharpness", "bias (mm)", "CPU seconds"), shown)


def series() -> str:
    """Return errors and times of the frames of series that start at the frame before."""
    rows = [row for row in rows_of("series") if row["frame"] != "1"]
    shown = (
        [
            r["series"],
            r["frame"],
            r["before_mm"],
            r["cold_mm"],
            r["warm_mm"],
            f"{float(r['warm_cpu_seconds']) / float(r['cold_cpu_seconds']):.2f}",
        ]
        for r in rows
    )
    heads = ("series", "frame", "before (mm)", "by itself (mm)", "from the frame before (mm)", "share of the CPU time")
    return table(heads, shown)


def code(value: Any) -> str:
    """Return a value as code, or nothing for nothing."""
    return "" if value is None else f"`{value}`"


# Settings


def settings(name: str) -> str:
    """Return a table of the settings of a component, by its fields and its docstring."""
    component = getattr(importlib.import_module(COMPONENTS[name]), name)
    meanings = attributes(component.__doc__ or "")
    rows = []
    for field in dataclasses.fields(component):
        names = [known for known in meanings if field.name in known.split(", ")]
        if not names:
            raise SystemExit(f"the docstring of {name} must describe {field.name}; add it to Attributes")
        rows.append([f"`{field.name}`", default(field), meanings[names[0]]])
    return table(("setting", "default", "meaning"), rows)


def default(field: dataclasses.Field[Any]) -> str:
    """Return the default of a setting as code."""
    if field.default is not dataclasses.MISSING:
        return f"`{short(field.default)}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{short(field.default_factory())}`"
    return "required"


def short(value: Any) -> str:
    """Return a component without the settings that have their defaults."""
    if isinstance(value, tuple):
        return "(" + ", ".join(short(v) for v in value) + ("," if len(value) == 1 else "") + ")"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    changed = []
    for field in dataclasses.fields(value):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if getattr(value, field.name) != made:
            changed.append(f"{field.name}={short(getattr(value, field.name))}")
    return f"{type(value).__name__}({', '.join(changed)})"


def attributes(docstring: str) -> dict[str, str]:
    """Return the section Attributes of a docstring of numpy's style: names, and their text on one line."""
    found: dict[str, str] = {}
    lines = iter(docstring.expandtabs().splitlines())
    indent = next((len(line) - len(line.lstrip()) for line in lines if line.strip() == "Attributes"), None)
    if indent is None:
        return found
    next(lines)  # the underline
    name, above = "", ""
    for line in lines:
        if set(line.strip()) == {"-"} and len(line) - len(line.lstrip()) == indent:
            found.pop(above, None)  # it was the title of the next section
            break
        if line.strip() and len(line) - len(line.lstrip()) == indent:
            name = above = line.strip()
            found[name] = ""
        elif line.strip():
            found[name] = f"{found[name]} {line.strip()}".strip()
    return {name: markdown(text) for name, text in found.items()}


def markdown(text: str) -> str:
    """Turn the marks of a docstring into those of Markdown, within a table."""
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("|", "\\|")


# Presets


def presets() -> str:
    """Return the settings of the presets side by side, where they differ, without those that are defaults."""
    from convexadam.registration.presets import preset, preset_names

    names = list(preset_names())
    columns = [dict(parts(preset(name))) for name in names]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [
        [f"`{key}`", *(code(column.get(key)) for column in columns)]
        for key in keys
        if len({column.get(key) for column in columns}) > 1
    ]
    return table(("setting", *(f"`{name}`" for name in names)), rows)


def parts(config: Any) -> Iterable[tuple[str, str]]:
    """Yield the settings of a registration as code, those of the refinement one by one."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "continuous" and value is not None:
            yield from ((f"continuous.{f.name}", short(getattr(value, f.name))) for f in dataclasses.fields(value))
        else:
            yield field.name, short(value)


# Formats


def formats() -> str | None:
    """Return the formats of transforms, or ``None`` where the library cannot list them yet."""
    try:
        module = importlib.import_module("convexadam.io.formats")
    except ModuleNotFoundError:
        return None
    return str(module.formats_markdown()).strip() + "\n" if hasattr(module, "formats_markdown") else None


# Figures


def score(row: dict[str, str]) -> float:
    """Return the landmark error or the overlap of a row."""
    return float(row["tre_mm"] or row["dice"])


def accuracy(*, roughness: bool = False) -> str:
    """Return TRE or Dice of each pair: presets, the published package, and the best of all other tools."""
    found: dict[str, dict[str, tuple[float, float]]] = {pair: {} for pair in PAIRS}
    before = {}
    for row in rows_of("pairs"):
        found[row["pair"]][row["tool"]] = score(row), float(row["sdlogj"])
        before[row["pair"]] = float(row["tre_before_mm"] or row["dice_before"])
    names = ("default", "best")
    rows = []
    for pair, (title, measure) in PAIRS.items():
        better = max if measure == "Dice" else min
        tools = found[pair]
        others = {t: v for t, v in tools.items() if not t.startswith(OWN) and t != PUBLISHED}
        if pair in SEPARATE:
            others[SEPARATE[pair][0]] = SEPARATE[pair][1:]
        best = better(others, key=lambda tool: others[tool][0])
        own = {name: tools[OWN + name] for name in names}
        first = better(v[0] for v in (*own.values(), tools[PUBLISHED], others[best]))
        rows.append(
            [
                title,
                measure,
                f"{before[pair]:.3f}",
                *(figure(value, first, roughness=roughness) for value in (*own.values(), tools[PUBLISHED])),
                f"{best}: {figure(others[best], first, roughness=roughness)}",
            ]
        )
    return table(
        ("pair", "measure", "before", *(f"`{name}`" for name in names), PUBLISHED, "best other tool"),
        rows,
    )


def figure(value: tuple[float, float], first: float, *, roughness: bool) -> str:
    """Return a figure, set off where it is the best of its row."""
    shown = f"**{value[0]:.3f}**" if value[0] == first else f"{value[0]:.3f}"
    return f"{shown} ({value[1]:.3f})" if roughness else shown


def accuracy_with_roughness() -> str:
    """Return the same with SDlogJ in brackets."""
    return accuracy(roughness=True)


def speed() -> str:
    """Return seconds, largest memory and accuracy of the tools on two pairs."""
    tools = {
        OWN + "default": "`default`",
        OWN + "published": "`published`",
        PUBLISHED: "convexAdam 0.2.0",
        "greedy NCC": "greedy",
        "ANTs SyNOnly": "ANTs SyNOnly",
        "SimpleITK demons": "demons",
    }
    found = {(row["pair"], row["tool"]): row for row in rows_of("speed")}
    rows = []
    for pair, voxels in (("lung_ct_elastix", "2.3 million voxels"), ("brain_t1_vxm", "6.9 million voxels")):
        title, measure = PAIRS[pair]
        rows.append([f"{title}, {voxels}: s", *(f"{float(found[pair, t]['seconds']):.3g}" for t in tools)])
        rows.append(["MB", *(found[pair, t]["peak_mb"] for t in tools)])
        rows.append([measure, *(f"{score(found[pair, t]):.3f}" for t in tools)])
    return table(("", *tools.values()), rows)


def speedups() -> str:
    """Return how many times faster the presets are than the published package, pair by pair."""
    found = {(row["pair"], row["tool"]): float(row["seconds"]) for row in rows_of("pairs")}
    rows = [
        [
            PAIRS[pair][0],
            f"{found[pair, PUBLISHED]:.1f}",
            *(f"{s:.1f} ({found[pair, PUBLISHED] / s:.1f})" for s in (found[pair, OWN + n] for n in names)),
        ]
        for names in [("published", "default", "best")]
        for pair in PAIRS
    ]
    return table(("pair", "convexAdam 0.2.0: s", "`published`: s (times)", "`default`", "`best`"), rows)


def ablation() -> str:
    """Return TRE and SDlogJ of the preset ``best`` without one component at a time."""
    pairs = {
        "lung_ct_elastix": "lung",
        "liver_mr_eth_18": "liver 18: in, out",
        "liver_mr_eth_19": "liver 19: in, out",
        "brain_mr_openms07_T1_T2_syn": "brain, T1 and T2",
    }
    found = {(r["pair"], r["without"]): r for r in rows_of("ablation") if r["preset"] == "best"}
    order = (
        *("nothing", "linear alignment", "kept voxels", "second search", "both directions", "full-resolution level"),
        *("coarse level", "intensities", "intensities in windows", "descriptors", "choice by contrast"),
        *("outlier weights", "update windows", "adaptive smoothing", "field smoothing", "composition", "momentum"),
        "Gauss-Newton",
    )
    rows = []
    for without in order:
        cells = []
        for pair in pairs:
            row = found[pair, without]
            errors = ", ".join(f"{float(row[c]):.3f}" for c in ("tre_mm", "tre_outside_mm") if row[c])
            cells.append(f"{errors} ({float(row['sdlogj']):.3f})")
        rows.append([without, *cells])
    return table(("without", *pairs.values()), rows)


def optimisers() -> str:
    """Return what each optimiser reaches from one start: TRE or Dice (SDlogJ); steps; MB."""
    names = ("Adam", "Adam, tolerance", "Levenberg-Marquardt", "Levenberg-Marquardt, tolerance")
    found = {(row["pair"], row["optimiser"]): row for row in rows_of("optimisers")}

    def cell(row: dict[str, str]) -> str:
        text = f"{score(row):.3f} ({float(row['sdlogj']):.3f})"
        return f"{text}; {row['iterations']}; {row['peak_mb']}" if row["peak_mb"] else text

    rows = [
        [PAIRS[pair][0], *(cell(found[pair, name]) for name in ("none: the start", *names)),] for pair in PAIRS
    ]  # fmt: skip
    return table(("pair", "start", *names), rows)


def scaling() -> str:
    """Return seconds over the number of voxels, of the presets that were timed."""
    presets = ("default", "published")
    found = {(row["edge"], row["preset"]): row["seconds"] for row in rows_of("scaling") if row["seconds"]}
    edges = sorted({edge for edge, _ in found})
    rows = [[f"{int(edge)}³", *(f"{float(found[edge, name]):.2f}" for name in presets)] for edge in edges]
    return table(("voxels", *(f"`{name}`: seconds" for name in presets)), rows)


def memory() -> str:
    """Return bytes per voxel and the ratio of estimate and measurement, by preset and size."""
    found = {(row["preset"], row["edge"]): row for row in rows_of("scaling") if row["memory_bytes"]}
    edges = sorted({edge for _, edge in found})

    def cell(row: dict[str, str] | None) -> str:
        if row is None:
            return ""
        return f"{float(row['bytes_per_voxel']):.0f} ({int(row['estimated_bytes']) / int(row['memory_bytes']):.2f})"

    names = dict.fromkeys(name for name, _ in found)
    rows = [[f"`{name}`", *(cell(found.get((name, edge))) for edge in edges)] for name in names]
    return table(("bytes a voxel (estimated / measured)", *(f"{int(edge)}³" for edge in edges)), rows)


def linear() -> str:
    """Return errors in voxels and seconds of linear registrations: this library, ANTs and greedy."""
    tools = ("convexadam", "ants", "greedy")
    lines = []
    for row in rows_of("linear"):
        errors = {tool: float(row[f"{tool}_voxels"]) for tool in tools if row[f"{tool}_voxels"]}
        first = min(errors.values()) if len(errors) > 1 else None
        cells = [
            "" if tool not in errors else f"**{errors[tool]:.3f}**" if errors[tool] == first else f"{errors[tool]:.3f}"
            for tool in tools
        ]
        seconds = [f"{float(s):.1f}" if (s := row[f"{tool}_seconds"]) else "" for tool in tools]
        lines.append([row["case"], row["model"], f"{float(row['before_voxels']):.3f}", *cells, *seconds])
    names = ("convexadam", "ANTs", "greedy")
    return table(("case", "model", "before", *names, *(f"{name}: s" for name in names)), lines)


def measures() -> str:
    """Return the measures of quality, and what is usual."""
    from convexadam.report.verdict import CRITERIA
    from convexadam.report.wording import WORDINGS

    usual = {criterion.measure: criterion.describe_limit() for criterion in CRITERIA}
    rows = [(f"`{name}`", f"{words.label}: {words.text}", usual.get(name, "")) for name, words in WORDINGS.items()]
    return table(("measure", "meaning", "usually"), rows)


def verdict() -> str:
    """Return how many failures and how many other pairs of each kind the verdict flags, and those of each set."""
    modes = ("alone", "in_a_cohort", "without_mirror")
    lines = []
    for which in ("tuning", "judged"):
        rows = [row for row in rows_of("verdict_kinds") if row["set"] == which]
        for chosen, name in [*(([row], row["spoiling"]) for row in rows), (rows, "all")]:
            failed, pairs = (sum(int(row[key]) for row in chosen) for key in ("failed", "pairs"))
            cells = []
            for mode in modes:
                bad = sum(int(row[f"{mode}_failed_flagged"]) for row in chosen)
                others = sum(int(row[f"{mode}_others_flagged"]) for row in chosen)
                cells.append(f"{bad if failed else '-'} / {others if pairs > failed else '-'}")
            kind = {"none": "good pair", "all": "**all**"}.get(name, name)
            lines.append((which, kind, str(failed), str(pairs - failed), *cells))
    names = ("alone", "in a cohort", "without the mirror image")
    return table(("set", "pairs", "failed", "others", *(f"flagged {name}" for name in names)), lines)


CONTRASTS = {"one": "one contrast", "different": "different contrasts"}


def gpu_budgets() -> str:
    """Return what a registration may ask of a GPU, and what it is meant to."""
    names = "launches", "waits", "bytes_per_voxel"
    with (ROOT / "tests/gpu/budgets.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            [
                f"`{row['preset']}`" + (f", {CONTRASTS[row['contrasts']]}" if row["contrasts"] else ""),
                f"{row['size']}³",
                *(f"{row[name]} ({row[f'goal_{name}']})" for name in names),
                row["kernels"],
            ]
            for row in csv.DictReader(file)
        ]
    header = (
        "preset",
        "voxels",
        "operations and launches (goal)",
        "waits (goal)",
        "bytes per voxel (goal)",
        "kernels run",
    )
    return table(header, rows)


GPU_GOALS = {("published", "256x256x256"): 40, ("published", "192x160x192"): 20, ("default", "256x256x256"): 60}
"""Milliseconds that a registration is meant to take on an H200."""


def gpu_predicted() -> str:
    """Return the predicted milliseconds of the stages on a GPU: of the device, and of the host."""
    rows = rows_of("gpu_predicted")
    lines = []
    for (name, size), goal in GPU_GOALS.items():
        device: dict[str, float] = {}
        host: dict[str, float] = {}
        for row in rows:
            if (row["preset"], row["size"]) == (name, size):
                stage = row["stage"] if row["stage"] in GPU_STAGES else "other"
                device[stage] = device.get(stage, 0.0) + float(row["device_ms"])
                host[row["stage"]] = float(row["stage_host_ms"])
        waits = {s: sum(v for n, v in host.items() if (n if n in GPU_STAGES else "other") == s) for s in device}
        total = sum(max(device[s], waits[s]) for s in device)
        cells = [f"{device[s]:.1f} / {waits[s]:.1f}" if s in device else "" for s in (*GPU_STAGES, "other")]
        lines.append([f"`{name}`", size, *cells, f"{total:.0f} ({goal})"])
    return table(("preset", "voxels", *GPU_STAGES, "other", "ms (goal)"), lines)


GPU_STAGES = ("linear", "features", "discrete", "continuous")


def gpu_predicted_kernels() -> str:
    """Return what the kernels of a registration execute, and their predicted milliseconds."""
    found: dict[str, list[float]] = {}
    for row in rows_of("gpu_predicted"):
        if (row["preset"], row["size"]) == ("published", "256x256x256"):
            new = [float(row[n]) for n in ("launches", "million_instructions", "mb", "device_ms")]
            old = found.get(row["kernel"], [0.0] * 4)
            found[row["kernel"]] = [a + b for a, b in zip(old, new, strict=True)]
    found["torch operations"] = found.pop("torch")
    lines = [
        [
            f"`{kernel}`" if "." in kernel else kernel,
            f"{n:.0f}",
            f"{m / 1e3:.2f}" if m else "",
            f"{b / 1e3:.2f}",
            f"{t:.2f}",
        ]
        for kernel, (n, m, b, t) in sorted(found.items(), key=lambda item: -item[1][3])
    ]
    return table(("kernel", "launches", "10⁹ instructions of a warp", "GB", "ms"), lines)


def reliability() -> str:
    """Return what comes of each kind of input, from the cases that the tests run."""
    sys.path[:0] = [str(ROOT / "tests" / "reliability")]
    cases = importlib.import_module("input_case").collect_cases()
    parts = []
    for kind in dict.fromkeys(case.kind for case in cases):
        rows = [
            (case.given, case.outcome, case.says if case.outcome == "result" else f"“… {case.says} …”")
            for case in cases
            if case.kind == kind
        ]
        parts.append(f"## {kind}\n\n" + table(("input", "what comes", "which one"), rows))
    return "\n".join(parts)


MAKERS: dict[str, Callable[[], str | None]] = {
    "slices": slices,
    "bias": bias,
    "fusions": fusions,
    "templates": templates,
    "series": series,
    **{f"settings of {name}": lambda name=name: settings(name) for name in COMPONENTS},  # type: ignore[misc]
    "presets": presets,
    "formats": formats,
    "accuracy": accuracy,
    "accuracy with SDlogJ": accuracy_with_roughness,
    "speed": speed,
    "speedups": speedups,
    "ablation": ablation,
    "optimisers": optimisers,
    "linear": linear,
    "measures": measures,
    "verdict": verdict,
    "scaling": scaling,
    "memory": memory,
    "GPU budgets": gpu_budgets,
    "GPU predicted": gpu_predicted,
    "GPU predicted kernels": gpu_predicted_kernels,
    "reliability": reliability,
}


def generated(text: str) -> str:
    """Return a page with all of its marked tables made anew; what cannot be made yet stays."""

    def made(match: re.Match[str]) -> str:
        if match["name"] not in MAKERS:
            raise SystemExit(f"there is no generated table {match['name']!r}; known: {', '.join(MAKERS)}")
        body = MAKERS[match["name"]]()
        return match[0] if body is None else f"{match['begin']}\n{body}\n{match['end']}"

    return MARKED.sub(made, text)


def reference() -> dict[Path, str]:
    """Return the text of each page of the reference of the public names."""
    sys.path[:0] = [str(ROOT / "docs")]
    made: dict[Path, str] = importlib.import_module("reference_pages").pages()
    return made


def main() -> int:
    """Write the tables and the reference, or name the pages that are out of date."""
    stale = []
    made = {page: ((text := page.read_text(encoding="utf-8")), generated(text)) for page in PAGES}
    made |= {
        page: (page.read_text(encoding="utf-8") if page.exists() else "", new) for page, new in reference().items()
    }
    for page, (text, new) in made.items():
        if new != text:
            page.parent.mkdir(exist_ok=True)
            stale.append(str(page.relative_to(ROOT)))
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
    sys.stdout.write("".join(f"{'stale' if '--check' in sys.argv else 'written'}: {name}\n" for name in stale))
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
