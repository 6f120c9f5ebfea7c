"""Shares of labels on the GPU, in one pass over memory."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Shaped, Tensor, Triple, Volume
from convexadam.kernels._device import send

_VALUES = 2048
"""Shares that a program keeps in registers, of a few blocks and all labels."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def pool_one_hot(
    labels: Shaped[Tensor, "i j k"], values: list[int], spacing: Triple, *, weight: Volume | None = None
) -> Float[Tensor, "n _ _ _"]:
    """See the package."""
    source, weights = labels.contiguous(), None if weight is None else weight.contiguous()
    _, n1, n2 = source.shape
    m0, m1, m2 = (n // s for n, s in zip(source.shape, spacing, strict=True))
    known = torch.tensor(values, dtype=torch.int64, device="cpu")
    found = torch.empty((m0, m1, m2, len(values)), dtype=torch.float32, device=source.device)
    wide = triton.next_power_of_2(len(values))
    block = max(_VALUES // wide, 1)
    with torch.cuda.device(source.get_device()):
        sent = send(known, torch.empty(0, dtype=torch.int64, device=source.device))
        sizes = m0 * m1 * m2, n1, n2, m1, m2, *spacing, len(values)
        _add_shares[(triton.cdiv(sizes[0], block),)](source, weights, sent, found, *sizes, wide, block, **_OPTIONS)
    return found.movedim(3, 0)


@no_type_check
@triton.jit(do_not_specialize=["points", "n1", "n2", "m1", "m2", "s0", "s1", "s2", "count"])
def _add_shares(
    labels,
    weight,
    values,
    shares,
    points,
    n1,
    n2,
    m1,
    m2,
    s0,
    s1,
    s2,
    count,
    wide: tl.constexpr,
    block: tl.constexpr,
):
    point, channel = tl.program_id(0) * block + tl.arange(0, block), tl.arange(0, wide)
    valid = point < points
    value = tl.load(values + channel, mask=channel < count, other=0)
    i, j, k = point // m2 // m1, point // m2 % m1, point % m2
    first = (i.to(tl.int64) * s0 * n1 + j * s1) * n2 + k * s2
    found, total = tl.zeros((block, wide), tl.float32), tl.zeros((block,), tl.float32)
    for a in range(s0):
        for b in range(s1):
            for c in range(s2):
                at = first + ((a * n1 + b) * n2 + c)
                share = tl.where(valid, 1.0, 0.0)
                if weight is not None:
                    share = tl.load(weight + at, mask=valid, other=0.0)
                label = tl.load(labels + at, mask=valid, other=0).to(tl.int64)
                found += tl.where(label[:, None] == value[None, :], share[:, None], 0.0)
                total += share
    known = tl.where(total > 0, total, 1.0)
    to = point.to(tl.int64)[:, None] * count + channel[None, :]
    tl.store(shares + to, tl.div_rn(found, known[:, None]), mask=valid[:, None] & (channel < count)[None, :])
