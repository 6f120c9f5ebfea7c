"""One pair of a cohort, as a worker registers it."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from convexadam.cohort.fingerprint import FileRecord, describe_files, make_fingerprint, to_plain
from convexadam.cohort.outcome import CohortOutcome
from convexadam.cohort.truth import Truth
from convexadam.errors import ConfigError, ConvexAdamError, FileError, GeometryError, InputError, MissingExtraError
from convexadam.io import PairFiles, read_image, use_header
from convexadam.io.nifti_placement import HeaderForm
from convexadam.registration import PreparedImage, RegistrationConfig, RegistrationResult, prepare
from convexadam.registration.files import REPORT, Output, name_outputs, write_outputs
from convexadam.registration.inputs import parse_mask
from convexadam.report import QualityMeasures, judge_quality, measure_quality

_PERMANENT = (ConfigError, InputError, GeometryError, MissingExtraError)


@final
@dataclass(frozen=True, kw_only=True)
class PairJob:
    """A pair to register.

    Attributes
    ----------
    pair
        Its files, with absolute paths.
    config
        Settings.
    folder
        Folder of all pairs.
    outputs
        Files to write.
    settings
        Text of the settings, see `describe_settings`.
    header
        Form of NIfTI headers to use.
    device
        Device to compute on; ``None`` is the CPU.
    shares_fixed
        Whether other pairs have the same fixed image, which is prepared once for all of them then.
    check_mirror
        Whether to register the mirror image of the moving image as well.
    measure
        Whether to measure the quality.
    compress
        Whether to pack images and fields.
    """

    pair: PairFiles
    config: RegistrationConfig
    folder: Path
    outputs: tuple[Output, ...]
    settings: str
    header: HeaderForm | None = None
    device: str | None = None
    shares_fixed: bool = False
    check_mirror: bool = False
    measure: bool = True
    compress: bool = True

    def find_kept(self) -> CohortOutcome | None:
        """Return the outcome of an earlier run, if it is complete and its files and settings were the same."""
        folder = self.folder / self.pair.id
        try:
            report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            cohort = report["cohort"]
            quality = QualityMeasures.from_dict(report["quality"]) if self.measure or "quality" in report else None
            records = describe_files(self.pair.files, cohort["files"])
            outcome = CohortOutcome(
                pair=self.pair,
                status="kept",
                folder=folder,
                seconds=cohort["seconds"],
                quality=quality,
                scores=report["scores"],
                verdict=None if quality is None else judge_quality(quality),
                warnings=tuple(report["warnings"]),
            )
            same = cohort["fingerprint"] == make_fingerprint(records, self.settings)
            same &= cohort["check_mirror"] or not self.check_mirror
        except (OSError, ValueError, TypeError, KeyError):  # there is none, or one of another version
            return None
        return outcome if same and all((folder / name).exists() for name in self._output_names()) else None

    def _output_names(self) -> list[str]:
        labels = self.pair.moving_labels is not None
        return name_outputs(self.outputs, linear=self.config.is_linear, labels=labels, compress=self.compress)


def run_pair(job: PairJob) -> CohortOutcome:
    """Register a pair and write its results, unless they are there; an error of any kind is an outcome as well."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with use_header(job.header):
                return job.find_kept() or _register_pair(job, start, caught)
        except Exception as error:
            return CohortOutcome(
                pair=job.pair,
                status="failed",
                folder=job.folder / job.pair.id,
                error=_describe_error(error),
                is_permanent=isinstance(error, _PERMANENT) and not isinstance(error, FileError),
            )


