"""Jacobian determinants on the CPU, in one pass over memory."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Volume
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy


def jacobian_determinant(disp_vox: Field) -> Volume:
    """See the package."""
    determinant = torch.empty(disp_vox.shape[1:], dtype=torch.float32, device="cpu")
    run_in_slabs(_compute_planes, disp_vox.shape[1], *to_numpy(disp_vox, determinant))
    return determinant


@no_type_check
@compile_kernel
def _compute_planes(first, last, u, out):
    _, _, n1, n2 = u.shape
    one = np.float32(1)
    slopes = np.empty((9, n2), np.float32)
    for i in range(first, last):
        for j in range(n1):
            row_slopes(u, i, j, slopes)
            target = out[i, j]
            for k in range(n2):
                a, b, c = one + slopes[0, k], slopes[1, k], slopes[2, k]
                d, e, f = slopes[3, k], one + slopes[4, k], slopes[5, k]
                g, h, x = slopes[6, k], slopes[7, k], one + slopes[8, k]
                target[k] = a * (e * x - f * h) - b * (d * x - f * g) + c * (d * h - e * g)


@no_type_check
@compile_kernel
def row_slopes(u, i, j, slopes):
    """Compute the derivatives of row ``(i, j)``, of component ``c`` along axis ``a`` in ``slopes[3 * c + a]``."""
    _, n0, n1, n2 = u.shape
    one, half = np.float32(1), np.float32(0.5)
    i0, i1, j0, j1 = max(i - 1, 0), min(i + 1, n0 - 1), max(j - 1, 0), min(j + 1, n1 - 1)
    scale0, scale1 = half if i1 - i0 == 2 else one, half if j1 - j0 == 2 else one
    for c in range(3):
        along_i, along_j, along_k = slopes[3 * c], slopes[3 * c + 1], slopes[3 * c + 2]
        above, below, left, right, row = u[c, i0, j], u[c, i1, j], u[c, i, j0], u[c, i, j1], u[c, i, j]
        for k in range(n2):
            along_i[k] = scale0 * (below[k] - above[k])
            along_j[k] = scale1 * (right[k] - left[k])
        along_k[0] = row[min(1, n2 - 1)] - row[0]
        along_k[n2 - 1] = row[n2 - 1] - row[max(n2 - 2, 0)]
        before, after = row[: max(n2 - 2, 0)], row[2:]
        for k in range(n2 - 2):
            along_k[k + 1] = half * (after[k] - before[k])
