"""Pairs that are registered for the benchmark of the verdict, and the ways in which they are spoiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from convexadam import ConvexSearch, Grid, Image, IsotropicGrid, RegistrationConfig, preset, read_image
from convexadam.continuous import (
    Compositional,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Lncc,
    Refinement,
    Ssd,
    WeightedSum,
)
from convexadam.data import phantom_pair
from convexadam.features import Concat, Intensity, MindSSC
from convexadam.io import read_landmarks_mm

TUNING, JUDGED = "tuning", "judged"

BRAIN_MM = 2.0
"""Voxels of the brains, which are registered at half their resolution."""

PEOPLE = {
    (TUNING, "1000"): ("1001", "1002", "1006", "1007", "1008", "1009"),
    (JUDGED, "1011"): ("1003", "1010", "1012", "1013", "1014", "1015", "1017", "1036", "1110", "1116", "1122"),
    (JUDGED, "1110"): ("1003", "1010", "1012", "1013", "1014", "1015"),
}
"""By set and fixed image. Nobody is in both sets."""

FOLDERS = {TUNING: ("liver_mr_eth_18",), JUDGED: ("liver_mr_eth_19", "lung_ct_elastix", "brain_t1_vxm")}
CONTRASTS = {TUNING: ("brain_mr_openms26_T1_FLAIR_syn",), JUDGED: ("brain_mr_openms07_T1_T2_syn",)}
SEEDS = {TUNING: range(100, 108), JUDGED: range(200, 212)}
TWO_CONTRAST_SEEDS = {TUNING: range(320, 324), JUDGED: range(420, 428)}
OTHER_CONTRAST_SEEDS = {TUNING: range(300, 304), JUDGED: range(400, 406)}
PHANTOM_SHAPE = (72, 60, 54)

BY_INTENSITIES = RegistrationConfig(
    grid=IsotropicGrid(max_anisotropy=2.0),
    discrete=(ConvexSearch(spacing=4, radius=5, window="ball"), ConvexSearch(spacing=2, radius=3, window="ball")),
    symmetric=True,
    continuous_features=Concat(parts=(Intensity(), Intensity(), MindSSC())),
    continuous=Refinement(
        levels=(
            Level(spacing=2, iterations=20, total_smoothing=GaussianSmoothing(sigma=0.6)),
            Level(spacing=1, iterations=8, update_smoothing=GaussianSmoothing(sigma=0.7), forward_only=True),
        ),
        similarity=WeightedSum(
            terms=(Lncc(), Ssd(), Ssd(robust_scale=1.0)), weights=(1.0, 1.0, 0.5), channels=(1, 1, 12)
        ),
        regularisers=(),
        optimiser=LevenbergMarquardt(damping=2.0),
        parametrisation=Compositional(),
    ),
)
"""Compares mostly intensities, and so fails where they do not mean the same."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair with its truth: label maps, or points in mm, or neither.

    Attributes
    ----------
    group
        Pairs of one kind, which are a cohort.
    fixed, moving
        The images.
    labels
        Label maps of both.
    points
        Corresponding points of both in mm, ``(n, 3)``.
    spoiling
        How it was spoiled; ``"none"`` for a good pair.
    config
        Settings of the registration.
    """

    group: str
    name: str
    fixed: Image
    moving: Image
    labels: tuple[Image, Image] | None = None
    points: tuple[torch.Tensor, torch.Tensor] | None = None
    spoiling: str = "none"
    config: RegistrationConfig | None = None


def list_pairs(which: str, data: Path | None) -> Iterator[Callable[[], list[Pair]]]:
    """Yield functions that make a good pair and its spoiled ones."""
    for seed in SEEDS[which]:
        yield lambda seed=seed: spoil(_make_phantom(seed), other=_make_phantom(seed + 50))
    for seed in TWO_CONTRAST_SEEDS[which]:
        yield lambda seed=seed: spoil(_make_phantom(seed, two=True), other=_make_phantom(seed + 50, two=True))
    for seed in OTHER_CONTRAST_SEEDS[which]:
        yield lambda seed=seed: _spoil_contrast(seed)
    if data is None:
        return
    for (part, template), people in PEOPLE.items():
        for person in people if part == which else ():
            yield partial(_spoil_people, data, which, template, person)
    for folder in (*FOLDERS[which], *CONTRASTS[which]):
        yield lambda folder=folder: _read_folders(data, folder, which)


def spoil(pair: Pair, *, other: Pair | None = None, organ: Image | None = None) -> list[Pair]:
    """Return a good pair and its spoiled ones; the labels and points go with the moving image."""
    spoiled = [pair, _flip(pair, "R", "left-right flip"), _flip(pair, "AS", "upside-down header")]
    spoiled += [_shift(pair), _crop(pair)]
    if other is not None:
        assert pair.labels is not None and other.labels is not None
        labels = pair.labels[0], other.labels[1]
        spoiled.append(replace(pair, spoiling="other person", moving=other.moving, points=None, labels=labels))
    if organ is not None:
        moving = Image(organ.data, _centre(organ.grid, pair.fixed.grid))
        spoiled.append(replace(pair, spoiling="other organ", moving=moving, points=None, labels=None))
    return spoiled


def _centre(grid: Grid, reference: Grid) -> Grid:
    """Return a grid with the centre of another, so that the images overlap."""
    here, there = (g.affine @ [*((n - 1) / 2 for n in g.shape), 1.0] for g in (grid, reference))
    affine = grid.affine.copy()
    affine[:3, 3] += (there - here)[:3]
    return Grid(grid.shape, affine)


def _flip(pair: Pair, axes: str, name: str) -> Pair:
    """Flip the voxels of the moving image along patient axes under the same header."""
    grid = pair.moving.grid
    order, _ = grid.canonical_axes()
    along = [order["RAS".index(axis)] for axis in axes]

    def flip(image: Image) -> Image:
        return Image(image.data.flip([a + 1 for a in along]), image.grid)

    points = pair.points
    if points is not None:
        index = grid.world_to_index(points[1].double())
        for a in along:
            index[:, a] = grid.shape[a] - 1 - index[:, a]
        points = points[0], grid.index_to_world(index)
    labels = None if pair.labels is None else (pair.labels[0], flip(pair.labels[1]))
    return replace(pair, spoiling=name, moving=flip(pair.moving), labels=labels, points=points)


def _shift(pair: Pair) -> Pair:
    """Shift the moving image by 40 % of its extent along A, beyond the search, and align nothing beforehand."""
    grid = pair.moving.grid
    canonical = grid.canonical()
    length_mm = 0.4 * canonical.shape[1] * canonical.spacing_mm[1]
    affine = grid.affine.copy()
    affine[1, 3] += length_mm
    there = Grid(grid.shape, affine)
    labels = None if pair.labels is None else (pair.labels[0], Image(pair.labels[1].data, there))
    shift = torch.tensor([0.0, length_mm, 0.0], dtype=torch.float64)
    points = None if pair.points is None else (pair.points[0], pair.points[1].double() + shift)
    config = replace(pair.config or preset(), linear=None)
    moving = Image(pair.moving.data, there)
    return replace(pair, spoiling="shift beyond reach", moving=moving, labels=labels, points=points, config=config)


def _crop(pair: Pair) -> Pair:
    """Remove the upper half of the moving image."""

    def crop(image: Image) -> Image:
        image = image.canonical()
        half = image.grid.shape[2] // 2
        i, j, _ = image.grid.shape
        return Image(image.data[..., :half].contiguous(), Grid((i, j, half), image.grid.affine))

    labels = None if pair.labels is None else (pair.labels[0], crop(pair.labels[1]))
    return replace(pair, spoiling="half the field of view", moving=crop(pair.moving), labels=labels)


def _make_phantom(seed: int, *, two: bool = False) -> Pair:
    contrasts = (("ct", "t1"), ("t1", "t2"))[seed % 2] if two else ("ct", "ct")
    made = phantom_pair(PHANTOM_SHAPE, seed=seed, contrasts=contrasts)
    return Pair(
        group=f"torso, {contrasts[0]} and {contrasts[1]}" if two else "torso",
        name=f"torso {seed}",
        fixed=made.fixed,
        moving=made.moving,
        labels=(made.fixed_labels, made.moving_labels),
        points=(made.fixed_landmarks_mm, made.moving_landmarks_mm),
    )


def _spoil_contrast(seed: int) -> list[Pair]:
    """Return a pair of one contrast, and the same motion between two, registered by intensities."""
    pairs = []
    for spoiling, contrasts in (("none", ("ct", "ct")), ("other contrast", ("ct", "t2"))):
        made = phantom_pair((48, 40, 36), seed=seed, contrasts=contrasts)
        labels = made.fixed_labels, made.moving_labels
        points = made.fixed_landmarks_mm, made.moving_landmarks_mm
        pairs.append(
            Pair(
                "torso, intensities",
                f"small torso {seed}",
                made.fixed,
                made.moving,
                labels,
                points,
                spoiling,
                BY_INTENSITIES,
            )
        )
    return pairs


def _coarsen(image: Image) -> Image:
    from convexadam.geometry import resample

    i, j, k = (max(s, BRAIN_MM) for s in image.grid.spacing_mm)
    grid = image.grid.with_spacing((i, j, k))
    if image.is_label:
        return resample(image, grid, mode="nearest")
    return resample(Image(image.data.float(), image.grid), grid, antialias=True)


@cache
def _read_person(data: Path, person: str) -> tuple[Image, Image]:
    folder = data / "study_brains_t1"
    image, labels = (read_image(folder / f"{person}_{kind}.nii.gz") for kind in ("image", "label"))
    return _coarsen(image), _coarsen(Image(labels.data.round().int(), labels.grid))


def _spoil_people(data: Path, which: str, template: str, person: str) -> list[Pair]:
    fixed, moving = (_read_person(data, name) for name in (template, person))
    labels = fixed[1], moving[1]
    pair = Pair(f"brain to {template}", f"brain {person} to {template}", fixed[0], moving[0], labels)
    return spoil(pair, organ=_read_other(data, which))


@cache
def _read_other(data: Path, which: str) -> Image:
    """Read an organ that is no brain."""
    return _coarsen(read_image(data / FOLDERS[which][0] / "moving.nii.gz"))


def _read_folders(data: Path, name: str, which: str) -> list[Pair]:
    """Read one of the pairs, with the settings and the spoiled pairs that suit it."""
    folder = data / name
    fixed, moving = (read_image(folder / f"{side}.nii.gz") for side in ("fixed", "moving"))
    labels = points = None
    if (folder / "fixed_label.nii.gz").is_file():
        maps = [read_image(folder / f"{side}_label.nii.gz") for side in ("fixed", "moving")]
        chosen = torch.tensor(np.loadtxt(folder / "eval_labels.txt", dtype=int))
        kept = [Image(torch.where(torch.isin(m.data, chosen), m.data, 0).int(), m.grid) for m in maps]
        labels = _coarsen(kept[0]), _coarsen(kept[1])
    else:
        first, second = (
            read_landmarks_mm(folder / f"{side}_landmarks.csv", image.grid)
            for side, image in (("fixed", fixed), ("moving", moving))
        )
        points = first, second
    images = [_coarsen(Image(image.data.float().clamp_min(-1000), image.grid)) for image in (fixed, moving)]
    if name in CONTRASTS[which]:
        one = Pair("brain, two contrasts", name, images[0], images[1], labels, points)
        mixed = replace(one, spoiling="other contrast", config=BY_INTENSITIES)
        return [*spoil(one), mixed]
    person = next(people[0] for (part, _), people in PEOPLE.items() if part == which)
    organ = _read_person(data, person)[0] if labels is None else _read_other(data, which)
    return spoil(Pair(name, name, images[0], images[1], labels, points), organ=organ)