def _register_pair(job: PairJob, start: float, caught: list[warnings.WarningMessage]) -> CohortOutcome:
    pair, records = job.pair, describe_files(job.pair.files)
    prepared = _prepare_fixed(job, records)
    fixed, moving = prepared.fixed, read_image(pair.moving, device=prepared.fixed.data.device)
    truth = Truth.read(pair, fixed, moving)
    moving_mask = parse_mask(pair.moving_mask, moving, "moving_mask")
    others: dict[str, Any] = {
        "moving_mask": moving_mask,
        "moving_segmentation": pair.moving_segmentation,
        "initial_transform": pair.initial_transform,
    }
    result = prepared.register(moving, **others)
    quality = None
    if job.measure:
        mirrored = prepared.register_mirrored(moving, **others) if job.check_mirror else None
        quality = measure_quality(
            result, fixed, moving, fixed_mask=prepared.fixed_mask, moving_mask=moving_mask, mirrored=mirrored
        )
        del mirrored
    scores, verdict = truth.score(result), None if quality is None else judge_quality(quality)
    with _open_folder(job.folder, pair.id) as folder:
        write_outputs(result, folder, job.outputs, labels=truth.moving_labels, compress=job.compress)
        outcome = CohortOutcome(
            pair=pair,
            status="done",
            folder=job.folder / pair.id,
            seconds=time.perf_counter() - start,
            quality=quality,
            scores=scores,
            verdict=verdict,
            warnings=tuple(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)),
        )
        _write_report(result, outcome, job, records, folder)
    return outcome


_PREPARED: dict[tuple[object, ...], PreparedImage] = {}
"""The fixed image of the last pair of this process."""

_LOCK = threading.Lock()


def _prepare_fixed(job: PairJob, records: dict[str, FileRecord]) -> PreparedImage:
    """Return the fixed image of a pair: the one of the pair before, if it is the same."""
    pair = job.pair
    contents = (
        records[name].sha256 if name in records else "" for name in ("fixed", "fixed_mask", "fixed_segmentation")
    )
    key = (*contents, job.settings, job.device)
    with _LOCK:
        prepared = _PREPARED.get(key)
        _PREPARED.clear()  # before the memory for another one is taken
        prepared = prepared or prepare(
            pair.fixed,
            job.config,
            fixed_mask=pair.fixed_mask,
            fixed_segmentation=pair.fixed_segmentation,
            device=job.device,
        )
        if job.shares_fixed:
            _PREPARED[key] = prepared
        return prepared


def _write_report(
    result: RegistrationResult, outcome: CohortOutcome, job: PairJob, records: dict[str, FileRecord], folder: Path
) -> None:
    report = result.summary() | {
        "inputs": {name: str(path) for name, path in job.pair.files.items()},
        "scores": outcome.scores,
        "warnings": outcome.warnings,
        "cohort": {
            "id": outcome.id,
            "preset": job.pair.preset,
            "seconds": outcome.seconds,
            "check_mirror": job.check_mirror,
            "files": to_plain(records),
            "fingerprint": make_fingerprint(records, job.settings),
        },
    }
    if outcome.quality is not None and outcome.verdict is not None:
        report["quality"] = outcome.quality.to_dict()
        report["verdict"] = {"grade": outcome.verdict.grade, "reasons": outcome.verdict.reasons}
    (folder / REPORT).write_text(_format_json(report), encoding="utf-8")


def _format_json(values: dict[str, Any]) -> str:
    """Return JSON with one line for each key, which takes a tenth of the time of one line for each value."""
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()) + "\n}\n"


@contextmanager
def _open_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder, which takes its name and the place of an earlier one after the block succeeds.

    Whoever is killed leaves the earlier folder or the new one, complete, and nothing else of that name.
    """
    part = parent / f".{name}.{secrets.token_hex(6)}.part"
    try:
        part.mkdir(parents=True)
        yield part
        _replace_folder(part, parent / name)
    except OSError as error:
        raise FileError(f"cannot write {parent / name}: {error.strerror or error}; check free space") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace_folder(part: Path, target: Path) -> None:
    old = part.with_suffix(".old")
    with suppress(FileNotFoundError):
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove the folder of a pair, so that nobody sees a part of it."""
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.old")
    with suppress(OSError):
        folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed workers have left in the folder of all pairs."""
    for ending in ("part", "old"):
        for path in folder.glob(f".*.{ending}"):
            shutil.rmtree(path, ignore_errors=True)


def _describe_error(error: Exception) -> str:
    """Return an error in one line; one that is not of the library with its place in the source."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, ConvexAdamError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text
