"""Time of whole registrations, of their stages and of each kernel on a GPU, beside what its memory allows.

Kernels run at the settings of the published package: nodes of 2 voxels, cells of 6, windows of 4 cells each way. Pairs
are smooth random volumes. All times are medians, warm, in milliseconds.

ms           kernels: on the device alone; registrations and their stages: as the caller waits for them
host_ms      kernels: one of ten calls in a row, as the caller waits; more than ``ms`` where launching takes longer
bytes, operations   the least that the kernel has to do (``work.py``)
floor_ms     time of these bytes at the speed of a copy on this device, measured first
ratio        ``ms`` over ``floor_ms``
peak_mb      largest memory that torch held, inputs included
value        difference from the CPU in voxels, mean and largest; version of the published package

With ``CONVEXADAM_CUDA_GRAPH=0`` steps are not recorded, and the rows of registrations are named ``plain``.

Rows are written as they come, the sizes that matter most first. Needs nothing from the network, and neither nibabel nor
SimpleITK. Without a GPU it says what did not run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
if importlib.util.find_spec("convexadam") is None:
    sys.path.insert(0, str(HERE.parents[1] / "src"))

import harness  # noqa: E402 - the folders above are no packages
import work  # noqa: E402
from work import Work  # noqa: E402

import convexadam  # noqa: E402
from convexadam import preset, register  # noqa: E402
from convexadam.kernels.recording import SWITCH  # noqa: E402

Triple = tuple[int, int, int]

SIZES: tuple[Triple, ...] = ((256, 256, 256), (192, 160, 192), (128, 128, 128), (512, 512, 600))
CPU_VOXELS = 192 * 160 * 192
"""Largest volume that is also registered on the CPU."""

BUFFER = 2**28
"""Values that are copied to measure the speed of the memory, and to keep the device busy."""

ENVIRONMENT = ("gpu", "driver", "torch", "triton", "version")
MEASURES = ("ms", "host_ms", "bytes", "operations", "floor_ms", "ratio", "peak_mb", "value", "error")
KEY = ("gpu", "size", "what", "name")
COLUMNS = (*ENVIRONMENT[:1], "size", "what", "name", *MEASURES, *ENVIRONMENT[1:])

AGREED_MEAN, AGREED_LARGEST, AGREED_SIMILARITY = 0.02, 0.3, 0.002
"""Adam does not repeat more closely: a change of features by 1e-6 moves single voxels by up to 0.16."""
BOX3 = tuple(t / 27 for t in (1, 3, 6, 7, 6, 3, 1))

Row = dict[str, str]
Kernel = tuple[str, Callable[[], Any], Work]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a part of it failed, other than for memory, or GPU and CPU disagree."""
    options = parsed(arguments)
    if not torch.cuda.is_available():
        print("No GPU is at hand. These did not run: " + ", ".join(parts(options)))
        return 0
    about = environment()
    print(", ".join(f"{name} {value or '?'}" for name, value in about.items()))
    bandwidth = measured_bandwidth()
    print(f"copy on the device: {bandwidth / 1e9:.0f} GB/s")
    failed = False
    for size in options.sizes:
        rows = []
        for row in of_size(size, options, bandwidth):
            rows.append({column: {**about, **row}.get(column, "") for column in COLUMNS})
            failed |= bool(row.get("error")) and row["error"] != "out of memory"
            old = harness.read_rows(options.output, COLUMNS)
            harness.write_rows(options.output, COLUMNS, harness.merged_rows(old, rows[-1:], KEY))
        shown = ("what", "name", *MEASURES)
        harness.print_table(written(size), shown, [[row[column] or "-" for column in shown] for row in rows])
    return 1 if failed else 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=_size, default=list(SIZES), metavar="IxJxK", help="voxels")
    parser.add_argument("--presets", nargs="*", default=["default", "published"], metavar="PRESET")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="calls of which the median counts (>= 5)")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results", metavar="DIR", help="of gpu.csv")
    options = parser.parse_args(arguments)
    options.output = options.output / "gpu.csv"
    if options.repeats < 5:
        parser.error("--repeats is at least 5")
    return options


def _size(text: str) -> Triple:
    i, j, k = (int(n) for n in text.split("x"))
    return i, j, k


