"""Sum of squared feature differences under a displacement, its gradient and its curvature."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._backend import backend_for, get_implementation
from convexadam.kernels.diffusion import diffusion_gradient
from convexadam.kernels.warp_ssd.feature_rows import FeatureMap, FeatureRows, tensor_of, unpack
from convexadam.kernels.warp_ssd.reference import ssd

__all__ = [
    "FeatureMap",
    "FeatureRows",
    "SimilarityTerm",
    "diffusion_gradient",
    "overlap_weight",
    "pack_features",
    "prepare_ssd",
    "ssd",
    "tensor_of",
    "to_channels_last",
    "unpack",
    "warp_ssd",
]


@runtime_checkable
class SimilarityTerm(Protocol):
    """Dissimilarity of two prepared feature maps as a function of a displacement ``[3, i, j, k]``, in grid units."""

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Compute the value, and its gradient plus ``diffusion`` times `diffusion_gradient`, ``[3, i, j, k]``.

        The gradient is written to ``out`` if given.
        """
        ...

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """Compute the gradient only, which is faster."""
        ...

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """Compute the value, and the gradient with a curvature at each point as fourth channel.

        For `ssd` the curvature is ``2/(3N) w(x) sum_c |dM_c|^2``, a third of the trace of the Gauss-Newton block of the
        point, with ``dM_c`` the derivative of ``M_c(x + u(x))`` by ``u(x)``, 0 along axes where the position is clamped
        to the volume, and a constant weight. With an ``outlier`` it has the weight of the gradient. The diffusion
        energy is not included, because its second derivative is the constant operator of `diffusion_gradient`. Value
        and gradient are those of a call. The result is written to ``out`` if given.
        """
        ...


class SquaredDifferences(SimilarityTerm, Protocol):
    """Squared differences, with or without a robust weight."""

    def value(self, displacement: Field) -> Float[Tensor, ""]:
        """Compute the value only, which is faster on the CPU."""
        ...

    def with_outlier(self, outlier: float | Float[Tensor, ""]) -> SquaredDifferences:
        """Return the same with another ``outlier``; the prepared features are shared. A tensor of 0 is as ``None``."""
        ...


def prepare_ssd(
    fixed: FeatureMap,
    moving: FeatureMap,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    outlier: float | Float[Tensor, ""] | None = None,
) -> SquaredDifferences:
    """Prepare two feature maps for `ssd`, with all computations that do not depend on the displacement.

    Parameters
    ----------
    fixed, moving
        Features ``[c, i, j, k]`` of one shape, which are not copied if they come from `pack_features`, both at once.
    fixed_weight, moving_weight
        Weight of each point, ``[i, j, k]``, not negative; ``None`` for 1. See `ssd`.
    outlier
        Squared difference at which the robust loss is half the squared difference, above 0; ``None`` for the plain
        squared difference. A tensor is read on its device. See `ssd`.
    """
    module = get_implementation(__name__, tensor_of(fixed), tensor_of(moving), fixed_weight, moving_weight)
    if module.__name__ == f"{__name__}.reference":
        fixed, moving = unpack(fixed), unpack(moving)
    term: SquaredDifferences = module.WarpSsd(
        fixed, moving, fixed_weight=fixed_weight, moving_weight=moving_weight, outlier=outlier
    )
    return term


def pack_features(maps: list[Channels]) -> tuple[FeatureMap, FeatureMap]:
    """Return two feature maps ``[c, i, j, k]`` in the form in which `prepare_ssd` does not copy them.

    That is `to_channels_last` on the CPU, and `FeatureRows` for the kernel of a GPU. The list is emptied, so that only
    one of the maps is in memory twice.
    """
    if backend_for(*maps) == "triton" and maps[0].is_cuda:
        from convexadam.kernels.warp_ssd.triton import pack_rows  # which imports triton

        return pack_rows(maps)
    fixed = to_channels_last(maps.pop(0))
    return fixed, to_channels_last(maps.pop())


def to_channels_last(features: Channels) -> Channels:
    """Return features ``[c, i, j, k]`` with channels last in memory, unless they are on a GPU."""
    if features.device.type != "cpu":
        return features
    return features.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def overlap_weight(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """Compute ``fixed_weight(x) moving_weight(x + u(x))`` for each point, 0 outside the field of view; no gradient.

    It is 0 as well if one of the eight points between which moving features are interpolated has zero weight.
    """
    module = get_implementation(__name__, displacement.detach(), fixed_weight, moving_weight)
    weight: Volume = module.overlap_weight(displacement.detach(), fixed_weight, moving_weight)
    return weight


def warp_ssd(
    fixed: Channels,
    moving: Channels,
    displacement: Field,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    diffusion: float = 0.0,
) -> tuple[Float[Tensor, ""], Field]:
    """Compute `ssd` and its gradient for one displacement ``[3, i, j, k]``, in grid units; see `SimilarityTerm`."""
    term = prepare_ssd(fixed.detach(), moving.detach(), fixed_weight=fixed_weight, moving_weight=moving_weight)
    return term(displacement.detach(), diffusion=diffusion)
