"""Figures of images, transforms and registrations."""

from convexadam.viz.figures import new_figure, registration_figure
from convexadam.viz.slices import robust_window

__all__ = ["new_figure", "registration_figure", "robust_window"]
