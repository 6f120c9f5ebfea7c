"""The seams of the continuous stage: what a similarity, a regulariser, an optimiser or a parametrisation has to offer.

Any object with these members works in a `Refinement`, from whatever package it comes; nothing is registered. Settings
files can name it where it is a dataclass (see ``docs/extending.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias, runtime_checkable

from convexadam._typing import Channels, Field, Float, Guide, Shaped, Tensor, Volume
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.smoothing import Smoothing, TotalSmoothing
from convexadam.kernels.warp_ssd import FeatureRows

__all__ = [
    "ChannelsLast",
    "Compared",
    "CopiesFeatures",
    "DisplacementState",
    "HasCurvature",
    "HasMemory",
    "HasTotalSmoothing",
    "MaskedRegulariser",
    "Objective",
    "Optimiser",
    "PacksFeatures",
    "Parametrisation",
    "Regulariser",
    "Similarity",
    "SimilarityTerm",
    "UpdateRule",
    "Weights",
]

Compared: TypeAlias = tuple[Float[Tensor, "p i j k"] | FeatureRows, Float[Tensor, "p i j k"] | FeatureRows]
"""Maps that a similarity makes from the features of both images; see `PacksFeatures`."""

Weights: TypeAlias = tuple[Volume | None, Volume | None]
"""Evidence of each control point in the fixed and in the moving image; ``None`` for 1 everywhere."""


@runtime_checkable
class SimilarityTerm(Protocol):
    """The similarity of two prepared feature maps as a function of the displacement; lower is more alike.

    Methods that take a further keyword ``diffusion`` add that multiple of the gradient of
    `convexadam.kernels.diffusion` themselves, as the kernels of the library do; it is passed to no others.
    """

    def __call__(self, displacement: Field, *, out: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
        """Return the value for a displacement ``[3, i, j, k]`` in control points, and its gradient, in ``out``."""
        ...

    def gradient(self, displacement: Field, *, out: Field | None = None) -> Field:
        """Return the gradient alone, in ``out``."""
        ...

    def curvature(
        self, displacement: Field, *, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """Return the value, and in ``out`` the gradient with the mean curvature of each control point as channel 3.

        The mean curvature is a third of the trace of the Gauss-Newton block of a control point.
        """
        ...


@runtime_checkable
class Similarity(Protocol):
    """How features of the fixed image and of the warped moving image are compared; lower is more alike."""

    def prepare(self, fixed: Channels, moving: Channels, start: Field, weights: Weights) -> SimilarityTerm:
        """Return the similarity of two feature maps as a function of the displacement.

        Parameters
        ----------
        fixed, moving
            ``[c, i, j, k]`` on the control points of one level.
        start
            The displacement that the level begins with, ``[3, i, j, k]`` in control points.
        weights
            Evidence of both images, ``[i, j, k]``.
        """
        ...


@runtime_checkable
class Regulariser(Protocol):
    """A cost of the displacement alone."""

    def __call__(
        self, displacement: Field, *, add_to: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost of a displacement ``[3, i, j, k]`` in control points, and its gradient.

        Parameters
        ----------
        displacement
            ``[3, i, j, k]`` in control points.
        add_to
            Add the gradient to this, in place, and return it; ``None`` takes new memory.
        soft_mask
            Where volume is to be preserved, ``[i, j, k]`` in [0, 1]; most regularisers ignore it.
        """
        ...


@runtime_checkable
class MaskedRegulariser(Regulariser, Protocol):
    """A regulariser that acts within a soft mask."""

    @property
    def region(self) -> str:
        """``"everywhere"`` without a mask; ``"auto"`` estimates one by a first refinement without this regulariser."""
        ...


@runtime_checkable
class ChannelsLast(Protocol):
    """A similarity that copies feature maps unless they come from `convexadam.kernels.warp_ssd.pack_features`."""

    @property
    def channels_last(self) -> bool:
        """Whether ``prepare`` takes what that returns: channels last in memory, or `FeatureRows` on GPUs."""
        ...


def prefers_channels_last(similarity: Similarity) -> bool:
    """Whether a similarity copies feature maps unless they are packed for it."""
    return isinstance(similarity, ChannelsLast) and similarity.channels_last


@runtime_checkable
class PacksFeatures(Protocol):
    """A similarity that compares maps made from the features, in place of which they are kept."""

    def pack(self, maps: list[Channels], start: Field, weights: Weights) -> tuple[Similarity, Compared]:
        """Return what is compared instead of the features of both images, and how.

        Parameters
        ----------
        maps
            Features of the fixed and of the moving image, ``[c, i, j, k]``; the list is emptied, so that they need not
            be in memory together with all that is made from them.
        start, weights
            As of `Similarity.prepare`.
        """
        ...


@runtime_checkable
class CopiesFeatures(Protocol):
    """A similarity that says how many feature channels it copies, for `convexadam.estimate_memory`."""

    def count_copied_channels(self, channels: int, *, channels_last: bool) -> int:
        """Return how many of the channels of each image it copies, given the memory layout of the features."""
        ...


