"""Registration of the frames of a time series.

The output folder holds ``moved.nii.gz``, all frames on the grid of the reference; ``mean.nii.gz``, their average;
``motion.csv``, one row for each frame (see `FrameMotion`); and ``transforms/``, that from the reference to each frame.
"""

from convexadam.series.frames import FrameSeries, read_series, write_series
from convexadam.series.motion import FrameMotion, measure_motion
from convexadam.series.register import Order, SeriesResult, register_series

__all__ = [
    "FrameMotion",
    "FrameSeries",
    "Order",
    "SeriesResult",
    "measure_motion",
    "read_series",
    "register_series",
    "write_series",
]
