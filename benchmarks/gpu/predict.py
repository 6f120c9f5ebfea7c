"""Predict how long the stages of a registration take on a GPU that is not there.

    python benchmarks/gpu/predict.py            writes benchmarks/results/gpu_predicted.csv

Launches are recorded on the pretended GPU of ``tests/gpu``, compiled, and counted in machine code. The model, for an
H200, is a set of assumptions; nothing of it is measured:

- A launch takes the longest of three times, and at least `LAUNCH`: each array once at `BANDWIDTH`; instructions, of
  which each of four schedulers of a multiprocessor issues one in `ISSUE` of its cycles, a special function (exp2 or
  square root) taking eight; loads and stores from the L1 cache, one of 32 lanes with 4 bytes in a cycle. Programs are
  in whole rounds over the multiprocessors. All threads go the longest way: no early exits.
- A torch operation takes each of its arrays once at `BANDWIDTH`, and at least `LAUNCH`.
- The host needs `HOST_OPERATION` for a torch operation, `HOST_LAUNCH` for a launch by Triton, and `HOST_REPLAY` for a
  recorded step. A stage takes the longer of what the host and the device need. The latency of a single program, such
  as that of the trimmed fits, is not counted.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "gpu"))

import torch  # noqa: E402 - the folder above is no package
from pretend import DEVICE, PretendedGpu, build_guard, describe, flatten_tensors  # noqa: E402
from stubs import run_stub  # noqa: E402
from triton.runtime.interpreter import GridExecutor  # noqa: E402

from convexadam import preset, register  # noqa: E402
from convexadam.registration.clock import Clock  # noqa: E402

BANDWIDTH = 4.3e12  # bytes per second
MULTIPROCESSORS, SCHEDULERS, CLOCK = 132, 4, 1.75e9
ISSUE = 0.7
LAUNCH = 2e-6  # seconds
HOST_OPERATION, HOST_LAUNCH, HOST_REPLAY = 5e-6, 20e-6, 10e-6

CASES = (("published", (256, 256, 256)), ("published", (192, 160, 192)), ("default", (256, 256, 256)))
OUTPUT = ROOT / "benchmarks" / "results" / "gpu_predicted.csv"
READ_AND_WRITTEN = {"adam._update": ("variable", "mean", "square")}
"""Arrays that count twice."""


@dataclass
class Event:
    """A launch of a kernel (``signature`` and number of ``programs``) or an operation of torch."""

    stage: str
    kernel: str
    bytes: int
    programs: int = 0
    signature: Any = None


@dataclass
class Recorder:
    """Events in the order in which the device executes them, and the seconds of the host for each stage."""

    stage: str = "prepare"
    events: list[Event] = field(default_factory=list)
    host: dict[str, float] = field(default_factory=dict)
    recordings: dict[int, list[Event]] = field(default_factory=dict)

    def note(self, event: Event, seconds: float) -> None:
        """Note an event and what the host needs for it."""
        self.events.append(event)
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Add time of the host."""
        self.host[self.stage] = self.host.get(self.stage, 0.0) + seconds


