"""Time of each operation with its compiled kernel and with the reference in torch.

The grids are those of a volume of 160 x 192 x 224 voxels, the settings those of the presets. Calls of reference and
kernel alternate, and the median of each is reported.

ratio        ``reference_ms`` over ``kernel_ms``
bytes, operations   least work of the operation (``benchmarks/gpu/work.py`` and the file of the operation)
floor_ms     time of these bytes at the bandwidth of a large copy on this device, measured first
over_floor   ``kernel_ms`` over ``floor_ms``; below 1 if the arrays remain in the cache
gops         10^9 of these operations per second
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "gpu")]

import harness  # noqa: E402 - these folders are no packages
import torch  # noqa: E402
import work  # noqa: E402
from case import Case, Triple  # noqa: E402

import convexadam  # noqa: E402
from convexadam import use_backend  # noqa: E402

OPERATIONS = (
    "mind_ssc", "cost_volume", "coupled_argmin", "warp_ssd", "smooth", "adam", "add_step", "interpolate", "jacobian",
    "invert", "lncc", "diffusion", "bending", "volume_change", "bilateral", "damped_step",
    "mutual_information", "patch_match", "joint_fusion", "label_vote",
    "local_normalisation", "block_mean",
)  # fmt: skip
SIZE: Triple = (160, 192, 224)
COLUMNS = (
    "backend", "size", "operation", "case", "grid", "reference_ms", "kernel_ms", "ratio", "bytes", "operations",
    "floor_ms", "over_floor", "gops", "runs", "version", "threads", "environment", "error",
)  # fmt: skip
KEY = ("backend", "size", "operation", "case")

Row = dict[str, str]


def format_size(size: Triple) -> str:
    """Format a size as in the table."""
    return "x".join(str(n) for n in size)


def synchronise(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    """Return a function that waits until the device has finished."""
    if device == "cpu":
        return call

    def call_and_wait() -> None:
        call()
        torch.cuda.synchronize()

    return call_and_wait


def measure_bandwidth(device: str, repeats: int) -> float:
    """Measure the bytes per second, read and written, of a copy of 256 MiB."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    copy = synchronise(functools.partial(target.copy_, source), device)
    return work.copied(source.numel()).bytes / (1e-3 * harness.interleaved_ms({"copy": copy}, repeats)["copy"])


def measure_case(case: Case, backend: str, device: str, repeats: int) -> dict[str, float]:
    """Measure the milliseconds of the reference and of the kernel in alternating calls."""
    calls = {}
    for name in ("reference", backend):
        with use_backend(name):
            calls[name] = synchronise(_bind_backend(case.make(name), name), device)
    return harness.interleaved_ms(calls, repeats)


def _bind_backend(call: Callable[[], Any], backend: str) -> Callable[[], Any]:
    def run() -> None:
        with use_backend(backend):
            call()

    return run


def iterate_rows(options: argparse.Namespace, backend: str, device: str) -> Iterator[Row]:
    """Yield a row for each case; an operation that fails yields its error, and the next one runs."""
    speed = measure_bandwidth(device, options.repeats)
    print(f"copy on this device: {speed / 1e9:.1f} GB/s")
    for operation in options.only:
        harness.progress(operation)
        try:
            for case in importlib.import_module(f"bench_{operation}").cases(options.size, device):
                times = measure_case(case, backend, device, options.repeats)
                yield {"operation": operation, **_make_row(case, times["reference"], times[backend], speed)}
        except Exception as error:  # of any kind: the other operations are measured nevertheless
            yield {"operation": operation, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def _make_row(case: Case, reference_ms: float, kernel_ms: float, speed: float) -> Row:
    floor = 1e3 * case.work.bytes / speed
    return {
        "case": case.name,
        "grid": format_size(case.grid),
        "reference_ms": f"{reference_ms:.4g}",
        "kernel_ms": f"{kernel_ms:.4g}",
        "ratio": f"{reference_ms / kernel_ms:.2f}",
        "bytes": str(case.work.bytes),
        "operations": str(case.work.operations),
        "floor_ms": f"{floor:.4g}",
        "over_floor": f"{kernel_ms / floor:.2f}",
        "gops": f"{1e-6 * case.work.operations / kernel_ms:.2f}",
    }


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; invalid options end the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(OPERATIONS), choices=OPERATIONS, metavar="OPERATION")
    parser.add_argument("--size", type=_size, default=SIZE, metavar="IxJxK", help="voxels of the volume")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="calls of each, at least 5")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch and of the kernels")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results" / "kernels.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    if options.repeats < 5:
        parser.error(f"--repeats must be at least 5, got {options.repeats}")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    try:
        harness.read_rows(options.output, COLUMNS)
    except ValueError as error:
        parser.error(str(error))
    return options


def _size(text: str) -> Triple:
    i, j, k = (int(n) for n in text.split("x"))
    if min(i, j, k) < 8:
        raise ValueError
    return i, j, k


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if an operation failed."""
    options = parse_arguments(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backend = "triton" if device == "cuda" else "cpu"
    about = harness.environment()
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{about['cpu']}, {about['cores']} cores"
    same = {
        "backend": backend,
        "size": format_size(options.size),
        "runs": str(options.repeats),
        "version": convexadam.__version__,
        "threads": about["threads"],
        "environment": f"{machine}; Python {about['python']}; torch {about['torch']}",
    }
    measured = []
    for row in iterate_rows(options, backend, device):
        measured.append({column: {**same, **row}.get(column, "") for column in COLUMNS})
        old = harness.read_rows(options.output, COLUMNS)
        harness.write_rows(options.output, COLUMNS, harness.merged_rows(old, measured[-1:], KEY))
    shown = [c for c in COLUMNS[2:] if c not in same and any(row[c] for row in measured)]
    title = f"{same['size']} voxels, {backend} and reference, {same['environment']}"
    harness.print_table(title, shown, [[row[column] or "-" for column in shown] for row in measured])
    return 1 if any(row["error"] for row in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
