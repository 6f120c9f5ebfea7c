"""Registration of many pairs: on several processes or machines, and after any interruption from where it ended.

The output folder holds

- ``cohort.json``: settings, versions, the command, and how the pairs were given;
- ``cohort.csv``: one row for each pair, written as the pair ends (see `COLUMNS`);
- ``pairs/ID/`` for each pair, complete or absent: ``transform.nii.gz`` (or ``transform.tfm``, if the registration is
  linear alone), ``inverse_transform.*``, ``moved.nii.gz`` and ``moved_labels.nii.gz``, as they are to be kept (``.nii``
  without compression); and
  ``report.json``, as ``convexadam register`` writes it, with the absolute paths of the files under ``inputs``, the
  `convexadam.report.QualityMeasures` under ``quality``, the scores by labels and landmarks under ``scores``, and under
  ``cohort`` by what it is told whether the pair has to be registered again.
"""

from convexadam.cohort.cohort import register_cohort
from convexadam.cohort.derivatives import write_derivatives
from convexadam.cohort.outcome import CohortOutcome
from convexadam.cohort.plan import CohortPlan, plan_cohort
from convexadam.cohort.selection import pair_all, pair_bids, pair_with_fixed
from convexadam.cohort.table import COLUMNS
from convexadam.io import PairFiles

__all__ = [
    "COLUMNS",
    "CohortOutcome",
    "CohortPlan",
    "PairFiles",
    "pair_all",
    "pair_bids",
    "pair_with_fixed",
    "plan_cohort",
    "register_cohort",
    "write_derivatives",
]
