"""Search spaces: the settings that each of the two stages samples from, read from a TOML file."""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

from convexadam._arguments import check_arguments
from convexadam._checks import is_number
from convexadam.errors import ConfigError, FileError
from convexadam.registration import RegistrationConfig, preset
from convexadam.registration.presets import preset_names
from convexadam.registration.toml import with_changes

SCHEMA_VERSION = 2
"""Version of the file format; increased whenever files of the previous version would be misread."""

StageName: TypeAlias = Literal["discrete", "continuous"]

STAGES: tuple[StageName, ...] = ("discrete", "continuous")

_RESERVED_KEYS = ("samples", "variants", "checkpoints")

_MAX_REPEATS = 1000
"""Repeated samples in a row after which a space counts as exhausted."""


@final
@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, uniform: continuous, in multiples of ``step``, or continuous in the logarithm.

    Raises
    ------
    ConfigError
        If the range is empty, not finite, or has both a step and ``log``.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, *(() if self.step is None else (self.step,)))
        if not all(is_number(v) and math.isfinite(v) for v in numbers):
            raise ConfigError(
                f"a range must be of finite numbers, got {self}; write for example {{ from = 1, to = 2 }}"
            )
        if not isinstance(self.log, bool):
            raise ConfigError(f"log must be true or false, got {self.log!r}")
        if not self.low < self.high or (self.step is not None and not self.step > 0):
            raise ConfigError(f"a range must have from < to and a step above 0, got {self}; swap or correct them")
        if self.log and self.low <= 0:
            raise ConfigError(f"a range with log = true must begin above 0, got {self}; leave log out")
        if self.log and self.step is not None:
            raise ConfigError(f"a range must have a step or log = true, got both in {self}; leave one of them out")

    @property
    def n_steps(self) -> int:
        """Number of steps between ``low`` and ``high``."""
        # of 0.6 to 1.2 in steps of 0.2 the quotient is 2.999...
        return 0 if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9)


Options: TypeAlias = tuple[Any, ...] | Range
"""Possible values of a setting: a list of raw values as in TOML, or a range of numbers."""


