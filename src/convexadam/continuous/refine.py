"""The continuous stage: Adam on a smoothed displacement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch

from convexadam._axes import Unit, checked_count, checked_number, checked_unit, per_axis, spacing_in_voxels
from convexadam._typing import Channels, Field, Float, PerAxis, Tensor, Triple, Volume
from convexadam.continuous.adam import Adam
from convexadam.continuous.parametrisation import Displacement, Parametrisation
from convexadam.continuous.smoothing import BoxSmoothing, Smoother, Smoothing
from convexadam.errors import ConfigError
from convexadam.kernels._precision import full_precision
from convexadam.kernels.recording import recordable, repeat
from convexadam.kernels.resize import in_nodes, in_voxels, nodes_to_voxels, pool, voxels_to_nodes
from convexadam.kernels.warp_ssd import compared, evidence_under

_RESOLUTION = 0.01
"""Nodes. Adam takes gradients that stand for less than this for noise instead of scaling them up to full steps."""

_WHOLE = 0.999
"""Share of voxels with evidence from which on a node is whole."""


@final
@dataclass(frozen=True, kw_only=True)
class AdamRefinement:
    """Minimise feature difference plus roughness over a displacement that smoothing keeps smooth.

    ``E(u) = mean_x sum_c (M_c(x + u(x)) - F_c(x))^2 + weight / 3 sum_a mean_x |d_a u|^2`` with ``u`` in nodes.

    Attributes
    ----------
    spacing
        Distance of the nodes: one number or one for each axis, in ``unit``.
    unit
        ``"voxel"`` or ``"mm"``.
    iterations
        Adam steps; 0 returns the start, seen through the nodes and, with `Displacement` only, smoothed.
    weight
        Weight of the roughness; 0 leaves smoothing as the only regularisation. 1.25 fits the 12 channels of
        `MindSSC`; features on another scale need another weight.
    learning_rate
        Typical step of a node, in nodes: what Adam makes of a steady gradient, before smoothing.
    smoothing
        ``B``: of the whole field (`Displacement`) or of each step (`Compositional`); ``None`` for none.
    parametrisation
        How steps become a displacement: `Displacement` as published, or `Compositional`, which hardly folds.
    final_smoothing
        Applied once to the finished field at full resolution (in voxels); ``None`` for none.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Siebert, Hansen, Heinrich, "ConvexAdam: Self-configuring dual-optimisation-based 3D multitask medical image
    registration", IEEE TMI 2024. The field of the last step is returned.
    """

    spacing: PerAxis = 2
    unit: Unit = "voxel"
    iterations: int = 80
    weight: float = 1.25
    learning_rate: float = 1.0
    smoothing: Smoothing | None = field(default_factory=BoxSmoothing)
    parametrisation: Parametrisation = field(default_factory=Displacement)
    final_smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        checked_unit(self.unit)
        spacing = per_axis(self.spacing, "spacing", least=1.0 if self.unit == "voxel" else 1e-3)
        if self.unit == "voxel" and any(v != int(v) for v in spacing):
            raise ConfigError(
                f"spacing is a whole number where the unit is 'voxel', but {self.spacing!r} came; "
                "round it, or set unit='mm'"
            )
        checked_count(self.iterations, "iterations")
        checked_number(self.weight, "weight")
        checked_number(self.learning_rate, "learning_rate", above=True)
        for name, allowed in (
            ("smoothing", Smoothing | None),
            ("final_smoothing", Smoothing | None),
            ("parametrisation", Parametrisation),
        ):
            if not isinstance(getattr(self, name), allowed):
                raise ConfigError(f"{name} is a component ({allowed}), but {getattr(self, name)!r} came")

    @full_precision
    def __call__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        start: Field | None = None,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Field:
        """Refine a field that maps fixed to moving.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of one shape, at full resolution.
        start
            Displacements ``[3, i, j, k]`` in voxels to begin with; ``None`` for zero.
        fixed_weight, moving_weight
            Evidence of each voxel, ``[i, j, k]``, not negative; 1 where ``None``.
        voxel_mm
            Size of a voxel; only used where ``unit`` is ``"mm"``.

        Returns
        -------
        Displacements ``[3, i, j, k]`` in voxels, at full resolution.
        """
        shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
        spacing = self.nodes(shape, voxel_mm)
        nodes = self.on_nodes(
            pool(fixed, spacing, weight=fixed_weight),
            pool(moving, spacing, weight=moving_weight),
            start=None if start is None else in_nodes(voxels_to_nodes(start, spacing), spacing),
            fixed_weight=None if fixed_weight is None else whole_nodes(fixed_weight, spacing),
            moving_weight=None if moving_weight is None else whole_nodes(moving_weight, spacing),
        )
        return self.on_voxels(in_voxels(nodes, spacing), spacing, shape)

    def nodes(self, shape: Triple, voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Triple:
        """Distance of the nodes in voxels, for a volume of ``shape`` with voxels of ``voxel_mm``."""
        return spacing_in_voxels(self.spacing, self.unit, voxel_mm, shape)

    @full_precision
    def on_nodes(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        start: Field | None = None,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> Field:
        """Refine a field on the nodes.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of the nodes, pooled.
        start
            Displacements ``[3, i, j, k]`` in nodes to begin with; ``None`` for zero.
        fixed_weight, moving_weight
            Evidence of each node (see `whole_nodes`); 1 where ``None``.

        Returns
        -------
        Displacements ``[3, i, j, k]`` in nodes, after the last step.
        """
        start = fixed.new_zeros((3, *fixed.shape[1:])) if start is None else start
        evidence = evidence_under(start, fixed_weight, moving_weight)
        motion = self.parametrisation.begin(start, self.smoothing, evidence)
        record = recordable(fixed, moving, start, fixed_weight, moving_weight)
        eps = _least_gradient(moving, moving_weight)
        adam = Adam(start, learning_rate=self.learning_rate, eps=eps, counted_on_device=record)
        comparison = compared(fixed, moving, fixed_weight=fixed_weight, moving_weight=moving_weight)
        gradient = torch.empty_like(motion.displacement)

        def step() -> None:
            comparison.gradient(motion.displacement, diffusion=self.weight, out=gradient)
            motion.move(gradient, adam)

        repeat(step, self.iterations, record_on=fixed.device if record else None)
        return motion.displacement

    def on_voxels(self, nodes: Field, spacing: Triple, shape: Triple) -> Float[Tensor, "3 a b d"]:
        """Bring displacements of any unit from nodes to the voxels of a volume of ``shape``, with `final_smoothing`."""
        fine = nodes_to_voxels(nodes, spacing, shape)
        return fine if self.final_smoothing is None else Smoother(self.final_smoothing, fine)(fine)


def _least_gradient(moving: Channels, weight: Volume | None) -> float:
    """Gradient of the feature difference at an error of `_RESOLUTION` nodes: what is smaller is noise to Adam.

    With a residual ``r = dM * error`` the gradient is ``2 / N sum_c dM_c^2 * error``, here for the mean slope ``dM``
    of the features. A fixed number, as usual for Adam's ``eps``, would mean another length for each kind of volume.
    """
    known = torch.ones_like(moving[0]) if weight is None else (weight > 0).to(moving.dtype)
    values = moving.movedim(0, -1)  # as they lie in memory, mostly
    total, count = moving.new_zeros(()), moving.new_zeros(())
    for axis in range(3):
        n = moving.shape[axis + 1]
        both = known.narrow(axis, 0, n - 1) * known.narrow(axis, 1, n - 1)
        total += values.diff(dim=axis).square_().mul_(both[..., None]).sum()
        count += both.sum()
    squared = float(total / count.clamp_min(1))
    return _RESOLUTION * 2 * squared / moving[0].numel() if squared > 0 else 1.0


def whole_nodes(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """Evidence of each node: none where only a part of its voxels has some, since their mean lies off the node.

    Where a mask is so thin that no node is whole, the parts have to do.
    """
    pooled, share = (pool(w[None], spacing)[0] for w in (weight, (weight > 0).to(weight.dtype)))
    whole = torch.where(share > _WHOLE, pooled, 0.0)
    return whole if bool((whole > 0).any()) else pooled
