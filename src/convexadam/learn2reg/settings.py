"""Presets for the tasks of Learn2Reg: published settings if they are known, otherwise a published rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam.continuous import BoxSmoothing, Diffusion, Level, Refinement
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError, did_you_mean
from convexadam.features import Extractor, LabelFeatures, MindSSC, uses_labels
from convexadam.linear import LinearAlignment
from convexadam.registration import NativeGrid, RegistrationConfig

_IN_2021 = "the ConvexAdam container of this task, Learn2Reg 2021"
_BY_SIZE = (
    "no published settings for this task; the rule by image size of the Learn2Reg 2022 container (l2r3.py: spacing 6 "
    "and radius 6 or 4 for more than a million voxels, else 4 and 4 or 2; weights 0.75 to 1.25, 40 to 80 iterations, "
    "final box filter none, 3 or 5), with the larger radius and the middle of the other choices"
)
_NETWORK = "label maps of a trained network (nnU-Net) on tasks with labels"
_ALL_DEVIATE = "see docs/parity.md for deviations of all presets (borders, coordinates, the last iteration)"


@final
@dataclass(frozen=True, kw_only=True)
class TaskPreset:
    """Settings for one task.

    The data of the challenge were not available: no preset was run on them, and no score is claimed.

    Attributes
    ----------
    task
        Name of the task.
    config
        The settings.
    source
        Source of the settings.
    deviations
        Deviations from the source.
    required_inputs
        Inputs required besides the images.

    Examples
    --------
    >>> from convexadam.learn2reg import task_preset
    >>> chosen = task_preset("OASIS")
    >>> chosen.uses_labels, chosen.config.discrete.radius
    (True, 3)
    """

    task: str
    config: RegistrationConfig
    source: str
    deviations: str
    required_inputs: str = "none"

    @property
    def uses_labels(self) -> bool:
        """Whether label maps of both images are required."""
        return uses_labels(self.config.features)


@check_arguments
def task_preset(name: str) -> TaskPreset:
    """Return the settings for a task by its name, one of `TASK_PRESETS`.

    Raises
    ------
    ConfigError
        If there are none for the task.

    Examples
    --------
    >>> task_preset("LungCT").config.discrete.radius
    6
    """
    if name in _FACTORIES:
        return _FACTORIES[name]()
    raise ConfigError(
        f"task must be one of {', '.join(TASK_PRESETS)}, got {show(name)}{did_you_mean(name, TASK_PRESETS)}"
    )


def _make_config(search: ConvexSearch, refinement: Refinement, features: Extractor | None = None) -> RegistrationConfig:
    """Return settings on the grid of the fixed image, without linear alignment; features default to those published."""
    return RegistrationConfig(
        grid=NativeGrid(),
        linear=None,
        features=MindSSC(radius=1, dilation=2) if features is None else features,
        discrete=search,
        continuous=refinement,
    )


def _make_refinement(
    *, spacing: int, iterations: int, weight: float, boxes: int = 3, final: BoxSmoothing | None = None
) -> Refinement:
    """Return a refinement with one level of Adam, as published."""
    return Refinement(
        levels=(Level(spacing=spacing, iterations=iterations),),
        regularisers=(Diffusion(weight=weight),),
        update_smoothing=BoxSmoothing(passes=boxes),
        final_smoothing=final,
    )


def _make_config_by_size(spacing: int, radius: int) -> RegistrationConfig:
    return _make_config(
        ConvexSearch(spacing=spacing, radius=radius, parabolic_fit=False),
        _make_refinement(spacing=2, iterations=60, weight=1.0, final=BoxSmoothing()),
    )


def _curious() -> TaskPreset:
    return TaskPreset(
        task="CuRIOUS",
        config=RegistrationConfig(
            grid=NativeGrid(),
            linear=LinearAlignment(model="rigid", init="header", voxels_per_level=(700_000,), min_improvement=0.0),
            features=MindSSC(radius=3, dilation=3),
            discrete=None,
            continuous=None,
        ),
        source=f"{_IN_2021}: a least-trimmed-squares rigid fit to the displacements of a search with spacing 6, radius "
        "6 and MIND of radius 3 and dilation 3; no refinement",
        deviations="LinearAlignment searches and fits in three iterations on 700,000 voxels, a third of the resolution "
        "of the images, so that its spacing of 2, its radius of 6 and MIND of radius and dilation 1 are as long as the "
        "published ones; it uses half of the control points; one moving image, where the source compared both MR "
        "contrasts",
        required_inputs="none; to use both contrasts of the moving image as channels, give the fixed image twice as "
        "well (as_image with channels)",
    )


def _hippocampus() -> TaskPreset:
    return TaskPreset(
        task="Hippocampus",
        config=_make_config_by_size(spacing=4, radius=4),
        source=_BY_SIZE,
        deviations=f"MIND alone, whereas the published search also included {_NETWORK}; {_ALL_DEVIATE}",
    )


def _lung_ct() -> TaskPreset:
    return TaskPreset(
        task="LungCT",
        config=_make_config(
            ConvexSearch(spacing=4, radius=6, parabolic_fit=False, inverse_consistency=0),
            _make_refinement(spacing=2, iterations=50, weight=0.65, final=BoxSmoothing()),
        ),
        source=_IN_2021,
        deviations=f"the 3x3 box filter after the refinement is interpreted as three boxes of width 3; {_ALL_DEVIATE}",
    )


def _abdomen_ct_ct() -> TaskPreset:
    return TaskPreset(
        task="AbdomenCTCT",
        config=_make_config_by_size(spacing=6, radius=6),
        source=_BY_SIZE,
        deviations=f"MIND alone, whereas the published search also included {_NETWORK}; {_ALL_DEVIATE}",
    )


def _abdomen_mr_ct() -> TaskPreset:
    return TaskPreset(
        task="AbdomenMRCT",
        config=_make_config(
            ConvexSearch(spacing=4, radius=8, parabolic_fit=False),
            _make_refinement(spacing=3, iterations=40, weight=0.6),
        ),
        source=_IN_2021,
        deviations=f"no masks by default; {_ALL_DEVIATE}",
    )


def _oasis() -> TaskPreset:
    return TaskPreset(
        task="OASIS",
        config=_make_config(
            ConvexSearch(spacing=2, radius=3, parabolic_fit=False, inverse_consistency=0),
            _make_refinement(spacing=2, iterations=100, weight=1.25, boxes=2),
            LabelFeatures(scale=10.0, class_balance=0.3, include_background=True),
        ),
        source=f"{_IN_2021}: one-hot label maps times 10, weighted by the frequency of a label to the power of -0.3",
        deviations="the search compares squared instead of absolute differences, with two mean filters instead of one; "
        f"{_ALL_DEVIATE}",
        required_inputs="label maps of both images, predicted by a network (published: nnU-Net): --segmentation-dir",
    )


def _nlst() -> TaskPreset:
    return TaskPreset(
        task="NLST",
        config=_make_config_by_size(spacing=6, radius=6),
        source=_BY_SIZE,
        deviations=_ALL_DEVIATE,
    )


_FACTORIES: dict[str, Callable[[], TaskPreset]] = {
    "CuRIOUS": _curious,
    "Hippocampus": _hippocampus,
    "LungCT": _lung_ct,
    "AbdomenCTCT": _abdomen_ct_ct,
    "AbdomenMRCT": _abdomen_mr_ct,
    "OASIS": _oasis,
    "NLST": _nlst,
}

TASK_PRESETS = tuple(_FACTORIES)
"""Names of the tasks with a preset."""
