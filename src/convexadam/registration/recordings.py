"""Features, search and refinement of one pair after another as one recording on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import final

from convexadam._typing import Tensor
from convexadam.continuous import WeightedSum
from convexadam.geometry import Grid, Image
from convexadam.kernels.feature_level import ForwardBackward
from convexadam.kernels.recording import Recording, recordable, try_to_record
from convexadam.registration.checks import Checks
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.pair import WorkingPair


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DeformableResult:
    """What the deformable stages find.

    Attributes
    ----------
    grid
        The working grid.
    fields
        Displacements on the control points of the last level.
    similarity
        Diagnostics, which the device may still compute.
    checks
        Of the features, as far as they wait.
    """

    grid: Grid
    fields: ForwardBackward
    similarity: Mapping[str, Tensor]
    checks: Checks


@final
class Recordings:
    """The last recording of pairs of one shape, for settings that are always the same.

    The first pair of a shape compiles kernels and sends constants; the second one is recorded, and its recording is
    replayed for all that follow, with their images copied to the memory of the second.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._static: WorkingPair | None = None
        self._recording: Recording[DeformableResult] | None = None

    def compare(self, pair: WorkingPair, compare: Callable[[WorkingPair], DeformableResult]) -> DeformableResult:
        """Return what ``compare`` returns for a pair; what is recorded is valid until the next call."""
        key = _describe(pair)
        if key is None or key != self._key:
            self._key, self._static, self._recording = key, None, None
            return compare(pair)
        if self._static is None:
            self._static = static = _copy(pair)
            self._recording = try_to_record(
                lambda: compare(static), pair.images[0].data.device, "features, search and refinement of pairs"
            )
        elif self._recording is not None:
            for to, value in zip(_tensors(self._static), _tensors(pair), strict=True):
                to.copy_(value)
        return compare(pair) if self._recording is None else self._recording.replay()


def is_recordable(config: RegistrationConfig) -> bool:
    """Whether the host decides nothing between resampling and the result, and all components are the library's."""
    refine = config.continuous
    if refine is not None and isinstance(refine.similarity, WeightedSum):  # which asks for the range of each term
        return False
    parts: list[object] = [*config.extractors, *config.searches]
    if refine is not None:
        if refine.tolerance or refine.different_contrasts is not None or refine.estimates_volume_mask:
            return False
        parts += [refine, refine.similarity, refine.optimiser, refine.parametrisation, *refine.regularisers]
    return not config.is_linear and all(type(part).__module__.startswith("convexadam.") for part in parts)


def _describe(pair: WorkingPair) -> Hashable:
    """Return on what a recording depends besides values, or ``None`` for pairs that are not recorded."""
    others = (*pair.segmentations, pair.landmarks, pair.sliding_regions, pair.volume_preserving_mask)
    if any(other is not None for other in others) or not is_recordable(pair.config):
        return None
    if not recordable(*_tensors(pair)):
        return None
    grid = pair.grid
    absent = tuple(weight is None for weight in pair.weights)
    return grid.shape, grid.spacing_mm, str(grid.canonical_axes()), tuple(len(i.data) for i in pair.images), absent


def _copy(pair: WorkingPair) -> WorkingPair:
    fixed, moving = (Image(image.data.clone(), image.grid) for image in pair.images)
    fixed_weight, moving_weight = (None if weight is None else weight.clone() for weight in pair.weights)
    checks = Checks(recording=True)
    weights = fixed_weight, moving_weight
    return replace(pair, images=(fixed, moving), weights=weights, memo=None, checks=checks, extracted={})


def _tensors(pair: WorkingPair) -> list[Tensor]:
    return [*(image.data for image in pair.images), *(weight for weight in pair.weights if weight is not None)]
