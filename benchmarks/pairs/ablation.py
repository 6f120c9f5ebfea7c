"""Ablation: registrations with a preset, and with one component at a time removed.

The changes apply to the settings of any preset; a component that a preset does not have makes no row. See
``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import convexadam
from convexadam import RegistrationConfig
from convexadam.continuous import (
    Adam,
    AdaptiveSmoothing,
    Additive,
    GaussianSmoothing,
    GaussNewton,
    JointSsd,
    Level,
    Refinement,
    Ssd,
)
from convexadam.registration.presets import preset_names
from convexadam.registration.working_grid import IsotropicGrid

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import runs  # noqa: E402 - these folders are no packages
from peers import Tool  # noqa: E402

COLUMNS = (
    "pair", "preset", "without", "tre_mm", "tre_outside_mm", "dice", "sdlogj", "folded_percent", "seconds", "runs",
    "threads", "environment", "error",
)  # fmt: skip
KEY = ("pair", "preset", "without")
NOTHING = "nothing"
ADAM_STEPS, ADAM_STEPS_FULL = 50, 30

Change: TypeAlias = Callable[[RegistrationConfig], RegistrationConfig]


def make_variants(config: RegistrationConfig) -> dict[str, RegistrationConfig]:
    """Return the settings, and those without each component that they have, by its name."""
    changed = {name: change(config) for name, change in CHANGES.items()} | remove_parts(config)
    return {NOTHING: config} | {name: variant for name, variant in changed.items() if variant != config}


def change_refinement(change: Callable[[Refinement], Refinement]) -> Change:
    """Return a change of the refinement as a change of all settings."""

    def apply(config: RegistrationConfig) -> RegistrationConfig:
        old = config.continuous
        return config if old is None else dataclasses.replace(config, continuous=change(old))

    return apply


def keep_first_search(config: RegistrationConfig) -> RegistrationConfig:
    """Keep the first of several searches."""
    return dataclasses.replace(config, discrete=config.searches[0]) if len(config.searches) > 1 else config


def replace_both(old: Refinement, change: Callable[[Any], dict[str, Any]]) -> Refinement:
    """Replace attributes of the refinement, and those of what it does for different contrasts."""
    other = old.different_contrasts
    changed = None if other is None else dataclasses.replace(other, **change(other))
    return dataclasses.replace(old, different_contrasts=changed, **change(old))


def keep_level(number: int) -> Change:
    """Keep one of several levels."""
    return change_refinement(lambda old: replace_both(old, lambda part: {"levels": (part.levels[number],)}))


def change_levels(old: Refinement, change: Callable[[Level], dict[str, Any]]) -> Refinement:
    """Change settings of all levels."""
    return replace_both(
        old, lambda part: {"levels": tuple(dataclasses.replace(level, **change(level)) for level in part.levels)}
    )


def remove_robust_scale(old: Refinement) -> Refinement:
    """Use plain squared differences."""
    if not isinstance(old.similarity, (JointSsd, Ssd)):
        return old
    return replace_both(old, lambda part: {"similarity": dataclasses.replace(part.similarity, robust_scale=None)})


def use_default_window(old: Refinement) -> Refinement:
    """Use the default smoothing of updates."""
    changed = change_levels(old, lambda level: {"update_smoothing": None})
    return dataclasses.replace(changed, update_smoothing=Refinement().update_smoothing)


def remove_total_smoothing(old: Refinement) -> Refinement:
    """Do not smooth the whole field; updates stay smooth."""
    if isinstance(old.parametrisation, Additive):
        return old
    changed = change_levels(old, lambda level: {"total_smoothing": None})
    return dataclasses.replace(changed, parametrisation=dataclasses.replace(old.parametrisation, total_smoothing=None))


def smooth_alike(old: Refinement) -> Refinement:
    """Smooth the whole field by Gaussians, which do not spare control points with contrast."""

    def change(level: Level) -> dict[str, Any]:
        total = level.total_smoothing
        return {"total_smoothing": GaussianSmoothing(sigma=total.sigma)} if isinstance(total, AdaptiveSmoothing) else {}

    return change_levels(old, change)


def use_additive(old: Refinement) -> Refinement:
    """Add updates instead of composing them."""
    return dataclasses.replace(old, parametrisation=Additive())


def remove_momentum(old: Refinement) -> Refinement:
    """Make each step without a share of the step before."""
    if not isinstance(old.optimiser, GaussNewton):
        return old
    return dataclasses.replace(old, optimiser=dataclasses.replace(old.optimiser, momentum=0.0))


def use_adam(old: Refinement) -> Refinement:
    """Use Adam, which needs more iterations."""
    if not isinstance(old.optimiser, GaussNewton):
        return old
    changed = change_levels(old, lambda level: {"iterations": ADAM_STEPS_FULL if level.spacing == 1 else ADAM_STEPS})
    return dataclasses.replace(changed, optimiser=Adam())


def make_voxels_cubic(config: RegistrationConfig) -> RegistrationConfig:
    """Make voxels cubic even if slices are hardly thicker than pixels."""
    grid = config.grid
    if not isinstance(grid, IsotropicGrid):
        return config
    return dataclasses.replace(config, grid=dataclasses.replace(grid, max_anisotropy=IsotropicGrid().max_anisotropy))


CHANGES: Mapping[str, Change] = {
    "linear alignment": lambda config: dataclasses.replace(config, linear=None),
    "kept voxels": make_voxels_cubic,
    "second search": keep_first_search,
    "both directions": lambda config: dataclasses.replace(config, symmetric=False),
    "full-resolution level": keep_level(0),
    "coarse level": keep_level(-1),
    "outlier weights": change_refinement(remove_robust_scale),
    "update windows": change_refinement(use_default_window),
    "adaptive smoothing": change_refinement(smooth_alike),
    "field smoothing": change_refinement(remove_total_smoothing),
    "composition": change_refinement(use_additive),
    "momentum": change_refinement(remove_momentum),
    "Gauss-Newton": change_refinement(use_adam),
    "choice by contrast": change_refinement(lambda old: dataclasses.replace(old, different_contrasts=None)),
}
"""How each component is removed, in the order of their use."""

PARTS = ("intensities", "intensities in windows", "descriptors")
"""Parts of the similarity of `best`."""


def remove_parts(config: RegistrationConfig) -> dict[str, RegistrationConfig]:
    """Return the settings without each part of a joint similarity."""
    old = config.continuous
    if old is None or not isinstance(old.similarity, JointSsd) or len(old.similarity.parts) != len(PARTS):
        return {}
    return {name: _remove_part(config, old, old.similarity, number) for number, name in enumerate(PARTS)}


def _remove_part(config: RegistrationConfig, old: Refinement, similarity: JointSsd, number: int) -> RegistrationConfig:
    parts = similarity.parts[:number] + similarity.parts[number + 1 :]
    fewer = dataclasses.replace(similarity, parts=parts)
    return dataclasses.replace(config, continuous=dataclasses.replace(old, similarity=fewer))


def parse_options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Path]]:
    """Return options and selected pairs; exit with status 2 if an option is invalid."""
    parser = runs.make_parser(__doc__, "ablation.csv")
    parser.add_argument("--preset", nargs="+", default=["best"], choices=preset_names(), metavar="PRESET")
    options = parser.parse_args(arguments)
    return options, runs.select_pairs(parser, options, COLUMNS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if a registration failed."""
    options, pairs = parse_options(arguments)
    runs.set_up(options.threads)
    failed = False
    for preset in options.preset:
        tools = [
            Tool(
                name=name, version=convexadam.__version__, command=runs.LIBRARY_WORKER, options={"config": c.to_toml()}
            )
            for name, c in make_variants(convexadam.preset(preset)).items()
        ]
        for pair, folder in pairs.items():
            rows = []
            for row in runs.run_pair(pair, folder, tools, options.threads, options.repeat):
                rows.append(row | {"preset": preset, "without": row["tool"]})
                runs.save_row(options.output, COLUMNS, KEY, rows[-1])
            failed |= any("error" in row for row in rows)
            runs.print_rows(f"{pair}, {preset}", COLUMNS[2:], rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
