"""What every benchmark needs: a description of the machine, timed calls, CSV files, tables.

At import only the standard library is needed: the workers of other tools use this module in environments that hold
neither this library nor rich.
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
    """CPU, cores, threads, system and versions; nothing that changes from one run to the next.

    Without torch the threads are those that ITK takes.
    """
    try:
        import torch
    except ImportError:
        threads, versions = itk_threads(), {}
    else:
        threads, versions = torch.get_num_threads(), {"torch": torch.__version__}
    found = {
        "cpu": cpu_model(),
        "cores": str(cores()),
        "threads": str(threads),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }
    if (here := sys.modules.get("convexadam")) is not None:
        found["convexadam"] = here.__version__
    return found


def cpu_model() -> str:
    """Name of the processor, as its maker has it."""
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
    """Logical cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def installed_version(distribution: str) -> str:
    """Version of an installed package; empty where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def thread_environment(threads: int | None) -> dict[str, str]:
    """Environment variables that hold a process to a number of threads; none for ``None``."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", ITK_THREADS)
    return {} if threads is None else dict.fromkeys(names, str(threads))


def itk_threads() -> int:
    """Threads that tools built on ITK take."""
    return int(os.environ.get(ITK_THREADS) or cores())


def peak_mb() -> float | None:
    """Largest resident memory of this process so far, in MB (10^6 bytes); ``None`` where the system does not tell."""
    if (peak := _status_bytes("VmHWM")) is not None:  # getrusage on Linux starts with the peak of the parent process
        return peak / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / 1e6


def memory_above(call: Callable[[], Any]) -> int | None:
    """Call, and return the largest resident memory beyond that before, in bytes; ``None`` where there is no /proc.

    A thread reads the present value every millisecond. Where the kernel keeps the largest value and lets it be reset,
    that counts too: nothing escapes it.
    """
    gc.collect()
    before = _status_bytes("VmRSS")
    if before is None:
        call()
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        kept = "VmHWM"
    except OSError:
        kept = "VmRSS"
    seen = _sampled_peak(call)
    return max(seen, _status_bytes(kept) or 0) - before


def _sampled_peak(call: Callable[[], Any]) -> int:
    done, seen = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(max(seen.pop(), _status_bytes("VmRSS") or 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return seen[0]


def _status_bytes(name: str) -> int | None:
    """Return a size from the status of this process, in bytes; ``None`` where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def timed(call: Callable[[], Result], repeat: int = 1) -> tuple[Result, dict[str, Any]]:
    """Call one or more times; what the last call returned, the median of the seconds, peak memory and environment.

    The peak memory is that of the process until the first call ended, so that it means the same for any ``repeat``.
    """
    found: list[Result] = []
    seconds = []
    peak = None
    for run in range(repeat):
        found.clear()  # the memory of one result, not of two
        start = time.perf_counter()
        found.append(call())
        seconds.append(time.perf_counter() - start)
        if run == 0:
            peak = peak_mb()
    measured = {"seconds": statistics.median(seconds), "runs": repeat, "peak_mb": peak, "environment": environment()}
    return found[0], measured


def straight_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line through points; at least two different ``x``."""
    centre, level = statistics.fmean(x), statistics.fmean(y)
    slope = sum((a - centre) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - centre) ** 2 for a in x)
    return level - slope * centre, slope


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Power of ``x`` that ``y`` grows with: slope of the line through the logarithms."""
    return straight_line([math.log(a) for a in x], [math.log(b) for b in y])[1]


def interleaved_ms(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of several calls that take turns, so that what else the machine does meets all of them.

    Each is called once before. A call waits for its device itself.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in found.items()}


def read_job() -> dict[str, Any]:
    """Read what the benchmark asks of this worker: the JSON file that its only argument names."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return job


def run_worker(command: Sequence[str], job: Mapping[str, Any], folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Run a worker in a process of its own; what it wrote to ``job["measured"]``.

    Raises
    ------
    RuntimeError
        If the worker failed; the message is the last line that it wrote, without the names of folders.
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
    """Rows of a CSV file; none where there is no file.

    Raises
    ------
    ValueError
        If its columns are others.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ()) != list(columns):
            raise ValueError(
                f"{path.name} has other columns than this benchmark writes; move it away or choose another"
            )
        return list(reader)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a CSV file, whole or not at all; its folder is made where it is missing."""
    from convexadam.io import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def merged_rows(old: Iterable[Row], new: Iterable[Row], key: Sequence[str]) -> list[Row]:
    """Old rows with the new ones in place of those of the same key, in the order of the keys."""
    rows = {tuple(row[name] for name in key): row for row in [*old, *new]}
    return [rows[found] for found in sorted(rows)]


def progress(text: str) -> None:
    """One line to the standard error stream."""
    print(text, file=sys.stderr, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
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
