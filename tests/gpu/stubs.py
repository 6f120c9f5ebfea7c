"""Stand-ins for the kernels: they write plausible numbers at once, where interpreting a kernel would take minutes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

Arguments = dict[str, Any]

_RISING = itertools.count(1)
"""Values of mutual information: each step improves on the one before."""


def run_stub(name: str, arguments: Arguments) -> None:
    """Write what a kernel would write, roughly.

    Raises
    ------
    KeyError
        If there is no stand-in for the kernel.
    """
    STUBS[name](arguments)


def _fill(**values: float | tuple[float, float]) -> Callable[[Arguments], None]:
    """Fill outputs with a number, or with random numbers in a range; an output may be ``None``."""

    def write(arguments: Arguments) -> None:
        for name, value in values.items():
            out = arguments.get(name)
            if isinstance(out, torch.Tensor):
                out.uniform_(*value) if isinstance(value, tuple) else out.fill_(value)

    return write


def _copy(source: str) -> Callable[[Arguments], None]:
    def write(arguments: Arguments) -> None:
        arguments["out"].copy_(arguments[source].reshape(arguments["out"].shape))

    return write


def _take_means(arguments: Arguments) -> None:
    arguments["means"][:3].uniform_(-0.01, 0.01)
    _fill(parts=1e-3, positive=1.0)(arguments)


def _write_gradient(arguments: Arguments) -> None:
    _fill(gradient=(-1e-3, 1e-3), trace=1e-3, parts=1e-3)(arguments)
    gradient = arguments["gradient"]
    if arguments.get("with_trace"):  # the curvature follows in memory
        gradient.as_strided((4, *gradient.shape[1:]), gradient.stride())[3].fill_(1e-3)


def _compare(arguments: Arguments) -> None:
    arguments["table"].fill_(0.1)
    arguments["numbers"].fill_(next(_RISING))


def _propose(arguments: Arguments) -> None:
    arguments["step"].fill_(0.0)
    arguments["proposed"].copy_(arguments["placement"])


def _keep_other(arguments: Arguments) -> None:
    """Keep what is compared, so that the alignment goes on after its first level."""
    for name in ("values", "weight", "matrix", "model"):
        arguments[name].copy_(arguments[f"new_{name}"])


STUBS: dict[str, Callable[[Arguments], None]] = {
    "_add": _fill(out=0.0),
    "_add_gradient": _fill(out=0.0, parts=1e-3),
    "_add_joint": _fill(joints=1.0),
    "_add_moments": _fill(moments=1.0),
    "_add_opposite_steps": _fill(out_u=0.5, out_v=-0.5),
    "_add_parts": _fill(out=1.0),
    "_add_rows": _fill(moments=1.0),
    "_add_shares": _fill(shares=(0.0, 1.0)),
    "_add_scores": _fill(products=0.01),
    "_add_step": _copy("step"),
    "_apply_update": _fill(),
    "_average": _fill(average=1.0),
    "_average_blocks": _fill(out=(0.01, 1.0)),
    "_average_box": _copy("source"),
    "_average_weights": _fill(means=1.0, shares=1.0, parts=1.0),
    "_collect": _fill(gradient=1e-3, information=0.0),
    "_compare": _compare,
    "_compute_determinant": _fill(out=1.0),
    "_compute_mean": _fill(mean=0.5),
    "_cover": _fill(out=1.0),
    "_compute_overlap": _fill(out=1.0),
    "_compute_step": _take_means,
    "_correlate": _fill(factors=0.1, parts=1e-3),
    "_divide_slopes": _fill(slopes=0.1),
    "_divide": _fill(values=(0.0, 1.0), overlap=1e-6),
    "_distances": _fill(costs=(0.01, 1.0), shares=1.0),
    "_fill_gaps": _fill(),
    "_find_range": _fill(ends=1.0),
    "_filter": _copy("u"),
    "_filter_all_axes": _copy("source"),
    "_filter_axis": _copy("source"),
    "_filter_columns": _copy("source"),
    "_find_ends": _fill(ends=0.5, weights=1.0),
    "_find_unit": _fill(numbers=1.0),
    "_find_quantiles": _fill(ends=1.0),
    "_find_minima": _fill(out=(-0.4, 0.4)),
    "_fit_displacements": _copy("target_map"),
    "_gradient": _write_gradient,
    "_interpolate": _fill(out=0.25),
    "_judge": _fill(accepted=1.0, damping=0.1),
    "_judge_value": _fill(factor=1.0),
    "_invert_points": _fill(points=1.0, residuals=0.0),
    "_keep_better": _keep_other,
    "_laplacian": _fill(out=0.0, parts=1e-3),
    "_map": _copy("source"),
    "_means": _fill(),
    "_multiply": _fill(products=0.5),
    "_normalise": _fill(out=(-1.0, 1.0)),
    "_propose": _propose,
    "_resample": _fill(values=(0.0, 1.0), weights=1.0),
    "_sample": _fill(out=0.5),
    "_sample_heaviest": _fill(out=1.0),
    "_sample_voxels": _fill(samples=(0.0, 1.0)),
    "_sample_both": _fill(samples=20.0),
    "_square_slopes": _fill(parts=0.1),
    "_summarise": _fill(out=1.0),
    "_summarise_box": _fill(parts=1.0),
    "_select_complete": _fill(),
    "_scale": _copy("source"),
    "_sum_box": _fill(parts=1.0),
    "_sum_moments": _fill(sums=1.0),
    "_sum_differences": _fill(total=(0.0, 1.0)),
    "_sum_variance": _fill(sums=1.0),
    "_update": _fill(variable=(-0.01, 0.01)),
    "_write_rows": _fill(rows=(0.01, 1.0), found=1.0),
    "_write_descriptors": _fill(out=(0.01, 1.0)),
    "warp_with_slopes": _fill(warped=0.5, overlap=1.0, slopes=0.1),
}
