"""What each component of a preset contributes: pairs registered with it, and with one component at a time taken away.

Settings follow those of the preset, whatever they are: a component that it does not have makes no row. See
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
from convexadam.continuous import Adam, Displacement, LevenbergMarquardt, Refinement, Ssd, WeightedSum
from convexadam.features import Concat
from convexadam.registration.presets import PRESETS
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


def variants(config: RegistrationConfig) -> dict[str, RegistrationConfig]:
    """Return the settings, and by its name those without a component; components that they do not have make none."""
    changed = {name: change(config) for name, change in CHANGES.items()} | without_terms(config)
    return {NOTHING: config} | {name: found for name, found in changed.items() if found != config}


def refined(change: Callable[[Refinement], Refinement]) -> Change:
    """Turn a change of the refinement into one of all settings."""

    def changed(config: RegistrationConfig) -> RegistrationConfig:
        old = config.continuous
        return config if old is None else dataclasses.replace(config, continuous=change(old))

    return changed


def one_search(config: RegistrationConfig) -> RegistrationConfig:
    """Keep the first of several searches."""
    return dataclasses.replace(config, discrete=config.searches[0]) if len(config.searches) > 1 else config


def one_level(which: int) -> Change:
    """Keep one of several levels."""
    return refined(lambda old: dataclasses.replace(old, levels=(old.levels[which],)))


def on_levels(old: Refinement, **changes: Any) -> Refinement:
    """Change every level alike."""
    return dataclasses.replace(old, levels=tuple(dataclasses.replace(level, **changes) for level in old.levels))


def all_alike(old: Refinement) -> Refinement:
    """Let all squared differences count alike."""

    def plain(term: Any) -> Any:
        return dataclasses.replace(term, robustness=None) if isinstance(term, Ssd) else term

    found = old.similarity
    if isinstance(found, WeightedSum):
        return dataclasses.replace(old, similarity=dataclasses.replace(found, terms=tuple(map(plain, found.terms))))
    return dataclasses.replace(old, similarity=plain(found))


def narrow(old: Refinement) -> Refinement:
    """Take the window of a refinement that says nothing about it."""
    return dataclasses.replace(on_levels(old, smoothing=None), smoothing=Refinement().smoothing)


def fluid(old: Refinement) -> Refinement:
    """Leave the whole field unsmoothed; steps are smooth all the same."""
    if isinstance(old.parametrisation, Displacement):
        return old
    free = dataclasses.replace(old.parametrisation, field_smoothing=None)
    return dataclasses.replace(on_levels(old, field_smoothing=None), parametrisation=free)


def added(old: Refinement) -> Refinement:
    """Add steps up instead of composing them."""
    return dataclasses.replace(old, parametrisation=Displacement())


def first_order(old: Refinement) -> Refinement:
    """Take Adam, which needs more steps."""
    if not isinstance(old.optimiser, LevenbergMarquardt):
        return old
    levels = tuple(
        dataclasses.replace(level, iterations=ADAM_STEPS_FULL if level.spacing == 1 else ADAM_STEPS)
        for level in old.levels
    )
    return dataclasses.replace(old, optimiser=Adam(), levels=levels)


def cubic(config: RegistrationConfig) -> RegistrationConfig:
    """Make voxels cubic even where slices are little further apart than pixels."""
    grid = config.grid
    if not isinstance(grid, IsotropicGrid):
        return config
    return dataclasses.replace(config, grid=dataclasses.replace(grid, keep=IsotropicGrid().keep))


CHANGES: Mapping[str, Change] = {
    "linear alignment": lambda config: dataclasses.replace(config, linear=None),
    "kept voxels": cubic,
    "second search": one_search,
    "both directions": lambda config: dataclasses.replace(config, symmetric=False),
    "full-resolution level": one_level(0),
    "coarse level": one_level(-1),
    "outlier weights": refined(all_alike),
    "wide window": refined(narrow),
    "field smoothing": refined(fluid),
    "composition": refined(added),
    "Levenberg-Marquardt": refined(first_order),
}
"""How each component is taken away, in the order of their use."""


def without_terms(config: RegistrationConfig) -> dict[str, RegistrationConfig]:
    """Return the settings without each term of a weighted sum, and without the features that only it compares."""
    old = config.continuous
    if old is None or not isinstance(old.similarity, WeightedSum) or len(old.similarity.terms) < 2:
        return {}
    return dict(_without_term(config, old, old.similarity, number) for number in range(len(old.similarity.terms)))


def _without_term(
    config: RegistrationConfig, old: Refinement, similarity: WeightedSum, number: int
) -> tuple[str, RegistrationConfig]:
    def rest(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else values[:number] + values[number + 1 :]

    name = type(similarity.terms[number]).__name__
    fewer = {field.name: rest(getattr(similarity, field.name)) for field in dataclasses.fields(similarity)}
    features = config.continuous_features
    if similarity.channels is not None:
        if not isinstance(features, Concat) or len(features.parts) != len(similarity.terms):
            raise ValueError("terms with channels of their own need a Concat with one part for each of them")
        name = f"{name} of {type(features.parts[number]).__name__}"
        features = dataclasses.replace(features, parts=rest(features.parts), weights=rest(features.weights))
    continuous = dataclasses.replace(old, similarity=dataclasses.replace(similarity, **fewer))
    return name, dataclasses.replace(config, continuous=continuous, continuous_features=features)


def parsed(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Path]]:
    """Options, and the chosen pairs; what cannot be used ends the program with status 2."""
    parser = runs.parser(__doc__, "ablation.csv")
    parser.add_argument("--preset", nargs="+", default=["accurate"], choices=PRESETS, metavar="PRESET")
    options = parser.parse_args(arguments)
    return options, runs.chosen_pairs(parser, options, COLUMNS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a registration failed."""
    options, pairs = parsed(arguments)
    runs.begin(options.threads)
    failed = False
    for preset in options.preset:
        tools = [
            Tool(name=name, version=convexadam.__version__, command=runs.OUR_WORKER, options={"config": c.to_toml()})
            for name, c in variants(convexadam.preset(preset)).items()
        ]
        for pair, folder in pairs.items():
            rows = []
            for row in runs.run_pair(pair, folder, tools, options.threads, options.repeat):
                rows.append(row | {"preset": preset, "without": row["tool"]})
                runs.saved(options.output, COLUMNS, KEY, rows[-1])
            failed |= any("error" in row for row in rows)
            runs.tabulated(f"{pair}, {preset}", COLUMNS[2:], rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
