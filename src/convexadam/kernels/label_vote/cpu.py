"""Weighted vote on the CPU: each voxel gathers the votes of its window, and only its own few labels are counted."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy
from convexadam.kernels.patch_match.reference import list_offsets, pad_image


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
    """See the package."""
    row = torch.full((count,), -1, dtype=torch.int32, device="cpu")  # of each label in the probabilities
    number = 0 if chosen is None else len(chosen)
    if chosen is not None:
        row[chosen.long()] = torch.arange(number, dtype=torch.int32, device="cpu")
    winner = torch.zeros(mask.shape, dtype=torch.int32, device="cpu")
    share = torch.zeros(mask.shape, dtype=torch.float32, device="cpu")
    probabilities = torch.zeros((number, *mask.shape), dtype=torch.float32, device="cpu")
    padded = pad_image(labels.float(), search_radius).int()  # whole numbers below 2^24 are exact
    steps = torch.tensor([padded.shape[2] * padded.shape[3], padded.shape[3], 1], dtype=torch.int64, device="cpu")
    shifts = list_offsets(search_radius) @ steps  # of each offset, in the memory of one atlas
    arrays = to_numpy(padded, weights * mask, offsets, mask, row, shifts, winner, share, probabilities)
    run_in_slabs(_vote_planes, mask.shape[0], *arrays, vote_radius, search_radius)
    return winner, share, probabilities


@no_type_check
@compile_kernel
def _vote_planes(first, last, labels, weights, offsets, mask, row, shifts, winner, share, probabilities, vote, search):
    number, n0, n1, n2 = weights.shape
    matches = number // len(labels)
    flat, planes, rows = labels.reshape(-1), labels.shape[2] * labels.shape[3], labels.shape[3]
    votes = np.zeros(len(row), np.float32)
    seen, known = np.empty(len(row), np.int32), np.zeros(len(row), np.bool_)  # the labels that have votes
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                if not mask[i, j, k]:
                    continue
                found = 0
                start, stop = max(k - vote, 0), min(k + vote, n2 - 1) + 1
                here = (i + search) * planes + (j + search) * rows + k + search
                for x in range(max(i - vote, 0), min(i + vote, n0 - 1) + 1):
                    for y in range(max(j - vote, 0), min(j + vote, n1 - 1) + 1):
                        for a in range(number):
                            atlas = here + a // matches * labels.shape[1] * planes
                            run, run2 = weights[a, x, y], offsets[a, x, y]
                            for z in range(start, stop):
                                weight = run[z]
                                label = flat[atlas + shifts[run2[z]]]
                                if weight != 0 and label >= 0:
                                    if not known[label]:
                                        seen[found], known[label] = label, True
                                        found += 1
                                    votes[label] += weight
                total, best, largest = np.float32(0), np.int32(0), np.float32(-1)
                for n in range(found):
                    label = seen[n]
                    value = max(votes[label], np.float32(0))
                    total += value
                    if value > largest or (value == largest and label < best):
                        best, largest = label, value
                total = max(total, np.float32(1e-30))
                winner[i, j, k], share[i, j, k] = best, max(largest, np.float32(0)) / total
                for n in range(found):
                    label = seen[n]
                    if row[label] >= 0:
                        probabilities[row[label], i, j, k] = max(votes[label], np.float32(0)) / total
                    votes[label], known[label] = 0, False
