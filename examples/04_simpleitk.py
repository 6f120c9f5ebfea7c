# %% [markdown]
"""# From SimpleITK and back

SimpleITK uses millimetres LPS and arrays `[k, j, i]`. Both are converted in both directions.
"""

# %%
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from convexadam import register, write_transform
from convexadam.data import phantom_pair
from convexadam.geometry import resample
from convexadam.io import convert_image

# %% [markdown]
# Two images of SimpleITK: an oblique fixed image, and a moving image on another grid.

# %%
turn = sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.05)
direction = np.reshape(turn.GetMatrix(), (3, 3))
affine = np.eye(4)
affine[:3, :3], affine[:3, 3] = direction @ np.diag([7.0, 6.5, 8.0]), direction @ [-200, -150, -140]
pair = phantom_pair((58, 46, 36), affine=affine, contrasts=("ct", "t1"), displacement_mm=18, seed=2)
fixed = convert_image(pair.fixed, sitk.Image)
moving = convert_image(resample(pair.moving, pair.moving.grid.canonical().with_spacing((7.0, 7.0, 7.0))), sitk.Image)
print("fixed", fixed.GetSize(), "moving", moving.GetSize())

# %% [markdown]
# `to_type` converts the moved image, on the grid of the fixed image, to SimpleITK.

# %%
result = register(fixed, moving)
moved = result.to_type(sitk.Image)
assert moved.GetSize() == fixed.GetSize()

# %% [markdown]
# The transform as a file that SimpleITK reads, and the same image from `sitk.Resample`.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "transform.h5"
    write_transform(result.transform, path)
    by_itk = sitk.Resample(
        moving, fixed, sitk.ReadTransform(str(path)), sitk.sitkLinear, float(result.moved.data.min())
    )

moved_array, itk_array = sitk.GetArrayViewFromImage(moved), sitk.GetArrayViewFromImage(by_itk)
inner = (slice(2, -2),) * 3  # the two differ in the margin of the field of view
difference = np.abs(moved_array - itk_array)[inner] / np.ptp(moved_array)
print(f"largest difference to SimpleITK {difference.max():.1e} of the range, mean {difference.mean():.1e}")
assert np.quantile(difference, 0.99) < 1e-3
