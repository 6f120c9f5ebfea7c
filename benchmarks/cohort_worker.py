"""Worker: a process of ``cohort.py`` that registers as often as it is told, and says when it began and ended."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import convexadam.kernels._waiting
from convexadam import Affine, Image, RegistrationConfig, register
from convexadam.cohort import PairFiles, register_cohort
from convexadam.data import phantom_pair
from convexadam.io import read_image, write_image
from convexadam.registration import RegistrationResult, prepare
from convexadam.report import QualityMeasures


def make_task(name: str, folder: Path, arguments: list[str]) -> Callable[[], Any]:
    """Return what is repeated."""
    files = folder / "fixed.nii.gz", folder / "moving.nii.gz"
    if name == "scale":
        return lambda: register_stubs(folder, int(arguments[0]))
    if name == "files":
        return lambda: register(*files)
    if name == "prepared":
        prepared = prepare(files[0])
        return lambda: prepared.register(files[1])
    fixed, moving = map(read_image, files)
    return lambda: register(fixed, moving)


def register_stubs(folder: Path, count: int) -> None:
    """Register a cohort of small pairs with a stub in place of the registration."""
    if not (folder / "small.nii.gz").exists():
        write_image(phantom_pair((16, 16, 16)).fixed, folder / "small.nii.gz")
    image = folder / "small.nii.gz"
    pairs = [PairFiles(id=f"{n:06d}", fixed=image, moving=image, preset="rigid") for n in range(count)]
    config, unknown = RegistrationConfig(), {item.name: math.nan for item in fields(QualityMeasures)}
    quality = QualityMeasures(**unknown)

    def stub(prepared: Any, moving: Image, **_: Any) -> RegistrationResult:
        return RegistrationResult(
            transform=Affine(), fixed=prepared.fixed, moving=moving, config=config, timings={}, diagnostics={}
        )

    with (
        mock.patch("convexadam.registration.PreparedImage.register", stub),
        mock.patch("convexadam.cohort.job.measure_quality", lambda *_, **__: quality),
    ):
        for _ in register_cohort(pairs, output_dir=folder / "cohort", outputs=("transform",)):
            pass


def main() -> None:
    """Repeat the task for each number that is read, after one time that does not count."""
    name, *arguments = [argument for argument in sys.argv[2:] if not argument.startswith("--")]
    if "--spin" in sys.argv:
        convexadam.kernels._waiting.passive_waiting = contextlib.nullcontext  # type: ignore[assignment]
    task = make_task(name, Path(sys.argv[1]), arguments)
    if name != "scale":
        task()
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        if "--memory" in sys.argv:
            tracemalloc.start()
        start, cpu = time.time(), time.process_time()
        for _ in range(int(line)):
            task()
        found = {"start": start, "end": time.time(), "cpu": time.process_time() - cpu, "memory": 0.0}
        if "--memory" in sys.argv:
            found["memory"] = float(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
