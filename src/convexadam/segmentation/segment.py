"""Multi-atlas segmentation: registration of atlases to a target, choice of atlases, and fusion of their labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from convexadam._atomic import make_folder
from convexadam._checks import check_count
from convexadam.cohort import CohortOutcome, register_cohort
from convexadam.errors import InputError
from convexadam.executors import Executor
from convexadam.geometry import Image
from convexadam.io import PairFiles, ScanFiles, read_image, read_scans, write_image
from convexadam.io.ids import check_ids
from convexadam.io.reading import StrPath
from convexadam.io.tables import write_rows
from convexadam.metrics import dice
from convexadam.registration import RegistrationConfig
from convexadam.registration.presets import parse_config
from convexadam.segmentation.fusion import Fusion, LabelFusion, fuse_labels


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """Result of `segment`.

    Attributes
    ----------
    fusion
        Labels, confidence and probabilities on the grid of the target.
    atlases
        Ids of the atlases that were fused, the most similar one first.
    failed
        Why atlases could not be registered, by id.

    Examples
    --------
    >>> import torch
    >>> from convexadam import as_image
    >>> from convexadam.segmentation import Segmentation, fuse_labels
    >>> image, labels = as_image(torch.rand(8, 8, 8)), as_image(torch.ones(8, 8, 8, dtype=torch.uint8))
    >>> found = Segmentation(fusion=fuse_labels(image, [image], [labels]), atlases=("a",), failed={})  # as of `segment`
    >>> found.fusion.labels.data.unique().tolist()
    [1]
    """

    fusion: Fusion
    atlases: tuple[str, ...]
    failed: Mapping[str, str]


def segment(
    target: StrPath,
    atlases: StrPath | Sequence[ScanFiles],
    *,
    output_dir: StrPath,
    config: RegistrationConfig | str | None = None,
    method: LabelFusion | None = None,
    most: int | None = None,
    probabilities_of: Iterable[int] = (),
    missing: int | None = None,
    executor: Executor | None = None,
    device: str | None = None,
) -> Segmentation:
    """Register atlases to a target, and fuse their labels.

    The folder receives ``labels.nii.gz``, ``confidence.nii.gz``, ``probability_LABEL.nii.gz`` for each label asked for,
    and ``registrations/``, a cohort from which an interrupted call continues (see `convexadam.cohort`).

    Parameters
    ----------
    target
        File of the image to segment.
    atlases
        A list of atlases in a file (see `convexadam.io.read_scans`), or the atlases.
    output_dir
        Folder for the results; created if it does not exist.
    config
        Settings of the registrations, or the name of a preset; ``None`` is ``"best"``.
    method
        How labels are fused; ``None`` takes `JointFusion`.
    most
        Number of atlases to fuse: those most similar to the target after registration; ``None`` for all.
    probabilities_of, missing
        See `fuse_labels`.
    executor, device
        Where atlases are registered, see `convexadam.cohort.register_cohort`.

    Raises
    ------
    InputError, FileError
        If files cannot be used, or no atlas could be registered.

    Examples
    --------
    >>> from convexadam.segmentation import segment
    >>> found = segment("target.nii.gz", "atlases.csv", output_dir="segmented")  # doctest: +SKIP
    >>> found.fusion.labels, found.failed  # doctest: +SKIP
    """
    chosen = _list_atlases(atlases, 1)
    folder = Path(output_dir)
    outcomes = _register({"target": Path(target)}, chosen, folder, config, executor, device)["target"]
    used = _choose(outcomes, most)
    image = read_image(target)
    fusion = _fuse(image, used, method, probabilities_of, missing)
    _write(fusion, folder, sorted(set(probabilities_of)))
    failed = {outcome.id.removesuffix("_to_target"): outcome.error for outcome in outcomes if outcome.error is not None}
    names = tuple(outcome.id.removesuffix("_to_target") for outcome in used)
    return Segmentation(fusion=fusion, atlases=names, failed=failed)


def segment_left_out(
    atlases: StrPath | Sequence[ScanFiles],
    *,
    output_dir: StrPath,
    config: RegistrationConfig | str | None = None,
    method: LabelFusion | None = None,
    most: int | None = None,
    missing: int | None = None,
    executor: Executor | None = None,
    device: str | None = None,
) -> Iterator[tuple[str, dict[int, float]]]:
    """Segment each atlas by all others, and yield its id and the Dice overlap of each label with its own.

    The folder receives ``dice.csv``, with one row for each atlas and label, ``ID/labels.nii.gz``, and
    ``registrations/``. See `segment` for the arguments.

    Examples
    --------
    >>> from convexadam.segmentation import segment_left_out
    >>> for name, overlap in segment_left_out("atlases.csv", output_dir="left-out"):  # doctest: +SKIP
    ...     print(name, overlap)
    """
    every = _list_atlases(atlases, 2)
    folder = Path(output_dir)
    targets = {atlas.id: atlas.image for atlas in every}
    outcomes = _register(targets, every, folder, config, executor, device)
    rows = list[tuple[str, int, float]]()
    for atlas in every:
        image, truth = read_image(atlas.image), read_image(atlas.labels or atlas.image)
        fusion = _fuse(image, _choose(outcomes[atlas.id], most), method, (), missing)
        _write(fusion, folder / atlas.id, ())
        scores = dice(truth, fusion.labels)
        rows += [(atlas.id, label, score) for label, score in scores.items()]
        write_rows(folder / "dice.csv", ("id", "label", "dice"), rows)
        yield atlas.id, scores


def _list_atlases(atlases: StrPath | Sequence[ScanFiles], least: int) -> tuple[ScanFiles, ...]:
    found = read_scans(atlases, need_labels=True) if isinstance(atlases, (str, os.PathLike)) else tuple(atlases)
    known = [scan for scan in found if isinstance(scan, ScanFiles) and scan.labels is not None]
    if len(known) < max(least, len(found)):
        raise InputError(
            f"atlases must be at least {least}, each with labels, got {len(known)} of {len(found)}; add labels"
        )
    check_ids([scan.id for scan in known])
    return found


def _register(
    targets: Mapping[str, Path],
    atlases: Sequence[ScanFiles],
    folder: Path,
    config: RegistrationConfig | str | None,
    executor: Executor | None,
    device: str | None,
) -> dict[str, list[CohortOutcome]]:
    """Register each atlas to each target but itself."""
    pairs = {
        f"{atlas.id}_to_{name}": (
            name,
            PairFiles(id=f"{atlas.id}_to_{name}", fixed=path, moving=atlas.image, moving_labels=atlas.labels),
        )
        for name, path in targets.items()
        for atlas in atlases
        if atlas.image != path
    }
    found: dict[str, list[CohortOutcome]] = {name: [] for name in targets}
    for outcome in register_cohort(
        [pair for _, pair in pairs.values()],
        parse_config(config, default="best"),
        output_dir=make_folder(folder / "registrations"),
        outputs=("transform", "moved", "labels"),
        executor=executor,
        device=device,
    ):
        found[pairs[outcome.id][0]].append(outcome)
    return found


def _choose(outcomes: Sequence[CohortOutcome], most: int | None) -> list[CohortOutcome]:
    """Return the outcomes of the most similar atlases, in the order of their similarity."""
    if most is not None:
        check_count(most, "most", least=1)
    done = [outcome for outcome in outcomes if outcome.quality is not None]
    if not done:
        reasons = "; ".join(f"{outcome.id}: {outcome.error}" for outcome in outcomes)
        raise InputError(f"atlases must be at least one that can be registered, got none: {reasons}")
    return sorted(done, key=_rank)[:most]


def _rank(outcome: CohortOutcome) -> tuple[float, str]:
    assert outcome.quality is not None
    similarity = outcome.quality.similarity_after
    return (-similarity if np.isfinite(similarity) else np.inf), outcome.id


def _fuse(
    target: Image,
    outcomes: Sequence[CohortOutcome],
    method: LabelFusion | None,
    probabilities_of: Iterable[int],
    missing: int | None,
) -> Fusion:
    images, labels = (
        [read_image(outcome.folder / name) for outcome in outcomes] for name in ("moved.nii.gz", "moved_labels.nii.gz")
    )
    return fuse_labels(target, images, labels, method=method, probabilities_of=probabilities_of, missing=missing)


def _write(fusion: Fusion, folder: Path, names: Sequence[int]) -> None:
    make_folder(folder)
    write_image(fusion.labels, folder / "labels.nii.gz")
    write_image(fusion.confidence, folder / "confidence.nii.gz")
    if fusion.probabilities is not None:
        for name, values in zip(names, fusion.probabilities.data, strict=True):
            write_image(Image(values[None], fusion.labels.grid), folder / f"probability_{name}.nii.gz")
