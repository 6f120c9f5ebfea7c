"""Methods of label fusion: how much the vote of each atlas counts at each voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from convexadam._checks import check_count, check_number
from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.kernels.joint_fusion import compute_joint_weights
from convexadam.kernels.patch_match import match_patches

Weights = tuple[Float[Tensor, "m i j k"], Shaped[Tensor, "m i j k"]]
"""Weights of atlases, and rows of `convexadam.kernels.patch_match.list_offsets` to the patches that they vote with.

Of ``n`` atlases, ``m`` is ``n``, or a multiple if each votes with several patches, which are side by side.
"""


@final
@dataclass(frozen=True, kw_only=True)
class MajorityVote:
    """Every atlas has one vote at each voxel.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.segmentation import MajorityVote, fuse_labels
    >>> grid = Grid((4, 4, 4))
    >>> image = Image(torch.rand(1, 4, 4, 4), grid)
    >>> labels = [Image(torch.full((1, 4, 4, 4), value), grid) for value in (1, 1, 2)]
    >>> round(fuse_labels(image, [image] * 3, labels, method=MajorityVote()).confidence.data.mean().item(), 2)
    0.67
    """

    @property
    def radii(self) -> tuple[int, int, int]:
        """Radii of patch, search and vote, in voxels."""
        return 0, 0, 0

    def __call__(self, target: Channels, atlases: Float[Tensor, "n c i j k"], mask: Shaped[Tensor, "i j k"]) -> Weights:
        """Return equal weights."""
        weights = mask.to(target.dtype).expand(len(atlases), *mask.shape)
        return weights, torch.zeros(weights.shape, dtype=torch.int16, device=target.device)


@final
@dataclass(frozen=True, kw_only=True)
class LocalVote:
    """Atlases vote with the weight ``(1.01 - cc)^-gain`` of the correlation ``cc`` of their patch with the target's.

    Artaechevarria, Munoz-Barrutia, Ortiz-de-Solorzano, "Combination strategies in multi-atlas image segmentation",
    IEEE TMI 2009, with correlation in place of mean squares; with a search radius above 0, each atlas votes with its
    best patch within it (Coupé et al., NeuroImage 2011).

    Attributes
    ----------
    patch_radius
        Patches have ``2 patch_radius + 1`` voxels along each axis.
    search_radius
        In voxels; 0 compares the same voxel only.
    gain
        Above 0. Larger values let the most similar atlases decide.

    Examples
    --------
    >>> from convexadam.segmentation import LocalVote
    >>> LocalVote(patch_radius=1, search_radius=1).gain
    2.0
    """

    patch_radius: int = 2
    search_radius: int = 0
    gain: float = 2.0

    def __post_init__(self) -> None:
        check_count(self.patch_radius, "LocalVote.patch_radius", least=1)
        check_count(self.search_radius, "LocalVote.search_radius", least=0)
        check_number(self.gain, "LocalVote.gain", above=True)

    @property
    def radii(self) -> tuple[int, int, int]:
        """Radii of patch, search and vote, in voxels."""
        return self.patch_radius, self.search_radius, 0

    def __call__(self, target: Channels, atlases: Float[Tensor, "n c i j k"], mask: Shaped[Tensor, "i j k"]) -> Weights:
        """Return the weights and the offsets of the patches that vote."""
        offsets, correlations = match_all(target, atlases, mask, self.patch_radius, self.search_radius)
        return (1.01 - correlations).pow(-self.gain) * mask, offsets


@final
@dataclass(frozen=True, kw_only=True)
class NonLocalVote:
    """Atlases vote with all patches nearby, with the weight ``exp(-|T(x) - A(y)|^2 / h)`` of each.

    Patches are those of the features of both images (intensities, or others), each channel minus its mean and divided
    by its norm, so that the squared distance is twice one minus their correlation. Of the search window, the
    ``matches`` patches of each atlas with the largest weights vote.

    Coupé et al., "Patch-based segmentation using expert priors", NeuroImage 2011; Rousseau, Habas, Studholme, "A
    supervised patch-based approach for human brain labeling", IEEE TMI 2011.

    Attributes
    ----------
    patch_radius
        Patches have ``2 patch_radius + 1`` voxels along each axis.
    search_radius
        In voxels.
    matches
        Patches of each atlas that vote at a voxel, at least 1; not more than there are in the window.
    bandwidth
        ``h``, above 0. Smaller values let the most similar patches decide.
    vote_radius
        In voxels: 0 if a patch votes for its centre, above 0 if also for the voxels around it.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.segmentation import NonLocalVote, fuse_labels
    >>> grid = Grid((12, 12, 12))
    >>> values = torch.rand(2, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    >>> target, other = (Image(one, grid) for one in values)
    >>> labels = [Image(torch.full((1, 12, 12, 12), value), grid) for value in (1, 2)]
    >>> fused = fuse_labels(target, [target, other], labels, method=NonLocalVote(search_radius=1))
    >>> fused.labels.data.unique().tolist()  # the first atlas looks like the target
    [1]
    """

    patch_radius: int = 2
    search_radius: int = 3
    matches: int = 4
    bandwidth: float = 0.1
    vote_radius: int = 2

    def __post_init__(self) -> None:
        check_count(self.patch_radius, "NonLocalVote.patch_radius", least=1)
        check_count(self.search_radius, "NonLocalVote.search_radius", least=0)
        check_count(self.matches, "NonLocalVote.matches", least=1)
        check_count(self.vote_radius, "NonLocalVote.vote_radius", least=0)
        check_number(self.bandwidth, "NonLocalVote.bandwidth", above=True)

    @property
    def radii(self) -> tuple[int, int, int]:
        """Radii of patch, search and vote, in voxels."""
        return self.patch_radius, self.search_radius, self.vote_radius

    def __call__(self, target: Channels, atlases: Float[Tensor, "n c i j k"], mask: Shaped[Tensor, "i j k"]) -> Weights:
        """Return the weights and the offsets of the patches that vote."""
        matches = min(self.matches, (2 * self.search_radius + 1) ** 3)
        offsets, correlations = match_all(target, atlases, mask, self.patch_radius, self.search_radius, matches)
        # relative to the best patch of all atlases, so that none underflows; shares of votes are the same
        exponents = correlations.sub_(correlations.amax(0)).mul_(2 / self.bandwidth)
        return exponents.exp_().mul_(mask), offsets


@final
@dataclass(frozen=True, kw_only=True)
class JointFusion:
    """Joint label fusion: weights that minimise the expected error, given which atlases err at the same places.

    Each atlas contributes its best patch within a search window. All voxels of a patch vote, so that a voxel gets the
    votes of all patches that contain it. See `convexadam.kernels.joint_fusion.compute_joint_weights`.

    Wang, Suh, Das, Pluta, Craige, Yushkevich, "Multi-atlas segmentation with joint label fusion", PAMI 2013.

    Attributes
    ----------
    patch_radius
        Patches have ``2 patch_radius + 1`` voxels along each axis.
    search_radius
        In voxels. Larger values correct larger errors of registration.
    alpha
        Above 0. Larger values make the weights more equal.
    beta
        Above 0. Larger values favour the best atlases.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.segmentation import JointFusion, fuse_labels
    >>> grid = Grid((12, 12, 12))
    >>> values = torch.rand(2, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    >>> target, other = (Image(one, grid) for one in values)
    >>> labels = [Image(torch.full((1, 12, 12, 12), value), grid) for value in (1, 2)]
    >>> fused = fuse_labels(target, [target, other], labels, method=JointFusion(search_radius=0))
    >>> fused.labels.data.unique().tolist()  # the first atlas looks like the target
    [1]
    """

    patch_radius: int = 2
    search_radius: int = 3
    alpha: float = 0.1
    beta: float = 2.0

    def __post_init__(self) -> None:
        check_count(self.patch_radius, "JointFusion.patch_radius", least=1)
        check_count(self.search_radius, "JointFusion.search_radius", least=0)
        check_number(self.alpha, "JointFusion.alpha", above=True)
        check_number(self.beta, "JointFusion.beta", above=True)

    @property
    def radii(self) -> tuple[int, int, int]:
        """Radii of patch, search and vote, in voxels."""
        return self.patch_radius, self.search_radius, self.patch_radius

    def __call__(self, target: Channels, atlases: Float[Tensor, "n c i j k"], mask: Shaped[Tensor, "i j k"]) -> Weights:
        """Return the weights and the offsets of the patches that vote."""
        offsets, _ = match_all(target, atlases, mask, self.patch_radius, self.search_radius)
        settings = {"patch_radius": self.patch_radius, "search_radius": self.search_radius}
        weights = compute_joint_weights(target, atlases, offsets, mask, **settings, alpha=self.alpha, beta=self.beta)
        return weights, offsets


def match_all(
    target: Channels,
    atlases: Float[Tensor, "n c i j k"],
    mask: Shaped[Tensor, "i j k"],
    patch_radius: int,
    search_radius: int,
    matches: int = 1,
) -> tuple[Shaped[Tensor, "m i j k"], Float[Tensor, "m i j k"]]:
    """Find the best patches of each atlas: offsets and correlations."""
    radii = {"patch_radius": patch_radius, "search_radius": search_radius}
    shape = (len(atlases), matches, *mask.shape)
    offsets = torch.empty(shape, dtype=torch.int16, device=target.device)
    values = torch.empty(shape, dtype=target.dtype, device=target.device)
    for number, atlas in enumerate(atlases):
        offsets[number], values[number] = match_patches(target, atlas, mask, **radii, matches=matches)
    return offsets.flatten(0, 1), values.flatten(0, 1)
