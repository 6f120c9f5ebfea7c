"""Which settings are tried: choices for each of two stages, in a file that is the user's to edit."""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

from convexadam.errors import ConfigError, FileError
from convexadam.registration import RegistrationConfig, preset
from convexadam.registration.presets import PRESETS
from convexadam.registration.saved import with_changes

SCHEMA_VERSION = 1
"""Of the file; raised by one whenever an older one could no longer be read as it was meant."""

StageName: TypeAlias = Literal["discrete", "continuous"]

STAGES: tuple[StageName, ...] = ("discrete", "continuous")

_OWN_KEYS = ("draws", "kinds", "read_off")

_MOST_TRIES = 1000
"""Draws in a row that were there before, after which a space counts as exhausted."""


@final
@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``: all, those ``step`` apart, or evenly by their logarithm."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        numbers = [self.low, self.high, *([] if self.step is None else [self.step])]
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in numbers):
            raise ConfigError(f"a range is of numbers, as in {{ from = 0.4, to = 1.6 }}, but {self} came")
        if not isinstance(self.log, bool):
            raise ConfigError(f"log is true or false, but {self.log!r} came")
        if not self.low < self.high or (self.step is not None and not self.step > 0) or (self.log and self.low <= 0):
            raise ConfigError(f"a range rises (above 0, where log = true), and so does its step, but {self} came")
        if self.log and self.step is not None:
            raise ConfigError(f"a range has a step or log = true, not both, but {self} came")

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return 0 if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9)


Options: TypeAlias = tuple[Any, ...] | Range
"""What a setting may be: raw values as TOML has them, or a range of numbers."""


@final
@dataclass(frozen=True, kw_only=True)
class ReadOff:
    """What one run of the refinement shows of several settings: steps on its last level, smoothing at the end."""

    iterations: tuple[int, ...] = ()
    final_smoothing: tuple[Any, ...] = ()

    def variants(self, config: RegistrationConfig) -> list[RegistrationConfig]:
        """Return the settings that one run with these shows, those of the most steps last."""
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
class Kind:
    """One way to choose: options by the dotted names of settings, and how often to choose this way."""

    name: str
    share: float
    options: Mapping[str, Options]
    own: frozenset[str]
    """Names of settings that other kinds do not share."""
    read_off: ReadOff

    def parameter(self, setting: str) -> str:
        """Return the name under which a study knows a setting."""
        return f"{self.name}: {setting}" if setting in self.own else setting


