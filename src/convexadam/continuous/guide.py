"""Corresponding points as a cost of the displacement."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Triple, Volume
from convexadam.kernels.pairs import Pairs


@final
class PairCost:
    """Squared distance of points from where they should be: ``1/2 sum_n c_n |u(p_n) - t_n|^2``, with linear ``u(p)``.

    ``c_n = curvature mass w_n``: the nodes at a point have the ``w_n``-fold of the given curvature. With an outlier
    distance ``t`` the squared distance ``r`` is ``r / (1 + r / t^2)`` instead, as in `convexadam.kernels.warp_ssd.ssd`.

    What pulls at a point pulls at all nodes of its Gaussian: the gradient is that of the cost, spread like the steps
    that follow it. (A cost of the Gaussian mean of ``u`` would have such a gradient as well, but where Gaussians
    overlap its minimum overshoots.) Without a Gaussian it is the gradient of the cost itself.

    Parameters
    ----------
    pairs
        On the nodes.
    like
        A displacement ``[3, i, j, k]`` with the shape, type and device of those to come.
    curvature
        Mean curvature of the similarity, of one node.
    """

    def __init__(self, pairs: Pairs, like: Field, *, curvature: float) -> None:
        shape: Triple = (like.shape[1], like.shape[2], like.shape[3])
        self._read = _flat(replace(pairs, sigma=(0.0, 0.0, 0.0)), shape, like)
        self._nodes, self._shares = _flat(pairs, shape, like)
        self._wanted: Float[Tensor, "3 n"] = pairs.displacements.T.to(like)
        self._factors: Float[Tensor, " n"] = (curvature * pairs.mass * pairs.weights).to(like)
        self._outlier = pairs.outlier

    def __call__(
        self, displacement: Field, *, onto: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost of a displacement and its gradient, as `Diffusion` does."""
        apart, squared, limit = self._apart(displacement)
        value = (self._factors * squared * limit).sum() / 2
        pull = self._factors * limit.square() * apart
        gradient = torch.zeros_like(displacement) if onto is None else onto
        self._spread(gradient, pull)
        return value, gradient

    def curvature(self, displacement: Field, *, onto: Volume, soft_mask: Volume | None = None) -> Volume:
        """Add the curvature of each node, for steps that are about the same all around it."""
        limit = self._apart(displacement)[2]
        self._spread(onto[None], (self._factors * limit.square())[None])
        return onto

    def _apart(self, displacement: Field) -> tuple[Float[Tensor, "3 n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
        """How far each point is from where it should be, the square of that, and ``1 / (1 + r / t^2)``."""
        nodes, shares = self._read
        apart = (displacement.flatten(1)[:, nodes] * shares).sum(-1) - self._wanted
        squared = apart.square().sum(0)
        return apart, squared, 1 / (1 + squared / self._outlier**2)

    def _spread(self, onto: Float[Tensor, "c i j k"], values: Float[Tensor, "c n"]) -> None:
        """Add what each point has to the nodes around it."""
        added = onto.contiguous()
        added.view(len(onto), -1).index_add_(1, self._nodes.flatten(), (values[:, :, None] * self._shares).flatten(1))
        if added is not onto:
            onto.copy_(added)


def _flat(pairs: Pairs, shape: Triple, like: Tensor) -> tuple[Shaped[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Numbers of the nodes around each point, and their shares."""
    (i, j, k), (in_i, in_j, in_k) = pairs.around(shape)
    nodes = (i[:, :, None, None] * shape[1] + j[:, None, :, None]) * shape[2] + k[:, None, None, :]
    shares = in_i[:, :, None, None] * in_j[:, None, :, None] * in_k[:, None, None, :]
    return nodes.flatten(1).to(like.device), shares.flatten(1).to(like)
