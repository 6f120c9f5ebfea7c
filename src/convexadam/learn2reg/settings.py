"""Settings for the tasks of Learn2Reg: the published ones as far as they are known, and what takes their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from convexadam.continuous import BoxSmoothing, Diffusion, Level, Refinement
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError, did_you_mean
from convexadam.features import Extractor, LabelFeatures, MindSSC, uses_labels
from convexadam.linear import LinearAlignment
from convexadam.registration import GivenGrid, RegistrationConfig

_IN_2021 = "the ConvexAdam container of this task, Learn2Reg 2021"
_BY_SIZE = (
    "nothing was found for this task; the rule by size of the Learn2Reg 2022 container (l2r3.py: cells of 6 voxels and "
    "reach 6 or 4 for more than a million voxels, else 4 and 4 or 2; weights 0.75 to 1.25, 40 to 80 steps, final boxes "
    "of none, 3 or 5), of its choices the longer reach and the middle of the others"
)
_NETWORK = "label maps of a trained network (nnU-Net) on tasks with labels"
_ALL_DEVIATE = "see docs/parity.md for what differs everywhere (borders, coordinates, the last step)"


@final
@dataclass(frozen=True, kw_only=True)
class TaskPreset:
    """Settings for one task. The data of the challenge could not be had, so that none was run and no score is claimed.

    Attributes
    ----------
    task
        Its name.
    config
        The settings.
    source
        Where they come from.
    deviates
        What is different from there.
    needs
        What has to come beside the images.
    could_be_run
        Whether the settings were run on the data of the task.
    """

    task: str
    config: RegistrationConfig
    source: str
    deviates: str
    needs: str = "nothing but the images"
    could_be_run: bool = False

    @property
    def uses_labels(self) -> bool:
        """Whether label maps of both images have to come beside them."""
        return uses_labels(self.config.features)


def task_preset(name: str) -> TaskPreset:
    """Return the settings for a task, by its name: one of `TASK_PRESETS`.

    Raises
    ------
    ConfigError
        If there are none for it.

    Examples
    --------
    >>> task_preset("LungCT").config.discrete.radius
    6
    """
    if name in _MADE:
        return _MADE[name]()
    raise ConfigError(
        f"there are no settings for a task {name!r}{did_you_mean(name, TASK_PRESETS)}; known: {', '.join(TASK_PRESETS)}"
    )


def _published(search: ConvexSearch, refinement: Refinement, features: Extractor | None = None) -> RegistrationConfig:
    """Search and refinement of what the published method compares, on the image's own voxels and where they lie."""
    return RegistrationConfig(
        grid=GivenGrid(),
        linear=None,
        features=MindSSC(radius=1, dilation=2) if features is None else features,
        discrete=search,
        continuous=refinement,
    )


def _refined(
    *, spacing: int, iterations: int, weight: float, boxes: int = 3, final: BoxSmoothing | None = None
) -> Refinement:
    """One level of Adam, as published."""
    return Refinement(
        levels=(Level(spacing=spacing, iterations=iterations),),
        regularisers=(Diffusion(weight=weight),),
        smoothing=BoxSmoothing(passes=boxes),
        final_smoothing=final,
    )


def _by_size(spacing: int, radius: int) -> RegistrationConfig:
    return _published(
        ConvexSearch(spacing=spacing, radius=radius, subcell=False),
        _refined(spacing=2, iterations=60, weight=1.0, final=BoxSmoothing()),
    )


def _curious() -> TaskPreset:
    return TaskPreset(
        task="CuRIOUS",
        config=RegistrationConfig(
            grid=GivenGrid(),
            linear=LinearAlignment(model="rigid", start="header", voxels=(700_000,), gain=0.0),
            features=MindSSC(radius=3, dilation=3),
            discrete=None,
            continuous=None,
        ),
        source=f"{_IN_2021}: a least-trimmed rigid fit to the displacements of a search with cells of 6 voxels, reach "
        "6 and MIND of radius 3 and dilation 3; no refinement",
        deviates="LinearAlignment searches and fits in three rounds, on 700,000 voxels: a third as fine as the images, "
        "so that its cells of 2 and its reach of 6 cells are as long as the published ones, and MIND of radius and "
        "dilation 1 looks as far; it keeps half of the cells; one moving image, where both MR contrasts were compared",
        needs="nothing but the images; with both contrasts of the moving one as channels, the fixed image has to come "
        "twice as well (as_image with channels)",
    )


def _hippocampus() -> TaskPreset:
    return TaskPreset(
        task="Hippocampus",
        config=_by_size(spacing=4, radius=4),
        source=_BY_SIZE,
        deviates=f"MIND alone, where the published search also tried {_NETWORK}; {_ALL_DEVIATE}",
    )


def _lung_ct() -> TaskPreset:
    return TaskPreset(
        task="LungCT",
        config=_published(
            ConvexSearch(spacing=4, radius=6, subcell=False, inverse_consistency=0),
            _refined(spacing=2, iterations=50, weight=0.65, final=BoxSmoothing()),
        ),
        source=_IN_2021,
        deviates=f"the 3x3-box after the refinement is taken as three boxes of width 3; {_ALL_DEVIATE}",
    )


def _abdomen_ct_ct() -> TaskPreset:
    return TaskPreset(
        task="AbdomenCTCT",
        config=_by_size(spacing=6, radius=6),
        source=_BY_SIZE,
        deviates=f"MIND alone, where the published search also tried {_NETWORK}; {_ALL_DEVIATE}",
    )


def _abdomen_mr_ct() -> TaskPreset:
    return TaskPreset(
        task="AbdomenMRCT",
        config=_published(
            ConvexSearch(spacing=4, radius=8, subcell=False),
            _refined(spacing=3, iterations=40, weight=0.6),
        ),
        source=_IN_2021,
        deviates=f"no masks, unless they are asked for; {_ALL_DEVIATE}",
    )


def _oasis() -> TaskPreset:
    return TaskPreset(
        task="OASIS",
        config=_published(
            ConvexSearch(spacing=2, radius=3, subcell=False, inverse_consistency=0),
            _refined(spacing=2, iterations=100, weight=1.25, boxes=2),
            LabelFeatures(scale=10.0, balance=0.3, background=True),
        ),
        source=f"{_IN_2021}: one-hot label maps times 10, weighted by frequency to the power of -0.3",
        deviates="the search compares squared instead of absolute differences, under two mean filters instead of one; "
        f"{_ALL_DEVIATE}",
        needs="label maps of both images, predicted by a network (published: nnU-Net): --labels-dir",
    )


def _nlst() -> TaskPreset:
    return TaskPreset(
        task="NLST",
        config=_by_size(spacing=6, radius=6),
        source=_BY_SIZE,
        deviates=_ALL_DEVIATE,
    )


_MADE: dict[str, Callable[[], TaskPreset]] = {
    "CuRIOUS": _curious,
    "Hippocampus": _hippocampus,
    "LungCT": _lung_ct,
    "AbdomenCTCT": _abdomen_ct_ct,
    "AbdomenMRCT": _abdomen_mr_ct,
    "OASIS": _oasis,
    "NLST": _nlst,
}

TASK_PRESETS = tuple(_MADE)
"""Names that `task_preset` knows."""
