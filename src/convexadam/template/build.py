"""Construction of an unbiased template: rounds of registration to the average, and of updates of its shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import final

import torch

from convexadam._atomic import make_folder
from convexadam._checks import check_count, check_number
from convexadam._lock import lock_folder
from convexadam.cohort import register_cohort
from convexadam.errors import ConvexAdamError, InputError
from convexadam.executors import Executor
from convexadam.geometry import Affine, Grid, Image, Transform
from convexadam.geometry.linear_maps import fit_affine
from convexadam.io import (
    PairFiles,
    ScanFiles,
    read_image,
    read_scans,
    write_image,
    write_transform,
)
from convexadam.io.ids import check_ids
from convexadam.io.reading import StrPath
from convexadam.io.tables import write_rows
from convexadam.metrics.summary import to_integer_labels
from convexadam.registration import RegistrationConfig, preset
from convexadam.registration.files import Output, name_transform
from convexadam.registration.presets import parse_config
from convexadam.segmentation import Fusion, MajorityVote, fuse_labels
from convexadam.template.average import FOREGROUND, RunningAverage, scale_intensity, sharpen
from convexadam.template.placement import AlignedScan, place_scans
from convexadam.template.shape import ShapeAverage, ShapeUpdate


@final
@dataclass(frozen=True, kw_only=True)
class TemplateRound:
    """What changed in one round.

    Attributes
    ----------
    number
        From 0.
    linear
        Whether registrations were linear.
    mean_displacement_mm, largest_displacement_mm
        Mean of the displacements of all scans, beyond linear ones, that the round removed: its mean and largest length.
    mean_linear_mm
        Mean length of the displacement of the mean linear map that the round removed.
    change_percent
        Root mean square change of the intensities, relative to those of the template.

    Examples
    --------
    >>> from convexadam.template import TemplateRound
    >>> TemplateRound(
    ...     number=0, linear=True, mean_displacement_mm=0.0, largest_displacement_mm=0.0, mean_linear_mm=2.5,
    ...     change_percent=8.0,
    ... ).linear
    True
    """

    number: int
    linear: bool
    mean_displacement_mm: float
    largest_displacement_mm: float
    mean_linear_mm: float
    change_percent: float


_COLUMNS = tuple(field.name for field in fields(TemplateRound))


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """Result of `build_template`.

    Attributes
    ----------
    image
        The average of all scans; intensities of bright tissue are about 1.
    deviation
        Standard deviation of the scans at each voxel.
    rounds
        What changed in each round.
    bias_mm
        Mean length of the mean displacement of the transforms from the template to the scans, linear maps included: 0
        if the template has exactly their mean shape.
    scans
        Scans that contributed: the ids of their folders.
    failed
        Ids of scans that could not be registered in the last round, and contribute nothing to it.
    labels
        Majority vote of their labels; ``None`` if no scan has labels.

    Examples
    --------
    >>> import torch
    >>> from convexadam import as_image
    >>> from convexadam.template import Template
    >>> image = as_image(torch.rand(8, 8, 8))
    >>> template = Template(
    ...     image=image, deviation=image, rounds=(), bias_mm=0.1, scans=("a", "b"), failed=(), labels=None
    ... )  # as `build_template` returns it
    >>> template.bias_mm, template.scans
    (0.1, ('a', 'b'))
    """

    image: Image
    deviation: Image
    rounds: tuple[TemplateRound, ...]
    bias_mm: float
    scans: tuple[str, ...]
    failed: tuple[str, ...]
    labels: Fusion | None


def build_template(
    scans: StrPath | Sequence[ScanFiles],
    *,
    output_dir: StrPath,
    config: RegistrationConfig | str | None = None,
    linear_rounds: int = 2,
    rounds: int = 4,
    tolerance_percent: float = 0.5,
    spacing_mm: tuple[float, float, float] | None = None,
    start: StrPath | None = None,
    symmetric: bool = False,
    sharpening: float = 0.0,
    executor: Executor | None = None,
    device: str | None = None,
    on_round: Callable[[TemplateRound], None] | None = None,
) -> Template:
    """Build the template of a group: its mean shape, and the average of its intensities.

    Each round registers all scans to the present template, moves the template to the mean of their shapes, and averages
    the scans there, each interpolated once. The mean of linear maps is that of their matrix logarithms, and the mean
    displacement is removed by its inverse, so that the result does not depend on which scan comes first. Averages weigh
    scans by their residuals (`RunningAverage`). Deformable rounds start at the affine part of the transforms of the
    round before, and leave out scans that failed there.

    An interrupted call continues when it is repeated: finished registrations are kept (see `convexadam.cohort`). The
    folder is described in `convexadam.template`.

    Guimond, Meunier, Thirion, "Average brain models: a convergence study", CVIU 2000; Avants et al., "The optimal
    template effect in hippocampus studies of diseased populations", NeuroImage 2010.

    Parameters
    ----------
    scans
        A list or a pattern of files (see `convexadam.io.read_scans`), or the scans.
    output_dir
        Folder for the results; created if it does not exist.
    config
        Settings of the deformable rounds, or the name of a preset; ``None`` is ``"default"``.
    linear_rounds
        Rounds with ``preset("affine")`` before them.
    rounds
        Largest number of deformable rounds; 0 for a linear template.
    tolerance_percent
        Deformable rounds end when one changes the intensities by less than this (`TemplateRound.change_percent`).
    spacing_mm
        Voxel size of the template; ``None`` for the median of the scans.
    start
        Image to begin with, whose grid the template has; ``None`` for the average of the scans, aligned by their
        centres of mass.
    symmetric
        Make the template symmetric between left and right.
    sharpening
        Amount of unsharp masking of the averages that scans are registered to; 0 for none, 1 for much.
    executor, device
        Where scans are registered, see `convexadam.cohort.register_cohort`.
    on_round
        Called after each round.

    Raises
    ------
    InputError, FileError
        If files cannot be used.
    ConvexAdamError
        If fewer than two scans could be registered in a round.

    Examples
    --------
    >>> from convexadam.template import build_template
    >>> template = build_template("scans/*.nii.gz", output_dir="template")  # doctest: +SKIP
    >>> template.image, template.bias_mm  # doctest: +SKIP
    """
    group = _list_scans(scans)
    for name, value in (("linear_rounds", linear_rounds), ("rounds", rounds)):
        check_count(value, name)
    check_number(tolerance_percent, "tolerance_percent")
    check_number(sharpening, "sharpening")
    folder = make_folder(output_dir)
    steps = [preset("affine")] * linear_rounds + [parse_config(config)] * rounds
    with lock_folder(folder, "template"):
        placement = place_scans(group, spacing_mm, start)
        grid, scans_at, average = placement.grid, placement.scans, None
        if start is None:
            average = _average(group, scans_at, grid, None, symmetric=symmetric)
            current = average.find_mean()
        else:
            current = scale_intensity(read_image(start)).data[0].cpu()
        done = list[TemplateRound]()
        for number, step in enumerate(steps):
            place = make_folder(folder / "rounds" / f"{number:02d}")
            write_image(Image(sharpen(current, sharpening)[None], grid), place / "template.nii.gz")
            starts = None if step.is_linear or not linear_rounds else _fit_affines(scans_at, grid, current)
            found = _register(group, place, step, starts, executor, device)
            update = _find_update(found, grid, current, symmetric=symmetric)
            scans_at = {name: replace(scan, update=update.transform) for name, scan in found.items()}
            average = _average(group, scans_at, grid, None if step.is_linear else current, symmetric=symmetric)
            before, current = current, average.find_mean()
            done.append(_describe(number, step, update, before, current))
            write_rows(folder / "convergence.csv", _COLUMNS, map(astuple, done))
            if on_round is not None:
                on_round(done[-1])
            if not step.is_linear and done[-1].change_percent < tolerance_percent:
                break
        template = Image(sharpen(current, sharpening)[None], grid)
        write_image(template, folder / "template.nii.gz")
        if average is None:  # no round has averaged the scans
            average = _average(group, scans_at, grid, None, symmetric=symmetric)
        deviation = Image(average.find_deviation()[None], grid)
        write_image(deviation, folder / "deviation.nii.gz")
        bias_mm, labels = _write_scans(group, scans_at, template, folder)
    return Template(
        image=template,
        deviation=deviation,
        rounds=tuple(done),
        bias_mm=bias_mm,
        scans=tuple(scans_at),
        failed=tuple(scan.id for scan in group if scan.id not in scans_at),
        labels=labels,
    )


def _list_scans(scans: StrPath | Sequence[ScanFiles]) -> tuple[ScanFiles, ...]:
    """Return the scans in the order of their ids, so that sums are the same in any order of the list."""
    group = read_scans(scans) if isinstance(scans, (str, os.PathLike)) else tuple(scans)
    if len(group) < 2 or not all(isinstance(scan, ScanFiles) for scan in group):
        raise InputError(f"scans must be at least two, got {len(group)} or others than ScanFiles; add images")
    check_ids([scan.id for scan in group])
    return tuple(sorted(group, key=lambda scan: scan.id))


def _fit_affines(scans_at: dict[str, AlignedScan], grid: Grid, template: torch.Tensor) -> dict[str, Affine]:
    """Return the affine part of the transform to each scan over the foreground of the template."""
    weight = (template > FOREGROUND).float()
    return {name: fit_affine(scan.read(), grid, weight) for name, scan in scans_at.items()}


def _register(
    group: Sequence[ScanFiles],
    place: Path,
    config: RegistrationConfig,
    starts: dict[str, Affine] | None,
    executor: Executor | None,
    device: str | None,
) -> dict[str, AlignedScan]:
    """Register scans to the template of a round; return them in the order of the ids.

    With ``starts``, scans start at these affine transforms, without a linear alignment, and others are left out.
    """
    fixed = place / "template.nii.gz"
    outputs: tuple[Output, ...] = ("transform",)
    pairs = [PairFiles(id=scan.id, fixed=fixed, moving=scan.image) for scan in group]
    if starts is not None:
        folder = make_folder(place / "initial")
        pairs = [replace(p, initial_transform=folder / f"{p.id}.tfm") for p in pairs if p.id in starts]
        for pair in pairs:
            write_transform(starts[pair.id], folder / f"{pair.id}.tfm")
        config = replace(config, linear=None)
    found, errors = dict[str, AlignedScan](), list[str]()
    for outcome in register_cohort(
        pairs,
        config,
        output_dir=place / "registrations",
        outputs=outputs,
        measure=False,
        compress=False,
        executor=executor,
        device=device,
    ):
        if outcome.error is None:
            name = name_transform(linear=config.is_linear, compress=False)
            found[outcome.id] = AlignedScan(transform=outcome.folder / name)
        else:
            errors.append(f"{outcome.id}: {outcome.error}")
    if len(found) < 2:
        raise ConvexAdamError(
            f"at least two scans must be registered to {fixed}, got {len(found)}; {'; '.join(errors)}"
        )
    return dict(sorted(found.items()))


def _find_update(
    scans_at: dict[str, AlignedScan], grid: Grid, template: torch.Tensor, *, symmetric: bool
) -> ShapeUpdate:
    shape = ShapeAverage(grid, (template > FOREGROUND).float(), symmetric=symmetric)
    for scan in scans_at.values():
        shape.add(scan.read())
    return shape.find_update()


def _average(
    group: Sequence[ScanFiles],
    scans_at: dict[str, AlignedScan],
    grid: Grid,
    centre: torch.Tensor | None,
    *,
    symmetric: bool,
) -> RunningAverage:
    """Average the scans under their transforms."""
    average = RunningAverage(torch.zeros(grid.shape, dtype=torch.float32, device="cpu"), centre)
    for scan, transform in _pair(group, scans_at):
        volume = transform.warp(scale_intensity(read_image(scan.image)), grid).data[0]
        average.add(volume, scan.weight)
        if symmetric:
            average.add(volume.flip(0), scan.weight)
    return average


def _describe(
    number: int, config: RegistrationConfig, update: ShapeUpdate, before: torch.Tensor, after: torch.Tensor
) -> TemplateRound:
    inside = (before > FOREGROUND) | (after > FOREGROUND)
    change = (after - before)[inside].square().mean().sqrt() / after[inside].square().mean().sqrt()
    return TemplateRound(
        number=number,
        linear=config.is_linear,
        mean_displacement_mm=update.mean_mm,
        largest_displacement_mm=update.largest_mm,
        mean_linear_mm=update.linear_mm,
        change_percent=100 * float(change),
    )


def _write_scans(
    group: Sequence[ScanFiles], scans_at: dict[str, AlignedScan], template: Image, folder: Path
) -> tuple[float, Fusion | None]:
    """Write what belongs to each scan; return the bias of the shape, and the vote of all labels."""
    moved, shape = list[Image](), ShapeAverage(template.grid, (template.data[0] > FOREGROUND).float())
    for scan, transform in _pair(group, scans_at):
        place = make_folder(folder / "scans" / scan.id)
        field = transform.to_displacement_field(template.grid)
        shape.add(field)
        write_transform(field, place / "transform.nii.gz")
        change = field.jacobian().clamp_min(1e-6).log()
        write_image(Image(change[None], template.grid), place / "log_jacobian.nii.gz")
        if scan.labels is not None:
            labels = to_integer_labels(read_image(scan.labels), "labels")
            moved.append(field.warp(labels, template.grid, mode="label"))
            write_image(moved[-1], place / "labels.nii.gz")
    update = shape.find_update()
    bias_mm = update.mean_mm + update.linear_mm
    if not moved:
        return bias_mm, None
    fusion = fuse_labels(template, [template] * len(moved), moved, method=MajorityVote())
    write_image(fusion.labels, folder / "labels.nii.gz")
    write_image(fusion.confidence, folder / "confidence.nii.gz")
    return bias_mm, fusion


def _pair(group: Sequence[ScanFiles], scans_at: dict[str, AlignedScan]) -> Iterator[tuple[ScanFiles, Transform]]:
    for scan in group:
        if scan.id in scans_at:
            yield scan, scans_at[scan.id].read()
