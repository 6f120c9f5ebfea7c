"""Time of a self-configuration, compared with the evaluation of each of its settings separately, from files to metrics.

Samples of a space are evaluated on a phantom of the size of a brain, by `convexadam.tuning` and separately; the time of
the whole search is extrapolated from them. See ``benchmarks/README.md``.
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
from convexadam.tuning import SPACES, Evaluator, Space
from convexadam.tuning.space import Sample, Stage, remove_refinement

HERE = Path(__file__).resolve().parent
COLUMNS = (
    "space", "judged_by", "shape", "pairs", "samples", "settings", "measured", "shared_seconds", "separate_seconds",
    "times", "start_seconds", "times_with_start", "version", "threads", "environment",
)  # fmt: skip
KEY = ("space", "judged_by", "shape")


def write_pair(folder: Path, shape: tuple[int, int, int], judged_by: str) -> PairFiles:
    """Write a phantom with labels and landmarks."""
    folder.mkdir()
    pair = phantom_pair(shape)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        write_image(getattr(pair, name), folder / f"{name}.nii.gz")
    for side in ("fixed", "moving"):
        points = getattr(pair, side).grid.world_to_index(getattr(pair, f"{side}_landmarks_mm"))
        write_landmarks(points, folder / f"{side}_landmarks.csv")
    ending = ".nii.gz" if judged_by == "labels" else ".csv"
    reference = {f"{side}_{judged_by}": folder / f"{side}_{judged_by}{ending}" for side in ("fixed", "moving")}
    return PairFiles(id="phantom", fixed=folder / "fixed.nii.gz", moving=folder / "moving.nii.gz", **reference)


def evaluate_separately(files: PairFiles, config: RegistrationConfig) -> None:
    """Evaluate settings without an `Evaluator`: read, register, compute metrics."""
    transform = register(files.fixed, files.moving, config).transform
    if files.fixed_labels is not None and files.moving_labels is not None:
        labels = {"fixed_labels": read_image(files.fixed_labels), "moving_labels": read_image(files.moving_labels)}
        evaluate_transform(transform, **labels)
    if files.fixed_landmarks is not None and files.moving_landmarks is not None:
        fixed, moving = (read_image(path).grid for path in (files.fixed, files.moving))
        points = (
            fixed.index_to_world(read_landmarks(files.fixed_landmarks)),
            moving.index_to_world(read_landmarks(files.moving_landmarks)),
        )
        evaluate_transform(transform, fixed_landmarks_mm=points[0], moving_landmarks_mm=points[1])


def measure_seconds(call: Callable[[], object]) -> float:
    """Return the time that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def select_samples(stage: Stage, base: RegistrationConfig, count: int) -> list[Sample]:
    """Return the first samples of a stage, one of each variant in turn."""
    samples = list(itertools.islice(stage.iterate_samples(base, random.Random(0)), stage.samples))
    by_variant = [[sample for sample in samples if sample.variant == variant] for variant in stage.variants]
    return [sample for sample in itertools.chain(*itertools.zip_longest(*by_variant)) if sample is not None][:count]


def measure_start(small: PairFiles) -> float:
    """Return the additional time of a separate process, compared with a call for the same small pair."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pickle, tuning; "
    code += "tuning.evaluate_separately(pickle.loads(bytes.fromhex(sys.argv[2])), tuning.preset('published'))"
    library = str(Path(convexadam.__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([library, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, str(HERE), pickle.dumps(small).hex()]
    process = statistics.median(measure_seconds(lambda: subprocess.run(command, check=True, env=env)) for _ in range(3))
    return process - measure_seconds(lambda: evaluate_separately(small, preset("published")))


def measure_search(space: Space, files: PairFiles, small: PairFiles, counts: Sequence[int]) -> tuple[float, float, int]:
    """Return the seconds of the whole search on one pair, shared and separate, and the number of settings."""
    evaluator, shared, separate, settings = Evaluator([files]), 0.0, 0.0, 0.0
    for stage, count in zip(space.stages, counts, strict=True):  # first calls load and compile
        for sample in select_samples(stage, space.base, count):
            Evaluator([small]).evaluate(sample.apply(space.base), sample.variant.checkpoints)
    evaluate_separately(small, space.base)
    for stage, count in zip(space.stages, counts, strict=True):
        times: dict[str, list[tuple[float, float, int]]] = {}
        for sample in select_samples(stage, space.base, count):
            config = sample.apply(space.base)
            config = remove_refinement(config) if stage.name == "discrete" else config
            checkpoints = sample.variant.checkpoints
            configs = checkpoints.configs(config)
            shared_s = measure_seconds(
                lambda config=config, checkpoints=checkpoints: evaluator.evaluate(config, checkpoints)
            )
            # of the checkpoints of a run: those of the fewest and of the most iterations
            ends = dict.fromkeys((configs[0], configs[-1]))
            separate_s = statistics.mean(
                measure_seconds(lambda config=config: evaluate_separately(files, config)) for config in ends
            ) * len(configs)
            times.setdefault(sample.variant.name, []).append((shared_s, separate_s, len(configs)))
            harness.progress(f"  {stage.name} {sample.changes}: {shared_s:.1f} s, {separate_s:.1f} s separately")
        variants = [variant for variant in stage.variants if variant.name in times]
        for variant in variants:
            samples = stage.samples * variant.share / sum(v.share for v in variants)
            means = [statistics.mean(column) for column in zip(*times[variant.name], strict=True)]
            shared, separate, settings = (
                total + samples * mean for total, mean in zip((shared, separate, settings), means, strict=True)
            )
    return shared, separate, round(settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, save and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="published", choices=SPACES)
    parser.add_argument("--judged-by", default="labels", choices=("labels", "landmarks"))
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 192, 224), metavar="N")
    parser.add_argument("--measure", type=int, nargs=2, default=(8, 8), metavar="N", help="samples of each stage")
    parser.add_argument("--pairs", type=int, default=4, metavar="N", help="pairs of the whole search (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "tuning.csv", metavar="CSV")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    space = Space.load(options.space)
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / name for name in ("pair", "small")]
        shapes = [tuple(options.shape), (24, 22, 20)]
        files, small = (write_pair(p, s, options.judged_by) for p, s in zip(folders, shapes, strict=True))
        shared, separate, settings = measure_search(space, files, small, options.measure)
        start = measure_start(small)
    row = {
        "space": options.space,
        "judged_by": options.judged_by,
        "shape": "x".join(map(str, options.shape)),
        "pairs": str(options.pairs),
        "samples": "+".join(str(stage.samples) for stage in space.stages),
        "settings": str(settings),
        "measured": "+".join(map(str, options.measure)),
        "shared_seconds": f"{shared * options.pairs:.0f}",
        "separate_seconds": f"{separate * options.pairs:.0f}",
        "times": f"{separate / shared:.1f}",
        "start_seconds": f"{start:.1f}",
        "times_with_start": f"{(separate + settings * start) / shared:.1f}",
        "version": convexadam.__version__,
        "threads": str(torch.get_num_threads()),
        "environment": f"{harness.cpu_model()}, {harness.cores()} cores; torch {torch.__version__}",
    }
    rows = harness.merged_rows(harness.read_rows(options.output, COLUMNS), [row], KEY)
    harness.write_rows(options.output, COLUMNS, rows)
    harness.print_table("whole searches", COLUMNS[:-1], [[row[column] for column in COLUMNS[:-1]] for row in rows])


if __name__ == "__main__":
    main()
