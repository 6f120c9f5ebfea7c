"""Fusion of the labels of several atlases on the grid of a target, slab by slab."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from convexadam._checks import show
from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.errors import GeometryError, InputError
from convexadam.geometry import Image
from convexadam.kernels.label_vote import cast_votes
from convexadam.segmentation.methods import JointFusion, Weights

_PLANES = 24
"""Planes that are fused at once. Memory is proportional to them and the number of atlases."""


@runtime_checkable
class LabelFusion(Protocol):
    """A method of label fusion: weights of atlases at each voxel, and the patches that they vote with."""

    @property
    def radii(self) -> tuple[int, int, int]:
        """Radii of patch, search and vote, in voxels; voxels within the last one of the centre get its votes."""
        ...

    def __call__(self, target: Channels, atlases: Float[Tensor, "n c i j k"], mask: Shaped[Tensor, "i j k"]) -> Weights:
        """Return weights ``[m, i, j, k]`` and rows of offsets, int16, at the voxels of the mask."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """Result of `fuse_labels`.

    Attributes
    ----------
    labels
        The label of each voxel.
    confidence
        Its share of the votes, from 0 to 1; 1 where all atlases agree.
    probabilities
        Shares of the votes of the labels that were asked for, one channel each, in their order; ``None`` if none were.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.segmentation import fuse_labels
    >>> grid = Grid((8, 8, 8))
    >>> image, labels = Image(torch.rand(1, 8, 8, 8), grid), Image(torch.ones(1, 8, 8, 8, dtype=torch.uint8), grid)
    >>> fuse_labels(image, [image], [labels]).confidence.data.min().item()
    1.0
    """

    labels: Image
    confidence: Image
    probabilities: Image | None = None


def fuse_labels(
    target: Image,
    images: Sequence[Image],
    labels: Sequence[Image],
    *,
    method: LabelFusion | None = None,
    probabilities_of: Iterable[int] = (),
    missing: int | None = None,
) -> Fusion:
    """Fuse the label maps of atlases that were registered to a target and resampled to its grid.

    Where all atlases agree, their label is kept. Elsewhere the method weighs the votes.

    Parameters
    ----------
    target
        Image to segment, or its features, with any number of channels.
    images
        Atlases, each moved to the grid of the target, with the same channels.
    labels
        Their label maps on that grid, of one integer type.
    method
        `JointFusion` by default.
    probabilities_of
        Labels whose probability maps are returned.
    missing
        Label of voxels where an atlas does not know: it has no vote there. ``None`` if all know everywhere.

    Raises
    ------
    InputError
        If there is no atlas, or their numbers, channels or types do not fit.
    GeometryError
        If an image is not on the grid of the target.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.segmentation import MajorityVote, fuse_labels
    >>> grid = Grid((4, 4, 4))
    >>> image = Image(torch.rand(1, 4, 4, 4), grid)
    >>> labels = [Image(torch.full((1, 4, 4, 4), value), grid) for value in (1, 2, 2)]
    >>> fused = fuse_labels(image, [image] * 3, labels, method=MajorityVote())
    >>> fused.labels.data.unique().tolist()
    [2]
    """
    method = JointFusion() if method is None else method
    _check(target, images, labels)
    known = torch.unique(torch.cat([torch.unique(image.data) for image in labels]))
    known = known if missing is None else known[known != missing]
    if len(known) == 0:
        raise InputError(f"labels must have voxels other than missing={missing}, got none; check the label maps")
    wanted = sorted(set(probabilities_of))
    disputed = torch.zeros(target.grid.shape, dtype=torch.bool, device=target.data.device)
    for image in labels:
        disputed |= (image.data[0] != labels[0].data[0]) | (image.data[0] == missing if missing is not None else False)
    votes = _Votes(
        images=[_Scaled.measure(image.data, disputed) for image in (target, *images)],
        labels=[image.data[0] for image in labels],
        known=known,
        disputed=disputed,
    )
    result = _Result.allocate(target, known, wanted)
    result.winner[~disputed] = votes.find_index(labels[0].data[0][~disputed])
    for first in range(0, disputed.shape[0], _PLANES):
        if disputed[first : first + _PLANES].any():
            _fuse_planes(first, votes, method, result)
    return result.finish(target, known, wanted, disputed)


@dataclass(frozen=True, kw_only=True)
class _Scaled:
    """Features that are scaled to mean 0 and variance 1 over a mask when a part of them is taken."""

    data: Shaped[Tensor, "c i j k"]
    mean: Tensor
    spread: Tensor

    @classmethod
    def measure(cls, data: Shaped[Tensor, "c i j k"], mask: Shaped[Tensor, "i j k"]) -> _Scaled:
        values = data[:, mask].double()
        if values.shape[1] < 2:
            values = data.double().flatten(1)
        mean, spread = values.mean(1), values.std(1).clamp_min(torch.finfo(torch.float32).tiny)
        return cls(data=data, mean=mean[:, None, None, None], spread=spread[:, None, None, None])

    def take(self, box: tuple[slice, slice, slice]) -> Channels:
        part: Channels = ((self.data[(slice(None), *box)] - self.mean) / self.spread).float()
        return part


@dataclass(frozen=True, kw_only=True)
class _Votes:
    """What is fused: target and atlases, label maps, all labels in ascending order, and where atlases disagree."""

    images: Sequence[_Scaled]
    labels: Sequence[Shaped[Tensor, "i j k"]]
    known: Tensor
    disputed: Shaped[Tensor, "i j k"]

    def find_index(self, labels: Tensor) -> Tensor:
        """Return the positions of labels among the known ones, -1 for others."""
        index = torch.searchsorted(self.known, labels.contiguous()).clamp_max_(len(self.known) - 1)
        return torch.where(self.known[index] == labels, index, -1).int()


@dataclass(frozen=True, kw_only=True)
class _Result:
    winner: Shaped[Tensor, "i j k"]
    share: Float[Tensor, "i j k"]
    probabilities: Channels
    chosen: Tensor

    @classmethod
    def allocate(cls, target: Image, known: Tensor, wanted: Sequence[int]) -> _Result:
        shape, device = target.grid.shape, target.data.device
        asked = torch.tensor(wanted, dtype=torch.int64, device=device)
        present = torch.isin(known.to(device), asked)
        chosen = present.nonzero()[:, 0].int()
        return cls(
            winner=torch.zeros(shape, dtype=torch.int32, device=device),
            share=torch.ones(shape, dtype=torch.float32, device=device),
            probabilities=torch.zeros((len(chosen), *shape), dtype=torch.float32, device=device),
            chosen=chosen,
        )

    def finish(self, target: Image, known: Tensor, wanted: Sequence[int], disputed: Tensor) -> Fusion:
        for row, label in enumerate(self.chosen):
            self.probabilities[row][~disputed] = (self.winner[~disputed] == label).float()
        maps = None
        if wanted:
            values = torch.zeros((len(wanted), *target.grid.shape), dtype=torch.float32, device=target.data.device)
            rows = [wanted.index(int(known[label])) for label in self.chosen]
            values[rows] = self.probabilities
            maps = Image(values, target.grid)
        return Fusion(
            labels=Image(known[self.winner.long()][None], target.grid),
            confidence=Image(self.share[None], target.grid),
            probabilities=maps,
        )


def _fuse_planes(first: int, votes: _Votes, method: LabelFusion, result: _Result) -> None:
    """Fuse some planes, with as many around them as their patches need."""
    patch, search, vote = method.radii
    disputed = votes.disputed
    last = min(first + _PLANES, disputed.shape[0])
    near = _bound(disputed, first - vote, last + vote)  # voxels whose patches vote in these planes
    reach = patch + search
    box = (_extend(near[0], reach), _extend(near[1], reach), _extend(near[2], reach))
    mask = torch.zeros_like(disputed)
    mask[near] = disputed[near]
    mask = mask[box]
    target, *atlases = (image.take(box) for image in votes.images)
    weights, offsets = method(target, torch.stack(atlases), mask)
    found = cast_votes(
        torch.stack([votes.find_index(labels[box]) for labels in votes.labels]),
        weights,
        offsets,
        mask,
        count=len(votes.known),
        chosen=result.chosen,
        vote_radius=vote,
        search_radius=search,
    )
    inner = slice(first - box[0].start, last - box[0].start)
    here = disputed[first:last, box[1], box[2]]
    for whole, part in zip((result.winner, result.share), found, strict=False):
        whole[first:last, box[1], box[2]][here] = part[inner][here]
    result.probabilities[:, first:last, box[1], box[2]][:, here] = found[2][:, inner][:, here]


def _extend(part: slice, by: int) -> slice:
    return slice(max(part.start - by, 0), part.stop + by)


def _bound(mask: Shaped[Tensor, "i j k"], first: int, last: int) -> tuple[slice, slice, slice]:
    """Return the box of the voxels of a mask between two planes."""
    first, last = max(first, 0), min(last, mask.shape[0])
    part = mask[first:last]
    rows, columns = part.any(2).any(0).nonzero()[:, 0], part.any(1).any(0).nonzero()[:, 0]
    return slice(first, last), slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _check(target: Image, images: Sequence[Image], labels: Sequence[Image]) -> None:
    if not images or len(images) != len(labels):
        raise InputError(
            f"images must be at least one, and as many as labels, got {len(images)} and {len(labels)}; "
            "pass the image and the labels of each atlas"
        )
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        for name, one in ((f"images[{number}]", image), (f"labels[{number}]", label)):
            if not one.grid.is_close(target.grid):
                raise GeometryError(
                    f"{name} must be on the grid of the target {show(target.grid)}, got {show(one.grid)}; "
                    "resample it with the transform of its registration"
                )
        if image.data.shape[0] != target.data.shape[0]:
            raise InputError(
                f"images[{number}] must have the channels of the target ({target.data.shape[0]}), got "
                f"{image.data.shape[0]}; extract the same features of both"
            )
        if not label.is_label or label.data.shape[0] != 1:
            raise InputError(
                f"labels[{number}] must have one channel of an integer type, got {label.data.shape[0]} of "
                f"{label.data.dtype}; pass a label map"
            )
