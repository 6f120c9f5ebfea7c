"""One stage of a search as an Optuna study, which continues after the process was killed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final, get_args

from convexadam._checks import check_choice
from convexadam.errors import ConfigError
from convexadam.registration import RegistrationConfig
from convexadam.tuning.evaluator import Trial
from convexadam.tuning.reference import HIGHER_IS_BETTER, Entries, select_metrics, summarise
from convexadam.tuning.space import Checkpoints, Options, Range, Sample, Stage, make_key, remove_refinement
from convexadam.tuning.trials import Job, TrialError

Sampler: TypeAlias = Literal["random", "tpe", "multi-objective"]
"""Random as in the published search; TPE with accuracy as objective, or with accuracy and smoothness."""

_SMOOTHNESS = ("sdlogj", "folded_percent")

_UNCHANGED: Mapping[str, float] = {"base": 1}
"""Marks the record of settings that are evaluated as they are, in place of a sample."""


@final
@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings that were evaluated.

    Attributes
    ----------
    stage, trial
        Name of the stage, and number of the trial in it; the checkpoints of a run have the same number.
    settings
        The settings; the first stage ran them without the refinement.
    entries
        Values of each pair by metric.
    metrics
        Metrics over all pairs; see `summarise`.
    seconds
        Time of the whole trial.
    changes
        Sampled settings by their dotted names.
    is_base
        Whether these are the initial settings of the search.

    Examples
    --------
    >>> from convexadam import preset
    >>> from convexadam.tuning import Candidate
    >>> found = Candidate(
    ...     stage="discrete", trial=3, settings=preset("default"), entries={"pair 1": {"dice": (0.8, 0.9)}},
    ...     metrics={"dice": 0.85}, seconds=1.5, changes={"discrete.radius": 5}, is_base=False,
    ... )  # as `tune` returns it
    >>> found.metrics["dice"], found.changes
    (0.85, {'discrete.radius': 5})
    """

    stage: str
    trial: int
    settings: RegistrationConfig
    entries: Mapping[str, Entries]
    metrics: Mapping[str, float]
    seconds: float
    changes: Mapping[str, Any]
    is_base: bool


@final
@dataclass(frozen=True, kw_only=True)
class Failure:
    """Settings whose evaluation failed, and the error.

    Examples
    --------
    >>> from convexadam.tuning import Failure
    >>> failure = Failure(stage="discrete", trial=4, error="out of memory", changes={"discrete.radius": 16})
    >>> failure.error
    'out of memory'
    """

    stage: str
    trial: int
    error: str
    changes: Mapping[str, Any]