def written(size: Triple) -> str:
    """Size as the table has it."""
    return "x".join(str(n) for n in size)


def parts(options: argparse.Namespace) -> list[str]:
    """Everything that would run, in words."""
    what = ["kernels", *(f"preset {name}" for name in options.presets), "convexAdam", "comparison with the CPU"]
    return [f"{part} at {written(size)}" for size in options.sizes for part in what]


def environment() -> dict[str, str]:
    """GPU, driver and versions."""
    driver = ""
    if (tool := shutil.which("nvidia-smi")) is not None:
        command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        driver = lines[0] if lines else ""
    triton = harness.installed_version("triton") or harness.installed_version("pytorch-triton-rocm")
    values = torch.cuda.get_device_name(), driver, torch.__version__, triton, convexadam.__version__
    return dict(zip(ENVIRONMENT, values, strict=True))


# Time ---------------------------------------------------------------------------------------------------------------


def measured_bandwidth() -> float:
    """Bytes per second of a copy of 1 GiB on the device, read and written."""
    source = torch.zeros(BUFFER, device="cuda")
    target = torch.empty_like(source)
    return work.copied(source.numel()).bytes / (1e-3 * device_ms(lambda: target.copy_(source), 10))


def device_ms(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call on the device.

    Each call is queued behind copies that take longer than the host needs to launch it, so that the device never
    waits; they also displace what the call before left in the cache.
    """
    ahead = torch.empty(2, BUFFER, dtype=torch.uint8, device="cuda")
    for _ in range(3):
        call()
    found = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        for _ in range(4):
            ahead[0].copy_(ahead[1])
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return statistics.median(found)


def host_ms(call: Callable[[], Any], repeats: int, *, batch: int = 1) -> float:
    """Median time of a call as the caller sees it, warm; ``batch`` calls in a row are divided by their number."""
    call()
    found = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(batch):
            call()
        torch.cuda.synchronize()
        found.append(1e3 * (time.perf_counter() - start) / batch)
    return statistics.median(found)


# What is measured ---------------------------------------------------------------------------------------------------


def of_size(size: Triple, options: argparse.Namespace, bandwidth: float) -> Iterator[Row]:
    """Rows of one size, one after the other; a part that fails leaves its error and the next one runs."""
    tasks: list[tuple[str, str, Callable[[], list[Row]]]] = [
        ("kernel", name, lambda make=make: [kernel_row(*make(size), options.repeats, bandwidth)])
        for name, make in KERNELS.items()
    ]
    tasks += [("register", name, lambda name=name: registered(size, name, options.repeats)) for name in options.presets]
    tasks += [("published", "convexAdam", lambda: [published(size, options.repeats)])]
    if size[0] * size[1] * size[2] <= CPU_VOXELS:
        tasks += [("agreement", name, lambda name=name: [agreement(size, name)]) for name in options.presets]
    for what, name, task in tasks:
        harness.progress(f"{written(size)}: {what} {name}")
        try:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            rows = task()
        except (torch.cuda.OutOfMemoryError, convexadam.OutOfMemoryError):
            rows = [{"error": "out of memory"}]
        except Exception as error:  # whatever it is, the other parts are worth running
            rows = [{"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}]
        for row in rows:
            yield {"size": written(size), "what": what, "name": name, **row}


def kernel_row(call: Callable[[], Any], least: Work, repeats: int, bandwidth: float) -> Row:
    """Time of one kernel beside the time its traffic takes at the speed of a copy."""
    with torch.no_grad():
        milliseconds = device_ms(call, repeats)
        seen = host_ms(call, repeats, batch=10)
    floor = 1e3 * least.bytes / bandwidth
    return {
        "ms": f"{milliseconds:.4f}",
        "host_ms": f"{seen:.4f}",
        "bytes": str(least.bytes),
        "operations": str(least.operations),
        "floor_ms": f"{floor:.4f}",
        "ratio": f"{milliseconds / floor:.2f}",
        "peak_mb": _peak_mb(),
    }


def registered(size: Triple, name: str, repeats: int) -> list[Row]:
    """Whole registrations with a preset, and their stages."""
    fixed, moving = pair(size)
    config = preset(name)
    register(fixed, moving, config)  # compiles
    torch.cuda.reset_peak_memory_stats()
    stages: dict[str, list[float]] = {}

    def call() -> None:
        for stage, seconds in register(fixed, moving, config).timings.items():
            stages.setdefault(stage, []).append(1e3 * seconds)

    label = f"{name}, plain" if os.environ.get(SWITCH) == "0" else name
    total = {"name": label, "ms": f"{host_ms(call, repeats):.2f}", "peak_mb": _peak_mb()}
    each = [{"name": f"{label}: {stage}", "ms": f"{statistics.median(found):.2f}"} for stage, found in stages.items()]
    return [total, *each]


def agreement(size: Triple, name: str) -> Row:
    """Difference between the displacements on the GPU and on the CPU, and between the similarities reached."""
    fixed, moving = pair(size)
    config = preset(name)
    found = [register(f, m, config) for f, m in ((fixed, moving), (fixed.cpu(), moving.cpu()))]
    fields = [result.transform.to_voxels().cpu() for result in found]
    apart = (fields[0] - fields[1]).norm(dim=0)
    after = [result.diagnostics["dissimilarity_after"] for result in found]
    mean, largest, ratio = float(apart.mean()), float(apart.max()), abs(after[0] / after[1] - 1)
    row = {"value": f"mean {mean:.4f}, largest {largest:.3f} voxel; similarity {100 * ratio:.3f} %"}
    agree = mean <= AGREED_MEAN and largest <= AGREED_LARGEST and ratio <= AGREED_SIMILARITY
    return row if agree else row | {"error": f"must be at most {AGREED_MEAN}, {AGREED_LARGEST}, {AGREED_SIMILARITY}"}


def published(size: Triple, repeats: int) -> Row:
    """Time the published package on the same device with its defaults (float16), if it is installed."""
    if importlib.util.find_spec("convexAdam") is None:
        return {"value": "not installed"}
    for module in ("SimpleITK", "nibabel"):
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            sys.modules[module] = _stand_in(module)
    convex_adam_pt = importlib.import_module("convexAdam.convex_adam_MIND").convex_adam_pt
    fixed, moving = pair(size)

    def call() -> None:
        convex_adam_pt(fixed, moving, dtype=torch.float16, device=torch.device("cuda"))

    call()
    torch.cuda.reset_peak_memory_stats()
    milliseconds = host_ms(call, repeats)
    return {"ms": f"{milliseconds:.2f}", "peak_mb": _peak_mb(), "value": harness.installed_version("convexAdam")}


def _stand_in(name: str) -> types.ModuleType:
    """Make a module whose every name is a class: the package only asks whether its input is of one of them."""

    class _Empty(types.ModuleType):
        def __getattr__(self, attribute: str) -> type:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            setattr(self, attribute, type(attribute, (), {}))
            found: type = self.__dict__[attribute]
            return found

    return _Empty(name)


def _peak_mb() -> str:
    return f"{torch.cuda.max_memory_allocated() / 1e6:.0f}"


def pair(size: Triple, device: str = "cuda") -> tuple[torch.Tensor, torch.Tensor]:
    """Two smooth random volumes, the second displaced by up to some 4 voxels, made where they are needed."""
    generator = torch.Generator().manual_seed(0)  # the same volumes on every device

    def smooth(channels: int, cell: int) -> torch.Tensor:
        coarse = torch.randn((1, channels, *(-(-n // cell) + 1 for n in size)), generator=generator).to(device)
        return torch.nn.functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0]

    fixed = sum((cell**0.5 * smooth(1, cell) for cell in (3, 6, 12, 24)), torch.zeros((), device=device))
    shift = 1.5 * smooth(3, 32)
    axes = torch.meshgrid(*(torch.arange(n, device=device) for n in size), indexing="ij")
    scaled = [(axes[a] + shift[a]) * (2 / max(size[a] - 1, 1)) - 1 for a in (2, 1, 0)]
    options = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}
    moving = torch.nn.functional.grid_sample(fixed[None], torch.stack(scaled, -1)[None], **options)[0]
    return fixed[0], moving[0]


# Kernels at the settings of the published package -------------------------------------------------------------------


def _random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to("cuda")


def _halved(size: Triple, by: int) -> Triple:
    i, j, k = (max(n // by, 1) for n in size)
    return i, j, k


def _field(nodes: Triple) -> torch.Tensor:
    """Smooth displacements of a node or two: random ones would read the maps in no order at all."""
    coarse = 2 * _random(1, 3, *_halved(nodes, 8)) - 1
    return torch.nn.functional.interpolate(coarse, size=nodes, mode="trilinear", align_corners=True)[0]


def _mind_ssc(size: Triple) -> tuple[Callable[[], Any], Work]:
    from convexadam.kernels.mind_ssc import pooled_mind_ssc

    spacings = [(2, 2, 2), (6, 6, 6)]
    volume = pair(size)[0]
    return lambda: pooled_mind_ssc(volume, spacings), work.described(size, spacings)


def _cost_volume(size: Triple) -> tuple[Callable[[], Any], Work]:
    from convexadam.kernels.cost_volume import cost_volume
    from convexadam.kernels.window import Window

    cells = _halved(size, 6)
    fixed, moving = _random(12, *cells), _random(12, *cells).flip(1).contiguous()
    weights = {f"{name}_weight": _random(*cells) for name in ("fixed", "moving")}  # as in every registration
    window = Window((4, 4, 4))
    found = work.compared_over_windows(cells, len(window.steps))
    return lambda: cost_volume(fixed, moving, window, dtype=torch.float16, **weights), found


def _coupled_argmin(size: Triple) -> tuple[Callable[[], Any], Work]:
    from convexadam.kernels.coupled_argmin import coupled_argmin
    from convexadam.kernels.window import Window

    cells = _halved(size, 6)
    window = Window((4, 4, 4))
    costs, toward = _random(len(window.steps), *cells).half(), _field(cells)
    return lambda: coupled_argmin(costs, window, toward=toward, theta=0.1), work.cheapest(cells, len(window.steps))


def _warp_ssd(size: Triple, *, weights: int = 2) -> tuple[Callable[[], Any], Work]:
    from convexadam.kernels.warp_ssd import prepare_ssd

    nodes = _halved(size, 2)
    given = {f"{name}_weight": _random(*nodes) for name in ("fixed", "moving")[:weights]}  # as in every registration
    term = prepare_ssd(_random(12, *nodes), _random(12, *nodes).flip(1), **given)
    u = _field(nodes)
    out = torch.empty_like(u)
    return lambda: term(u, diffusion=1.25, out=out), work.gradient(nodes, weights=weights)


def _smooth(size: Triple) -> tuple[Callable[[], Any], Work]:
    from convexadam.kernels.smooth import smooth

    nodes = _halved(size, 2)
    field, after = _field(nodes), _random(*nodes)
    out = torch.empty_like(field)
    return lambda: smooth(field, BOX3, after=after, out=out), work.smoothed(nodes, len(BOX3))


def _adam(size: Triple) -> tuple[Callable[[], Any], Work]:
    from convexadam.kernels.adam import adam_step

    nodes = _halved(size, 2)
    state = [_field(nodes) for _ in range(4)]
    state[3].abs_()
    return lambda: adam_step(*state, step=5, learning_rate=1.0, eps=1e-8), work.moved(nodes)


def _add_step(size: Triple) -> tuple[Callable[[], Any], Work]:
    from convexadam.kernels.warp import add_step

    nodes = _halved(size, 2)
    field, step = _field(nodes), 0.5 * _field(nodes)
    out = torch.empty_like(field)
    return lambda: add_step(field, step, longest=0.5, out=out), work.composed(nodes)


KERNELS: dict[str, Callable[[Triple], tuple[Callable[[], Any], Work]]] = {
    "mind_ssc": _mind_ssc,
    "cost_volume": _cost_volume,
    "coupled_argmin": _coupled_argmin,
    "warp_ssd": _warp_ssd,
    "warp_ssd without weights": lambda size: _warp_ssd(size, weights=0),
    "smooth": _smooth,
    "adam": _adam,
    "add_step": _add_step,
}


if __name__ == "__main__":
    sys.exit(main())