class RecordingGpu(PretendedGpu):
    """A pretended GPU that notes launches, recorded ones as often as they are replayed, and operations of torch."""

    def __init__(self, guard: Path, recorder: Recorder) -> None:
        super().__init__(guard, run_stub)
        self._recorder = recorder

    def __enter__(self) -> RecordingGpu:
        super().__enter__()
        run = GridExecutor.__call__

        def launch(executor: Any, *args: Any, **kwargs: Any) -> None:
            self._recorder.note(_describe_launch(self._recorder.stage, executor, args, kwargs), HOST_LAUNCH)
            run(executor, *args, **kwargs)

        GridExecutor.__call__ = launch  # what entered restores it
        return self

    def dispatch(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Note the operation if a kernel runs."""
        before = sum(self.record.operations.values())
        result = super().dispatch(func, args, kwargs)
        if sum(self.record.operations.values()) > before:
            tensors = flatten_tensors((args, kwargs, result))
            size = sum({id(t): t.numel() * t.element_size() for t in tensors}.values())
            self._recorder.note(Event(self._recorder.stage, "torch", size), HOST_OPERATION)
        return result

    def begin_recording(self) -> Any:
        """See `PretendedGpu`."""
        self._first = len(self._recorder.events)
        return super().begin_recording()

    def end_recording(self, before: Any) -> Any:
        """See `PretendedGpu`."""
        recorded = super().end_recording(before)
        events = self._recorder.events
        self._recorder.recordings[id(recorded)] = events[self._first :]
        del events[self._first :]
        return recorded

    def replay(self, recorded: Any) -> None:
        """See `PretendedGpu`."""
        stage = self._recorder.stage
        for event in self._recorder.recordings[id(recorded)]:
            self._recorder.events.append(dataclasses.replace(event, stage=stage))
        self._recorder.wait(HOST_REPLAY)
        super().replay(recorded)


def _describe_launch(stage: str, executor: Any, args: Any, kwargs: Any) -> Event:
    function = executor.fn
    named = dict(zip(executor.arg_names, args, strict=False)) | kwargs
    grid = executor.grid(named) if callable(executor.grid) else executor.grid
    kernel = f"{function.__module__.split('.')[-2]}.{function.__name__}"
    sizes = {name: t.numel() * t.element_size() for name, t in named.items() if isinstance(t, torch.Tensor)}
    size = sum(sizes.values()) + sum(sizes[name] for name in READ_AND_WRITTEN.get(kernel, ()))
    described = tuple(map(describe, args)), tuple((key, describe(value)) for key, value in kwargs.items())
    return Event(stage, kernel, size, math.prod(grid), (function.__module__, function.__name__, *described))


def record(name: str, size: tuple[int, int, int], guard: Path) -> Recorder:
    """Register on the pretended GPU, the linear alignment with all of its iterations."""
    recorder = Recorder()
    follow = Clock.stage

    @contextlib.contextmanager
    def stage(self: Any, name: str) -> Iterator[None]:
        recorder.stage = name
        with follow(self, name):
            yield

    Clock.stage = stage  # type: ignore[method-assign]
    try:
        with RecordingGpu(guard, recorder):
            fixed, moving = (torch.rand(size, generator=torch.Generator().manual_seed(s)).to(DEVICE) for s in range(2))
            recorder.events.clear()
            recorder.host.clear()
            register(fixed, moving, preset(name))
    finally:
        Clock.stage = follow  # type: ignore[method-assign]
    return recorder


def count_instructions(events: list[Event], folder: Path) -> tuple[str, dict[Any, dict[str, int]]]:
    """Return the version of Triton, and what a warp of each different launch executes."""
    signatures = list(dict.fromkeys(event.signature for event in events if event.signature is not None))
    (folder / "launches.pkl").write_bytes(pickle.dumps(signatures))
    script = Path(__file__).with_name("machine_code.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(folder / "launches.pkl"), "90"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    return found["triton"], dict(zip(signatures, found["rows"], strict=True))


def predict_seconds(event: Event, counts: dict[str, int] | None) -> float:
    """Predict the time of an event on the device."""
    times = [LAUNCH, event.bytes / BANDWIDTH]
    if counts is not None:
        warps = -(-event.programs // MULTIPROCESSORS) * counts["warps"]  # of a multiprocessor
        cycles = max(counts["instructions"] / ISSUE, 8 * counts["special"]) / SCHEDULERS
        times += [warps * max(cycles, counts["memory"]) / CLOCK]
    return max(times)


def summarise(recorder: Recorder, counts: dict[Any, dict[str, int]]) -> list[dict[str, Any]]:
    """Return a row for each kernel of each stage."""
    rows = []
    for stage, kernel in dict.fromkeys((event.stage, event.kernel) for event in recorder.events):
        events = [e for e in recorder.events if (e.stage, e.kernel) == (stage, kernel)]
        executed = [
            event.programs * counts[event.signature]["warps"] * counts[event.signature]["instructions"]
            for event in events
            if event.signature is not None
        ]
        seconds = [predict_seconds(event, counts.get(event.signature)) for event in events]
        rows.append(
            {
                "stage": stage,
                "kernel": kernel,
                "launches": len(events),
                "million_instructions": f"{sum(executed) / 1e6:.2f}",
                "mb": f"{sum(event.bytes for event in events) / 1e6:.1f}",
                "device_ms": f"{sum(seconds) * 1e3:.3f}",
                "stage_host_ms": f"{recorder.host.get(stage, 0.0) * 1e3:.3f}",
            }
        )
    return rows


def main() -> None:
    """Predict all cases, and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guard = build_guard(folder)
        for preset_name, size in CASES:
            recorder = record(preset_name, size, guard)
            version, counts = count_instructions(recorder.events, folder)
            case = {"preset": preset_name, "size": "x".join(map(str, size)), "triton": version}
            rows += [{**case, **row} for row in summarise(recorder, counts)]
    with OUTPUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
