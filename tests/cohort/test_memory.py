"""A pair for which there is too little memory fails, and the others are registered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convexadam import Image, write_image

CODE = """
import json, resource, sys
from convexadam import RegistrationConfig
from convexadam.cohort import PairFiles, register_cohort

def run(names):
    pairs = [PairFiles(id=n, fixed=f"{n}.nii", moving=f"{n}.nii") for n in names]
    config = RegistrationConfig(linear=None)
    found = register_cohort(pairs, config, output_dir="study", outputs=("transform",), retries=0)
    return {outcome.id: [outcome.status, outcome.error] for outcome in found}

run(["first"])  # loads what a registration needs
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 250_000_000,) * 2)
print(json.dumps(run(["large", "second"])))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_a_pair_that_does_not_fit_into_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, size in (("first", 24), ("second", 24), ("large", 224)):
        write_image(Image.from_array(random.random((size,) * 3, np.float32)), tmp_path / f"{name}.nii")
    command = [sys.executable, "-c", CODE]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    outcomes = json.loads(found.stdout.splitlines()[-1])
    assert outcomes["second"] == ["done", None]
    status, error = outcomes["large"]
    assert status == "failed"
    assert "OutOfMemoryError" in error
    rows = (tmp_path / "study" / "cohort.csv").read_text().splitlines()
    assert sorted(row.split(",")[0] for row in rows[1:]) == ["large", "second"]
