"""Deformable registration of 3-D medical images: ConvexAdam, in millimetres.

>>> from convexadam import register
>>> result = register("fixed.nii.gz", "moving.nii.gz")  # doctest: +SKIP
>>> result.moved, result.transform  # doctest: +SKIP
"""

from convexadam._version import VERSION
from convexadam.continuous import Refinement
from convexadam.discrete import ConvexSearch
from convexadam.errors import (
    ConfigError,
    ConvexAdamError,
    FileError,
    GeometryError,
    InputError,
    MissingExtraError,
    OutOfMemoryError,
)
from convexadam.features import Concat, Features, Intensity, MindSSC, Precomputed
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Image, compose
from convexadam.io import as_image, read_image, read_transform, write_image, write_transform
from convexadam.kernels import use_backend
from convexadam.registration import (
    IsotropicGrid,
    LandmarkTerm,
    NativeGrid,
    RegistrationConfig,
    RegistrationResult,
    estimate_memory,
    preset,
    register,
    register_batch,
)
from convexadam.viz import view  # this import also lets images and transforms show themselves

__version__ = VERSION

__all__ = [
    "Affine",
    "Composite",
    "Concat",
    "ConfigError",
    "ConvexAdamError",
    "ConvexSearch",
    "DisplacementField",
    "Features",
    "FileError",
    "GeometryError",
    "Grid",
    "Image",
    "InputError",
    "Intensity",
    "IsotropicGrid",
    "LandmarkTerm",
    "MindSSC",
    "MissingExtraError",
    "NativeGrid",
    "OutOfMemoryError",
    "Precomputed",
    "Refinement",
    "RegistrationConfig",
    "RegistrationResult",
    "as_image",
    "compose",
    "estimate_memory",
    "preset",
    "read_image",
    "read_transform",
    "register",
    "register_batch",
    "use_backend",
    "view",
    "write_image",
    "write_transform",
]
