"""The draws of one stage: which come next, what they came to, and what is left after the process was killed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final, get_args

from convexadam.errors import ConfigError
from convexadam.registration import RegistrationConfig
from convexadam.tuning.bench import Trial
from convexadam.tuning.executors import Failed, Job
from convexadam.tuning.space import Draw, Options, Range, ReadOff, Stage, identity_of, without_refinement
from convexadam.tuning.truth import HIGHER_IS_BETTER, Entries, ranked_metrics, summarised

Sampler: TypeAlias = Literal["random", "tpe", "multi-objective"]
"""How settings are chosen: as published, by what did well so far in accuracy, or in accuracy and smoothness."""

_SMOOTHNESS = ("sdlogj", "folded_percent")

_BASE: Mapping[str, float] = {"base": 1}
"""In place of what was drawn: the settings that the search began with."""


@final
@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings that were tried, in the first stage without their refinement, and what they came to.

    ``changes`` are what was drawn, ``is_base`` says that it was nothing: the settings that the search began with.
    """

    stage: str
    trial: int
    settings: RegistrationConfig
    entries: Mapping[str, Entries]
    figures: Mapping[str, float]
    seconds: float
    changes: Mapping[str, Any]
    is_base: bool


@final
@dataclass(frozen=True, kw_only=True)
class Failure:
    """Settings that could not be tried, and why."""

    stage: str
    trial: int
    error: str
    changes: Mapping[str, Any]


