"""Files of other programs that are known by their content, but not read: what they are, and what to do."""

from __future__ import annotations

import re

_FOREIGN = (
    (
        re.compile(rb"^\(\w+ [^)]*\)\s*$.*^\(\w+ |^\(Transform ", re.MULTILINE | re.DOTALL),
        "holds parameters of elastix",
        "write its field with transformix -def all -tp FILE, and read deformationField.nii",
    ),
    (
        re.compile(rb"^type\s*=\s*\d+.*^nxforms\s*=", re.MULTILINE | re.DOTALL),
        "holds a linear transform of FreeSurfer (LTA)",
        "convert it with lta_convert --inlta FILE --outitk OUT.txt",
    ),
    (
        re.compile(rb"^MNI Transform File"),
        "holds a transform of MINC (XFM)",
        "convert it with lta_convert --inmni FILE --outitk OUT.txt",
    ),
    (
        re.compile(rb"^# Markups fiducial file version|^\s*\{.*\"markups\"", re.DOTALL),
        "holds landmarks of Slicer",
        "read them with read_landmarks_mm",
    ),
    (
        re.compile(rb"^(point|index)\s*\n\s*\d+\s*\n"),
        "holds points of elastix",
        "write them as CSV, three numbers per line",
    ),
    (re.compile(rb"^vtk DataFile|^# vtk DataFile"), "holds VTK data", "convert it to .nii.gz with ITK or ParaView"),
    (re.compile(rb"^CDF[\x01\x02]"), "holds MINC 1 data", "convert it with mnc2nii"),
)


def explain_foreign(head: bytes) -> tuple[str, str] | None:
    """Return what a file with these first bytes holds, as a verb phrase, and what to do; ``None`` if unknown."""
    return next(((problem, advice) for pattern, problem, advice in _FOREIGN if pattern.search(head)), None)
