"""Quality of registrations: measures, a verdict, and pages that show them."""

from convexadam.report.folder import write_report
from convexadam.report.pair_page import PairReport, write_pair_page
from convexadam.report.quality import QualityMeasures, measure_quality, mirror_image
from convexadam.report.verdict import Verdict, judge_quality

__all__ = [
    "PairReport",
    "QualityMeasures",
    "Verdict",
    "judge_quality",
    "measure_quality",
    "mirror_image",
    "write_pair_page",
    "write_report",
]
