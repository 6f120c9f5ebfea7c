"""Figures of images, transforms and registrations, and what notebooks show of them.

Importing this package registers what `Image._repr_html_` and the like call, see `convexadam.geometry.delegates`.
"""

from convexadam.viz.canvas import new_figure
from convexadam.viz.figures import registration_figure
from convexadam.viz.images import make_image_html
from convexadam.viz.slices import robust_window
from convexadam.viz.transforms import make_transform_html

__all__ = ["make_image_html", "make_transform_html", "new_figure", "registration_figure", "robust_window"]