@final
@dataclass(frozen=True, kw_only=True)
class Draw:
    """One choice: a kind and, for each of its settings, the number of an option or step, or a value from a range."""

    kind: Kind
    chosen: Mapping[str, float]

    def changes(self) -> dict[str, Any]:
        """Return the raw values of the settings, by their dotted names."""
        return {name: _picked(options, self.chosen[name]) for name, options in self.kind.options.items()}

    def applied(self, config: RegistrationConfig) -> RegistrationConfig:
        """Return settings with those of the draw.

        Raises
        ------
        ConfigError
            If they do not go together.
        """
        return with_changes(config, [_nested(name, value) for name, value in self.changes().items()])


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the two parts of a search: how many draws, of what kinds."""

    name: StageName
    draws: int
    kinds: tuple[Kind, ...]

    def draw(self, chance: random.Random) -> Draw:
        """Choose at random: a kind by the shares, then each setting for itself."""
        kind = chance.choices(self.kinds, [kind.share for kind in self.kinds])[0]
        return Draw(kind=kind, chosen={name: _drawn(options, chance) for name, options in kind.options.items()})

    def drawn(self, base: RegistrationConfig, chance: random.Random) -> Iterator[Draw]:
        """Choose at random without end, but never twice what comes to the same settings.

        Ends where it has found nothing new for long.
        """
        seen: set[object] = {base.to_toml()}
        tries = 0
        while tries < _MOST_TRIES:
            draw, tries = self.draw(chance), tries + 1
            choice = draw.kind.name, *draw.chosen.values()
            if choice in seen:
                continue
            identity = identity_of(draw, base)  # which takes a thousand times as long
            if identity not in seen:
                tries = 0
                yield draw
            seen |= {choice, identity}


@final
@dataclass(frozen=True, kw_only=True)
class Space:
    """Where to begin, what to choose from, and the text that says so.

    Examples
    --------
    >>> space = Space.load("published")
    >>> space.stages[0].draws, space.stages[1].draws
    (100, 75)
    """

    base: RegistrationConfig
    stages: tuple[Stage, Stage]
    text: str

    @classmethod
    def load(cls, name: str | Path) -> Space:
        """Read a space.

        Parameters
        ----------
        name
            One that comes with the library (`SPACES`), or a TOML file.

        Raises
        ------
        FileError
            If the file cannot be read.
        ConfigError
            If it holds no space; the message names what is wrong.
        """
        if name in SPACES:
            return cls.from_toml(resources.files(__package__).joinpath(f"spaces/{name}.toml").read_text("utf-8"))
        path = Path(name)
        if not path.is_file():
            raise FileError(f"there is no space {str(name)!r}: known are {', '.join(SPACES)}, and files that are there")
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"), folder=path.parent)
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read the space {path}: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_toml(cls, text: str, *, folder: Path = Path()) -> Space:
        """Read a space from TOML text; a ``base`` that is a file is looked for in ``folder``.

        Raises
        ------
        ConfigError
            If the text holds no space: no TOML, an unknown key, or options that make no settings.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the space is not valid TOML: {error}") from error
        if table.pop("schema_version", None) != SCHEMA_VERSION:
            raise ConfigError(f"a space begins with schema_version = {SCHEMA_VERSION}")
        named = str(table.pop("base", "default"))
        base = preset(named) if named in PRESETS else RegistrationConfig.load(folder / named)
        if sorted(table) != sorted(STAGES):
            raise ConfigError(f"a space has the tables [discrete] and [continuous], but {sorted(table)} came")
        discrete, continuous = (_stage(name, table[name], base) for name in STAGES)
        return cls(base=base, stages=(discrete, continuous), text=text)


SPACES = ("default", "published", "labels")
"""Names that `Space.load` knows."""


def without_refinement(config: RegistrationConfig) -> RegistrationConfig:
    """Return settings of the first stage, which looks at the search alone."""
    return with_changes(config, [{"continuous": "none", "continuous_features": "none"}])


def identity_of(draw: Draw, base: RegistrationConfig) -> object:
    """Return something equal for draws that come to the same settings."""
    try:
        return draw.applied(base).to_toml()
    except ConfigError:
        return draw.kind.name, tuple(draw.chosen.items())


def _stage(name: StageName, table: Any, base: RegistrationConfig) -> Stage:
    if not isinstance(table, dict):
        raise ConfigError(f"[{name}] is a table, but {table!r} came")
    draws = table.get("draws", 0)
    if type(draws) is not int or draws < 0:
        raise ConfigError(f"[{name}] draws is a whole number from 0, but {draws!r} came")
    shared = _flat({key: value for key, value in table.items() if key not in _OWN_KEYS})
    read_off, given = table.get("read_off", {}), table.get("kinds", [{"name": "any"}])
    if not isinstance(given, list) or not given or not all(isinstance(kind, dict) for kind in given):
        raise ConfigError(f"kinds of [{name}] are tables [[{name}.kinds]], but {given!r} came")
    kinds = tuple(_kind({"read_off": read_off, **kind}, shared, name) for kind in given)
    if len({kind.name for kind in kinds}) < len(kinds):
        raise ConfigError(f"[{name}] has two kinds of one name")
    stage = Stage(name=name, draws=draws, kinds=kinds)
    for kind in kinds:
        _check(kind, stage, base)
    return stage