@final
@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Settings evaluated from a single run: numbers of iterations on the last level, and smoothings of the result."""

    iterations: tuple[int, ...] = ()
    final_smoothing: tuple[Any, ...] = ()

    def configs(self, config: RegistrationConfig) -> list[RegistrationConfig]:
        """Return the settings of all checkpoints of a run with ``config``, those with most iterations last."""
        if config.continuous is None or not (self.iterations or self.final_smoothing):
            return [config]
        last = len(config.continuous.levels) - 1
        counts = sorted(set(self.iterations)) or [config.continuous.levels[last].iterations]
        smoothings = [{"final_smoothing": raw} for raw in self.final_smoothing] or [{}]
        return [
            with_changes(config, [{"continuous": {"levels": {str(last): {"iterations": count}}, **smoothing}}])
            for count in counts
            for smoothing in smoothings
        ]


@final
@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of several alternative sets of options of a stage.

    Attributes
    ----------
    name
        Unique within the stage.
    share
        Relative frequency of samples of this variant.
    options
        Options by the dotted names of settings.
    own
        Names of the settings whose options are not those of the whole stage.
    checkpoints
        Settings evaluated from each run.
    """

    name: str
    share: float
    options: Mapping[str, Options]
    own: frozenset[str]
    checkpoints: Checkpoints

    def get_parameter(self, setting: str) -> str:
        """Return the name of a setting in a study; options that other variants do not share have a name of their own.

        A sampler that learns would else mix up the indices of different options.
        """
        return f"{self.name}: {setting}" if setting in self.own else setting


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """A variant and a choice for each of its settings.

    A choice is the index of an option or step, or a value of a continuous range.
    """

    variant: Variant
    choices: Mapping[str, float]

    @property
    def changes(self) -> dict[str, Any]:
        """Raw values of the settings by their dotted names."""
        return {name: _get_value(options, self.choices[name]) for name, options in self.variant.options.items()}

    def apply(self, config: RegistrationConfig) -> RegistrationConfig:
        """Return a copy of ``config`` with the settings of the sample.

        Raises
        ------
        ConfigError
            If the settings contradict each other.
        """
        return with_changes(config, [_nest(name, value) for name, value in self.changes.items()])


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the two stages of a search: the number of samples, and the variants to sample from."""

    name: StageName
    samples: int
    variants: tuple[Variant, ...]

    def sample(self, rng: random.Random) -> Sample:
        """Choose a variant at random by the shares, then each of its settings independently."""
        variant = rng.choices(self.variants, [variant.share for variant in self.variants])[0]
        choices = {name: _choose(options, rng) for name, options in variant.options.items()}
        return Sample(variant=variant, choices=choices)

    def iterate_samples(self, base: RegistrationConfig, rng: random.Random) -> Iterator[Sample]:
        """Yield random samples that lead to distinct settings, other than ``base``, until the space is exhausted."""
        seen: set[object] = {base.to_toml()}
        repeats = 0
        while repeats < _MAX_REPEATS:
            sample, repeats = self.sample(rng), repeats + 1
            choice = sample.variant.name, *sample.choices.values()
            if choice in seen:  # a thousand times as fast as to compare settings
                continue
            key = make_key(sample, base)
            if key not in seen:
                repeats = 0
                yield sample
            seen |= {choice, key}


@final
@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space: the settings to begin with, the two stages, and the text they were read from.

    Examples
    --------
    >>> space = Space.load("published")
    >>> space.stages[0].samples, space.stages[1].samples
    (100, 75)
    """

    base: RegistrationConfig
    stages: tuple[Stage, Stage]
    text: str

    @classmethod
    @check_arguments
    def load(cls, name: str | Path) -> Space:
        """Read a space.

        Parameters
        ----------
        name
            A space of the library (`SPACES`), or a TOML file.

        Raises
        ------
        FileError
            If the file cannot be read.
        ConfigError
            If it is not a space; the message names the file and the key.
        """
        if name in SPACES:
            return cls.from_toml(resources.files(__package__).joinpath(f"spaces/{name}.toml").read_text("utf-8"))
        path = Path(name)
        if not path.is_file():
            raise FileError(f"space must be one of {', '.join(SPACES)} or an existing TOML file, got {str(name)!r}")
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"), folder=path.parent)
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read the space {path}: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"cannot read the space {path}: {error}") from error

    @classmethod
    @check_arguments
    def from_toml(cls, text: str, *, folder: Path = Path()) -> Space:
        """Read a space from TOML text; ``base`` may be a file relative to ``folder``.

        Raises
        ------
        ConfigError
            If the text is not TOML, a key is unknown, or an option is not a valid setting.
        FileError
            If ``base`` is neither a preset nor a file that can be read.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the space must be valid TOML, got an error: {error}") from error
        if (version := table.pop("schema_version", None)) != SCHEMA_VERSION:
            raise ConfigError(
                f"schema_version must be {SCHEMA_VERSION}, got {version!r}; "
                f"write schema_version = {SCHEMA_VERSION} and adapt the keys"
            )
        name = str(table.pop("base", "default"))
        base = preset(name) if name in preset_names() else RegistrationConfig.load(folder / name)
        if sorted(table) != sorted(STAGES):
            raise ConfigError(f"a space must have the tables [discrete] and [continuous], got {sorted(table)}")
        discrete, continuous = (_parse_stage(stage, table[stage], base) for stage in STAGES)
        return cls(base=base, stages=(discrete, continuous), text=text)


SPACES = ("default", "published", "labels")
"""Names of the spaces of the library."""


def remove_refinement(config: RegistrationConfig) -> RegistrationConfig:
    """Return the settings without the refinement: the first stage evaluates the search alone."""
    return with_changes(config, [{"continuous": "none", "continuous_features": "none"}])


def make_key(sample: Sample, base: RegistrationConfig) -> object:
    """Return a value that is equal for samples that lead to the same settings."""
    try:
        return sample.apply(base).to_toml()
    except ConfigError:
        return sample.variant.name, tuple(sample.choices.items())


def _parse_stage(name: StageName, table: Any, base: RegistrationConfig) -> Stage:
    if not isinstance(table, dict):
        raise ConfigError(f"[{name}] must be a table, got {table!r}")
    samples = table.get("samples", 0)
    if type(samples) is not int or samples < 0:
        raise ConfigError(f"[{name}] samples must be a whole number of at least 0, got {samples!r}")
    shared = _flatten({key: value for key, value in table.items() if key not in _RESERVED_KEYS})
    checkpoints, tables = table.get("checkpoints", {}), table.get("variants", [{"name": "any"}])
    if not isinstance(tables, list) or not tables or not all(isinstance(entry, dict) for entry in tables):
        raise ConfigError(f"variants of [{name}] must be tables [[{name}.variants]], got {tables!r}")
    variants = tuple(_parse_variant({"checkpoints": checkpoints, **entry}, shared, name) for entry in tables)
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ConfigError(f"names of [[{name}.variants]] must be unique, got {names}; rename one of them")
    stage = Stage(name=name, samples=samples, variants=variants)
    for variant in variants:
        _check_variant(variant, stage, base)
    return stage


def _parse_variant(table: Any, shared: Mapping[str, Options], stage: str) -> Variant:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ConfigError(f'[[{stage}.variants]] must have a name, got {table!r}; add name = "..."')
    share = table.get("share", 1)
    if not is_number(share) or not 0 < share < math.inf:
        raise ConfigError(f"[[{stage}.variants]] share must be a finite number above 0, got {share!r}")
    own = _flatten({key: value for key, value in table.items() if key not in ("name", "share", "checkpoints")})
    checkpoints = _parse_checkpoints(table["checkpoints"], stage)
    # those of the variant first: whole components are replaced before single settings of them change
    options = {**own, **{key: value for key, value in shared.items() if key not in own}}
    return Variant(name=table["name"], share=share, options=options, own=frozenset(own), checkpoints=checkpoints)


def _parse_checkpoints(table: Any, stage: str) -> Checkpoints:
    if not isinstance(table, dict) or set(table) - {"iterations", "final_smoothing"}:
        raise ConfigError(
            f"[{stage}.checkpoints] must be a table of iterations and final_smoothing, got {table!r}; "
            "remove all other keys"
        )
    if stage == "discrete" and table:
        raise ConfigError(f"[discrete] must not have checkpoints, got {table!r}; move them to [continuous]")
    iterations, smoothings = table.get("iterations", []), table.get("final_smoothing", [])
    if not isinstance(iterations, list) or not all(type(n) is int and n >= 0 for n in iterations):
        raise ConfigError(
            f"[{stage}.checkpoints] iterations must be a list of whole numbers of at least 0, got {iterations!r}"
        )
    if not isinstance(smoothings, list):
        raise ConfigError(f"[{stage}.checkpoints] final_smoothing must be a list, got {smoothings!r}")
    return Checkpoints(iterations=tuple(iterations), final_smoothing=tuple(smoothings))


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Options]:
    """Return options by dotted names: a list, a range given as a table with ``from``, or a single value."""
    flat: dict[str, Options] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and "from" in value:
            if unknown := set(value) - {"from", "to", "step", "log"}:
                raise ConfigError(f"{name} must have only the keys from, to, step and log, got {sorted(unknown)[0]!r}")
            ends: dict[str, Any] = {"low": value["from"], "high": value.get("to")}
            try:
                flat[name] = Range(**ends, step=value.get("step"), log=value.get("log", False))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
        elif isinstance(value, dict) and "type" not in value:
            flat |= _flatten(value, f"{name}.")
        elif isinstance(value, list):
            if not value:
                raise ConfigError(f"{name} must have at least one option, got an empty list; add one, or omit it")
            flat[name] = tuple(value)
        else:
            flat[name] = (value,)
    return flat


def _check_variant(variant: Variant, stage: Stage, base: RegistrationConfig) -> None:
    """Raise unless each option is a valid setting, at least together with the first option of all others."""
    variant.checkpoints.configs(base)
    first = {name: _list_extremes(options)[0] for name, options in variant.options.items()}
    for name, options in variant.options.items():
        for choice in _list_extremes(options):
            sample = Sample(variant=variant, choices={**first, name: choice})
            try:
                variant.checkpoints.configs(sample.apply(base))
            except ConfigError as error:
                value = _get_value(options, choice)
                raise ConfigError(f"[{stage.name}] {name} = {value!r} (variant {variant.name!r}): {error}") from error


def _list_extremes(options: Options) -> Sequence[float]:
    if not isinstance(options, Range):
        return range(len(options))
    return (options.low, options.high) if options.step is None else (0, options.n_steps)


def _choose(options: Options, rng: random.Random) -> float:
    if not isinstance(options, Range):
        return rng.randrange(len(options))
    if options.step is not None:
        return rng.randint(0, options.n_steps)
    if options.log:
        return math.exp(rng.uniform(math.log(options.low), math.log(options.high)))
    return rng.uniform(options.low, options.high)


def _get_value(options: Options, choice: float) -> Any:
    if not isinstance(options, Range):
        return options[int(choice)]
    if options.step is None:
        return float(f"{choice:.6g}")
    value = options.low + options.step * int(choice)
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _nest(name: str, value: Any) -> dict[str, Any]:
    first, _, rest = name.partition(".")
    return {first: _nest(rest, value) if rest else value}
