"""Quality of registrations: measures, a verdict, and pages that show them."""

from convexadam.report.quality import QualityMeasures, measure_quality
from convexadam.report.verdict import Verdict, judge_quality

__all__ = ["QualityMeasures", "Verdict", "judge_quality", "measure_quality"]
