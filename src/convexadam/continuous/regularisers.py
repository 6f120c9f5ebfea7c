"""Regularisers as values: costs of the displacement alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from convexadam._arguments import check_arguments
from convexadam._checks import check_choice, check_number
from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels.bending import bending
from convexadam.kernels.diffusion import diffusion
from convexadam.kernels.volume_change import volume_change


@final
@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """Squared first differences: ``weight / 3 sum_a mean_x |d_a u|^2``, with ``u`` in control points.

    Attributes
    ----------
    weight
        Factor of the cost.

    Raises
    ------
    ConfigError
        If the weight is not a finite number of at least 0.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import Diffusion
    >>> ramp = torch.zeros(3, 8, 8, 8)
    >>> ramp[0] = torch.arange(8.0)[:, None, None]
    >>> value, gradient = Diffusion(weight=3.0)(ramp)
    >>> value.item() > 0, Diffusion()(torch.ones(3, 8, 8, 8))[0].item()  # a translation is smooth
    (True, 0.0)
    """

    weight: float = 0.2

    def __post_init__(self) -> None:
        check_number(self.weight, "weight")

    @check_arguments
    def __call__(
        self, displacement: Field, *, add_to: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost and its gradient; see `convexadam.continuous.Regulariser`. It ignores the soft mask."""
        return diffusion(displacement, weight=self.weight, add_to=add_to)


@final
@dataclass(frozen=True, kw_only=True)
class Bending:
    """Squared second differences: ``weight / 3 mean_x sum_ab |d_a d_b u|^2``, with ``u`` in control points.

    Affine displacements have no cost. A wave of ``2 pi / k`` control points costs as much as with a `Diffusion` of
    ``k^2 weight``: the default equals that of `Diffusion` for waves of 14 control points, and is softer for longer and
    stiffer for shorter ones.

    Attributes
    ----------
    weight
        Factor of the cost.

    Raises
    ------
    ConfigError
        If the weight is not a finite number of at least 0.

    Notes
    -----
    Rueckert et al., "Nonrigid registration using free-form deformations: application to breast MR images", IEEE TMI
    1999.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import Bending
    >>> ramp = torch.zeros(3, 8, 8, 8)
    >>> ramp[0] = torch.arange(8.0)[:, None, None]  # an affine field does not bend
    >>> Bending(weight=1.0)(ramp)[0].item()
    0.0
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.weight, "weight")

    @check_arguments
    def __call__(
        self, displacement: Field, *, add_to: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost and its gradient; see `convexadam.continuous.Regulariser`. It ignores the soft mask."""
        return bending(displacement, weight=self.weight, add_to=add_to)


@final
@dataclass(frozen=True, kw_only=True)
class VolumePreserving:
    """Local change of volume: ``weight mean_x s(x) log(det J(x))^2`` with ``J = I + du/dx``.

    Doubling a volume costs as much as halving it. A registration without it makes a tumour that has grown or shrunk as
    large as in the other image; this cost preserves its volume while the rest is aligned.

    Attributes
    ----------
    weight
        Factor of the cost. 100 suits squared differences of the 12 channels of `MindSSC`: of a growth by 30 %, less
        than a tenth remains.
    region
        Where volume is preserved if no soft mask is given: ``"everywhere"``, or ``"auto"`` where it changes unlike
        elsewhere in a first refinement without this cost (`volume_mask`), after which the refinement starts again.

    Raises
    ------
    ConfigError
        If the weight is not a finite number of at least 0, or ``region`` is unknown.

    Notes
    -----
    Below a determinant of 0.05 the cost continues along its tangent. ``"auto"`` follows the idea of Dong et al.,
    "Preserving tumor volumes for unsupervised medical image registration", ICCV 2023, with the squared logarithm as
    cost. Volumes are relative to those after the linear alignment.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import VolumePreserving
    >>> VolumePreserving(weight=10.0)(torch.ones(3, 8, 8, 8))[0].item()  # a translation keeps volumes
    0.0
    """

    weight: float = 100.0
    region: Literal["everywhere", "auto"] = "everywhere"

    def __post_init__(self) -> None:
        check_number(self.weight, "weight")
        check_choice(self.region, "region", ("everywhere", "auto"))

    @check_arguments
    def __call__(
        self, displacement: Field, *, add_to: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost and its gradient; see `convexadam.continuous.Regulariser`.

        ``soft_mask`` is ``s``, ``[i, j, k]`` in [0, 1] on the control points; ``None`` for 1 everywhere.
        """
        return volume_change(displacement, soft_mask=soft_mask, weight=self.weight, add_to=add_to)

    @check_arguments
    def curvature(self, displacement: Field, *, add_to: Volume, soft_mask: Volume | None = None) -> Volume:
        """Add the mean curvature at zero displacement, ``weight s / N`` with ``N`` control points, in place."""
        return add_to.add_(self.weight / add_to.numel() * (1.0 if soft_mask is None else soft_mask))