@runtime_checkable
class HasMemory(Protocol):
    """A parametrisation that says what it takes, for `convexadam.estimate_memory`."""

    @property
    def memory_fields(self) -> int:
        """Number of displacement fields in memory during the minimisation, those of the optimiser included."""
        ...


@runtime_checkable
class HasCurvature(Protocol):
    """A regulariser with a second derivative that second-order optimisers should know."""

    def curvature(self, displacement: Field, *, add_to: Volume, soft_mask: Volume | None = None) -> Volume:
        """Add the mean curvature of each control point in place: a third of its block's trace, summed over rows."""
        ...


@runtime_checkable
class UpdateRule(Protocol):
    """A first-order method with a memory of gradients."""

    def update(self, variable: Field, gradient: Field, *, accumulate: bool = True) -> None:
        """Move ``variable``, in place, by one step against the gradient; or replace it by the step alone."""
        ...


@runtime_checkable
class DisplacementState(Protocol):
    """A displacement during the minimisation, from the start to the result."""

    @property
    def displacement(self) -> Field:
        """The current displacement ``[3, i, j, k]`` in control points; the next step overwrites it."""
        ...

    @property
    def longest(self) -> float:
        """Longest step of a control point, in control points."""
        ...

    def move(self, gradient: Field, rule: UpdateRule) -> None:
        """Take one step against the gradient with respect to the displacement, smoothed."""
        ...

    def propose(self, step: Field) -> Field:
        """Return the displacement after a smooth step, whose memory it may take; `accept` makes it the current one."""
        ...

    def accept(self, condition: Shaped[Tensor, ""] | None = None) -> None:
        """Take the step proposed last, if ``condition`` holds; without one, in any case."""
        ...


@runtime_checkable
class Parametrisation(Protocol):
    """How the steps of an optimiser become a displacement."""

    @property
    def fold_free(self) -> bool:
        """Whether `register` repairs what folds in the end."""
        ...

    def initialise(
        self, start: Field, smoothing: Smoothing | None, weight: Volume | None, guide: Guide | None = None
    ) -> DisplacementState:
        """Begin with a displacement.

        Parameters
        ----------
        start
            ``[3, i, j, k]`` in control points.
        smoothing
            Of each update (or of the whole field, where updates are added up).
        weight
            Of each control point, ``[i, j, k]``; ``None`` for 1 everywhere.
        guide
            What a smoothing that is not the same everywhere depends on, ``[c, i, j, k]``: for `BilateralSmoothing` what
            it finds edges in, for `AdaptiveSmoothing` the curvature of the similarity.
        """
        ...


@runtime_checkable
class HasTotalSmoothing(Parametrisation, Protocol):
    """A parametrisation that smooths the whole field after each step, which a level may set for itself."""

    @property
    def total_smoothing(self) -> TotalSmoothing | None:
        """The smoothing of the whole field; ``None`` for none."""
        ...

    def with_total_smoothing(self, smoothing: TotalSmoothing) -> Parametrisation:
        """Return the same with another one."""
        ...


@runtime_checkable
class Objective(Protocol):
    """What an optimiser minimises: similarity plus regularisers, as functions of the displacement."""

    @property
    def compared(self) -> tuple[Tensor, Tensor, Volume | None, Volume | None]:
        """Both feature maps, or tensors of their device and type, and both weights."""
        ...

    @property
    def is_recordable(self) -> bool:
        """Whether its steps may be recorded as a CUDA graph: it keeps no state on the host."""
        ...

    def __call__(self, displacement: Field, *, out: Field) -> tuple[Float[Tensor, ""], Field]:
        """Return the value, and the gradient in ``out``."""
        ...

    def gradient(self, displacement: Field, *, out: Field) -> Field:
        """Return the gradient, in ``out``."""
        ...

    def curvature(
        self, displacement: Field, *, out: Float[Tensor, "4 i j k"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"], Float[Tensor, ""]]:
        """Return the value; in ``out`` gradient and mean curvature of each control point; the scale of the latter."""
        ...

    def least_gradient(self, displacement: Field) -> float | Float[Tensor, ""]:
        """Return the gradient below which there is only noise; on a GPU a tensor, so that nothing waits for it."""
        ...


@runtime_checkable
class Optimiser(Protocol):
    """A method of minimisation."""

    def minimise(
        self,
        objective: Objective,
        state: DisplacementState,
        convergence: Convergence,
        smoothing: Smoothing | None,
    ) -> Iterator[int]:
        """Move the state, and yield the number of each iteration after it.

        Parameters
        ----------
        objective
            What to minimise.
        state
            The displacement; left at the result.
        convergence
            Iterate over it: each of its numbers is one step, accepted or rejected.
        smoothing
            Of each step; ``None`` takes each control point by itself.
        """
        ...
