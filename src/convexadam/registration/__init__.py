"""The whole pipeline: settings, `register`, and what it returns."""

from convexadam.registration.batch import register_batch
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.foreground import AutoForeground, MaskEstimator
from convexadam.registration.landmarks import LandmarkTerm
from convexadam.registration.memory import estimate_memory
from convexadam.registration.prepared import PreparedImage, prepare
from convexadam.registration.presets import Preset, preset, preset_names, preset_table, register_preset
from convexadam.registration.register import register
from convexadam.registration.result import RegistrationResult
from convexadam.registration.working_grid import IsotropicGrid, NativeGrid, WorkingGrid

__all__ = [
    "AutoForeground",
    "IsotropicGrid",
    "LandmarkTerm",
    "MaskEstimator",
    "NativeGrid",
    "PreparedImage",
    "Preset",
    "RegistrationConfig",
    "RegistrationResult",
    "WorkingGrid",
    "estimate_memory",
    "prepare",
    "preset",
    "preset_names",
    "preset_table",
    "register",
    "register_batch",
    "register_preset",
]
