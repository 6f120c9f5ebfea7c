"""Files and foreign objects: NIfTI, ITK/ANTs and Learn2Reg fields, landmarks."""

from convexadam.io.atomic import atomic_path
from convexadam.io.convert import as_image
from convexadam.io.fields import check_learn2reg_name, read_itk_field, read_learn2reg, write_itk_field, write_learn2reg
from convexadam.io.landmarks import read_landmarks, write_landmarks
from convexadam.io.nifti import read_image, write_image

__all__ = [
    "as_image",
    "atomic_path",
    "check_learn2reg_name",
    "read_image",
    "read_itk_field",
    "read_landmarks",
    "read_learn2reg",
    "write_image",
    "write_itk_field",
    "write_landmarks",
    "write_learn2reg",
]
