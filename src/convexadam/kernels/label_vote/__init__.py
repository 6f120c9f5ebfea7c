"""Weighted vote of atlases, each with the labels of the patch that was found in it."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels._backend import get_implementation

__all__ = ["cast_votes"]


def cast_votes(
    labels: Shaped[Tensor, "n i j k"],
    weights: Float[Tensor, "m i j k"],
    offsets: Shaped[Tensor, "m i j k"],
    mask: Shaped[Tensor, "i j k"],
    *,
    count: int,
    chosen: Tensor | None = None,
    vote_radius: int = 2,
    search_radius: int = 3,
) -> tuple[Shaped[Tensor, "i j k"], Volume, Channels]:
    """Compute ``p(l, v) = sum_x sum_a w_a(x) [L_a(v + o_a(x)) = l] / sum_x sum_a w_a(x)``, and its maximum over ``l``.

    ``x`` runs over the voxels of the mask in the window of ``vote_radius`` around ``v``: each of them brings the labels
    of a whole patch, so that a voxel gets the votes of all patches that contain it. Negative sums count as 0. The
    lowest of equal labels wins. Beyond the border, labels continue with those there.

    Coupé et al., NeuroImage 2011 (multi-point estimator); Wang et al., PAMI 2013.

    Parameters
    ----------
    labels
        Labels of each atlas, ``[n, i, j, k]``, int32, from 0 to ``count - 1``, or -1 where an atlas has no vote.
    weights
        Of each atlas at each voxel, ``[m, i, j, k]``; or, if an atlas votes with several patches, of each of them, with
        those of one atlas side by side: ``m`` is a multiple of ``n``.
    offsets
        Rows of `convexadam.kernels.patch_match.list_offsets`, int16.
    mask
        Voxels that have weights and get labels, ``[i, j, k]``, bool. All others get label, share and probabilities 0.
    count
        Number of labels.
    chosen
        Labels ``[c]`` whose probabilities are returned, int32, in ascending order; ``None`` for none.
    vote_radius, search_radius
        In voxels.

    Returns
    -------
    The label, int32, and its probability, both ``[i, j, k]``; the probabilities of the chosen ones, ``[c, i, j, k]``.
    """
    found: tuple[Tensor, Tensor, Tensor] = get_implementation(__name__, weights).cast_votes(
        labels,
        weights,
        offsets,
        mask,
        count=count,
        chosen=chosen,
        vote_radius=vote_radius,
        search_radius=search_radius,
    )
    return found