@final
class StageStudy:
    """A stage as an Optuna study, which a killed process leaves as it is and another one goes on with.

    Parameters
    ----------
    storage
        Of Optuna.
    name
        Of the study there.
    stage
        What to draw from.
    base
        Settings that draws change; they are tried as well, unchanged.
    before
        Figures of each pair before registration.
    sampler
        How to draw.
    seed
        Decides what is drawn.
    others
        More settings that are tried unchanged.
    """

    def __init__(
        self,
        storage: Any,
        name: str,
        stage: Stage,
        base: RegistrationConfig,
        before: Mapping[str, Entries],
        *,
        sampler: Sampler,
        seed: int,
        others: Sequence[RegistrationConfig] = (),
    ) -> None:
        import optuna

        if sampler not in get_args(Sampler):
            raise ConfigError(f"a sampler is one of {', '.join(get_args(Sampler))}, but {sampler!r} came")
        self.stage, self.base, self.sampler, self._seed, self._before = stage, base, sampler, seed, before
        self._unchanged = (base, *others)
        self._states = optuna.trial.TrialState
        aims: list[Any] = ["maximize"] * (2 if sampler == "multi-objective" else 1)
        self.study = optuna.create_study(storage=storage, study_name=name, directions=aims, load_if_exists=True)
        self._running: dict[int, Any] = {}
        self._again: set[int] = set()
        self._exhausted = sampler == "random"  # which has all in its queue
        self._chance = stage.drawn(base, random.Random(f"{seed} {stage.name}"))
        self._forget_lost()
        self._enqueue_missing()

    @property
    def total(self) -> int:
        """How many draws there are in the end, as far as one can tell."""
        if self._exhausted:
            return self._begun()
        return max(self.stage.draws + len(self._unchanged), self.done)

    @property
    def done(self) -> int:
        """How many of them are done, well or not."""
        return sum(self._counts(t) and t.state.is_finished() for t in self._trials())

    @property
    def begun(self) -> int:
        """How many of them are begun, done or not."""
        return self.done + len(self._running)

    def following(self) -> Job | None:
        """Return the next draw to be tried; ``None`` where all are begun."""
        while True:
            waiting = any(t.state == self._states.WAITING for t in self._trials())
            if not waiting and (self._exhausted or self._begun() >= self.stage.draws + len(self._unchanged)):
                return None
            self.study.sampler = self._sampler()
            trial = self.study.ask()
            draw = self._queued(trial) if "draw" in trial.user_attrs else self._chosen(trial)
            if draw is None:
                continue
            try:
                settings = self._settings(draw)
            except ConfigError as error:
                self._fail(trial, f"ConfigError: {error}")
                continue
            self._running[trial.number] = trial
            return Job(number=trial.number, settings=settings.to_toml(), read_off=self._read_off(draw))

    def told(self, job: Job, outcome: Trial | Failed) -> None:
        """Take note of what a job came to."""
        trial = self._running.pop(job.number)
        if isinstance(outcome, Failed):
            if not outcome.lasting:
                trial.set_user_attr("passing", True)
            self._fail(trial, outcome.error)
            return
        aims = [self._aims(summarised(entries, self._before)) for entries in outcome.entries]
        if not (aims := [found for found in aims if not any(map(math.isnan, found))]):
            self._fail(trial, "no figures came of it")
            return
        trial.set_user_attr("entries", [_rounded(entries) for entries in outcome.entries])
        trial.set_user_attr("seconds", outcome.seconds)
        self.study.tell(trial, max(aims)[: len(self.study.directions)])

    def outcomes(self) -> tuple[list[Candidate], list[Failure]]:
        """Return all that has been tried: each variant of each trial."""
        candidates, failures = [], []
        for trial in self._trials():
            if not self._counts(trial) or not trial.state.is_finished():
                continue
            draw = self._drawn(trial.user_attrs["draw"])
            changes = {} if not isinstance(draw, Draw) else draw.changes()
            common = {"stage": self.stage.name, "trial": trial.number, "changes": changes}
            if trial.state != self._states.COMPLETE:
                failures.append(Failure(error=trial.user_attrs["error"], **common))
                continue
            variants = self._read_off(draw).variants(self._changed(draw))
            for settings, entries in zip(variants, trial.user_attrs["entries"], strict=True):
                candidates.append(
                    Candidate(
                        settings=settings,
                        entries=entries,
                        figures=summarised(entries, self._before),
                        seconds=trial.user_attrs["seconds"],
                        is_base=draw == len(self._unchanged) - 1,
                        **common,
                    )
                )
        return candidates, failures

    def _trials(self) -> list[Any]:
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found

    def _counts(self, trial: Any) -> bool:
        """Whether a trial is neither lost nor the same as another, nor one to be tried again."""
        if trial.state != self._states.FAIL:
            return True
        return "error" in trial.user_attrs and trial.number not in self._again

    def _begun(self) -> int:
        return sum(self._counts(trial) for trial in self._trials())

    def _forget_lost(self) -> None:
        """End the trials that nobody runs any more, since the process that did was killed; forget bad luck."""
        for trial in self._trials():
            if trial.state == self._states.RUNNING:
                self.study.tell(trial.number, state=self._states.FAIL)
        self._again = {t.number for t in self._trials() if "passing" in t.user_attrs}

    def _enqueue_missing(self) -> None:
        """Queue what has to be tried and is neither there nor has been, in its order."""
        there = {_key(t.user_attrs["draw"]) for t in self._trials() if self._counts(t) and "draw" in t.user_attrs}
        needed: list[Mapping[str, Any]] = [{**_BASE, "number": n} for n in range(len(self._unchanged))]
        if self.sampler == "random":
            needed += [_noted(draw) for draw, _ in zip(self._chance, range(self.stage.draws), strict=False)]
        else:
            lost = [t for t in self._trials() if not self._counts(t) and "duplicate" not in t.user_attrs]
            needed += [t.user_attrs["draw"] for t in lost if "draw" in t.user_attrs]
        for noted in needed:
            if _key(noted) not in there:
                there.add(_key(noted))
                self.study.enqueue_trial(self._parameters(self._drawn(noted)), user_attrs={"draw": dict(noted)})

    def _enqueue_fresh(self) -> None:
        """Queue something at random that is not there yet, in place of a draw that was."""
        seen = self._identities()
        draw = next((draw for draw in self._chance if identity_of(draw, self.base) not in seen), None)
        self._exhausted = draw is None
        if draw is not None:
            self.study.enqueue_trial(self._parameters(draw), user_attrs={"draw": _noted(draw)})

    def _identities(self, but: int | None = None) -> set[object]:
        noted = [t.user_attrs["draw"] for t in self._trials() if "draw" in t.user_attrs and t.number != but]
        draws = [draw for draw in map(self._drawn, noted) if isinstance(draw, Draw)]
        return {self.base.to_toml(), *(identity_of(draw, self.base) for draw in draws)}

    def _sampler(self) -> Any:
        """Return a sampler whose choice depends on nothing but the seed and the trials so far."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = random.Random(f"{self._seed} {self.stage.name} {len(self._trials())}").randrange(2**31)
        return RandomSampler(seed=seed) if self.sampler == "random" else TPESampler(seed=seed)

    def _suggested(self, trial: Any) -> Draw:
        names = [kind.name for kind in self.stage.kinds]
        kind = self.stage.kinds[names.index(trial.suggest_categorical("kind", names))]
        chosen = {name: _suggest(trial, kind.parameter(name), options) for name, options in kind.options.items()}
        return Draw(kind=kind, chosen=chosen)

    def _queued(self, trial: Any) -> Draw | int:
        """Return what was queued, and tell the study, so that its sampler learns from it."""
        draw = self._drawn(trial.user_attrs["draw"])
        if isinstance(draw, Draw):
            self._suggested(trial)
        return draw

    def _chosen(self, trial: Any) -> Draw | None:
        """Return what the sampler chooses; where that was there before, queue something else in its place."""
        draw = self._suggested(trial)
        trial.set_user_attr("draw", _noted(draw))
        if identity_of(draw, self.base) not in self._identities(but=trial.number):
            return draw
        trial.set_user_attr("duplicate", True)
        self.study.tell(trial, state=self._states.FAIL)
        self._enqueue_fresh()
        return None

    def _parameters(self, draw: Draw | int) -> dict[str, Any]:
        if not isinstance(draw, Draw):
            return {}
        options = draw.kind.options
        chosen = {draw.kind.parameter(n): v for n, v in draw.chosen.items() if _is_choice(options[n])}
        return {"kind": draw.kind.name, **chosen}

    def _drawn(self, noted: Mapping[str, Any]) -> Draw | int:
        """Return the draw that was noted, or the number of settings that are to stay unchanged."""
        if "base" in noted:
            return int(noted["number"])
        kind = next(kind for kind in self.stage.kinds if kind.name == noted["kind"])
        return Draw(kind=kind, chosen=dict(noted["chosen"]))

    def _changed(self, draw: Draw | int) -> RegistrationConfig:
        return draw.applied(self.base) if isinstance(draw, Draw) else self._unchanged[draw]

    def _settings(self, draw: Draw | int) -> RegistrationConfig:
        """Return what is run: in the first stage without the refinement."""
        changed = self._changed(draw)
        return without_refinement(changed) if self.stage.name == "discrete" else changed

    def _read_off(self, draw: Draw | int) -> ReadOff:
        return draw.kind.read_off if isinstance(draw, Draw) and self.stage.name == "continuous" else ReadOff()

    def _fail(self, trial: Any, error: str) -> None:
        trial.set_user_attr("error", error)
        self.study.tell(trial, state=self._states.FAIL)

    def _aims(self, figures: Mapping[str, float]) -> tuple[float, float]:
        """Accuracy and smoothness, larger is better; NaN makes neither."""
        names = ranked_metrics(set(figures))
        accuracy = figures[names[0]] if HIGHER_IS_BETTER[names[0]] else -figures[names[0]]
        return accuracy, -figures[next(name for name in _SMOOTHNESS if name in names)]


def _noted(draw: Draw) -> dict[str, Any]:
    return {"kind": draw.kind.name, "chosen": dict(draw.chosen)}


def _key(noted: Mapping[str, Any]) -> str:
    return json.dumps(noted, sort_keys=True)


def _is_choice(options: Options) -> bool:
    return isinstance(options, Range) or len(options) > 1


def _suggest(trial: Any, name: str, options: Options) -> float:
    """Let a study choose: numbers in their order, anything else without one."""
    if isinstance(options, Range) and options.step is None:
        return float(trial.suggest_float(name, options.low, options.high, log=options.log))
    if isinstance(options, Range):
        return int(trial.suggest_int(name, 0, options.steps))
    if len(options) < 2:
        return 0
    numbers = [v for v in options if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) == len(options) and numbers == sorted(numbers):
        return int(trial.suggest_int(name, 0, len(options) - 1))
    return int(trial.suggest_categorical(name, range(len(options))))


def _rounded(entries: Mapping[str, Entries]) -> dict[str, Entries]:
    """Return figures with the digits that mean something, since there are many of them."""
    return {
        case: {name: [float(f"{value:.6g}") for value in values] for name, values in found.items()}
        for case, found in entries.items()
    }
