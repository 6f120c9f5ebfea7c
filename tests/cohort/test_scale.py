"""What thousands of pairs cost beside their registration; `benchmarks/cohort.py` measures ten thousand."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from stub import stub_registration
from studies import rows

from convexadam.cohort import PairFiles, register_cohort

_MOST_S = 5e-3
"""For each pair: scheduling, reading its record or writing it, and its row."""

_MOST_BYTES = 20_000
"""For each pair, of its files, job and outcome; images are thousands of times larger."""


def test_time_and_memory_of_each_pair(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_registration(monkeypatch)
    # a linear registration writes a matrix, which costs next to nothing
    pairs = [
        PairFiles(id=f"{n:05d}", fixed=images / "a.nii.gz", moving=images / "b.nii.gz", preset="rigid")
        for n in range(140)
    ]

    def run(count: int) -> float:
        start = time.process_time()
        done = sum(1 for _ in register_cohort(pairs[:count], output_dir=tmp_path, outputs=("transform",)))
        assert done == count
        return time.process_time() - start

    run(40)  # imports, and what is kept of the fixed image
    new_s = (run(140) - run(140)) / 100  # 100 new ones; then all are kept
    kept_s = run(140) / 140
    assert kept_s < _MOST_S
    assert new_s < 2 * _MOST_S  # with reading an image and writing a report
    peaks = []
    for count in (40, 140):
        tracemalloc.start()
        run(count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100 * _MOST_BYTES
    assert len(rows(tmp_path)) == 140
