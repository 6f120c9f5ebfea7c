"""Trials as jobs of an executor: settings to evaluate, on the evaluator of the process that runs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch

from convexadam.errors import ConfigError, FileError, GeometryError, InputError, MissingExtraError, OutOfMemoryError
from convexadam.io import PairFiles
from convexadam.registration import RegistrationConfig
from convexadam.tuning.evaluator import Evaluator, Trial
from convexadam.tuning.space import Checkpoints


@final
@dataclass(frozen=True, kw_only=True)
class EvaluatorSpec:
    """Arguments of an `Evaluator`, from which each worker makes its own; called with a job, it runs it there."""

    pairs: tuple[PairFiles, ...]
    device: str
    memory_bytes: int
    surface: bool

    def make(self) -> Evaluator:
        """Return a new evaluator."""
        return Evaluator(self.pairs, device=self.device, memory_bytes=self.memory_bytes, surface=self.surface)

    def __call__(self, job: Job) -> Trial | TrialError:
        """Run a job on the evaluator of this process; one of another spec is dropped, with its cache."""
        with _LOCK:
            if self not in _EVALUATORS:
                _EVALUATORS.clear()
                _EVALUATORS[self] = self.make()
            return job.run(_EVALUATORS[self])


@final
@dataclass(frozen=True, kw_only=True)
class TrialError:
    """Error of a trial as one line of text; a trial whose error is not permanent is repeated by the next call."""

    message: str
    permanent: bool

    @classmethod
    def from_exception(cls, error: BaseException, *, permanent: bool) -> TrialError:
        """Return the type and text of an exception."""
        return cls(message=" ".join(f"{type(error).__name__}: {error}".split()), permanent=permanent)


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings to evaluate, as TOML text, and a number that identifies the job."""

    number: int
    settings: str
    checkpoints: Checkpoints

    def run(self, evaluator: Evaluator) -> Trial | TrialError:
        """Evaluate the settings; an error that concerns only these settings is returned.

        Raises
        ------
        FileError, MissingExtraError
            If a file or package is missing: no other settings could be evaluated either.
        """
        try:
            return self._evaluate(evaluator)
        except (FileError, MissingExtraError):
            raise
        except (ConfigError, InputError, GeometryError) as error:
            return TrialError.from_exception(error, permanent=True)
        except Exception as error:  # the error of one trial must not end the search
            return TrialError.from_exception(error, permanent=False)

    def _evaluate(self, evaluator: Evaluator) -> Trial:
        config = RegistrationConfig.from_toml(self.settings)
        try:
            return evaluator.evaluate(config, self.checkpoints)
        except (OutOfMemoryError, MemoryError, torch.cuda.OutOfMemoryError):
            evaluator.clear()  # its cache may take the memory that is missing
        return evaluator.evaluate(config, self.checkpoints)


_EVALUATORS: dict[EvaluatorSpec, Evaluator] = {}
"""The evaluator of this process, so that its cache serves all trials."""

_LOCK = threading.Lock()
"""A worker may have several threads, but an evaluator runs one trial at a time."""


@contextmanager
def keep_evaluator() -> Iterator[None]:
    """Keep the evaluator of this process, with its cache, until the end of the block."""
    try:
        yield
    finally:
        with _LOCK:
            _EVALUATORS.clear()