def _kind(table: Any, shared: Mapping[str, Options], stage: str) -> Kind:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ConfigError(f"[[{stage}.kinds]] needs a name, but {table!r} came")
    share = table.get("share", 1)
    if not isinstance(share, (int, float)) or not 0 < share < math.inf:
        raise ConfigError(f"[[{stage}.kinds]] share is above 0, but {share!r} came")
    own = _flat({key: value for key, value in table.items() if key not in ("name", "share", "read_off")})
    read_off = _read_off(table["read_off"], stage)
    # what a kind says of its own comes first: whole components before settings of them that all kinds share
    options = {**own, **{key: value for key, value in shared.items() if key not in own}}
    return Kind(name=table["name"], share=share, options=options, own=frozenset(own), read_off=read_off)


def _read_off(table: Any, stage: str) -> ReadOff:
    if not isinstance(table, dict) or set(table) - {"iterations", "final_smoothing"}:
        raise ConfigError(f"[{stage}.read_off] has iterations and final_smoothing, but {table!r} came")
    iterations, smoothings = table.get("iterations", []), table.get("final_smoothing", [])
    if not isinstance(iterations, list) or not all(type(n) is int and n >= 0 for n in iterations):
        raise ConfigError(f"[{stage}.read_off] iterations is a list of whole numbers from 0, but {iterations!r} came")
    if not isinstance(smoothings, list) or (stage == "discrete" and table):
        raise ConfigError("only [continuous] has a table read_off, and its final_smoothing is a list")
    return ReadOff(iterations=tuple(iterations), final_smoothing=tuple(smoothings))


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Options]:
    """Options by dotted names: those in a list, a range of a table with ``from``, or else the value alone."""
    found: dict[str, Options] = {}
    for key, value in table.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and "from" in value:
            if unknown := set(value) - {"from", "to", "step", "log"}:
                raise ConfigError(f"{name}: a range has from, to, step and log, but {sorted(unknown)[0]!r} came")
            ends: dict[str, Any] = {"low": value["from"], "high": value.get("to")}
            found[name] = Range(**ends, step=value.get("step"), log=value.get("log", False))
        elif isinstance(value, dict) and "type" not in value:
            found |= _flat(value, f"{name}.")
        elif isinstance(value, list):
            if not value:
                raise ConfigError(f"{name} has no options; give at least one, or leave it out")
            found[name] = tuple(value)
        else:
            found[name] = (value,)
    return found


def _check(kind: Kind, stage: Stage, base: RegistrationConfig) -> None:
    """Make sure that each option makes settings, at least along with the first of all others."""
    kind.read_off.variants(base)
    first = {name: _ends(options)[0] for name, options in kind.options.items()}
    for name, options in kind.options.items():
        for chosen in _ends(options):
            draw = Draw(kind=kind, chosen={**first, name: chosen})
            try:
                kind.read_off.variants(draw.applied(base))
            except ConfigError as error:
                value = _picked(options, chosen)
                raise ConfigError(f"[{stage.name}] {name} = {value!r} (kind {kind.name!r}): {error}") from error


def _ends(options: Options) -> Sequence[float]:
    if not isinstance(options, Range):
        return range(len(options))
    return (options.low, options.high) if options.step is None else (0, options.steps)


def _drawn(options: Options, chance: random.Random) -> float:
    if not isinstance(options, Range):
        return chance.randrange(len(options))
    if options.step is not None:
        return chance.randint(0, options.steps)
    if options.log:
        return math.exp(chance.uniform(math.log(options.low), math.log(options.high)))
    return chance.uniform(options.low, options.high)


def _picked(options: Options, chosen: float) -> Any:
    if not isinstance(options, Range):
        return options[int(chosen)]
    if options.step is None:
        return float(f"{chosen:.6g}")
    value = options.low + options.step * int(chosen)
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _nested(name: str, value: Any) -> dict[str, Any]:
    first, _, rest = name.partition(".")
    return {first: _nested(rest, value) if rest else value}
