"""The whole pipeline: settings, `register`, and what it returns."""

from convexadam.registration.config import RegistrationConfig
from convexadam.registration.foreground import AutoForeground
from convexadam.registration.guide import LandmarkGuide
from convexadam.registration.memory import estimate_memory
from convexadam.registration.presets import preset
from convexadam.registration.register import register
from convexadam.registration.result import RegistrationResult
from convexadam.registration.working_grid import GivenGrid, IsotropicGrid

__all__ = [
    "AutoForeground",
    "GivenGrid",
    "IsotropicGrid",
    "LandmarkGuide",
    "RegistrationConfig",
    "RegistrationResult",
    "estimate_memory",
    "preset",
    "register",
]
