"""Common functions of the benchmarks: environment, timing, memory, CSV files and tables.

Imports only the standard library at module level, because the workers of other tools use this module in environments
without this library and without rich.
"""

from __future__ import annotations

import csv
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
Row = dict[str, str]

ITK_THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def environment() -> dict[str, str]:
    """Return CPU, cores, threads, system and versions, all of which are constant between runs.

    Without torch the number of threads is that of ITK.
    """
    try:
        import torch
    except ImportError:
        threads, versions = itk_threads(), {}
    else:
        threads, versions = torch.get_num_threads(), {"torch": torch.__version__}
    facts = {
        "cpu": cpu_model(),
        "cores": str(cores()),
        "threads": str(threads),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }
    if (library := sys.modules.get("convexadam")) is not None:
        facts["convexadam"] = library.__version__
    return facts


def cpu_model() -> str:
    """Return the model name of the processor."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of logical cores available to this process."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def installed_version(distribution: str) -> str:
    """Return the version of an installed package; empty if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def thread_environment(threads: int | None) -> dict[str, str]:
    """Return the environment variables that limit a process to a number of threads; none for ``None``."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", ITK_THREADS)
    return {} if threads is None else dict.fromkeys(names, str(threads))


def itk_threads() -> int:
    """Return the number of threads that ITK uses."""
    return int(os.environ.get(ITK_THREADS) or cores())


def peak_mb() -> float | None:
    """Return the peak resident memory of this process in MB (10^6 bytes); ``None`` if unavailable."""
    if (peak := _status_bytes("VmHWM")) is not None:  # getrusage on Linux inherits the peak of the parent process
        return peak / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / 1e6


def memory_above(call: Callable[[], Any]) -> int | None:
    """Return the peak resident memory of a call beyond that before it, in bytes; ``None`` without /proc.

    A thread samples the present value every millisecond. If the kernel allows its peak value to be reset, that is used
    as well, so that no peak is missed.
    """
    gc.collect()
    before = _status_bytes("VmRSS")
    if before is None:
        call()
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        peak_name = "VmHWM"
    except OSError:
        peak_name = "VmRSS"
    sampled = _sample_peak(call)
    return max(sampled, _status_bytes(peak_name) or 0) - before


def _sample_peak(call: Callable[[], Any]) -> int:
    done, peaks = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.001):
            peaks.append(max(peaks.pop(), _status_bytes("VmRSS") or 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return peaks[0]


def _status_bytes(name: str) -> int | None:
    """Read a size from the status of this process, in bytes; ``None`` if the system does not provide it."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def timed(call: Callable[[], Result], repeat: int = 1) -> tuple[Result, dict[str, Any]]:
    """Call a function ``repeat`` times; return its last result, and median seconds, peak memory and environment.

    ``cpu_seconds`` are those of all threads of the process: beside other work, they say more than the clock. The peak
    memory is that of the process until the end of the first call, so that it does not depend on ``repeat``.
    """
    results: list[Result] = []
    seconds, cpu_seconds = [], []
    peak = None
    for run in range(repeat):
        results.clear()  # so that only one result is in memory
        start, cpu_start = time.perf_counter(), time.process_time()
        results.append(call())
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        if run == 0:
            peak = peak_mb()
    measured = {
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
        "runs": repeat,
        "peak_mb": peak,
        "environment": environment(),
    }
    return results[0], measured


def straight_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fit a line to points by least squares; return intercept and slope. Needs at least two different ``x``."""
    centre, level = statistics.fmean(x), statistics.fmean(y)
    slope = sum((a - centre) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - centre) ** 2 for a in x)
    return level - slope * centre, slope


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Fit ``y ~ x ** p`` and return ``p``, the slope of the least-squares line through the logarithms."""
    return straight_line([math.log(a) for a in x], [math.log(b) for b in y])[1]


def interleaved_ms(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Measure the median milliseconds of several functions in alternating calls, which share disturbances.

    Each is called once before, and must wait for its device.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def read_job() -> dict[str, Any]:
    """Read the job of this worker: the JSON file named by its only argument."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return job


def run_worker(command: Sequence[str], job: Mapping[str, Any], folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Run a worker in its own process and return what it wrote to ``job["measured"]``.

    Raises
    ------
    RuntimeError
        If the worker failed; the message is the last line of its output, without folder names.
    """
    request = folder / "job.json"
    request.write_text(json.dumps(dict(job)), encoding="utf-8")
    done = subprocess.run(
        [*command, str(request)],
        env=dict(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise RuntimeError(
            f"ended by signal {-done.returncode}" + (": out of memory?" if done.returncode == -9 else "")
        )
    if done.returncode > 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1].replace(f"{folder}{os.sep}", ""))
    measured: dict[str, Any] = json.loads(Path(job["measured"]).read_text(encoding="utf-8"))
    return measured


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Read the rows of a CSV file; none if the file is missing.

    Raises
    ------
    ValueError
        If its columns differ.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ()) != list(columns):
            raise ValueError(
                f"{path.name} must have the columns of this benchmark, got {reader.fieldnames}; choose another file"
            )
        return list(reader)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a CSV file atomically; create its folder if missing."""
    from convexadam.io import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def merged_rows(old: Iterable[Row], new: Iterable[Row], key: Sequence[str]) -> list[Row]:
    """Merge rows: new ones replace old ones with the same key; sorted by key."""
    rows = {tuple(row[name] for name in key): row for row in [*old, *new]}
    return [rows[values] for values in sorted(rows)]


def progress(text: str) -> None:
    """Print a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, its first column left-aligned, the others right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False)
    if not console.is_terminal:
        console = Console(markup=False, width=160)
    console.print(table)
