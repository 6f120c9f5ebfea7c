"""Squared feature difference under a displacement, its gradient and, on request, its curvature."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._backend import implementation
from convexadam.kernels.diffusion import diffusion_gradient
from convexadam.kernels.warp_ssd.reference import ssd

__all__ = ["Comparison", "as_compared", "compared", "diffusion_gradient", "evidence_under", "ssd", "warp_ssd"]


@runtime_checkable
class Comparison(Protocol):
    """Two feature maps, ready to be compared many times."""

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return `ssd`, and its gradient plus ``diffusion`` times `diffusion_gradient`, ``[3, i, j, k]``.

        The gradient is written to ``out`` where that is given.
        """
        ...

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """Return the gradient alone, which is quicker."""
        ...

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """Return the value, and the gradient with a fourth channel: ``2/(3N) w(x) sum_c |dM_c|^2`` of each node.

        ``dM_c`` is the derivative of ``M_c(x + u(x))`` with respect to ``u(x)``, and the weight is held constant: it is
        a third of the trace of the node's Gauss-Newton block, the second derivative of `ssd` without that of the
        features. A component that is clamped to the volume moves nothing, and counts 0. With an ``outlier``, each node
        has the weight of its gradient. The roughness has no part in it: its second derivative is the constant operator
        of `diffusion_gradient`. Value and gradient are those of a call. All is written to ``out`` where that is given.
        """
        ...


def compared(
    fixed: Channels,
    moving: Channels,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    outlier: float | None = None,
) -> Comparison:
    """Prepare two feature maps for `Comparison`: what does not depend on the displacement is done once.

    Parameters
    ----------
    fixed, moving
        Features ``[c, i, j, k]`` of one shape. They are not copied if memory has the channels last.
    fixed_weight, moving_weight
        Evidence of each node, ``[i, j, k]``, not negative; 1 where ``None``. See `ssd`.
    outlier
        Squared difference at which a node counts half as much as it would without outliers, more than 0; ``None`` for
        all alike. See `ssd`.
    """
    prepared: Comparison = implementation(__name__, fixed, moving, fixed_weight, moving_weight).WarpSsd(
        fixed, moving, fixed_weight=fixed_weight, moving_weight=moving_weight, outlier=outlier
    )
    return prepared


def as_compared(features: Channels) -> Channels:
    """Return features ``[c, i, j, k]`` in memory that `compared` takes without a copy; on a GPU it makes its own."""
    if features.device.type != "cpu":
        return features
    return features.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def evidence_under(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """Weight of each node under a displacement: ``fixed_weight(x) moving_weight(x + u(x))``, 0 outside; no gradient.

    A moving feature is a mixture of eight nodes: where one of those that count has no weight, neither has the mixture.
    """
    module = implementation(__name__, displacement.detach(), fixed_weight, moving_weight)
    weight: Volume = module.evidence_under(displacement.detach(), fixed_weight, moving_weight)
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
    """Compare once: `compared` features under one displacement ``[3, i, j, k]``, in nodes."""
    comparison = compared(fixed.detach(), moving.detach(), fixed_weight=fixed_weight, moving_weight=moving_weight)
    return comparison(displacement.detach(), diffusion=diffusion)
