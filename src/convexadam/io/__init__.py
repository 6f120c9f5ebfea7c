"""Files and foreign objects: images, transforms of any program, landmarks."""

from convexadam._atomic import atomic_path
from convexadam.io.convert import as_image, has_affine, image_as
from convexadam.io.detect import TransformFormat
from convexadam.io.fields import read_itk_field, read_nifti_field, write_itk_field, write_nifti_field
from convexadam.io.fsl import read_fsl, write_fsl
from convexadam.io.images import read_image, write_image
from convexadam.io.itk_transforms import write_itk_transform
from convexadam.io.landmarks import read_landmarks, write_landmarks
from convexadam.io.learn2reg import (
    check_learn2reg,
    check_learn2reg_2021,
    check_learn2reg_name,
    learn2reg_voxels,
    read_learn2reg,
    read_learn2reg_2021,
    write_learn2reg,
    write_learn2reg_2021,
)
from convexadam.io.manifest import PairFiles, read_manifest
from convexadam.io.torch_grid import from_torch_grid, read_torch_grid, to_torch_grid, write_torch_grid
from convexadam.io.transforms import read_transform, write_transform
from convexadam.io.x5 import read_x5, write_x5

__all__ = [
    "PairFiles",
    "TransformFormat",
    "as_image",
    "atomic_path",
    "check_learn2reg",
    "check_learn2reg_2021",
    "check_learn2reg_name",
    "from_torch_grid",
    "has_affine",
    "image_as",
    "learn2reg_voxels",
    "read_fsl",
    "read_image",
    "read_itk_field",
    "read_landmarks",
    "read_learn2reg",
    "read_learn2reg_2021",
    "read_manifest",
    "read_nifti_field",
    "read_torch_grid",
    "read_transform",
    "read_x5",
    "to_torch_grid",
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
