"""Files of images, transforms and landmarks, and conversion from and to other packages."""

from convexadam._atomic import atomic_path
from convexadam.io.convert import as_image, convert_image, has_affine
from convexadam.io.fields import read_itk_field, read_nifti_field, write_itk_field, write_nifti_field
from convexadam.io.formats import (
    ENTRY_POINT_GROUP,
    formats_markdown,
    get_format,
    register_format,
    transform_formats,
    unregister_format,
)
from convexadam.io.fsl import read_fsl, write_fsl
from convexadam.io.images import check_image_name, read_image, write_image
from convexadam.io.itk_transforms import write_itk_transform
from convexadam.io.landmark_table import LandmarkFile
from convexadam.io.landmarks import read_landmark_file, read_landmarks, read_landmarks_mm, write_landmarks
from convexadam.io.learn2reg import (
    read_learn2reg,
    read_learn2reg_2021,
    read_learn2reg_voxels,
    write_learn2reg,
    write_learn2reg_2021,
)
from convexadam.io.learn2reg_checks import check_learn2reg, check_learn2reg_2021, check_learn2reg_name
from convexadam.io.manifest import PairFiles, read_manifest
from convexadam.io.nifti_placement import use_header
from convexadam.io.scans import ScanFiles, read_scans
from convexadam.io.torch_grid import from_torch_grid, read_torch_grid, to_torch_grid, write_torch_grid
from convexadam.io.transform_format import FileHeader, NiftiHeader, Possible, TransformFormat, Unusable
from convexadam.io.transforms import check_transform_name, read_transform, write_transform
from convexadam.io.x5 import read_x5, write_x5

__all__ = [
    "ENTRY_POINT_GROUP",
    "FileHeader",
    "LandmarkFile",
    "NiftiHeader",
    "PairFiles",
    "Possible",
    "ScanFiles",
    "TransformFormat",
    "Unusable",
    "as_image",
    "atomic_path",
    "check_image_name",
    "check_learn2reg",
    "check_learn2reg_2021",
    "check_learn2reg_name",
    "check_transform_name",
    "convert_image",
    "formats_markdown",
    "from_torch_grid",
    "get_format",
    "has_affine",
    "read_fsl",
    "read_image",
    "read_itk_field",
    "read_landmark_file",
    "read_landmarks",
    "read_landmarks_mm",
    "read_learn2reg",
    "read_learn2reg_2021",
    "read_learn2reg_voxels",
    "read_manifest",
    "read_nifti_field",
    "read_scans",
    "read_torch_grid",
    "read_transform",
    "read_x5",
    "register_format",
    "to_torch_grid",
    "transform_formats",
    "unregister_format",
    "use_header",
    "write_fsl",
    "write_image",
    "write_itk_field",
    "write_itk_transform",
    "write_landmarks",
    "write_learn2reg",
    "write_learn2reg_2021",
    "write_nifti_field",
    "write_torch_grid",
    "write_transform",
    "write_x5",
]
