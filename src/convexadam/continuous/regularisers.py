"""Regularisers as values: what a displacement costs by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from convexadam._axes import checked_number
from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.errors import ConfigError
from convexadam.kernels.bending import bending
from convexadam.kernels.diffusion import diffusion
from convexadam.kernels.volume_change import volume_change


@final
@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """First differences cost: ``weight / 3 sum_a mean_x |d_a u|^2``, with ``u`` in nodes.

    Attributes
    ----------
    weight
        Factor of the cost.

    Raises
    ------
    ConfigError
        If the weight is no finite number of at least 0.
    """

    weight: float = 0.2

    def __post_init__(self) -> None:
        checked_number(self.weight, "weight")

    def __call__(
        self, displacement: Field, *, onto: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost of a displacement, and its gradient.

        Parameters
        ----------
        displacement
            ``[3, i, j, k]``, in nodes.
        onto
            Where to add the gradient, in place; ``None`` takes new memory.
        soft_mask
            Has no part in this cost.

        Returns
        -------
        The weighted cost, and its gradient ``[3, i, j, k]``: ``onto``, with what it held before, where it was given.
        """
        return diffusion(displacement, weight=self.weight, onto=onto)


@final
@dataclass(frozen=True, kw_only=True)
class Bending:
    """Second differences cost: ``weight / 3 mean_x sum_ab |d_a d_b u|^2``, with ``u`` in nodes.

    Affine displacements are free. A wave of ``2 pi / k`` nodes costs as much as with a `Diffusion` of
    ``k^2 weight``: the default is as stiff as that of `Diffusion` for waves of 14 nodes, softer for longer ones, and
    stiffer for shorter ones.

    Attributes
    ----------
    weight
        Factor of the cost.

    Raises
    ------
    ConfigError
        If the weight is no finite number of at least 0.

    Notes
    -----
    Rueckert et al., "Nonrigid registration using free-form deformations: application to breast MR images", IEEE TMI
    1999.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        checked_number(self.weight, "weight")

    def __call__(
        self, displacement: Field, *, onto: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost of a displacement, and its gradient, as `Diffusion` does."""
        return bending(displacement, weight=self.weight, onto=onto)


@final
@dataclass(frozen=True, kw_only=True)
class VolumePreserving:
    """Changes of volume cost: ``weight mean_x s(x) log(det J(x))^2`` with ``J = I + du/dx``.

    Doubling a volume costs as much as halving it. Where a tumour has grown or shrunk, a registration that is free to
    do so makes its volume equal in both images; this cost keeps it while the rest is aligned.

    Attributes
    ----------
    weight
        Factor of the cost. 100 fits squared differences of the 12 channels of `MindSSC`: of a growth by 30 %, less than
        a tenth remains.
    where
        Where volume is kept if nobody says so by a soft mask: ``"everywhere"``, or where it changes conspicuously in a
        first refinement without this cost (`volume_mask`), after which all begins anew.

    Raises
    ------
    ConfigError
        If the weight is no finite number of at least 0, or ``where`` something else.

    Notes
    -----
    Below a determinant of 0.05 the cost goes on along its tangent. ``"conspicuous"`` is the plan of Dong et al.,
    "Preserving tumor volumes for unsupervised medical image registration", ICCV 2023, with the squared logarithm as the
    cost of a change. Volumes are compared with those that the linear alignment leaves.
    """

    weight: float = 100.0
    where: Literal["everywhere", "conspicuous"] = "everywhere"

    def __post_init__(self) -> None:
        checked_number(self.weight, "weight")
        if self.where not in ("everywhere", "conspicuous"):
            raise ConfigError(f"where is 'everywhere' or 'conspicuous', but {self.where!r} came")

    def __call__(
        self, displacement: Field, *, onto: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost of a displacement, and its gradient.

        Parameters
        ----------
        displacement
            ``[3, i, j, k]``, in nodes.
        onto
            Where to add the gradient, in place; ``None`` takes new memory.
        soft_mask
            ``s``, ``[i, j, k]`` in [0, 1] on the nodes: where volume is kept; everywhere where ``None``.

        Returns
        -------
        The weighted cost, and its gradient ``[3, i, j, k]``: ``onto``, with what it held before, where it was given.
        """
        return volume_change(displacement, soft_mask=soft_mask, weight=self.weight, onto=onto)

    def curvature(self, displacement: Field, *, onto: Volume, soft_mask: Volume | None = None) -> Volume:
        """Add the mean curvature of each node without displacement, ``weight s / N`` over ``N`` nodes, in place."""
        return onto.add_(self.weight / onto.numel() * (1.0 if soft_mask is None else soft_mask))


Regulariser: TypeAlias = Diffusion | Bending | VolumePreserving
