"""Worker: joint label fusion of ANTs, in an environment that has ``antspyx``.

It writes the fused labels and the CPU seconds of the call, which runs ``antsJointFusion`` on the given arrays.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import ants
import harness
import numpy as np

SETTINGS = {"beta": 4, "rad": 2, "rho": 0.01, "r_search": 3}
"""The defaults of ``ants.joint_label_fusion``, and the search of the others."""


def main() -> None:
    """Fuse the block of the job."""
    job = harness.read_job()

    def convert(values: np.ndarray) -> ants.ANTsImage:
        return ants.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    with np.load(job["block"]) as archive:
        target, images, labels = archive["target"], archive["images"], archive["labels"]
    mask = (labels > 0).any(0)
    start = os.times()
    result = ants.joint_label_fusion(
        convert(target), convert(mask), list(map(convert, images)), label_list=list(map(convert, labels)), **SETTINGS
    )
    end = os.times()
    np.savez_compressed(job["labels"], labels=result["segmentation"].numpy().round().astype(np.int32))
    seconds = end.user + end.children_user - start.user - start.children_user
    Path(job["measured"]).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