@final
class StageStudy:
    """A stage as an Optuna study: the storage keeps each trial, so that a later process continues with the others.

    Parameters
    ----------
    storage
        Storage of Optuna.
    name
        Name of the study in the storage.
    stage
        The stage to sample from.
    base
        Settings that samples change; they are also evaluated unchanged.
    before
        Values of each pair before registration.
    sampler
        How to sample.
    seed
        Seed of the samples.
    others
        More settings to evaluate unchanged.
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

        check_choice(sampler, "sampler", get_args(Sampler))
        self.stage, self.base, self.sampler, self._seed, self._before = stage, base, sampler, seed, before
        self._unchanged = (base, *others)
        self._states = optuna.trial.TrialState
        directions: list[Any] = ["maximize"] * (2 if sampler == "multi-objective" else 1)
        self.study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        self._running: dict[int, Any] = {}
        self._repeated: set[int] = set()
        self._exhausted = sampler == "random"  # all samples are queued at once
        self._samples = stage.iterate_samples(base, random.Random(f"{seed} {stage.name}"))
        self._discard_lost()
        self._enqueue_missing()

    @property
    def n_total(self) -> int:
        """Number of trials of the whole stage, as far as it is known."""
        if self._exhausted:
            return self._count_started()
        return max(self.stage.samples + len(self._unchanged), self.n_done)

    @property
    def n_done(self) -> int:
        """Number of trials that ended, with or without an error."""
        return sum(self._is_counted(t) and t.state.is_finished() for t in self._get_trials())

    @property
    def n_started(self) -> int:
        """Number of trials that ended or run."""
        return self.n_done + len(self._running)

    def next_job(self) -> Job | None:
        """Return the next settings to evaluate; ``None`` if all trials have started."""
        while True:
            is_waiting = any(t.state == self._states.WAITING for t in self._get_trials())
            n_needed = self.stage.samples + len(self._unchanged)
            if not is_waiting and (self._exhausted or self._count_started() >= n_needed):
                return None
            self.study.sampler = self._make_sampler()
            trial = self.study.ask()
            sample = self._take_queued(trial) if "sample" in trial.user_attrs else self._sample_new(trial)
            if sample is None:
                continue
            try:
                config = self._make_config(sample)
            except ConfigError as error:
                self._fail(trial, f"ConfigError: {error}")
                continue
            self._running[trial.number] = trial
            return Job(number=trial.number, settings=config.to_toml(), checkpoints=self._get_checkpoints(sample))

    def record(self, job: Job, outcome: Trial | TrialError) -> None:
        """Store the outcome of a job."""
        trial = self._running.pop(job.number)
        if isinstance(outcome, TrialError):
            if not outcome.permanent:
                trial.set_user_attr("transient", True)
            self._fail(trial, outcome.message)
            return
        objectives = [self._compute_objectives(summarise(entries, self._before)) for entries in outcome.entries]
        if not (objectives := [values for values in objectives if not any(map(math.isnan, values))]):
            self._fail(trial, "all metrics are NaN")
            return
        trial.set_user_attr("entries", [_round_entries(entries) for entries in outcome.entries])
        trial.set_user_attr("seconds", outcome.seconds)
        self.study.tell(trial, max(objectives)[: len(self.study.directions)])

    def get_outcomes(self) -> tuple[list[Candidate], list[Failure]]:
        """Return the outcomes of all trials, with each checkpoint as a candidate of its own."""
        candidates, failures = [], []
        for trial in self._get_trials():
            if not self._is_counted(trial) or not trial.state.is_finished():
                continue
            sample = self._load_sample(trial.user_attrs["sample"])
            changes = sample.changes if isinstance(sample, Sample) else {}
            common = {"stage": self.stage.name, "trial": trial.number, "changes": changes}
            if trial.state != self._states.COMPLETE:
                failures.append(Failure(error=trial.user_attrs["error"], **common))
                continue
            configs = self._get_checkpoints(sample).configs(self._apply(sample))
            for config, entries in zip(configs, trial.user_attrs["entries"], strict=True):
                candidates.append(
                    Candidate(
                        settings=config,
                        entries=entries,
                        metrics=summarise(entries, self._before),
                        seconds=trial.user_attrs["seconds"],
                        is_base=sample == len(self._unchanged) - 1,
                        **common,
                    )
                )
        return candidates, failures

    def _get_trials(self) -> list[Any]:
        trials: list[Any] = self.study.get_trials(deepcopy=False)
        return trials

    def _is_counted(self, trial: Any) -> bool:
        """Whether a trial is neither lost, nor a duplicate, nor to be repeated."""
        if trial.state != self._states.FAIL:
            return True
        return "error" in trial.user_attrs and trial.number not in self._repeated

    def _count_started(self) -> int:
        return sum(self._is_counted(trial) for trial in self._get_trials())

    def _discard_lost(self) -> None:
        """End the trials of a process that was killed; mark those with a transient error to be repeated."""
        for trial in self._get_trials():
            if trial.state == self._states.RUNNING:
                self.study.tell(trial.number, state=self._states.FAIL)
        self._repeated = {t.number for t in self._get_trials() if "transient" in t.user_attrs}

    def _enqueue_missing(self) -> None:
        """Queue, in order, all samples that are needed and neither evaluated nor queued."""
        trials = [t for t in self._get_trials() if "sample" in t.user_attrs]
        present = {_to_key(t.user_attrs["sample"]) for t in trials if self._is_counted(t)}
        needed: list[Mapping[str, Any]] = [{**_UNCHANGED, "number": n} for n in range(len(self._unchanged))]
        if self.sampler == "random":
            needed += [_to_record(s) for s, _ in zip(self._samples, range(self.stage.samples), strict=False)]
        else:
            lost = [t for t in trials if not self._is_counted(t) and "duplicate" not in t.user_attrs]
            needed += [t.user_attrs["sample"] for t in lost]
        for record in needed:
            if _to_key(record) not in present:
                present.add(_to_key(record))
                self.study.enqueue_trial(
                    self._get_parameters(self._load_sample(record)), user_attrs={"sample": dict(record)}
                )

    def _enqueue_random(self) -> None:
        """Queue a random sample with new settings, in place of a duplicate."""
        seen = self._make_keys()
        sample = next((sample for sample in self._samples if make_key(sample, self.base) not in seen), None)
        self._exhausted = sample is None
        if sample is not None:
            self.study.enqueue_trial(self._get_parameters(sample), user_attrs={"sample": _to_record(sample)})

    def _make_keys(self, without: int | None = None) -> set[object]:
        records = [
            t.user_attrs["sample"] for t in self._get_trials() if "sample" in t.user_attrs and t.number != without
        ]
        samples = [sample for sample in map(self._load_sample, records) if isinstance(sample, Sample)]
        return {self.base.to_toml(), *(make_key(sample, self.base) for sample in samples)}

    def _make_sampler(self) -> Any:
        """Return a sampler that depends on nothing but the seed and the trials so far."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = random.Random(f"{self._seed} {self.stage.name} {len(self._get_trials())}").randrange(2**31)
        return RandomSampler(seed=seed) if self.sampler == "random" else TPESampler(seed=seed)

    def _suggest_sample(self, trial: Any) -> Sample:
        names = [variant.name for variant in self.stage.variants]
        variant = self.stage.variants[names.index(trial.suggest_categorical("variant", names))]
        choices = {
            name: _suggest(trial, variant.get_parameter(name), options) for name, options in variant.options.items()
        }
        return Sample(variant=variant, choices=choices)

    def _take_queued(self, trial: Any) -> Sample | int:
        """Return the queued sample, and register it in the study so that its sampler learns from it."""
        sample = self._load_sample(trial.user_attrs["sample"])
        if isinstance(sample, Sample):
            self._suggest_sample(trial)
        return sample

    def _sample_new(self, trial: Any) -> Sample | None:
        """Return the choice of the sampler; if it is a duplicate, queue a random sample instead."""
        sample = self._suggest_sample(trial)
        trial.set_user_attr("sample", _to_record(sample))
        if make_key(sample, self.base) not in self._make_keys(without=trial.number):
            return sample
        trial.set_user_attr("duplicate", True)
        self.study.tell(trial, state=self._states.FAIL)
        self._enqueue_random()
        return None

    def _get_parameters(self, sample: Sample | int) -> dict[str, Any]:
        if not isinstance(sample, Sample):
            return {}
        options = sample.variant.options
        choices = {sample.variant.get_parameter(n): v for n, v in sample.choices.items() if _is_variable(options[n])}
        return {"variant": sample.variant.name, **choices}

    def _load_sample(self, record: Mapping[str, Any]) -> Sample | int:
        """Return the sample of a record, or the number of the settings that are evaluated unchanged."""
        if "base" in record:
            return int(record["number"])
        variant = next(variant for variant in self.stage.variants if variant.name == record["variant"])
        return Sample(variant=variant, choices=dict(record["choices"]))

    def _apply(self, sample: Sample | int) -> RegistrationConfig:
        return sample.apply(self.base) if isinstance(sample, Sample) else self._unchanged[sample]

    def _make_config(self, sample: Sample | int) -> RegistrationConfig:
        """Return the settings to run: in the first stage without the refinement."""
        config = self._apply(sample)
        return remove_refinement(config) if self.stage.name == "discrete" else config

    def _get_checkpoints(self, sample: Sample | int) -> Checkpoints:
        if isinstance(sample, Sample) and self.stage.name == "continuous":
            return sample.variant.checkpoints
        return Checkpoints()

    def _fail(self, trial: Any, error: str) -> None:
        trial.set_user_attr("error", error)
        self.study.tell(trial, state=self._states.FAIL)

    def _compute_objectives(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """Return accuracy and smoothness, larger is better; NaN if they are unknown."""
        names = select_metrics(set(metrics))
        accuracy = metrics[names[0]] if HIGHER_IS_BETTER[names[0]] else -metrics[names[0]]
        return accuracy, -metrics[next(name for name in _SMOOTHNESS if name in names)]


def _to_record(sample: Sample) -> dict[str, Any]:
    return {"variant": sample.variant.name, "choices": dict(sample.choices)}


def _to_key(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)


def _is_variable(options: Options) -> bool:
    return isinstance(options, Range) or len(options) > 1


def _suggest(trial: Any, name: str, options: Options) -> float:
    """Let the study choose: sorted numbers as an ordered parameter, other options as a categorical one."""
    if isinstance(options, Range) and options.step is None:
        return float(trial.suggest_float(name, options.low, options.high, log=options.log))
    if isinstance(options, Range):
        return int(trial.suggest_int(name, 0, options.n_steps))
    if len(options) < 2:
        return 0
    numbers = [v for v in options if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) == len(options) and numbers == sorted(numbers):
        return int(trial.suggest_int(name, 0, len(options) - 1))
    return int(trial.suggest_categorical(name, range(len(options))))


def _round_entries(entries: Mapping[str, Entries]) -> dict[str, Entries]:
    """Round values to six digits: a study holds thousands of them as text."""
    return {
        pair: {name: [float(f"{value:.6g}") for value in values] for name, values in of_pair.items()}
        for pair, of_pair in entries.items()
    }
