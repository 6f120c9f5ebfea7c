"""Figures of images, transforms and registrations, and what notebooks show of them.

Importing this package registers what `Image._repr_html_` and the like call, see `convexadam.geometry.delegates`.
"""

from convexadam.viz import images, transforms  # noqa: F401 - they register their functions
from convexadam.viz.figures import registration_figure
from convexadam.viz.viewer import view

__all__ = ["registration_figure", "view"]
