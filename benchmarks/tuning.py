"""What a self-configuration takes beside its settings tried one by one, each from the files to the figures.

Draws of a space are tried on a phantom of the size of a brain, as `convexadam.tuning` does it and alone; from the time
of a draw follows that of the whole search. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pickle
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
import torch

import convexadam
from convexadam import RegistrationConfig, preset, read_image, register
from convexadam.data import phantom_pair
from convexadam.io import PairFiles, read_landmarks, write_image, write_landmarks
from convexadam.metrics import evaluate_transform
from convexadam.tuning import SPACES, Bench, Space
from convexadam.tuning.space import Draw, Stage, without_refinement

HERE = Path(__file__).resolve().parent
COLUMNS = (
    "space", "judged_by", "shape", "pairs", "draws", "settings", "measured", "reused_seconds", "alone_seconds", "times",
    "start_seconds", "times_with_start", "version", "threads", "environment",
)  # fmt: skip
KEY = ("space", "judged_by", "shape")


def written(folder: Path, shape: tuple[int, int, int], judged_by: str) -> PairFiles:
    """Write a phantom as it would lie on disk."""
    folder.mkdir()
    pair = phantom_pair(shape)
    for kind in ("fixed", "moving", "fixed_labels", "moving_labels"):
        write_image(getattr(pair, kind), folder / f"{kind}.nii.gz")
    for side in ("fixed", "moving"):
        points = getattr(pair, side).grid.to_voxels(getattr(pair, f"{side}_landmarks_mm"))
        write_landmarks(points, folder / f"{side}_landmarks.csv")
    ending = ".nii.gz" if judged_by == "labels" else ".csv"
    truth = {f"{side}_{judged_by}": folder / f"{side}_{judged_by}{ending}" for side in ("fixed", "moving")}
    return PairFiles(name="phantom", fixed=folder / "fixed.nii.gz", moving=folder / "moving.nii.gz", **truth)


def alone(files: PairFiles, config: RegistrationConfig) -> None:
    """Try settings as somebody would without a bench: read, register, judge."""
    transform = register(files.fixed, files.moving, config).transform
    if files.fixed_labels is not None and files.moving_labels is not None:
        labels = {"fixed_labels": read_image(files.fixed_labels), "moving_labels": read_image(files.moving_labels)}
        evaluate_transform(transform, **labels)
    if files.fixed_landmarks is not None and files.moving_landmarks is not None:
        fixed, moving = (read_image(path).grid for path in (files.fixed, files.moving))
        points = (
            fixed.to_mm(read_landmarks(files.fixed_landmarks)),
            moving.to_mm(read_landmarks(files.moving_landmarks)),
        )
        evaluate_transform(transform, fixed_landmarks_mm=points[0], moving_landmarks_mm=points[1])


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def chosen(stage: Stage, base: RegistrationConfig, count: int) -> list[Draw]:
    """Return the first draws of a stage, of each kind in turn, as the stage has them."""
    draws = list(itertools.islice(stage.drawn(base, random.Random(0)), stage.draws))
    by_kind = [[draw for draw in draws if draw.kind == kind] for kind in stage.kinds]
    return [draw for draw in itertools.chain(*itertools.zip_longest(*by_kind)) if draw is not None][:count]


def start_seconds(small: PairFiles) -> float:
    """Return what a process of its own takes more than a call, for the same small pair."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pickle, tuning; "
    code += "tuning.alone(pickle.loads(bytes.fromhex(sys.argv[2])), tuning.preset('published'))"
    library = str(Path(convexadam.__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([library, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, str(HERE), pickle.dumps(small).hex()]
    process = statistics.median(seconds(lambda: subprocess.run(command, check=True, env=env)) for _ in range(3))
    return process - seconds(lambda: alone(small, preset("published")))


def measured(space: Space, files: PairFiles, small: PairFiles, counts: Sequence[int]) -> tuple[float, float, int]:
    """Seconds of the whole search on one pair, reused and alone, and how many settings there are."""
    bench, reused, one_by_one, settings = Bench([files]), 0.0, 0.0, 0.0
    for stage, count in zip(space.stages, counts, strict=True):  # what first calls load or compile is not counted
        for draw in chosen(stage, space.base, count):
            Bench([small]).try_out(draw.applied(space.base), draw.kind.read_off)
    alone(small, space.base)
    for stage, count in zip(space.stages, counts, strict=True):
        times: dict[str, list[tuple[float, float, int]]] = {}
        for draw in chosen(stage, space.base, count):
            config = draw.applied(space.base)
            config = without_refinement(config) if stage.name == "discrete" else config
            read_off = draw.kind.read_off
            shown = read_off.variants(config)
            together = seconds(lambda config=config, read_off=read_off: bench.try_out(config, read_off))
            # of settings that one run shows: those of the fewest and of the most steps
            ends = dict.fromkeys((shown[0], shown[-1]))
            apart = statistics.mean(seconds(lambda config=config: alone(files, config)) for config in ends) * len(shown)
            times.setdefault(draw.kind.name, []).append((together, apart, len(shown)))
            harness.progress(f"  {stage.name} {draw.changes()}: {together:.1f} s for {apart:.1f} s alone")
        kinds = [kind for kind in stage.kinds if kind.name in times]
        for kind in kinds:
            draws = stage.draws * kind.share / sum(other.share for other in kinds)
            means = [statistics.mean(column) for column in zip(*times[kind.name], strict=True)]
            reused, one_by_one, settings = (
                total + draws * mean for total, mean in zip((reused, one_by_one, settings), means, strict=True)
            )
    return reused, one_by_one, round(settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="published", choices=SPACES)
    parser.add_argument("--judged-by", default="labels", choices=("labels", "landmarks"))
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 192, 224), metavar="N")
    parser.add_argument("--measure", type=int, nargs=2, default=(8, 8), metavar="N", help="draws of each stage")
    parser.add_argument("--pairs", type=int, default=4, metavar="N", help="pairs of the whole search (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "tuning.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    space = Space.load(options.space)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("pair", "small")]
        shapes = [tuple(options.shape), (24, 22, 20)]
        files, small = (written(p, s, options.judged_by) for p, s in zip(places, shapes, strict=True))
        reused, one_by_one, settings = measured(space, files, small, options.measure)
        start = start_seconds(small)
    row = {
        "space": options.space,
        "judged_by": options.judged_by,
        "shape": "x".join(map(str, options.shape)),
        "pairs": str(options.pairs),
        "draws": "+".join(str(stage.draws) for stage in space.stages),
        "settings": str(settings),
        "measured": "+".join(map(str, options.measure)),
        "reused_seconds": f"{reused * options.pairs:.0f}",
        "alone_seconds": f"{one_by_one * options.pairs:.0f}",
        "times": f"{one_by_one / reused:.1f}",
        "start_seconds": f"{start:.1f}",
        "times_with_start": f"{(one_by_one + settings * start) / reused:.1f}",
        "version": convexadam.__version__,
        "threads": str(torch.get_num_threads()),
        "environment": f"{harness.cpu_model()}, {harness.cores()} cores; torch {torch.__version__}",
    }
    rows = harness.merged_rows(harness.read_rows(options.output, COLUMNS), [row], KEY)
    harness.write_rows(options.output, COLUMNS, rows)
    harness.print_table("whole searches", COLUMNS[:-1], [[row[column] for column in COLUMNS[:-1]] for row in rows])


if __name__ == "__main__":
    main()
